//! What every other test rests on; when one of these fails, look here first.

use vmaudit_tests::{Session, max_map_count, vmaudit, workload};

#[test]
fn the_machine_can_trace() {
    // SAFETY: geteuid takes no pointers.
    assert_eq!(unsafe { libc::geteuid() }, 0, "the live tests need root");
    let btf =
        std::fs::metadata("/sys/kernel/btf/vmlinux").expect("the kernel has BTF (/sys/kernel/btf/vmlinux)");
    assert!(btf.len() > 100_000, "BTF has only {} bytes", btf.len());
    assert!(max_map_count() >= 1000, "vm.max_map_count is {}", max_map_count());
    assert!(std::path::Path::new("/proc/thread-self/maps").exists(), "/proc is mounted");
    assert_ne!(vmaudit(), workload());
}

#[test]
fn the_default_source_is_ebpf_and_nothing_is_missing_that_this_kernel_has() {
    let done = Session::run(&[], &["exit", "0"]).go().succeeded();
    let report = done.report();
    assert_eq!(
        report.source,
        vmaudit_user::model::report::SourceKind::Ebpf,
        "{:?}\n{}",
        report.coverage,
        done.said()
    );
    let missing: Vec<&str> = report
        .coverage
        .hooks
        .iter()
        .filter(|hook| hook.state == vmaudit_user::model::report::HookState::Missing)
        .map(|hook| hook.name.as_str())
        .collect();
    let mut expected = Vec::new();
    if !vmaudit_tests::has_lock_events() {
        expected.extend(["mmap_lock_released", "exit_mmap"]);
    }
    // The probe on brk has no substitute among the programs for kernels without lock events.
    if !vmaudit_tests::has_kprobes() || !vmaudit_tests::has_lock_events() {
        expected.push("do_brk_flags");
    }
    assert_eq!(missing, expected);
    assert!(!report.coverage.hooks.is_empty());
    vmaudit_tests::rows::assert_nothing_lost(&report);
    assert_eq!(report.limits.max_map_count, Some(max_map_count()));
}

/// Each case counts at its peaks too and compares with its own arithmetic; without vmaudit.
#[test]
fn the_workloads_know_their_own_counts() {
    let _lower = vmaudit_tests::LowerLimit::new();
    for words in [
        "burst 500",
        "holes 500",
        "shrink 500",
        "brk-shrink 500",
        "stackoverflow",
        "retries 3",
        "threads 4 200",
        "leader-exits 100",
        "setname x 10",
        "children 50",
        "children 20 killed",
        "children 20 exec",
        "children 20 exec-at-once",
        "children 20 exec-missing",
        "children 20 exec-garbage",
        "reuse-pid 20",
        "generations 10",
        "vfork 10",
        "each burst 10 -- holes 10",
        "exec-self 100 50",
        "exec-by-thread 100 50",
        "daemon 50 1",
        "flood 1000",
        "limit munmap",
        "limit mprotect",
    ] {
        let words: Vec<&str> = ["--look"].into_iter().chain(words.split(' ')).collect();
        let done = Session::workload(&words).go().succeeded();
        assert!(!done.own().is_empty());
    }
}
