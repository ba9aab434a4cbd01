//! What refused calls have left mapped that should have gone, and what of it goes later: told to user space, which keeps
//! the ranges of each address space as a set, so that a range counts once however often it was refused.
//!
//! Bounded in time: a retry of a range that was told already is not told again, and of what is unmapped later only what
//! lies between the first and the last of the ranges is told. How many records were due is in the slot: a record that
//! found no room is missed by whoever counts them.

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{
    ABSENT, GROUPS, LEFT_BREAK, LEFT_GONE, LEFT_IN_HEAP, LEFT_MAPPED, LEFT_OF_HEAP,
    call::{self, Call},
    hull_of, hull_of_both, hulls_meet,
};

use crate::{
    control::{Word, layout},
    kernel::{self, whole_pages},
    records,
    slots::Slot,
};

/// A power of two.
const TOLD: u32 = 8192;

/// Ranges that were told last, as marks.
#[map]
static LEFT_TOLD: Array<u64> = Array::with_max_entries(TOLD, 0);

const TRIES: u32 = 8;
/// All addresses.
const ALL: u64 = 0xffff_ffff;

/// Whether a call of this kind that succeeds may take away what refused ones have left.
#[inline(always)]
pub fn may_go(slot: Slot, id: Call) -> bool {
    const UNMAPPING: u64 =
        1 << call::MMAP | 1 << call::MUNMAP | 1 << call::MREMAP | 1 << call::BRK | 1 << call::SHMDT;
    UNMAPPING >> (id & 63) & 1 == 1 && slot.left_hull().read() != 0
}

/// What the refused call should have unmapped and did not; `ret`: its answer. `n`: the group that it was counted in.
#[inline(always)]
pub fn stays(slot: Slot, n: usize, id: Call, ret: u64, [a0, a1, a2, _]: [u64; 4]) {
    let (start, end, what) = match id {
        // A length above the last whole page rounds to 0, here as in the kernel.
        call::MUNMAP => (a0, a0.wrapping_add(whole_pages(a1)), LEFT_MAPPED),
        call::MREMAP => (a0.wrapping_add(whole_pages(a2)), a0.wrapping_add(whole_pages(a1)), LEFT_MAPPED),
        call::BRK => (whole_pages(a0), whole_pages(ret), LEFT_OF_HEAP),
        _ => return,
    };
    if end <= start || told(slot, start, end) {
        return;
    }
    let what = if what == LEFT_MAPPED && in_heap(start, end) { LEFT_IN_HEAP } else { what };
    widen(slot.left_hull(), hull_of(start, end));
    slot.left_records().add(1);
    let group = if n < GROUPS { n } else { GROUPS };
    records::left(slot, start, end, what, group as u32);
}

/// The range lies in the heap of `current`.
#[inline(always)]
fn in_heap(start: u64, end: u64) -> bool {
    let brk = layout!(mm_brk);
    if brk == ABSENT {
        return false;
    }
    let [from, to] = kernel::read_words(kernel::mm_of(kernel::current()), [layout!(mm_start_brk), brk]);
    start >= from && end <= whole_pages(to)
}

/// The range was told, and nothing was since that may have taken it away. If not, it is from now on.
#[inline(always)]
fn told(slot: Slot, start: u64, end: u64) -> bool {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let whose = slot.generation() ^ slot.gone_records().read().rotate_left(32);
    let mixed = (start ^ end.rotate_left(24) ^ whose.wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
    let mark = (mixed ^ mixed >> 32).wrapping_mul(SPREAD) | 1;
    let Some(place) = LEFT_TOLD.get_ptr_mut((mark >> 32) as u32 & (TOLD - 1)) else { return false };
    // SAFETY: points into the map, which 64-bit words make.
    let place = unsafe { Word::new(place) };
    if place.read() == mark {
        return true;
    }
    place.write(mark);
    false
}

#[inline(always)]
fn widen(hull: Word, by: u64) {
    for _ in 0..TRIES {
        let was = hull.read();
        let both = hull_of_both(was, by);
        if both == was {
            return;
        }
        if hull.claim(was, both).is_ok() {
            return;
        }
    }
    // Others are at it: better too wide than too narrow.
    hull.write(ALL);
}

/// `current`'s call in the address space with this slot has succeeded; see [`may_go`].
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn left_goes(index: u32, id: u32) -> u64 {
    if let Some(slot) = Slot::at(index) {
        let [a0, a1, a2, a3, a4, _] = kernel::arguments(kernel::registers());
        goes(slot, id as Call, [a0, a1, a2, a3], a4);
    }
    0
}

/// What the call with these arguments has unmapped, replaced or moved.
#[inline(always)]
fn goes(slot: Slot, id: Call, [a0, a1, a2, a3]: [u64; 4], a4: u64) {
    const MAP_FIXED: u64 = 0x10;
    const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
    const MREMAP_FIXED: u64 = 2;
    const MREMAP_DONTUNMAP: u64 = 4;
    match id {
        call::MUNMAP => tell_gone(slot, a0, a0.wrapping_add(whole_pages(a1))),
        call::MMAP if a3 & MAP_FIXED != 0 && a3 & MAP_FIXED_NOREPLACE == 0 => {
            tell_gone(slot, a0, a0.wrapping_add(whole_pages(a1)));
        }
        call::MREMAP => {
            let (old, new) = (whole_pages(a1), whole_pages(a2));
            let moves = a3 & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0;
            // What shrinks where it is keeps its beginning; what grows is its owner's again, wherever it goes.
            let from = if new < old && !moves { new } else { 0 };
            tell_gone(slot, a0.wrapping_add(from), a0.wrapping_add(old));
            if a3 & MREMAP_FIXED != 0 {
                tell_gone(slot, a4, a4.wrapping_add(new));
            }
        }
        // A break below the start of the heap is a question.
        call::BRK if a0 >= kernel::start_brk(kernel::current()) => {
            tell(slot, whole_pages(a0), u64::MAX, LEFT_BREAK);
        }
        // How long the segment is no argument tells: a record that was due and is not sent.
        call::SHMDT if hulls_meet(slot.left_hull().read(), hull_of(a0, u64::MAX)) => {
            slot.gone_records().add(1);
        }
        _ => {}
    }
}

#[inline(always)]
fn tell_gone(slot: Slot, start: u64, end: u64) {
    if start < end {
        tell(slot, start, end, LEFT_GONE);
    }
}

#[inline(always)]
fn tell(slot: Slot, start: u64, end: u64, what: u32) {
    // The heap may begin above a new end of it.
    if what != LEFT_BREAK && !hulls_meet(slot.left_hull().read(), hull_of(start, end)) {
        return;
    }
    slot.gone_records().add(1);
    if records::has_room_for_left() {
        records::left(slot, start, end, what, GROUPS as u32);
    }
}
