//! Who takes free slots, and the kinds of failures within one.

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::HashMap,
};
use vmaudit_common::{GROUPS, SLOT_CLAIMED, SLOT_FREE};

use super::{BPF_NOEXIST, Slot};
use crate::{
    control::{Page, Word, config, lost},
    shares,
};

/// Claims of the programs for kernels without compare-and-swap (before 5.12): who inserts an entry first has the thing.
/// Slots: (0, number of the attempt). Failure groups: (generation, index + 1).
#[map]
static CLAIMS: HashMap<[u64; 2], u32> = HashMap::with_max_entries(16384, 0);

/// How many slots are looked at before the table counts as full.
const PROBES: u32 = 64;

/// Takes a free slot for an address space of this user; its generation and its share are set, all else is the caller's to
/// fill in before it goes live. `CAS`: the kernel has compare-and-swap; without it, generations come from the clock,
/// which also rises.
#[inline(always)]
pub fn claim<const CAS: bool>(uid: u32) -> Option<(u32, Slot)> {
    let answer = if CAS { claim_index(uid) } else { claim_index_without_cas(uid) };
    let index = u32::try_from(answer).ok()?;
    Some((index, Slot::at(index)?))
}

/// No slot.
const NO_INDEX: u64 = u64::MAX;

// Global: the verifier looks at the loops once, not in each program and state again.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_index(uid: u32) -> u64 {
    claim_in_share::<true>(uid).unwrap_or(NO_INDEX)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_index_without_cas(uid: u32) -> u64 {
    claim_in_share::<false>(uid).unwrap_or(NO_INDEX)
}

#[inline(always)]
fn claim_in_share<const CAS: bool>(uid: u32) -> Option<u64> {
    let Some(share) = shares::admit::<CAS>(uid) else {
        lost!(table_full);
        return None;
    };
    let index = if CAS { try_to_claim() } else { try_without_cas() };
    match index.and_then(|index| Slot::at(index as u32)) {
        Some(slot) => slot.set_share(share),
        None => shares::give_back(share),
    }
    index
}

#[inline(always)]
fn try_to_claim() -> Option<u64> {
    for _ in 0..PROBES {
        let index = claim_next();
        if index != NO_INDEX {
            return Some(index);
        }
    }
    lost!(table_full);
    None
}

/// The next slot, if it is free. Global: the verifier looks at one step, not at each.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_next() -> u64 {
    let page = Page::get();
    let index = page.cursor().take_turn(1) as u32 & config!(slots).wrapping_sub(1);
    let Some(slot) = Slot::at(index) else { return NO_INDEX };
    if slot.first_word().claim(u64::from(SLOT_FREE), u64::from(SLOT_CLAIMED)).is_err() {
        return NO_INDEX;
    }
    page.slots_in_use().add(1);
    slot.set_generation(page.generation().take_turn(1) + 1);
    u64::from(index)
}

#[inline(always)]
fn try_without_cas() -> Option<u64> {
    let page = Page::get();
    let mask = config!(slots).wrapping_sub(1);
    let first = page.cursor().read();
    for n in 0..PROBES {
        let turn = first + u64::from(n);
        let index = turn as u32 & mask;
        let slot = Slot::at(index)?;
        // Nobody looks back so far; the entry of this turn goes in the same way, whether or not its place is free then.
        let _ = CLAIMS.remove([0, turn.wrapping_sub(512)]);
        let free = slot.first_word().read() == u64::from(SLOT_FREE);
        if !free || CLAIMS.insert([0, turn], 0, BPF_NOEXIST).is_err() {
            continue;
        }
        slot.first_word().write(u64::from(SLOT_CLAIMED));
        page.slots_in_use().add(1);
        page.cursor().write(turn + 1);
        // SAFETY: no preconditions.
        slot.set_generation(unsafe { bpf_ktime_get_ns() << 6 | u64::from(bpf_get_smp_processor_id() & 63) });
        return Some(u64::from(index));
    }
    // The next birth looks behind what is taken here.
    page.cursor().write(first + u64::from(PROBES));
    lost!(table_full);
    None
}

/// [`Word::claim`] of a failure group's key without compare-and-swap; a key that somebody else is writing reads as 0.
#[inline(always)]
pub fn claim_group_without_cas(slot: Slot, n: usize, key: Word, to: u64) -> Result<(), u64> {
    if CLAIMS.insert([slot.generation(), n as u64 + 1], 0, BPF_NOEXIST).is_ok() {
        key.write(to);
        return Ok(());
    }
    Err(key.read())
}

/// Forgets the claims of an address space's failure groups.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn drop_claims(index: u32) -> u64 {
    let Some(slot) = Slot::at(index) else { return 0 };
    for n in 0..GROUPS {
        if let Some(group) = slot.group(n)
            && group.key().read() != 0
        {
            let _ = CLAIMS.remove([slot.generation(), n as u64 + 1]);
        }
    }
    0
}
