//! JUnit's XML, as CI systems read it. They disagree about what they show, so each name and text stands for itself.

use std::io::{self, Write};

use crate::model::report::Report;
use crate::output::cases::{Case, cases, left_out};
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::output::text::verdict;
use crate::output::xml::escaped;
use crate::text::count;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    let cases = cases(report);
    let failed = cases.iter().filter(|case| !case.failures.is_empty()).count();
    let (all, time) = (cases.len(), report.session.duration_s);
    let sums =
        format!("name=\"vmaudit\" tests=\"{all}\" failures=\"{failed}\" errors=\"0\" time=\"{time:.3}\"");
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {sums}>")?;
    let skipped = cases.iter().filter(|case| case.skipped.is_some()).count();
    let started = escaped(&report.session.started);
    writeln!(out, "  <testsuite {sums} skipped=\"{skipped}\" timestamp=\"{started}\">")?;
    for case in &cases {
        one(case, out)?;
    }
    writeln!(out, "    <system-out>{}</system-out>", escaped(&said(report)))?;
    writeln!(out, "  </testsuite>\n</testsuites>")
}

fn said(report: &Report) -> String {
    let more = match left_out(report) {
        0 => String::new(),
        more => format!(
            "\n{} without a case: the JSON has all",
            count(more, "task or mark is", "tasks and marks are")
        ),
    };
    format!("vmaudit: {}{more}", verdict(report))
}

fn one(case: &Case, out: &mut dyn Write) -> io::Result<()> {
    let name = escaped(&format!("vmaudit {}", case.name));
    let head = format!("    <testcase classname=\"vmaudit\" name=\"{name}\" time=\"0\"");
    if let Some(why) = &case.skipped {
        writeln!(out, "{head}>\n      <skipped message=\"{}\"/>", escaped(why))?;
        return writeln!(out, "    </testcase>");
    }
    let Some((shown, first)) = case.failures.first() else { return writeln!(out, "{head}/>") };
    writeln!(out, "{head}>")?;
    let kind = if *shown { "broken" } else { "not shown to hold" };
    let sentences: Vec<&str> = case.failures.iter().map(|(_, sentence)| sentence.as_str()).collect();
    let (message, all) = (escaped(first), escaped(&sentences.join("\n")));
    writeln!(out, "      <failure type=\"{kind}\" message=\"{message}\">{all}</failure>")?;
    writeln!(out, "    </testcase>")
}
