//! Changes by place: whose names are looked up, and what a row without a place says.

use super::*;
use crate::model::makers::{Credit, Entered, Place};
use crate::model::report::{Changes, NoPlace};
use crate::model::stack::StackName;
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

fn notes(audit: &Audit, pid: u32) -> String {
    rows(audit, pid).iter().flat_map(|row| row.stack_notes.clone()).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_was_refused_has_names_before_who_has_many_vmas_and_a_ledger() {
    let mut audit = audit();
    for n in 1..=50 {
        with_ledger(&mut audit, n, 1_000 + n, (1, 5), true);
    }
    // Of few VMAs, and refused.
    let credit = Credit {
        key: 0,
        at_ns: 1,
        generation: 99,
        tgid: 99,
        tid: 99,
        base: 1,
        level: 700,
        call: MMAP,
        place: 1,
        caller: None,
        stack: Vec::new(),
    };
    audit.apply(Event::Credit(Box::new(credit)));
    process(&mut audit, 99, 700, 1, true);
    let followed = audit.makers_followed();
    assert!(followed.contains(&99) && followed.len() == 32, "{followed:?}");
    assert!(followed.contains(&50) && !followed.contains(&1), "those with the largest peaks: {followed:?}");
}

#[test]
fn who_is_beyond_those_whose_names_are_looked_up_is_said_to_be() {
    let of_all = |audit: &mut Audit| {
        for n in 1..=50 {
            with_ledger(audit, n, 1_000 + n, (1, 5), true);
        }
        audit.apply(Event::FiguresEnd);
        [notes(audit, 50), notes(audit, 1)]
    };
    let [largest, smallest] = of_all(&mut audit());
    assert!(largest.contains("nobody could look at the mappings"), "{largest}");
    assert!(smallest.contains("names were looked up in some address spaces only"), "{smallest}");
    // What the flight recorder kept has names of all, where they were to be had.
    let mut kept = audit();
    kept.makers = Piles::new(true);
    assert!(of_all(&mut kept).iter().all(|notes| notes.contains("nobody could look")));
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

/// Who asks for every change has as many processes with a row of their own, and all their changes, if not all their places.
#[test]
fn a_crowd_keeps_its_rows_and_the_sums_of_its_changes() {
    let mut audit = audit();
    let (crowd, places) = (30, 50);
    for n in 1..=crowd {
        let mut other = self::audit();
        process(&mut other, n, 50, 0, true);
        let mm = other.processes.into_values().next().unwrap().mms.remove(0);
        (1..=places).for_each(|key| entry(&mut audit, n, n.into(), key, true));
        let ledger = (1..=places).map(|key| Entered { key, call: MMAP, added: key, removed: 1 }).collect();
        let stat = CallStat { calls: 1, added: places * (places + 1) / 2, removed: places, failed: 0 };
        audit.apply(Event::Mm(Box::new(MmState { calls: vec![(MMAP, stat)], ledger: Some(ledger), ..mm })));
    }
    audit.fit(300_000);
    let rows = audit.rows();
    assert_eq!(rows.processes.len(), crowd as usize, "a third of what they take is of changes");
    let sums = |of: fn(&Changes) -> u64| {
        rows.processes.iter().map(move |row| row.changes.iter().map(of).sum::<u64>()).collect::<Vec<_>>()
    };
    assert_eq!(sums(|row| row.added), vec![1275; crowd as usize]);
    assert_eq!(sums(|row| row.removed), vec![50; crowd as usize]);
    let whole = rows.processes.iter().filter(|row| row.changes.len() == 50).count();
    let said = |row: &Changes| row.nobody == Some(NoPlace::OtherPlaces) && row.stack_notes.len() == 1;
    let brief = rows.processes.iter().filter(|row| row.changes.len() == 9 && row.changes.iter().any(said));
    assert!(whole > 0 && whole + brief.count() == crowd as usize, "{whole}");
}

/// A recording may be anybody's: the rest of a stack is no more than a session tells.
#[test]
fn anybodys_stacks_take_no_more_room_than_ours() {
    let mut audit = audit();
    with_ledger(&mut audit, 1, 500, (1, 5), false);
    let place = Place { generation: 1, place: 1, caller: None, stack: (1..=5000).collect() };
    audit.apply(Event::Place(Box::new(place)));
    assert_eq!(rows(&audit, 1)[0].stack.len(), vmaudit_common::MAKER_FRAMES);
    let long = "n".repeat(1 << 20);
    audit.apply(Event::Stack(Box::new(FollowedStack {
        generation: 1,
        tid: 1,
        at_ns: 1,
        addresses: vec![1; 5000],
        notes: vec![long.clone(); 100],
        place: Some(1),
        cut: false,
    })));
    let frame = Frame { symbol: Some(long), ..Frame::bare(1) };
    audit.apply(Event::Frame(Box::new(StackName {
        generation: 1,
        ip: 1,
        frame: frame.clone(),
        inlined: vec![frame; 1000],
    })));
    let row = rows(&audit, 1).remove(0);
    let longest = |texts: &mut dyn Iterator<Item = &String>| texts.map(String::len).max().unwrap();
    assert_eq!(longest(&mut row.stack.iter().filter_map(|frame| frame.symbol.as_ref())), 3 * 4096);
    assert!(
        (15..22).contains(&row.stack.len()),
        "no more than the names of a stack take: {}",
        row.stack.len()
    );
    assert!(row.stack_notes.iter().any(|note| note.starts_with("The stack goes on")), "and that is said");
    assert!(row.stack_notes.len() < 12 && longest(&mut row.stack_notes.iter()) == 3 * 4096);
    // With short names it is as long as one that is followed.
    let short = Frame { symbol: Some("f".into()), ..Frame::bare(1) };
    let inlined = vec![short.clone(); 1000];
    audit.apply(Event::Frame(Box::new(StackName { generation: 1, ip: 1, frame: short, inlined })));
    assert_eq!(rows(&audit, 1)[0].stack.len(), 128 * 17);
}
