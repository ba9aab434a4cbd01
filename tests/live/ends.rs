//! Ends of processes: who or what killed them, and that nobody is named who did not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vmaudit_tests::{Done, PAGE, Scratch, Session};
use vmaudit_user::model::end::{EndCause, ProcessEnd};
use vmaudit_user::model::report::{Process, Report, SourceKind};

const MIB: u64 = 1 << 20;

/// Programs can look for the mapping at an address since 5.17.
fn looks() -> bool {
    vmaudit_tests::kernel_version() >= (5, 17)
}

#[track_caller]
fn end(process: &Process) -> &ProcessEnd {
    process.end.as_ref().unwrap_or_else(|| panic!("its end is not told: {process:?}"))
}

/// The command's own end in a session with one process.
#[track_caller]
fn ends(words: &[&str], signal: i32) -> (Done, ProcessEnd) {
    let done = Session::run(&[], &[&["ends"], words].concat()).go().died_of(signal);
    let report = done.report();
    assert_eq!(report.source, SourceKind::Ebpf);
    assert_eq!(report.processes.len(), 1, "{:?}", report.processes);
    let end = end(&report.processes[0]).clone();
    assert_eq!((end.code, end.signal), (None, Some(signal)), "{end:?}");
    let exit = report.session.exit.expect("the command ended");
    assert_eq!((exit.code, exit.signal), (end.code, end.signal));
    let whole = report.session.end.expect("the command ended");
    assert_eq!((whole.pid, &whole.sentence), (Some(report.processes[0].pid), &end.sentence));
    (done, end)
}

#[track_caller]
fn is(end: &ProcessEnd, cause: EndCause, certain: bool, part: &str) {
    assert_eq!((end.cause, end.certain), (Some(cause), certain), "{end:?}");
    assert!(end.sentence.contains(part), "{part:?} is not in {}", end.sentence);
}

fn name(folder: &Scratch) -> &str {
    folder.folder().to_str().expect("UTF-8")
}

/// The text that is made of the session's recording.
fn text(done: &Done) -> String {
    let recording = done.scratch.path("session.vma");
    let done = Session::vmaudit(&["report".into(), recording.into_os_string()]).go().succeeded();
    String::from_utf8(done.stdout).expect("text").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_stack_that_reached_its_limit_is_the_cause() {
    let (done, end) = ends(&["stack"], libc::SIGSEGV);
    // Without a look, where the stack ends is known to a page or two.
    assert_eq!(end.cause, Some(EndCause::StackLimit), "{end:?}");
    assert!(end.certain || !looks(), "{end:?}");
    assert!(end.sentence.contains("reached RLIMIT_STACK = 1 MiB"), "{}", end.sentence);
    assert_eq!(end.evidence["rlimit_stack_bytes"], MIB);
    assert!(end.evidence["stack_bytes"] <= MIB && end.evidence["stack_bytes"] > MIB / 2, "{end:?}");
    let text = text(&done);
    assert!(text.starts_with("vmaudit: workload (pid"), "{text}");
    assert!(text.contains("its stack reached RLIMIT_STACK"), "{text}");
}

#[test]
fn a_stack_in_whose_way_a_mapping_stands_found_no_room() {
    let (_, end) = ends(&["stack-no-room"], libc::SIGSEGV);
    is(&end, EndCause::StackNoRoom, looks(), "RLIMIT_STACK = 64 MiB was not reached");
}

#[test]
fn a_stack_that_the_address_space_limit_stopped_says_so() {
    let (_, end) = ends(&["stack-no-space"], libc::SIGSEGV);
    is(&end, EndCause::StackNoRoom, looks(), "RLIMIT_AS = ");
}

#[test]
fn the_overflow_of_a_threads_stack_is_not_the_limits() {
    let (_, end) = ends(&["thread-stack"], libc::SIGSEGV);
    is(&end, EndCause::Unknown, false, if looks() { "guard pages" } else { "could not be looked at" });
}

#[test]
fn a_null_pointer_has_no_memory_cause() {
    let (done, end) = ends(&["null"], libc::SIGSEGV);
    is(&end, EndCause::Unknown, false, "address 0x10, as a null pointer does");
    assert!(text(&done).contains(" failed. Largest process"), "{}", text(&done));
}

#[test]
fn abort_is_the_processs_own_doing() {
    let (_, end) = ends(&["abort"], libc::SIGABRT);
    is(&end, EndCause::KilledBy, true, "it sent that to itself, as abort() does");
}

#[test]
fn a_refused_call_just_before_an_end_is_told_with_it() {
    let done = Session::run(&[], &["dies", "abort"]).go().died_of(libc::SIGABRT);
    let report = done.report();
    let dead = report.processes.iter().find(|p| end(p).signal.is_some()).expect("one died");
    let sentence = &end(dead).sentence;
    assert!(sentence.contains("ms before, mmap failed with ENOMEM"), "{sentence}");
    assert!(sentence.contains("RLIMIT_AS"), "{sentence}");
}

#[test]
fn a_file_cut_under_its_mapping_is_too_short() {
    let folder = Scratch::new();
    let (_, end) = ends(&["file-cut", name(&folder)], libc::SIGBUS);
    if looks() {
        is(
            &end,
            EndCause::BusFileShort,
            true,
            &format!("beyond its end: byte {PAGE} of a file of {PAGE} bytes"),
        );
        assert_eq!((end.evidence["file_bytes"], end.evidence["offset_bytes"]), (PAGE, PAGE));
    } else {
        is(&end, EndCause::Unknown, false, "could not be looked at");
    }
}

#[test]
fn a_full_tmpfs_is_the_cause_of_a_bus_error() {
    let folder = Scratch::new();
    let (_, end) = ends(&["tmpfs", name(&folder)], libc::SIGBUS);
    if looks() {
        is(&end, EndCause::BusTmpfsFull, true, "is full (size 16 KiB)");
    } else {
        is(&end, EndCause::Unknown, false, "could not be looked at");
    }
}

#[test]
fn a_huge_page_that_is_not_to_be_had_is_the_cause_of_a_bus_error() {
    let huge = std::fs::read_to_string("/proc/meminfo").expect("it is readable");
    assert!(huge.contains("HugePages_Total"), "this kernel has no huge pages to test with");
    let (_, end) = ends(&["huge-page"], libc::SIGBUS);
    if looks() {
        is(&end, EndCause::BusHugetlb, true, "no huge page was free");
    } else {
        is(&end, EndCause::Unknown, false, "could not be looked at");
    }
}

#[test]
fn the_cpu_limits_are_told() {
    let (_, end) = ends(&["cpu-soft"], libc::SIGXCPU);
    is(&end, EndCause::CpuLimit, true, "1 second, soft");
    let (_, end) = ends(&["cpu-hard"], libc::SIGKILL);
    is(&end, EndCause::CpuLimit, true, "1 second, hard");
}

#[test]
fn whoever_sent_a_signal_is_named_and_the_parent_goes_on() {
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1] {
        let done = Session::run(&[], &["ends", "kill-child", &signal.to_string()]).go().succeeded();
        let report = done.report();
        let [parent, child] = by_birth(&report);
        assert_eq!((end(parent).code, end(parent).cause), (Some(0), None));
        is(end(child), EndCause::KilledBy, true, &format!("sent by workload (pid {})", parent.pid));
        assert_eq!(end(child).by.as_ref().map(|by| by.pid), Some(parent.pid));
        assert_eq!(report.session.exit.map(|exit| exit.code), Some(Some(0)));
        let text = text(&done);
        assert!(
            text.starts_with("vmaudit: No ") && text.contains(" failed. Largest process"),
            "its own parent's doing: {text}"
        );
        assert!(text.contains("Died of signals:"), "{text}");
    }
}

#[test]
fn a_stranger_who_kills_the_command_is_named() {
    let mut running = Session::run(&[], &["ends", "child", "sleep", "60"]).start();
    running.wait_for_stdout("sleeping");
    running.wait_for_stdout("child ");
    let said = String::from_utf8(running.stdout_so_far()).expect("text");
    let sleeper = said.lines().find_map(|line| line.strip_prefix("child ")?.parse::<u32>().ok());
    let sleeper = sleeper.expect("a number");
    // SAFETY: a signal to a process of this test.
    assert_eq!(unsafe { libc::kill(sleeper as i32, libc::SIGKILL) }, 0);
    let done = running.wait().succeeded();
    let report = done.report();
    let row = report.processes.iter().find(|p| p.pid == sleeper).expect("its row");
    is(end(row), EndCause::KilledBy, true, &format!("(pid {})", std::process::id()));
    let text = text(&done);
    assert!(
        text.starts_with(&format!("vmaudit: workload (pid {sleeper}) died of SIGKILL: sent by")),
        "{text}"
    );
}

#[test]
fn faults_that_a_process_handles_are_no_ends() {
    let (_, end) = ends(&["handled", "2000"], libc::SIGSEGV);
    is(&end, EndCause::Unknown, false, if looks() { "allows no access" } else { "could not be looked at" });
}

#[test]
fn a_process_is_named_as_what_it_was_at_its_end() {
    let folder = Scratch::new();
    let other = folder.path("other");
    std::fs::copy(vmaudit_tests::workload(), &other).expect("a program can be copied");
    let words = ["ends", "exec", other.to_str().expect("UTF-8"), "exit", "3"];
    let done = Session::run(&[], &words).go().ended_with(3);
    let whole = done.report().session.end.expect("the command ended");
    assert_eq!(
        (whole.name.as_str(), whole.sentence.as_str()),
        ("other (started as workload)", "ended with status 3")
    );
    let text = text(&done);
    assert!(text.contains("other (started as workload) ended with status 3"), "{text}");
}

#[test]
fn without_the_hook_on_signals_nobody_is_blamed() {
    let programs = ["signal_raw", "signal_plain_raw", "signal_classic"];
    let session = Session::run(&[], &["ends", "kill-child", "9"]).without(&programs);
    let report = session.go().succeeded().report();
    let [_, child] = by_birth(&report);
    is(end(child), EndCause::Unknown, false, "killed, by whom is unknown");
    assert_eq!(end(child).by, None);
}

#[test]
fn the_classic_event_names_the_sender_too() {
    let session =
        Session::run(&[], &["ends", "kill-child", "9"]).without(&["signal_raw", "signal_plain_raw"]);
    let report = session.go().succeeded().report();
    if !vmaudit_tests::has_lock_events() {
        return; // no substitute has this form
    }
    let [parent, child] = by_birth(&report);
    is(end(child), EndCause::KilledBy, true, &format!("(pid {})", parent.pid));
}

#[test]
fn in_proc_only_the_commands_own_end_is_seen() {
    let done = Session::run(&["--source", "proc"], &["kill-self", "9"]).go().died_of(9);
    let report = done.report();
    assert_eq!(report.source, SourceKind::Proc);
    for row in &report.processes {
        is(end(row), EndCause::Unknown, false, "cannot be seen in /proc");
    }
    let whole = report.session.end.expect("the command ended");
    assert!(whole.sentence.starts_with("died of SIGKILL"), "{}", whole.sentence);
}

#[test]
fn a_killed_process_breaks_the_budget_and_all_others_do_not() {
    let killed = ["--fail-on", "killed"];
    let done = Session::run(&killed, &["ends", "kill-child", "9"]).go().ended_with(86);
    let breach = done.report().session.breach.expect("it is broken");
    assert!(breach.contains("died of SIGKILL"), "{breach}");
    Session::run(&killed, &["children", "20"]).go().succeeded();
    Session::run(&killed, &["ends", "child", "exit", "3"]).go().succeeded();
    let done = Session::run(&["--fail-on", "killed", "--source", "proc"], &["exit", "0"]).go().ended_with(86);
    assert!(done.report().session.breach.expect("broken").contains("not shown to hold"));
}

#[test]
fn every_end_of_many_is_told() {
    let n = 300;
    let report = Session::run(&[], &["children", &n.to_string(), "killed"]).go().succeeded().report();
    let killed = report.processes.iter().filter(|p| end(p).signal == Some(libc::SIGKILL)).count();
    assert_eq!(killed, n, "of {}", report.processes.len());
    for row in report.processes.iter().filter(|p| end(p).signal.is_some()) {
        assert_eq!(end(row).cause, Some(EndCause::KilledBy), "{row:?}");
    }
}

/// Parent and child.
#[track_caller]
fn by_birth(report: &Report) -> [&Process; 2] {
    let mut rows: Vec<&Process> = report.processes.iter().collect();
    rows.sort_by(|a, b| a.started_s.partial_cmp(&b.started_s).expect("times"));
    rows.try_into().unwrap_or_else(|rows| panic!("two processes: {rows:?}"))
}

/// Many a container lets nobody make a cgroup.
mod guest_only {
    use super::*;

    const LIMIT: u64 = 32 * MIB;

    /// A memory cgroup with a limit, and one without in it; removed at the end.
    struct Cgroups {
        limited: PathBuf,
        /// Version 1.
        old: bool,
    }

    impl Cgroups {
        fn new(name: &str, limit: Option<u64>) -> std::io::Result<Self> {
            let own = std::fs::read_to_string("/proc/self/cgroup")?;
            let controlled = own.lines().find_map(|line| line.split_once(":memory:"));
            let parent = match controlled {
                Some((_, path)) => format!("/sys/fs/cgroup/memory{path}"),
                None => {
                    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
                    "/sys/fs/cgroup".to_owned()
                }
            };
            let limited = Path::new(&parent).join(format!("vmaudit-{name}-{}", std::process::id()));
            let made = Self { limited, old: controlled.is_some() };
            std::fs::create_dir(&made.limited)?;
            if let Some(limit) = limit {
                let file = if made.old { "memory.limit_in_bytes" } else { "memory.max" };
                std::fs::write(made.limited.join(file), limit.to_string())?;
            }
            if !made.old {
                std::fs::write(made.limited.join("cgroup.subtree_control"), "+memory")?;
            }
            std::fs::create_dir(made.inner())?;
            Ok(made)
        }

        fn inner(&self) -> PathBuf {
            self.limited.join("inner")
        }
    }

    impl Drop for Cgroups {
        fn drop(&mut self) {
            // Who was in it leaves a moment later.
            for folder in [self.inner(), self.limited.clone()] {
                for _ in 0..100 {
                    if std::fs::remove_dir(&folder).is_ok() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    #[test]
    fn the_cgroup_whose_limit_was_reached_is_named() {
        vmaudit_tests::assert_guest();
        let cgroups = Cgroups::new("oom", Some(LIMIT)).expect("cgroups can be made");
        let inner = cgroups.inner().display().to_string();
        let done = Session::run(&[], &["ends", "child", "ends", "cgroup", &inner]).go().succeeded();
        let report = done.report();
        let [parent, child] = by_birth(&report);
        assert_eq!(end(parent).code, Some(0));
        let end = end(child);
        is(end, EndCause::OomCgroup, true, "the OOM killer chose it");
        let name = cgroups.limited.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(end.cgroup.as_ref().is_some_and(|path| path.ends_with(&name)), "{end:?}");
        assert_eq!((end.evidence["limit_bytes"], end.signal), (LIMIT, Some(9)), "{end:?}");
        assert!(end.evidence["oom_kill"] >= 1 || cgroups.old, "{end:?}");
        let text = text(&done);
        assert!(text.contains("= 32 MiB") && text.contains("SIGKILL, OOM"), "{text}");
    }

    /// The command itself, which joins the cgroup and is killed.
    #[test]
    fn a_command_that_its_cgroup_killed_is_told_with_the_cgroup() {
        vmaudit_tests::assert_guest();
        let cgroups = Cgroups::new("command", Some(LIMIT)).expect("cgroups can be made");
        let inner = cgroups.inner().display().to_string();
        let (_, end) = ends(&["cgroup", &inner], libc::SIGKILL);
        is(&end, EndCause::OomCgroup, true, "the OOM killer chose it");
        let name = cgroups.limited.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(end.cgroup.as_ref().is_some_and(|path| path.ends_with(&name)), "{end:?}");
        assert_eq!(end.evidence["limit_bytes"], LIMIT);
    }

    /// Its cgroup is taken away as soon as it has died, and vmaudit is stopped until then.
    #[test]
    fn a_cgroup_that_is_gone_is_named() {
        vmaudit_tests::assert_guest();
        for n in 0..5 {
            let cgroups = Cgroups::new(&format!("gone-{n}"), Some(LIMIT)).expect("cgroups can be made");
            let inner = cgroups.inner().display().to_string();
            let done = Session::run(&[], &["ends", "cgroup-gone", &inner]).go().succeeded();
            let report = done.report();
            let killed = report.processes.iter().find(|row| end(row).signal == Some(9)).expect("one died");
            let end = end(killed);
            // From 6.11 on a kernel without version 1 does not mark the cgroup, and its counters are gone.
            let marked = vmaudit_tests::kernel_version() < (6, 11) || end.certain;
            is(end, EndCause::OomCgroup, marked, "the OOM killer chose it");
            assert_ne!(end.certain, end.sentence.contains("(probably"), "{end:?}");
            let name = cgroups.limited.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(end.cgroup.as_ref().is_some_and(|path| path.ends_with(&name)), "{end:?}");
            assert_eq!((end.evidence["limit_bytes"], end.evidence.get("oom_kill")), (LIMIT, None), "{end:?}");
        }
    }

    /// The whole machine runs out of memory, and no cgroup does.
    #[test]
    fn the_machines_own_shortage_is_told_from_a_cgroups() {
        vmaudit_tests::assert_guest();
        let cgroups = Cgroups::new("global", None).expect("cgroups can be made");
        let inner = cgroups.inner().display().to_string();
        let memory = std::fs::read_to_string("/proc/meminfo").expect("it is readable");
        let total = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse::<u64>().ok());
        assert!(total.expect("MemTotal") < 4 << 20, "too much memory to fill");
        let done = Session::run(&[], &["ends", "child", "ends", "cgroup", &inner]).go().succeeded();
        let report = done.report();
        let [_, child] = by_birth(&report);
        is(end(child), EndCause::OomGlobal, true, "the machine ran out of memory");
    }
}
