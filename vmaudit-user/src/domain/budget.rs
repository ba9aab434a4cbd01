//! Budgets: whether what was measured keeps within what `run` was told to demand. Pure.
//!
//! A budget passes only when it is shown to hold. A figure that is not exact can break a budget (the truth is at least
//! as large) but never keep it: then the breach says that it could not be shown.

use crate::model::session::{Budget, FailOn};
use crate::{
    model::report::{Report, SourceKind},
    text,
};

/// The first demand that was broken or could not be shown to hold, in one sentence.
pub fn breach(budget: &Budget, report: &Report) -> Option<String> {
    failures(budget, report).or_else(|| peaks(budget, report)).or_else(|| losses(budget, report))
}

fn failures(budget: &Budget, report: &Report) -> Option<String> {
    if !budget.fail_on.contains(&FailOn::Failure) {
        return None;
    }
    let failed = text::total(report.failures.iter().map(|f| f.count));
    if failed > 0 {
        return Some(format!("{} failed", text::count(failed, "memory call", "memory calls")));
    }
    report.failures_may_be_missing().then(|| {
        "--fail-on failure is not shown to hold: no failed call was seen, but some may be missing, see coverage".into()
    })
}

fn peaks(budget: &Budget, report: &Report) -> Option<String> {
    let demands = [
        budget.max_peak.map(|n| format!("--max-peak {n}")),
        budget.max_percent.map(|p| format!("--max-percent {p}")),
        budget.fail_on.contains(&FailOn::Peak).then(|| "--fail-on peak".to_owned()),
    ];
    let first = demands.into_iter().flatten().next()?;
    let not_shown = |why: &str| Some(format!("{first} is not shown to hold: {why}"));
    let Some((top, peak)) = report.processes.first().and_then(|p| Some((p, p.map_count.peak?))) else {
        return not_shown("no process was seen");
    };
    let whose = format!("{} (pid {})", top.peak_comm(), top.pid);
    if let Some(most) = budget.max_peak
        && peak > most
    {
        return Some(format!(
            "{whose} had {} VMAs, more than --max-peak {}",
            text::grouped(peak),
            text::grouped(most)
        ));
    }
    if budget.max_percent.is_some() || budget.fail_on.contains(&FailOn::Peak) {
        let Some(limit) = report.limits.max_map_count else {
            return not_shown("vm.max_map_count could not be read");
        };
        if budget.fail_on.contains(&FailOn::Peak) && peak >= limit {
            return Some(format!("{whose} reached vm.max_map_count = {}", text::grouped(limit)));
        }
        if let Some(most) = budget.max_percent
            && peak as f64 * 100.0 > most * limit as f64
        {
            return Some(format!(
                "{whose} had {} VMAs, more than --max-percent {most} of the limit {}",
                text::grouped(peak),
                text::grouped(limit)
            ));
        }
    }
    match report.source {
        SourceKind::Proc => not_shown("peaks are samples, a burst between two looks at /proc is missed"),
        SourceKind::Ebpf if !report.coverage.exact_peaks => not_shown(
            "not every peak is exact, or a process may be missing: see coverage.lost and the rows marked ~",
        ),
        SourceKind::Ebpf => None,
    }
}

fn losses(budget: &Budget, report: &Report) -> Option<String> {
    if !budget.fail_on.contains(&FailOn::Lost) {
        return None;
    }
    let lost = text::total(report.coverage.lost.values().copied());
    match report.source {
        SourceKind::Proc => Some("counts are samples, not exact".into()),
        SourceKind::Ebpf if lost > 0 => {
            Some(format!("{} lost, see coverage.lost", text::count(lost, "event was", "events were")))
        }
        SourceKind::Ebpf if !report.coverage.exact_peaks => Some("not every peak is exact".into()),
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
        }
    }

    fn only(max_peak: Option<u64>, max_percent: Option<f64>, fail_on: &[FailOn]) -> Budget {
        Budget { max_peak, max_percent, fail_on: fail_on.to_vec() }
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
