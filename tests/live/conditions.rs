//! Conditions under which something is lost: each is forced, and both the sentence and the remaining figures are
//! asserted.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use vmaudit_tests::rows::{assert_exact, assert_exact_peak};
use vmaudit_tests::session::{become_user, until_sampled};
use vmaudit_tests::{Done, Session};
use vmaudit_user::model::report::{Cause, Condition, HookState, Report, SourceKind};

const NOBODY: u32 = 65534;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const RAW_TRACEPOINT_OPEN: u32 = 17;

type Change = fn() -> io::Result<()>;

/// Done to the process that becomes vmaudit.
fn changed(session: &Session, change: Change) -> Command {
    let mut command = session.command();
    // SAFETY: the changes below only make system calls on static memory.
    unsafe { command.pre_exec(change) };
    command
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A mount namespace of its own, in which an empty file system lies over `folder`.
fn hide(folder: &CStr) -> io::Result<()> {
    own_mounts()?;
    mount(c"tmpfs", folder, c"")
}

fn own_mounts() -> io::Result<()> {
    // SAFETY: numbers and static strings only.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let none = std::ptr::null();
        check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))
    }
}

fn mount(kind: &CStr, folder: &CStr, options: &CStr) -> io::Result<()> {
    // SAFETY: strings that live through the call.
    check(unsafe { libc::mount(kind.as_ptr(), folder.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) })
}

/// A seccomp filter as containers have it: bpf(), or only its command `only`, answers `errno`.
fn refuse_bpf(only: Option<u32>, errno: i32) -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    // Offsets in struct seccomp_data: the call's number, and its first argument (low word).
    let (number, first) = (0, 16);
    let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut filter = [
        step(load, 0, 0, number),
        step(equal, 0, 3, libc::SYS_bpf as u32),
        step(load, 0, 0, first),
        // Without `only`, both ways lead to the refusal.
        step(equal, 0, if only.is_some() { 1 } else { 0 }, only.unwrap_or(0)),
        step(answer, 0, 0, refuse),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` describes `filter`; both live through the call. Root needs no no_new_privs.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) })
}

#[track_caller]
fn condition<'a>(report: &'a Report, name: &str) -> &'a Condition {
    let found = report.coverage.conditions.iter().find(|c| c.name == name);
    found.unwrap_or_else(|| panic!("no condition {name} in {:?}", report.coverage.conditions))
}

#[track_caller]
fn assert_lost(report: &Report, name: &str, loses: &str) {
    let row = condition(report, name);
    assert_eq!(row.met, Some(false), "{row:?}");
    assert!(row.loses.as_ref().is_some_and(|l| l.contains(loses)), "{loses:?} is not in {row:?}");
}

/// `run` goes on with samples, names the condition in one line, and says what is lost; what is left is right.
#[track_caller]
fn assert_samples(change: Change, name: &str, sentence: &str) {
    let done = until_sampled(|| {
        let session = Session::run(&[], &["attach", "200"]).reachable();
        let mut command = changed(&session, change);
        command.stdin(Stdio::piped());
        session.start_as(&mut command)
    });
    let (own, report) = (done.own().remove(0), done.report());
    assert_eq!(report.source, SourceKind::Proc);
    assert!(!report.coverage.exact_peaks);
    assert_lost(&report, name, "samples");
    assert!(report.coverage.hooks.iter().all(|h| h.state == HookState::Missing && h.loses.is_some()));
    assert_eq!(done.stderr_text().lines().count(), 1, "one line says why: {}", done.said());
    assert!(done.stderr_text().contains(sentence), "{sentence:?} is not in {}", done.said());
    // Inside a pid namespace the workload's number is that namespace's, as is the report's.
    let row = report.processes.iter().find(|p| p.pid == own.pid).expect("the workload's row");
    let peak = row.map_count.peak.expect("it was seen");
    assert!(!row.map_count.exact && peak >= own.last.unwrap() && peak <= own.peak, "{row:?} {own:?}");
    assert!(row.calls.values().all(|c| c.failed.is_none()), "{row:?}");

    let refused = Session::run(&["--source", "ebpf"], &["bytes"]).reachable();
    let mut command = changed(&refused, change);
    let done = refused.start_as(&mut command).wait().ended_with(125);
    assert!(done.stdout.is_empty() && done.stderr_text().contains(sentence), "{}", done.said());

    assert_doctor(change, name, condition(&report, name).loses.as_deref(), false);
}

/// `doctor` has the row with its loss, and says of peaks what reports say; its exit status is 1 without eBPF.
#[track_caller]
fn assert_doctor(change: Change, name: &str, loses: Option<&str>, exact_peaks: bool) {
    let doctor = |format| {
        let session = Session::vmaudit(&["doctor", "--format", format]).reachable();
        let mut command = changed(&session, change);
        let done = session.start_as(&mut command).wait();
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        (done, text)
    };
    let (done, text) = doctor("json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = json["conditions"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {text}"));
    assert_eq!((row["met"].as_bool(), row["loses"].as_str()), (Some(loses.is_none()), loses), "{row}");
    assert_eq!(json["exact_peaks"], exact_peaks, "{text}");
    done.ended_with(i32::from(json["reason"].is_string()));
    let (_, text) = doctor("text");
    let word = if loses.is_some() { "NO " } else { "yes" };
    assert!(text.contains(&format!("  {word}  {name}")), "{text}");
    let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(loses.is_none_or(|loses| unwrapped.contains(loses)), "{loses:?} is not in {text}");
    assert_eq!(text.contains("Peaks are samples here"), json["reason"].is_string(), "{text}");
    assert!(exact_peaks || !text.contains("Peaks are exact here"), "{text}");
}

/// Peaks stay exact, or what the kernel skipped is counted.
#[track_caller]
fn traced(change: Change) -> (Done, Report) {
    let session = Session::run(&[], &["burst", "300"]).reachable();
    let mut command = changed(&session, change);
    let done = session.start_as(&mut command).wait().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    assert_eq!(report.source, SourceKind::Ebpf, "{}", done.said());
    if report.coverage.lost["program_skipped"] == 0 && report.coverage.lost["skips_unreadable"] == 0 {
        assert_exact(&row, &own);
    } else {
        assert!(
            !report.coverage.exact_peaks || !report.coverage.exact_locking_calls,
            "{:?}",
            report.coverage
        );
    }
    if row.map_count.exact {
        assert_exact_peak(&row, &own);
    }
    (done, report)
}

fn vias(report: &Report, name: &str) -> String {
    let hook = report.coverage.hooks.iter().find(|h| h.name == name).expect("a hook");
    hook.via.clone().unwrap_or_default()
}

/// The hook that gives counts, and the way of it and of the others: itself, or on kernels without it a substitute.
#[track_caller]
fn assert_by(report: &Report, via: &str) {
    if vmaudit_tests::has_lock_events() {
        assert_eq!(vias(report, "mmap_lock_released"), via);
    } else {
        assert_eq!(vias(report, "mmap_lock_released"), "sys_exit");
        assert_eq!(vias(report, "sched_process_exec"), via);
    }
}

#[test]
fn where_raw_tracepoints_are_refused_classic_ones_do() {
    let change: Change = || refuse_bpf(Some(RAW_TRACEPOINT_OPEN), libc::EPERM);
    if !vmaudit_tests::has_lock_events() {
        // What takes the place of the lock events is raw tracepoints only.
        return assert_samples(change, "raw tracepoints", "raw tracepoints: refused");
    }
    let (_, report) = traced(change);
    assert_eq!(vias(&report, "mmap_lock_released"), "tracepoint");
    assert_lost(&report, "raw tracepoints", "classic tracepoints only");
    let counted = vmaudit_tests::kernel_version() >= (6, 12);
    assert_eq!(report.coverage.lost["skips_unreadable"] > 0, !counted, "{:?}", report.coverage);
    let row = condition(&report, "raw tracepoints");
    assert_doctor(change, &row.name, row.loses.as_deref(), counted);
}

#[test]
fn without_tracefs_raw_tracepoints_do() {
    let change: Change = || {
        hide(c"/sys/kernel/tracing")?; // a machine may have opened it to everybody
        become_user(NOBODY, &[CAP_BPF, CAP_PERFMON])
    };
    let (_, report) = traced(change);
    assert_by(&report, "raw_tp");
    assert_lost(&report, "tracefs", "raw tracepoints only");
    let row = condition(&report, "tracefs");
    assert_doctor(change, &row.name, row.loses.as_deref(), vmaudit_tests::has_lock_events());
    assert_eq!(row.loses.as_ref().unwrap().contains("skips"), vmaudit_tests::preempts_programs(), "{row:?}");
}

#[test]
fn a_tracefs_that_is_not_mounted_is_mounted_privately() {
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let report = if vmaudit_tests::has_lock_events() {
        let change: Change = || {
            hide(c"/sys/kernel/tracing")?;
            refuse_bpf(Some(RAW_TRACEPOINT_OPEN), libc::EPERM)
        };
        let (_, report) = traced(change);
        assert_doctor(change, "tracefs", None, vmaudit_tests::kernel_version() >= (6, 12));
        assert_eq!(vias(&report, "mmap_lock_released"), "tracepoint", "only tracefs gives these");
        report
    } else {
        // No program for this kernel is a classic one; tracefs is found all the same.
        let (_, report) = traced(|| hide(c"/sys/kernel/tracing"));
        assert_by(&report, "raw_tp");
        report
    };
    assert_eq!(condition(&report, "tracefs").met, Some(true));
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), before);
}

#[test]
fn without_type_information() {
    assert_samples(
        || hide(c"/sys/kernel/btf"),
        "kernel type information (BTF)",
        "/sys/kernel/btf/vmlinux cannot be read",
    );
}

#[test]
fn without_cap_perfmon() {
    assert_samples(|| become_user(NOBODY, &[CAP_BPF]), "CAP_PERFMON", "CAP_PERFMON: not held");
}

#[test]
fn without_cap_bpf() {
    assert_samples(|| become_user(NOBODY, &[CAP_PERFMON]), "CAP_BPF", "CAP_BPF: not held");
}

#[test]
fn where_seccomp_says_that_there_is_no_bpf() {
    assert_samples(|| refuse_bpf(None, libc::ENOSYS), "bpf() system call", "blocked, or not in this kernel");
}

#[test]
fn where_seccomp_refuses_bpf() {
    assert_samples(|| refuse_bpf(None, libc::EPERM), "bpf() system call", "although the rights are there");
}

#[test]
fn inside_a_user_namespace() {
    assert_samples(
        // SAFETY: takes a number.
        || check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }),
        "user namespace",
        "capabilities have no power over eBPF",
    );
}

/// Whose numbers /proc shows are not those of here.
#[test]
fn inside_a_pid_namespace_with_the_proc_of_another() {
    fn first_of_a_pid_namespace() -> io::Result<()> {
        own_mounts()?;
        // SAFETY: numbers only; this process has one thread, and its child goes on where it stands.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWPID))?;
            let child = libc::fork();
            check(child)?;
            if child > 0 {
                // Whoever starts us waits for the end of a pipe that the exec closes; this process never execs.
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 99 });
            }
        }
        Ok(())
    }
    let session = Session::run(&[], &["burst", "50"]).reachable();
    let mut command = changed(&session, first_of_a_pid_namespace);
    let done = session.start_as(&mut command).wait().succeeded();
    let report = done.report();
    assert!(done.stderr_text().contains("the /proc that is mounted here is of another"), "{}", done.said());
    assert!(report.processes.is_empty() && !report.coverage.exact_peaks, "{:?}", report.processes);
}

#[test]
fn with_hidden_processes_ebpf_is_not_touched() {
    let change: Change = || {
        own_mounts()?;
        mount(c"proc", c"/proc", c"hidepid=2")?;
        become_user(NOBODY, &[CAP_BPF, CAP_PERFMON])
    };
    let (_, report) = traced(change);
    assert_lost(&report, "/proc", "one's own processes only");
    let loses = condition(&report, "/proc").loses.as_deref();
    assert_doctor(change, "/proc", loses, vmaudit_tests::has_lock_events());
    assert!(report.coverage.exact_peaks || report.coverage.lost["program_skipped"] > 0);
}

#[test]
fn without_proc_the_peaks_are_right_and_nearly_every_kernel_can_tell() {
    let session = Session::run(&[], &["burst", "300"]);
    let mut command = changed(&session, || hide(c"/proc"));
    let done = session.start_as(&mut command).wait();
    let report = done.report();
    assert_eq!(report.source, SourceKind::Ebpf, "{}", done.said());
    assert_lost(&report, "/proc", "skipped programs cannot be");
    // Kernels before 5.12 skip none; those from 5.19 on tell everybody.
    let disabled = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap_or_default();
    let untold = ((5, 12)..(5, 19)).contains(&vmaudit_tests::kernel_version()) && disabled.trim() != "0";
    assert_eq!(report.coverage.lost["skips_unreadable"] > 0, untold, "{:?}", report.coverage);
    let skipped = report.coverage.lost["program_skipped"] > 0;
    assert_eq!(report.coverage.exact_peaks, !untold && !skipped, "{:?}", report.coverage);
    assert_eq!(report.limits.max_map_count, None);
    assert_doctor(
        || hide(c"/proc"),
        "/proc",
        condition(&report, "/proc").loses.as_deref(),
        vmaudit_tests::has_lock_events(),
    );
    // The workload measures itself in /proc and gives up; vmaudit saw it all the same.
    assert!(report.processes[0].map_count.peak > Some(0), "{:?}", report.processes);
}

#[test]
fn a_small_memlock_limit_is_named_where_the_kernel_asks_for_it() {
    let small: Change = || {
        become_user(NOBODY, &[CAP_BPF, CAP_PERFMON])?;
        let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
        // SAFETY: `limit` lives through the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) })
    };
    if vmaudit_tests::charges_memlock() {
        assert_samples(small, "RLIMIT_MEMLOCK", "ulimit -l unlimited");
    } else {
        let (_, report) = traced(small);
        assert_eq!(condition(&report, "RLIMIT_MEMLOCK").met, Some(true));
    }
}

#[test]
fn a_strict_perf_event_paranoid_is_no_matter_with_the_right() {
    const PATH: &str = "/proc/sys/kernel/perf_event_paranoid";
    let before = std::fs::read_to_string(PATH).unwrap();
    std::fs::write(PATH, "3").unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let (_, report) = traced(|| become_user(NOBODY, &[CAP_BPF, CAP_PERFMON]));
        let row = condition(&report, "kernel.perf_event_paranoid");
        assert_eq!((row.met, row.found.as_str()), (Some(true), "3; no matter with CAP_PERFMON"));
    });
    std::fs::write(PATH, before).unwrap();
    outcome.unwrap();
}

#[test]
fn lockdown_is_named() {
    let (_, report) = traced(|| Ok(()));
    let row = condition(&report, "lockdown");
    assert!(row.met != Some(false) && !row.found.is_empty(), "{row:?}");
    if vmaudit_tests::in_guest() {
        assert_eq!((row.met, row.found.as_str()), (Some(true), "none"));
    }
}

mod guest_only {
    /// A guest runs these last.
    mod irreversible {
        use super::super::*;

        /// The mode can be raised at any time and never lowered (security/lockdown/lockdown.c:lockdown_write).
        #[test]
        fn lockdown_in_mode_confidentiality_leaves_samples() {
            vmaudit_tests::assert_guest();
            std::fs::write("/sys/kernel/security/lockdown", "confidentiality")
                .expect("lockdown can be raised");
            assert_samples(|| Ok(()), "lockdown", "programs may not read the kernel's memory");
        }
    }
}

/// The setting cannot be read there; what the kernel's own variable says may stand beside a refusal, but nothing is made up.
#[test]
fn without_proc_no_limit_is_invented() {
    let session = Session::run(&[], &["over-as", "2"]).unrecorded();
    let mut command = changed(&session, || hide(c"/proc"));
    let done = session.start_as(&mut command).wait().succeeded();
    let report = done.report();
    let all: Vec<_> = report.failures.iter().chain(&report.ordinary_answers).collect();
    let [failure] = all[..] else { panic!("{all:?}") };
    assert_eq!(failure.count, 2);
    assert!([Cause::RlimitAs, Cause::Unknown].contains(&failure.cause), "{failure:?}");
    assert_eq!(report.limits.max_map_count, None);
    let named = failure.evidence.get("max_map_count").copied();
    assert!(named.is_none_or(|limit| limit == vmaudit_tests::max_map_count()), "{failure:?}");
    assert!(report.processes.iter().all(|row| !row.map_count.clipped), "{:?}", report.processes);
    assert!(report.recommendation.commands.is_empty(), "{:?}", report.recommendation);
}

/// Programs in the kernel know no time namespaces, and vmaudit's own clock is shifted in one.
#[test]
fn times_are_right_in_a_time_namespace() {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        assert!(vmaudit_tests::kernel_version() < (5, 6), "this kernel has time namespaces");
        return;
    }
    for offset in ["monotonic 86400 0", "monotonic 3600 500000000"] {
        let session = Session::run(&[], &["burst", "300"]);
        let mut command = session.command();
        // SAFETY: system calls only, on a static string.
        unsafe {
            command.pre_exec(move || {
                const CLONE_NEWTIME: libc::c_int = 0x80;
                check(libc::unshare(CLONE_NEWTIME))?;
                let file = libc::open(c"/proc/self/timens_offsets".as_ptr(), libc::O_WRONLY);
                check(file)?;
                let written = libc::write(file, offset.as_ptr().cast(), offset.len());
                check(libc::c_int::try_from(written).unwrap_or(-1))
            });
        }
        let done = session.start_as(&mut command).wait().succeeded();
        let report = done.report();
        let row = &report.processes[0];
        let duration = report.session.duration_s;
        let within = |time: Option<f64>| time.is_some_and(|time| time <= duration);
        assert!(within(row.started_s) && within(row.ended_s) && within(row.map_count.peak_at_s), "{row:?}");
        assert!(row.ended_s > Some(0.0) && row.map_count.peak_at_s > Some(0.0), "{row:?}");
    }
}
