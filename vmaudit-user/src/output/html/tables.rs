//! The tables of a page.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use super::curves::chosen;
use super::escape::{name, text};
use super::meaning::letter;
use crate::model::report::{CallFigures, Failure, Frame, HookState, Process, Report};
use crate::output::text::marks::figures;
use crate::output::text::processes::failed_calls;
use crate::text::{count, grouped, percent, total};

/// Rows that are not folded away.
const OPEN: usize = 20;
/// Rows where none is notable.
const FEW: usize = 10;
/// Share of the limit from which on a row is not folded away, percent.
const OPEN_PERCENT: f64 = 1.0;
/// Rows of a page; the JSON has all.
const MOST: usize = 1000;
/// Frames of a stack.
const FRAMES: usize = 16;
/// Places of a refusal.
const PLACES: usize = 3;
/// Width of a bar; the limit stands at this place in every row, with room behind it.
const BAR: u64 = 140;

/// Every process with its peak against the limit.
pub(super) fn processes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let all = &report.processes;
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section id=\"processes\"><h2>Processes</h2>")?;
    let letters: HashMap<_, _> = chosen(report).iter().map(|it| (key(it.process), it.letter)).collect();
    let refused: HashSet<_> =
        report.unrecovered().map(|it| (it.pid, it.started_s.map(f64::to_bits))).collect();
    let remarkable = |row: &&Process| {
        row.map_count.percent_of_limit.is_none_or(|share| share >= OPEN_PERCENT)
            || letters.contains_key(&key(row))
            || refused.contains(&key(row))
    };
    let mut open: Vec<&Process> = all.iter().filter(remarkable).take(OPEN).collect();
    if all.len() <= FEW || open.is_empty() {
        open = all.iter().take(FEW).collect();
    }
    let shown: HashSet<_> = open.iter().map(|row| key(row)).collect();
    let rest: Vec<&Process> = all.iter().filter(|row| !shown.contains(&key(row))).take(MOST - OPEN).collect();
    table(report, &letters, &open, out)?;
    if !rest.is_empty() {
        let largest = rest.iter().filter_map(|it| it.map_count.peak).max().unwrap_or(0);
        let more = count(rest.len() as u64, "more process", "more processes");
        let calls = match rest.iter().filter(|row| refused.contains(&key(row))).count() as u64 {
            0 => String::new(),
            some => format!(", {} refused calls", count(some, "of them was", "of them were")),
        };
        writeln!(
            out,
            "<details><summary>{more}, the largest with {} VMAs{calls}</summary>",
            grouped(largest)
        )?;
        table(report, &letters, &rest, out)?;
        writeln!(out, "</details>")?;
    }
    let shown = open.len() + rest.len();
    let without = total([(all.len() - shown) as u64, total(report.folded.iter().map(|sum| sum.processes))]);
    if without > 0 {
        let left = count(without, "process has", "processes have");
        writeln!(out, "<p class=\"soft\">{left} no row here, by name:</p>")?;
        folded(report, out)?;
    }
    writeln!(out, "</section>")
}

/// Who a process is, among all of a report.
type Key = (u32, Option<u64>);

fn key(process: &Process) -> Key {
    (process.pid, process.started_s.map(f64::to_bits))
}

fn table(
    report: &Report,
    letters: &HashMap<Key, &'static str>,
    rows: &[&Process],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "<div class=\"scroll\"><table data-sort><caption>Peak: largest number of VMAs. + stopped by the limit, ~ the largest \
         sample, \u{2013} not known.</caption><thead><tr><th>Process</th><th class=\"r\">Peak</th><th>Against the limit</th>\
         <th class=\"r\">% of limit</th><th class=\"r\">Last</th><th class=\"r\">Refused</th><th>User, unit</th></tr></thead><tbody>"
    )?;
    for row in rows {
        process(report, letters.get(&key(row)).copied(), row, out)?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn process(report: &Report, called: Option<&str>, row: &Process, out: &mut dyn Write) -> io::Result<()> {
    let map_count = &row.map_count;
    let (before, behind) = (if map_count.exact { "" } else { "~" }, if map_count.clipped { "+" } else { "" });
    let figure = |value: Option<u64>| value.map_or("\u{2013}".to_owned(), grouped);
    let peak =
        map_count.peak.map_or("\u{2013}".to_owned(), |peak| format!("{before}{}{behind}", grouped(peak)));
    let sorted = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    let share = map_count.percent_of_limit;
    let refused = failed_calls(row, report);
    let image = if row.peak_comm() == row.comm {
        String::new()
    } else {
        format!(" \u{2190} {}", name(row.peak_comm()))
    };
    let whose = [row.user.as_deref(), row.unit.as_deref()]
        .into_iter()
        .flatten()
        .map(name)
        .collect::<Vec<_>>()
        .join(", ");
    writeln!(
        out,
        "<tr><td>{}{}{image}<span class=\"sub\">pid {}</span></td><td class=\"r\" data-v=\"{}\">{peak}</td><td data-v=\"{}\">{}</td>\
         <td class=\"r\" data-v=\"{}\">{}</td><td class=\"r\" data-v=\"{}\">{}</td><td class=\"r\" data-v=\"{}\">{}</td><td>{whose}</td></tr>",
        called.map(letter).unwrap_or_default(),
        name(&row.comm),
        row.pid,
        sorted(map_count.peak),
        sorted(map_count.peak),
        bar(map_count.peak, report.limits.max_map_count, map_count.clipped),
        share.unwrap_or(-1.0),
        share.map_or("\u{2013}".to_owned(), |share| format!("{share:.1}")),
        sorted(map_count.last),
        figure(map_count.last),
        sorted(refused),
        figure(refused),
    )
}

/// A peak as a bar, the limit as a tick at the same place in each row; behind it all else in words.
fn bar(peak: Option<u64>, limit: Option<u64>, clipped: bool) -> String {
    let Some((peak, limit)) = peak.zip(limit.filter(|limit| *limit > 0)) else { return String::new() };
    let width = (u128::from(peak.min(limit)) * u128::from(BAR) / u128::from(limit)) as u64;
    let (class, arrow) = match clipped {
        true => (" full", format!("<path class=\"fill full\" d=\"M{BAR} 1l9 6l-9 6z\"/>")),
        false => ("", String::new()),
    };
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 150 14\" role=\"img\"><title>{} % of the limit</title><path class=\"track\" d=\"M0 7h{BAR}\"/>\
         <rect class=\"fill{class}\" y=\"3\" width=\"{}\" height=\"8\"/><path class=\"tick\" d=\"M{BAR} 0v14\"/>{arrow}</svg>",
        percent(peak, limit),
        width.max(1)
    )
}

/// Processes without rows.
fn folded(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.folded.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<div class=\"scroll\"><table data-sort><thead><tr><th>Name</th><th class=\"r\">Processes</th><th class=\"r\">Smallest peak</th>\
         <th class=\"r\">Largest peak</th><th class=\"r\">Refused</th></tr></thead><tbody>"
    )?;
    for sum in report.folded.iter().take(MOST / 2) {
        let shown = if sum.various { "(several names)".to_owned() } else { name(&sum.comm) };
        let cell = |value: Option<u64>| match value {
            Some(value) => format!("<td class=\"r\" data-v=\"{value}\">{}</td>", grouped(value)),
            None => "<td class=\"r\" data-v=\"-1\">\u{2013}</td>".to_owned(),
        };
        let cells = [Some(sum.processes), sum.peak_min, sum.peak_max, sum.failed].map(cell).concat();
        writeln!(out, "<tr><td>{shown}</td>{cells}</tr>")?;
    }
    writeln!(out, "</tbody></table></div>")
}

/// From where a refusal came, innermost first.
pub(super) fn stack(failure: &Failure, out: &mut dyn Write) -> io::Result<()> {
    let example = failure.example.iter().map(|it| (None, it.stack.as_slice()));
    let sites = failure.sites.iter().map(|it| (Some(it.count), it.stack.as_slice()));
    let places: Vec<_> = if failure.sites.is_empty() { example.collect() } else { sites.collect() };
    let places: Vec<_> = places.into_iter().filter(|(_, stack)| !stack.is_empty()).collect();
    for (number, (count, stack)) in places.iter().take(PLACES).enumerate() {
        let head = count.map_or("From where".to_owned(), |count| format!("{} from here", grouped(count)));
        let open = if number == 0 { " open" } else { "" };
        writeln!(out, "<details{open}><summary>{head}</summary><ol class=\"stack\">")?;
        for frame in stack.iter().take(FRAMES) {
            writeln!(out, "<li>{}</li>", place(frame))?;
        }
        let more = stack.len().saturating_sub(FRAMES) as u64;
        if more > 0 {
            writeln!(out, "<li>and {}</li>", count_frames(more))?;
        }
        writeln!(out, "</ol></details>")?;
    }
    Ok(())
}

fn count_frames(more: u64) -> String {
    count(more, "more frame", "more frames")
}

/// `main (holes) holes.c:20`.
fn place(frame: &Frame) -> String {
    let module = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    let shown = match (&frame.symbol, module, frame.offset) {
        (Some(symbol), ..) => name(symbol),
        (None, Some(module), Some(offset)) => name(&format!("{module}+{offset:#x}")),
        _ => name(frame.ip.as_deref().unwrap_or("?")),
    };
    let module = match &frame.symbol {
        Some(_) => module.map(|module| format!(" ({})", name(module))).unwrap_or_default(),
        None => String::new(),
    };
    let line = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
    let file = frame.file.as_deref().map(|file| format!(" {}{line}", name(file))).unwrap_or_default();
    let inlined = if frame.inlined { " <i>inlined</i>" } else { "" };
    format!("{shown}{module}{file}{inlined}")
}

/// Processes that died of signals.
pub(super) fn ends(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let died = |it: &&Process| it.end.as_ref().is_some_and(|end| end.signal.is_some());
    let all: Vec<&Process> = report.processes.iter().filter(died).collect();
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<section id=\"died\"><h2>Died of a signal</h2><div class=\"scroll\"><table><thead><tr><th>Process</th><th>How</th></tr></thead><tbody>"
    )?;
    for process in all.iter().take(OPEN) {
        let how = process.end.as_ref().map(|end| text(&end.sentence)).unwrap_or_default();
        writeln!(
            out,
            "<tr><td>{}<span class=\"sub\">pid {}</span></td><td>{how}</td></tr>",
            name(&process.comm),
            process.pid
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    let more = all.len().saturating_sub(OPEN) as u64;
    if more > 0 {
        writeln!(out, "<p class=\"soft\">and {}</p>", count(more, "more process", "more processes"))?;
    }
    writeln!(out, "</section>")
}

/// The calls that added the VMAs of the largest processes.
pub(super) fn makers(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let made = |it: &Process| total(it.calls.values().map(|call| call.added));
    let large: Vec<&Process> = report.processes.iter().filter(|it| made(it) > 0).take(5).collect();
    if large.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<section id=\"calls\"><h2>Who made the VMAs</h2><div class=\"scroll\"><table data-sort><caption>By system call, of the largest \
         processes.</caption><thead><tr><th>Process</th><th>Call</th><th class=\"r\">Added</th><th class=\"r\">Share</th>\
         <th class=\"r\">Removed</th></tr></thead><tbody>"
    )?;
    for process in large {
        let all = made(process);
        let mut calls: Vec<(&String, &CallFigures)> =
            process.calls.iter().filter(|(_, it)| it.added > 0).collect();
        calls.sort_by_key(|(_, it)| std::cmp::Reverse(it.added));
        for (call, figures) in calls.into_iter().take(5) {
            writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"r\" data-v=\"{}\">{}</td><td class=\"r\">{} %</td><td class=\"r\" data-v=\"{}\">{}</td></tr>",
                name(&process.comm),
                name(call),
                figures.added,
                grouped(figures.added),
                percent(figures.added, all),
                figures.removed,
                grouped(figures.removed)
            )?;
        }
    }
    writeln!(out, "</tbody></table></div></section>")
}

/// What happened in stretches of the session that somebody named.
pub(super) fn marks(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.marks.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<section id=\"marks\"><h2>By mark</h2><div class=\"scroll\"><table data-sort><caption>Stretches that were named by whoever ran them, in \
         their order; ~ at least, \u{2013} not known.</caption><thead><tr><th>Mark</th><th class=\"r\">From</th><th class=\"r\">Peak</th>\
         <th class=\"r\">Added</th><th class=\"r\">Removed</th><th class=\"r\">Refused</th><th>Largest</th></tr></thead><tbody>"
    )?;
    for mark in report.marks.iter().take(MOST / 2) {
        let values = [mark.peak, mark.added, mark.removed, mark.failed];
        let cells = values.iter().zip(figures(mark)).map(|(value, shown)| {
            let sorted = value.map_or("-1".to_owned(), |value| value.to_string());
            format!(
                "<td class=\"r\" data-v=\"{sorted}\">{}</td>",
                if value.is_some() { &shown } else { "\u{2013}" }
            )
        });
        let largest =
            mark.comm.as_deref().zip(mark.pid).map(|(comm, pid)| format!("{} (pid {pid})", name(comm)));
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"r\" data-v=\"{}\">{:.3} s</td>{}<td>{}</td></tr>",
            name(&mark.name),
            mark.begun_s,
            mark.begun_s,
            cells.collect::<String>(),
            largest.unwrap_or_default()
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    let more = report.marks.len().saturating_sub(MOST / 2) as u64;
    if more > 0 {
        writeln!(
            out,
            "<p class=\"soft\">and {}: the JSON has all.</p>",
            count(more, "more mark", "more marks")
        )?;
    }
    writeln!(out, "</section>")
}

/// What tasks of each name did: tests in threads, or named by their runner.
pub(super) fn tasks(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let of = |process: &'_ Process| process.tasks.len() > 1;
    if !report.processes.iter().any(of) {
        return Ok(());
    }
    writeln!(
        out,
        "<section id=\"tasks\"><h2>By task</h2><div class=\"scroll\"><table data-sort><caption>What the threads of each name did; peak: while it \
         ran, \u{2013} where others made changes in between.</caption><thead><tr><th>Task</th><th>Process</th><th class=\"r\">Added</th>\
         <th class=\"r\">Removed</th><th class=\"r\">Refused</th><th class=\"r\">Peak</th></tr></thead><tbody>"
    )?;
    let all = report
        .processes
        .iter()
        .filter(|it| of(it))
        .flat_map(|it| it.tasks.iter().map(move |task| (it, task)));
    for (process, task) in all.take(MOST / 2) {
        let cell = |value: Option<u64>| match value {
            Some(value) => format!("<td class=\"r\" data-v=\"{value}\">{}</td>", grouped(value)),
            None => "<td class=\"r\" data-v=\"-1\">\u{2013}</td>".to_owned(),
        };
        let cells = [task.added, task.removed, task.failed, task.peak].map(cell).concat();
        let shown = task.name.as_deref().map_or("all others".to_owned(), name);
        writeln!(
            out,
            "<tr><td>{shown}</td><td>{} (pid {})</td>{cells}</tr>",
            name(&process.comm),
            process.pid
        )?;
    }
    writeln!(out, "</tbody></table></div></section>")
}

/// What could not be hooked, and what was lost, for those who look closer.
pub(super) fn hooks(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let missing: Vec<_> =
        report.coverage.hooks.iter().filter(|hook| hook.state == HookState::Missing).collect();
    let lost: Vec<_> = report.coverage.lost.iter().filter(|(_, count)| **count > 0).collect();
    if missing.is_empty() && lost.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<details><summary>Details</summary><table><thead><tr><th>What</th><th>What it costs</th></tr></thead><tbody>"
    )?;
    for (reason, count) in lost {
        writeln!(out, "<tr><td>{}</td><td>lost {}</td></tr>", name(reason), grouped(*count))?;
    }
    for hook in missing {
        let costs = hook.loses.as_deref().unwrap_or("nothing that is shown");
        writeln!(out, "<tr><td>{} is missing</td><td>{}</td></tr>", name(&hook.name), text(costs))?;
    }
    writeln!(out, "</tbody></table></details>")
}
