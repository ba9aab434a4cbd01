//! Recordings: what is left of one when vmaudit is killed or the file is damaged, and what is no recording. That a whole one
//! gives the session's own report is asserted for every session of these tests ([`vmaudit_tests::Done::report`]).

use std::path::Path;
use std::process::{Command, Output};

use vmaudit_tests::{Done, Scratch, Session, send_signal, vmaudit, wait_for};
use vmaudit_user::model::report::{Report, SourceKind};

fn report_of(file: &Path, options: &[&str]) -> Output {
    Command::new(vmaudit()).arg("report").arg(file).args(options).output().expect("vmaudit can be started")
}

fn parsed(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", shown(&output.stdout), shown(&output.stderr)))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A session at the limit, with its recording.
fn recorded() -> Done {
    Session::run(&[], &["causes", "rlimit-as"]).go().succeeded()
}

#[test]
fn text_is_the_same_too() {
    let session = Session::vmaudit(&["run", "-o"]);
    let (text, recording) = (session.file("report.txt"), session.file("r.vma"));
    let session = session.words(&[&text]).words(&["--record"]).words(&[&recording]).words(&["--"]);
    let done = session.then_workload(&["stackoverflow"]).go().succeeded();
    let again = report_of(&recording, &[]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(shown(&again.stdout), done.read("report.txt"));
}

/// A report in JSON is rendered like the recording it could come from, in every format.
#[test]
fn a_report_in_json_gives_what_the_session_gave() {
    let session = Session::vmaudit(&["run", "-o"]);
    let (text, json) = (session.file("report.txt"), session.file("report.json"));
    let session = session.words(&[&text]).words(&["-o"]).words(&[&json]).words(&["--"]);
    let done = session.then_workload(&["stackoverflow"]).go().succeeded();
    let again = report_of(&json, &[]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(shown(&again.stdout), done.read("report.txt"));
    assert_eq!(shown(&report_of(&json, &["--format", "json"]).stdout), done.read("report.json"));
}

#[test]
fn samples_are_recorded_like_all_else() {
    let done = Session::run(&["--source", "proc"], &["sleep", "0"]).go().succeeded();
    assert_eq!(done.report().source, SourceKind::Proc);
}

#[test]
fn a_session_that_a_signal_ends_has_its_whole_recording() {
    let mut running = Session::run(&[], &["sleep", "3600"]).start();
    running.wait_for_stdout("sleeping");
    send_signal(running.pid(), libc::SIGTERM);
    let done = running.wait().died_of(libc::SIGTERM);
    assert_eq!(done.report().session.exit.unwrap().signal, Some(libc::SIGTERM));
}

/// kill -9 costs what came in the last second or two, and the report says so.
#[test]
fn what_was_written_before_vmaudit_was_killed_is_a_report() {
    let session = Session::run(&[], &["sleep", "3600"]);
    let file = session.file("session.vma");
    let mut running = session.start();
    running.wait_for_stdout("sleeping");
    wait_for("the process to be in the recording", || {
        let output = report_of(&file, &["--format", "json"]);
        let there = output.status.success() && !parsed(&output).processes.is_empty();
        there.then_some(())
    });
    let workload = parsed(&report_of(&file, &["--format", "json"])).processes[0].pid;
    send_signal(running.pid(), libc::SIGKILL);
    let done = running.wait().died_of(libc::SIGKILL);
    // vmaudit's death does not touch it.
    assert!(vmaudit_tests::alive(workload));
    send_signal(workload, libc::SIGKILL);
    let output = report_of(&file, &["--format", "json"]);
    let report = parsed(&output);
    assert!(output.status.success(), "{output:?} {}", done.said());
    assert!(shown(&output.stderr).contains("ends before its session did"), "{output:?}");
    assert_eq!(report.coverage.lost["recording_cut"], 1);
    assert!(!report.coverage.exact_peaks && !report.coverage.exact_calls);
    let process = &report.processes[0];
    assert!(process.map_count.peak.is_some_and(|peak| peak > 5) && !process.map_count.exact, "{process:?}");
}

#[test]
fn a_damaged_recording_gives_what_came_before_and_status_1() {
    let done = recorded();
    let file = done.scratch.path("session.vma");
    let whole = std::fs::read(&file).unwrap();
    let broken = done.scratch.path("broken.vma");
    let last = whole.len() - 5;
    for (at, status) in [(last, 1), (3, 1)] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&broken, bytes).unwrap();
        let output = report_of(&broken, &[]);
        assert_eq!(output.status.code(), Some(status), "{at}: {output:?}");
        assert_eq!(shown(&output.stderr).lines().count(), 1, "{output:?}");
    }
    assert!(shown(&report_of(&broken, &[]).stderr).contains("it is no recording of vmaudit"));
    std::fs::write(&broken, &whole[..last]).unwrap();
    let cut = report_of(&broken, &["--format", "json"]);
    assert!(cut.status.success() && parsed(&cut).coverage.lost["recording_cut"] == 1, "{cut:?}");
}

#[test]
fn what_is_no_recording_gets_one_sentence_and_makes_nobody_wait() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    nix_mkfifo(&fifo);
    let text = scratch.path("text");
    std::fs::write(&text, "hello\n").unwrap();
    for file in [&fifo, &text, Path::new("/dev/zero"), scratch.folder(), Path::new("/nonexistent")] {
        let output = report_of(file, &[]);
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", file.display());
        assert!(output.stdout.is_empty(), "{output:?}");
        assert_eq!(shown(&output.stderr).lines().count(), 1, "{output:?}");
    }
}

fn nix_mkfifo(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// An earlier recording is worth something.
#[test]
fn an_earlier_recording_goes_on_under_another_name_and_only_its_owner_reads_the_new_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let session = Session::run(&[], &["exit", "0"]);
    let file = session.file("session.vma");
    std::fs::write(&file, "earlier").unwrap();
    let done = session.go().succeeded();
    assert_eq!(done.read("session.vma.old"), "earlier");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    done.report();
}

/// It costs the recording, not the workload, and is told.
#[test]
fn a_recording_that_cannot_be_begun_keeps_no_command_from_running() {
    for (code, expected) in [("3", 3), ("0", 125)] {
        let words = ["run", "--source", "proc", "--record", "/dev/full", "--"];
        let done = Session::vmaudit(&words).then_workload(&["exit", code]).go().ended_with(expected);
        let said = done.stderr_text();
        assert!(said.contains("there will be no recording") && said.contains("space"), "{said}");
        assert!(said.contains(&format!("ended with status {code}")), "there is a report: {said}");
    }
}

/// No empty file is left, and an earlier recording has its name again.
#[test]
fn a_full_disk_leaves_the_earlier_recording_and_nothing_else() {
    let scratch = Scratch::new();
    let folder = scratch.path("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = vmaudit_tests::mount_small(&folder, 16 << 10);
    std::fs::write(folder.join("old.vma"), "an earlier one").unwrap();
    std::fs::write(folder.join("fill"), vec![0; 12 << 10]).unwrap();
    for name in ["new.vma", "old.vma"] {
        let session = Session::vmaudit(&["run", "--source", "proc", "--record"]).words(&[folder.join(name)]);
        let done = session.words(&["--"]).then_workload(&["exit", "0"]).go().ended_with(125);
        assert!(done.stderr_text().contains("there will be no recording"), "{}", done.stderr_text());
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["fill", "old.vma"], "{name}");
        assert_eq!(std::fs::read_to_string(folder.join("old.vma")).unwrap(), "an earlier one");
    }
    drop(disk);
}

/// What `trace` keeps is a session like any other.
#[test]
fn a_trace_is_recorded_with_every_change() {
    let session = Session::vmaudit(&["trace", "-o", "/dev/null", "--record"]);
    let file = session.file("t.vma");
    let done =
        session.words(&[&file]).words(&["--"]).then_workload(&["causes", "rlimit-as"]).go().succeeded();
    let output = report_of(&file, &["--format", "json"]);
    let report = parsed(&output);
    assert!(output.status.success(), "{output:?} {}", done.said());
    assert!(!report.failures.is_empty() && report.processes[0].map_count.exact, "{report:?}");
}
