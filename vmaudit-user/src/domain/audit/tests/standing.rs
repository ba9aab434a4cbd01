use super::*;
use crate::model::within::Within;

fn id(n: u32) -> ProcessId {
    ProcessId { tgid: n, start_ns: n.into() }
}

/// As a checkpoint and looks go on in a session of months.
#[test]
fn any_number_of_processes_leaves_nothing_behind() {
    let mut audit = audit();
    process(&mut audit, 1, 10, 1, false);
    let mut sums = (0, 0);
    for n in 2..5000 {
        process(&mut audit, n, n, u64::from(n % 2), true);
        if n % 100 == 0 {
            let over: HashSet<ProcessId> = audit.ended().collect();
            for gone in audit.release(&over) {
                sums.0 += 1;
                sums.1 += gone.refused.iter().map(|(_, failure)| failure.count).sum::<u64>();
            }
            audit.forget_details();
        }
    }
    assert_eq!(sums, (4899, 2449));
    let over: HashSet<ProcessId> = audit.ended().collect();
    assert_eq!(audit.release(&over).len(), 99);
    assert_eq!((audit.processes.len(), audit.examples.len()), (1, 1));
    // It was released, so nothing of it is in the sums of a crowd.
    assert!(audit.rows().folded.is_empty() && !audit.crowded());
    assert_eq!(audit.standings().map(|standing| standing.row.pid).collect::<Vec<_>>(), [1]);
}

/// The details of a call come before its address space is told of.
#[test]
fn details_of_an_address_space_that_is_not_known_yet_stay_for_a_while() {
    let mut audit = audit();
    audit.apply(Event::Refused(Box::new(Refused { generation: 7, ..Refused::example() })));
    audit.apply(Event::Refused(Box::new(Refused { generation: 8, ..Refused::example() })));
    audit.forget_details();
    assert_eq!(audit.examples.len(), 2);
    process(&mut audit, 7, 10, 0, false);
    audit.forget_details();
    assert_eq!(audit.examples.keys().map(|(generation, ..)| *generation).collect::<Vec<_>>(), [7]);
}

/// A child that lived too short to be asked is in the unit of its parent, also when that is gone.
#[test]
fn a_child_is_in_its_parents_unit() {
    let mut audit = audit();
    process(&mut audit, 1, 10, 0, true);
    audit.apply(Event::Process(ProcessFacts {
        process: id(1),
        at_ns: 1,
        exe: None,
        cgroup: Some("/system.slice/db.service".into()),
        within: Within::default(),
    }));
    process(&mut audit, 2, 10, 0, true);
    if let Some(mm) = audit.processes.get_mut(&id(2)).and_then(|process| process.mms.first_mut()) {
        mm.from_exec = true;
    }
    assert_eq!(audit.release(&HashSet::from([id(1)])).len(), 1);
    let child = audit.release(&HashSet::from([id(2)])).remove(0);
    assert_eq!(child.row.unit.as_deref(), Some("db.service"));
}

/// What lies between two looks is in the curve of a screen too.
#[test]
fn a_burst_between_two_looks_is_in_the_series() {
    use crate::model::event::{Interval, Reached};
    let mut audit = audit();
    for (n, peak) in [(1_u64, 20), (2, 900), (3, 20)] {
        audit.apply(Event::Interval(Box::new(Interval {
            every_ns: 100,
            from_ns: n * 100,
            to_ns: n * 100 + 100,
            of: vec![Reached(7, peak, 20)],
            by: Vec::new(),
        })));
    }
    process(&mut audit, 7, 900, 0, false);
    assert!(audit.standings().all(|standing| standing.row.series.is_none()), "nobody asked");
    let standing = audit.standings_with_series().next().unwrap();
    let series = standing.row.series.unwrap();
    assert!(series.peak.contains(&900) && series.exact && series.peak.len() > 2, "{series:?}");
}
