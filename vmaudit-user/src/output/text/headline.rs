//! The first sentence of a report, and under which circumstances it was found.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cause::{reason, reasons};
use crate::model::report::{
    Accuracy, Breach, Cause, Failure, HookState, Outcome, Process, Report, SourceKind, Stretch,
};
use crate::output::text::crowd::{distinct_processes, folded};
use crate::output::text::page::{Colour, name_pid, seconds, shortened};
use crate::output::text::{ends, growth};
use crate::text::{bytes, clean, count, grouped, signal_name, total};

/// The single most important sentence, and its colour. Where nothing failed it is a budget that was broken.
pub(crate) fn verdict(report: &Report) -> (Colour, String) {
    let (colour, mut sentence) = of_figures(report);
    let mut colour = colour;
    if let Some(elsewhere) = &report.session.elsewhere {
        if colour == Colour::Green {
            colour = Colour::Yellow;
        }
        sentence = format!("{} Here: {sentence}", clean(elsewhere));
    }
    match report.breaches.first() {
        Some(breach) if report.unrecovered().next().is_none() => {
            (Colour::Red, format!("Budget broken: {}. {sentence}", clean(&breach.sentence)))
        }
        _ => (colour, sentence),
    }
}

/// The broken budgets that the verdict does not name.
pub(crate) fn more_breaches(report: &Report) -> &[Breach] {
    let named = usize::from(report.unrecovered().next().is_none());
    report.breaches.get(named..).unwrap_or_default()
}

/// Refused calls at the limit, then who died of what.
fn of_figures(report: &Report) -> (Colour, String) {
    let (colour, calls) = of_calls(report);
    match ends::headline(report) {
        None => (colour, calls),
        Some((_, end)) if !report.failures.is_empty() => (colour, format!("{calls} {end}")),
        Some((alarm, end)) => (alarm, format!("{end} {calls}")),
    }
}

/// What it says of calls and counts.
fn of_calls(report: &Report) -> (Colour, String) {
    let limit = report.limits.max_map_count.map_or("its limit".into(), grouped);
    let at_least = if report.failures_may_be_missing() { "at least " } else { "" };
    let at_limit: Vec<&Failure> = report.unrecovered().filter(|f| f.cause == Cause::MaxMapCount).collect();
    if let Some(worst) = at_limit.first() {
        let certain = at_limit.iter().any(|f| f.certain);
        let processes = distinct_processes(report, &at_limit, |sum| sum.stopped);
        let hit = if certain { "hit" } else { "probably hit" };
        let refused = total(at_limit.iter().map(|f| f.count));
        let who = name_pid(&worst.comm, worst.pid);
        let at_least = if report.limit_failures_may_be_missing() { "at least " } else { "" };
        let refused = format!("{at_least}{}", count(refused, "call", "calls"));
        let mut text = if processes == 1 {
            format!("{who} {hit} vm.max_map_count = {limit}: {refused} failed")
        } else {
            format!(
                "{} {hit} vm.max_map_count = {limit}: {refused} failed, most of them in {who}",
                count(processes, "process", "processes"),
            )
        };
        let left = report.processes.iter().map(|p| p.unmap_leaked_bytes);
        let left = left.chain(report.folded.iter().map(|sum| sum.unmap_leaked_bytes));
        let left = left.flatten().fold(0, u64::saturating_add);
        if left > 0 {
            let bounds = report.processes.iter().map(|p| p.unmap_leaked_bound);
            let bounds = bounds.chain(report.folded.iter().map(|sum| sum.unmap_leaked_bound));
            let bound = bounds.flatten().fold(Accuracy::Exact, Accuracy::and);
            text.push_str(&format!(", {}{} stay mapped that should not", bound.word(), bytes(left)));
        }
        text.push('.');
        let others = total(report.unrecovered().filter(|f| f.cause != Cause::MaxMapCount).map(|f| f.count));
        if others > 0 {
            text.push_str(&format!(
                " {} failed for other reasons.",
                count(others, "more call", "more calls")
            ));
        }
        return (Colour::Red, text);
    }
    let all: Vec<&Failure> = report.unrecovered().collect();
    if let Some(worst) = all.first() {
        let refused = total(all.iter().map(|f| f.count));
        let processes = distinct_processes(report, &all, |sum| sum.failing);
        let who = if processes == 1 {
            format!("in {}", name_pid(&worst.comm, worst.pid))
        } else {
            format!(
                "in {}, first of all {}",
                count(processes, "process", "processes"),
                name_pid(&worst.comm, worst.pid)
            )
        };
        let causes: Vec<&str> = by_reason(&all).into_iter().map(|(reason, _)| reason).collect();
        let known = all.iter().any(|f| f.cause != Cause::Unknown);
        let (why, end) = match (largest_part_is_certain(&all), known) {
            (true, _) => ("", format!(" Not vm.max_map_count.{}", uncertain_part(&all))),
            (false, true) => (", probably for", String::new()),
            (false, false) => ("", String::new()),
        };
        let refused = if at_least.is_empty() { String::new() } else { "At least ".to_owned() }
            + &count(refused, "memory call", "memory calls");
        return (Colour::Yellow, format!("{refused} failed {who}{why}: {}.{end}", causes.join(", ")));
    }
    let (colour, text) = nothing_refused(report, at_least.is_empty());
    match growth::headline(report, false) {
        Some(growth) => (Colour::Yellow, format!("{text} {growth}")),
        None => (colour, text),
    }
}

/// Of the groups with the most calls one is certain.
fn largest_part_is_certain(failures: &[&Failure]) -> bool {
    let most = failures.iter().map(|failure| failure.count).max();
    failures.iter().any(|failure| failure.certain && Some(failure.count) == most)
}

/// " 1 of them (brk) is not certain."
fn uncertain_part(failures: &[&Failure]) -> String {
    let uncertain = || failures.iter().filter(|failure| !failure.certain);
    let calls: BTreeSet<&str> = uncertain().map(|failure| failure.syscall.as_str()).collect();
    let calls: Vec<String> = calls.into_iter().take(3).map(clean).collect();
    match total(uncertain().map(|failure| failure.count)) {
        0 => String::new(),
        1 => format!(" 1 of them ({}) is not certain.", calls.join(", ")),
        many => format!(" {} of them ({}) are not certain.", grouped(many), calls.join(", ")),
    }
}

/// The same where no refused call is known. `all`: and none can have been missed.
fn nothing_refused(report: &Report, all: bool) -> (Colour, String) {
    let Some((process, peak)) = largest(report) else {
        return (Colour::Yellow, "Nothing was measured: no process's VMAs could be counted.".into());
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
    let colour = if near { Colour::Yellow } else { Colour::Green };
    match report.source {
        SourceKind::Ebpf if report.call_exit().is_none_or(|hook| hook.state == HookState::Unused) => (
            if near { Colour::Yellow } else { Colour::Bold },
            format!("{largest} at its peak{share}.{clipped} Failed calls were not watched."),
        ),
        SourceKind::Ebpf if !all && !report.locking_failures_may_be_missing() => (
            colour,
            format!(
                "{} {largest} at its peak{share}.{clipped}",
                no_incident(report).replace("No memory call failed", "No call that changes mappings failed")
            ),
        ),
        SourceKind::Ebpf if !all => (
            Colour::Yellow,
            format!(
                "No failed memory call was seen, but not all could be seen (below). {largest} at its \
                 peak{share}.{clipped}"
            ),
        ),
        SourceKind::Ebpf => (colour, format!("{} {largest} at its peak{share}.", no_incident(report))),
        SourceKind::Proc => (
            if near { Colour::Yellow } else { Colour::Bold },
            format!(
                "{largest} in the largest sample{share}.{clipped} Sampled: the true peak may be higher, and failed \
                 calls were not seen."
            ),
        ),
    }
}

/// Nothing failed; refusals that did no harm are named, because a program may still have ended for one.
pub(crate) fn no_incident(report: &Report) -> String {
    let recovered = || report.failures.iter().filter(|failure| failure.outcome == Outcome::Recovered);
    let harmless = || report.ordinary_answers.iter().chain(recovered());
    let refused = total(harmless().map(|f| f.count));
    if refused == 0 {
        return "No memory call failed.".into();
    }
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for failure in harmless() {
        let sum = calls.entry(&failure.syscall).or_default();
        *sum = sum.saturating_add(failure.count);
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    calls.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let more = if calls.len() > 3 { ", ..." } else { "" };
    let list: Vec<String> =
        calls.iter().take(3).map(|(call, count)| format!("{} {}", clean(call), grouped(*count))).collect();
    let were = match (refused, recovered().next()) {
        (1, None) => "call was refused as an ordinary answer",
        (_, None) => "calls were refused as ordinary answers",
        (1, Some(_)) => "call was refused, and the program got the like another way",
        (_, Some(_)) => "calls were refused that did no harm",
    };
    format!("No incident; {} {were} ({}{more}), see below.", grouped(refused), list.join(", "))
}

/// What of a session the flight recorder kept, and what that means for the figures.
pub(crate) fn stretched(stretch: &Stretch) -> String {
    let why = shortened(&clean(&stretch.why), 160);
    if stretch.from_s <= 0.0 {
        return format!("kept by the flight recorder, from its start: {why}");
    }
    let gone = match stretch.gone_processes {
        0 => String::new(),
        gone => format!(
            ", without {} that ended before it, with {}",
            count(gone, "process", "processes"),
            count(stretch.gone_refused, "refused call", "refused calls")
        ),
    };
    format!(
        "a stretch of it, since {} ({} after its start), kept by the flight recorder: {why}; counts, peaks and numbers of \
         refused calls are those of the processes that lived in it, since the session's start{gone}; what goes by time \
         begins there",
        stretch.from,
        seconds(stretch.from_s)
    )
}

pub(crate) fn circumstances(report: &Report) -> String {
    let mut parts = vec![format!(
        "{} in {}",
        count(report.processes.len() as u64 + folded(report, |sum| sum.processes), "process", "processes"),
        seconds(report.session.duration_s)
    )];
    if let Some(watched) = &report.session.watched {
        parts.push(format!("watched: {}", shortened(&clean(watched), 80)));
    }
    if let Some(stretch) = &report.session.stretch {
        parts.push(stretched(stretch));
    }
    if let Some(exit) = report.session.exit {
        let command = report.session.end.as_ref().map(|end| &end.name).or(report.session.command.first());
        let command = command.map_or("the command".into(), |name| shortened(&clean(name), 60));
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
        SourceKind::Ebpf
            if report.processes.iter().all(|process| process.map_count.exact)
                && report.folded.iter().all(|sum| sum.exact) =>
        {
            "followed in the kernel, all peaks here exact, but a process may be missing".into()
        }
        SourceKind::Ebpf => "followed in the kernel, peaks marked ~ are not exact".into(),
        SourceKind::Proc => "sampled from /proc".into(),
    });
    parts.push(format!("Linux {}", clean(&report.host.kernel)));
    format!("{}.", parts.join("; "))
}

/// The process with the largest peak, and that peak.
pub(crate) fn largest(report: &Report) -> Option<(&Process, u64)> {
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

/// Reasons with their counts, most frequent first.
pub(crate) fn by_reason(failures: &[&Failure]) -> Vec<(&'static str, u64)> {
    reasons(failures.iter().map(|failure| (failure.cause, reason(failure), failure.count)))
}
