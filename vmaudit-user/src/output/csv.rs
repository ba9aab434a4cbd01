//! CSV: lines of comma-separated fields under one line of names.

use std::io::{self, Write};

use crate::model::limit::LimitReport;
use crate::model::scan::Scan;
use crate::model::vma_layout::Explanation;
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::text::clean;

/// Writes the part of `document` that is a table: of `scan` the processes, of `explain` the boundaries by reason, of `limit`
/// the lines that set it. Errors: those of `out`, and a document without one.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Scan(it) => scan(it, out),
        Document::Explanation(it, _) => explanation(it, out),
        Document::Limit(it) => limit(it, out),
        _ => Err(io::Error::other("there is no table in it")),
    }
}

/// A field. Control characters are made visible, and a text that a spreadsheet would take for a formula gets an
/// apostrophe: names come from strangers.
fn field(text: Option<&str>) -> String {
    let safe = clean(text.unwrap_or_default());
    let safe = if safe.starts_with(['=', '+', '-', '@']) { format!("'{safe}") } else { safe };
    if safe.contains([',', '"']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

fn scan(scan: &Scan, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "pid,ppid,uid,user,comm,app,exe,cgroup,vmas,percent_of_limit,exact,unreadable,unit")?;
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for process in &scan.report.processes {
        let fields = [
            process.pid.to_string(),
            number(process.ppid.map(u64::from)),
            number(process.uid.map(u64::from)),
            field(process.user.as_deref()),
            field(Some(&process.comm)),
            field(process.app.as_deref()),
            field(process.exe.as_deref()),
            field(process.cgroup.as_deref()),
            number(process.map_count.last),
            process.map_count.percent_of_limit.map(|percent| percent.to_string()).unwrap_or_default(),
            process.map_count.exact.to_string(),
            field(process.unreadable.as_deref()),
            field(process.unit.as_deref()),
        ];
        writeln!(out, "{}", fields.join(","))?;
    }
    Ok(())
}

fn explanation(it: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "boundaries,reason,example,cure")?;
    for row in &it.boundaries {
        let (reason, cure) = (field(Some(&row.title)), field(row.cure.as_deref()));
        let example = row.example.as_deref().unwrap_or_default();
        writeln!(out, "{},{reason},{example},{cure}", row.boundaries)?;
    }
    Ok(())
}

fn limit(report: &LimitReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "file,line,value,fate,lowers")?;
    for setting in &report.boot.settings {
        let file = field(Some(&setting.file.to_string_lossy()));
        let (value, fate) = (field(Some(&setting.text)), field(Some(&setting.fate.sentence())));
        writeln!(out, "{file},{},{value},{fate},{}", setting.line, setting.lowers)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_safe_in_a_spreadsheet() {
        assert_eq!(field(Some("=cmd|'x'")), "'=cmd|'x'");
        assert_eq!(field(Some("a,\"b\"\n")), "\"a,\"\"b\"\"\\x0a\"");
        assert_eq!(field(None), "");
    }
}
