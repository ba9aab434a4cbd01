//! More images of one process than are kept apart.

use super::*;
use crate::model::event::Joined;
use crate::model::makers::Credit;
use crate::model::mark::MarkSet;
use vmaudit_common::call::{Call, MMAP, MPROTECT};

/// An image of process 1 that lived from `born` to `dead`.
fn image(audit: &mut Audit, generation: u64, (peak, last): (u32, u32), (born, dead): (u64, Option<u64>)) {
    let mut other = self::audit();
    process(&mut other, 1, peak, 0, true);
    let mm = other.processes.into_values().next().unwrap().mms.remove(0);
    let state =
        MmState { generation, last, born_ns: born, peak_ns: born, dead_ns: dead, from_exec: true, ..mm };
    audit.apply(Event::Mm(Box::new(state)));
}

fn credit(audit: &mut Audit, generation: u64, level: u32, call: Call) {
    let whole = Credit {
        key: 0,
        at_ns: 1,
        generation,
        tgid: 1,
        tid: 1,
        base: 1,
        level,
        call,
        place: 0,
        caller: None,
        stack: Vec::new(),
    };
    audit.apply(Event::Credit(Box::new(whole)));
}

#[test]
fn makers_are_those_of_the_image_that_has_the_peak() {
    for larger in [1, 2, 5] {
        let mut audit = audit();
        for generation in 1..=MAX_IMAGES as u64 * 3 {
            let (peak, call) = if generation == larger { (9_000, MPROTECT) } else { (300, MMAP) };
            credit(&mut audit, generation, peak, call);
            image(&mut audit, generation, (peak, 2), (generation, Some(generation + 1)));
        }
        let rows = audit.rows().processes.remove(0);
        assert_eq!(rows.map_count.peak, Some(9_000));
        let (most, all) = (rows.makers.first().unwrap(), rows.makers.iter().map(|maker| maker.count));
        assert_eq!((most.syscall.as_deref(), all.sum::<u64>()), (Some("mprotect"), 9_000), "{larger}");
        assert!(audit.makers.piles() <= MAX_IMAGES, "those that were folded are forgotten");
    }
}

/// As a flight recorder tells of images that it put together.
#[test]
fn makers_of_an_image_that_was_outgrown_are_not_those_of_the_peak() {
    for outgrown in [true, false] {
        let mut audit = audit();
        credit(&mut audit, 1, 300, MMAP);
        let joined = Joined { images: 1, outgrown, ..Joined::default() };
        let mut other = self::audit();
        process(&mut other, 1, 9_000, 0, true);
        let mm = other.processes.into_values().next().unwrap().mms.remove(0);
        let state = MmState { generation: 1, from_exec: true, joined: Some(Box::new(joined)), ..mm };
        audit.apply(Event::Mm(Box::new(state)));
        let rows = audit.rows().processes.remove(0);
        let named = rows.makers.iter().any(|maker| maker.syscall.is_some());
        assert_eq!(named, !outgrown, "{:?}", rows.makers);
    }
}

fn boundary(audit: &mut Audit, at_ns: u64, begins: bool) {
    let (number, name) = (1, "m".into());
    audit.apply(Event::Mark(Box::new(MarkSet {
        at_ns,
        number,
        begins,
        name,
        by: 1,
        cut_ns: None,
        doubt: None,
    })));
}

#[test]
fn a_peak_before_the_mark_is_none_within_it_when_images_become_one() {
    let mut audit = audit();
    image(&mut audit, 1, (50, 40), (1, Some(10)));
    image(&mut audit, 2, (500, 10), (10, None));
    boundary(&mut audit, 20, true);
    image(&mut audit, 2, (500, 10), (10, Some(30)));
    for generation in 3..=MAX_IMAGES as u64 + 20 {
        image(&mut audit, generation, (20, 5), (27 + generation, Some(28 + generation)));
    }
    boundary(&mut audit, 900, false);
    let mark = audit.marks(true).remove(0);
    assert_eq!((mark.peak, mark.peak_bound), (Some(20), Some(crate::model::memory::Accuracy::Exact)));
    assert!(audit.rows().processes[0].images_folded > 10);
}
