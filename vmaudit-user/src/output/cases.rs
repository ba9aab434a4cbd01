//! A session as cases that pass or fail, as test reports have them: one for each demand, one for each mark, and one for each
//! task's name where a process has several (tests in threads, or named by their runner).

use crate::model::breach::{Breach, Demand};
use crate::model::report::{Failure, Mark, Outcome, Process, Report, TaskFigures};
use crate::text::{clean, count, total};

/// Cases of tasks, and of marks.
const TASKS: usize = 2000;

/// One case.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Why it failed: what the figures show, or do not show to hold; empty: it passed.
    pub(crate) failures: Vec<(bool, String)>,
}

/// All of a session; where nothing was demanded, one more that passes: that it was watched.
pub(crate) fn cases(report: &Report) -> Vec<Case> {
    let told = |breach: &Breach| (breach.shown, clean(&breach.sentence));
    let of = |demand: &Demand| Case {
        name: clean(&demand.option),
        failures: report.breaches.iter().filter(|breach| demand.is_broken_by(breach)).map(told).collect(),
    };
    let mut all: Vec<Case> = report.budgets.iter().map(of).collect();
    // Of reports that do not list what held.
    let listed = |breach: &Breach| report.budgets.iter().any(|it| it.is_broken_by(breach));
    for breach in report.breaches.iter().filter(|breach| !listed(breach)) {
        all.push(Case { name: clean(&breach.budget), failures: vec![told(breach)] });
    }
    if all.is_empty() {
        all.push(Case { name: "session watched, nothing demanded".into(), failures: Vec::new() });
    }
    let demanded = report.budgets.iter().any(|demand| demand.budget == "fail_on_failure");
    for mark in report.marks.iter().take(TASKS) {
        let blame = blame_of_mark(report, mark).filter(|_| demanded);
        all.push(Case {
            name: format!("mark {}", clean(&mark.name)),
            failures: blame.into_iter().map(|why| (true, why)).collect(),
        });
    }
    for (process, task, name) in tasks(report).take(TASKS) {
        let blame = blame(report, process, task).filter(|_| demanded);
        all.push(Case {
            name: format!("task {} in {} (pid {})", clean(name), clean(&process.comm), process.pid),
            failures: blame.into_iter().map(|why| (true, why)).collect(),
        });
    }
    all
}

/// Tasks and marks that have no case.
pub(crate) fn left_out(report: &Report) -> u64 {
    let more = |all: usize| (all as u64).saturating_sub(TASKS as u64);
    more(tasks(report).count()).saturating_add(more(report.marks.len()))
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
    report.marks.iter().filter_map(|mark| Some((mark.name.clone(), blame_of_mark(report, mark)?)))
}

/// What was refused in a mark, as far as its figures show that it was a failure: they count also what was done without.
fn blame_of_mark(report: &Report, mark: &Mark) -> Option<String> {
    let recovered = report.failures.iter().filter(|it| it.outcome != Outcome::Unrecovered);
    let harmless = total(recovered.chain(&report.ordinary_answers).map(|it| it.count));
    let failed = mark.failed?.checked_sub(harmless).filter(|failed| *failed > 0)?;
    let at_least = if harmless > 0 { "at least " } else { "" };
    Some(format!(
        "{at_least}{} failed in {}",
        count(failed, "memory call", "memory calls"),
        clean(&mark.name)
    ))
}

/// Tasks that were refused calls whose need was not met another way, each with a sentence.
pub(crate) fn blamed(report: &Report) -> impl Iterator<Item = (String, String)> {
    tasks(report).filter_map(|(process, task, name)| Some((name.to_owned(), blame(report, process, task)?)))
}

/// What a task was refused, as far as its figures show that it was a failure: they count also what was done without.
fn blame(report: &Report, process: &Process, task: &TaskFigures) -> Option<String> {
    let recovered = report.failures.iter().filter(|it| it.outcome != Outcome::Unrecovered);
    let harmless = recovered.chain(&report.ordinary_answers).filter(|it: &&Failure| it.is_of(process));
    let harmless = total(harmless.map(|it| it.count));
    let failed = task.failed?.checked_sub(harmless).filter(|failed| *failed > 0)?;
    let at_least = if harmless > 0 { "at least " } else { "" };
    let calls = count(failed, "memory call", "memory calls");
    Some(format!("{at_least}{calls} failed in {} (pid {})", clean(&process.comm), process.pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::{budget_broken, clipped_run};

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
    }
}
