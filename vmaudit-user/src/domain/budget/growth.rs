//! A demand on steady growth.

use super::not_shown;
use crate::model::breach::{Bound, Breach};
use crate::model::report::{Process, Report, SourceKind};
use crate::text::rate;

const BUDGET: &str = "max_growth";

/// As it is asked for.
pub(super) fn option(most: f64) -> String {
    format!("--max-growth {most}/s")
}

/// VMAs a second.
pub(super) fn bound(most: f64) -> Bound {
    Bound::Real(most)
}

/// The process that grows fastest, if that is too fast; or why nobody can tell.
pub(super) fn breach(most: f64, report: &Report) -> Option<Breach> {
    let (option, limit) = (option(most), Some(bound(most)));
    let steady = |process: &Process| process.growth.filter(|growth| growth.steady).map(|growth| growth.per_s);
    let fastest = report.processes.iter().filter_map(|process| Some((process, steady(process)?)));
    let fastest = fastest.reduce(|fastest, it| if it.1 > fastest.1 { it } else { fastest });
    if let Some((process, per_s)) = fastest.filter(|(_, per_s)| *per_s > most) {
        return Some(Breach {
            budget: BUDGET.into(),
            row: None,
            limit,
            actual: Some(bound(per_s)),
            pid: Some(process.pid),
            comm: Some(process.peak_comm().to_owned()),
            shown: true,
            sentence: format!(
                "{} (pid {}) grew steadily by {}, more than {option}",
                process.peak_comm(),
                process.pid,
                rate(per_s)
            ),
        });
    }
    let untold = |process: &Process| process.growth.is_none() && process.shares_address_space_of.is_none();
    let without = |why: &str| Some(not_shown(BUDGET, &option, limit, why));
    match report.source {
        SourceKind::Proc => without("counts are samples, what lies between two looks at /proc is missed"),
        SourceKind::Ebpf if report.processes.is_empty() => without("no process was seen"),
        SourceKind::Ebpf if !report.coverage.exact_peaks => {
            without("not every peak is exact, or a process may be missing: see coverage.lost")
        }
        SourceKind::Ebpf if report.processes.iter().any(untold) || !report.folded.is_empty() => {
            without("how processes without a row of their own grew is not kept (--all-rows)")
        }
        SourceKind::Ebpf => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Growth;
    use crate::output::text::tests::clean_run;

    fn grows(per_s: f64, steady: bool) -> Report {
        let mut report = clean_run();
        let growth = Growth { per_s: 0.0, steady: false, over_s: None, reaches_limit_in_s: None };
        for process in &mut report.processes {
            process.growth = Some(growth);
        }
        report.processes[0].growth = Some(Growth { per_s, steady, ..growth });
        (report.source, report.coverage.exact_peaks) = (SourceKind::Ebpf, true);
        report.folded.clear();
        report
    }

    #[test]
    fn only_steady_growth_breaks_it_and_only_exact_figures_keep_it() {
        let broken = breach(100.0, &grows(100.5, true)).unwrap();
        assert!(broken.shown && broken.actual == Some(Bound::Real(100.5)), "{broken:?}");
        assert!(
            broken.sentence.ends_with("by 101 VMAs a second, more than --max-growth 100/s"),
            "{broken:?}"
        );
        assert_eq!(breach(100.0, &grows(100.0, true)), None);
        assert_eq!(breach(100.0, &grows(5000.0, false)), None, "a burst");
        let mut report = grows(1.0, true);
        report.coverage.exact_peaks = false;
        assert!(!breach(100.0, &report).unwrap().shown);
        report = grows(1.0, true);
        report.processes[0].growth = None;
        assert!(!breach(100.0, &report).unwrap().shown);
        report.source = SourceKind::Proc;
        assert!(breach(100.0, &report).unwrap().sentence.contains("samples"));
    }
}
