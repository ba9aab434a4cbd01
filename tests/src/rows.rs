//! What must hold between a row of the report and the process's own line.

use vmaudit_user::model::report::{Accuracy, HookState, Process, Report};

use crate::Own;

/// Peak, last and (where known) first and calls are equal to the process's own, and the row claims to be exact.
#[track_caller]
pub fn assert_exact(row: &Process, own: &Own) {
    assert_exact_peak(row, own);
    for (name, calls) in &own.calls {
        let Some(figures) = row.calls.get(name) else {
            panic!("no {name} in the calls of {row:?}, own {own:?}")
        };
        assert_eq!(
            (figures.calls, figures.failed),
            (Some(calls.calls), Some(calls.failed)),
            "{name} of {own:?}"
        );
    }
}

/// The same without the calls.
#[track_caller]
pub fn assert_exact_peak(row: &Process, own: &Own) {
    assert_eq!(row.map_count.peak, Some(own.peak), "peak of {} (own line {own:?}, row {row:?})", own.role);
    assert!(row.map_count.exact, "{}: the peak is equal but not called exact: {row:?}", own.role);
    if own.last.is_some() {
        assert_eq!(row.map_count.last, own.last, "last of {} (own line {own:?}, row {row:?})", own.role);
    }
    if own.first.is_some() {
        assert_eq!(row.map_count.first, own.first, "first of {} (own line {own:?}, row {row:?})", own.role);
    }
    assert_sum_rule(row);
}

/// first + added - removed == last, over all calls of a process with one image; `false` for a row that this does not
/// hold for, because it has several or is not exact.
#[track_caller]
pub fn assert_sum_rule(row: &Process) -> bool {
    if !row.map_count.exact || row.images.len() != 1 {
        return false;
    }
    let (Some(first), Some(last)) = (row.map_count.first, row.map_count.last) else {
        panic!("an exact row without first or last: {row:?}")
    };
    let added: u64 = row.calls.values().map(|c| c.added).sum();
    let removed: u64 = row.calls.values().map(|c| c.removed).sum();
    assert_eq!(first + added - removed, last, "first + added - removed == last in {row:?}");
    true
}

/// How calls are watched where no program sees their exits.
pub const ASKED: &str = "task_work";

/// Nothing was lost that would touch a figure, and the report says that its peaks are exact.
#[track_caller]
pub fn assert_nothing_lost(report: &Report) {
    for (reason, count) in &report.coverage.lost {
        // Details of single events may be lost; figures may not.
        if !["ring_full", "credits_lost", "stack_missing", "stack_copy_missing"].contains(&reason.as_str()) {
            assert_eq!(*count, 0, "lost.{reason}: {:?}", report.coverage.lost);
        }
    }
    assert!(report.coverage.exact_peaks, "coverage.exact_peaks: {:?}", report.coverage);
    let watched = report.call_exit().filter(|hook| hook.state == HookState::Attached);
    let exits = watched.is_some_and(|hook| hook.via.as_deref().is_some_and(|via| !via.starts_with(ASKED)));
    assert_eq!(report.coverage.exact_calls, exits, "coverage.exact_calls: {:?}", report.coverage);
    let locking = report.coverage.exact_locking_calls;
    assert_eq!(locking, watched.is_some(), "coverage.exact_locking_calls: {:?}", report.coverage);
}

/// Each of `owns` has exactly one row that says the same; several lines with one pid are a pid used again.
///
/// Rows of one pid are matched with its lines in order of birth.
#[track_caller]
pub fn assert_each_has_its_row(report: &Report, owns: &[&Own]) {
    let mut rows: Vec<&Process> = report.processes.iter().collect();
    rows.sort_by(|a, b| a.pid.cmp(&b.pid).then(a.started_s.total_cmp_opt(b.started_s)));
    let mut owns: Vec<&Own> = owns.to_vec();
    owns.sort_by_key(|o| o.pid); // stable: lines of one pid stay in order
    let pids_of_rows: Vec<u32> = rows.iter().map(|r| r.pid).collect();
    let pids_of_owns: Vec<u32> = owns.iter().map(|o| o.pid).collect();
    assert!(pids_of_rows == pids_of_owns, "{}", difference(&pids_of_rows, &pids_of_owns));
    for (row, own) in rows.iter().zip(owns) {
        assert_exact(row, own);
    }
}

fn difference(rows: &[u32], owns: &[u32]) -> String {
    let missing: Vec<_> = owns.iter().filter(|pid| !rows.contains(pid)).take(10).collect();
    let extra: Vec<_> = rows.iter().filter(|pid| !owns.contains(pid)).take(10).collect();
    format!(
        "{} rows for {} processes; without a row: {missing:?}; not ours: {extra:?}",
        rows.len(),
        owns.len()
    )
}

/// Total order of optional times, unknown first.
trait TotalCmpOpt {
    fn total_cmp_opt(self, other: Self) -> std::cmp::Ordering;
}

impl TotalCmpOpt for Option<f64> {
    fn total_cmp_opt(self, other: Self) -> std::cmp::Ordering {
        self.unwrap_or(f64::NEG_INFINITY).total_cmp(&other.unwrap_or(f64::NEG_INFINITY))
    }
}

/// What refused calls have left mapped is what the workload says; without lock events it is a sum of refusals, and labelled.
#[track_caller]
pub fn assert_left(row: &Process, own: &Own) {
    if crate::has_lock_events() {
        assert_eq!(row.unmap_leaked_bytes, Some(own.leaked_bytes), "{:?}", row.unmap_leaked_bound);
    } else {
        let left = row.unmap_leaked_bytes.expect("eBPF sees refused calls");
        let exact = row.unmap_leaked_bound == Some(Accuracy::Exact);
        assert!(left >= own.leaked_bytes && exact == (left == 0), "{row:?}");
    }
}
