//! One process: peak, last and calls are equal to what it knows of itself.

use vmaudit_tests::rows::{assert_each_has_its_row, assert_exact, assert_nothing_lost};
use vmaudit_tests::session::each;
use vmaudit_tests::{Done, Session};
use vmaudit_user::model::report::{Action, Process};

/// Runs it; the only row must be exact and equal to the only line.
#[track_caller]
fn exact(words: &[&str]) -> (Done, Process) {
    let done = Session::run(&[], words).go().succeeded();
    let (own, row) = done.only();
    assert_exact(&row, &own);
    assert_nothing_lost(&done.report());
    (done, row)
}

/// Several command lines of the workload in one session, one after the other: each has its row, exact and equal to its
/// line.
#[track_caller]
fn exact_each(lines: &[&str]) {
    let done = Session::run(&[], &each(lines)).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
    assert_nothing_lost(&report);
    // The last line and row are the parent's.
    assert_eq!(owns.len(), lines.len() + 1);
}

/// With several threads: exact where the kernel has lock events, else labelled and never above the truth.
#[track_caller]
fn exact_or_labelled(lines: &[&str]) {
    if vmaudit_tests::has_lock_events() {
        return exact_each(lines);
    }
    let done = Session::run(&[], &each(lines)).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    for own in owns.iter().filter(|own| own.role != "parent") {
        let row = report.processes.iter().find(|row| row.pid == own.pid).expect("each has its row");
        assert!(!row.map_count.exact, "{row:?}");
        assert!(row.map_count.peak.is_some_and(|peak| peak <= own.peak), "{row:?} {own:?}");
    }
    assert_eq!((owns.len(), report.processes.len()), (lines.len() + 1, lines.len() + 1));
}

#[test]
fn a_burst_that_lasts_microseconds_is_seen_at_its_exact_height() {
    exact_each(&["burst 10", "burst 100", "burst 5000", "burst 60000"]);
}

#[test]
fn the_same_burst_has_the_same_peak_every_time() {
    for _ in 0..2 {
        exact_each(&["burst 64"; 10]);
    }
}

#[test]
fn holes_punched_by_munmap_are_seen_at_the_read_release() {
    let (_, row) = exact(&["holes", "5000"]);
    assert_eq!(row.map_count.last, row.map_count.peak);
    let munmap = row.calls["munmap"];
    assert!(munmap.added >= 5000, "{munmap:?}");
    assert!(munmap.calls >= Some(5000), "{munmap:?}");
}

#[test]
fn mremap_that_shrinks_in_the_middle_adds_a_vma_each() {
    let (_, row) = exact(&["shrink", "2000"]);
    assert_eq!((row.calls["mremap"].calls, row.calls["mremap"].added), (Some(2000), 2000));
}

#[test]
fn a_brk_that_gives_back_a_split_heap_is_seen_at_the_read_release() {
    let (_, row) = exact(&["brk-shrink", "2000"]);
    assert_eq!(row.calls["brk"].removed, 2 * 2000 - 1);
}

#[test]
fn several_threads_at_their_maximum_together_make_one_exact_peak() {
    exact_or_labelled(&["threads 4 2000"; 5]);
}

#[test]
fn threads_that_outlive_the_leader_are_counted_to_the_end() {
    exact_or_labelled(&["leader-exits 500"]);
}

#[test]
fn a_row_says_who_it_was_and_when() {
    let (done, row) = exact(&["burst", "100"]);
    let report = done.report();
    assert_eq!(row.comm, "workload");
    assert_eq!(row.images.len(), 1);
    assert_eq!(row.images[0].peak, row.map_count.peak.unwrap());
    assert_eq!(row.uid, Some(0));
    assert!(row.ppid.is_some());
    let (started, ended) = (row.started_s.unwrap(), row.ended_s.unwrap());
    let peak_at = row.map_count.peak_at_s.unwrap();
    assert!(started <= peak_at && peak_at <= ended, "{row:?}");
    assert!(ended <= report.session.duration_s, "{row:?} {:?}", report.session);
    assert_eq!(report.session.exit.unwrap().code, Some(0));
    assert_eq!(report.session.command, ["workload"], "the name only: arguments may hold secrets");
    assert!(!row.map_count.clipped);
    let percent = 100.0 * row.map_count.peak.unwrap() as f64 / report.limits.max_map_count.unwrap() as f64;
    assert!((row.map_count.percent_of_limit.unwrap() - percent).abs() < 0.06, "{row:?}");
}

#[test]
fn pairs_of_mmap_and_munmap_are_all_counted() {
    let done = Session::run(&[], &["flood", "20000"]).go().succeeded();
    let (own, report) = (done.own(), done.report());
    assert_each_has_its_row(&report, &own.iter().collect::<Vec<_>>());
}

#[test]
fn without_watching_calls_the_peaks_are_as_exact_and_the_calls_unknown() {
    let done = Session::run(&["--peaks-only"], &["holes", "3000"]).go().succeeded();
    let (own, row) = done.only();
    assert_eq!((row.map_count.peak, row.map_count.last), (Some(own.peak), own.last), "{row:?}");
    assert!(row.map_count.exact);
    assert!(row.calls.values().all(|c| c.calls.is_none() && c.failed.is_none()), "unknown is null: {row:?}");
}

/// Before 6.4 munmap keeps the write lock there, elsewhere it ends with a read lock.
#[test]
fn what_is_unmapped_right_below_the_stack_is_followed() {
    let (_, row) = exact(&["below-stack", "200"]);
    // The dynamic loader may unmap something, too.
    let calls = &row.calls["munmap"];
    assert!(calls.added == 0 && calls.removed >= 3 * 200 - 1, "{row:?}");
}

#[test]
fn a_peak_at_the_limit_is_no_known_demand_where_calls_were_not_watched() {
    let done = Session::run(&["--peaks-only"], &["stackoverflow"]).go().succeeded();
    let (own, row) = done.only();
    assert_eq!((row.map_count.peak, row.map_count.exact), (Some(own.peak), true), "{row:?}");
    assert!(row.map_count.clipped, "{row:?}");
    assert_eq!(done.report().recommendation.action, Action::RaiseAndRerun);
}

/// A stack that grows and long arguments take write sections that change no count: none of them is taken for a missed
/// change.
#[test]
fn a_deep_stack_and_long_arguments_hide_no_change() {
    let done = Session::run(&[], &["deep-stack", "1024"]).go().succeeded();
    let (own, row) = done.only();
    assert_exact(&row, &own);
    assert_nothing_lost(&done.report());

    let long = "x".repeat(100_000);
    let mut session = Session::run(&[], &["burst", "50"]);
    for name in ["LONG_A", "LONG_B", "LONG_C", "LONG_D", "LONG_E"] {
        session = session.env(name, &long);
    }
    let done = session.go().succeeded();
    let (own, row) = done.only();
    assert_exact(&row, &own);
    assert_nothing_lost(&done.report());
}
