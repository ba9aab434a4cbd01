//! TAP (<https://testanything.org/tap-version-13-specification.html>): a line a case.

use std::io::{self, Write};

use crate::output::cases::cases;
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::output::text::verdict;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    let cases = cases(report);
    writeln!(out, "TAP version 13\n1..{}", cases.len())?;
    for (number, case) in cases.iter().enumerate() {
        let ok = if case.failures.is_empty() { "ok" } else { "not ok" };
        // Behind a # stands a directive, such as one to skip the case.
        let skip =
            case.skipped.as_ref().map_or(String::new(), |why| format!(" # SKIP {}", why.replace('#', " ")));
        writeln!(out, "{ok} {} - vmaudit {}{skip}", number + 1, case.name.replace('#', "\\#"))?;
        for (_, sentence) in &case.failures {
            writeln!(out, "# {sentence}")?;
        }
    }
    writeln!(out, "# vmaudit: {}", verdict(report))
}
