//! `vmaudit explain` for people: the answer, what helps, and one page of figures; all of them when asked for.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

use crate::model::vma_layout::{Cluster, Explanation, Origin, Row, Tally};
use crate::output::text::page::{Colour, Page, Style};
use crate::text::{bytes, clean, count, grouped, percent};

/// Writes the explanation. `verbose`: all tables.
pub(crate) fn write(it: &Explanation, verbose: bool, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.width.max(40) };
    verdict(it, &mut page)?;
    let titles =
        it.kinds.iter().map(|&(kind, tally)| Row { name: kind.title().to_owned(), tally, objects: None });
    table("Kinds", &titles.collect::<Vec<_>>(), it, &mut page)?;
    // Whoever asks for more gets what is no hundredth of the whole, too.
    let few = if verbose { 2 } else { (it.vmas / 100).max(2) };
    let many: Vec<Row> = it.owners.iter().filter(|row| row.tally.vmas >= few).cloned().collect();
    table("Mapped more than once", &many, it, &mut page)?;
    if verbose {
        table("Files by folder and name", &it.patterns, it, &mut page)?;
        table("Files by ending", &it.extensions, it, &mut page)?;
        table("Sizes", &it.sizes, it, &mut page)?;
        table("Permissions", &it.permissions, it, &mut page)?;
    }
    boundaries(it, verbose, &mut page)?;
    if verbose {
        regions(it, &mut page)?;
        picture(&it.picture, &mut page)?;
    }
    Ok(())
}

fn verdict(it: &Explanation, page: &mut Page<'_>) -> io::Result<()> {
    let pid = it.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    // A log says first how it ended; of who lives, nothing is more urgent than that there is no room left.
    let urgent = at_limit(it);
    let mut sentences = urgent.iter().chain(&it.verdict);
    let first = sentences.next().map_or("", String::as_str);
    let share = it.max_map_count.filter(|_| it.complete).map(|limit| it.vmas as f64 / limit.max(1) as f64);
    let colour = match share {
        Some(0.9..) => Colour::Red,
        Some(0.5..) => Colour::Yellow,
        _ => Colour::Bold,
    };
    let subject = clean(&it.subject);
    page.paragraph("vmaudit: ", "  ", &format!("{subject}{pid}: {}", clean(first)), Some(colour))?;
    for sentence in sentences {
        page.paragraph("  ", "    ", &clean(sentence), None)?;
    }
    let mut figures = count(it.vmas, "VMA", "VMAs");
    // Of a log the first sentence has said it.
    if let Some(limit) =
        it.max_map_count.filter(|_| it.complete && it.origin == Origin::Process && urgent.is_none())
    {
        figures.push_str(&format!(", {}% of the limit of {}", percent(it.vmas, limit), grouped(limit)));
    }
    figures.push_str(&format!("; {} of address space", bytes(it.total.bytes)));
    if it.flags_seen {
        figures.push_str(&format!(", {} resident", bytes(it.total.resident_bytes)));
    }
    page.paragraph("  ", "    ", &format!("{figures}."), None)?;
    for advice in &it.advice {
        let fewer = advice.fewer.map(|fewer| format!(" ({} fewer)", count(fewer, "VMA", "VMAs")));
        let text = format!("What helps: {}{}.", clean(&advice.text), fewer.unwrap_or_default());
        page.paragraph("  ", "    ", &text, Some(Colour::Green))?;
    }
    for note in &it.notes {
        page.paragraph("  ", "    ", &clean(note), Some(Colour::Yellow))?;
    }
    Ok(())
}

/// A process that lives with a tenth of the limit left, or less.
fn at_limit(it: &Explanation) -> Option<String> {
    let limit = it.max_map_count.filter(|_| it.complete && it.origin == Origin::Process)?;
    if it.vmas.saturating_mul(10) < limit.saturating_mul(9) {
        return None;
    }
    let at = if it.vmas >= limit { "It is AT" } else { "It is near" };
    let (vmas, share) = (grouped(it.vmas), percent(it.vmas, limit));
    Some(format!("{at} vm.max_map_count = {}: {vmas} VMAs, {share}%.", grouped(limit)))
}

/// Columns before the last one of a table: number, share, size.
const FIGURES: usize = 36;

fn table(title: &str, rows: &[Row], it: &Explanation, page: &mut Page<'_>) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line(title, Some(Colour::Bold))?;
    for Row { name, tally, objects } in rows.iter().take(page.style.top) {
        let Tally { vmas, bytes: size, .. } = *tally;
        let (share, size) = (format!("{}%", percent(vmas, it.vmas)), bytes(size));
        let objects = objects.filter(|&objects| objects > 1);
        let objects = objects.map(|n| format!(", {} objects", grouped(n))).unwrap_or_default();
        let name = page.style.fit(name, FIGURES + objects.width());
        page.line(&format!("{:>12} {share:>7} {size:>12}  {name}{objects}", grouped(vmas)), None)?;
    }
    rest(rows.len(), page)
}

fn boundaries(it: &Explanation, verbose: bool, page: &mut Page<'_>) -> io::Result<()> {
    if it.boundaries.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line("Why neighbours do not merge", Some(Colour::Bold))?;
    let all = it.vmas.saturating_sub(1);
    for row in it.boundaries.iter().take(page.style.top) {
        let share = format!("{}%", percent(row.boundaries, all));
        let example = row.example.as_ref().map(|example| format!(", first at {example}"));
        let text = format!("{}{}", clean(&row.title), example.unwrap_or_default());
        let head = format!("{:>12} {share:>7}  ", grouped(row.boundaries));
        page.paragraph(&head, &" ".repeat(22), &text, None)?;
        // What was said above is not said again.
        let said = it.advice.iter().any(|advice| row.cure.as_ref() == Some(&advice.text));
        if let Some(cure) = row.cure.as_ref().filter(|_| verbose && !said) {
            page.paragraph(&" ".repeat(22), &" ".repeat(22), &clean(cure), Some(Colour::Dim))?;
        }
    }
    rest(it.boundaries.len(), page)
}

fn regions(it: &Explanation, page: &mut Page<'_>) -> io::Result<()> {
    let regions: Vec<_> = it.regions.iter().filter(|region| region.vmas > 4).take(5).collect();
    if !regions.is_empty() {
        page.blank()?;
        page.line("Regions of most pieces", Some(Colour::Bold))?;
    }
    for region in regions {
        let name = if region.name.is_empty() { "anonymous" } else { region.name.as_str() };
        let reason = region.reasons.first();
        let reason = reason.map(|(reason, _)| format!(", mostly {}", reason.title())).unwrap_or_default();
        let text = format!(
            "in {}{}: {}, {} of {}{}",
            bytes(region.bytes),
            region.start.as_ref().map(|start| format!(" at {start}")).unwrap_or_default(),
            clean(name),
            grouped(region.pieces),
            bytes(region.piece_bytes),
            clean(&reason)
        );
        page.paragraph(&format!("{:>12} ", grouped(region.vmas)), &" ".repeat(13), &text, None)?;
    }
    Ok(())
}

fn rest(rows: usize, page: &mut Page<'_>) -> io::Result<()> {
    match rows.checked_sub(page.style.top) {
        None | Some(0) => Ok(()),
        Some(more) => page.line(&format!("{:>12} {} more (--top)", "...", grouped(more as u64)), None),
    }
}

/// Density from one VMA in a cell to very many, each step four times as many.
const SHADES: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

fn picture(rows: &[Cluster], page: &mut Page<'_>) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line("Address space", Some(Colour::Bold))?;
    let narrow = page.width < 100;
    for row in rows {
        let used = usize::try_from(row.bytes.div_ceil(row.cell_bytes.max(1))).unwrap_or(1);
        let step = if narrow { 2 } else { 1 };
        let cells = row.cells.get(..used.clamp(1, row.cells.len())).unwrap_or(&row.cells);
        let bar: String = cells.chunks(step).map(|cells| shade(cells.iter().sum())).collect();
        let start = row.start.map(|start| format!("{start:x}")).unwrap_or_default();
        let (size, vmas) = (bytes(row.bytes), grouped(row.vmas));
        page.line(&format!("  {start:>14} {size:>9} {vmas:>9} VMAs |{bar}|"), None)?;
    }
    let shades: String = SHADES.iter().collect();
    page.line(&format!("  VMAs per cell, from few to many: blank {shades}"), None)
}

fn shade(vmas: u64) -> char {
    match vmas.checked_ilog2() {
        None => ' ',
        Some(log) => SHADES.get(log as usize / 2).copied().unwrap_or('@'),
    }
}
