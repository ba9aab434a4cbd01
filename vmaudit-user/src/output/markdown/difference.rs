//! A comparison as Markdown.

use std::io::{self, Write};

use super::escape::plain;
use crate::model::difference::{Change, Difference, Row};
use crate::output::difference::{MADE, MOST_MADE, added, cells, made};
use crate::output::text::page::Style;
use crate::text::grouped;

/// Columns of a function.
const ROOM: usize = 80;

/// For a comment or a summary.
pub(super) fn write(it: &Difference, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "## vmaudit diff\n\n**{}**\n", plain(&it.sentence))?;
    for breach in &it.breaches {
        writeln!(out, "**Gate closed:** {}\n", plain(&breach.sentence))?;
    }
    for (side, what) in [(&it.old, "old"), (&it.new, "new")] {
        writeln!(out, "{what}: {}, {}  ", plain(&side.file), plain(&side.started))?;
    }
    let changed = |row: &&Row| row.change != Change::Same;
    let shown: Vec<&Row> = it.rows.iter().filter(changed).take(style.top.max(1)).collect();
    if !shown.is_empty() {
        writeln!(
            out,
            "\n| application | old peak | new peak | change | refused before | refused now | verdict |"
        )?;
        writeln!(out, "|:--|--:|--:|--:|--:|--:|:--|")?;
        for row in &shown {
            writeln!(out, "| {} |", cells(row).map(|cell| plain(&cell)).join(" | "))?;
        }
    }
    let (same, rest) = (it.rows.iter().filter(|row| !changed(row)).count(), it.rows.len() - shown.len());
    if rest > 0 {
        writeln!(out, "\nand {} more, {} of them the same", grouped(rest as u64), grouped(same as u64))?;
    }
    for row in shown.iter().filter(|row| row.change == Change::Worse) {
        if let Some(calls) = added(row) {
            writeln!(out, "\n{} added: {}", plain(&row.name()), plain(&calls))?;
        }
    }
    if !it.makers.is_empty() {
        writeln!(out, "\n**{MADE}**\n")?;
    }
    for row in it.makers.iter().take(MOST_MADE) {
        let (what, place) = made(row, ROOM);
        writeln!(out, "* {}: {}", plain(&what), plain(&place))?;
    }
    if let Some(more) = it.makers.len().checked_sub(MOST_MADE).filter(|more| *more > 0) {
        writeln!(out, "\nand {} more, in the JSON", grouped(more as u64))?;
    }
    for note in &it.notes {
        writeln!(out, "\n{}", plain(note))?;
    }
    Ok(())
}
