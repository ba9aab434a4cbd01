//! A ring buffer that is far too small loses details, says so, and costs no figure.

use vmaudit_tests::Session;
use vmaudit_tests::rows::{assert_each_has_its_row, assert_exact, assert_left};
use vmaudit_user::model::report::{Accuracy, SourceKind};

const TINY: [&str; 2] = ["--ring-bytes", "4096"];

#[test]
fn with_a_tiny_ring_run_still_has_every_peak_and_every_call() {
    let done = Session::run(&TINY, &["flood", "50000"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert!(report.coverage.exact_peaks, "{:?}", report.coverage);
    assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
}

#[test]
fn with_a_tiny_ring_every_failure_is_still_counted() {
    let done = Session::run(&TINY, &["stackoverflow"]).go().succeeded();
    let (own, row) = done.only();
    assert_eq!(row.calls["munmap"].failed, Some(own.refused[0].count));
    assert_eq!(done.report().failures.iter().map(|f| f.count).sum::<u64>(), own.refused[0].count);
    if !vmaudit_tests::has_lock_events() {
        return assert_left(&row, &own);
    }
    // The ranges that were left are told through the ring: of those that found no room the figure knows that they are missing.
    let left = row.unmap_leaked_bytes.expect("eBPF sees refused calls");
    let bound = row.unmap_leaked_bound.expect("there is a figure");
    let holds = match bound {
        Accuracy::Exact => left == own.leaked_bytes,
        Accuracy::AtLeast => left <= own.leaked_bytes,
        Accuracy::AtMost => left >= own.leaked_bytes,
        Accuracy::About => true,
    };
    assert!(holds, "{left} {bound:?}, really {}", own.leaked_bytes);
}

#[test]
fn with_a_tiny_ring_no_child_is_missing() {
    let done = Session::run(&TINY, &["children", "500"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
}

#[test]
fn a_trace_that_cannot_keep_up_says_how_much_it_lost() {
    let session = Session::vmaudit(&["trace", "-o"]);
    let lines = session.file("lines.json");
    let done = session
        .words(&[lines])
        .words(&TINY)
        .words(&["--"])
        .then_workload(&["flood", "20000"])
        .go()
        .succeeded();
    let lost = crate::attach::objects(&done.read("lines.json"))
        .iter()
        .filter_map(|line| crate::attach::find(line, &["ring_full"]))
        .filter_map(serde_json::Value::as_u64)
        .max();
    assert!(lost > Some(0), "no loss of 40,000 changes through 4 KiB is mentioned");
}

/// Forty processes alive at once, sixteen places in the table: those that found no place are missing and said to be.
#[test]
fn a_table_that_is_too_small_is_said_so_and_what_is_in_it_is_right() {
    let done = Session::run(&["--slots", "16"], &["generations", "40"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert!(report.coverage.lost["table_full"] > 0, "{:?}", report.coverage);
    assert!(!report.coverage.exact_peaks, "peaks are missing: {:?}", report.coverage);
    for row in report.processes.iter().filter(|row| row.map_count.exact) {
        let own = owns.iter().find(|o| o.pid == row.pid).expect("a row of ours");
        assert_exact(row, own);
    }
}

#[test]
fn a_loss_can_be_a_breach() {
    Session::run(&["--fail-on", "lost", "--slots", "16"], &["generations", "40"]).go().ended_with(86);
    Session::run(&["--fail-on", "lost"], &["generations", "40"]).go().ended_with(0);
}

/// The classic program knows a child's number but not its address space; the raw one, which kernels from 7.0 on skip
/// now and then, knows both. A child that only the first has seen is labelled, whatever else is right about it.
#[test]
fn children_whose_birth_was_half_seen_are_not_called_exact() {
    let done = Session::run(&[], &["children", "30"]).without(&["fork_raw"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    if !vmaudit_tests::has_lock_events() {
        // Here one program sees births, and knows all of each.
        assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
        assert_eq!(report.coverage.lost["birth_missed"], 0, "{:?}", report.coverage);
        let done = Session::run(&[], &["children", "5"]).without(&["sampled_newtask"]).go().succeeded();
        assert_eq!(done.report().source, SourceKind::Proc, "without it nothing is followed");
        return assert!(!done.report().coverage.exact_peaks);
    }
    let parent = owns.last().expect("the parent's line");
    for own in &owns {
        let row = report.processes.iter().find(|row| row.pid == own.pid).expect("each has its row");
        assert_eq!(row.map_count.peak, Some(own.peak), "each child maps before it unmaps: {row:?}");
        assert_eq!(row.map_count.exact, own.pid == parent.pid, "{row:?}");
    }
    assert_eq!(report.coverage.lost["birth_missed"], 30);
    assert!(!report.coverage.exact_peaks);
    let hook = report.coverage.hooks.iter().find(|h| h.name == "sched_process_fork").unwrap();
    assert!(hook.loses.as_ref().is_some_and(|text| text.contains("born")), "{hook:?}");
}

/// A child that changes nothing before its exec still has the count it was born with when the exec begins.
#[test]
fn a_half_seen_child_that_only_execs_is_exact_with_both_its_images() {
    let done = Session::run(&[], &["children", "10", "exec-at-once"]).without(&["fork_raw"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    for row in &report.processes {
        let mut lines = owns.iter().filter(|own| own.pid == row.pid);
        let peaks: Vec<u64> = lines.clone().map(|own| own.peak).collect();
        assert_eq!((row.map_count.peak, row.map_count.exact), (peaks.iter().max().copied(), true), "{row:?}");
        if let Some(before) = lines.find(|own| own.role == "before-exec") {
            assert_eq!(
                row.images.iter().map(|image| image.peak).min(),
                peaks.iter().min().copied(),
                "{row:?}"
            );
            assert_eq!(row.map_count.first, before.first, "{row:?}");
            assert_eq!(row.images.len(), 2, "{row:?}");
        }
    }
    assert_eq!((owns.len(), report.processes.len()), (21, 11));
    assert_eq!(report.coverage.lost["birth_missed"], 0, "{:?}", report.coverage);
}

#[test]
fn memory_that_is_refused_to_be_unmapped_again_and_again_is_counted_once() {
    let done = Session::run(&[], &["retries", "5"]).go().succeeded();
    let (own, row) = done.only();
    assert_exact(&row, &own);
    assert_eq!(row.calls["munmap"].failed, Some(10));
    assert_left(&row, &own); // one page; the retry of the other succeeded
}
