//! Changes by place: what a row without one says.

use super::*;
use crate::model::makers::{Credit, Entered, Place};
use crate::model::report::{Changes, NoPlace};
use vmaudit_common::call::MMAP;

/// A process whose calls added `added` VMAs from the place with this key, `peak` at the most.
fn with_ledger(audit: &mut Audit, n: u32, peak: u32, (key, added): (u64, u64), place: bool) {
    let mut other = self::audit();
    process(&mut other, n, peak, 0, true);
    let mm = other.processes.into_values().next().unwrap().mms.remove(0);
    entry(audit, n, u64::from(n), key, place);
    let stat = CallStat { calls: added, added, removed: 0, failed: 0 };
    let ledger = Some(vec![Entered { key, call: MMAP, added, removed: 0 }]);
    audit.apply(Event::Mm(Box::new(MmState { calls: vec![(MMAP, stat)], ledger, ..mm })));
}

/// An entry's place is told; `place`: with its stack.
fn entry(audit: &mut Audit, tgid: u32, generation: u64, key: u64, place: bool) {
    let of = key as u32;
    audit.apply(Event::Credit(Box::new(Credit {
        key,
        at_ns: 1,
        generation,
        tgid,
        tid: tgid,
        base: 0,
        level: 0,
        call: MMAP,
        place: of,
        caller: None,
        stack: Vec::new(),
    })));
    if place {
        let place = Place { generation, place: of, caller: None, stack: vec![0x1000 + key] };
        audit.apply(Event::Place(Box::new(place)));
    }
}

fn rows(audit: &Audit, pid: u32) -> Vec<Changes> {
    audit.rows().processes.into_iter().find(|row| row.pid == pid).expect("its row").changes
}

#[test]
fn a_row_without_a_place_says_why() {
    let mut audit = audit();
    with_ledger(&mut audit, 1, 50, (1, 5), false);
    let all = rows(&audit, 1);
    let [row] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((row.added, row.nobody, row.stack.len()), (5, Some(NoPlace::NotTold), 0));
    assert_eq!(row.stack_notes.len(), 1, "{row:?}");
}

/// The two oldest images become one: none of its changes has a place, and none is said to be lost.
#[test]
fn images_that_became_one_keep_no_places() {
    for larger in [1, 2] {
        let mut audit = audit();
        let images = MAX_IMAGES as u64 + 20;
        for generation in 1..=images {
            let peak = if generation == larger { 900 } else { 50 };
            let mut other = self::audit();
            process(&mut other, 1, peak, 0, true);
            let mm = other.processes.into_values().next().unwrap().mms.remove(0);
            entry(&mut audit, 1, generation, generation, true);
            let calls = vec![(MMAP, CallStat { calls: 7, added: 7, removed: 0, failed: 0 })];
            let ledger = Some(vec![Entered { key: generation, call: MMAP, added: 7, removed: 0 }]);
            audit.apply(Event::Mm(Box::new(MmState { generation, calls, ledger, ..mm })));
        }
        let all = rows(&audit, 1);
        let sum = |why| all.iter().filter(|row| row.nobody == why).map(|row| row.added).sum::<u64>();
        let folded = images - MAX_IMAGES as u64 + 1;
        assert_eq!(
            (sum(None), sum(Some(NoPlace::NotSampled)), sum(Some(NoPlace::NotTold))),
            (7 * (images - folded), 7 * folded, 0),
            "{larger}"
        );
        assert_eq!(audit.makers.entries(), MAX_IMAGES - 1, "those of the others are forgotten");
    }
}
