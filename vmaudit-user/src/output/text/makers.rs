//! Who made the VMAs, of the processes that came near the limit: from where, and what each call added.

use std::io;

use unicode_width::UnicodeWidthStr as _;

use crate::model::report::{CallFigures, Cause, Failure, Frame, Maker, Nobody, Process, Report, TaskFigures};
use crate::output::text::page::{Colour, Page, name_pid, without_middle};
use crate::output::text::stack::{is_of_library, name};
use crate::text::function::without_types;
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
/// Functions shown inside of those that an interpreter runs.
const NATIVE: usize = 2;
/// How the names of Python's functions begin.
const PYTHON: &str = "py::";
/// Longer names lose their types, columns.
const LONG: usize = 40;
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
    let places = joined(&makers);
    // What is less than a thousandth is no news beside what is not.
    let worth = |place: &&Place<'_>| place.count >= all / 1000;
    let shown = places.iter().take(PLACES).take_while(worth).count();
    for place in places.iter().take(shown) {
        let head = row(place.count, short(place.maker.syscall.as_deref().unwrap_or_default()));
        let room = page.width.saturating_sub(head.width()).max(NARROWEST);
        page.paragraph(&head, &" ".repeat(NOTE), &where_from(&place.maker.stack, room), None)?;
        let more = (place.cut > 0).then(|| {
            let all = if place.cut == place.count { "all".to_owned() } else { grouped(place.cut) };
            format!("Of {all} of them the callers further out are not known.")
        });
        let wanted = place.count >= all / 100;
        let notes = place.maker.stack_notes.iter().filter(|_| wanted).map(|note| clean(note));
        for note in notes.chain(more.filter(|_| !place.maker.cut)) {
            page.paragraph(&" ".repeat(NOTE), &" ".repeat(NOTE), &note, Some(Colour::Dim))?;
        }
    }
    let rest = |why| nobody.iter().filter(move |it| it.nobody == Some(why)).map(|it| it.count);
    let others = places.iter().skip(shown).map(|place| place.count).chain(rest(Nobody::OtherPlaces));
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

/// Makers from one place, as far as can be seen.
struct Place<'m> {
    /// The one that shows most of the stack.
    maker: &'m Maker,
    count: u64,
    /// Of these the outer callers are not known.
    cut: u64,
}

/// A stack without its outer callers goes to the largest one that begins like it: the function that called is the same.
fn joined<'m>(makers: &[&'m Maker]) -> Vec<Place<'m>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    let (mut cut, mut all): (Vec<&Maker>, Vec<&Maker>) = makers.iter().partition(|maker| maker.cut);
    all.sort_by_key(|maker| std::cmp::Reverse(maker.count));
    // The longer one first, so that a shorter one finds it.
    cut.sort_by_key(|maker| std::cmp::Reverse(maker.stack.len()));
    all.extend(cut);
    for maker in all {
        let of = |it: &&mut Place<'_>| {
            maker.cut
                && !maker.stack.is_empty()
                && it.maker.syscall == maker.syscall
                && it.maker.stack.len() >= maker.stack.len()
                && it.maker.stack.iter().zip(&maker.stack).all(|(a, b)| a.is_like(b))
        };
        match places.iter_mut().find(of) {
            Some(place) => {
                place.count = place.count.saturating_add(maker.count);
                place.cut = place.cut.saturating_add(maker.count);
            }
            None => places.push(Place { maker, count: maker.count, cut: 0 }),
        }
    }
    places.sort_by_key(|place| std::cmp::Reverse(place.count));
    places
}

/// The innermost functions of the program, `inner < outer`.
fn where_from(stack: &[Frame], room: usize) -> String {
    const FUNCTIONS: usize = 5;
    // The call is named already, and whoever maps does so through the C library.
    let of_library = |frame: &&Frame| is_of_c_library(frame) || is_of_library(frame) || is_of_go(frame);
    let inner = stack.iter().take_while(of_library).count();
    let shown = stack.get(inner..).filter(|rest| !rest.is_empty()).unwrap_or(stack);
    // What an interpreter runs says more than the interpreter.
    let is_script = |frame: &&Frame| frame.symbol.as_deref().is_some_and(|name| name.starts_with(PYTHON));
    let scripts = shown.iter().filter(is_script).count();
    let native = shown.iter().take_while(|frame| !is_script(frame)).count();
    let shown: Vec<&Frame> = match scripts {
        0 => shown.iter().collect(),
        _ => shown.iter().take(native.min(NATIVE)).chain(shown.iter().filter(is_script)).collect(),
    };
    let left_out = |n: usize| scripts > 0 && native > NATIVE && n == NATIVE;
    let mut line = String::new();
    for (n, frame) in shown.iter().enumerate() {
        if n >= FUNCTIONS {
            line.push_str(" < …");
            break;
        }
        line.push_str(if n == 0 { "" } else { " < " });
        line.push_str(if left_out(n) { "… < " } else { "" });
        line.push_str(&without_middle(&function(frame, room), room));
    }
    if line.is_empty() { "its stack is not known".into() } else { line }
}

/// Go's own way into the kernel.
fn is_of_go(frame: &Frame) -> bool {
    const PACKAGES: [&str; 2] = ["runtime/internal/syscall.", "internal/runtime/syscall."];
    const FUNCTIONS: [&str; 4] =
        ["syscall.RawSyscall6", "syscall.Syscall", "syscall.Syscall6", "syscall.rawSyscallNoError"];
    frame.symbol.as_deref().is_some_and(|name| {
        PACKAGES.iter().any(|package| name.starts_with(package)) || FUNCTIONS.contains(&name)
    })
}

/// Of the C library.
fn is_of_c_library(frame: &Frame) -> bool {
    const FILES: [&str; 4] = ["libc.so", "libc-2.", "ld-musl", "libc.musl"];
    let file = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    file.is_some_and(|file| FILES.iter().any(|start| file.starts_with(start)))
}

/// A function with its line, or where its code is.
fn function(frame: &Frame, room: usize) -> String {
    let name = name(frame);
    let line = |file: &str, line: Option<u32>| {
        let file = clean(file.rsplit('/').next().unwrap_or(file));
        line.map_or_else(|| format!(" {file}"), |line| format!(" {file}:{line}"))
    };
    if let Some((function, file)) = name.strip_prefix(PYTHON).and_then(|rest| rest.rsplit_once(':')) {
        return function.to_owned() + &line(file, None);
    }
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(number)) if frame.symbol.is_some() => line(file, Some(number)),
        _ => String::new(),
    };
    let room = room.saturating_sub(place.width());
    let generated = frame.module.is_none() && frame.symbol.is_some();
    let name = if generated || name.width() > room.min(LONG) { without_types(&name) } else { name };
    without_middle(&name, room) + &place
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, module: &str, line: u32) -> Frame {
        let file = (line > 0).then(|| "pool.c".to_owned());
        Frame {
            symbol: Some(name.into()),
            module: (!module.is_empty()).then(|| module.into()),
            file,
            line: (line > 0).then_some(line),
            ..Frame::bare(u64::from(line))
        }
    }

    fn maker(count: u64, stack: Vec<Frame>, cut: bool) -> Maker {
        let syscall = Some("mmap".into());
        Maker { count, share: 0.0, syscall, stack, stack_notes: Vec::new(), cut, nobody: None }
    }

    fn counts(makers: &[Maker]) -> Vec<(u64, u64)> {
        joined(&makers.iter().collect::<Vec<_>>()).iter().map(|place| (place.count, place.cut)).collect()
    }

    #[test]
    fn a_stack_without_its_callers_goes_to_the_largest_that_begins_like_it() {
        let [a, b, c] = [1, 2, 3].map(|line| frame("f", "/bin/a", line));
        let whole = [
            maker(50, vec![a.clone(), b.clone()], false),
            maker(60, vec![a.clone(), c.clone()], false),
            maker(1, vec![c.clone()], false),
        ];
        assert_eq!(counts(&whole), [(60, 0), (50, 0), (1, 0)], "whole ones stay apart");
        let cut = maker(7, vec![a.clone()], true);
        let all = [&whole[..], &[cut, maker(9, vec![b], true), maker(3, Vec::new(), true)]].concat();
        assert_eq!(counts(&all), [(67, 7), (50, 0), (9, 0), (3, 0), (1, 0)]);
        let other = Maker { syscall: Some("brk".into()), ..maker(7, vec![a], true) };
        assert_eq!(counts(&[&whole[..], &[other]].concat()), [(60, 0), (50, 0), (7, 0), (1, 0)]);
    }

    #[test]
    fn the_functions_of_the_program_stand_first() {
        let libc = frame("mprotect", "/lib/libc.so.6", 0);
        let go = [
            frame("runtime/internal/syscall.Syscall6", "/bin/go", 0),
            frame("syscall.Mprotect", "/bin/go", 0),
        ];
        assert_eq!(where_from(&[libc.clone(), frame("grow", "/bin/a", 9)], 60), "grow pool.c:9");
        assert_eq!(where_from(std::slice::from_ref(&libc), 60), "mprotect", "better than nothing");
        assert_eq!(where_from(&go, 60), "syscall.Mprotect");
        let java = frame("void a.b.Node.open(java.io.File, long)", "", 0);
        assert_eq!(where_from(&[java], 60), "Node.open");
        let mut python = vec![
            frame("f1", "/l/libffi.so", 0),
            frame("f2", "/l/libffi.so", 0),
            frame("f3", "/l/libpython3.12.so", 0),
        ];
        python.extend(
            ["py::grow:/srv/a b/pool.py", "eval", "py::<module>:/srv/pool.py"].map(|name| frame(name, "", 0)),
        );
        assert_eq!(where_from(&python, 60), "f1 < f2 < … < grow pool.py < <module> pool.py");
    }
}
