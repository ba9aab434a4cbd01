//! Every change of the count by place, where that was asked for: what was added and removed from where.

use std::io;

use unicode_width::UnicodeWidthStr as _;

use crate::model::report::{Changes, NoPlace, Process, Report};
use crate::output::makers::where_from;
use crate::output::text::page::{Colour, Page, name_pid};
use crate::text::{clean, count, grouped};

/// Processes told of, and rows of each.
const PROCESSES: usize = 3;
const ROWS: usize = 10;
/// Columns of a place at least, and of a call's name.
const NARROWEST: usize = 24;
const CALL: usize = 10;
const WHAT: &str = "Every change is in it: what a place added may be removed from another. Of code that keeps no frame \
                    pointers the callers further out are those of one change.";

/// The processes that changed most.
pub(crate) fn changes(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let mut told: Vec<&Process> = report.processes.iter().filter(|it| !it.changes.is_empty()).collect();
    if told.is_empty() {
        return Ok(());
    }
    let all =
        |process: &Process| process.changes.iter().fold(0, |sum: u64, row| sum.saturating_add(size(row)));
    told.sort_by_key(|process| std::cmp::Reverse(all(process)));
    page.blank()?;
    page.line("Who changed the count", Some(Colour::Bold))?;
    for process in told.iter().take(PROCESSES) {
        let name = name_pid(&process.comm, process.pid);
        page.line(&format!("  {name}"), None)?;
        let head = format!("    {:>10} {:>10}  {:<CALL$}  ", "ADDED", "REMOVED", "CALL");
        page.line(&format!("{head}WHERE"), Some(Colour::Dim))?;
        for row in process.changes.iter().take(ROWS) {
            let (added, removed) = (grouped(row.added), grouped(row.removed));
            let head = format!("    {added:>10} {removed:>10}  {:<CALL$}  ", clean(&row.syscall));
            let room = page.width.saturating_sub(head.width()).max(NARROWEST);
            let (place, colour) = match row.nobody {
                Some(NoPlace::OtherPlaces) => ("other places".to_owned(), Some(Colour::Dim)),
                Some(NoPlace::NotSampled) => ("not sampled".to_owned(), Some(Colour::Dim)),
                Some(NoPlace::NotTold) => ("place not told".to_owned(), Some(Colour::Dim)),
                None => (where_from(&row.stack, room).join(" < "), None),
            };
            page.paragraph(&head, &" ".repeat(NARROWEST), &place, colour)?;
        }
        if let Some(more) = process.changes.len().checked_sub(ROWS).filter(|more| *more > 0) {
            let more = count(more as u64, "more row", "more rows");
            page.line(&format!("    and {more}, in the JSON"), Some(Colour::Dim))?;
        }
    }
    page.paragraph("  ", "  ", WHAT, Some(Colour::Dim))?;
    if told.len() > PROCESSES {
        let more = count((told.len() - PROCESSES) as u64, "more process", "more processes");
        page.line(&format!("  and {more}, in the JSON"), Some(Colour::Dim))?;
    }
    Ok(())
}

fn size(row: &Changes) -> u64 {
    row.added.saturating_add(row.removed)
}
