//! A ring buffer that is far too small loses details, says so, and costs no figure.

use vmaudit_tests::Session;
use vmaudit_tests::rows::{assert_each_has_its_row, assert_exact};

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
    assert_eq!(row.unmap_leaked_bytes, Some(own.leaked_bytes));
}

#[test]
fn with_a_tiny_ring_no_child_is_missing() {
    let done = Session::run(&TINY, &["children", "500"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
}

#[test]
fn a_trace_that_cannot_keep_up_says_how_much_it_lost() {
    let session = Session::vmaudit(&["trace", "--format", "json", "-o"]);
    let lines = session.file("lines.json");
    let done = session
        .words(&[lines])
        .words(&TINY)
        .words(&["--"])
        .then_workload(&["flood", "100000"])
        .go()
        .succeeded();
    let lost = crate::attach::objects(&done.read("lines.json"))
        .iter()
        .filter_map(|line| crate::attach::find(line, &["ring_full"]))
        .filter_map(serde_json::Value::as_u64)
        .max();
    assert!(lost > Some(0), "no loss of 200,000 changes through 4 KiB is mentioned");
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
