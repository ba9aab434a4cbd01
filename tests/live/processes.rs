//! Families: every process has its row, nobody's figures land with somebody else.

use vmaudit_tests::rows::{assert_each_has_its_row, assert_exact, assert_nothing_lost, assert_sum_rule};
use vmaudit_tests::{Done, Own, Session, alive, has_lock_events, own, send_signal, wait_for};
use vmaudit_user::model::report::{Process, Report};

/// Size of the largest family.
fn children() -> usize {
    match std::env::var("VMAUDIT_CHILDREN") {
        Ok(n) => n.parse().expect("VMAUDIT_CHILDREN is a number"),
        Err(_) => 2000,
    }
}

/// Runs it; every line has its row and every row its line.
#[track_caller]
fn exact_family(words: &[&str]) -> Done {
    let done = Session::run(&[], words).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
    assert_nothing_lost(&report);
    done
}

#[track_caller]
fn row_of(report: &Report, pid: u32) -> &Process {
    let rows: Vec<_> = report.processes.iter().filter(|p| p.pid == pid).collect();
    assert_eq!(rows.len(), 1, "rows of pid {pid}: {rows:?}");
    rows[0]
}

fn with_role<'a>(owns: &'a [Own], role: &str) -> Vec<&'a Own> {
    owns.iter().filter(|o| o.role == role).collect()
}

#[test]
fn thousands_of_short_lived_children_each_have_their_own_peak() {
    let n = children();
    let done = exact_family(&["children", &n.to_string()]);
    assert_eq!(done.own().len(), n + 1);
}

#[test]
fn processes_that_share_one_pid_one_after_the_other_are_kept_apart() {
    let done = exact_family(&["reuse-pid", "200"]);
    let owns = done.own();
    assert_eq!(with_role(&owns, "child").len(), 200);
    assert!(with_role(&owns, "child").iter().all(|o| o.pid == owns[0].pid));
}

#[test]
fn a_child_killed_at_its_peak_keeps_it() {
    exact_family(&["children", "100", "killed"]);
}

#[test]
fn a_failed_exec_changes_nothing() {
    let done = exact_family(&["children", "100", "exec-missing"]);
    assert!(done.report().processes.iter().all(|p| p.images.len() == 1));
}

#[test]
fn an_exec_that_fails_after_the_new_address_space_was_made_changes_nothing() {
    let done = exact_family(&["children", "100", "exec-garbage"]);
    assert!(done.report().processes.iter().all(|p| p.images.len() == 1));
}

#[test]
fn each_generation_starts_with_what_it_inherited() {
    exact_family(&["generations", "30"]);
}

#[test]
fn exec_keeps_each_image_apart() {
    let n = (children() / 10).max(10);
    let done = Session::run(&[], &["children", &n.to_string(), "exec"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_nothing_lost(&report);
    assert_eq!(report.processes.len(), n + 1);
    let after = with_role(&owns, "after-exec");
    assert_eq!(after.len(), n);
    for before in with_role(&owns, "before-exec") {
        let after = after.iter().find(|o| o.pid == before.pid).expect("both images spoke");
        assert_two_images(row_of(&report, before.pid), before, after);
    }
}

#[track_caller]
fn assert_two_images(row: &Process, before: &Own, after: &Own) {
    let peaks: Vec<u64> = row.images.iter().map(|i| i.peak).collect();
    assert_eq!(peaks, [before.peak, after.peak], "images of {row:?}");
    assert_eq!(row.map_count.peak, Some(before.peak.max(after.peak)));
    assert_eq!(row.map_count.last, after.last);
    assert!(row.map_count.exact, "{row:?}");
}

#[test]
fn a_process_that_execs_itself_has_two_images() {
    let done = Session::run(&[], &["exec-self", "300", "100"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_eq!(report.processes.len(), 1);
    assert_two_images(&report.processes[0], &owns[0], &owns[1]);
}

/// A report keeps a bounded number of images one by one, and no figure of the others is lost.
#[test]
fn a_process_that_execs_itself_again_and_again_keeps_its_figures() {
    let done = Session::run(&[], &["exec-chain", "200"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_nothing_lost(&report);
    let [row] = report.processes.as_slice() else { panic!("one process: {:?}", report.processes) };
    assert_eq!(owns.len(), 201);
    assert_eq!(row.images.len() as u64 + row.images_folded, 201);
    assert!(row.images_folded > 100, "{}", row.images_folded);
    assert_eq!((row.map_count.peak, row.map_count.last), (Some(owns[0].peak), owns[200].last));
    assert!(row.map_count.exact, "{row:?}");
    // The largest and the newest, in order.
    let mut shown: Vec<u64> = owns[200 + 2 - row.images.len()..].iter().map(|own| own.peak).collect();
    shown.insert(0, owns[0].peak);
    assert_eq!(row.images.iter().map(|image| image.peak).collect::<Vec<_>>(), shown);
    // Image k of n maps n - k + 20 pages, and as many in its preparations as any other.
    let mapped: u64 = (20..=220).sum();
    assert!(row.calls["munmap"].calls >= Some(mapped), "{:?}", row.calls["munmap"]);
}

#[test]
fn a_thread_that_execs_leaves_the_process_its_id_and_two_images() {
    let done = Session::run(&[], &["exec-by-thread", "300", "100"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_eq!(report.processes.len(), 1, "{:?}", report.processes);
    let row = &report.processes[0];
    if has_lock_events() {
        return assert_two_images(row, &owns[0], &owns[1]);
    }
    // The first image had two threads: its peak is a sample, and the process's with it. The second is a thread alone.
    assert_eq!(row.images.len(), 2, "{row:?}");
    assert!(row.images[0].peak <= owns[0].peak, "never above the truth: {row:?}");
    assert_eq!((row.images[1].peak, row.map_count.last), (owns[1].peak, owns[1].last), "{row:?}");
    assert!(!row.map_count.exact && !report.coverage.exact_peaks, "{row:?}");
}

#[test]
fn what_a_vforked_child_maps_belongs_to_the_shared_memory_and_its_exec_is_its_own() {
    let done = Session::run(&[], &["vfork", "20"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_nothing_lost(&report);
    for parent in with_role(&owns, "vfork-parent") {
        assert_exact(row_of(&report, parent.pid), parent);
    }
    let after = with_role(&owns, "after-exec");
    assert_eq!(after.len(), 10);
    for own in after {
        assert_exact(row_of(&report, own.pid), own);
    }
    // The children that only exited had no memory of their own; if they have a row, it claims no figures.
    for row in report.processes.iter().filter(|row| owns.iter().all(|o| o.pid != row.pid)) {
        assert_eq!(row.map_count.peak, None, "{row:?}");
    }
}

/// The kernel side tells the first 127 bytes of a program's path; no part of one is given out as a whole.
#[test]
fn a_program_with_a_long_path_has_all_of_it() {
    let session = Session::vmaudit(&["run", "-o"]);
    let report = session.file("report.json");
    let folder = session.file(&"long".repeat(30));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("workload-of-its-own");
    std::fs::copy(vmaudit_tests::workload(), &program).unwrap();
    assert!(program.as_os_str().len() > 127);
    let words: [&std::ffi::OsStr; 4] = [report.as_ref(), "--".as_ref(), program.as_ref(), "sleep".as_ref()];
    let done = session.words(&words).words(&["1"]).go().succeeded();
    let report = done.report();
    assert_eq!(report.processes[0].exe.as_deref(), program.to_str());
    assert_eq!(report.processes[0].app.as_deref(), Some("workload-of-its-own"));
}

/// Of `./program` the kernel tells just that.
#[test]
fn a_program_called_by_a_relative_path_has_all_of_it() {
    let session = Session::vmaudit(&["run", "-o"]);
    let report = session.file("report.json");
    let program = session.file("called-relatively");
    std::fs::copy(vmaudit_tests::workload(), &program).unwrap();
    let words: [&std::ffi::OsStr; 5] =
        [report.as_ref(), "--".as_ref(), "./called-relatively".as_ref(), "sleep".as_ref(), "1".as_ref()];
    let session = session.words(&words);
    let mut command = session.command();
    command.current_dir(program.parent().unwrap());
    let report = session.start_as(&mut command).wait().succeeded().report();
    assert_eq!(report.processes[0].exe.as_deref(), program.to_str());
    assert_eq!(report.processes[0].app.as_deref(), Some("called-relatively"));
}

#[test]
fn without_following_only_the_command_itself_has_a_row() {
    let done = Session::run(&["--no-follow"], &["children", "20"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_eq!(report.processes.len(), 1, "{:?}", report.processes);
    let parent = with_role(&owns, "parent")[0];
    assert_exact(row_of(&report, parent.pid), parent);
}

#[test]
fn the_sum_of_changes_leads_from_first_to_last_in_every_process() {
    // The rule is for processes of one image: with exec that is the parent alone.
    for (words, expected) in
        [(["children", "200", "exit"], 201), (["children", "50", "exec"], 1), (["threads", "3", "500"], 1)]
    {
        let report = Session::run(&[], &words).go().succeeded().report();
        let checked = report.processes.iter().filter(|row| assert_sum_rule(row)).count();
        // Without the lock events, counts of several threads are samples.
        let expected = if words[0] == "threads" && !has_lock_events() { 0 } else { expected };
        assert_eq!(checked, expected, "{words:?}: {:?}", report.coverage);
    }
}

#[test]
fn a_daemon_that_ends_within_the_linger_time_is_waited_for() {
    let done = Session::run(&["--linger", "5m"], &["daemon", "100", "2000"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    assert_eq!(report.session.still_running, 0);
    for own in owns.iter().filter(|o| o.role != "daemon-first-burst") {
        assert_exact(row_of(&report, own.pid), own);
    }
    assert_eq!(report.processes.len(), 3, "parent, the process between, daemon: {:?}", report.processes);
}

/// Either the daemon was waited for, then its row is complete; or it was not, then the report says so.
#[test]
fn a_daemon_is_followed_past_its_parents_end_or_said_to_be_still_running() {
    let done = Session::run(&[], &["daemon", "100", "50"]).go().succeeded();
    let report = done.report();
    let daemon = done.own().into_iter().find(|o| o.role == "daemon-first-burst").expect("the daemon spoke");
    wait_for("the daemon's end", || (!alive(daemon.pid)).then_some(()));
    let stdout = std::fs::read(done.scratch.path("stdout")).unwrap();
    let whole =
        own::parse(&stdout).into_iter().find(|o| o.role == "daemon").expect("the daemon spoke at its end");
    let row = row_of(&report, daemon.pid);
    if report.session.still_running == 0 {
        assert_exact(row, &whole);
        assert!(row.ended_s.is_some());
    } else {
        assert_eq!(row.map_count.peak, Some(daemon.peak), "{row:?}");
        assert!(row.ended_s.is_none());
    }
}

#[test]
fn a_daemon_that_stays_is_not_waited_for_without_end_and_not_touched() {
    let done = Session::run(&[], &["daemon", "100", "3600000"]).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    let daemon = with_role(&owns, "daemon-first-burst")[0].clone();
    assert!(alive(daemon.pid), "the daemon was killed");
    send_signal(daemon.pid, libc::SIGKILL);
    assert_eq!(report.session.still_running, 1, "{:?}", report.session);
    let row = row_of(&report, daemon.pid);
    assert_eq!(row.map_count.peak, Some(daemon.peak), "{row:?}");
    assert_eq!(row.ended_s, None);
    for parent in with_role(&owns, "parent") {
        assert_exact(row_of(&report, parent.pid), parent);
    }
}
