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

/// A game that its launcher starts so (Wine does): the one in between ends at once, and init would be the parent.
#[test]
fn without_rights_a_process_that_leaves_the_family_is_kept_in_sight() {
    let session = Session::run(&["--linger", "60s"], &["daemon", "100", "3000"]).as_user(NOBODY);
    let done = session.go().succeeded();
    let (own, report) = (done.own(), done.report());
    let daemon = own.iter().find(|own| own.role == "daemon").unwrap();
    let row = report.processes.iter().find(|row| row.pid == daemon.pid);
    let row = row.unwrap_or_else(|| panic!("pid {} in {:?}", daemon.pid, report.processes));
    assert!(row.map_count.peak.is_some() && row.ended_s.is_some(), "{row:?}");
    assert_eq!(report.session.still_running, 0);
    // The one in between was too quick for a sample, and vmaudit saw it end only if it became its child.
    assert_eq!(report.recommendation.value, None);
}

/// Orphans that end are waited for as init would do, long before vmaudit ends, and a daemon that does not end is waited
/// for no longer than `--linger`.
#[test]
fn orphans_leave_no_zombies_and_do_not_hold_the_session() {
    let session = Session::vmaudit(&["run", "--source", "proc", "--linger", "100ms", "-q", "--"]);
    let session = session.then_workload(&["orphans", "8", "50", "30000"]);
    let start = std::time::Instant::now();
    let done = session.go().ended_with(7);
    assert!(start.elapsed() < std::time::Duration::from_secs(25), "{:?}", start.elapsed());
    // The command, the witness and a reader; an orphan that had ended would be here.
    let children = String::from_utf8_lossy(&done.stdout).split_whitespace().count();
    assert!((1..=3).contains(&children), "{}", done.said());
}

/// What was too quick for a look is counted, and nothing is recommended from the rest.
#[test]
fn processes_that_no_sample_shows_are_counted_and_leave_no_recommendation() {
    let session = Session::run(&["--source", "proc"], &["orphans", "9", "0", "0"]);
    let done = session.go().ended_with(7);
    let report = done.report();
    assert!(report.coverage.lost["process_unseen"] > 0, "{:?}", report.coverage.lost);
    assert_eq!((report.recommendation.action, report.recommendation.value), (Action::Unknown, None));
    let said = &report.recommendation.sentences[0];
    assert!(said.contains("No sample was taken of "), "{said}");
}

/// In the report for people one sentence names them.
#[test]
fn missing_rights_are_told_once_in_a_report() {
    let session = Session::vmaudit(&["run", "-o", "-", "--"]).then_workload(&["sleep", "1"]).as_user(NOBODY);
    let done = session.go().succeeded();
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert_eq!(text.matches("CAP_BPF:").count(), 1, "{text}");
    assert!(!text.contains("Missing:"), "{text}");
}
