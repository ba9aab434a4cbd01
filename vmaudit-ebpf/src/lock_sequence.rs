//! Whether a release of the mmap lock was missed: from 6.4 on the kernel numbers the write sections of each address
//! space, so a gap in the numbers is a change that no program saw (the kernel skips programs, see
//! vmaudit-user/src/source/hooks.rs), and no gap is the proof that none was missed.
//!
//! `mm_lock_seq` goes up when a write section ends, after the event (include/linux/mmap_lock.h:vma_end_write_all, at the
//! downgrade of one that is downgraded); from 6.14 on, where it is a seqcount, also when one begins
//! (mm_lock_seqcount_begin).

use vmaudit_common::ABSENT;

use crate::{
    control::{layout, lost},
    kernel,
    slots::Slot,
};

/// What the number will be when no write section runs, given what it is now; `write`: one is about to end.
#[inline(always)]
pub fn ended(sequence: u32, write: bool) -> u32 {
    sequence.wrapping_add(u32::from(write)) & !layout!(mm_lock_seq_begins)
}

/// How many sections lie between two such numbers.
#[inline(always)]
pub fn between(earlier: u32, later: u32) -> u32 {
    later.wrapping_sub(earlier) >> layout!(mm_lock_seq_begins)
}

/// The number of the last section that ended, as of now; 0 where the kernel does not count.
#[inline(always)]
pub fn now(mm: u64) -> u32 {
    let offset = layout!(mm_lock_seq);
    if offset == ABSENT { 0 } else { ended(kernel::read(mm, offset), false) }
}

/// The same while nobody holds the lock, so that whoever held it has told it all; `None`: somebody does, or the kernel does
/// not count.
#[inline(always)]
pub fn settled(mm: u64) -> Option<u32> {
    // Bits that say that somebody waits (kernel/locking/rwsem.c: RWSEM_FLAG_WAITERS, RWSEM_FLAG_HANDOFF, all versions).
    const WAITING: u64 = 6;
    let lock = layout!(mm_lock_count);
    if layout!(mm_lock_seq) == ABSENT || lock == ABSENT {
        return None;
    }
    let free = || kernel::read::<u64>(mm, lock) & !WAITING == 0;
    if !free() {
        return None;
    }
    let sequence = now(mm);
    (free() && now(mm) == sequence).then_some(sequence)
}

/// Sections that ended since the slot's last one, this release's included; 0: nobody has written.
#[inline(always)]
pub fn since(slot: Slot, sequence: u32, write: bool) -> u32 {
    if layout!(mm_lock_seq) == ABSENT {
        return u32::from(write);
    }
    between(slot.sequence(), ended(sequence, write))
}

/// The slot is up to date with this release, the last of `sections` since it was so. Only for the releases of writers,
/// also of those that have let readers in before, and for a section that left the count as it was: else, a number that a
/// reader has seen proves no release.
#[inline(always)]
pub fn saw(slot: Slot, sequence: u32, write: bool, sections: u32) {
    slot.set_sequence(ended(sequence, write));
    if sections > 1 {
        missed(slot);
    }
}

/// Mappings of a new image as long as no count above them can have been missed: its stack, and the first piece of its
/// file. How many sections there were says nothing: long arguments make the stack grow, each time in one of its own
/// (fs/exec.c:get_arg_page, 6.5).
const OF_EXEC: u32 = 2;

/// The slot was opened at the release of the first section that was seen.
#[inline(always)]
pub fn begin(slot: Slot, mm: u64, new_image: bool) {
    let offset = layout!(mm_lock_seq);
    if offset == ABSENT {
        return;
    }
    slot.set_sequence(ended(kernel::read(mm, offset), true));
    if new_image && slot.first() > OF_EXEC {
        missed(slot);
    }
}

/// Sections of a child up to the moment at which it runs: one, in which its parent's mappings are copied
/// (kernel/fork.c:dup_mmap).
const OF_FORK: u32 = 1;

/// The slot of a child was opened late in its life, with the count that it was born with unless it has written since.
#[inline(always)]
pub fn only_born(slot: Slot) {
    if layout!(mm_lock_seq) != ABSENT && between(0, slot.sequence()) > OF_FORK {
        missed(slot);
    }
}

/// A release that should have opened the slot, or one before it ended, was not seen.
#[inline(always)]
pub fn late(slot: Slot) {
    if layout!(mm_lock_seq) != ABSENT {
        missed(slot);
    }
}

/// The address space ends: its last section must be one that was seen.
#[inline(always)]
pub fn end(slot: Slot, mm: u64) {
    if layout!(mm_lock_seq) == ABSENT {
        return;
    }
    if between(slot.sequence(), now(mm)) != 0 {
        missed(slot);
    }
}

#[inline(always)]
fn missed(slot: Slot) {
    slot.count_gap();
    lost!(changes_missed);
}
