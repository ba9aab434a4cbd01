//! Where figures come from when the best source is not wanted or not allowed.

use vmaudit_tests::session::until_sampled;
use vmaudit_tests::{Session, wait_for};
use vmaudit_user::model::report::{Action, Report, SourceKind};

/// nobody.
const NOBODY: u32 = 65534;

/// Labelled as samples, everywhere.
#[track_caller]
fn assert_labelled(report: &Report) {
    assert_eq!(report.source, SourceKind::Proc);
    assert!(!report.coverage.exact_peaks);
    assert!(report.processes.iter().all(|p| !p.map_count.exact), "{:?}", report.processes);
    assert!(report.processes.iter().any(|p| p.comm == "workload"), "{:?}", report.processes);
}

#[test]
fn proc_sampling_is_labelled_and_never_above_the_truth() {
    let done = until_sampled(|| Session::run(&["--source", "proc"], &["attach", "200"]).start_with_pipe());
    let (own, row) = done.only();
    assert_labelled(&done.report());
    assert!(row.map_count.peak.is_some_and(|peak| peak >= own.last.unwrap() && peak <= own.peak), "{row:?}");
    assert!(row.calls.values().all(|c| c.calls.is_none() && c.failed.is_none()), "{row:?}");
    assert_eq!(row.unmap_leaked_bytes, None);
    // Small as it is, a sample does not say that the limit is high enough.
    assert_eq!(done.report().recommendation.action, Action::Unknown, "{:?}", done.report().recommendation);
}

#[test]
fn without_rights_run_goes_on_with_proc_and_says_why_in_one_line() {
    let done = until_sampled(|| Session::run(&[], &["attach", "200"]).as_user(NOBODY).start_with_pipe());
    assert_labelled(&done.report());
    assert_eq!(done.stderr_text().lines().count(), 1, "one line says why: {}", done.said());
}

/// Whoever may not read a program's file may not read its mappings either.
#[test]
fn without_rights_a_process_that_may_not_be_read_is_noted() {
    use std::os::unix::fs::PermissionsExt as _;
    let session = Session::run(&["--source", "proc"], &["sleep", "1"]).as_user(NOBODY);
    let closed = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(session.file("workload"), closed).unwrap();
    let done = session.go().succeeded();
    let notes = done.report().coverage.notes;
    let note = |note: &&String| {
        note.starts_with("1 process could not be counted for all or a part of the time: workload")
    };
    assert_eq!(notes.iter().filter(note).count(), 1, "{notes:?}");
}

#[test]
fn without_rights_a_quiet_run_says_nothing_and_its_report_says_why() {
    let done = Session::run(&["-q"], &["exit", "0"]).as_user(NOBODY).go().succeeded();
    assert_eq!(done.stderr_text(), "");
    let coverage = done.report().coverage;
    assert!(coverage.notes.iter().any(|note| note.contains("samples from /proc")), "{:?}", coverage.notes);
    assert!(
        coverage.hooks.iter().all(|hook| hook.reason.as_ref().is_some_and(|why| why.contains("CAP_BPF")))
    );
}

#[test]
fn a_quiet_run_still_says_its_errors() {
    let done = Session::run(&["-q", "--source", "ebpf"], &["bytes"]).as_user(NOBODY).go().ended_with(125);
    assert_eq!(done.stderr_text().lines().count(), 1, "{}", done.said());
}

#[test]
fn without_rights_a_command_that_ends_at_once_keeps_its_status() {
    Session::run(&[], &["exit", "7"]).as_user(NOBODY).go().ended_with(7);
}

#[test]
fn without_rights_a_demand_for_ebpf_is_125_and_the_command_does_not_run() {
    let done = Session::run(&["--source", "ebpf"], &["bytes"]).as_user(NOBODY).go().ended_with(125);
    assert!(done.stdout.is_empty(), "the command ran");
    assert!(!done.stderr_text().trim().is_empty(), "no word about the reason");
}

#[test]
fn nothing_is_left_on_the_machine_after_a_session() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let before = mounts();
    Session::run(&[], &["burst", "10"]).go().succeeded();
    // Another test may hold a mount for a moment; it is gone again when that one ends.
    wait_for("the mounts to be as before", || {
        (mounts().lines().count() <= before.lines().count()).then_some(())
    });
}
