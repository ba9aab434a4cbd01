//! What people type, where it takes rights and processes: names in place of numbers, filters, a command without `--`.
//! The rest of the table is `vmaudit-user/tests/typed.rs`.

use vmaudit_tests::session::Running;
use vmaudit_tests::{Scratch, Session, wait_for, workload};

use crate::attach::{find, objects};

/// nobody.
const NOBODY: u32 = 65534;

/// A workload of this name, standing.
pub fn standing(name: &str, user: Option<u32>) -> Running {
    let scratch = Scratch::new();
    let copy = scratch.path(name);
    std::fs::copy(workload(), &copy).expect("the workload can be copied");
    let session = Session::other(copy).words(&["attach", "20"]);
    let mut running = match user {
        Some(uid) => session.as_user(uid),
        None => session.reachable(),
    }
    .start_with_pipe();
    running.wait_for_stdout("standing");
    running
}

/// Numbers of all processes whose changes `vmaudit trace OPTIONS` shows while each of `targets` makes some.
fn seen(options: &[&str], targets: &mut [&mut Running]) -> Vec<u32> {
    let session = Session::vmaudit(&["trace", "--all-lines", "-d", "60s", "-o"]);
    let lines = session.file("lines.json");
    let mut trace = session.words(&[&lines]).words(options).start();
    // The targets go on until the first of them was seen; the last look is behind all that was asked for before.
    let pids = wait_for("changes of the first target", || {
        for target in targets.iter_mut() {
            let over = target.stdout_so_far().iter().filter(|&&b| b == b'\n').count();
            assert!(over < 100_000 && target.write(b"x"), "the workload is gone");
        }
        assert!(!trace.ended(), "the trace ended by itself");
        let text = std::fs::read_to_string(&lines).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut pids: Vec<u32> = objects(whole)
            .iter()
            .filter_map(|line| find(line, &["pid"])?.as_u64())
            .map(|pid| pid as u32)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        (pids.contains(&targets[0].pid())).then_some(pids)
    });
    drop(trace);
    pids
}

#[test]
fn a_process_is_traced_by_its_name() {
    let (mut wanted, mut other) = (standing("vma-wanted", None), standing("vma-other", None));
    let pid = wanted.pid();
    assert_eq!(seen(&["-p", "vma-wanted"], &mut [&mut wanted, &mut other]), [pid]);
}

#[test]
fn all_processes_of_a_name_and_no_others_are_shown() {
    let (mut wanted, mut other) = (standing("vma-comm-a", None), standing("vma-other", None));
    let pid = wanted.pid();
    assert_eq!(seen(&["--comm", "no-such,vma-comm-?"], &mut [&mut wanted, &mut other]), [pid]);
}

#[test]
fn processes_of_a_user_and_no_others_are_shown() {
    let (mut wanted, mut other) = (standing("vma-nobody", Some(NOBODY)), standing("vma-root", None));
    let (pid, root) = (wanted.pid(), other.pid());
    let shown = seen(&["--user", "nobody"], &mut [&mut wanted, &mut other]);
    assert!(shown.contains(&pid) && !shown.contains(&root), "{shown:?}");
}

#[test]
fn a_command_needs_no_dashes_and_keeps_its_options() {
    let session = Session::vmaudit(&["run", "--all-rows", "-o"]);
    let report = session.file("report.json");
    let done = session.words(&[report]).then_workload(&["exit", "3"]).go().ended_with(3);
    assert_eq!(done.report().session.exit.and_then(|exit| exit.code), Some(3));
    let done = Session::vmaudit(&["run", "-q", "sh", "-c", "echo $0 $1", "--json", "-o"]).go().succeeded();
    assert_eq!(done.stdout, b"--json -o\n");
}
