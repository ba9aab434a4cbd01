//! Processes that died of signals.

use std::collections::BTreeMap;
use std::io;

use crate::model::end::{EndCause, ProcessEnd};
use crate::model::report::{Process, Report};
use crate::output::text::crowd::folded;
use crate::output::text::page::{Colour, Page, name_pid, seconds};
use crate::text::{clean, count, signal_name};

/// Signals by which a process ends that is of no more use, or that somebody asked to end: no incidents by themselves.
const ORDINARY: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGTERM, libc::SIGALRM];

/// Processes that died of signals, the most remarkable first.
pub(crate) fn killed(report: &Report) -> Vec<(&Process, &ProcessEnd)> {
    let mut killed: Vec<_> = report
        .processes
        .iter()
        .filter_map(|process| Some((process, process.end.as_ref()?)))
        .filter(|(_, end)| end.signal.is_some())
        .collect();
    killed.sort_by_key(|(process, end)| {
        (!remarkable(process, end, report), end.cause == Some(EndCause::Unknown))
    });
    killed
}

/// Whether an end belongs into the first sentence: not, if a process of the session ended another one, or if the signal
/// is one by which processes are asked to end; but always, if it is the command's own.
fn remarkable(process: &Process, end: &ProcessEnd, report: &Report) -> bool {
    let command = report.session.end.as_ref().is_some_and(|end| end.pid == Some(process.pid));
    let ordinary = end.signal.is_some_and(|signal| ORDINARY.contains(&signal));
    let within = end
        .by
        .as_ref()
        .is_some_and(|by| by.pid != process.pid && report.processes.iter().any(|other| other.pid == by.pid));
    command || !ordinary && !within
}

/// What the first sentence says of ends, and its colour; `None` when there is nothing to say.
pub(crate) fn headline(report: &Report) -> Option<(Colour, String)> {
    let killed = killed(report);
    let all = killed.iter().filter(|(process, end)| remarkable(process, end, report)).count();
    let (process, end) = killed.first().filter(|_| all > 0)?;
    let when = end.at_s.map(|at| format!(" ({})", at_seconds(at))).unwrap_or_default();
    let mut text = format!("{} {}{when}.", name_pid(&process.comm, process.pid), clean(&end.sentence));
    let more = killed.len() as u64 - 1 + folded(report, |sum| sum.killed);
    if more > 0 {
        text.push_str(&format!(" {} died of signals.", count(more, "more process", "more processes")));
    }
    let memory = !matches!(end.cause, None | Some(EndCause::Unknown | EndCause::KilledBy));
    Some((if memory { Colour::Red } else { Colour::Yellow }, text))
}

fn at_seconds(at: f64) -> String {
    format!("at {}", seconds(at))
}

/// The last column of a process's row; empty for an end that nobody needs to look at.
pub(crate) fn cell(process: &Process) -> String {
    match process.end.as_ref().map(|end| (end.signal, end.code, end.cause)) {
        Some((Some(signal), _, Some(EndCause::OomCgroup | EndCause::OomGlobal))) => {
            format!("{}, OOM", signal_name(signal))
        }
        Some((Some(signal), ..)) => signal_name(signal),
        Some((None, Some(code), _)) if code != 0 => format!("status {code}"),
        _ => String::new(),
    }
}

/// Each kind of end with one of its processes; one that the first sentence tells of stands there.
pub(crate) fn ends(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let killed = killed(report);
    let told = headline(report).is_some();
    let mut kinds: Vec<(&Process, &ProcessEnd, u64)> = Vec::new();
    let mut index: BTreeMap<_, usize> = BTreeMap::new();
    for (process, end) in killed.iter().skip(usize::from(told)) {
        let key = (&process.comm, end.signal, end.cause, end.by.as_ref().map(|by| &by.comm));
        match index.get(&key).and_then(|at| kinds.get_mut(*at)) {
            Some((_, _, processes)) => *processes += 1,
            None => {
                index.insert(key, kinds.len());
                kinds.push((process, end, 1));
            }
        }
    }
    if kinds.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line("Died of signals:", Some(Colour::Bold))?;
    let shown = page.style.top.max(1);
    for (process, end, processes) in kinds.iter().take(shown) {
        let when = end.at_s.map(|at| format!(" ({})", at_seconds(at))).unwrap_or_default();
        let more = match processes {
            1 => String::new(),
            n => format!("; {} alike", count(n - 1, "other", "others")),
        };
        let text = format!("{} {}{when}{more}", name_pid(&process.comm, process.pid), clean(&end.sentence));
        page.paragraph("  ", "    ", &text, None)?;
    }
    if kinds.len() > shown {
        let more = count((kinds.len() - shown) as u64, "more kind of end", "more kinds of end");
        page.line(&format!("  and {more}"), Some(Colour::Dim))?;
    }
    Ok(())
}
