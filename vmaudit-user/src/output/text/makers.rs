//! Who made the VMAs, of the processes that came near the limit: from where, and what each call added.

use std::io;

use unicode_width::UnicodeWidthStr as _;

use crate::model::report::{CallFigures, Cause, Failure, Frame, Maker, Nobody, Process, Report, TaskFigures};
use crate::output::text::page::{Colour, Page, name_pid, without_middle};
use crate::output::text::stack::{is_of_library, name};
use crate::text::{clean, count, grouped, total};

/// A process with this part of the limit or more is told of, one in so many.
const PART: u64 = 10;
/// Processes told of.
const PROCESSES: usize = 3;
/// Calls named.
const CALLS: usize = 4;
/// Places named of one process.
const PLACES: usize = 6;
/// Columns of a place at least, and before a note.
const NARROWEST: usize = 24;
const NOTE: usize = 24;
/// Columns of a call's name.
const CALL: usize = 10;
/// What the table of places is.
const WHAT: &str =
    "The table: who raised the count to its peak. Where VMAs were freed, those who came last have lost them.";

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

fn of_interest(process: &Process, report: &Report) -> bool {
    let limit = report.limits.max_map_count;
    let large = process.map_count.peak.zip(limit).is_some_and(|(peak, limit)| peak >= (limit / PART).max(1));
    let refused = |failure: &Failure| failure.is_of(process) && failure.cause == Cause::MaxMapCount;
    let grows = process.growth.as_ref().is_some_and(|growth| growth.steady);
    large || grows || process.map_count.clipped || report.unrecovered().any(refused)
}

/// From where, with what nobody is credited with: all that it had at its peak.
fn by_place(process: &Process, page: &mut Page<'_>) -> io::Result<()> {
    if process.makers.is_empty() {
        return Ok(());
    }
    let (makers, nobody): (Vec<&Maker>, Vec<&Maker>) =
        process.makers.iter().partition(|maker| maker.nobody.is_none());
    let all = process.makers.iter().fold(0u64, |sum, maker| sum.saturating_add(maker.count));
    let head = format!("    {:>10} {:>7}  {:<CALL$}  ", "AT PEAK", "SHARE", "CALL");
    page.line(&format!("{head}WHERE"), Some(Colour::Dim))?;
    let row = |count: u64, call: &str| {
        let percent = format!("{} %", tenths(count, all));
        format!("    {:>10} {percent:>7}  {:<CALL$}  ", grouped(count), clean(call))
    };
    for maker in makers.iter().take(PLACES) {
        let head = row(maker.count, short(maker.syscall.as_deref().unwrap_or_default()));
        let room = page.width.saturating_sub(head.width()).max(NARROWEST);
        page.paragraph(&head, &" ".repeat(NOTE), &place(&maker.stack, room), None)?;
        for note in &maker.stack_notes {
            page.paragraph(&" ".repeat(NOTE), &" ".repeat(NOTE), &clean(note), Some(Colour::Dim))?;
        }
    }
    let rest = |why| nobody.iter().filter(move |it| it.nobody == Some(why)).map(|it| it.count);
    let others = makers.iter().skip(PLACES).map(|maker| maker.count).chain(rest(Nobody::OtherPlaces));
    for (count, what) in [
        (total(others), "other places"),
        (total(rest(Nobody::Before)), "there before vmaudit looked"),
        (total(rest(Nobody::NotSampled)), "not sampled"),
    ] {
        if count > 0 {
            page.line(&(row(count, "") + what), Some(Colour::Dim))?;
        }
    }
    Ok(())
}

/// The innermost functions of the program, `inner < outer`.
fn place(stack: &[Frame], room: usize) -> String {
    const FUNCTIONS: usize = 5;
    // The call is named already, and whoever maps does so through the C library.
    let of_library = |frame: &&Frame| is_of_c_library(frame) || is_of_library(frame);
    let inner = stack.iter().take_while(of_library).count();
    let shown = stack.get(inner..).filter(|rest| !rest.is_empty()).unwrap_or(stack);
    let mut line = String::new();
    for (n, frame) in shown.iter().enumerate() {
        if n >= FUNCTIONS {
            line.push_str(" < …");
            break;
        }
        line.push_str(if n == 0 { "" } else { " < " });
        line.push_str(&without_middle(&function(frame), room));
    }
    if line.is_empty() { "its stack is not known".into() } else { line }
}

/// Of the C library.
fn is_of_c_library(frame: &Frame) -> bool {
    const FILES: [&str; 4] = ["libc.so", "libc-2.", "ld-musl", "libc.musl"];
    let file = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    file.is_some_and(|file| FILES.iter().any(|start| file.starts_with(start)))
}

/// A function with its line, or where its code is.
fn function(frame: &Frame) -> String {
    let name = name(frame);
    let file = frame.file.as_deref().map(|path| clean(path.rsplit('/').next().unwrap_or(path)));
    match (file, frame.line) {
        (Some(file), Some(line)) if frame.symbol.is_some() => format!("{name} {file}:{line}"),
        _ => name,
    }
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

fn tenths(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A call in a column.
fn short(name: &str) -> &str {
    match name {
        "[other]" => "others",
        "[32-bit]" => "32-bit",
        name => name,
    }
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
