//! A session as cases that pass or fail, as test reports have them: one for each demand, one for each mark, one for each test
//! that a runner names, and one for each task's name where a process has several (tests in threads, or named by their runner).

use std::collections::BTreeMap;

use crate::model::breach::{Breach, Demand};
use crate::model::loss::LossReason;
use crate::model::report::{Failure, Mark, MarkedProcess, Outcome, Process, Report, TaskFigures};
use crate::text::{clean, count, total};

/// Cases of tasks, and of marks.
const TASKS: usize = 2000;

/// One case.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Why it failed: what the figures show, or do not show to hold; empty: it passed.
    pub(crate) failures: Vec<(bool, String)>,
    /// Why nobody can tell whether it passed.
    pub(crate) skipped: Option<String>,
}

impl Case {
    fn of(name: String, failures: Vec<(bool, String)>) -> Self {
        Self { name, failures, skipped: None }
    }

    /// One that fails by refused calls, if any is demanded to.
    fn judged(name: String, verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::of(name, Vec::new()),
            Verdict::Failed(why) => Self::of(name, vec![(true, why)]),
            Verdict::Unknown(why) => Self { skipped: Some(why), ..Self::of(name, Vec::new()) },
        }
    }
}

/// What refused calls say of a mark or a task. Its figures count also what was done without.
enum Verdict {
    Passed,
    Failed(String),
    Unknown(String),
}

impl Verdict {
    /// The same where it is not known whether calls were refused at all.
    const UNSEEN: &str = "not all refused calls can have been seen";

    /// `failed`: calls that were refused, `shown`: so many of them did harm at the least; `harm`: some did, and may have been
    /// among them; `unseen`: there may be more.
    fn of((failed, unseen): (u64, bool), shown: u64, harm: bool, whose: &str) -> Self {
        let calls = |n: u64| count(n, "memory call", "memory calls");
        match shown {
            0 if failed > 0 && harm => {
                let refused = count(failed, "memory call was", "memory calls were");
                Self::Unknown(format!(
                    "{refused} refused in {whose}; whether it did without all of them is not known"
                ))
            }
            0 if unseen => Self::Unknown(Self::UNSEEN.into()),
            0 => Self::Passed,
            shown if shown < failed => Self::Failed(format!("at least {} failed in {whose}", calls(shown))),
            shown => Self::Failed(format!("{} failed in {whose}", calls(shown))),
        }
    }

    fn blame(self) -> Option<String> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Passed | Self::Unknown(_) => None,
        }
    }
}

/// All of a session; where nothing was demanded, one more that passes: that it was watched.
pub(crate) fn cases(report: &Report) -> Vec<Case> {
    let told = |breach: &Breach| (breach.shown, clean(&breach.sentence));
    let of = |demand: &Demand| {
        let broken = report.breaches.iter().filter(|breach| demand.is_broken_by(breach));
        Case::of(clean(&demand.option), broken.map(told).collect())
    };
    let mut all: Vec<Case> = report.budgets.iter().map(of).collect();
    // Of reports that do not list what held.
    let listed = |breach: &Breach| report.budgets.iter().any(|it| it.is_broken_by(breach));
    for breach in report.breaches.iter().filter(|breach| !listed(breach)) {
        all.push(Case::of(clean(&breach.budget), vec![told(breach)]));
    }
    if all.is_empty() {
        all.push(Case::of("session watched, nothing demanded".into(), Vec::new()));
    }
    let demanded = report.budgets.iter().any(|demand| demand.budget == "fail_on_failure");
    let judged = |name: String, verdict: Verdict| match demanded {
        true => Case::judged(name, verdict),
        false => Case::of(name, Vec::new()),
    };
    for mark in report.marks.iter().take(TASKS) {
        all.push(judged(format!("mark {}", clean(&mark.name)), of_mark(report, mark)));
    }
    for test in tests(report).into_iter().take(TASKS) {
        all.push(judged(format!("test {}", clean(test.name)), test.verdict(report)));
    }
    for (process, task, name) in tasks(report).take(TASKS) {
        let name = format!("task {} in {} (pid {})", clean(name), clean(&process.comm), process.pid);
        all.push(judged(name, of_task(report, process, task)));
    }
    all
}

/// What the processes of one test did, together.
pub(crate) struct Test<'r> {
    /// As its runner calls it.
    pub(crate) name: &'r str,
    pub(crate) processes: u64,
    /// The largest of their peaks, and whether it is exact.
    pub(crate) peak: Option<u64>,
    pub(crate) exact: bool,
    /// Refused calls whose need was not met another way.
    pub(crate) failed: u64,
}

impl Test<'_> {
    fn verdict(&self, report: &Report) -> Verdict {
        let calls = count(self.failed, "memory call", "memory calls");
        match self.failed {
            0 if report.failures_may_be_missing() => Verdict::Unknown(Verdict::UNSEEN.into()),
            0 if unknown_refused(report) => {
                Verdict::Unknown("calls of processes were refused whose test is not known".into())
            }
            0 if added_up_refused(report) => {
                Verdict::Unknown("calls of processes without a row were refused (--all-rows)".into())
            }
            0 => Verdict::Passed,
            _ => Verdict::Failed(format!("{calls} failed in test {}", clean(self.name))),
        }
    }
}

/// Calls of processes that were added up were refused: of which test, nobody knows.
fn added_up_refused(report: &Report) -> bool {
    report.folded.iter().any(|sum| sum.failed.is_none_or(|failed| failed > 0))
}

/// Processes were over before anybody could tell which test they belong to, and calls of processes of no known test failed.
fn unknown_refused(report: &Report) -> bool {
    let unknown = report.coverage.lost.get(LossReason::TestUnknown.name()).is_some_and(|n| *n > 0);
    let of_none = |failure: &Failure| {
        report.processes.iter().any(|process| process.test.is_none() && failure.is_of(process))
    };
    unknown && report.unrecovered().any(of_none)
}

/// The tests that processes with a row belong to, by name.
pub(crate) fn tests(report: &Report) -> Vec<Test<'_>> {
    let mut all: BTreeMap<&str, Test<'_>> = BTreeMap::new();
    for process in &report.processes {
        let Some(name) = process.test.as_deref() else { continue };
        let new = Test { name, processes: 0, peak: None, exact: true, failed: 0 };
        let test = all.entry(name).or_insert(new);
        let failures = report.unrecovered().filter(|failure| failure.is_of(process));
        test.processes += 1;
        test.peak = test.peak.max(process.map_count.peak);
        test.exact &= process.map_count.exact;
        test.failed = test.failed.saturating_add(total(failures.map(|failure| failure.count)));
    }
    // One without a row may have had a larger peak.
    let others = report.folded.iter().map(|sum| sum.peak_max).max().flatten();
    all.values_mut().for_each(|test| test.exact &= test.peak >= others);
    all.into_values().collect()
}

/// Tests with refused calls whose need was not met another way, each with a sentence.
pub(crate) fn blamed_tests(report: &Report) -> impl Iterator<Item = (String, String)> {
    tests(report).into_iter().filter_map(|test| Some((test.name.to_owned(), test.verdict(report).blame()?)))
}

/// Tasks and marks that have no case.
pub(crate) fn left_out(report: &Report) -> u64 {
    let more = |all: usize| (all as u64).saturating_sub(TASKS as u64);
    more(tasks(report).count())
        .saturating_add(more(report.marks.len()))
        .saturating_add(more(tests(report).len()))
}

fn tasks(report: &Report) -> impl Iterator<Item = (&Process, &TaskFigures, &str)> {
    report
        .processes
        .iter()
        .flat_map(|process| process.tasks.iter().map(move |task| (process, task)))
        .filter_map(|(process, task)| Some((process, task, task.name.as_deref()?)))
}

/// Marks in which calls were refused whose need was not met another way, each with a sentence.
pub(crate) fn blamed_marks(report: &Report) -> impl Iterator<Item = (String, String)> {
    report.marks.iter().filter_map(|mark| Some((mark.name.clone(), of_mark(report, mark).blame()?)))
}

/// Refused calls that did no harm.
fn harmless(report: &Report) -> impl Iterator<Item = &Failure> {
    let recovered = report.failures.iter().filter(|it| it.outcome != Outcome::Unrecovered);
    recovered.chain(&report.ordinary_answers)
}

fn of_mark(report: &Report, mark: &Mark) -> Verdict {
    let Some(failed) = mark.failed else { return Verdict::Unknown(Verdict::UNSEEN.into()) };
    // Calls of this kind were all before it, or all behind it.
    let apart = |it: &Failure| {
        it.last_at_s.is_some_and(|last| last < mark.begun_s)
            || it.first_at_s.zip(mark.ended_s).is_some_and(|(first, ended)| first > ended)
    };
    let sum_of = |some: &dyn Fn(&Failure) -> bool| {
        total(harmless(report).filter(|it| !apart(it) && some(it)).map(|it| it.count))
    };
    let shown = match mark.processes_left_out {
        // Each process's own may be its own harmless ones.
        0 => {
            let own = |process: &MarkedProcess| {
                let harmless = sum_of(&|it| it.processes <= 1 && it.pid == process.pid);
                process.failed.unwrap_or(0).saturating_sub(harmless)
            };
            total(mark.processes.iter().map(own)).saturating_sub(sum_of(&|it| it.processes > 1))
        }
        _ => failed.saturating_sub(sum_of(&|_| true)),
    };
    let harm = report.unrecovered().any(|it| !apart(it));
    Verdict::of((failed, report.failures_may_be_missing()), shown.min(failed), harm, &clean(&mark.name))
}

/// Tasks that were refused calls whose need was not met another way, each with a sentence.
pub(crate) fn blamed(report: &Report) -> impl Iterator<Item = (String, String)> {
    tasks(report)
        .filter_map(|(process, task, name)| Some((name.to_owned(), of_task(report, process, task).blame()?)))
}

fn of_task(report: &Report, process: &Process, task: &TaskFigures) -> Verdict {
    let Some(failed) = task.failed else { return Verdict::Unknown(Verdict::UNSEEN.into()) };
    let harmless = total(harmless(report).filter(|it| it.is_of(process)).map(|it| it.count));
    let harm = report.unrecovered().any(|it| it.is_of(process));
    let whose = format!("{} (pid {})", clean(&process.comm), process.pid);
    Verdict::of((failed, report.failures_may_be_missing()), failed.saturating_sub(harmless), harm, &whose)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::{alike, budget_broken, clipped_run};

    fn task(name: &str, failed: u64) -> TaskFigures {
        TaskFigures {
            name: Some(name.into()),
            added: Some(1),
            removed: Some(1),
            failed: Some(failed),
            peak: None,
        }
    }

    #[test]
    fn a_task_fails_only_where_it_is_shown_and_demanded() {
        let mut report = clipped_run();
        report.processes[0].tasks = vec![task("leaks", 23), task("small", 0)];
        let failed = |report: &Report| -> Vec<String> {
            cases(report).into_iter().filter(|case| !case.failures.is_empty()).map(|case| case.name).collect()
        };
        assert!(failed(&report).is_empty(), "nothing was demanded");
        report.budgets = budget_broken().budgets;
        assert_eq!(failed(&report), ["task leaks in holes (pid 123)"]);
        // Twenty of them may have been done without.
        let mut recovered = report.failures[0].clone();
        (recovered.outcome, recovered.count) = (Outcome::Recovered, 20);
        report.failures.push(recovered.clone());
        assert!(blamed(&report).next().unwrap().1.starts_with("at least 3 memory calls"));
        recovered.count = 3;
        report.failures.push(recovered);
        assert!(failed(&report).is_empty());
        let skipped = cases(&report).into_iter().filter_map(|case| case.skipped).count();
        assert_eq!(skipped, 1, "which of them did harm nobody knows");
    }

    /// Nothing seen is not nothing failed.
    #[test]
    fn a_test_passes_only_where_its_failures_would_have_been_seen() {
        let mut report = clipped_run();
        report.budgets = budget_broken().budgets;
        report.failures.clear();
        report.processes[0].test = Some("t".into());
        let told = |report: &Report| {
            let case = cases(report).into_iter().find(|case| case.name == "test t").unwrap();
            (case.failures.is_empty(), case.skipped.is_some())
        };
        report.coverage.exact_calls = true;
        assert_eq!(told(&report), (true, false));
        let peak = report.processes[0].map_count.peak;
        assert_eq!(tests(&report)[0].exact, report.processes[0].map_count.exact);
        let more = peak.unwrap_or(0) + 1;
        report.folded = vec![alike("x", 3, (1, more))];
        assert_eq!(told(&report), (true, false));
        assert!(!tests(&report)[0].exact, "one without a row may have been of this test, too");
        report.folded[0].failed = Some(1);
        assert_eq!(told(&report), (true, true), "whose it was is not known");
        report.folded.clear();
        report.coverage.exact_calls = false;
        assert_eq!(told(&report), (true, true));
        let unseen = TaskFigures { failed: None, ..task("x", 0) };
        assert!(matches!(of_task(&report, &report.processes[0], &unseen), Verdict::Unknown(_)));
        let none = task("x", 0);
        assert!(
            matches!(of_task(&report, &report.processes[0], &none), Verdict::Unknown(_)),
            "not all were seen"
        );
        assert!(matches!(of_mark(&report, &mark(&[(123, 0)], 0.0, 1.0)), Verdict::Unknown(_)));
        report.coverage.exact_calls = true;
        assert!(matches!(of_task(&report, &report.processes[0], &none), Verdict::Passed));
        assert!(matches!(of_mark(&report, &mark(&[(123, 0)], 0.0, 1.0)), Verdict::Passed));
    }

    /// What failed in a process that was over before anybody could ask may have been any test's.
    #[test]
    fn a_test_does_not_pass_beside_failures_of_nobody_knows_which() {
        let mut report = clipped_run();
        report.budgets = budget_broken().budgets;
        report.coverage.exact_calls = true;
        let mut other = report.processes[0].clone();
        (other.pid, other.test) = (other.pid + 1, Some("t".into()));
        report.processes.push(other);
        let skipped = |report: &Report| {
            cases(report).into_iter().find(|case| case.name == "test t").unwrap().skipped.is_some()
        };
        assert!(!skipped(&report), "the other's test is none");
        report.coverage.lost.insert(LossReason::TestUnknown.name().into(), 1);
        assert!(skipped(&report));
        report.failures.clear();
        assert!(!skipped(&report));
    }

    fn mark(failed: &[(u32, u64)], from: f64, to: f64) -> Mark {
        let process = |&(pid, failed): &(u32, u64)| MarkedProcess {
            pid,
            comm: "x".into(),
            peak: Some(5),
            peak_bound: None,
            added: Some(1),
            removed: Some(1),
            failed: Some(failed),
        };
        Mark {
            name: "m".into(),
            by_pid: None,
            begun_s: from,
            ended_s: Some(to),
            exact: true,
            peak: None,
            peak_bound: None,
            pid: None,
            comm: None,
            added: Some(1),
            removed: Some(1),
            failed: Some(failed.iter().map(|(_, failed)| failed).sum()),
            processes: failed.iter().map(process).collect(),
            processes_left_out: 0,
        }
    }

    /// What other processes did without, and at other times, excuses nothing.
    #[test]
    fn a_mark_passes_only_where_nothing_in_it_can_have_done_harm() {
        let mut report = clipped_run();
        report.budgets = budget_broken().budgets;
        let harm = &mut report.failures[0];
        (harm.pid, harm.count, harm.first_at_s, harm.last_at_s) = (123, 23, Some(5.0), Some(6.0));
        let mut recovered = harm.clone();
        (recovered.outcome, recovered.count, recovered.pid) = (Outcome::Recovered, 1000, 7);
        let mut before = recovered.clone();
        (before.pid, before.first_at_s, before.last_at_s) = (123, Some(0.0), Some(1.0));
        report.failures.extend([recovered.clone(), before]);
        report.marks = vec![mark(&[(123, 23), (7, 9)], 4.0, 7.0)];
        let told = |report: &Report| {
            let case = cases(report).into_iter().find(|case| case.name == "mark m").unwrap();
            (case.failures.into_iter().map(|(_, why)| why).next(), case.skipped)
        };
        assert_eq!(told(&report), (Some("at least 23 memory calls failed in m".into()), None));
        // Its own may have been those that it did without.
        (recovered.pid, recovered.count) = (123, 30);
        report.failures.push(recovered.clone());
        let (failed, skipped) = told(&report);
        assert!(failed.is_none() && skipped.unwrap().contains("32 memory calls were refused in m; whether"));
        // Nothing did harm while it ran.
        (recovered.first_at_s, recovered.last_at_s, recovered.count) = (Some(8.0), Some(8.5), 23);
        report.failures.push(recovered);
        report.marks = vec![mark(&[(123, 23)], 7.5, 9.0)];
        assert_eq!(told(&report), (None, None));
    }
}
