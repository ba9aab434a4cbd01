//! Processes without a row of their own, for people.

use std::collections::BTreeSet;
use std::io;

use crate::model::report::{Failure, FoldedProcesses, Report};
use crate::output::text::page::{Colour, NAME_COLUMNS, Page, shortened};
use crate::text::{clean, count, grouped, total};

/// Names shown.
const NAMES: usize = 3;

/// Sum over the processes without a row.
pub fn folded(report: &Report, figure: impl Fn(&FoldedProcesses) -> u64) -> u64 {
    total(report.folded.iter().map(figure))
}

/// Processes without a row, by name.
pub fn without_row(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    // One alone is no name that helps, unless the limit stopped it.
    let of_interest = |sum: &&FoldedProcesses| sum.processes > 1 || sum.clipped > 0;
    for sum in report.folded.iter().filter(of_interest).take(NAMES) {
        let other = count(sum.processes, "other", "others");
        let named = if sum.various {
            format!("{other} of various names")
        } else {
            format!("{other} named {}", shortened(&clean(&sum.comm), NAME_COLUMNS))
        };
        let about = if sum.exact { "" } else { "~" };
        let peaks = match (sum.peak_min, sum.peak_max) {
            (Some(least), Some(most)) if least == most => format!(", peak {about}{}", grouped(most)),
            (Some(least), Some(most)) => format!(", peaks {} to {about}{}", grouped(least), grouped(most)),
            _ => String::new(),
        };
        let failed = match sum.failed {
            Some(failed) if failed > 0 => format!(", {} failed", count(failed, "call", "calls")),
            _ => String::new(),
        };
        let clipped = match sum.clipped {
            0 => String::new(),
            clipped => format!(", {} at the limit", grouped(clipped)),
        };
        let colour = if sum.clipped > 0 { Colour::Red } else { Colour::Dim };
        page.paragraph("and ", "  ", &format!("{named}{peaks}{failed}{clipped}"), Some(colour))?;
    }
    let mut rest: Vec<&FoldedProcesses> = report.folded.iter().filter(of_interest).skip(NAMES).collect();
    rest.extend(report.folded.iter().filter(|sum| !of_interest(sum)));
    if !rest.is_empty() {
        let processes = total(rest.iter().map(|sum| sum.processes));
        let most = rest.iter().filter_map(|sum| sum.peak_max).max();
        let peaks = most.map_or(String::new(), |most| format!(", with at most {} VMAs", grouped(most)));
        let names = count(rest.len() as u64, "more name", "more names");
        page.paragraph(
            "and ",
            "  ",
            &format!("{} of {names}{peaks}", count(processes, "other", "others")),
            Some(Colour::Dim),
        )?;
    }
    Ok(())
}

/// Processes of these failures; `without_row`: those that have no row of their own, whose failures do not say which
/// were in the same process.
pub fn distinct_processes(
    report: &Report,
    failures: &[&Failure],
    without_row: impl Fn(&FoldedProcesses) -> u64,
) -> u64 {
    let id = |pid: u32, started_s: Option<f64>| (pid, started_s.map(f64::to_bits));
    let rows: BTreeSet<_> = report.processes.iter().map(|p| id(p.pid, p.started_s)).collect();
    let own: BTreeSet<_> =
        failures.iter().map(|f| id(f.pid, f.started_s)).filter(|id| rows.contains(id)).collect();
    own.len() as u64 + folded(report, without_row)
}
