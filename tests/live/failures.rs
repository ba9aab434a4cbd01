//! Refused calls: how many, which call, which errno, why.

use vmaudit_tests::own::Refused;
use vmaudit_tests::rows::{assert_left, assert_nothing_lost};
use vmaudit_tests::{LowerLimit, PAGE, Session, max_map_count};
use vmaudit_user::model::report::{Action, Cause, Failure, Hook, HookState, Moment, Report};

/// Groups as the workload counts them; groups that differ in nothing it knows are added up.
fn groups<'a>(failures: impl Iterator<Item = &'a Failure>, with_cause: bool) -> Vec<Refused> {
    let mut sums: Vec<Refused> = Vec::new();
    for f in failures {
        let cause = if with_cause { f.cause.name().to_owned() } else { String::new() };
        match sums.iter_mut().find(|s| s.syscall == f.syscall && s.errno == f.errno && s.cause == cause) {
            Some(sum) => sum.count += f.count,
            None => {
                let (syscall, errno) = (f.syscall.clone(), f.errno.clone());
                sums.push(Refused { syscall, errno, cause, count: f.count });
            }
        }
    }
    sums.sort();
    sums
}

fn sorted(mut refused: Vec<Refused>) -> Vec<Refused> {
    refused.sort();
    refused
}

#[test]
fn the_stackoverflow_program_is_explained_to_the_last_byte() {
    let done = Session::run(&[], &["stackoverflow"]).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    vmaudit_tests::rows::assert_exact(&row, &own);
    assert_nothing_lost(&report);
    let refused = &own.refused[0];
    assert!(refused.count > 0, "the limit was not reached: {own:?}");
    assert_eq!(row.calls["munmap"].failed, Some(refused.count));
    assert_left(&row, &own);
    assert!(row.map_count.clipped);
    assert_eq!(groups(report.failures.iter(), true), own.refused);
    let failure = &report.failures[0];
    assert_eq!((failure.cause, failure.certain), (Cause::MaxMapCount, true));
    assert_eq!(failure.evidence["max_map_count"], max_map_count());
    assert_eq!(failure.evidence["map_count"], max_map_count());
    assert!(failure.sentence.contains("munmap"), "{}", failure.sentence);
    let example = failure.example.as_ref().expect("an example arrived");
    assert_eq!(example.tid, row.pid);
    assert_eq!(example.args["len"], PAGE);
    assert_eq!(report.recommendation.action, Action::RaiseAndRerun);
    assert!(report.recommendation.value > Some(max_map_count()), "{:?}", report.recommendation);
}

/// Options for what takes no lock when it is refused: then all calls have to be watched.
fn all_calls_for(case: &str) -> &'static [&'static str] {
    let unlocked = ["mremap-fixed", "mremap-dontunmap"].contains(&case) && mremap_checks_unlocked();
    if unlocked || ["tasks", "wrap"].contains(&case) { &["--calls", "all"] } else { &[] }
}

/// mremap to an address looks at the count before it takes the lock (mm/mremap.c:check_mremap_params).
fn mremap_checks_unlocked() -> bool {
    ((6, 17)..(7, 1)).contains(&vmaudit_tests::kernel_version())
}

/// Is the cause proved? For brk only where the kernel lets us listen to the function behind its first checks, for calls
/// that are judged by the mappings in their range only where these can be looked at.
fn certain(report: &Report, failure: &Failure) -> bool {
    const LOOKED_AT: [&str; 6] =
        ["mprotect", "pkey_mprotect", "mlock", "munlock", "mremap", "remap_file_pages"];
    match failure.syscall.as_str() {
        // What a driver thinks is not seen.
        _ if failure.cause == Cause::Driver => false,
        // That nothing is in the heap's way the probe shows; what is, nobody looks at.
        "brk" if failure.cause == Cause::NoAddressRange => false,
        "brk" => hook(report, "do_brk_flags") == HookState::Attached,
        // Before 5.17 a refused split is ENOMEM as well, which a gap in the range also is.
        "madvise" if failure.errno == "ENOMEM" => looks(report),
        call if LOOKED_AT.contains(&call) => looks(report),
        _ => true,
    }
}

/// From 6.4 on the kernel counts write sections, and then ranges are looked at.
fn looks(report: &Report) -> bool {
    let mut numbers = report.host.kernel.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(4))
}

/// One call from some VMAs below the limit to one above it: what the kernel refused is what the report counts, and the
/// limit is named, with certainty where [`certain`] says so.
#[track_caller]
fn at_the_limit(case: &str) {
    // One case stays at the limit that users have, as do the programs of other tests.
    let _lower = (case != "munmap").then(LowerLimit::new);
    let done = Session::run(all_calls_for(case), &["limit", case]).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    // From 7.1 on mremap wants VMAs free for a call that changes nothing, too (mm/mremap.c:
    // check_map_count_against_split_early).
    if case == "mremap-same" && vmaudit_tests::kernel_version() < (7, 1) {
        assert!(own.refused.is_empty() && report.failures.is_empty(), "{own:?} {:?}", report.failures);
        return;
    }
    assert!(!own.refused.is_empty(), "{case} was never refused, so nothing was tested");
    let (mremap, newer) = (case.starts_with("mremap-"), (6, 15)..=(6, 16));
    // Whether these two looked before they took the lock is not known of every release.
    let order_unknown = ["mremap-fixed", "mremap-dontunmap"].contains(&case)
        && newer.contains(&vmaudit_tests::kernel_version());
    vmaudit_tests::rows::assert_exact(&row, &own);
    assert_nothing_lost(&report);
    assert_eq!(groups(report.failures.iter(), true), sorted(own.refused.clone()), "{:?}", report.failures);
    assert!(report.ordinary_answers.is_empty(), "{:?}", report.ordinary_answers);
    for failure in &report.failures {
        assert!(failure.certain || order_unknown || !certain(&report, failure), "{failure:?}");
        assert!(failure.certain || failure.sentence.contains("Not certain"), "{failure:?}");
        assert_eq!(failure.pid, own.pid);
        assert_eq!(failure.evidence["max_map_count"], max_map_count(), "{failure:?}");
        // Refused without the lock (6.17 to 7.0, mm/mremap.c:check_mremap_params), so no count was read for it.
        let unlocked = ["mremap-fixed", "mremap-dontunmap"].contains(&case)
            && ((6, 17)..(7, 1)).contains(&vmaudit_tests::kernel_version());
        let Some(&count) = failure.evidence.get("map_count") else {
            assert!(unlocked || order_unknown, "{failure:?}");
            continue;
        };
        let below = if mremap { 7 } else { 1 };
        assert!((max_map_count() - below..=max_map_count() + 1).contains(&count), "{failure:?}");
    }
    for refused in &own.refused {
        assert_eq!(row.calls[&refused.syscall].failed, Some(refused.count), "{row:?}");
    }
    assert_left(&row, &own);
    assert!(row.map_count.clipped);
    assert_eq!(report.recommendation.action, Action::RaiseAndRerun);
}

/// Does the sentence speak of the cause?
fn mentions(sentence: &str, cause: &str) -> bool {
    let words: &[&str] = match cause {
        "rlimit_as" => &["RLIMIT_AS"],
        "rlimit_data" => &["RLIMIT_DATA"],
        "rlimit_memlock" => &["RLIMIT_MEMLOCK"],
        "overcommit" => &["overcommit", "RAM and swap"],
        "no_address_range" => &["address range", "in the heap's way"],
        "range_not_mapped" => &["gap", "not mapped"],
        "beyond_end_of_file" => &["end of its file", "end of the file"],
        "invalid_range" => &["past the last address"],
        "driver" => &["driver"],
        "hugetlb" => &["huge page"],
        "rlimit_nproc" => &["RLIMIT_NPROC"],
        other => panic!("no words for {other}"),
    };
    words.iter().any(|word| sentence.contains(word))
}

/// Another reason, provoked alone. The limit must not be blamed. The verdict names the provoked cause; where the
/// kernel's state does not tell it from others it is not certain, and the sentence speaks of it.
#[track_caller]
fn for_another_reason(kind: &str) -> Report {
    let done = Session::run(all_calls_for(kind), &["causes", kind]).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    assert_nothing_lost(&report);
    let seen = || report.failures.iter().chain(&report.ordinary_answers);
    let mut expected: Vec<Refused> = Vec::new();
    for mut refused in own.refused.clone() {
        refused.cause.clear();
        match expected.iter_mut().find(|e| e.syscall == refused.syscall && e.errno == refused.errno) {
            Some(sum) => sum.count += refused.count,
            None => expected.push(refused),
        }
    }
    assert_eq!(groups(seen(), false), sorted(expected), "{:?}", seen().collect::<Vec<_>>());
    for failure in seen() {
        let provoked =
            own.refused.iter().filter(|r| r.syscall == failure.syscall && r.errno == failure.errno);
        let causes: Vec<&str> = provoked.map(|r| r.cause.as_str()).collect();
        let named = causes.contains(&failure.cause.name());
        let mentioned = !failure.certain && causes.iter().any(|cause| mentions(&failure.sentence, cause));
        assert!(named || mentioned, "{kind}: {failure:?}");
        assert!(failure.certain || !certain(&report, failure), "{kind}: {failure:?}");
        assert_ne!(failure.cause, Cause::MaxMapCount, "{kind}: {failure:?}");
    }
    assert!(!row.map_count.clipped, "{row:?}");
    assert_ne!(report.recommendation.action, Action::RaiseAndRerun, "{:?}", report.recommendation);
    report
}

macro_rules! cases {
    ($of:ident: $($(#[$when:meta])? $name:ident $case:literal,)*) => {
        mod $of {
            $($(#[$when])?
            #[test]
            fn $name() {
                super::$of($case);
            })*
            pub const CASES: &[&str] = &[$($case),*];
        }
    };
}

cases! { at_the_limit:
    mmap "mmap",
    mmap_over_the_middle_of_another "mmap-fixed",
    munmap_of_the_middle "munmap",
    mprotect_of_the_middle "mprotect",
    // arm64 has the call from 6.12 on.
    #[cfg(target_arch = "x86_64")]
    pkey_mprotect_of_the_middle "pkey_mprotect",
    madvise_of_the_middle "madvise",
    mbind_of_the_middle "mbind",
    mlock_of_the_middle "mlock",
    mremap_that_must_move "mremap-move",
    mremap_that_leaves_a_hole "mremap-shrink",
    mremap_to_an_address "mremap-fixed",
    mremap_that_keeps_the_old_range "mremap-dontunmap",
    mremap_that_changes_nothing "mremap-same",
    brk "brk",
    shmat "shmat",
    io_setup "io_setup",
    remap_file_pages "remap_file_pages",
}

cases! { for_another_reason:
    rlimit_as "rlimit-as",
    rlimit_data "rlimit-data",
    rlimit_memlock_as_nobody "rlimit-memlock",
    overcommit_of_more_than_there_is "overcommit",
    longer_than_any_address_space "too-long",
    no_hole_of_that_size "no-hole",
    #[cfg(target_arch = "x86_64")]
    no_hole_below_2_gib "no-hole-32bit",
    a_gap_in_the_range "gap",
    no_huge_pages "hugetlb",
    mremap_that_may_not_move "blocked-mremap",
    brk_as_a_question "brk-query",
    no_more_tasks "tasks",
    locks_of_what_comes "future-locks",
    fixed_ranges_over_rlimit_as "fixed-over-as",
    no_huge_pages_for_a_file "hugetlb-file",
    lengths_that_wrap "wrap",
    a_range_beyond_all_addresses "beyond-addresses",
    a_range_beyond_the_end_of_its_file "file-end",
    a_device_that_maps_nothing "driver",
    two_causes_of_brk "two-of-brk",
}

/// Refusals near the limit, all of `call`: their number is the workload's own.
#[track_caller]
fn near(name: &str, n: &str) -> (Report, Vec<Failure>) {
    let (report, failures) = near_with_threads(name, n);
    assert_nothing_lost(&report);
    (report, failures)
}

/// The same, where threads may keep the peaks from being exact.
#[track_caller]
fn near_with_threads(name: &str, n: &str) -> (Report, Vec<Failure>) {
    let _lower = LowerLimit::new();
    let done = Session::run(&[], &["near", name, n]).go().succeeded();
    let (own, _) = done.only();
    let report = done.report();
    let total: u64 = report.failures.iter().map(|failure| failure.count).sum();
    assert_eq!(total, own.refused.iter().map(|refused| refused.count).sum::<u64>(), "{:?}", report.failures);
    let failures = report.failures.clone();
    (report, failures)
}

#[test]
fn above_the_limit_an_exhausted_rlimit_as_is_not_blamed() {
    let (_, failures) = near("limit-and-rlimit-as", "3");
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!((failure.cause, failure.certain), (Cause::MaxMapCount, true), "{failure:?}");
}

#[test]
fn a_gap_behind_a_refused_split_is_named_beside_it() {
    let (_, failures) = near("limit-and-gap-behind", "3");
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    assert!(!failure.certain, "{failure:?}");
    assert!(failure.sentence.contains("vm.max_map_count"), "{failure:?}");
    assert!(mentions(&failure.sentence, "range_not_mapped"), "{failure:?}");
}

#[test]
fn at_the_limit_a_gap_where_nothing_is_split_is_a_gap() {
    let (report, failures) = near("gap-at-the-limit", "3");
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    if looks(&report) {
        assert_eq!((failure.cause, failure.certain), (Cause::RangeNotMapped, true), "{failure:?}");
    } else {
        assert!(!failure.certain && mentions(&failure.sentence, "range_not_mapped"), "{failure:?}");
        return;
    }
    // Where a refusal at the limit may pass unseen, another run is asked for.
    let late = report
        .call_exit()
        .and_then(|hook| hook.loses.as_deref())
        .is_some_and(|loses| loses.contains("vm.max_map_count was reached before"));
    let seen = report.coverage.exact_calls || !mremap_checks_unlocked() || !late;
    assert_eq!(report.recommendation.action == Action::RaiseAndRerun, !seen);
}

/// The count that refused a call is gone before the call returns, because another thread unmaps.
#[test]
fn a_cause_that_vanishes_before_the_call_returns_is_still_the_cause() {
    if !vmaudit_tests::has_lock_events() {
        // Nothing was read under the lock: every refusal is counted, no cause is called certain.
        let (report, failures) = near_with_threads("race", "3000");
        assert!(!report.coverage.exact_peaks && !failures.is_empty(), "{:?}", report.coverage);
        for failure in &failures {
            assert!(!failure.certain && failure.sentence.contains("vm.max_map_count"), "{failure:?}");
        }
        return;
    }
    let (_, failures) = near("race", "3000");
    // Its thread asks again and again: what it got after all is recovered.
    assert!((1..=2).contains(&failures.len()), "{failures:?}");
    for failure in &failures {
        assert_eq!((failure.cause, failure.certain), (Cause::MaxMapCount, true), "{failure:?}");
        assert_eq!(failure.evidence["map_count"], failure.evidence["max_map_count"] + 1);
    }
}

#[test]
fn who_holds_the_vmas_is_said_to_a_thread_that_got_no_stack() {
    let report = Session::run(&[], &["--linger", "1500", "stacks", "2"]).go().succeeded().report();
    let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
    assert_eq!((failure.cause, failure.certain, failure.count), (Cause::MaxMapCount, true, 2));
    assert!(failure.sentence.contains("a thread's stack"), "{}", failure.sentence);
    let holders = failure.holders.as_ref().expect("the process lived long enough to be looked at");
    // The process is at max + 1, and [vsyscall] may be listed. A look ends after 200 ms, which an emulated processor may
    // not find enough; then it must not be called complete.
    let all = (max_map_count() + 1..=max_map_count() + 2).contains(&holders.vmas_read);
    assert_eq!(holders.complete, all, "{holders:?}");
    assert!(holders.sentence.contains("pieces of one anonymous region"), "{holders:?}");
    let layout = report.processes[0].layout.as_ref().expect("the same look tells where they lay");
    assert_eq!((layout.moment, layout.at_s), (Moment::Refusal, holders.at_s));
    assert_eq!((layout.vmas_read, layout.complete), (holders.vmas_read, holders.complete));
    assert_eq!(layout.rows.iter().map(|row| row.vmas).sum::<u64>(), layout.vmas_read, "{layout:?}");
    // The region of all these pieces is one stretch.
    assert!(layout.rows.iter().any(|row| row.vmas + 1000 > layout.vmas_read), "{layout:?}");
}

/// The program ends a moment after its refusals, mostly in the middle of the look.
#[test]
fn a_look_that_the_end_of_the_process_cuts_short_says_so() {
    for _ in 0..4 {
        let report = Session::run(&[], &["stackoverflow"]).go().succeeded().report();
        let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
        let Some(look) = &failure.holders else { continue };
        assert_eq!(look.vmas_expected, Some(max_map_count()), "{look:?}");
        assert_eq!(look.complete, look.vmas_read >= max_map_count(), "{look:?}");
        assert_eq!(look.syscall, "munmap");
        assert!(look.at_s >= failure.first_at_s.unwrap(), "{look:?}");
        assert_eq!(look.sentence.contains('%'), look.complete, "{look:?}");
    }
}

#[test]
fn a_program_that_got_an_ordinary_answer_is_not_said_to_have_got_none() {
    let done = Session::vmaudit(&["run", "--"]).then_workload(&["causes", "blocked-mremap"]).go().succeeded();
    let said = done.stderr_text();
    assert!(
        said.starts_with("vmaudit: No incident; 5 calls were refused as ordinary answers (mremap 5)"),
        "{said}"
    );
}

fn hook(report: &Report, name: &str) -> HookState {
    row(report, name).state
}

fn row<'a>(report: &'a Report, name: &str) -> &'a Hook {
    report.coverage.hooks.iter().find(|hook| hook.name == name).expect("the row is there")
}

fn says_what_is_lost(report: &Report, name: &str) -> bool {
    row(report, name).loses.is_some() && row(report, name).reason.is_some()
}

/// A kernel that has kprobes lets us see that brk got past its first checks; then its causes are certain too.
#[test]
fn a_kernel_with_kprobes_proves_the_causes_of_a_refused_brk() {
    let _lower = LowerLimit::new();
    let report = Session::run(&[], &["limit", "brk"]).go().succeeded().report();
    // The programs for kernels without lock events cannot use it, and say so.
    let probed = vmaudit_tests::has_kprobes() && vmaudit_tests::has_lock_events();
    let expected = if probed { HookState::Attached } else { HookState::Missing };
    assert_eq!(hook(&report, "do_brk_flags"), expected, "{:?}", report.coverage.hooks);
    assert_eq!(report.failures[0].certain, probed, "{:?}", report.failures);
    assert!(probed || says_what_is_lost(&report, "do_brk_flags"), "{:?}", report.coverage.hooks);
}

#[test]
fn overcommit_accounting_is_listened_to_where_it_is_strict_only() {
    let report = Session::run(&[], &["burst", "10"]).go().succeeded().report();
    let setting = report.limits.overcommit_memory.expect("the setting is readable");
    assert_eq!(hook(&report, "vm_enough_memory") == HookState::Unused, setting != 2, "{:?}", report.limits);
}

/// Many a container lets nobody make a cgroup.
mod guest_only {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// The setting is the whole machine's.
    #[test]
    fn strict_overcommit_is_proved_by_its_own_answer() {
        let setting = "/proc/sys/vm/overcommit_memory";
        let before = std::fs::read_to_string(setting).expect("the setting is readable");
        vmaudit_tests::assert_guest();
        std::fs::write(setting, "2").expect("the VM's setting can be changed");
        let (report, failures) = near("strict-overcommit", "3");
        std::fs::write(setting, before).expect("the VM's setting can be changed back");
        assert_eq!(failures.len(), 2, "{failures:?}");
        if !vmaudit_tests::has_lock_events() {
            assert_eq!(hook(&report, "vm_enough_memory"), HookState::Missing, "{:?}", report.coverage.hooks);
            assert!(says_what_is_lost(&report, "vm_enough_memory"), "{:?}", report.coverage.hooks);
            for failure in &failures {
                assert!(!failure.certain && mentions(&failure.sentence, "overcommit"), "{failure:?}");
            }
            return;
        }
        assert_eq!(hook(&report, "vm_enough_memory"), HookState::Attached, "{:?}", report.coverage.hooks);
        for failure in &failures {
            assert_eq!((failure.cause, failure.certain), (Cause::Overcommit, true), "{failure:?}");
        }
    }

    /// A memory cgroup of a limit, below the one of this process; removed at the end.
    struct Cgroup {
        folder: PathBuf,
        /// Of version 1: told not to kill, and without a count of the refusals that follow.
        old: bool,
    }

    impl Cgroup {
        fn new(limit: u64) -> std::io::Result<Self> {
            let own = std::fs::read_to_string("/proc/self/cgroup")?;
            let controlled = own.lines().find_map(|line| line.split_once(":memory:"));
            let parent = match controlled {
                Some((_, path)) => format!("/sys/fs/cgroup/memory{path}"),
                None => {
                    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
                    "/sys/fs/cgroup".to_owned()
                }
            };
            let folder = Path::new(&parent).join(format!("vmaudit-test-{}", std::process::id()));
            std::fs::create_dir(&folder)?;
            let made = Self { folder, old: controlled.is_some() };
            let put = |file: &str, text: &str| std::fs::write(made.folder.join(file), text);
            if made.old {
                put("memory.limit_in_bytes", &limit.to_string())?;
                put("memory.oom_control", "1")?;
            } else {
                put("memory.max", &limit.to_string())?;
            }
            Ok(made)
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            // Who was in it leaves a moment later.
            for _ in 0..100 {
                if std::fs::remove_dir(&self.folder).is_ok() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn a_memory_cgroup_that_ran_out_is_named() {
        const LIMIT: u64 = 4 << 20;
        vmaudit_tests::assert_guest();
        let cgroup = Cgroup::new(LIMIT).expect("a cgroup can be made");
        let folder = cgroup.folder.display().to_string();
        let done = Session::run(&["--calls", "all"], &["full-cgroup", &folder, "3"]).go().succeeded();
        let (own, report) = (done.own(), done.report());
        assert_eq!(
            groups(report.failures.iter(), true),
            sorted(own[0].refused.clone()),
            "{:?}",
            report.failures
        );
        assert_eq!(report.recommendation.action, Action::WillNotHelp, "{:?}", report.recommendation);
        for failure in &report.failures {
            assert_eq!((failure.cause, failure.count), (Cause::KernelMemory, 3), "{failure:?}");
            // A clone that got no task structure never came to the mappings.
            let count = failure.evidence.get("map_count");
            let known = failure.syscall == "mmap" || !vmaudit_tests::has_lock_events();
            assert_eq!(count.is_some(), known, "{failure:?}");
            assert!(count.is_none_or(|count| *count < max_map_count()), "{failure:?}");
            // Version 1 counts only those it kills.
            assert_eq!(failure.certain, !cgroup.old, "{failure:?}");
            if cgroup.old {
                assert!(failure.sentence.contains("Not certain"), "{}", failure.sentence);
                continue;
            }
            assert_eq!(failure.evidence["cgroup_limit_bytes"], LIMIT, "{failure:?}");
            assert!(failure.evidence["cgroup_out_of_memory"] > 0, "{failure:?}");
            assert!(failure.sentence.contains("memory cgroup has a limit of 4 MiB"), "{}", failure.sentence);
            assert!(failure.cure.as_ref().is_some_and(|cure| cure.contains("memory.max")), "{failure:?}");
        }
    }
}

/// A victim that has no image any more: exec itself is refused.
#[test]
fn an_exec_that_finds_no_room_is_named() {
    let report = Session::run(&[], &["exec-without-room"]).go().died_of(libc::SIGSEGV).report();
    let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
    assert_eq!((failure.syscall.as_str(), failure.errno.as_str(), failure.count), ("execve", "ENOMEM", 1));
    assert_eq!((failure.cause, failure.certain), (Cause::RlimitAs, false), "{failure:?}");
    assert_eq!(failure.evidence["limit_bytes"], 36 * PAGE, "{failure:?}");
}

/// Whoever takes vmaudit's word for a gap finds it.
#[test]
fn a_gap_is_shown_where_it_is() {
    let report = for_another_reason("gap");
    if !looks(&report) {
        assert!(report.failures.iter().all(|failure| !failure.sentence.contains("nothing is at")));
        return;
    }
    for failure in report.failures.iter().filter(|failure| failure.syscall != "madvise") {
        let example = failure.example.as_ref().expect("an example arrived");
        let address = |name: &str| {
            let text = example.args[name].as_str().expect("an address").trim_start_matches("0x");
            u64::from_str_radix(text, 16).expect("an address")
        };
        // The second of three pages is missing.
        let hole = format!("nothing is at {:#x}", address("addr") + PAGE);
        assert!(failure.sentence.contains(&hole), "{hole}: {failure:?}");
    }
}

#[test]
fn every_case_that_the_workload_can_make_is_tested() {
    let list = Session::workload(&["list"]).go().succeeded();
    let text = String::from_utf8(list.stdout).unwrap();
    for line in text.lines() {
        let (kind, name) = line.split_once(' ').unwrap();
        let cases = if kind == "limit" { at_the_limit::CASES } else { for_another_reason::CASES };
        assert!(cases.contains(&name), "{line} has no test");
    }
}

#[test]
fn an_mremap_that_may_not_move_is_an_ordinary_answer_and_no_incident() {
    let report = for_another_reason("blocked-mremap");
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.ordinary_answers.len(), 1, "{:?}", report.ordinary_answers);
}

/// A length just below 2^64 is 0 to the kernel, so nothing stayed mapped that should have gone.
#[test]
fn a_length_that_rounds_to_nothing_leaves_nothing_mapped() {
    let done = Session::run(&[], &["mremap-all", "3"]).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    assert_eq!((own.refused[0].count, own.refused[0].errno.as_str()), (3, "ENOMEM"));
    assert_eq!(row.calls["mremap"].failed, Some(3), "{row:?}");
    assert_left(&row, &own);
    for answer in report.failures.iter().chain(&report.ordinary_answers) {
        assert_eq!(answer.evidence.get("kept_bytes"), None, "{answer:?}");
    }
}

/// The limit is met at three counts, each a kind of its own to the kernel side: the sentence has the bytes of all.
#[test]
fn kinds_that_become_one_row_have_their_bytes_added_up() {
    let done = Session::run(&[], &["limit", "munmap"]).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    assert_left(&row, &own);
    let [failure] = report.failures.as_slice() else { panic!("one row: {:?}", report.failures) };
    assert_eq!(failure.evidence["kept_bytes"], own.leaked_bytes, "{failure:?}");
}

#[test]
fn asking_where_the_break_is_counts_as_no_failure() {
    let report = for_another_reason("brk-query");
    assert_eq!(report.processes[0].calls["brk"].failed, Some(0));
}

#[test]
fn a_process_without_failures_gets_no_failures_and_is_told_to_leave_the_limit() {
    let report = Session::run(&[], &["burst", "100"]).go().succeeded().report();
    assert!(report.failures.is_empty() && report.ordinary_answers.is_empty(), "{:?}", report.failures);
    assert_eq!(report.recommendation.action, Action::Leave, "{:?}", report.recommendation);
    assert_eq!(report.processes[0].unmap_leaked_bytes, Some(0));
}
