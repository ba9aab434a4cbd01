//! Refusals are booked here: how many of each kind, and how many bytes stayed mapped that should have gone.

use vmaudit_common::{
    EXAMPLES_PER_GROUP, FailureGroup, GROUPS, MmSlot,
    call::{self, Call},
};

use crate::{
    kernel::{first_arguments, whole_pages},
    maps::{self, lost},
    refused::Refused,
};

/// What a refused call should have unmapped.
#[derive(Clone, Copy)]
pub struct Kept {
    /// Bytes.
    pub bytes: u64,
    /// See [`MmSlot::kept_range`]; the low 4 bits are 0.
    pub mark: u64,
}

#[inline(always)]
pub fn kept(it: &Refused) -> Kept {
    let Refused { id, ret, .. } = *it;
    let [a0, a1, a2, _] = first_arguments(it.regs);
    let bytes = match id {
        call::MUNMAP => whole_pages(a1),
        // A length above the last whole page rounds to 0, here as in the kernel.
        call::MREMAP => whole_pages(a1).saturating_sub(whole_pages(a2)),
        call::BRK if a0 < ret => whole_pages(ret).saturating_sub(whole_pages(a0)),
        _ => 0,
    };
    Kept { bytes, mark: range_mark(id, a0, a1, a2) }
}

/// Tells the range of one call from that of another; mixed, so that both numbers fit one word (two ranges with the
/// same mark: 1 in 2^60).
#[inline(always)]
fn range_mark(id: Call, a0: u64, a1: u64, a2: u64) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let length = match id {
        call::MUNMAP => a1,
        call::MREMAP => a1 ^ a2.rotate_left(32),
        // A break that moved away leaves no trace of where it was.
        _ => 0,
    };
    let mixed = (a0 ^ length.wrapping_mul(SPREAD)).wrapping_mul(SPREAD) ^ u64::from(id);
    (mixed ^ mixed >> 32).wrapping_mul(SPREAD) & !0xf
}

/// A call that unmaps succeeded. If it is the retry of the last refused one, nothing was kept after all.
#[inline(always)]
pub fn given_back<const PLAIN: bool>(slot: *mut MmSlot, id: Call, ret: i64, regs: u64) {
    // SAFETY: `slot` points into SLOTS.
    let range = unsafe { core::ptr::read_volatile(&raw const (*slot).kept_range) };
    if range == 0 || ret < 0 {
        return;
    }
    let [a0, a1, a2, _] = first_arguments(regs);
    if range_mark(id, a0, a1, a2) != range & !0xf {
        return;
    }
    let n = core::hint::black_box((range & 0xf) as usize);
    if n >= GROUPS {
        return;
    }
    // SAFETY: as above, and `n` is below GROUPS. Whoever clears the mark owns the bytes under it.
    unsafe {
        let ours = if PLAIN {
            // Two threads that retry the same range at once are not told apart.
            core::ptr::write_volatile(&raw mut (*slot).kept_range, 0);
            true
        } else {
            maps::claim(&raw mut (*slot).kept_range, range, 0).is_ok()
        };
        if ours {
            let group = (&raw mut (*slot).failures).cast::<FailureGroup>().add(n);
            let bytes = core::ptr::read_volatile(&raw const (*group).last_kept);
            maps::add(&raw mut (*group).kept_bytes, bytes.wrapping_neg());
        }
    }
}

/// Adds what was not unmapped, unless this is the last refused range again. Sums stop far below where they would
/// begin at 0 again.
#[inline(always)]
fn keep(slot: *mut MmSlot, group: *mut FailureGroup, n: usize, kept: Kept) {
    const ENOUGH: u64 = 1 << 62;
    // SAFETY: both point into one value of SLOTS.
    unsafe {
        let range = core::ptr::read_volatile(&raw const (*slot).kept_range);
        if range & !0xf == kept.mark || core::ptr::read_volatile(&raw const (*group).kept_bytes) > ENOUGH {
            return;
        }
        maps::add(&raw mut (*group).kept_bytes, kept.bytes);
        (*group).last_kept = kept.bytes;
        core::ptr::write_volatile(&raw mut (*slot).kept_range, kept.mark | n as u64);
    }
}

/// Counts a failure under its kind; returns how many of the kind there were before.
#[inline(always)]
pub fn book<const PLAIN: bool>(slot: *mut MmSlot, key: u64, now: u64, kept: Kept) -> u64 {
    let Some(control) = maps::control() else { return EXAMPLES_PER_GROUP };
    let zero = maps::unknown_zero(control);
    let mut found = GROUPS;
    for n in 0..GROUPS {
        // SAFETY: `n` is below GROUPS; `slot` points into SLOTS. Threads meet here, hence the atomics.
        unsafe {
            let group = (&raw mut (*slot).failures).cast::<FailureGroup>().add(n);
            let mut seen = core::ptr::read_volatile(&raw const (*group).key);
            if seen == 0 {
                let word = &raw mut (*group).key;
                let claimed = if PLAIN {
                    maps::claim_group_plainly((*slot).generation, n, word, key)
                } else {
                    maps::claim(word, 0, key)
                };
                match claimed {
                    Ok(()) => {
                        (*group).first_ns = now;
                        seen = key;
                    }
                    Err(other) => seen = other,
                }
            }
            if seen == key {
                found = n;
                break;
            }
        }
    }
    let n = found ^ zero as usize;
    if n >= GROUPS {
        lost!(groups_full);
        return EXAMPLES_PER_GROUP;
    }
    // SAFETY: as above.
    unsafe {
        let group = (&raw mut (*slot).failures).cast::<FailureGroup>().add(n);
        let before = core::ptr::read_volatile(&raw const (*group).count);
        maps::add(&raw mut (*group).count, 1);
        (*group).last_ns = now;
        if kept.bytes != 0 {
            keep(slot, group, n, kept);
        }
        before
    }
}
