use super::*;
use crate::model::event::Host;
use crate::model::report;
use vmaudit_common::call::MMAP;

/// Address space `generation` of process `tgid`; refused calls at the limit, if any.
pub fn state(generation: u64, tgid: u32, refused: u64) -> MmState {
    let class = CLASS_SECTION | 7 | 7 << CLASS_MC1_SHIFT;
    let kind = RefusalGroup {
        call: MUNMAP,
        errno: libc::ENOMEM as u8,
        class,
        count: refused,
        first_ns: 1,
        last_ns: 2,
        kept_bytes: 4096 * refused,
        recovered: 0,
        needed: Needed::default(),
        sites: Vec::new(),
    };
    MmState {
        generation,
        process: ProcessId { tgid, start_ns: tgid.into() },
        ppid: 1,
        uid: 0,
        comm: format!("p{tgid}"),
        first: 20,
        last: 30,
        peak: 40,
        born_ns: generation,
        peak_ns: generation,
        dead_ns: Some(generation + 100),
        from_birth: true,
        from_snapshot: false,
        from_exec: false,
        shared: false,
        gaps: Some(0),
        open_end: false,
        most: None,
        kept: Some(Kept::default()),
        calls: vec![(MUNMAP, CallStat { calls: 0, added: 0, removed: 0, failed: refused })],
        refusals: if refused > 0 { vec![kind] } else { Vec::new() },
        untold: Vec::new(),
        host: None,
        tasks: None,
        ledger: None,
        joined: None,
    }
}

/// As [`state`], of a process that lives in the first address space of process 10.
fn lodger(generation: u64, tgid: u32, refused: u64) -> MmState {
    MmState { host: Some(Host { generation: 1, tgid: 10 }), ..state(generation, tgid, refused) }
}

fn host(refused: u64) -> MmState {
    let calls = vec![
        (MMAP, CallStat { calls: 50, added: 30, removed: 0, failed: 0 }),
        (MUNMAP, CallStat { calls: 9, added: 0, removed: 1, failed: refused }),
    ];
    MmState { last: 60, peak: 65, calls, ..state(1, 10, refused) }
}

fn after(states: Vec<MmState>) -> Rows {
    let mut audit = audit();
    for state in states {
        audit.apply(Event::Mm(Box::new(state)));
    }
    audit.rows()
}

#[test]
fn the_refusals_of_two_in_one_address_space_are_told_apart_and_its_vmas_once() {
    let rows = after(vec![host(2), lodger(2, 11, 3)]);
    let [own, shared] = rows.processes.as_slice() else { panic!("{:?}", rows.processes) };
    assert_eq!((own.pid, own.shares_address_space_of), (10, None));
    assert_eq!((shared.pid, shared.shares_address_space_of), (11, Some(10)));
    let seen: Vec<_> = rows.failures.iter().map(|f| (f.pid, f.count, f.address_space_of)).collect();
    assert_eq!(seen, [(11, 3, Some(10)), (10, 2, None)]);
    let of = |row: &report::Process| {
        let call = row.calls["munmap"];
        (call.calls, call.removed, call.failed, row.unmap_leaked_bytes)
    };
    assert_eq!(of(own), (Some(9), 1, Some(2), Some(8192)));
    assert_eq!(of(shared), (None, 0, Some(3), Some(12288)));
    assert!(!shared.calls.contains_key("mmap") && shared.images.is_empty());
    // Both were stopped in the same address space.
    assert!(own.map_count.clipped && shared.map_count.clipped);
}

#[test]
fn the_counts_of_one_that_lives_are_those_of_its_host_now() {
    let rows = after(vec![host(0), MmState { dead_ns: None, ..lodger(2, 11, 1) }]);
    let count = &rows.processes[1].map_count;
    assert_eq!((count.first, count.last, count.peak, count.exact), (Some(20), Some(60), Some(65), true));
    let gone = after(vec![host(0), lodger(2, 11, 1)]);
    let count = gone.processes.iter().find(|row| row.pid == 11).unwrap().map_count.clone();
    assert_eq!((count.first, count.last, count.peak, count.exact), (Some(20), Some(30), Some(40), true));
}

#[test]
fn what_was_missed_of_the_host_is_missed_of_who_lives_in_it() {
    let rows = after(vec![MmState { gaps: Some(1), ..host(0) }, lodger(2, 11, 0)]);
    assert!(rows.processes.iter().all(|row| !row.map_count.exact));
}

#[test]
fn after_an_exec_it_is_an_ordinary_row_that_keeps_its_refusals() {
    let rows = after(vec![lodger(2, 11, 1), host(0), state(3, 11, 0)]);
    let row = rows.processes.iter().find(|row| row.pid == 11).unwrap();
    assert_eq!((row.shares_address_space_of, row.images.len()), (None, 1));
    assert_eq!((row.map_count.peak, row.map_count.clipped), (Some(40), false));
    assert_eq!(rows.failures[0].address_space_of, Some(10));
    // The refusal says of the host's address space that it was full.
    assert!(rows.processes.iter().find(|row| row.pid == 10).unwrap().map_count.clipped);
}

#[test]
fn images_are_put_together_without_those_of_others() {
    let mut states = vec![lodger(2, 11, 1)];
    states.extend((3..3 + 2 * MAX_IMAGES as u64).map(|generation| state(generation, 11, 1)));
    let rows = after(states);
    let mut seen: Vec<_> = rows.failures.iter().map(|f| (f.count, f.address_space_of)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(1, Some(10)), (2 * MAX_IMAGES as u64, None)]);
}

#[test]
fn a_host_stays_stopped_when_who_lived_in_it_has_no_row_left() {
    let mut audit = Audit::new(0, audit().sight, KernelRules::for_release("6.18"), 1);
    audit.apply(Event::Mm(Box::new(MmState { peak: 1000, ..host(0) })));
    audit.apply(Event::Mm(Box::new(lodger(2, 11, 3))));
    audit.fold_at_end();
    let rows = audit.rows();
    assert_eq!((rows.processes.len(), rows.folded.len()), (1, 1));
    assert!(rows.processes[0].map_count.clipped);
    assert_eq!(rows.failures[0].count, 3);
}
