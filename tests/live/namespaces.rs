//! Inside a pid namespace, one and two deep: figures are exact as on the host, and processes go by their numbers there.

use std::os::unix::process::CommandExt as _;

use vmaudit_tests::rows::{assert_each_has_its_row, assert_nothing_lost};
use vmaudit_tests::{Done, LowerLimit, Own, Session};
use vmaudit_user::model::report::{Cause, Report, Since, SourceKind};

/// The caller becomes the first process of a pid namespace, so deep below the one it was in, with a /proc of its own.
fn first_of_a_pid_namespace(depth: usize) -> std::io::Result<()> {
    let check = |answer: libc::c_int| match answer {
        0.. => Ok(answer),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: numbers and static strings only; this process has one thread, and its child goes on where it stands.
    unsafe {
        let none = std::ptr::null();
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
        for _ in 0..depth {
            check(libc::unshare(libc::CLONE_NEWPID))?;
            let child = check(libc::fork())?;
            if child > 0 {
                // Whoever starts us waits for the end of a pipe that the exec closes; this process never execs.
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 99 });
            }
        }
        let proc = c"proc".as_ptr();
        check(libc::mount(proc, c"/proc".as_ptr(), proc, 0, none.cast())).map(drop)
    }
}

/// Runs it so deep.
fn inside(session: Session, depth: usize) -> Done {
    let mut command = session.command();
    // SAFETY: system calls only, on static memory.
    unsafe { command.pre_exec(move || first_of_a_pid_namespace(depth)) };
    session.start_as(&mut command).wait()
}

/// Every child has its row with its own number, the neighbours outside have none.
#[test]
fn a_command_is_run_with_exact_figures_and_the_numbers_of_there() {
    for depth in [1, 2] {
        let done = inside(Session::run(&[], &["children", "100"]), depth).succeeded();
        let (owns, report) = (done.own(), done.report());
        assert!(owns.iter().all(|own| own.pid < 1000), "numbers of a young namespace: {:?}", owns[0]);
        assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
        assert_nothing_lost(&report);
        assert_eq!(report.source, SourceKind::Ebpf);
        let parent = owns.iter().find(|own| own.role != "child").expect("a parent").pid;
        let children = report.processes.iter().filter(|row| row.pid != parent);
        assert!(children.clone().count() == 100 && children.clone().all(|row| row.ppid == Some(parent)));
    }
}

#[test]
fn a_refused_call_has_its_cause_and_its_process() {
    let _lower = LowerLimit::new();
    let done = inside(Session::run(&[], &["limit", "munmap"]), 1).succeeded();
    let (own, report) = (done.own().remove(0), done.report());
    let failure = report.failures.first().expect("a failure");
    assert_eq!(
        (failure.pid, failure.cause, failure.count),
        (own.pid, Cause::MaxMapCount, own.refused[0].count)
    );
    assert_eq!(failure.example.as_ref().map(|example| example.tid), Some(own.pid), "{failure:?}");
}

/// A process that ran before is attached to by its number there, and all that run there are; nobody from outside is.
#[test]
fn what_runs_there_is_watched_and_nothing_else() {
    for (depth, filter) in [(1, "-p \"$pid\""), (2, ""), (2, "--exe workload")] {
        let script = format!(
            "\"$0\" attach 40 < /dev/zero > /dev/null & pid=$!; echo $pid; \
             while ! grep -q workload /proc/$pid/comm; do :; done; \
             \"$1\" watch {filter} -q -d 300ms -o json:- --all-rows; kill $pid"
        );
        let session = Session::other("/bin/sh".into()).words(&["-c", &script]);
        let session = session.words(&[vmaudit_tests::workload(), vmaudit_tests::vmaudit()]);
        let done = inside(session, depth).succeeded();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let (pid, json) = text.split_once('\n').expect("a number, then the report");
        let report: Report =
            serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json} {}", done.said()));
        let pid: u32 = pid.trim().parse().expect("a number");
        let row = report.processes.iter().find(|row| row.pid == pid);
        let row = row.unwrap_or_else(|| panic!("no row of {pid}: {:?}", report.processes));
        assert_eq!((row.since, row.comm.as_str()), (Some(Since::Attach), "workload"), "{row:?}");
        assert!(row.map_count.peak > Some(80), "{row:?}");
        let strangers = report.processes.iter().filter(|row| row.pid == 0 || row.pid > 500);
        assert_eq!(strangers.count(), 0, "{:?}", report.processes);
        assert_eq!(report.source, SourceKind::Ebpf);
    }
}

/// Whoever is killed from outside was killed by nobody who has a number there.
#[test]
fn an_end_by_a_signal_is_told_there_too() {
    let done = inside(Session::run(&[], &["kill-self", "9"]), 1);
    let report = done.report();
    assert_eq!(report.session.exit.and_then(|exit| exit.signal), Some(9), "{}", done.said());
    let end = report.processes[0].end.as_ref().expect("an end");
    assert_eq!(end.signal, Some(9), "{end:?}");
}

#[test]
fn a_trace_has_the_numbers_of_there() {
    let session = Session::vmaudit(&["trace", "--format", "json", "--all-lines", "-o"]);
    let lines = session.file("lines.json");
    let session = session.words(&[lines]).words(&["--"]).then_workload(&["holes", "100"]);
    let done = inside(session, 1).succeeded();
    let own: Own = done.own().remove(0);
    let lines = super::attach::objects(&done.read("lines.json"));
    let of_own = lines.iter().filter(|line| line["pid"] == own.pid && line["tid"] == own.pid);
    assert!(of_own.count() > 90, "{:?}", lines.first());
}
