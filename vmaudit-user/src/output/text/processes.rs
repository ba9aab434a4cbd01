//! The table of processes.

use std::io::{self};

use unicode_width::UnicodeWidthStr;

use crate::model::report::{Cause, HookState, MapCount, Outcome, Process, Report, Since, SourceKind};
use crate::output::text::crowd::without_row;
use crate::output::text::ends::cell;
use crate::output::text::growth;
use crate::output::text::page::{Colour, NAME_COLUMNS, Page, shortened};
use crate::text::shell;
use crate::text::{clean, count, grouped, total};

pub(crate) fn processes(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    if report.processes.is_empty() {
        return Ok(());
    }
    page.blank()?;
    let shown: Vec<&Process> = report.processes.iter().take(page.style.top.max(1)).collect();
    let heads = ["PID", "USER", "NAME", "FIRST", "LAST", "PEAK", "% LIMIT", "FAILED", "GROWTH", "END"];
    let several = several_owners(&shown);
    let rows: Vec<[String; 10]> =
        shown.iter().map(|process| with_owner(process, row(process, report), several)).collect();
    let mut widths = heads.map(UnicodeWidthStr::width);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    if !several {
        widths[USER] = 0;
    }
    // Names give way first: figures are what the table is for.
    let others: usize =
        widths.iter().enumerate().filter(|(i, _)| *i != NAME).map(|(_, width)| width + 2).sum();
    if let Some(name) = widths.get_mut(NAME) {
        *name = (*name).min(page.width.saturating_sub(others).max(8));
    }
    let grow = rows.iter().any(|row| !row[GROWTH].is_empty());
    if !grow {
        widths[GROWTH] = 0;
    }
    let line = |cells: [&str; 10]| -> String {
        let mut line = String::new();
        for (index, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            if index == USER && !several || index == GROWTH && !grow {
                continue;
            }
            let cell = shortened(cell, width);
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            let gap = if index == 0 { "" } else { "  " };
            if [USER, NAME, END].contains(&index) {
                line.push_str(&format!("{gap}{cell}{pad}"));
            } else {
                line.push_str(&format!("{gap}{pad}{cell}"));
            }
        }
        line.trim_end().into()
    };
    let mut heads = heads;
    if rows.iter().all(|row| row.last().is_none_or(String::is_empty)) {
        heads[END] = "";
    }
    page.line(&line(heads), Some(Colour::Bold))?;
    for (row, process) in rows.iter().zip(&shown) {
        page.line(
            &line(row.each_ref().map(String::as_str)),
            process.map_count.clipped.then_some(Colour::Red),
        )?;
        if let Some(args) = &process.args {
            let words = clean(&shell::quoted(args));
            page.line(
                &format!("       {}", shortened(&words, page.width.saturating_sub(7))),
                Some(Colour::Dim),
            )?;
        }
    }
    let more = report.processes.len() - shown.len();
    if more > 0 {
        page.line(
            &format!("and {}", count(more as u64, "more process", "more processes")),
            Some(Colour::Dim),
        )?;
    }
    without_row(report, page)?;
    let mut notes = Vec::new();
    if shown.iter().any(|p| p.map_count.peak.is_some() && !p.map_count.exact) {
        notes.push(match report.source {
            // The first sentence says what that means.
            SourceKind::Proc => "~ sampled",
            SourceKind::Ebpf => "~ sampled or seen only in part: the true peak may be higher",
        });
    }
    if rows.iter().any(|[.., failed, _, _]| failed.starts_with('~')) {
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
    notes.extend(before(&shown, report));
    let shares = shared_with(&shown);
    notes.extend(shares.as_deref());
    if !notes.is_empty() {
        page.paragraph("", "  ", &notes.join("; "), Some(Colour::Dim))?;
    }
    Ok(())
}

/// Places of columns.
const USER: usize = 1;
const NAME: usize = 2;
const GROWTH: usize = 8;
const END: usize = 9;

/// Whose each is is worth a column.
fn several_owners(shown: &[&Process]) -> bool {
    let mut owners = shown.iter().filter_map(|process| process.user.as_ref().zip(process.uid));
    let first = owners.next();
    owners.any(|owner| Some(owner) != first)
}

fn with_owner(process: &Process, row: [String; 8], several: bool) -> [String; 10] {
    let [pid, name, first, last, peak, percent, failed, end] = row;
    let user = if several { process.user.as_deref().unwrap_or("-") } else { "" };
    [
        pid,
        shortened(&clean(user), NAME_COLUMNS),
        name,
        first,
        last,
        peak,
        percent,
        failed,
        growth::cell(process),
        end,
    ]
}

/// Whose counts some rows show.
fn shared_with(shown: &[&Process]) -> Option<String> {
    const NAMED: usize = 3;
    let hosts = |process: &&Process| Some((process.pid, process.shares_address_space_of?));
    let mut lodgers = shown.iter().filter_map(hosts);
    let named: Vec<String> =
        lodgers.by_ref().take(NAMED).map(|(pid, host)| format!("{pid} in that of {host}")).collect();
    let more = match lodgers.count() {
        0 => String::new(),
        n => format!(", and {} more", grouped(n as u64)),
    };
    (!named.is_empty())
        .then(|| format!("= no address space of its own, counted there: {}{more}", named.join(", ")))
}

pub(crate) fn row(process: &Process, report: &Report) -> [String; 8] {
    let MapCount { first, last, peak, exact, clipped, percent_of_limit, .. } = process.map_count;
    let figure = |value: Option<u64>| value.map_or("-".into(), grouped);
    let at_least = |value: u64, exact| format!("{}{}", if exact { "" } else { "~" }, grouped(value));
    let shared = if process.shares_address_space_of.is_some() { "=" } else { "" };
    [
        process.pid.to_string(),
        match process.peak_comm() {
            same if same == process.comm => shortened(&clean(same), NAME_COLUMNS),
            earlier => {
                let short = |name| shortened(&clean(name), NAME_COLUMNS);
                format!("{} -> {}", short(earlier), short(&process.comm))
            }
        },
        format!("{}{}", attached(process, report), figure(first)),
        figure(last),
        peak.map_or("-".into(), |peak| {
            format!("{shared}{}{}", at_least(peak, exact), if clipped { "+" } else { "" })
        }),
        percent_of_limit.map_or("-".into(), |percent| format!("{percent:.1}")),
        failed_calls(process, report)
            .map_or("-".into(), |n| at_least(n, report.coverage.exact_locking_calls)),
        cell(process),
    ]
}

/// Some rows are of processes that ran before.
fn before(shown: &[&Process], report: &Report) -> Option<&'static str> {
    let any = shown.iter().any(|p| p.since == Some(Since::Attach));
    let all = report.processes.iter().all(|p| p.since == Some(Since::Attach));
    any.then_some(match all {
        true => "all of these ran before: their figures begin at the attach",
        false => "@ ran before: its figures begin at the attach",
    })
}

/// The mark of a process that ran before, where others did not.
fn attached(process: &Process, report: &Report) -> &'static str {
    let shown = |since| report.processes.iter().any(|process| process.since == since);
    let several = shown(Some(Since::Start)) || shown(None);
    if process.since == Some(Since::Attach) && several { "@" } else { "" }
}

/// Refused calls of a process whose need was not met another way, and that are no ordinary answers; `None` when the source
/// cannot see them.
pub(crate) fn failed_calls(process: &Process, report: &Report) -> Option<u64> {
    let seen = report.call_exit().is_some_and(|hook| hook.state == HookState::Attached);
    if report.source == SourceKind::Proc || !seen {
        return None;
    }
    // The calls' own counters include refusals whose kind found no room.
    let refused = total(process.calls.values().filter_map(|figures| figures.failed));
    let recovered = report.failures.iter().filter(|f| f.outcome != Outcome::Unrecovered);
    let harmless = report.ordinary_answers.iter().chain(recovered);
    Some(refused.saturating_sub(total(harmless.filter(|f| f.is_of(process)).map(|f| f.count))))
}
