//! How large processes were, where a limit makes that matter.

use std::io;

use crate::model::report::{Cause, Process, Report};
use crate::output::text::page::{Colour, Page, name_pid};
use crate::text::{bytes, clean, grouped, percent};

/// Limits, with what they are on.
const LIMITS: [(Cause, &str, &str); 4] = [
    (Cause::RlimitAs, "RLIMIT_AS", "address space"),
    (Cause::RlimitData, "RLIMIT_DATA", "data"),
    (Cause::RlimitMemlock, "RLIMIT_MEMLOCK", "locked memory"),
    (Cause::RlimitStack, "RLIMIT_STACK", "stack"),
];

/// One line: the largest size beside each limit that somebody has set, or that was nearly reached, or that refused a call.
pub(crate) fn memory(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let parts: Vec<String> = LIMITS.iter().filter_map(|limit| part(report, *limit)).collect();
    if parts.is_empty() {
        return Ok(());
    }
    page.paragraph("Largest sizes: ", "  ", &format!("{}.", parts.join("; ")), Some(Colour::Dim))
}

fn part(report: &Report, (cause, name, what): (Cause, &str, &str)) -> Option<String> {
    let size = |process: &Process| process.memory.and_then(|memory| memory.peak_under(cause));
    let refused: Vec<_> = report.failures.iter().filter(|failure| failure.cause == cause).collect();
    // Who was refused something is who matters; else the largest.
    let of_refused = report.processes.iter().filter(|p| refused.iter().any(|failure| failure.is_of(p)));
    let process =
        of_refused.max_by_key(|p| size(p)).or_else(|| report.processes.iter().max_by_key(|p| size(p)))?;
    let mut memory = process.memory?;
    let mut name_of = name_pid(&process.comm, process.pid);
    // Of those without a row it is known how large the largest was, not which one it was.
    let others = report.folded.iter().filter_map(|sum| Some((sum.memory?.peak_under(cause)?, sum)));
    if let Some((larger, sum)) = others.max_by_key(|(peak, _)| *peak)
        && refused.is_empty()
        && Some(larger) > size(process)
    {
        memory = sum.memory?;
        name_of = format!("one of {} x {}", grouped(sum.processes), clean(&sum.comm));
    }
    let peak = memory.peak_under(cause)?;
    let asked = refused
        .iter()
        .find(|failure| failure.is_of(process))
        .and_then(|failure| failure.evidence.get("limit_bytes"));
    let limit =
        asked.copied().or_else(|| report.session.rlimits.as_ref().and_then(|rlimits| rlimits.soft(cause)))?;
    // The others have a limit on nearly every machine.
    let set = matches!(cause, Cause::RlimitAs | Cause::RlimitData);
    let near = peak > 0 && peak >= limit / 2;
    if !set && !near && refused.is_empty() {
        return None;
    }
    Some(format!(
        "{what} {}{} of {} ({name}, {} %) in {}",
        if memory.exact { "" } else { "at least " },
        bytes(peak),
        bytes(limit),
        percent(peak, limit),
        name_of
    ))
}
