//! A comparison as cells, as Markdown and as annotations.

use std::cmp::Reverse;
use std::io::{self, Write};

use crate::model::difference::{Change, Difference, Figures, Row};
use crate::output::github;
use crate::output::markdown::plain;
use crate::output::text::page::Style;
use crate::text::grouped;

/// Heading of [`added`].
pub(crate) const ADDED: &str = "What added the difference (VMAs added in all processes, by call)";

/// Application, old and new peak, their difference, refused calls before and now, verdict.
pub(crate) fn cells(row: &Row) -> [String; 7] {
    let peak = |it: &Option<Figures>| match it {
        Some(it) => it.peak.map_or("?".to_owned(), |peak| {
            let (before, behind) = (if it.exact { "" } else { "~" }, if it.clipped { "+" } else { "" });
            format!("{before}{}{behind}", grouped(peak))
        }),
        None => "-".to_owned(),
    };
    let failed = |it: &Option<Figures>| {
        it.as_ref().map_or("-".to_owned(), |it| it.failed.map_or("?".to_owned(), grouped))
    };
    let change = row.peak_percent.map_or(String::new(), |percent| format!("{percent:+.1} %"));
    let verdict = row.change.word().to_owned();
    [row.name(), peak(&row.old), peak(&row.new), change, failed(&row.old), failed(&row.new), verdict]
}

/// `mprotect +18,014 (from 12,000), mmap +20`; `None` when no call added more.
pub(crate) fn added(row: &Row) -> Option<String> {
    let (old, new) = (row.old.as_ref()?, row.new.as_ref()?);
    let before = |call: &str| old.added.get(call).copied().unwrap_or(0);
    let grown = new.added.iter().map(|(call, now)| (now.saturating_sub(before(call)), call));
    let mut grown: Vec<(u64, &String)> = grown.filter(|(more, _)| *more > 0).collect();
    grown.sort_by_key(|(more, call)| (Reverse(*more), *call));
    let told = |(more, call): &(u64, &String)| {
        format!("{call} +{} (from {})", grouped(*more), grouped(before(call)))
    };
    let told: Vec<String> = grown.iter().take(3).map(told).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// For a comment or a summary.
pub(crate) fn markdown(it: &Difference, style: &Style, out: &mut dyn Write) -> io::Result<()> {
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
    for note in &it.notes {
        writeln!(out, "\n{}", plain(note))?;
    }
    Ok(())
}

/// An error for each reason that closes the gate, and the answer.
pub(crate) fn annotations(it: &Difference, out: &mut dyn Write) -> io::Result<()> {
    let title = |name: &Option<String>| match name {
        Some(name) => format!("vmaudit diff: {name}"),
        None => "vmaudit diff".to_owned(),
    };
    let all = it.breaches.iter().map(|breach| (title(&breach.name), breach.sentence.clone()));
    github::errors(all.collect(), out)?;
    let kind = if it.verdict == Change::Worse { "warning" } else { "notice" };
    writeln!(out, "::{kind} title=vmaudit diff::{}", github::data(&it.sentence))
}
