//! `vmaudit explain` for people.

use std::io::{self, Write};

use crate::model::vma_layout::{Cluster, Explanation, Row, Tally};
use crate::output::text::page::{Colour, Style};
use crate::text::{bytes, clean, count, grouped, percent};

/// Writes the explanation.
pub(crate) fn write(it: &Explanation, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let top = style.top;
    let bold = |text: &str| style.paint(Colour::Bold, text);
    let pid = it.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let mut head = format!(
        "{}{pid}: {}, {} of address space",
        clean(&it.subject),
        count(it.vmas, "VMA", "VMAs"),
        bytes(it.total.bytes)
    );
    if it.flags_seen {
        head.push_str(&format!(", {} resident", bytes(it.total.resident_bytes)));
    }
    writeln!(out, "{}", bold(&head))?;
    for sentence in &it.verdict {
        writeln!(out, "  {}", clean(sentence))?;
    }
    for note in &it.notes {
        writeln!(out, "  {}", style.paint(Colour::Yellow, &clean(note)))?;
    }

    let titles: Vec<Row> =
        it.kinds.iter().map(|&(kind, tally)| Row { name: kind.title().to_owned(), tally }).collect();
    table("Kinds", &titles, it, usize::MAX, style, out)?;
    let many: Vec<Row> = it.owners.iter().filter(|row| row.tally.vmas > 1).cloned().collect();
    table("Owners mapped more than once", &many, it, top, style, out)?;
    let endings: Vec<Row> = it.extensions.clone();
    table("Files by ending", &endings, it, top, style, out)?;
    table("Sizes", &it.sizes, it, usize::MAX, style, out)?;
    table("Permissions", &it.permissions, it, top, style, out)?;

    if !it.boundaries.is_empty() {
        writeln!(out, "\n{}", bold("Why neighbours do not merge"))?;
        writeln!(out, "{:>12} {:>7}  reason", "boundaries", "share")?;
    }
    let all = it.vmas.saturating_sub(1);
    for row in it.boundaries.iter().take(top) {
        let share = format!("{}%", percent(row.boundaries, all));
        writeln!(
            out,
            "{:>12} {share:>7}  {}{}",
            grouped(row.boundaries),
            clean(&row.title),
            row.example.as_ref().map(|example| format!(", first at {example}")).unwrap_or_default()
        )?;
        if let Some(cure) = &row.cure {
            writeln!(out, "{:21}  {}", "", style.paint(Colour::Dim, &clean(cure)))?;
        }
    }
    rest(it.boundaries.len(), top, out)?;

    let regions: Vec<_> = it.regions.iter().filter(|region| region.vmas > 4).take(top.min(5)).collect();
    if !regions.is_empty() {
        writeln!(out, "\n{}", bold("Regions of most pieces"))?;
    }
    for region in regions {
        let name = if region.name.is_empty() { "anonymous" } else { region.name.as_str() };
        let reason = region
            .reasons
            .first()
            .map(|(reason, _)| format!(", mostly {}", reason.title()))
            .unwrap_or_default();
        writeln!(
            out,
            "{:>12} in {}{}: {}, {} of {}{}",
            grouped(region.vmas),
            bytes(region.bytes),
            region.start.as_ref().map(|start| format!(" at {start}")).unwrap_or_default(),
            style.fit(name, 60),
            grouped(region.pieces),
            bytes(region.piece_bytes),
            clean(&reason)
        )?;
    }
    picture(&it.picture, style, out)
}

fn table(
    title: &str,
    rows: &[Row],
    it: &Explanation,
    top: usize,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.paint(Colour::Bold, title))?;
    for Row { name, tally } in rows.iter().take(top) {
        let Tally { vmas, bytes: size, .. } = *tally;
        let (share, size) = (format!("{}%", percent(vmas, it.vmas)), bytes(size));
        writeln!(out, "{:>12} {share:>7} {size:>12}  {}", grouped(vmas), style.fit(name, 36))?;
    }
    rest(rows.len(), top, out)
}

fn rest(rows: usize, top: usize, out: &mut dyn Write) -> io::Result<()> {
    match rows.checked_sub(top) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(out, "{:>12} {} more (--top)", "...", grouped(more as u64)),
    }
}

/// Density from one VMA in a cell to very many, each step four times as many.
const SHADES: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

fn picture(rows: &[Cluster], style: &Style, out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.paint(Colour::Bold, "Address space"))?;
    let narrow = style.width < 100;
    for row in rows {
        let used = usize::try_from(row.bytes.div_ceil(row.cell_bytes.max(1))).unwrap_or(1);
        let step = if narrow { 2 } else { 1 };
        let cells = row.cells.get(..used.clamp(1, row.cells.len())).unwrap_or(&row.cells);
        let bar: String = cells.chunks(step).map(|cells| shade(cells.iter().sum())).collect();
        writeln!(
            out,
            "  {:>14} {:>9} {:>9} VMAs |{bar}|",
            row.start.map(|start| format!("{start:x}")).unwrap_or_default(),
            bytes(row.bytes),
            grouped(row.vmas)
        )?;
    }
    writeln!(out, "  VMAs per cell, from few to many: blank {}", SHADES.iter().collect::<String>())
}

fn shade(vmas: u64) -> char {
    match vmas.checked_ilog2() {
        None => ' ',
        Some(log) => SHADES.get(log as usize / 2).copied().unwrap_or('@'),
    }
}
