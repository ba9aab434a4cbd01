//! Markdown: a report for a pull request's comment or an issue.

mod difference;
mod escape;
mod makers;

use std::io::{self, Write};

use self::escape::plain;

use crate::model::cause::reason;
use crate::model::report::{Failure, Hook, HookState, Report, SourceKind};
use crate::output::document::Document;
use crate::output::text::coverage::touches;
use crate::output::text::headline::{circumstances, more_breaches, verdict};
use crate::output::text::page::Style;
use crate::output::text::processes::row;
use crate::text::{clean, count, grouped};

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Report(it) => report(it, style, out),
        Document::Difference(it) => difference::write(it, style, out),
        _ => Err(io::Error::other("it is no report")),
    }
}

fn report(report: &Report, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "## vmaudit\n\n**{}**\n", plain(&verdict(report).1))?;
    for breach in more_breaches(report) {
        writeln!(out, "**Budget broken:** {}\n", plain(&breach.sentence))?;
    }
    writeln!(out, "{}", plain(&circumstances(report)))?;
    processes(report, style.top, out)?;
    failures(report, style.top, out)?;
    makers::write(report, out)?;
    coverage(report, out)?;
    writeln!(out, "\n### Recommendation\n")?;
    for sentence in &report.recommendation.sentences {
        writeln!(out, "{}  ", plain(sentence))?;
    }
    if !report.recommendation.commands.is_empty() {
        writeln!(out)?;
    }
    for command in &report.recommendation.commands {
        writeln!(out, "    {}", clean(command))?;
    }
    Ok(())
}

/// As the text has them: `~` sampled or at least, `+` stopped by the limit, `-` unknown.
fn processes(report: &Report, top: usize, out: &mut dyn Write) -> io::Result<()> {
    if report.processes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n| pid | process | first | last | peak | % of the limit | failed calls | end |")?;
    writeln!(out, "|--:|:--|--:|--:|--:|--:|--:|:--|")?;
    for process in report.processes.iter().take(top.max(1)) {
        writeln!(out, "| {} |", row(process, report).map(|cell| plain(&cell)).join(" | "))?;
    }
    let folded: u64 = report.folded.iter().map(|sum| sum.processes).fold(0, u64::saturating_add);
    let more = (report.processes.len().saturating_sub(top.max(1)) as u64).saturating_add(folded);
    if more > 0 {
        writeln!(out, "\nand {}", count(more, "more process", "more processes"))?;
    }
    let shown = || report.processes.iter().take(top.max(1)).flat_map(|process| row(process, report));
    let signs = [("~", "`~` at least, or sampled"), ("+", "`+` stopped by the limit"), ("-", "`-` unknown")];
    let used = |sign: &str| {
        shown().any(
            |cell| if sign == "-" { cell == sign } else { cell.starts_with(sign) || cell.ends_with(sign) },
        )
    };
    let legend: Vec<&str> = signs.iter().filter(|(sign, _)| used(sign)).map(|(_, text)| *text).collect();
    if legend.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", legend.join("; "))
}

fn failures(report: &Report, top: usize, out: &mut dyn Write) -> io::Result<()> {
    let failures: Vec<&Failure> = report.unrecovered().collect();
    if failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n### Calls that failed\n")?;
    for failure in failures.iter().take(top.max(1)) {
        let Failure { count: calls, syscall, errno, comm, pid, .. } = *failure;
        let who = match failure.processes {
            1 => format!("{comm} (pid {pid})"),
            n => count(n, "process", "processes"),
        };
        let likely = if failure.certain { "" } else { "probably " };
        writeln!(
            out,
            "* **{} x {} {}** in {}, {likely}{}: {}",
            grouped(*calls),
            plain(syscall),
            plain(errno),
            plain(&who),
            plain(reason(failure)),
            plain(&failure.sentence)
        )?;
    }
    let more = failures.len().saturating_sub(top.max(1)) as u64;
    if more > 0 {
        writeln!(out, "* and {}", count(more, "more kind of failure", "more kinds of failure"))?;
    }
    Ok(())
}

fn coverage(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let lost: Vec<String> = report
        .coverage
        .lost
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{} {}", plain(name), grouped(*count)))
        .collect();
    let what = match (lost.is_empty(), report.source) {
        (false, _) => lost.join(", "),
        (true, SourceKind::Proc) => "what happened between two looks; nothing else that is counted".into(),
        (true, _) => "nothing that this source counts".into(),
    };
    if lost.is_empty() && report.source == SourceKind::Ebpf && !report.coverage.lost.is_empty() {
        writeln!(out, "\nNothing lost.")?;
    } else {
        writeln!(out, "\nLost: {what}.")?;
    }
    let missing = report.coverage.hooks.iter().filter(|hook| hook.state == HookState::Missing);
    let missing: Vec<&Hook> = missing.filter(|hook| touches(hook, report)).collect();
    if let [first, _, ..] = missing.as_slice()
        && missing.iter().all(|hook| hook.reason == first.reason)
    {
        let names: Vec<String> = missing.iter().map(|hook| plain(&hook.name)).collect();
        writeln!(
            out,
            "\nMissing: {}: {}",
            names.join(", "),
            plain(first.reason.as_deref().unwrap_or_default())
        )?;
    } else {
        for hook in missing {
            let told = [Some(hook.name.as_str()), hook.loses.as_deref(), hook.reason.as_deref()];
            let told: Vec<String> = told.into_iter().flatten().map(plain).collect();
            writeln!(out, "\nMissing: {}", told.join(": "))?;
        }
    }
    for note in &report.coverage.notes {
        writeln!(out, "\n{}", plain(note))?;
    }
    Ok(())
}
