//! The report for people: one screen, the verdict first.
//!
//! Order: what happened in one sentence; the processes; what failed and why; what is no incident; what was lost; what
//! to do. Every string that comes from a process goes through [`clean`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{bytes, clean, count, grouped};
use crate::recommend::{because, reason, reasons};
use crate::report::{
    Action, Cause, Failure, Frame, Holders, Hook, HookState, MapCount, Process, Report, SourceKind,
};
use crate::source::hooks::CALL_EXIT;

/// How the text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences for colour.
    pub colour: bool,
    /// Columns to fill; less than 40 is treated as 40.
    pub width: usize,
    /// Processes and kinds of failure shown.
    pub top: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 80, top: 10 }
    }
}

const BOLD: &str = "1";
const RED: &str = "1;31";
const GREEN: &str = "1;32";
const YELLOW: &str = "1;33";
const DIM: &str = "2";

/// Longest name of a process that is shown in full, columns; the kernel's names are shorter unless they had to be
/// made visible.
const NAME_COLUMNS: usize = 24;
/// Frames shown of a stack.
const FRAMES: usize = 6;

/// Writes `report` for people.
pub fn write(report: &Report, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.width.max(40) };
    let (colour, verdict) = verdict(report);
    page.paragraph("vmaudit: ", "  ", &verdict, Some(colour))?;
    if let Some(breach) = &report.session.breach {
        page.paragraph("Budget broken: ", "  ", &clean(breach), Some(RED))?;
    }
    page.paragraph("", "  ", &circumstances(report), Some(DIM))?;
    processes(report, &mut page)?;
    failures(report, &mut page)?;
    page.blank()?;
    if let Some(answers) = ordinary_answers(report) {
        page.paragraph("No incidents, ordinary answers: ", "  ", &answers, None)?;
    }
    coverage(report, &mut page)?;
    recommendation(report, &mut page)
}

/// The single most important sentence, and its colour.
fn verdict(report: &Report) -> (&'static str, String) {
    let limit = report.limits.max_map_count.map_or("its limit".into(), grouped);
    let at_least = if crate::gate::failures_may_be_missing(report) { "at least " } else { "" };
    let at_limit: Vec<&Failure> = report.failures.iter().filter(|f| f.cause == Cause::MaxMapCount).collect();
    if let Some(worst) = at_limit.first() {
        let certain = at_limit.iter().any(|f| f.certain);
        let processes = distinct_processes(&at_limit);
        let hit = if certain { "hit" } else { "probably hit" };
        let refused: u64 = at_limit.iter().map(|f| f.count).sum();
        let who = name_pid(&worst.comm, worst.pid);
        let refused = format!("{at_least}{}", count(refused, "call", "calls"));
        let mut text = if processes == 1 {
            format!("{who} {hit} vm.max_map_count = {limit}: {refused} failed")
        } else {
            format!(
                "{} {hit} vm.max_map_count = {limit}: {refused} failed, most of them in {who}",
                count(processes as u64, "process", "processes"),
            )
        };
        let left = report.processes.iter().filter_map(|p| p.unmap_leaked_bytes).fold(0, u64::saturating_add);
        if left > 0 {
            text.push_str(&format!(", {} were not unmapped", bytes(left)));
        }
        text.push('.');
        let others: u64 =
            report.failures.iter().filter(|f| f.cause != Cause::MaxMapCount).map(|f| f.count).sum();
        if others > 0 {
            text.push_str(&format!(
                " {} failed for other reasons.",
                count(others, "more call", "more calls")
            ));
        }
        return (RED, text);
    }
    let largest = largest(report);
    if let Some(worst) = report.failures.first() {
        let all: Vec<&Failure> = report.failures.iter().collect();
        let refused: u64 = all.iter().map(|f| f.count).sum();
        let processes = distinct_processes(&all);
        let who = if processes == 1 {
            format!("in {}", name_pid(&worst.comm, worst.pid))
        } else {
            format!(
                "in {}, first of all {}",
                count(processes as u64, "process", "processes"),
                name_pid(&worst.comm, worst.pid)
            )
        };
        let causes: Vec<&str> = by_reason(&all).into_iter().map(|(reason, _)| reason).collect();
        let certain = all.iter().all(|f| f.certain);
        let known = all.iter().any(|f| f.cause != Cause::Unknown);
        let (why, end) = match (certain, known) {
            (true, _) => ("", " Not vm.max_map_count."),
            (false, true) => (", probably for", ""),
            (false, false) => ("", ""),
        };
        let refused = if at_least.is_empty() { String::new() } else { "At least ".to_owned() }
            + &count(refused, "memory call", "memory calls");
        return (YELLOW, format!("{refused} failed {who}{why}: {}.{end}", causes.join(", ")));
    }
    let Some((process, peak)) = largest else {
        return (YELLOW, "Nothing was measured: no process's VMAs could be counted.".into());
    };
    let share = match (process.map_count.percent_of_limit, report.limits.max_map_count) {
        (Some(percent), Some(limit)) => format!(", {percent:.1} % of the limit {}", grouped(limit)),
        _ => String::new(),
    };
    // Stopped by the limit it would have a failure and another verdict.
    let clipped = if process.map_count.clipped {
        " It reached the limit, and whether it was refused more could not be seen."
    } else {
        ""
    };
    let largest = format!("Largest process: {}, {} VMAs", clean(process.peak_comm()), grouped(peak));
    let near = process.map_count.percent_of_limit.is_some_and(|percent| percent >= 80.0);
    let colour = if near { YELLOW } else { GREEN };
    match report.source {
        SourceKind::Ebpf if call_exit(report).is_none_or(|hook| hook.state == HookState::Unused) => (
            if near { YELLOW } else { BOLD },
            format!("{largest} at its peak{share}.{clipped} Failed calls were not watched."),
        ),
        SourceKind::Ebpf if !at_least.is_empty() => (
            YELLOW,
            format!(
                "No failed memory call was seen, but not all could be seen (below). {largest} at its \
                 peak{share}.{clipped}"
            ),
        ),
        SourceKind::Ebpf => (colour, format!("{} {largest} at its peak{share}.", no_incident(report))),
        SourceKind::Proc => (
            if near { YELLOW } else { BOLD },
            format!(
                "{largest} in the largest sample{share}.{clipped} Sampled: the true peak may be higher, and failed \
                 calls were not seen."
            ),
        ),
    }
}

/// Nothing failed; refusals that are ordinary answers are named, because a program may still have ended for one.
fn no_incident(report: &Report) -> String {
    let refused: u64 = report.ordinary_answers.iter().map(|f| f.count).sum();
    if refused == 0 {
        return "No memory call failed.".into();
    }
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for failure in &report.ordinary_answers {
        *calls.entry(&failure.syscall).or_default() += failure.count;
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    calls.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let more = if calls.len() > 3 { ", ..." } else { "" };
    let list: Vec<String> =
        calls.iter().take(3).map(|(call, count)| format!("{} {}", clean(call), grouped(*count))).collect();
    let were = if refused == 1 {
        "call was refused as an ordinary answer"
    } else {
        "calls were refused as ordinary answers"
    };
    format!("No incident; {} {were} ({}{more}), see below.", grouped(refused), list.join(", "))
}

fn circumstances(report: &Report) -> String {
    let mut parts = vec![format!(
        "{} in {}",
        count(report.processes.len() as u64, "process", "processes"),
        seconds(report.session.duration_s)
    )];
    if let Some(exit) = report.session.exit {
        let command =
            report.session.command.first().map_or("the command".into(), |name| shortened(&clean(name), 40));
        match (exit.code, exit.signal) {
            (_, Some(signal)) => parts.push(format!("{command} died of {}", signal_name(signal))),
            (Some(code), None) => parts.push(format!("{command} ended with status {code}")),
            (None, None) => {}
        }
    }
    if report.session.still_running > 0 {
        parts.push(format!("{} still running", count(report.session.still_running, "process", "processes")));
    }
    parts.push(match report.source {
        SourceKind::Ebpf if report.processes.is_empty() => "followed in the kernel".into(),
        SourceKind::Ebpf if report.coverage.exact_peaks => "followed in the kernel, all peaks exact".into(),
        SourceKind::Ebpf if report.processes.iter().all(|process| process.map_count.exact) => {
            "followed in the kernel, all peaks here exact, but a process may be missing".into()
        }
        SourceKind::Ebpf => "followed in the kernel, peaks marked ~ are not exact".into(),
        SourceKind::Proc => "sampled from /proc".into(),
    });
    parts.push(format!("Linux {}", clean(&report.host.kernel)));
    format!("{}.", parts.join("; "))
}

fn processes(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    if report.processes.is_empty() {
        return Ok(());
    }
    page.blank()?;
    let shown: Vec<&Process> = report.processes.iter().take(page.style.top.max(1)).collect();
    let heads = ["PID", "NAME", "FIRST", "LAST", "PEAK", "% LIMIT", "FAILED"];
    let rows: Vec<[String; 7]> = shown.iter().map(|process| row(process, report)).collect();
    let mut widths = heads.map(UnicodeWidthStr::width);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    // Names give way first: figures are what the table is for.
    let others: usize = widths.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, width)| width + 2).sum();
    if let Some(name) = widths.get_mut(1) {
        *name = (*name).min(page.width.saturating_sub(others).max(8));
    }
    let line = |cells: [&str; 7]| -> String {
        let mut line = String::new();
        for (index, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            let cell = shortened(cell, width);
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            let gap = if index == 0 { "" } else { "  " };
            if index == 1 {
                line.push_str(&format!("{gap}{cell}{pad}"));
            } else {
                line.push_str(&format!("{gap}{pad}{cell}"));
            }
        }
        line.trim_end().into()
    };
    page.line(&line(heads), Some(BOLD))?;
    for (row, process) in rows.iter().zip(&shown) {
        page.line(&line(row.each_ref().map(String::as_str)), process.map_count.clipped.then_some(RED))?;
    }
    let more = report.processes.len() - shown.len();
    if more > 0 {
        page.line(&format!("and {}", count(more as u64, "more process", "more processes")), Some(DIM))?;
    }
    let mut notes = Vec::new();
    if shown.iter().any(|p| p.map_count.peak.is_some() && !p.map_count.exact) {
        notes.push("~ sampled or seen only in part: the true peak may be higher");
    }
    if rows.iter().any(|row| row.last().is_some_and(|failed| failed.starts_with('~'))) {
        notes.push("~ in FAILED: not all calls were seen, more may have failed");
    }
    if shown.iter().any(|p| p.map_count.clipped) {
        let stopped = |process: &Process| {
            report.failures.iter().any(|f| f.is_of(process) && f.cause == Cause::MaxMapCount)
        };
        notes.push(if shown.iter().all(|p| !p.map_count.clipped || stopped(p)) {
            "+ stopped by the limit: the demand is higher"
        } else {
            "+ at the limit: the demand may be higher, refused calls were not all seen"
        });
    }
    if shown.iter().any(|p| p.peak_comm() != p.comm) {
        notes.push("a -> b: the peak is of a, which became b");
    }
    if !notes.is_empty() {
        page.paragraph("", "  ", &notes.join("; "), Some(DIM))?;
    }
    Ok(())
}

fn row(process: &Process, report: &Report) -> [String; 7] {
    let MapCount { first, last, peak, exact, clipped, percent_of_limit, .. } = process.map_count;
    let figure = |value: Option<u64>| value.map_or("-".into(), grouped);
    let at_least = |value: u64, exact| format!("{}{}", if exact { "" } else { "~" }, grouped(value));
    [
        process.pid.to_string(),
        match process.peak_comm() {
            same if same == process.comm => shortened(&clean(same), NAME_COLUMNS),
            earlier => {
                let short = |name| shortened(&clean(name), NAME_COLUMNS);
                format!("{} -> {}", short(earlier), short(&process.comm))
            }
        },
        figure(first),
        figure(last),
        peak.map_or("-".into(), |peak| at_least(peak, exact) + if clipped { "+" } else { "" }),
        percent_of_limit.map_or("-".into(), |percent| format!("{percent:.1}")),
        failed_calls(process, report).map_or("-".into(), |n| at_least(n, report.coverage.exact_calls)),
    ]
}

/// The hook that sees refused calls.
fn call_exit(report: &Report) -> Option<&Hook> {
    report.coverage.hooks.iter().find(|hook| hook.name == CALL_EXIT)
}

/// Refused calls of a process that are no ordinary answers; `None` when the source cannot see them.
fn failed_calls(process: &Process, report: &Report) -> Option<u64> {
    let seen = call_exit(report).is_some_and(|hook| hook.state == HookState::Attached);
    if report.source == SourceKind::Proc || !seen {
        return None;
    }
    // The calls' own counters include refusals whose kind found no room.
    let refused: u64 = process.calls.values().filter_map(|figures| figures.failed).sum();
    let ordinary: u64 = report.ordinary_answers.iter().filter(|f| f.is_of(process)).map(|f| f.count).sum();
    Some(refused.saturating_sub(ordinary))
}

/// Failures that differ only in their process are one block.
struct Block<'a> {
    worst: &'a Failure,
    count: u64,
    processes: usize,
}

fn failures(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut index = BTreeMap::new();
    for failure in &report.failures {
        let key = (&failure.comm, &failure.syscall, &failure.errno, failure.cause, failure.certain);
        match index.get(&key).and_then(|at: &usize| blocks.get_mut(*at)) {
            Some(block) => {
                block.count += failure.count;
                block.processes += 1;
            }
            None => {
                index.insert(key, blocks.len());
                blocks.push(Block { worst: failure, count: failure.count, processes: 1 });
            }
        }
    }
    blocks.sort_by_key(|block| std::cmp::Reverse(block.count));
    let shown = page.style.top.max(1);
    // One look serves all failures of an image, and is shown with the first of them.
    let mut looks = BTreeSet::new();
    for block in blocks.iter().take(shown) {
        let Block { worst, .. } = block;
        let look = worst.holders.as_ref().filter(|holders| !holders.sentence.is_empty());
        let look = look.filter(|look| looks.insert((worst.pid, look.at_s.to_bits())));
        page.blank()?;
        failure(block, look, page)?;
    }
    if blocks.len() > shown {
        page.blank()?;
        page.line(
            &format!(
                "and {}",
                count((blocks.len() - shown) as u64, "more kind of failure", "more kinds of failure")
            ),
            Some(DIM),
        )?;
    }
    Ok(())
}

fn failure(block: &Block<'_>, look: Option<&Holders>, page: &mut Page<'_>) -> io::Result<()> {
    let Block { worst, .. } = *block;
    let who = if block.processes == 1 {
        name_pid(&worst.comm, worst.pid)
    } else {
        format!("{} named {}", count(block.processes as u64, "process", "processes"), clean(&worst.comm))
    };
    let cause = match (worst.cause, worst.certain) {
        (Cause::Unknown, _) if reason(worst) != because(Cause::Unknown) => {
            format!("cause: {}", reason(worst))
        }
        (Cause::Unknown, _) => "cause unknown".into(),
        (cause, true) => format!("cause {}", cause.name()),
        (cause, false) => format!("cause probably {}", cause.name()),
    };
    let when = match (worst.first_at_s, worst.last_at_s) {
        (Some(first), Some(last)) if block.processes == 1 && block.count > 1 => {
            format!(", {first:.3} to {last:.3} s")
        }
        (Some(first), _) if block.processes == 1 => format!(", at {first:.3} s"),
        _ => String::new(),
    };
    let head = format!(
        "{} x {} {} in {who}, {cause}{when}",
        grouped(block.count),
        clean(&worst.syscall),
        clean(&worst.errno)
    );
    page.paragraph("", "  ", &head, Some(BOLD))?;
    page.paragraph("  ", "  ", &clean(&worst.sentence), None)?;
    if let Some(look) = look {
        let whose = if block.processes == 1 { String::new() } else { format!(" at pid {}", worst.pid) };
        let text = format!("Looked{whose} {}: {}", looked(look), look.sentence);
        page.paragraph("  ", "  ", &clean(&text), None)?;
    }
    // The recommendation below is the cure for the VMA limit.
    if let Some(cure) = worst.cure.as_ref().filter(|_| worst.cause != Cause::MaxMapCount) {
        page.paragraph("  Cure: ", "  ", &clean(cure), None)?;
    }
    let stack = worst.example.as_ref().map(|example| example.stack.as_slice()).unwrap_or_default();
    // The others may have come from elsewhere.
    if block.count > 1 && !stack.is_empty() {
        page.line("  one of them:", Some(DIM))?;
    }
    for frame in stack.iter().take(FRAMES) {
        page.line(&shortened(&format!("    at {}", frame_text(frame)), page.width), Some(DIM))?;
    }
    if stack.len() > FRAMES {
        page.line(
            &format!("    and {}", count((stack.len() - FRAMES) as u64, "more frame", "more frames")),
            Some(DIM),
        )?;
    }
    Ok(())
}

/// In place of an address that is not the caller's to know.
const HIDDEN: &str = "?";

fn frame_text(frame: &Frame) -> String {
    let module = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    let text = match (&frame.symbol, module) {
        (Some(symbol), module) => {
            let place = match (&frame.file, frame.line) {
                (Some(file), Some(line)) => format!(" {file}:{line}"),
                (Some(file), None) => format!(" {file}"),
                _ => String::new(),
            };
            match module {
                Some(module) => format!("{symbol} ({module}){place}"),
                None => format!("{symbol}{place}"),
            }
        }
        (None, Some(module)) => match frame.offset {
            Some(offset) => format!("{module}+{offset:#x}"),
            None => format!("{module} {}", frame.ip.as_deref().unwrap_or(HIDDEN)),
        },
        (None, None) => frame.ip.clone().unwrap_or_else(|| HIDDEN.to_owned()),
    };
    clean(&text)
}

fn ordinary_answers(report: &Report) -> Option<String> {
    let mut kinds: BTreeMap<(&str, Cause), u64> = BTreeMap::new();
    for answer in &report.ordinary_answers {
        *kinds.entry((answer.syscall.as_str(), answer.cause)).or_default() += answer.count;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|&(kind, count)| (std::cmp::Reverse(count), kind));
    let list: Vec<String> = kinds
        .into_iter()
        .map(|((syscall, cause), count)| {
            let meaning = match (syscall, cause) {
                ("mremap", Cause::NoAddressRange) => "no room to grow in place",
                ("brk", Cause::NoAddressRange) => "questions for the break",
                _ => because(cause),
            };
            format!("{} {} ({meaning})", clean(syscall), grouped(count))
        })
        .collect();
    (!list.is_empty()).then(|| format!("{}.", list.join(", ")))
}

/// Missing hooks up to this number have a line each.
const ONE_BY_ONE: usize = 3;

fn coverage(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let coverage = &report.coverage;
    let list: Vec<String> =
        coverage.lost.iter().map(|(name, count)| format!("{} {}", clean(name), grouped(*count))).collect();
    let any = coverage.lost.values().any(|count| *count > 0);
    let list = list.join(", ");
    match (any, list.is_empty()) {
        (true, _) => page.paragraph("Lost: ", "  ", &format!("{list}."), Some(YELLOW))?,
        (false, true) => page.paragraph("Lost: ", "  ", "nothing that this source counts.", None)?,
        (false, false) if report.source == SourceKind::Proc => page.paragraph(
            "Lost: ",
            "  ",
            &format!("what happened between two looks; nothing else ({list})."),
            None,
        )?,
        (false, false) => page.paragraph("Lost: ", "  ", &format!("nothing ({list})."), None)?,
    }
    let missing: Vec<&Hook> = coverage.hooks.iter().filter(|hook| hook.state == HookState::Missing).collect();
    let reason = |hook: &Hook| hook.reason.as_deref().map_or(String::new(), |why| format!(" ({why})"));
    if let [first, .., last] = missing.as_slice()
        && missing.len() > ONE_BY_ONE
        && missing.iter().all(|hook| hook.reason == first.reason)
    {
        // One reason, one sentence; what each would give is not the point then.
        let text = format!(
            "all {} kernel hooks, from {} to {}{}; `vmaudit doctor` says what each gives",
            missing.len(),
            first.name,
            last.name,
            reason(first)
        );
        page.paragraph("Missing: ", "  ", &clean(&text), Some(YELLOW))?;
    } else {
        for hook in missing {
            let loses = hook.loses.as_deref().map_or(String::new(), |loses| format!(": {loses}"));
            let text = format!("{}{loses}{}", hook.name, reason(hook));
            page.paragraph("Missing: ", "  ", &clean(&text), Some(YELLOW))?;
        }
    }
    for note in &coverage.notes {
        page.paragraph("Note: ", "  ", &clean(note), None)?;
    }
    Ok(())
}

fn recommendation(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let advice = &report.recommendation;
    let colour = match advice.action {
        Action::Leave => GREEN,
        Action::Raise | Action::RaiseAndRerun => RED,
        Action::WillNotHelp | Action::Unknown => YELLOW,
    };
    page.blank()?;
    page.line("Recommendation", Some(BOLD))?;
    for (index, sentence) in advice.sentences.iter().enumerate() {
        page.paragraph("  ", "  ", &clean(sentence), (index == 0).then_some(colour))?;
    }
    for command in &advice.commands {
        page.line(&format!("    {}", clean(command)), None)?;
    }
    Ok(())
}

/// The process with the largest peak, and that peak.
fn largest(report: &Report) -> Option<(&Process, u64)> {
    // First of equals, so that the order of the report decides.
    let mut best: Option<(&Process, u64)> = None;
    for process in &report.processes {
        if let Some(peak) =
            process.map_count.peak.filter(|peak| best.is_none_or(|(_, largest)| *peak > largest))
        {
            best = Some((process, peak));
        }
    }
    best
}

fn distinct_processes(failures: &[&Failure]) -> usize {
    let processes: BTreeSet<(u32, Option<u64>)> =
        failures.iter().map(|f| (f.pid, f.started_s.map(f64::to_bits))).collect();
    processes.len()
}

/// Reasons with their counts, most frequent first.
fn by_reason(failures: &[&Failure]) -> Vec<(&'static str, u64)> {
    reasons(failures.iter().map(|failure| (failure.cause, reason(failure), failure.count)))
}

fn name_pid(comm: &str, pid: u32) -> String {
    format!("{} (pid {pid})", clean(comm))
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().into())
}

fn seconds(seconds: f64) -> String {
    if seconds >= 100.0 {
        format!("{} s", grouped(seconds.round() as u64))
    } else if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.3} s")
    }
}

/// `text` cut to `columns`, with an ellipsis where something is missing.
fn shortened(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.into();
    }
    let mut short = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

struct Page<'a> {
    out: &'a mut dyn Write,
    style: Style,
    width: usize,
}

impl Page<'_> {
    fn blank(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    fn line(&mut self, text: &str, colour: Option<&str>) -> io::Result<()> {
        match colour.filter(|_| self.style.colour) {
            Some(colour) => writeln!(self.out, "\x1b[{colour}m{text}\x1b[0m"),
            None => writeln!(self.out, "{text}"),
        }
    }

    /// Wraps `head` + `text`; every line after the first begins with `indent`.
    fn paragraph(&mut self, head: &str, indent: &str, text: &str, colour: Option<&str>) -> io::Result<()> {
        let mut line = String::from(head);
        let mut used = head.width();
        let mut empty = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let width = word.width();
            if !empty && used + 1 + width > self.width {
                self.line(&line, colour)?;
                line = String::from(indent);
                used = indent.width();
                empty = true;
            }
            if !empty {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += width;
            empty = false;
        }
        self.line(line.trim_end(), colour)
    }
}

/// When, and at how much.
fn looked(look: &Holders) -> String {
    let after = match look.after_ms {
        0 => "less than 1 ms".into(),
        ms => format!("{} ms", grouped(ms)),
    };
    let when = format!("at {:.3} s, {after} after a refused {}", look.at_s, look.syscall);
    if look.complete {
        return when;
    }
    let all = match look.vmas_expected.filter(|all| *all > look.vmas_read) {
        Some(all) => format!("of about {} VMAs", grouped(all)),
        None => "VMAs".into(),
    };
    let why = if look.ended { "the process ended meanwhile" } else { "there was no time for more" };
    format!("{when}, at the first {} {all}; {why}", grouped(look.vmas_read))
}

#[cfg(test)]
pub(crate) mod tests;
