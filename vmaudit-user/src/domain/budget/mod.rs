//! Budgets: whether what was measured keeps within what `run` was told to demand. Pure.
//!
//! A budget passes only when it is shown to hold. A figure that is not exact can break a budget (the truth is at least
//! as large) but never keep it: then the breach says that it could not be shown.

pub mod file;
mod growth;
mod rows;

use crate::model::breach::{Bound, Breach, Demand};
use crate::model::loss::LossReason;
use crate::model::report::{Failure, Process, Report, SourceKind};
use crate::model::session::{Budget, FailOn};
use crate::text::{self, count, grouped, signal_name};

/// Every demand that was broken or could not be shown to hold, the gravest kind first.
pub fn breaches(budget: &Budget, report: &Report) -> Vec<Breach> {
    let mut all: Vec<Breach> = [FailOn::Failure, FailOn::AnyRefusal]
        .into_iter()
        .filter(|demand| budget.fail_on.contains(demand))
        .filter_map(|demand| refusals(demand, report))
        .collect();
    all.extend(budget.fail_on.contains(&FailOn::Killed).then(|| ends(report)).flatten());
    all.extend(peaks(budget, report));
    all.extend(budget.max_growth.and_then(|most| growth::breach(most, report)));
    if budget.fail_on.contains(&FailOn::Lost) {
        all.extend(losses(report));
    }
    all.extend(rows::breaches(&budget.rows, report));
    all
}

/// What was demanded, and which of it held.
pub fn demands(budget: &Budget, breaches: &[Breach]) -> Vec<Demand> {
    let demand = |budget: &str, limit: Option<Bound>, option: String| Demand {
        budget: budget.into(),
        row: None,
        limit,
        option,
        held: true,
    };
    let fail_on = |name: FailOn| budget.fail_on.contains(&name);
    let named = [
        (FailOn::Failure, "fail_on_failure", "--fail-on failure"),
        (FailOn::AnyRefusal, "fail_on_any_refusal", "--fail-on any-refusal"),
        (FailOn::Killed, "fail_on_killed", "--fail-on killed"),
        (FailOn::Peak, "fail_on_peak", "--fail-on peak"),
        (FailOn::Lost, "fail_on_lost", "--fail-on lost"),
    ];
    let named = named.into_iter().filter(|(name, ..)| fail_on(*name));
    let mut all: Vec<Demand> =
        named.map(|(_, budget, option)| demand(budget, None, option.to_owned())).collect();
    all.extend(
        budget.max_peak.map(|most| {
            demand("max_peak", Some(Bound::Count(most)), format!("--max-peak {}", grouped(most)))
        }),
    );
    all.extend(
        budget
            .max_percent
            .map(|most| demand("max_percent", Some(Bound::Real(most)), format!("--max-percent {most}"))),
    );
    all.extend(
        budget.max_growth.map(|most| demand("max_growth", Some(growth::bound(most)), growth::option(most))),
    );
    for row in &budget.rows {
        all.push(Demand { row: Some(row.process.clone()), ..demand("row", None, rows::named(row)) });
    }
    for demand in &mut all {
        demand.held = !breaches.iter().any(|breach| demand.is_broken_by(breach));
    }
    all
}

/// What nobody's figures show to hold.
fn not_shown(budget: &str, option: &str, limit: Option<Bound>, why: &str) -> Breach {
    Breach {
        budget: budget.into(),
        row: None,
        limit,
        actual: None,
        pid: None,
        comm: None,
        shown: false,
        sentence: format!("{option} is not shown to hold: {why}"),
    }
}

fn refusals(demand: FailOn, report: &Report) -> Option<Breach> {
    let any = demand == FailOn::AnyRefusal;
    let (budget, option, what) = match any {
        true => (
            "fail_on_any_refusal",
            "--fail-on any-refusal",
            ("memory call was refused", "memory calls were refused"),
        ),
        false => ("fail_on_failure", "--fail-on failure", ("memory call failed", "memory calls failed")),
    };
    let refused: Vec<&Failure> = match any {
        true => report.failures.iter().chain(&report.ordinary_answers).collect(),
        false => report.unrecovered().collect(),
    };
    let sum = text::total(refused.iter().map(|it| it.count));
    if sum == 0 {
        let why = "no failed call was seen, but some may be missing, see coverage";
        return report.failures_may_be_missing().then(|| not_shown(budget, option, None, why));
    }
    // By process: one has several groups.
    let of = |one: &Failure| {
        text::total(
            refused.iter().filter(|it| (it.pid, it.started_s) == (one.pid, one.started_s)).map(|it| it.count),
        )
    };
    let worst = refused.iter().copied().reduce(|worst, it| if of(it) > of(worst) { it } else { worst })?;
    let several =
        refused.iter().any(|it| it.processes > 1 || (it.pid, it.started_s) != (worst.pid, worst.started_s));
    let most = if several { ", most of them" } else { "" };
    Some(Breach {
        budget: budget.into(),
        row: None,
        limit: None,
        actual: Some(Bound::Count(sum)),
        pid: Some(worst.pid),
        comm: Some(worst.comm.clone()),
        shown: true,
        sentence: format!(
            "{}{most} in {} (pid {}): {option}",
            count(sum, what.0, what.1),
            worst.comm,
            worst.pid
        ),
    })
}

/// Processes that died of signals.
fn ends(report: &Report) -> Option<Breach> {
    const BUDGET: &str = "fail_on_killed";
    const OPTION: &str = "--fail-on killed";
    let signal = |process: &Process| process.end.as_ref().and_then(|end| end.signal);
    let without_row = text::total(report.folded.iter().map(|sum| sum.killed));
    let with_row = report.processes.iter().filter(|process| signal(process).is_some()).count() as u64;
    let killed = text::total([with_row, without_row]);
    if killed > 0 {
        let first = report.processes.iter().find_map(|process| Some((process, signal(process)?)));
        let sentence = match first {
            Some((process, signal)) => {
                let more = match killed - 1 {
                    0 => String::new(),
                    others => {
                        format!(", and {} of signals", count(others, "other process", "other processes"))
                    }
                };
                format!(
                    "{} (pid {}) died of {}{more}: {OPTION}",
                    process.comm,
                    process.pid,
                    signal_name(signal)
                )
            }
            None => format!("{} died of signals: {OPTION}", count(killed, "process", "processes")),
        };
        return Some(Breach {
            budget: BUDGET.into(),
            row: None,
            limit: None,
            actual: Some(Bound::Count(killed)),
            pid: first.map(|(process, _)| process.pid),
            comm: first.map(|(process, _)| process.comm.clone()),
            shown: true,
            sentence,
        });
    }
    let not_shown = |why: &str| Some(not_shown(BUDGET, OPTION, None, why));
    let untold = report.processes.iter().any(|p| p.ended_s.is_some() && p.end.is_none())
        || report.folded.iter().any(|sum| sum.end_unknown > 0);
    let missed = ["table_full", "tree_full", "program_skipped", "recording_cut"]
        .iter()
        .any(|reason| report.coverage.lost.get(*reason).is_some_and(|count| *count > 0));
    match report.source {
        SourceKind::Proc => not_shown("in /proc only the end of the command itself can be seen"),
        SourceKind::Ebpf if untold => not_shown("how some processes ended was not seen"),
        SourceKind::Ebpf if missed => not_shown("a process may be missing, see coverage.lost"),
        SourceKind::Ebpf => None,
    }
}

/// A demand on peaks.
struct OnPeak {
    budget: &'static str,
    option: String,
    limit: Option<Bound>,
    /// Needs vm.max_map_count.
    of_the_limit: bool,
}

fn peaks(budget: &Budget, report: &Report) -> Vec<Breach> {
    let demands = [
        budget.max_peak.map(|most| OnPeak {
            budget: "max_peak",
            option: format!("--max-peak {}", grouped(most)),
            limit: Some(Bound::Count(most)),
            of_the_limit: false,
        }),
        budget.max_percent.map(|most| OnPeak {
            budget: "max_percent",
            option: format!("--max-percent {most}"),
            limit: Some(Bound::Real(most)),
            of_the_limit: true,
        }),
        budget.fail_on.contains(&FailOn::Peak).then(|| OnPeak {
            budget: "fail_on_peak",
            option: "--fail-on peak".into(),
            limit: None,
            of_the_limit: true,
        }),
    ];
    demands.into_iter().flatten().filter_map(|demand| peak(&demand, report)).collect()
}

fn peak(demand: &OnPeak, report: &Report) -> Option<Breach> {
    let OnPeak { budget, option, limit: most, of_the_limit } = demand;
    let not_shown = |why: &str| Some(not_shown(budget, option, *most, why));
    let Some((top, peak)) = report.processes.first().and_then(|p| Some((p, p.map_count.peak?))) else {
        return not_shown("no process was seen");
    };
    let limit = report.limits.max_map_count;
    if *of_the_limit && limit.is_none() {
        return not_shown("vm.max_map_count could not be read");
    }
    let limit = limit.unwrap_or(0);
    let had = format!("{} had {} VMAs", whose(top), grouped(peak));
    let (sentence, actual) = match most {
        Some(Bound::Count(most)) if peak > *most => {
            (format!("{had}, more than {option}"), Bound::Count(peak))
        }
        Some(Bound::Real(most)) if peak as f64 * 100.0 > most * limit as f64 => (
            format!("{had}, more than {option} of the limit {}", grouped(limit)),
            Bound::Real(peak as f64 * 100.0 / limit as f64),
        ),
        None if peak >= limit => (
            format!("{} reached vm.max_map_count = {}: {option}", whose(top), grouped(limit)),
            Bound::Count(peak),
        ),
        _ => {
            return match report.source {
                SourceKind::Proc => {
                    not_shown("peaks are samples, a burst between two looks at /proc is missed")
                }
                SourceKind::Ebpf if !report.coverage.exact_peaks => not_shown(
                    "not every peak is exact, or a process may be missing: see coverage.lost and the rows marked ~",
                ),
                SourceKind::Ebpf => None,
            };
        }
    };
    Some(Breach {
        budget: (*budget).into(),
        row: None,
        limit: most.or(Some(Bound::Count(limit))),
        actual: Some(actual),
        pid: Some(top.pid),
        comm: Some(top.peak_comm().to_owned()),
        shown: true,
        sentence,
    })
}

fn whose(process: &Process) -> String {
    format!("{} (pid {})", process.peak_comm(), process.pid)
}

fn losses(report: &Report) -> Option<Breach> {
    let (budget, option) = ("fail_on_lost", "--fail-on lost");
    // Who made VMAs is sampled, and no figure of a budget.
    let of_stacks = |name: &str| LossReason::of_name(name).is_some_and(LossReason::is_of_names_alone);
    let figures = report.coverage.lost.iter().filter(|(name, _)| !of_stacks(name));
    let lost = text::total(figures.map(|(_, lost)| *lost));
    match report.source {
        SourceKind::Proc => Some(not_shown(budget, option, None, "counts are samples, not exact")),
        SourceKind::Ebpf if lost > 0 => Some(Breach {
            budget: budget.into(),
            row: None,
            limit: None,
            actual: Some(Bound::Count(lost)),
            pid: None,
            comm: None,
            shown: true,
            sentence: format!(
                "{} lost, see coverage.lost: {option}",
                count(lost, "event was", "events were")
            ),
        }),
        SourceKind::Ebpf if !report.coverage.exact_peaks => {
            Some(not_shown(budget, option, None, "not every peak is exact"))
        }
        SourceKind::Ebpf => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::clipped_run;

    /// One exact process with a peak of 100 of 1,000 and no failure, every failed call visible.
    fn good() -> Report {
        let mut report = clipped_run();
        report.processes.truncate(1);
        report.failures.clear();
        report.limits.max_map_count = Some(1000);
        let count = &mut report.processes[0].map_count;
        (count.peak, count.exact, count.clipped) = (Some(100), true, false);
        report.coverage.exact_peaks = true;
        report.coverage.lost.clear();
        report.source = SourceKind::Ebpf;
        report.coverage.exact_calls = true;
        report
    }

    fn all() -> Budget {
        Budget {
            max_peak: Some(100),
            max_percent: Some(10.0),
            fail_on: vec![FailOn::Failure, FailOn::Peak, FailOn::Lost],
            rows: Vec::new(),
            max_growth: None,
        }
    }

    fn only(max_peak: Option<u64>, max_percent: Option<f64>, fail_on: &[FailOn]) -> Budget {
        Budget { max_peak, max_percent, fail_on: fail_on.to_vec(), ..Budget::default() }
    }

    /// The first one's sentence.
    fn breach(budget: &Budget, report: &Report) -> Option<String> {
        breaches(budget, report).into_iter().next().map(|breach| breach.sentence)
    }

    #[test]
    fn each_broken_demand_is_told_with_its_figures() {
        let mut report = good();
        report.processes[0].map_count.peak = Some(1000);
        report.failures = clipped_run().failures;
        for name in ["credits_lost", "stack_copy_missing"] {
            report.coverage.lost.insert(name.into(), 7);
        }
        assert!(breaches(&only(None, None, &[FailOn::Lost]), &report).is_empty(), "samples of who made VMAs");
        report.coverage.lost.insert("ring_full".into(), 2);
        let budget = Budget {
            fail_on: vec![FailOn::Lost, FailOn::Peak, FailOn::AnyRefusal, FailOn::Failure],
            ..all()
        };
        let told = breaches(&budget, &report);
        let names: Vec<&str> = told.iter().map(|breach| breach.budget.as_str()).collect();
        let expected = [
            "fail_on_failure",
            "fail_on_any_refusal",
            "max_peak",
            "max_percent",
            "fail_on_peak",
            "fail_on_lost",
        ];
        assert_eq!(names, expected);
        assert!(told.iter().all(|breach| breach.shown && breach.actual.is_some()), "{told:?}");
        assert_eq!((told[2].limit, told[2].actual), (Some(Bound::Count(100)), Some(Bound::Count(1000))));
        assert_eq!((told[3].limit, told[3].actual), (Some(Bound::Real(10.0)), Some(Bound::Real(100.0))));
        assert_eq!(told[2].pid, Some(report.processes[0].pid));
    }

    #[test]
    fn an_ordinary_answer_is_a_refusal_and_no_failure() {
        let mut report = good();
        report.ordinary_answers = clipped_run().failures;
        let asked = |demand| breaches(&only(None, None, &[demand]), &report);
        assert!(asked(FailOn::Failure).is_empty());
        assert!(asked(FailOn::AnyRefusal)[0].shown);
        report.ordinary_answers.clear();
        assert!(breaches(&only(None, None, &[FailOn::AnyRefusal]), &report).is_empty());
        report.coverage.exact_calls = false;
        assert!(!breaches(&only(None, None, &[FailOn::AnyRefusal]), &report)[0].shown);
    }

    #[test]
    fn exact_figures_within_every_demand_pass() {
        assert_eq!(breach(&all(), &good()), None);
    }

    #[test]
    fn samples_never_keep_a_peak_budget() {
        let mut report = good();
        report.source = SourceKind::Proc;
        report.coverage.exact_peaks = false;
        for budget in
            [only(Some(5000), None, &[]), only(None, Some(99.0), &[]), only(None, None, &[FailOn::Peak])]
        {
            let why = breach(&budget, &report).unwrap();
            assert!(why.contains("not shown to hold: peaks are samples"), "{why}");
        }
        // A sample above the budget is a breach of its own: the truth is no smaller.
        assert!(breach(&only(Some(99), None, &[]), &report).unwrap().contains("more than --max-peak 99"));
        assert_eq!(breach(&only(None, None, &[]), &report), None);
    }

    #[test]
    fn a_loss_makes_peaks_and_failures_doubtful() {
        let mut report = good();
        report.coverage.exact_peaks = false;
        report.coverage.exact_calls = false;
        report.coverage.lost.insert("program_skipped".into(), 3);
        assert!(breach(&only(Some(500), None, &[]), &report).unwrap().contains("not every peak is exact"));
        let why = breach(&only(None, None, &[FailOn::Failure]), &report).unwrap();
        assert!(why.contains("not shown to hold"), "{why}");
    }

    #[test]
    fn what_could_not_be_seen_or_read_does_not_pass() {
        let mut report = good();
        report.coverage.exact_calls = false;
        assert!(
            breach(&only(None, None, &[FailOn::Failure]), &report).unwrap().contains("not shown to hold")
        );
        report.limits.max_map_count = None;
        assert!(breach(&only(None, Some(50.0), &[]), &report).unwrap().contains("could not be read"));
        assert_eq!(breach(&only(Some(100), None, &[]), &report), None);
        report.processes.clear();
        assert!(breach(&only(Some(100), None, &[]), &report).unwrap().contains("no process was seen"));
    }

    #[test]
    fn what_could_not_be_seen_in_processes_without_a_row_does_not_pass() {
        let mut report = good();
        report.folded = vec![crate::output::text::tests::alike("x", 3, (1, 2))];
        assert_eq!(breach(&all(), &report), None);
        report.folded[0].calls.insert("[32-bit]".into(), crate::model::report::CallFigures::default());
        let why = breach(&only(None, None, &[FailOn::Failure]), &report).unwrap();
        assert!(why.contains("not shown to hold"), "{why}");
    }
}
