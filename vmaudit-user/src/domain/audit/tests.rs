use crate::domain::audit::*;
use crate::model::event::{CallStat, Doubt, Kept, Needed, ProcessFacts, RefusalGroup, RefusalSite, Section};
use crate::model::report::{Cause, Failure, Outcome};
use crate::model::session::Sight;
use vmaudit_common::call::CALLS;
use vmaudit_common::{CLASS_MC1_SHIFT, CLASS_SECTION, call::MUNMAP};

mod growth;
mod images;
mod ledger;
pub(super) mod lodgers;
mod standing;
mod task_names;

pub(super) fn audit() -> Audit {
    Audit::new(
        0,
        Sight { changes: true, exits: true, locking: false, ends: false },
        KernelRules::for_release("6.18"),
        ROWS,
    )
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
        recovered: 0,
        needed: Needed::default(),
        sites: Vec::new(),
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
        most: None,
        kept: Some(Kept::default()),
        open_end: false,
        calls: vec![(MUNMAP, CallStat { calls: failed + 1, added: 0, removed: 0, failed })],
        refusals: if failed > 0 { vec![kind] } else { Vec::new() },
        untold: Vec::new(),
        host: None,
        tasks: None,
        ledger: None,
        joined: None,
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
    let mm = audit.processes.values_mut().next().unwrap().mms.first_mut().unwrap();
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

/// As the session does: whoever ended, is over.
fn thin_out(audit: &mut Audit) {
    if audit.crowded() {
        let over = audit.ended().collect();
        audit.fold(&over);
    }
}

/// Each look at all processes costs as much as there are: a session has one in a crowd, a file can tell of a million.
#[test]
fn processes_are_looked_through_in_a_crowd_only_and_once_at_the_end() {
    let mut audit = audit();
    let gone = |n: u32| Event::Gone(vec![ProcessId { tgid: n, start_ns: n.into() }]);
    for n in 1..=ROWS as u32 + 10 {
        // The last one is the least remarkable.
        process(&mut audit, n, 50_000 - n, 0, true);
        audit.apply(gone(n));
    }
    assert_eq!(audit.processes.len(), ROWS + 10, "it is no crowd");
    (ROWS as u32 + 11..=30_000).for_each(|n| process(&mut audit, n, n, 0, true));
    assert!(audit.crowded());
    audit.apply(Event::Gone(Vec::new()));
    assert!(!audit.crowded() && audit.processes.len() == 30_000, "of nobody, and so it is not asked again");
    assert_eq!(
        audit.fold_at,
        30_000 + 30_000 / 8,
        "the more there are, the later it is looked through again"
    );
    audit.apply(Event::FiguresEnd);
    assert_eq!((audit.processes.len(), audit.settled), (ROWS, true));
    // What nobody sends: nothing happens again.
    (1..=10).for_each(|n| process(&mut audit, 40_000 + n, 1, 0, true));
    audit.apply(Event::FiguresEnd);
    assert_eq!(audit.processes.len(), ROWS + 10);
}

/// Every count of `rows`, whether its process has a row or not: processes, calls, failed ones, failures, the largest peak.
fn sums(rows: &Rows) -> (u64, u64, u64, u64, Option<u64>) {
    let processes = rows.processes.len() as u64 + rows.folded.iter().map(|sum| sum.processes).sum::<u64>();
    let figures = rows.processes.iter().map(|p| &p.calls).chain(rows.folded.iter().map(|sum| &sum.calls));
    let figures: Vec<_> = figures.flat_map(BTreeMap::values).collect();
    let calls = figures.iter().map(|it| it.calls.unwrap()).sum();
    let failed = figures.iter().map(|it| it.failed.unwrap()).sum();
    let failures = rows.failures.iter().chain(&rows.ordinary).map(|f| f.count).sum();
    let peaks =
        rows.processes.iter().map(|p| p.map_count.peak).chain(rows.folded.iter().map(|sum| sum.peak_max));
    (processes, calls, failed, failures, peaks.flatten().max())
}

#[test]
fn processes_with_refusals_are_bounded_too_and_stay_counted() {
    let mut audit = audit();
    let n = 30_000;
    for pid in 1..=n {
        process(&mut audit, pid, if pid == 77 { 5000 } else { 20 }, 2, true);
        thin_out(&mut audit);
        assert!(audit.processes.len() <= ROWS + SURPLUS + 1 && audit.examples.len() <= audit.processes.len());
    }
    audit.fold_at_end();
    let rows = audit.rows();
    assert_eq!(rows.processes[0].map_count.peak, Some(5000), "the largest stays");
    assert_eq!(rows.processes.len(), ROWS);
    let n = u64::from(n);
    assert_eq!(sums(&rows), (n, 3 * n, 2 * n, 2 * n, Some(5000)));
    let [x] = rows.folded.as_slice() else { panic!("one name: {:?}", rows.folded) };
    assert_eq!((x.comm.as_str(), x.processes, x.failing), ("x", n - ROWS as u64, n - ROWS as u64));
    assert_eq!((x.failed, x.exact, x.various), (Some(2 * x.processes), true, false));
    assert!(rows.exact_peaks && rows.exact_calls);
    let alike: Vec<_> = rows.failures.iter().filter(|f| f.processes > 1).collect();
    assert_eq!(
        alike.iter().map(|f| (f.processes, f.count)).collect::<Vec<_>>(),
        [(x.processes, 2 * x.processes)]
    );
}

/// The worst crowd: everybody is called otherwise, and each call is refused in another way.
#[test]
fn a_crowd_of_names_and_failures_fits_and_stays_counted() {
    let mut audit = audit();
    let n = 5000;
    for pid in 1..=n {
        process(&mut audit, pid, 20 + pid % 7, u64::from(1 + pid % 3), true);
        let mm = audit.processes.last_entry().unwrap().into_mut().mms.first_mut().unwrap();
        let call = (pid % u32::try_from(CALLS.len()).unwrap()) as u8;
        mm.calls[0].0 = call;
        (mm.refusals[0].call, mm.refusals[0].class) = (call, CLASS_SECTION | u64::from(pid));
        audit.processes.last_entry().unwrap().get_mut().comm = "\u{1b}".repeat(14) + &pid.to_string();
        thin_out(&mut audit);
    }
    let counted = sums(&audit.rows());
    audit.fold_at_end();
    assert_eq!(sums(&audit.rows()), counted);
    audit.fit(300_000);
    let rows = audit.rows();
    assert_eq!(sums(&rows), counted);
    assert_eq!(counted.0, u64::from(n));
    let size = folded::bytes(&(&rows.processes, &rows.failures, &rows.ordinary, &rows.folded));
    assert!(!rows.processes.is_empty() && size < 2_000_000, "{size} bytes");
    let various = rows.folded.iter().find(|sum| sum.various).unwrap();
    assert!(various.processes > u64::from(n) / 2, "{various:?}");
    assert!(rows.folded.len() <= 401, "{}", rows.folded.len());
}

/// A name with many processes survives however many names come once.
#[test]
fn a_name_of_many_is_kept_apart() {
    let mut audit = audit();
    for pid in 1..=20_000 {
        process(&mut audit, pid, 20, 0, true);
        if pid % 2 == 0 {
            audit.processes.last_entry().unwrap().get_mut().comm = pid.to_string();
        }
        thin_out(&mut audit);
    }
    let rows = audit.rows();
    let x = rows.folded.iter().find(|sum| sum.comm == "x" && !sum.various).unwrap();
    assert!(x.processes > 8_000, "{x:?}");
}

#[test]
fn what_is_learned_at_the_end_holds_for_those_without_a_row_too() {
    let mut audit = audit();
    for pid in 1..=2001 {
        process(&mut audit, pid, 20, 1, true);
    }
    thin_out(&mut audit);
    let doubt = Doubt { peaks: true, causes: true, ..Doubt::default() };
    audit.apply(Event::Lost(Losses { doubt, ..Losses::default() }));
    let rows = audit.rows();
    assert!(!rows.folded.is_empty() && rows.folded.iter().all(|sum| !sum.exact));
    assert!(!rows.exact_peaks && rows.failures.iter().all(|failure| !failure.certain));
}

/// An image of process 7; the `n`th is the one of generation `n`.
fn image(audit: &mut Audit, n: u32, peak: u32, kind: Option<RefusalGroup>) {
    process(audit, 1_000_000 + n, peak, 0, true);
    let mut mms = audit.processes.pop_last().unwrap().1.mms;
    let mut mm = mms.remove(0);
    mm.process = ProcessId { tgid: 7, start_ns: 1 };
    mm.generation = n.into();
    (mm.first, mm.last) = (n, n + 1);
    let failed = kind.as_ref().map_or(0, |kind| kind.count);
    mm.calls = vec![(MUNMAP, CallStat { calls: 10, added: 2, removed: 1, failed })];
    mm.refusals = kind.into_iter().collect();
    audit.apply(Event::Mm(Box::new(mm)));
}

fn refusal(class: u64, count: u64, kept_bytes: u64) -> RefusalGroup {
    RefusalGroup {
        call: MUNMAP,
        errno: libc::ENOMEM as u8,
        class,
        count,
        first_ns: 1,
        last_ns: 2,
        kept_bytes,
        recovered: 0,
        needed: Needed::default(),
        sites: Vec::new(),
    }
}

const AT_THE_LIMIT: u64 = CLASS_SECTION | 7 | 7 << CLASS_MC1_SHIFT;
/// Without it nothing is at it.
fn with_the_limit(mut audit: Audit) -> Audit {
    audit.apply(Event::Limits(Limits { max_map_count: Some(65530), ..Limits::default() }));
    audit
}

const ABOVE: u64 = CLASS_SECTION | 8 | 8 << CLASS_MC1_SHIFT;

#[test]
fn a_process_that_execs_without_end_takes_bounded_memory_and_keeps_its_figures() {
    let mut audit = with_the_limit(audit());
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

/// Many images of many processes would be the product of both bounds.
#[test]
fn in_a_crowd_few_images_are_kept_apart() {
    let mut audit = audit();
    for pid in 1..=200 {
        process(&mut audit, pid, 20, 0, true);
    }
    for i in 1..=50 {
        image(&mut audit, i, 20 + i, Some(refusal(AT_THE_LIMIT, 2, 4096)));
    }
    let rows = audit.rows();
    let row = rows.processes.iter().find(|row| row.pid == 7 && row.images_folded > 0).unwrap();
    assert_eq!((row.images.len(), row.images_folded, row.map_count.peak), (4, 46, Some(70)));
    assert_eq!(row.calls["munmap"].failed, Some(100));
}

#[test]
fn an_image_with_a_gap_keeps_the_process_inexact_when_it_is_folded() {
    let mut audit = audit();
    for i in 1..=200 {
        image(&mut audit, i, 20, None);
        if i == 3 {
            let process = audit.processes.values_mut().next().unwrap();
            process.mms.last_mut().unwrap().gaps = Some(1);
        }
    }
    assert!(!audit.rows().processes[0].map_count.exact);
}

#[test]
fn kinds_beyond_what_is_kept_stay_counted() {
    let mut audit = audit();
    let n = 2 * MAX_KINDS as u32;
    for i in 1..=n {
        image(&mut audit, i, 20, Some(refusal(CLASS_SECTION | 1 | u64::from(i) << 20, 3, 4096)));
    }
    let rows = audit.rows();
    let counted: u64 = rows.failures.iter().chain(&rows.ordinary).map(|f| f.count).sum();
    assert_eq!(counted, 3 * u64::from(n));
    assert_eq!(rows.processes[0].unmap_leaked_bytes, Some(4096 * u64::from(n)));
    let mms = &audit.processes.values().next().unwrap().mms;
    assert!(mms.iter().all(|mm| mm.refusals.len() <= MAX_KINDS));
}

/// One failure of two kinds in one process.
fn of_two_kinds(other: RefusalGroup) -> Failure {
    let mut audit = with_the_limit(audit());
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
    assert!(failure.sentence.contains("in all, 12 KiB stay mapped"), "{}", failure.sentence);
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
        let named = ProcessFacts {
            process,
            at_ns: start_ns,
            exe: Some(exe.into()),
            cgroup: Some(format!("/system.slice{exe}.service")),
            within: Within { container: Some(exe.into()), ..Within::default() },
        };
        audit.apply(Event::Process(named));
    }
    process(&mut audit, 30, 20, 0, true);
    let row = audit.rows().processes.remove(0);
    assert_eq!((row.exe.as_deref(), row.container.as_deref()), (Some("/parent"), Some("/parent")));
    assert_eq!(row.unit.as_deref(), Some("parent.service"));
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
    for pid in 1..=2001 {
        process(&mut audit, pid, if pid > 1500 { 30 } else { 20 }, u64::from(pid <= 400), true);
    }
    thin_out(&mut audit);
    let rows = audit.rows();
    assert!(rows.folded.iter().all(|sum| sum.failing == 0 && sum.peak_max == Some(20)), "{:?}", rows.folded);
    assert_eq!(rows.failures.len(), 400);
}

/// An exec ends an address space, too: who may go on is not added up before he has.
#[test]
fn only_those_of_which_nothing_more_comes_are_added_up() {
    let mut audit = audit();
    for pid in 1..=4000 {
        process(&mut audit, pid, 20, 0, pid % 2 == 0);
    }
    let over: HashSet<ProcessId> = audit.ended().filter(|id| id.tgid % 4 == 0).collect();
    audit.fold(&over);
    assert_eq!(audit.processes.keys().filter(|id| id.tgid % 4 != 0).count(), 3000, "these may go on");
    assert!(audit.processes.len() < 3500, "of the others, the first rows stay: {}", audit.processes.len());
    assert!(!audit.crowded(), "the next adding up waits for more");
    audit.fold_at_end();
    assert_eq!(
        audit.rows().folded.iter().map(|sum| (sum.processes, sum.still_running)).next(),
        Some((3000, 1500))
    );
}

#[test]
fn processes_that_were_only_mentioned_are_forgotten_when_they_are_over() {
    let mut audit = audit();
    for tgid in 1..=2001 {
        let process = ProcessId { tgid, start_ns: 1 };
        audit.apply(Event::Process(ProcessFacts {
            process,
            at_ns: 1,
            exe: None,
            cgroup: None,
            within: Within::default(),
        }));
    }
    let over = audit.ended().filter(|id| id.tgid > 1).collect();
    audit.fold(&over);
    assert_eq!(audit.processes.len(), 1);
    assert!(audit.rows().folded.is_empty(), "they had no row");
}

/// The child's row comes when its parent is long forgotten.
#[test]
fn a_child_keeps_its_forgotten_parents_file() {
    let mut audit = audit();
    process(&mut audit, 1, 10, 0, true);
    let named = ProcessId { tgid: 1, start_ns: 1 };
    audit.apply(Event::Process(ProcessFacts {
        process: named,
        at_ns: 1,
        exe: Some("/bin/parent".into()),
        cgroup: None,
        within: Within::default(),
    }));
    for pid in 2..=2001 {
        process(&mut audit, pid, 20, 0, true);
    }
    // Born first, so it keeps its row as the command does.
    audit.root = None;
    thin_out(&mut audit);
    assert!(!audit.processes.contains_key(&named));
    assert!(audit.rows().processes.iter().all(|row| row.exe.as_deref() == Some("/bin/parent")));
}

/// Most calls of the kind came to a good end, at another place.
#[test]
fn the_example_of_a_row_is_one_of_its_own_outcome() {
    let mut audit = with_the_limit(audit());
    let mut kind = refusal(AT_THE_LIMIT, 101, 0);
    kind.recovered = 100;
    for (site, count, recovered) in [(5, 100, 100), (6, 1, 0)] {
        let (smallest_bytes, largest_bytes) = (site, site);
        let (first_ns, last_ns) = (1, 2);
        kind.sites.push(RefusalSite {
            site,
            count,
            recovered,
            first_ns,
            last_ns,
            smallest_bytes,
            largest_bytes,
        });
        let args = [0x1000, site, 0, 0, 0, 0];
        let refused = Refused { call: MUNMAP, class: AT_THE_LIMIT, args, site, ..Refused::example() };
        audit.apply(Event::Refused(Box::new(refused)));
    }
    image(&mut audit, 1, 65530, Some(kind));
    let rows = audit.rows();
    let mut told: Vec<_> = rows
        .failures
        .iter()
        .map(|row| (row.outcome, row.count, row.example.as_ref().unwrap().args["len"].as_u64()))
        .collect();
    told.sort();
    assert_eq!(told, [(Outcome::Unrecovered, 1, Some(6)), (Outcome::Recovered, 100, Some(5))]);
}
