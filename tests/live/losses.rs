//! A ring buffer that is far too small loses details, says so, and costs no figure.

use vmaudit_tests::Session;
use vmaudit_tests::rows::assert_each_has_its_row;

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
