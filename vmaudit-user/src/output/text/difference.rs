//! `vmaudit diff` for people.

use std::io::{self, Write};

use crate::model::difference::{Change, Difference, Row};
use crate::output::difference::{ADDED, MADE, MOST_MADE, cells};
use crate::output::text::page::{Colour, Page, Style, column};
use crate::text::{clean, count};

/// Columns of an application's name.
const NAME: usize = 22;

/// Writes a comparison.
pub(crate) fn write(it: &Difference, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    let colour = match it.verdict {
        Change::Worse => Colour::Red,
        Change::NotComparable => Colour::Yellow,
        _ => Colour::Green,
    };
    page.paragraph("vmaudit: ", "  ", &clean(&it.sentence), Some(colour))?;
    for breach in &it.breaches {
        page.paragraph("Gate closed: ", "  ", &clean(&breach.sentence), Some(Colour::Red))?;
    }
    for (side, what) in [(&it.old, "old"), (&it.new, "new")] {
        let said = format!("{what}: {}, {}", clean(&side.file), clean(&side.started));
        page.paragraph("", "  ", &said, Some(Colour::Dim))?;
    }
    let shown: Vec<&Row> = it
        .rows
        .iter()
        .filter(|row| row.change != Change::Same || style.verbose)
        .take(style.top.max(1))
        .collect();
    if !shown.is_empty() {
        page.blank()?;
        table(&shown, &mut page)?;
    }
    let same = it.rows.iter().filter(|row| row.change == Change::Same).count();
    let rest = it.rows.len() - shown.len();
    match (rest, style.verbose) {
        (0, _) => {}
        (rest, false) if rest == same => {
            let within = format!("within {} % or {} VMAs", it.tolerance.percent, it.tolerance.vmas);
            let all = count(same as u64, "application is", "applications are");
            page.paragraph("", "  ", &format!("{all} the same, {within}."), Some(Colour::Dim))?;
        }
        (rest, _) => {
            let more = count(rest as u64, "more application", "more applications");
            page.line(&format!("and {more} (--top)"), Some(Colour::Dim))?;
        }
    }
    added(&shown, &mut page)?;
    made(it, &mut page)?;
    if !it.notes.is_empty() {
        page.blank()?;
    }
    for note in &it.notes {
        page.paragraph("Note: ", "  ", &clean(note), None)?;
    }
    Ok(())
}

fn table(rows: &[&Row], page: &mut Page<'_>) -> io::Result<()> {
    let head = format!(
        "{} {:>9} {:>9} {:>9} {:>7} {:>7}  VERDICT",
        column("APPLICATION", NAME),
        "OLD PEAK",
        "NEW PEAK",
        "CHANGE",
        "FAILED",
        "NOW"
    );
    page.line(&head, Some(Colour::Bold))?;
    for row in rows {
        let [name, old, new, change, failed, now, verdict] = cells(row);
        let line =
            format!("{} {old:>9} {new:>9} {change:>9} {failed:>7} {now:>7}  {verdict}", column(&name, NAME));
        let colour = match row.change {
            Change::Worse => Some(Colour::Red),
            Change::NotComparable => Some(Colour::Yellow),
            _ => None,
        };
        page.line(&line, colour)?;
    }
    Ok(())
}

/// Who made the difference.
fn made(it: &Difference, page: &mut Page<'_>) -> io::Result<()> {
    if it.makers.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line(MADE, Some(Colour::Bold))?;
    let room = page.width.saturating_sub(4);
    for row in it.makers.iter().take(MOST_MADE) {
        let (what, place) = crate::output::difference::made(row, room);
        page.paragraph("  ", "    ", &clean(&what), None)?;
        page.paragraph("    ", "    ", &place, Some(Colour::Dim))?;
    }
    if let Some(more) = it.makers.len().checked_sub(MOST_MADE).filter(|more| *more > 0) {
        let more = count(more as u64, "more place", "more places");
        page.line(&format!("  and {more}, in the JSON"), Some(Colour::Dim))?;
    }
    Ok(())
}

/// What added the difference in what became worse.
fn added(rows: &[&Row], page: &mut Page<'_>) -> io::Result<()> {
    let worse: Vec<(String, String)> = rows
        .iter()
        .filter(|row| row.change == Change::Worse)
        .filter_map(|row| Some((row.name(), crate::output::difference::added(row)?)))
        .collect();
    if worse.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line(ADDED, Some(Colour::Bold))?;
    for (name, calls) in worse {
        page.paragraph("  ", "    ", &format!("{}: {calls}", clean(&name)), None)?;
    }
    Ok(())
}
