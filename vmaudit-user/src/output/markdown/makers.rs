//! Who made the VMAs of the processes that came near the limit.

use std::io::{self, Write};

use super::escape::plain;
use crate::model::report::Report;
use crate::output::makers::{PLACES, WHAT, rows, told};
use crate::text::{count, grouped};

/// Processes told of.
const PROCESSES: usize = 3;
/// Columns of a function's name.
const NAME: usize = 100;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let told = told(report);
    if told.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n### Who made the VMAs")?;
    for process in told.iter().take(PROCESSES) {
        writeln!(out, "\n{} (pid {}):", plain(&process.comm), process.pid)?;
        writeln!(out, "\n| at peak | share | call | where, innermost first |\n|--:|--:|:--|:--|")?;
        for row in rows(process, PLACES) {
            let place: Vec<String> = row.place(NAME).iter().map(|name| plain(name)).collect();
            let notes: String = row.notes.iter().map(|note| format!("<br>{}", plain(note))).collect();
            writeln!(
                out,
                "| {} | {} | {} | {}{notes} |",
                grouped(row.count),
                row.share(),
                plain(row.call()),
                place.join(" ← ")
            )?;
        }
    }
    writeln!(out, "\n{WHAT}")?;
    let more = told.len().saturating_sub(PROCESSES) as u64;
    if more > 0 {
        writeln!(out, "\nand {}, in the JSON", count(more, "more process", "more processes"))?;
    }
    Ok(())
}
