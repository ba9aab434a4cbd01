//! What people read: the report's text, held to the JSON of the same session.

use vmaudit_tests::{Done, Session};

/// `vmaudit run` with both, on this workload.
fn both(words: &[&str]) -> (Done, String) {
    let session = Session::vmaudit(&["run"]);
    let files = ["report.json", "report.txt"].map(|name| session.file(name));
    let session = session.words(&["-o"]).words(&files[..1]).words(&["-o"]).words(&files[1..]);
    let done = session.words(&["--"]).then_workload(words).go().succeeded();
    let text = done.read("report.txt").replace("\n    ", " ");
    (done, text)
}

#[test]
fn a_process_at_the_limit_is_told_with_the_calls_that_made_its_vmas_and_what_they_are() {
    let (done, text) = both(&["--linger", "1500", "stacks", "2"]);
    let report = done.report();
    let row = report.processes.first().expect("a process");
    let (call, figures) = row.calls.iter().max_by_key(|(_, figures)| figures.added).expect("it made some");
    let grouped = vmaudit_user::text::grouped(figures.added);
    let line = format!("\nWho made the VMAs\n  {} (pid {}): added by {call} {grouped}", row.comm, row.pid);
    assert!(text.contains(&line), "{line:?} in {text}");
    let look = report.failures[0].holders.as_ref().expect("the process lived long enough to be looked at");
    let said = text.replace("\n  ", " ");
    assert!(said.contains(&format!("Its VMAs then: {}", look.sentence.trim_end_matches('.'))), "{text}");
}

#[test]
fn a_clean_report_is_short_and_names_no_counter_and_no_hook() {
    let (done, text) = both(&["attach", "1"]);
    let report = done.report();
    if report.coverage.lost.values().all(|lost| *lost == 0) {
        assert!(text.contains("\nNothing lost.\n"), "{text}");
    }
    for name in report.coverage.hooks.iter().filter(|hook| hook.loses.is_none()).map(|hook| &hook.name) {
        assert!(!text.contains(name.as_str()), "{name} in {text}");
    }
    assert!(!text.contains("Who made the VMAs"), "{text}");
}
