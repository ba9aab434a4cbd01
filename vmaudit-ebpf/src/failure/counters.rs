//! How many refusals of each kind there were in an address space; and, where [`super::left`] is not at work, how many bytes
//! they left mapped that should have gone.

use vmaudit_common::{
    EXAMPLES_PER_GROUP, GROUPS,
    call::{self, Call},
};

use crate::{
    call::{FailedCall, ReturnedCall},
    control::{Page, lost},
    kernel::{first_arguments, whole_pages},
    slots::{self, Group, Slot},
};

/// What a refused call should have unmapped.
#[derive(Clone, Copy)]
pub struct Leaked {
    /// Bytes.
    pub bytes: u64,
    /// See [`vmaudit_common::MmSlot::leaked_range`]; the low 4 bits are 0.
    pub mark: u64,
}

impl Leaked {
    pub const NOTHING: Self = Self { bytes: 0, mark: 0 };
}

/// What this refused call should have unmapped.
#[inline(always)]
pub fn leaked_by(failed: &FailedCall) -> Leaked {
    let FailedCall { id, ret, .. } = *failed;
    let [a0, a1, a2, _] = first_arguments(failed.regs);
    let bytes = match id {
        call::MUNMAP => whole_pages(a1),
        // A length above the last whole page rounds to 0, here as in the kernel.
        call::MREMAP => whole_pages(a1).saturating_sub(whole_pages(a2)),
        call::BRK if a0 < ret => whole_pages(ret).saturating_sub(whole_pages(a0)),
        _ => 0,
    };
    Leaked { bytes, mark: range_mark(id, a0, a1, a2) }
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

/// A call that unmaps succeeded. If it is the retry of the last refused one, nothing was leaked after all. `CAS`: the
/// kernel has compare-and-swap.
#[inline(always)]
pub fn given_back<const CAS: bool>(slot: Slot, returned: &ReturnedCall) {
    let leaked_range = slot.leaked_range();
    let range = leaked_range.read();
    if range == 0 || returned.ret < 0 {
        return;
    }
    let [a0, a1, a2, _] = first_arguments(returned.regs);
    if range_mark(returned.id, a0, a1, a2) != range & !0xf {
        return;
    }
    let Some(group) = slot.group(core::hint::black_box((range & 0xf) as usize)) else { return };
    // Whoever clears the mark owns the bytes under it.
    let ours = if CAS {
        leaked_range.claim(range, 0).is_ok()
    } else {
        // Two threads that retry the same range at once are not told apart.
        leaked_range.write(0);
        true
    };
    if ours {
        group.leaked_bytes().add(group.last_leaked().read().wrapping_neg());
    }
}

/// Adds what was not unmapped, unless this is the last refused range again. Sums stop far below where they would
/// begin at 0 again.
#[inline(always)]
fn add_leaked(slot: Slot, group: Group, n: usize, leaked: Leaked) {
    const ENOUGH: u64 = 1 << 62;
    if slot.leaked_range().read() & !0xf == leaked.mark || group.leaked_bytes().read() > ENOUGH {
        return;
    }
    group.leaked_bytes().add(leaked.bytes);
    group.last_leaked().write(leaked.bytes);
    slot.leaked_range().write(leaked.mark | n as u64);
}

/// Where a failure was counted.
#[derive(Clone, Copy)]
pub struct Counted {
    /// Number of the group; [`GROUPS`]: there was no room for one more kind.
    pub group: usize,
    /// How many of the kind there were before.
    pub before: u64,
}

impl Counted {
    /// Not at all.
    pub const NOWHERE: Self = Self { group: GROUPS, before: EXAMPLES_PER_GROUP };

    /// In one word: global functions return no more.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.before << 8 | self.group as u64
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self { group: (word & 0xff) as usize, before: word >> 8 }
    }
}

/// Counts a failure under its kind. `CAS`: see [`given_back`].
#[inline(always)]
pub fn count<const CAS: bool>(slot: Slot, key: u64, now: u64, leaked: Leaked) -> Counted {
    let page = Page::get();
    let zero = page.unknown_zero();
    let mut found = GROUPS;
    for n in 0..GROUPS {
        // Threads meet here, hence the atomics.
        let Some(group) = slot.group(n) else { break };
        let mut seen = group.key().read();
        if seen == 0 {
            let claimed = if CAS {
                group.key().claim(0, key)
            } else {
                slots::claim_group_without_cas(slot, n, group.key(), key)
            };
            match claimed {
                Ok(()) => {
                    group.set_first_ns(now);
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
    let n = found ^ zero as usize;
    let Some(group) = slot.group(n) else {
        lost!(groups_full);
        return Counted::NOWHERE;
    };
    let before = group.count().read();
    group.count().add(1);
    group.set_last_ns(now);
    if leaked.bytes != 0 {
        add_leaked(slot, group, n, leaked);
    }
    Counted { group: n, before }
}
