//! CSV: lines of comma-separated fields under one line of names.

use std::io::{self, Write};

use crate::model::limit::LimitReport;
use crate::model::report::Report;
use crate::model::scan::Scan;
use crate::model::vma_layout::Explanation;
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::output::text::processes::failed_calls;
use crate::text::clean;

/// Writes the part of `document` that is a table: of a report and of `scan` the processes, of `explain` the boundaries by reason, of `limit`
/// the lines that set it. Errors: those of `out`, and a document without one.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Report(it) => report(it, out),
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

/// A line a process; behind them, one for each sum of processes that have no line, which says of how many.
fn report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "pid,ppid,uid,user,comm,app,exe,unit,cgroup,started_s,ended_s,first,last,peak,percent_of_limit,exact,clipped,failed,\
         unmap_leaked_bytes,processes"
    )?;
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let real = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for process in &report.processes {
        let count = &process.map_count;
        let fields = [
            process.pid.to_string(),
            number(process.ppid.map(u64::from)),
            number(process.uid.map(u64::from)),
            field(process.user.as_deref()),
            field(Some(&process.comm)),
            field(process.app.as_deref()),
            field(process.exe.as_deref()),
            field(process.unit.as_deref()),
            field(process.cgroup.as_deref()),
            real(process.started_s),
            real(process.ended_s),
            number(count.first),
            number(count.last),
            number(count.peak),
            real(count.percent_of_limit),
            count.exact.to_string(),
            count.clipped.to_string(),
            number(failed_calls(process, report)),
            number(process.unmap_leaked_bytes),
            "1".to_owned(),
        ];
        writeln!(out, "{}", fields.join(","))?;
    }
    for sum in &report.folded {
        let name = if sum.various { "(several names)" } else { &sum.comm };
        let app = if sum.various { None } else { sum.app.as_deref() };
        let fields = [
            field(Some(name)),
            field(app),
            String::new(),
            String::new(),
            String::new(),
            real(sum.first_started_s),
            real(sum.last_ended_s),
            String::new(),
            String::new(),
            number(sum.peak_max),
            String::new(),
            sum.exact.to_string(),
            (sum.clipped > 0).to_string(),
            number(sum.failed),
            number(sum.unmap_leaked_bytes),
            sum.processes.to_string(),
        ];
        writeln!(out, ",,,,{}", fields.join(","))?;
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
