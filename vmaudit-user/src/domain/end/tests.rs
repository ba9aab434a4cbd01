use super::*;
use crate::model::end::{CgroupLevel, FaultMapping, Sender};
use crate::model::event::ProcessId;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const STACK_END: u64 = 0x7fff_0000_0000;

fn raised(code: i32, by: u32) -> Raised {
    Raised {
        at_ns: 1_500_000_000,
        code,
        tid: 7,
        by: Sender { tgid: by, tid: by, comm: "killer".into() },
        oom: false,
        in_exec: false,
        own: None,
        fault: None,
    }
}

fn ended(status: u32, signal: Option<Raised>) -> Ended {
    Ended {
        process: ProcessId { tgid: 7, start_ns: 1 },
        at_ns: 1_500_000_100,
        ppid: 1,
        comm: "x".into(),
        status,
        signal: signal.map(Box::new),
    }
}

fn explained(ended: &Ended, cgroups: Option<&OomCgroups>) -> ProcessEnd {
    explain(&Facts { ended, cgroups, before: None, page_size: PAGE, start_ns: 1_000_000_000, hidden: false })
}

/// A main stack of 1 MiB, its pointer a little below it.
fn own() -> OwnState {
    OwnState {
        sp: STACK_END - MIB - 16,
        total_vm: 1000,
        stack_vm: MIB / PAGE,
        env_end: STACK_END - 20,
        rlimit_stack: MIB,
        rlimit_as: u64::MAX,
        rlimit_cpu: [u64::MAX; 2],
        cpu_ns: 0,
        stack: Some([STACK_END - MIB, STACK_END]),
    }
}

fn segfault(own: OwnState, address: u64) -> ProcessEnd {
    let fault = Fault { address, looked: own.stack.is_some(), mapping: None };
    explained(&ended(11, Some(Raised { own: Some(own), fault: Some(fault), ..raised(1, 7) })), None)
}

#[track_caller]
fn is(end: &ProcessEnd, cause: EndCause, certain: bool, part: &str) {
    assert_eq!((end.cause, end.certain), (Some(cause), certain), "{end:?}");
    assert!(end.sentence.contains(part), "{}", end.sentence);
}

#[test]
fn a_status_is_told_as_wait_gives_it() {
    let end = explained(&ended(3 << 8, None), None);
    assert_eq!((end.code, end.signal, end.cause), (Some(3), None, None));
    assert_eq!(end.sentence, "ended with status 3");
    let end = explained(&ended(0x80 | 6, None), None);
    assert_eq!((end.code, end.signal), (None, Some(6)), "a core file was written");
    is(&explained(&ended(9, None), None), EndCause::Unknown, false, "by whom is unknown");
}

/// Whoever runs at that moment has nothing to do with it, be it the process itself.
#[test]
fn a_terminals_signals_are_told_as_such() {
    for (signal, part) in [
        (2, "sent by its terminal, as at Ctrl-C"),
        (3, "sent by its terminal, as at Ctrl-\\"),
        (1, "as when a terminal is closed"),
        (15, "sent by the kernel"),
    ] {
        for own in [None, Some(own())] {
            let raised = Raised { own, ..raised(code::KERNEL, 5) };
            let end = explained(&ended(signal, Some(raised)), None);
            is(&end, EndCause::Unknown, false, part);
            assert_eq!(end.by, None);
        }
        is(&explained(&ended(signal, Some(raised(code::USER, 5))), None), EndCause::KilledBy, true, "killer");
    }
}

#[test]
fn who_sent_a_signal_is_named_only_where_a_process_did() {
    for code in [code::USER, code::QUEUE, code::TKILL] {
        let end = explained(&ended(9, Some(raised(code, 5))), None);
        is(&end, EndCause::KilledBy, true, "sent by killer (pid 5)");
        assert_eq!(end.by.as_ref().unwrap().pid, 5);
        assert_eq!(end.at_s, Some(0.5));
    }
    is(
        &explained(&ended(6, Some(raised(code::TKILL, 7))), None),
        EndCause::KilledBy,
        true,
        "as abort() does",
    );
    for (code, signal) in [(code::KERNEL, 9), (-2, 14), (code::KERNEL, 1)] {
        let end = explained(&ended(signal, Some(raised(code, 5))), None);
        is(&end, EndCause::Unknown, false, "");
        assert_eq!(end.by, None, "{code}: who ran then sent nothing");
    }
}

#[test]
fn a_stack_that_reached_its_limit_is_told_from_wild_pointers() {
    let below = STACK_END - MIB - 8;
    is(&segfault(own(), below), EndCause::StackLimit, true, "reached RLIMIT_STACK = 1 MiB");
    // A call's return address goes just below the pointer, which stands at the very edge.
    let edge = OwnState { sp: STACK_END - MIB, ..own() };
    is(&segfault(edge, STACK_END - MIB - 8), EndCause::StackLimit, true, "RLIMIT_STACK");
    // A large frame: the pointer is far below, and what is touched lies between.
    let frame = OwnState { sp: STACK_END - 4 * MIB, ..own() };
    is(&segfault(frame, STACK_END - 2 * MIB), EndCause::StackLimit, true, "RLIMIT_STACK");
    for address in [0, 8, STACK_END - 2 * MIB, 0x5000_0000_0000] {
        let inside = OwnState { sp: STACK_END - MIB / 2, ..own() };
        is(&segfault(inside, address), EndCause::Unknown, false, "no memory limit is part of that");
    }
    is(&segfault(own(), 0), EndCause::Unknown, false, "as a null pointer does");
    // A thread's stack lies elsewhere.
    let thread = OwnState { sp: 0x7f00_0000_1000, ..own() };
    is(&segfault(thread, 0x7f00_0000_0ff8), EndCause::Unknown, false, "nothing is mapped");
}

#[test]
fn a_stack_below_its_limit_found_no_room() {
    let below = STACK_END - MIB - 8;
    let high = OwnState { rlimit_stack: 8 * MIB, ..own() };
    is(&segfault(high, below), EndCause::StackNoRoom, true, "RLIMIT_STACK = 8 MiB was not reached");
    let none = OwnState { rlimit_stack: u64::MAX, ..own() };
    is(&segfault(none, below), EndCause::StackNoRoom, true, "RLIMIT_STACK is unlimited");
    let space = OwnState { rlimit_as: 1000 * PAGE, ..high };
    is(&segfault(space, below), EndCause::StackNoRoom, true, "RLIMIT_AS = 3.9 MiB leaves no room");
}

#[test]
fn without_a_look_the_stack_is_reckoned_from_its_pages() {
    let reckoned = OwnState { stack: None, ..own() };
    is(&segfault(reckoned, STACK_END - MIB - 8), EndCause::StackLimit, false, "RLIMIT_STACK");
    let frame = OwnState { sp: STACK_END - 2 * MIB, ..reckoned };
    is(&segfault(frame, STACK_END - 2 * MIB), EndCause::StackLimit, true, "RLIMIT_STACK");
    let unknown = OwnState { sp: 0, ..reckoned };
    is(&segfault(unknown, STACK_END - MIB - 8), EndCause::Unknown, false, "could not be looked at");
}

#[test]
fn addresses_that_are_not_the_callers_to_know_are_left_out() {
    let fault = Fault { address: 0x1234_5678, looked: true, mapping: None };
    let ended = ended(11, Some(Raised { own: Some(own()), fault: Some(fault), ..raised(1, 7) }));
    let facts =
        Facts { ended: &ended, cgroups: None, before: None, page_size: PAGE, start_ns: 0, hidden: false };
    assert!(explain(&facts).sentence.contains("0x12345678"));
    let end = explain(&Facts { hidden: true, ..facts });
    assert!(!end.sentence.contains("0x"), "{}", end.sentence);
    assert!(!format!("{:?}", end.evidence).contains("305419896"), "{end:?}");
}

fn bus_error(flags: u64, file: Option<FaultFile>) -> ProcessEnd {
    let mapping = FaultMapping { start: 0x1000, flags, file };
    let fault = Fault { address: 0x2000, looked: true, mapping: Some(mapping) };
    explained(&ended(7, Some(Raised { own: Some(own()), fault: Some(fault), ..raised(2, 7) })), None)
}

#[test]
fn a_bus_error_says_what_was_too_short() {
    let file = |offset, size, magic, blocks| Some(FaultFile { offset, size, magic, blocks });
    let ext4 = 0xef53;
    is(&bus_error(3, file(8192, 8192, ext4, None)), EndCause::BusFileShort, true, "beyond its end");
    // The rest of the last page is there.
    is(&bus_error(3, file(8191, 4097, ext4, None)), EndCause::Unknown, false, "an I/O error, or a full disk");
    is(&bus_error(3, file(0, 8192, TMPFS_MAGIC, Some(16))), EndCause::BusTmpfsFull, true, "(size 64 KiB)");
    is(&bus_error(3, file(8192, 8192, TMPFS_MAGIC, Some(16))), EndCause::BusFileShort, true, "");
    is(&bus_error(3, file(0, 8192, TMPFS_MAGIC, Some(0))), EndCause::Unknown, false, "no limit");
    is(
        &bus_error(VM_HUGETLB, file(0, 2 * MIB, HUGETLBFS_MAGIC, None)),
        EndCause::BusHugetlb,
        true,
        "huge page",
    );
    is(&bus_error(3, None), EndCause::Unknown, false, "no page");
    let fault = Fault { address: 0x2000, looked: true, mapping: None };
    for code in [1, 4, 5] {
        let broken = Raised { own: Some(own()), fault: Some(fault), ..raised(code, 7) };
        is(&explained(&ended(7, Some(broken)), None), EndCause::Unknown, false, "");
    }
}

#[test]
fn the_cpu_limit_is_told_from_other_kills_by_the_kernel() {
    let used = |signal, soft, hard, cpu_s: u64| {
        let own = OwnState { rlimit_cpu: [soft, hard], cpu_ns: cpu_s * 1_000_000_000, ..own() };
        explained(&ended(signal, Some(Raised { own: Some(own), ..raised(code::KERNEL, 7) })), None)
    };
    is(&used(24, 1, 2, 1), EndCause::CpuLimit, true, "1 second, soft");
    is(&used(9, 1, 2, 2), EndCause::CpuLimit, true, "2 seconds, hard");
    is(&used(9, 1, 2, 1), EndCause::Unknown, false, "not by the OOM killer");
    is(&used(9, u64::MAX, u64::MAX, 0), EndCause::Unknown, false, "");
}

fn level(path: &str, limit: Option<u64>, before: Option<u64>, now: u64, v1: bool) -> CgroupLevel {
    CgroupLevel {
        path: path.into(),
        v1,
        limit_bytes: limit,
        out_of_memory: now,
        out_of_memory_before: before,
        killed: Some(1),
        used_bytes: None,
        acting: None,
    }
}

fn killed_for(levels: Vec<CgroupLevel>, complete: bool) -> ProcessEnd {
    let raised = Raised { oom: true, ..raised(code::KERNEL, 5) };
    let cgroups = OomCgroups { process: ProcessId { tgid: 7, start_ns: 1 }, levels, complete, inside: true };
    explained(&ended(9, Some(raised)), Some(&cgroups))
}

#[test]
fn the_cgroup_that_ran_out_of_memory_is_the_nearest_whose_counter_rose() {
    let own = || level("/a/b", None, Some(0), 0, false);
    let above = |before| level("/a", Some(64 * MIB), before, 2, false);
    let end = killed_for(vec![own(), above(Some(1)), level("/", None, Some(3), 4, false)], true);
    is(&end, EndCause::OomCgroup, true, "memory cgroup /a reached memory.max = 64 MiB; oom_kill 1");
    assert_eq!(end.cgroup.as_deref(), Some("/a"));
    assert_eq!(end.evidence["limit_bytes"], 64 * MIB);
    is(&killed_for(vec![own(), above(Some(2))], true), EndCause::OomGlobal, true, "the machine ran out");
    is(&killed_for(vec![own(), above(Some(2))], false), EndCause::Unknown, false, "cannot be seen");
    is(&killed_for(vec![own(), above(None)], true), EndCause::OomCgroup, false, "probably");
    let alone = ended(9, Some(Raised { oom: true, ..raised(code::KERNEL, 5) }));
    is(&explained(&alone, None), EndCause::Unknown, false, "could not be read");
}

#[test]
fn version_1_is_sure_only_of_a_single_limit_that_was_met() {
    let one = || level("/x/y", Some(MIB), Some(0), 9, true);
    let root = |now| level("/x", Some(2 * MIB), Some(0), now, true);
    is(&killed_for(vec![one(), root(0)], true), EndCause::OomCgroup, true, "memory.limit_in_bytes = 1 MiB");
    is(&killed_for(vec![one(), root(5)], true), EndCause::OomCgroup, false, "probably");
    let unlimited = level("/x/y", None, Some(0), 5, true);
    is(&killed_for(vec![unlimited, root(0)], true), EndCause::OomGlobal, true, "the machine");
}

/// As the kernel side tells of it, `used` of `limit`, both MiB; `before` and `now`: its counter, if its folder is there.
fn told(path: &str, [used, limit]: [u64; 2], acting: bool, counter: Option<[u64; 2]>) -> CgroupLevel {
    let limit = (limit > 0).then_some(limit * MIB);
    CgroupLevel {
        used_bytes: Some(used * MIB),
        acting: Some(acting),
        killed: counter.map(|_| 1),
        ..level(path, limit, counter.map(|[before, _]| before), counter.map_or(0, |[_, now]| now), false)
    }
}

#[test]
fn the_cgroup_in_the_hands_of_the_oom_killer_is_the_cause() {
    let inner = |used| told("/a/b", [used, 100], true, None);
    let outer = |acting| told("/a", [64, 64], acting, None);
    let root = told("/", [900, 0], false, None);
    let end = killed_for(vec![inner(50), outer(true), root.clone()], true);
    is(&end, EndCause::OomCgroup, true, "memory cgroup /a reached memory.max = 64 MiB");
    // The inner one was at its limit as well, or the outer one was and is not marked.
    let both = killed_for(vec![inner(100), outer(true), root.clone()], true);
    is(&both, EndCause::OomCgroup, false, "/a reached memory.max = 64 MiB (probably");
    let own = killed_for(vec![inner(100), outer(false), root.clone()], true);
    is(&own, EndCause::OomCgroup, false, "/a/b reached memory.max = 100 MiB (probably");
    let known = told("/a", [64, 64], false, Some([3, 3]));
    is(&killed_for(vec![inner(100), known, root.clone()], true), EndCause::OomCgroup, true, "/a/b reached");
    is(&killed_for(vec![inner(50), root.clone()], true), EndCause::OomCgroup, true, "/a/b ran out of memory");
    is(&killed_for(vec![inner(100)], false), EndCause::OomCgroup, false, "probably");
    is(&killed_for(vec![], true), EndCause::OomGlobal, true, "the machine");
    is(
        &killed_for(vec![told("/a", [50, 64], false, None), root], true),
        EndCause::OomGlobal,
        true,
        "none of",
    );
    // It may have been let go by one of several at once.
    is(
        &killed_for(vec![outer(false)], true),
        EndCause::OomCgroup,
        false,
        "/a reached memory.max = 64 MiB (prob",
    );
    let rose = told("/a", [64, 64], false, Some([3, 4]));
    is(&killed_for(vec![rose], true), EndCause::OomCgroup, true, "/a reached");
}

#[test]
fn what_came_before_is_told_with_the_end() {
    let ended = ended(6, Some(raised(code::TKILL, 7)));
    let before = Some("0.4 ms before, mmap failed".to_owned());
    let end =
        explain(&Facts { ended: &ended, cgroups: None, before, page_size: PAGE, start_ns: 0, hidden: false });
    assert_eq!(
        end.sentence,
        "died of SIGABRT: it sent that to itself, as abort() does; 0.4 ms before, mmap failed"
    );
}
