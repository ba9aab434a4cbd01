//! The verdict of a scan: one sentence that answers, and what follows from it.

use crate::model::report::Process;
use crate::model::scan::Scan;
use crate::output::text::growth;
use crate::output::text::page::Colour;
use crate::text::{clean, count, grouped};

/// From this share of the limit on, in percent, a process is in danger.
const DANGER: f64 = 90.0;
/// Below this share a process is not worth a word.
const NO_WORD: f64 = 1.0;

/// Paragraphs, each with its colour; the first is the verdict.
pub(crate) fn headline(scan: &Scan) -> Vec<(String, Option<Colour>)> {
    let sudo = if scan.root { "" } else { "sudo " };
    let mut others: Vec<&Process> =
        scan.report.processes.iter().filter(|process| process.pid != scan.own).collect();
    others.sort_by_key(|process| std::cmp::Reverse((process.map_count.last, std::cmp::Reverse(process.pid))));
    let forbidden = scan.report.not_counted.iter().filter(|it| it.forbidden).count() as u64;
    let (colour, verdict) = match others.as_slice() {
        [] => nothing(scan, forbidden),
        [largest, rest @ ..] => of_largest(scan, largest, rest, forbidden),
    };
    let growth = growth::headline(&scan.report, true);
    let colour = if growth.is_some() && colour == Colour::Green { Colour::Yellow } else { colour };
    let verdict = growth.map_or(verdict.clone(), |growth| format!("{growth} {verdict}"));
    let mut lines = vec![(verdict, Some(colour))];
    if let (Some(value), Some(largest)) = (scan.report.recommendation.value, others.first()) {
        lines.push((
            format!(
                "To raise it: {sudo}vmaudit limit --apply {value}. Who holds its VMAs: {sudo}vmaudit explain {}.",
                largest.pid
            ),
            None,
        ));
    }
    if forbidden > 0 && !others.is_empty() {
        // What holds no memory is nobody's loss.
        let of = forbidden + scan.report.processes.len() as u64;
        let who = count(forbidden, "process", "processes");
        let why =
            if scan.root { "which this machine shows not even to root" } else { "which sudo vmaudit sees" };
        lines.push((format!("Not seen: {who} of {}, {why}.", grouped(of)), None));
    }
    if scan.report.processes.is_empty() && scan.report.not_counted.is_empty() {
        return lines;
    }
    lines.push((
        format!(
            "What has ended is not here, and counts are of this moment: {sudo}vmaudit run CMD sees a program's peak, \
             {sudo}vmaudit trace -Z --all the next refused call."
        ),
        Some(Colour::Dim),
    ));
    lines
}

fn nothing(scan: &Scan, forbidden: u64) -> (Colour, String) {
    let report = &scan.report;
    let sentence = match (report.processes.is_empty(), report.not_counted.as_slice()) {
        (true, []) => "No process is what was asked for.".to_owned(),
        (false, []) => {
            "No process runs but vmaudit itself, so there is nothing to say about the limit.".to_owned()
        }
        (own_only, uncounted) => {
            let first = uncounted.first().map(|it| it.reason.as_str()).unwrap_or_default();
            let all = uncounted.len() as u64;
            let what = match (all, forbidden) {
                (1, _) => format!("Nothing is known: process {} {}", uncounted[0].pid, clean(first)),
                (_, 0) => format!(
                    "Nothing is known: none of {} could be counted",
                    count(all, "process", "processes")
                ),
                _ => format!(
                    "Nothing is known: {} may not be read, and {}; sudo vmaudit sees them",
                    count(forbidden, "process", "processes"),
                    if own_only {
                        "no other could be counted"
                    } else {
                        "vmaudit itself is all that was counted"
                    },
                ),
            };
            format!("{what}.")
        }
    };
    (Colour::Yellow, sentence)
}

fn of_largest(scan: &Scan, largest: &Process, rest: &[&Process], forbidden: u64) -> (Colour, String) {
    let vmas = largest.map_count.last.unwrap_or(0);
    let who = name(largest);
    let held = count(vmas, "VMA", "VMAs");
    let (Some(limit), Some(share)) = (scan.report.limits.max_map_count, largest.map_count.percent_of_limit)
    else {
        let verdict =
            format!("vm.max_map_count could not be read; the largest process is {who} with {held}.");
        return (Colour::Yellow, verdict);
    };
    let bound = format!("vm.max_map_count = {}", grouped(limit));
    let endangered = 1 + rest.iter().filter(|it| share_of(it) >= DANGER).count() as u64;
    match () {
        () if vmas >= limit => {
            let more = if endangered > 1 {
                format!("; {} at {DANGER:.0} % or more of it", more_processes(endangered - 1))
            } else {
                among(rest)
            };
            (
                Colour::Red,
                format!("{who} is at the limit {bound} with {held}: calls that need more fail{more}."),
            )
        }
        () if endangered > 1 => (
            Colour::Red,
            format!(
                "{} are at {DANGER:.0} % or more of {bound}; the largest, {who}, has {held}, {share:.1} % of it.",
                count(endangered, "process", "processes")
            ),
        ),
        () if share >= DANGER || scan.report.recommendation.value.is_some() => {
            let colour = if share >= DANGER { Colour::Red } else { Colour::Yellow };
            (colour, format!("{who} has {held}, {share:.1} % of {bound}{}.", among(rest)))
        }
        () => {
            let no = if forbidden > 0 { "No process that may be read" } else { "No process" };
            let colour = if forbidden > 0 { Colour::Yellow } else { Colour::Green };
            (colour, format!("{no} is near {bound}: the largest, {who}, has {held}, {share:.1} % of it."))
        }
    }
}

fn more_processes(number: u64) -> String {
    if number == 1 { "another one is".into() } else { format!("{} others are", grouped(number)) }
}

/// What the others are like, behind a semicolon.
fn among(rest: &[&Process]) -> String {
    match rest {
        [] => String::new(),
        [next, ..] if share_of(next) >= NO_WORD => {
            format!("; the next is {} with {:.1} %", name(next), share_of(next))
        }
        [_] => format!("; the other process is below {NO_WORD:.0} %"),
        _ => format!("; {} other processes are below {NO_WORD:.0} %", grouped(rest.len() as u64)),
    }
}

fn share_of(process: &Process) -> f64 {
    process.map_count.percent_of_limit.unwrap_or(0.0)
}

/// `java (pid 28868, search.service)`.
fn name(process: &Process) -> String {
    let unit = process.unit.as_deref().map(|unit| format!(", {}", clean(unit))).unwrap_or_default();
    format!("{} (pid {}{unit})", clean(&process.comm), process.pid)
}
