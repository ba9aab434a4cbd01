//! Which of several limits it was, where they share an errno.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::Mutex;

use vmaudit_tests::rows::{ASKED, assert_nothing_lost};
use vmaudit_tests::{Done, Running, Session, wait_for};
use vmaudit_user::model::report::{Cause, Failure};

/// The only group of failures, which must be all that the workload knows of, for the cause that it names.
#[track_caller]
fn only_failure(done: &Done) -> Failure {
    let (own, report) = (done.own(), done.report());
    assert_nothing_lost(&report);
    let [own] = own.as_slice() else { panic!("{own:?}") };
    let ([refused], [failure]) = (own.refused.as_slice(), report.failures.as_slice()) else {
        panic!("{:?} {:?}", own.refused, report.failures)
    };
    assert_eq!(
        (failure.syscall.as_str(), failure.errno.as_str(), failure.cause.name(), failure.count, failure.pid),
        (refused.syscall.as_str(), refused.errno.as_str(), refused.cause.as_str(), refused.count, own.pid),
        "{failure:?}"
    );
    failure.clone()
}

#[test]
fn the_users_limit_on_tasks_is_named_with_its_figures() {
    let done = Session::run(&["--calls", "all"], &["causes", "tasks"]).go().succeeded();
    let failure = only_failure(&done);
    assert!(failure.certain, "{failure:?}");
    assert_eq!(failure.evidence.get("rlimit_nproc"), Some(&0), "{failure:?}");
    for figure in ["user_tasks", "threads_max", "pid_max", "pids"] {
        assert!(failure.evidence.contains_key(figure), "{figure}: {failure:?}");
    }
    assert!(failure.evidence["threads_max"] > failure.evidence["pids"], "{failure:?}");
    assert!(failure.sentence.contains("RLIMIT_NPROC allows 0. Beside it: kernel.threads-max"), "{failure:?}");
    assert!(failure.cure.as_deref().is_some_and(|cure| cure.contains("LimitNPROC=")), "{failure:?}");
}

#[test]
fn a_user_who_has_as_many_tasks_as_allowed_is_counted() {
    let _alone = ITS_USER.lock();
    let done = Session::run(&["--calls", "all"], &["full-of-tasks", "user", "12", "3"]).go().succeeded();
    let failure = only_failure(&done);
    assert!(failure.certain, "{failure:?}");
    assert_eq!((failure.evidence["user_tasks"], failure.evidence["rlimit_nproc"]), (12, 12), "{failure:?}");
    assert!(failure.sentence.contains("its user had 12 tasks, and RLIMIT_NPROC allows 12"), "{failure:?}");
}

#[test]
fn a_pid_namespace_that_has_ended_is_named() {
    // Seen by the cheap arrangement too: the parent's mappings are copied before.
    let failure = only_failure(&Session::run(&[], &["dead-namespace", "3"]).go().succeeded());
    assert_eq!((failure.cause, failure.count), (Cause::PidNamespaceEnded, 3));
    assert!(failure.certain, "{failure:?}");
    assert!(failure.cure.as_deref().is_some_and(|cure| cure.contains("unshare --pid --fork")), "{failure:?}");
}

/// A sanitizer's shadow and a small fixed range that must be free: no look at what they replace is needed.
#[test]
fn fixed_ranges_of_their_own_size_are_certain() {
    let done = Session::run(&[], &["causes", "fixed-over-as", "4"]).go().succeeded();
    let failure = only_failure(&done);
    assert!(failure.certain, "{failure:?}");
}

#[test]
fn locks_at_brk_and_at_mmap_have_one_cause() {
    let done = Session::run(&[], &["causes", "future-locks", "3"]).go().succeeded();
    let report = done.report();
    let of =
        |call: &str| report.failures.iter().find(|failure| failure.syscall == call).expect("it was refused");
    for (call, errno) in [("brk", "ENOMEM"), ("mmap", "EAGAIN")] {
        let failure = of(call);
        assert_eq!((failure.cause, failure.errno.as_str()), (Cause::RlimitMemlock, errno), "{failure:?}");
        // Up to 5.19 brk looks at what lies above the heap before.
        let ordered = call == "mmap" || vmaudit_tests::kernel_version() >= (6, 1);
        assert_eq!(failure.certain, ordered, "{failure:?}");
    }
    assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
}

/// No example speaks for calls of another cause.
#[test]
fn two_causes_of_one_call_are_told_apart() {
    let report = Session::run(&[], &["causes", "two-of-brk", "5"]).go().succeeded().report();
    let mut found: Vec<_> =
        report.failures.iter().map(|it| (it.syscall.as_str(), it.cause, it.count)).collect();
    found.sort();
    assert_eq!(
        found,
        [("brk", Cause::Overcommit, 1), ("brk", Cause::NoAddressRange, 5)],
        "{:?}",
        report.failures
    );
}

#[test]
fn who_holds_the_addresses_is_said_where_there_are_none_left() {
    let report = Session::run(&[], &["--linger", "1000", "causes", "no-hole", "3"]).go().succeeded().report();
    let failure =
        report.failures.iter().chain(&report.ordinary_answers).find(|failure| failure.syscall == "mmap");
    let failure = failure.expect("mmap was refused");
    assert_eq!(failure.cause, Cause::NoAddressRange, "{failure:?}");
    let (used, all) = (failure.evidence["used_bytes"], failure.evidence["addresses_bytes"]);
    assert!(used > all / 2 && used < all, "{used} of {all}");
    let holders = failure.holders.as_ref().expect("the process lived long enough to be looked at");
    assert!(holders.by_size && holders.sentence.contains("reservation"), "{holders:?}");
    assert!(holders.sentence.contains(" TiB of addresses, "), "{holders:?}");
}

/// The limit counts the tasks of a user, whichever test they are of.
static ITS_USER: Mutex<()> = Mutex::new(());

/// vmaudit itself is under the limit, too: what watches the exits is then loaded before the command starts.
fn limited_to_tasks(session: Session, most: libc::rlim_t) -> Running {
    let mut command = session.command();
    command.stdin(Stdio::piped());
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: one system call, with a limit that lives through it.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    session.start_as(&mut command)
}

/// Programs that are attached somewhere, of a process.
fn attached(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    names
        .filter(|name| ["bpf_link", "perf_event"].iter().any(|kind| name.to_string_lossy().contains(kind)))
        .count()
}

/// A refused thread or process lets no lock go, so nobody asks for the answer: the exits of calls are watched from when a limit
/// is near. Where the limit was faster, that is said.
#[test]
fn a_limit_on_tasks_that_comes_near_is_watched() {
    let _alone = ITS_USER.lock();
    let row = |done: &Done| {
        let hooks = done.report().coverage.hooks;
        hooks.into_iter().find(|hook| hook.name == "sys_exit").expect("it is in the table")
    };
    // There is no room for what user space has to do.
    let done =
        limited_to_tasks(Session::run(&[], &["full-of-tasks", "user", "12", "3"]), 700).wait().succeeded();
    let (hook, coverage) = (row(&done), done.report().coverage);
    let via = hook.via.clone().unwrap_or_default();
    let late = hook.loses.as_deref().is_some_and(|loses| loses.contains("was reached before"));
    assert!(!via.starts_with("task_work") || via.contains('+') || late, "{hook:?}");
    assert!(!late || !coverage.exact_locking_calls, "{coverage:?}");
    // There is, and it has the time.
    let words = ["full-of-tasks", "user", "700", "3", "1", "600"];
    let mut running = limited_to_tasks(Session::run(&[], &words), 700);
    running.wait_for_stderr("children 1\n");
    let before = attached(running.pid());
    assert!(running.write(b"\n"));
    running.wait_for_stderr("children 600\n");
    if via.starts_with("task_work") {
        wait_for("the exits of calls to be watched", || (attached(running.pid()) > before).then_some(()));
    }
    assert!(running.write(b"\n"));
    let done = running.wait().succeeded();
    assert!(!via.starts_with("task_work") || row(&done).via.is_some_and(|via| via.contains('+')));
    let coverage = done.report().coverage;
    // From 7.0 on its program may be preempted, and then skipped.
    if vmaudit_tests::preempts_programs() && coverage.lost["program_skipped"] > 0 {
        assert!(!coverage.exact_locking_calls, "{coverage:?}");
        let failures = done.report().failures;
        let count: u64 = failures.iter().map(|failure| failure.count).sum();
        assert!(count <= 3 && count + coverage.lost["program_skipped"] >= 3, "{failures:?} {coverage:?}");
        let other = |failure: &Failure| failure.certain && failure.cause != Cause::RlimitNproc;
        assert!(!failures.iter().any(other), "{failures:?}");
        return;
    }
    let failure = only_failure(&done);
    assert_eq!((failure.count, failure.cause, failure.certain), (3, Cause::RlimitNproc, true), "{failure:?}");
    assert!(coverage.exact_locking_calls, "{:?}", row(&done));
}

/// What cannot be watched although a limit is near is said, and no count of refusals is called exact.
#[test]
fn a_limit_that_comes_near_and_cannot_be_watched_is_told() {
    let _alone = ITS_USER.lock();
    let session = Session::run(&[], &["full-of-tasks", "user", "700", "3", "1", "600"]);
    let mut running = limited_to_tasks(session.env("VMAUDIT_WITHOUT", "watching"), 700);
    for children in [1, 600] {
        running.wait_for_stderr(&format!("children {children}\n"));
        assert!(running.write(b"\n"));
    }
    let coverage = running.wait().succeeded().report().coverage;
    let hook = coverage.hooks.iter().find(|hook| hook.name == "sys_exit").expect("it is in the table");
    let asked = hook.via.as_deref() == Some(ASKED);
    assert_eq!(asked, vmaudit_tests::answers_can_be_asked_for(), "{hook:?}");
    if asked {
        let loses = hook.loses.as_deref().unwrap_or_default();
        assert!(loses.contains("could not be watched: left out on request"), "{hook:?}");
        assert!(!coverage.exact_locking_calls, "{coverage:?}");
    }
}

/// Not Met by what was seen: the certain part stands in the headline all the same.
#[test]
fn a_headline_keeps_its_certain_part() {
    let done = Session::vmaudit(&["run", "--"]).then_workload(&["causes", "rlimit-as", "3"]).go().succeeded();
    let said = done.said().replace("\n  ", " ");
    assert!(said.contains(": the address space limit RLIMIT_AS. Not vm.max_map_count."), "{said}");
    let uncertain = said.contains(" 3 of them (brk) are not certain.");
    assert_eq!(uncertain, !vmaudit_tests::has_kprobes() || !vmaudit_tests::has_lock_events(), "{said}");
}

mod guest_only {
    use super::*;
    use std::fs;

    /// A file of the kernel's with another number for a while.
    struct Setting(&'static str, String);

    impl Setting {
        fn put(file: &'static str, value: u64) -> Self {
            vmaudit_tests::assert_guest();
            let before = fs::read_to_string(file).expect("the setting is readable");
            fs::write(file, value.to_string()).expect("the VM's setting can be changed");
            Self(file, before)
        }
    }

    impl Drop for Setting {
        fn drop(&mut self) {
            let _ = fs::write(self.0, &self.1);
        }
    }

    /// Tasks of the machine.
    fn tasks() -> u64 {
        let text = fs::read_to_string("/proc/loadavg").expect("loadavg is readable");
        let figures = text.split_ascii_whitespace().nth(3).and_then(|both| both.split_once('/'));
        figures.and_then(|(_, all)| all.parse().ok()).expect("a number of tasks")
    }

    #[test]
    fn the_machines_limit_on_tasks_is_named() {
        let most = tasks() + 100;
        let _setting = Setting::put("/proc/sys/kernel/threads-max", most);
        let done = Session::run(&["--calls", "all"], &["full-of-tasks", "machine", "3"]).go().succeeded();
        let failure = only_failure(&done);
        assert!(failure.certain, "{failure:?}");
        assert_eq!(failure.evidence["threads_max"], most, "{failure:?}");
        assert!(failure.sentence.contains("RLIMIT_NPROC does not bind it"), "{failure:?}");
    }

    #[test]
    fn the_limit_on_process_numbers_is_named() {
        let _setting = Setting::put("/proc/sys/kernel/pid_max", 1024);
        let done = Session::run(&["--calls", "all"], &["full-of-tasks", "numbers", "3"]).go().succeeded();
        let failure = only_failure(&done);
        assert!(failure.certain, "{failure:?}");
        assert_eq!(failure.evidence["pid_max"], 1024, "{failure:?}");
    }

    #[test]
    fn a_process_too_large_to_be_copied_is_told_what_was_missing() {
        let _setting = Setting::put("/proc/sys/vm/overcommit_memory", 2);
        let done = Session::run(&[], &["--linger", "1000", "too-large-to-copy", "3"]).go().succeeded();
        let failure = only_failure(&done);
        let figure = |name: &str| failure.evidence[name];
        assert!(
            figure("committed_bytes") + figure("asked_bytes") > figure("commit_limit_bytes"),
            "{failure:?}"
        );
        assert!(figure("missing_bytes") > 0, "{failure:?}");
        assert!(failure.sentence.contains("a copy of all private writable memory, "), "{failure:?}");
        assert!(
            failure.cure.as_deref().is_some_and(|cure| cure.contains("vm.overcommit_memory to 1")),
            "{failure:?}"
        );
    }

    /// The limit is one cgroup up: the one with the limit is named, not the one with the process.
    #[test]
    fn a_cgroups_limit_on_tasks_is_named_with_the_cgroup() {
        vmaudit_tests::assert_guest();
        let old = fs::metadata("/sys/fs/cgroup/pids").is_ok();
        let root = if old { "/sys/fs/cgroup/pids" } else { "/sys/fs/cgroup" };
        let (outer, inner) = (format!("{root}/outer"), format!("{root}/outer/inner"));
        if !old {
            fs::write(format!("{root}/cgroup.subtree_control"), "+pids").expect("pids can be controlled");
        }
        fs::create_dir(&outer).expect("a cgroup can be made");
        fs::create_dir(&inner).expect("a cgroup can be made");
        fs::write(format!("{outer}/pids.max"), "30").expect("its limit can be set");
        let done =
            Session::run(&["--calls", "all"], &["--linger", "1000", "full-of-tasks", "cgroup", &inner, "3"])
                .go()
                .succeeded();
        let failure = only_failure(&done);
        wait_for("the cgroup to be empty", || fs::remove_dir(&inner).ok());
        fs::remove_dir(&outer).expect("it is empty");
        assert!(failure.certain, "{failure:?}");
        assert_eq!((failure.evidence["cgroup_tasks"], failure.evidence["pids_max"]), (30, 30), "{failure:?}");
        assert!(failure.sentence.contains("the cgroup /outer had 30 tasks"), "{failure:?}");
        assert!(failure.cure.as_deref().is_some_and(|cure| cure.contains("/outer")), "{failure:?}");
    }
}
