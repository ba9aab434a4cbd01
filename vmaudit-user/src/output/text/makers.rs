//! Who made the VMAs, of the processes that came near the limit: from where, and what each call added.

use std::io;

use unicode_width::UnicodeWidthStr as _;

use crate::model::report::{CallFigures, Process, Report, TaskFigures};
use crate::output::makers::{PLACES, WHAT, of_interest, rows, tenths};
use crate::output::text::page::{Colour, Page, name_pid};
use crate::text::{clean, count, grouped};

/// Processes told of.
const PROCESSES: usize = 3;
/// Calls named.
const CALLS: usize = 4;
/// Columns of a place at least, and before a note.
const NARROWEST: usize = 24;
const NOTE: usize = 24;
/// Columns of a call's name.
const CALL: usize = 10;

/// One paragraph for each process that stood above a tenth of the limit, was refused for it, or grows steadily.
pub(crate) fn makers(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let told: Vec<(&Process, String)> = report
        .processes
        .iter()
        .filter(|process| of_interest(process, report))
        .map(|process| {
            (process, by_call(process).unwrap_or_default() + &by_task(process).unwrap_or_default())
        })
        .filter(|(process, text)| !text.is_empty() || !process.makers.is_empty())
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line("Who made the VMAs", Some(Colour::Bold))?;
    for (process, text) in told.iter().take(PROCESSES) {
        let head = format!("  {}: ", name_pid(&process.comm, process.pid));
        page.paragraph(&head, "    ", text, None)?;
        by_place(process, page)?;
    }
    if told.iter().take(PROCESSES).any(|(process, _)| !process.makers.is_empty()) {
        page.paragraph("  ", "  ", WHAT, Some(Colour::Dim))?;
    }
    if told.len() > PROCESSES {
        let more = count((told.len() - PROCESSES) as u64, "more process", "more processes");
        page.line(&format!("  and {more}, in the JSON"), Some(Colour::Dim))?;
    }
    Ok(())
}

/// From where, with what nobody is credited with: all that it had at its peak.
fn by_place(process: &Process, page: &mut Page<'_>) -> io::Result<()> {
    let rows = rows(process, PLACES);
    if rows.is_empty() {
        return Ok(());
    }
    let head = format!("    {:>10} {:>7}  {:<CALL$}  ", "AT PEAK", "SHARE", "CALL");
    page.line(&format!("{head}WHERE"), Some(Colour::Dim))?;
    for row in rows {
        let head =
            format!("    {:>10} {:>7}  {:<CALL$}  ", grouped(row.count), row.share(), clean(row.call()));
        let room = page.width.saturating_sub(head.width()).max(NARROWEST);
        let colour = row.nobody.map(|_| Colour::Dim);
        page.paragraph(&head, &" ".repeat(NOTE), &row.place(room).join(" < "), colour)?;
        for note in &row.notes {
            page.paragraph(&" ".repeat(NOTE), &" ".repeat(NOTE), note, Some(Colour::Dim))?;
        }
    }
    Ok(())
}

/// `None` where it is not known by which calls.
fn by_call(process: &Process) -> Option<String> {
    // Pseudo calls alone: nobody looked which call it was.
    if process.calls.keys().all(|name| name.starts_with('[')) {
        return None;
    }
    let added = listed(process, |figures| figures.added)?;
    let mut text = format!("added by {added}");
    if let Some(removed) = listed(process, |figures| figures.removed) {
        text.push_str(&format!("; removed by {removed}"));
    }
    // What was missed between two looks is in no call's sum.
    text.push_str(if process.map_count.exact { "." } else { " (not all changes were seen)." });
    Some(text)
}

/// Which tasks did, where those of more than one name added more than a twentieth.
fn by_task(process: &Process) -> Option<String> {
    const PART: u64 = 20;
    let all = process.tasks.iter().filter_map(|it| it.added).fold(0, u64::saturating_add);
    let large = |it: &&TaskFigures| it.added.is_some_and(|added| added > all / PART);
    if process.tasks.iter().filter(large).count() < 2 {
        return None;
    }
    // Ordered by what they did; refusals are not meant here.
    let mut tasks: Vec<&TaskFigures> = process.tasks.iter().filter(|it| it.added > Some(0)).collect();
    tasks.sort_by_key(|it| std::cmp::Reverse(it.added));
    let mut parts: Vec<String> = Vec::new();
    let mut rest = 0u64;
    for it in tasks {
        let added = it.added.unwrap_or(0);
        match &it.name {
            Some(name) if parts.len() < CALLS => {
                let share = if parts.is_empty() { share(added, all) } else { String::new() };
                parts.push(format!("{} {}{share}", clean(name), grouped(added)));
            }
            _ => rest = rest.saturating_add(added),
        }
    }
    if rest > 0 {
        parts.push(format!("other names {}", grouped(rest)));
    }
    Some(format!(" By name of the thread: {}.", parts.join(", ")))
}

/// The calls with most of it; `None` when there is none.
fn listed(process: &Process, figure: impl Fn(&CallFigures) -> u64) -> Option<String> {
    let mut calls: Vec<(&str, u64)> =
        process.calls.iter().map(|(name, figures)| (name.as_str(), figure(figures))).collect();
    calls.retain(|(_, vmas)| *vmas > 0);
    calls.sort_by_key(|&(name, vmas)| (std::cmp::Reverse(vmas), name));
    let all = calls.iter().fold(0, |sum: u64, (_, vmas)| sum.saturating_add(*vmas));
    let mut parts: Vec<String> = Vec::new();
    for (n, (name, vmas)) in calls.iter().take(CALLS).enumerate() {
        let share = if n == 0 && calls.len() > 1 { share(*vmas, all) } else { String::new() };
        parts.push(format!("{} {}{share}", words(name), grouped(*vmas)));
    }
    let rest = calls.iter().skip(CALLS).fold(0, |sum: u64, (_, vmas)| sum.saturating_add(*vmas));
    if rest > 0 {
        parts.push(format!("other calls {}", grouped(rest)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Rounded down: a part is never the whole.
fn share(part: u64, whole: u64) -> String {
    format!(" ({} %)", tenths(part, whole))
}

/// A call, or what stands in its place; see `vmaudit_common::call::CALLS`.
fn words(name: &str) -> String {
    match name {
        "[other]" => "page faults and other calls".into(),
        "[foreign]" => "other processes".into(),
        "[32-bit]" => "32-bit calls".into(),
        name => clean(name),
    }
}
