//! The process is stuck over a file of a FUSE file system that never answers.

use std::path::PathBuf;

use serde_json::Value;
use vmaudit_tests::session::Running;
use vmaudit_tests::{Session, own, send_signal, wait_for};
use vmaudit_user::model::report::{Report, SourceKind};

/// nobody: the one that the stuck process becomes.
const NOBODY: u32 = 65534;
const SILENT: &str = "did not answer within 1 s (its memory map is locked)";

/// Adds a folder to mount the silent file system on, as the last word.
fn with_folder(session: Session) -> Session {
    let folder = session.file("mnt");
    std::fs::create_dir(&folder).unwrap();
    session.words(&[folder])
}

/// A process that is stuck until it is dropped.
struct Stuck {
    _running: Running,
    pid: u32,
    vmas: u64,
}

impl Stuck {
    fn start() -> Self {
        let mut running = with_folder(Session::workload(&["stuck"])).start();
        running.wait_for_stdout("\n");
        let told = String::from_utf8(running.stdout_so_far()).unwrap();
        let mut words = told.split_whitespace().skip(1).map(|word| word.parse().unwrap());
        let (pid, vmas): (u64, u64) = (words.next().unwrap(), words.next().unwrap());
        Self { _running: running, pid: pid as u32, vmas }
    }
}

fn standing() -> (Running, own::Own) {
    let mut running = Session::workload(&["attach", "30"]).start_with_pipe();
    running.wait_for_stdout("standing");
    let own = own::parse(&running.stdout_so_far()).remove(0);
    (running, own)
}

#[test]
fn scan_shows_it_with_the_kernels_count_and_everybody_else_completely() {
    let stuck = Stuck::start();
    let (_running, known) = standing();
    let pids = format!("{},{}", stuck.pid, known.pid);
    for (source, count) in [("ebpf", Some(stuck.vmas)), ("proc", None)] {
        for only in [&["-p", &pids][..], &[]] {
            let words = [&["scan", "--format", "json", "--source", source], only].concat();
            let done = Session::vmaudit(&words).go().succeeded();
            let report: Report = serde_json::from_slice(&done.stdout).unwrap();
            let row = |pid| report.processes.iter().find(|row| row.pid == pid);
            let other = row(known.pid).unwrap();
            assert_eq!((other.map_count.last, other.unreadable.as_deref()), (known.last, None), "{other:?}");
            assert!(other.app.as_deref().is_some_and(|app| app.ends_with("/workload")), "{other:?}");
            // Without a count it is no row, but is named with its reason all the same.
            let Some(count) = count else {
                let it = report.not_counted.iter().find(|it| it.pid == stuck.pid).unwrap();
                assert_eq!((it.comm.as_deref(), it.uid), (Some("workload"), Some(NOBODY)), "{it:?}");
                assert_eq!((it.reason.as_str(), it.forbidden, row(stuck.pid)), (SILENT, false, None));
                continue;
            };
            let it = row(stuck.pid).unwrap();
            assert_eq!((it.map_count.last, it.map_count.exact), (Some(count), true), "{it:?}");
            assert_eq!((it.comm.as_str(), it.uid), ("workload", Some(NOBODY)), "{it:?}");
            assert_eq!(it.unreadable.as_deref(), Some(SILENT));
            // There may be others that are stuck, of other tests.
            let note = format!("1 process is not shown completely; workload (pid {}) {SILENT}.", stuck.pid);
            let said = |it: &String| *it == note || only.is_empty() && it.contains("not shown completely");
            assert!(report.coverage.notes.iter().any(said), "{:?}", report.coverage.notes);
        }
    }
}

#[test]
fn explain_and_limit_say_so_and_end() {
    let stuck = Stuck::start();
    let done = Session::vmaudit(&["explain", &stuck.pid.to_string()]).go().ended_with(1);
    let sentence = format!("process {} {SILENT}", stuck.pid);
    assert!(done.stdout.is_empty() && done.stderr_text().contains(&sentence), "{}", done.said());
    let done = Session::vmaudit(&["limit", "--format", "json"]).go().succeeded();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    // It may not be the only one: there are other tests.
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains(" known by name only; workload (pid "), "{warnings}");
    assert!(warnings.contains(SILENT), "{warnings}");
}

/// vmaudit's readers that sleep uninterruptibly now.
fn stuck_readers(vmaudit: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{vmaudit}/task/{vmaudit}/children"));
    let children = children.unwrap_or_default();
    let is_one = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.contains("(vmaudit-reader) D"))
    };
    children.split_whitespace().map(|pid| pid.parse().unwrap()).filter(is_one).collect()
}

/// `run` of a program that is stuck, and is refused a fork from then on.
fn run() -> Running {
    with_folder(Session::run(&["--source", "ebpf", "--calls", "all"], &["stuck-refused"])).start()
}

#[test]
fn a_session_gives_up_a_reader_that_is_stuck_and_says_whom_it_could_not_look_at() {
    let mut running = run();
    running.wait_for_stdout("stuck");
    wait_for("a reader to be stuck", || (!stuck_readers(running.pid()).is_empty()).then_some(()));
    wait_for("it to be given up", || stuck_readers(running.pid()).is_empty().then_some(()));
    send_signal(running.pid(), libc::SIGTERM);
    let done = running.wait().died_of(libc::SIGTERM);
    let notes = done.report().coverage.notes;
    // Of the fork that was refused when the lock was held.
    let about = |note: &String| {
        note.contains("of failed calls kept addresses without names: workload (pid ")
            && note.ends_with(SILENT)
    };
    assert!(notes.iter().any(about), "{notes:?}");
}

#[test]
fn a_signal_ends_a_session_whose_reader_is_stuck_and_the_report_is_written() {
    let mut running = run();
    running.wait_for_stdout("stuck");
    let readers = wait_for("a reader to be stuck", || {
        Some(stuck_readers(running.pid())).filter(|readers| !readers.is_empty())
    });
    for reader in readers {
        let folder = std::fs::read_dir(format!("/proc/{reader}/fd")).into_iter().flatten().flatten();
        let mut open: Vec<PathBuf> =
            folder.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        open.retain(|path| {
            let path = path.to_string_lossy();
            !(path == "/dev/null" || path.starts_with("socket:") || path.starts_with("/proc/"))
        });
        assert!(open.is_empty(), "it could hold somebody up: {open:?}");
    }
    send_signal(running.pid(), libc::SIGTERM);
    let report = running.wait().died_of(libc::SIGTERM).report();
    assert!(report.failures.iter().any(|row| row.syscall == "clone"), "{:?}", report.failures);
}

/// Since Linux 6.17 the maps file, all that samples need, takes no lock (fs/proc/task_mmu.c); before, they do without it.
#[test]
fn a_signal_ends_a_session_that_samples_it() {
    let mut running = with_folder(Session::run(&["--source", "proc"], &["stuck"])).start();
    running.wait_for_stdout("stuck");
    send_signal(running.pid(), libc::SIGTERM);
    let report = running.wait().died_of(libc::SIGTERM).report();
    assert_eq!(report.source, SourceKind::Proc);
}

#[test]
fn trace_is_not_held_up() {
    let session = Session::vmaudit(&["trace", "--format", "json", "--failed", "-o"]);
    let file = session.file("trace.json");
    let session = session.words(&[file]).words(&["--"]).then_workload(&["stuck-refused"]);
    let mut running = with_folder(session).start();
    running.wait_for_stdout("stuck");
    send_signal(running.pid(), libc::SIGTERM);
    let done = running.wait().succeeded();
    let lines = done.read("trace.json");
    assert!(lines.contains("\"syscall\":\"clone\"") && lines.contains("\"type\":\"end\""), "{lines}");
}

#[test]
fn a_program_on_a_file_system_that_does_not_answer_is_shown() {
    let session = with_folder(Session::workload(&["stuck-exec"])).words(&["attach", "30"]);
    let mut command = session.command();
    command.stdin(std::process::Stdio::piped());
    let mut running = session.start_as(&mut command);
    running.wait_for_stdout("standing");
    let told = String::from_utf8(running.stdout_so_far()).unwrap();
    let (server, line) = told.strip_prefix("server ").and_then(|rest| rest.split_once('\n')).unwrap();
    let known = own::parse(line.as_bytes()).remove(0);
    send_signal(server.parse().unwrap(), libc::SIGUSR1);
    let pid = known.pid.to_string();
    for source in ["ebpf", "proc"] {
        let words = ["scan", "--format", "json", "--source", source, "-p", &pid];
        let done = Session::vmaudit(&words).go().succeeded();
        let report: Report = serde_json::from_slice(&done.stdout).unwrap();
        let row = &report.processes[0];
        // Its command line does not answer, its executable's path does.
        assert!(row.app.as_deref().is_some_and(|app| app.ends_with("/mnt/prog")), "{row:?}");
        assert_eq!(row.map_count.last, known.last, "{row:?}");
        assert_eq!(row.unreadable, None);
    }
    let done = Session::vmaudit(&["explain", "--format", "json", &pid]).go().succeeded();
    let it: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(it["vmas"].as_u64(), known.last);
}
