//! Capabilities instead of root; what vmaudit keeps of them; what the command gets.

use std::io;
use std::os::unix::process::CommandExt as _;

use vmaudit_tests::rows::assert_exact;
use vmaudit_tests::{Done, Session};
use vmaudit_user::model::report::SourceKind;

const NOBODY: u32 = 65534;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_KILL: u32 = 5;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETPCAP: u32 = 8;
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const CAP_CHECKPOINT_RESTORE: u32 = 40;
const ENOUGH: [u32; 2] = [CAP_BPF, CAP_PERFMON];

pub fn bits(caps: &[u32]) -> u64 {
    caps.iter().fold(0, |all, cap| all | 1 << cap)
}

/// A set of the process's status file.
pub fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line of that name");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a hexadecimal number")
}

#[test]
fn two_capabilities_are_enough_for_exact_figures_and_failures() {
    let done = Session::run(&[], &["limit", "munmap"]).as_user_with(NOBODY, &ENOUGH).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    assert_eq!(report.source, SourceKind::Ebpf, "{}", done.said());
    if report.coverage.lost["program_skipped"] == 0 {
        assert_exact(&row, &own);
        assert_eq!(report.failures.iter().map(|f| f.count).sum::<u64>(), own.refused[0].count);
    }
    assert_eq!(report.failures[0].cause, vmaudit_user::model::report::Cause::MaxMapCount);
    assert_eq!(row.uid, Some(NOBODY));
}

#[test]
fn names_in_stacks_need_no_further_right_for_ones_own_processes() {
    let done = Session::run(&[], &["--linger", "1500", "causes", "rlimit-as"])
        .as_user_with(NOBODY, &ENOUGH)
        .go()
        .succeeded();
    let report = done.report();
    let stack = &report.failures[0].example.as_ref().expect("an example").stack;
    assert!(
        stack.iter().any(|frame| frame.module.as_deref().is_some_and(|m| m.ends_with("workload"))),
        "{stack:?}"
    );
}

/// What the command says of its rights.
fn facts(session: Session) -> (Done, String) {
    let done = session.go().succeeded();
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    (done, text.lines().filter_map(|l| l.strip_prefix("status ")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_command_does_not_inherit_what_vmaudit_was_given() {
    let given = [CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_NET_BIND_SERVICE];
    let (_, alone) = facts(Session::workload(&["facts"]).as_user_with(NOBODY, &given));
    let (done, traced) = facts(Session::run(&[], &["facts"]).as_user_with(NOBODY, &given));
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(set(&alone, name), bits(&given), "{name} without vmaudit");
        assert_eq!(set(&traced, name), bits(&[CAP_NET_BIND_SERVICE]), "{name} is the caller's own affair");
    }
    for name in ["CapBnd", "NoNewPrivs"] {
        assert_eq!(set(&alone, name), set(&traced, name), "{name}");
    }
    let report = done.report();
    assert_eq!(report.source, SourceKind::Ebpf);
    let told = |note: &String| note.contains("CAP_BPF") && note.contains("--keep-caps");
    assert!(report.coverage.notes.iter().any(told), "{:?}", report.coverage.notes);
}

#[test]
fn the_command_keeps_them_when_asked() {
    let (_, traced) = facts(Session::run(&["--keep-caps"], &["facts"]).as_user_with(NOBODY, &ENOUGH));
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(set(&traced, name), bits(&ENOUGH), "{name}");
    }
}

/// As `setcap cap_bpf,cap_perfmon+ep vmaudit` does.
#[test]
fn capabilities_of_the_file_reach_vmaudit_and_not_the_command() {
    let session = Session::run(&[], &["facts"]).unrecorded().as_user(NOBODY);
    let file = session.file("vmaudit");
    give_to_file(&file, bits(&ENOUGH))
        .expect("file capabilities can be set: the scratch folder's file system has them");
    let (_, alone) = facts(Session::workload(&["facts"]).as_user(NOBODY));
    let (done, traced) = facts(session);
    let report = done.report();
    assert_eq!(report.source, SourceKind::Ebpf, "{}", done.said());
    assert_eq!(report.coverage.lost["skips_unreadable"], 0, "its own /proc is readable");
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd", "NoNewPrivs"] {
        assert_eq!(set(&alone, name), set(&traced, name), "{name}");
    }
    assert_eq!(set(&traced, "CapEff"), 0);
}

/// struct vfs_cap_data, revision 2: magic with the effective flag, then permitted and inheritable, low and high word.
pub fn give_to_file(path: &std::path::Path, permitted: u64) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let words = [0x0200_0001_u32, permitted as u32, 0, (permitted >> 32) as u32, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    // SAFETY: a string and a buffer that live through the call.
    let answer = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const KEPT: [u32; 4] = [CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE];

/// Ambient and inherited rights of a session, and what it was given: `None` for all that this machine's root has.
#[track_caller]
fn assert_drops(session: Session, given: Option<&[u32]>) -> Done {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let had = given.map_or_else(|| set(&own, "CapPrm"), bits);
    // Root's process for symbols becomes another user, so root keeps that.
    let kept = bits(&KEPT) | given.map_or(bits(&[CAP_SETGID, CAP_SETUID]), |_| 0);
    let mut running = session.start_with_pipe();
    running.wait_for_stdout("standing");
    // Root's are its own; all others are in effect only for as long as something needs them, and what /proc tells of the
    // new process is such a thing: a look may fall into it.
    let in_effect = if given.is_none() { had & kept } else { 0 };
    let path = format!("/proc/{}/status", running.pid());
    let status = vmaudit_tests::wait_for("rights that are lowered again", || {
        let status = std::fs::read_to_string(&path).unwrap();
        assert_eq!(set(&status, "CapPrm"), had & kept);
        (set(&status, "CapEff") == in_effect).then_some(status)
    });
    assert_eq!(set(&status, "CapAmb"), 0);
    // Only who may change it can: what is not in it cannot be had back by exec either.
    let bounding = set(&own, "CapBnd");
    let expected = if had & bits(&[CAP_SETPCAP]) == 0 { bounding } else { bounding & kept };
    assert_eq!(set(&status, "CapBnd"), expected, "CapBnd");
    running.wait().succeeded()
}

#[test]
fn what_is_not_needed_any_more_is_dropped_once_the_hooks_are_on() {
    let more = [CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_NET_BIND_SERVICE];
    for given in [None, Some(ENOUGH.as_slice()), Some(more.as_slice())] {
        let session = Session::run(&[], &["attach", "10"]);
        let session = given.into_iter().fold(session, |session, caps| session.as_user_with(NOBODY, caps));
        assert_eq!(assert_drops(session, given).report().source, SourceKind::Ebpf);
    }
}

#[test]
fn trace_drops_them_too() {
    let session = Session::vmaudit(&["trace", "-o"]);
    let lines = session.file("lines.txt");
    let done = assert_drops(session.words(&[&lines]).words(&["--"]).then_workload(&["attach", "10"]), None);
    assert!(!done.read("lines.txt").is_empty());
}

/// The process that looks at signals lives as long as the session.
#[test]
fn the_witness_keeps_no_right_at_all() {
    let mut running = Session::run(&[], &["attach", "10"]).start_with_pipe();
    running.wait_for_stdout("standing");
    let pid = running.pid();
    // It bears its name from when it has dropped them, which may be later than the command begins.
    let witness = vmaudit_tests::wait_for("a witness among the children", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let status = |child: &str| std::fs::read_to_string(format!("/proc/{child}/status")).ok();
        children.split_whitespace().filter_map(status).find(|status| status.contains("vmaudit-witness"))
    });
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(set(&witness, name), 0, "{name}");
    }
    running.wait().succeeded();
}

/// With the rights gone, signals still reach a command of another user.
#[test]
fn signals_reach_a_command_of_another_user() {
    let mut running = Session::run(&["--as", "65534"], &["signals", "1"]).reachable().start();
    running.wait_for_stdout("ready");
    vmaudit_tests::send_signal(running.pid(), libc::SIGTERM);
    let done = running.wait().succeeded();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "ready\nsignal 15\n");
}

#[test]
fn trace_works_with_the_same_rights() {
    let session = Session::vmaudit(&["trace", "-o"]);
    let lines = session.file("lines.json");
    let session = session.words(&[&lines]).words(&["--"]).then_workload(&["facts"]);
    let done = session.as_user_with(NOBODY, &ENOUGH).go().succeeded();
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert!(text.contains("status CapEff:\t0000000000000000"), "{text}");
    // A static program makes few changes.
    let lines = crate::attach::objects(&done.read("lines.json"));
    assert!(lines.iter().any(|line| line["type"] == "change"), "{lines:?}");
}

/// A caller's no_new_privs stays, and nothing of vmaudit's adds one.
#[test]
fn no_new_privs_is_the_callers() {
    for wanted in [0, 1] {
        let session = Session::run(&[], &["facts"]);
        let mut command = session.command();
        // SAFETY: takes numbers only.
        unsafe {
            command.pre_exec(move || {
                if wanted == 1 && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let done = session.start_as(&mut command).wait().succeeded();
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        assert!(text.contains(&format!("status NoNewPrivs:\t{wanted}")), "{text}");
        assert_eq!(done.report().source, SourceKind::Ebpf);
    }
}
