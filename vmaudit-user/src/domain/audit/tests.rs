use crate::domain::audit::*;
use crate::model::event::{CallStat, Doubt, ProcessFacts, RefusalGroup, Section};
use crate::model::report::{Cause, Failure};
use crate::model::session::Sight;
use vmaudit_common::{CLASS_MC1_SHIFT, CLASS_SECTION, call::MUNMAP};

fn audit() -> Audit {
    Audit::new(0, Sight { changes: true, exits: true }, KernelRules::for_release("6.18"))
}

/// A process with one address space; `failed` refused calls, one example.
fn process(audit: &mut Audit, n: u32, peak: u32, failed: u64, ended: bool) {
    let kind = RefusalGroup {
        call: MUNMAP,
        errno: libc::ENOMEM as u8,
        class: 0,
        count: failed,
        first_ns: 1,
        last_ns: 2,
        kept_bytes: 0,
    };
    if failed > 0 {
        let refused = Refused { generation: n.into(), tgid: n, tid: n, call: MUNMAP, ..Refused::example() };
        audit.apply(Event::Refused(Box::new(refused)));
    }
    audit.apply(Event::Mm(Box::new(MmState {
        generation: n.into(),
        process: ProcessId { tgid: n, start_ns: n.into() },
        ppid: 1,
        uid: 0,
        comm: "x".into(),
        first: 1,
        last: 1,
        peak,
        born_ns: n.into(),
        peak_ns: n.into(),
        dead_ns: ended.then_some(u64::from(n) + 1),
        from_birth: true,
        from_snapshot: false,
        from_exec: false,
        shared: false,
        gaps: Some(0),
        open_end: false,
        calls: vec![(MUNMAP, CallStat { calls: failed + 1, added: 0, removed: 0, failed })],
        refusals: if failed > 0 { vec![kind] } else { Vec::new() },
    })));
}

#[test]
fn nothing_is_certain_where_programs_were_skipped() {
    let mut audit = audit();
    let refused = Refused {
        call: MUNMAP,
        class: CLASS_SECTION | 7 | 7 << CLASS_MC1_SHIFT,
        section: Some(Section { mc0: 65530, mc1: 65530, ..Section::default() }),
        ..Refused::example()
    };
    process(&mut audit, 1, 65530, 1, true);
    let mm = audit.processes.values_mut().next().unwrap().mms.values_mut().next().unwrap();
    mm.refusals[0].class = refused.class;
    audit.apply(Event::Refused(Box::new(refused)));
    let certain = |audit: &Audit| audit.rows().failures[0].certain;
    assert!(certain(&audit));
    let doubt = Doubt { causes: true, ..Doubt::default() };
    audit.apply(Event::Lost(Losses { doubt, ..Losses::default() }));
    assert!(!certain(&audit));
    assert!(audit.rows().failures[0].sentence.contains("program_skipped"));
}

#[test]
fn each_doubt_costs_what_it_concerns() {
    let mut audit = audit();
    process(&mut audit, 1, 20, 0, true);
    let mut seen = |doubt| {
        audit.apply(Event::Lost(Losses { doubt, ..Losses::default() }));
        let rows = audit.rows();
        (rows.processes[0].map_count.exact, rows.complete, rows.exact_calls)
    };
    let none = Doubt::default();
    assert_eq!(seen(none), (true, true, true));
    assert_eq!(seen(Doubt { peaks: true, ..none }), (false, true, true));
    assert_eq!(seen(Doubt { processes: true, ..none }), (true, false, false));
    assert_eq!(seen(Doubt { calls: true, ..none }), (true, true, false));
}

#[test]
fn processes_with_refusals_are_bounded_too_and_stay_counted() {
    let mut audit = audit();
    let n = 3 * MAX_PROCESSES as u32;
    for pid in 1..=n {
        process(&mut audit, pid, if pid == 77 { 5000 } else { 20 }, 2, true);
    }
    assert!(audit.processes.len() <= MAX_PROCESSES + FOLD);
    assert!(audit.examples.len() <= MAX_EXAMPLES);
    let rows = audit.rows();
    assert_eq!(rows.processes[0].map_count.peak, Some(5000), "the largest stays");
    let shown: u64 = rows.failures.iter().map(|f| f.count).sum();
    assert_eq!(shown + rows.lost["failed_folded"], 2 * u64::from(n));
    assert_eq!(rows.processes.len() as u64 + rows.lost["rows_folded"], u64::from(n));
    assert!(rows.lost["examples_full"] > 0);
    assert!(rows.notes[0].contains("failed calls in all"), "{:?}", rows.notes);
}

/// An image of process 7; the `n`th is the one of generation `n`.
fn image(audit: &mut Audit, n: u32, peak: u32, kind: Option<RefusalGroup>) {
    process(audit, 1_000_000 + n, peak, 0, true);
    let (_, Process { mut mms, .. }) = audit.processes.pop_last().unwrap();
    let mut mm = mms.remove(&u64::from(1_000_000 + n)).unwrap();
    mm.process = ProcessId { tgid: 7, start_ns: 1 };
    mm.generation = n.into();
    (mm.first, mm.last) = (n, n + 1);
    let failed = kind.map_or(0, |kind| kind.count);
    mm.calls = vec![(MUNMAP, CallStat { calls: 10, added: 2, removed: 1, failed })];
    mm.refusals = kind.into_iter().collect();
    audit.apply(Event::Mm(Box::new(mm)));
}

fn refusal(class: u32, count: u64, kept_bytes: u64) -> RefusalGroup {
    RefusalGroup {
        call: MUNMAP,
        errno: libc::ENOMEM as u8,
        class,
        count,
        first_ns: 1,
        last_ns: 2,
        kept_bytes,
    }
}

const AT_THE_LIMIT: u32 = CLASS_SECTION | 7 | 7 << CLASS_MC1_SHIFT;
const ABOVE: u32 = CLASS_SECTION | 8 | 8 << CLASS_MC1_SHIFT;

#[test]
fn a_process_that_execs_without_end_takes_bounded_memory_and_keeps_its_figures() {
    let mut audit = audit();
    let n = 1000;
    for i in 1..=n {
        image(&mut audit, i, if i == 77 { 5000 } else { 20 }, Some(refusal(AT_THE_LIMIT, 2, 4096)));
    }
    assert_eq!(audit.processes.values().map(|p| p.mms.len()).collect::<Vec<_>>(), [MAX_IMAGES]);
    let rows = audit.rows();
    let [row] = rows.processes.as_slice() else { panic!("{:?}", rows.processes) };
    assert_eq!(row.images.len() as u64 + row.images_folded, u64::from(n));
    let count = &row.map_count;
    assert_eq!((count.first, count.last, count.peak), (Some(1), Some(u64::from(n) + 1), Some(5000)));
    assert_eq!(row.images[0].peak, 5000);
    let calls = row.calls["munmap"];
    let n = u64::from(n);
    assert_eq!((calls.calls, calls.added, calls.failed), (Some(10 * n), 2 * n, Some(2 * n)));
    assert_eq!(row.unmap_leaked_bytes, Some(4096 * n));
    let [failure] = rows.failures.as_slice() else { panic!("{:?}", rows.failures) };
    assert_eq!((failure.cause, failure.certain, failure.count), (Cause::MaxMapCount, true, 2 * n));
    assert_eq!(failure.evidence["kept_bytes"], 4096 * n);
}

#[test]
fn an_image_with_a_gap_keeps_the_process_inexact_when_it_is_folded() {
    let mut audit = audit();
    for i in 1..=200 {
        image(&mut audit, i, 20, None);
        if i == 3 {
            let process = audit.processes.values_mut().next().unwrap();
            process.mms.values_mut().last().unwrap().gaps = Some(1);
        }
    }
    assert!(!audit.rows().processes[0].map_count.exact);
}

#[test]
fn kinds_beyond_what_is_kept_stay_counted() {
    let mut audit = audit();
    let n = 2 * MAX_KINDS as u32;
    for i in 1..=n {
        image(&mut audit, i, 20, Some(refusal(CLASS_SECTION | 1 | i << 20, 3, 4096)));
    }
    let rows = audit.rows();
    let counted: u64 = rows.failures.iter().chain(&rows.ordinary).map(|f| f.count).sum();
    assert_eq!(counted, 3 * u64::from(n));
    assert_eq!(rows.processes[0].unmap_leaked_bytes, Some(4096 * u64::from(n)));
    let mms = &audit.processes.values().next().unwrap().mms;
    assert!(mms.values().all(|mm| mm.refusals.len() <= MAX_KINDS));
}

/// One failure of two kinds in one process.
fn of_two_kinds(other: RefusalGroup) -> Failure {
    let mut audit = audit();
    image(&mut audit, 1, 20, Some(refusal(AT_THE_LIMIT, 2, 8192)));
    image(&mut audit, 2, 20, Some(other));
    let [failure] = audit.rows().failures.try_into().unwrap();
    failure
}

#[test]
fn a_row_of_several_kinds_speaks_of_all_of_them() {
    let failure = of_two_kinds(refusal(ABOVE, 3, 4096));
    assert_eq!((failure.count, failure.certain), (5, true));
    assert_eq!(failure.evidence["kept_bytes"], 12288);
    assert!(failure.sentence.contains("in all, 12 KiB were not unmapped"), "{}", failure.sentence);
}

#[test]
fn the_least_certain_kind_speaks_for_the_row() {
    let failure = of_two_kinds(refusal(vmaudit_common::CLASS_SECTION_LOST, 3, 4096));
    assert_eq!((failure.cause, failure.count, failure.certain), (Cause::MaxMapCount, 5, false));
    assert!(failure.sentence.contains("Not certain"), "{}", failure.sentence);
    assert_eq!(failure.evidence["kept_bytes"], 12288);
}

/// A forked child runs the file of whoever had the parent's number when it was born.
#[test]
fn a_parents_number_used_again_gives_no_child_another_file() {
    let mut audit = audit();
    for (start_ns, exe) in [(10, "/old"), (20, "/parent"), (40, "/new")] {
        let process = ProcessId { tgid: 1, start_ns };
        let named = ProcessFacts { process, at_ns: start_ns, exe: Some(exe.into()), cgroup: None };
        audit.apply(Event::Process(named));
    }
    process(&mut audit, 30, 20, 0, true);
    assert_eq!(audit.rows().processes[0].exe.as_deref(), Some("/parent"));
}

#[test]
fn failures_bear_the_identity_of_their_process() {
    let mut audit = audit();
    for (start_ns, failed) in [(5, 1), (6, 3)] {
        process(&mut audit, start_ns, 20, failed, true);
        let (id, it) = audit.processes.pop_last().unwrap();
        audit.processes.insert(ProcessId { tgid: 9, ..id }, it);
    }
    let rows = audit.rows();
    assert_eq!(rows.failures.len(), 2);
    for failure in &rows.failures {
        let of = |row: &&crate::model::report::Process| {
            (row.pid, row.started_s) == (failure.pid, failure.started_s)
        };
        let row = rows.processes.iter().find(of).unwrap();
        assert_eq!(row.calls["munmap"].failed, Some(failure.count));
    }
}

#[test]
fn those_without_refusals_go_first() {
    let mut audit = audit();
    for pid in 1..=MAX_PROCESSES as u32 + 1 {
        process(&mut audit, pid, 20, u64::from(pid <= 40_000), true);
    }
    assert_eq!(audit.rows().lost["failed_folded"], 0);
    assert_eq!(audit.rows().lost["rows_folded"], FOLD as u64);
}

/// What cannot be folded must not be looked through for each event.
#[test]
fn living_processes_are_kept_and_looked_through_rarely() {
    let mut audit = audit();
    for pid in 1..=MAX_PROCESSES as u32 + 2 * FOLD as u32 {
        process(&mut audit, pid, 20, 0, false);
    }
    assert_eq!(audit.rows().lost["rows_folded"], 0);
    assert!(audit.fold_at > MAX_PROCESSES + 2 * FOLD, "the next folding waits: {}", audit.fold_at);
}

#[test]
fn processes_that_were_only_mentioned_are_forgotten() {
    let mut audit = audit();
    for tgid in 1..=MAX_PROCESSES as u32 + 1 {
        let process = ProcessId { tgid, start_ns: 1 };
        audit.apply(Event::Process(ProcessFacts { process, at_ns: 1, exe: None, cgroup: None }));
    }
    assert!(audit.processes.len() <= MAX_PROCESSES);
    assert_eq!(audit.rows().lost["rows_folded"], 0, "they had no row");
}
