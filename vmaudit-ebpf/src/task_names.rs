//! Which names the tasks of an address space have that change its count or are refused calls: test runners name a thread after
//! its test.
//!
//! While all changes are of tasks with one name, there is nothing to do but to compare it: what these did is what is left of the
//! address space's own sums. Tasks of other names are counted in a table of all address spaces. A change is put down under the
//! lock of the address space, so nobody else does so for this slot.

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{NAMES_PER_SLOT, Names, TASK_NAMES, TaskName};

use crate::{
    control::{BPF_F_MMAPABLE, Word, config},
    slots::Slot,
};

/// A task's name, in words.
pub type Name = [u64; 2];

/// User space reads it, and clears the entries of address spaces that are gone.
#[map]
static TASK_NAME_TABLE: Array<TaskName> = Array::with_max_entries(TASK_NAMES, BPF_F_MMAPABLE);

/// Entries looked at before a name counts as one of many.
const PROBES: u32 = 8;
/// No entry.
const NONE: u32 = u32::MAX;
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn entry(place: u32) -> Option<*mut TaskName> {
    TASK_NAME_TABLE.get_ptr_mut(place)
}

/// A task of this name has changed the count. `peak`: the largest one until then.
#[inline(always)]
pub fn changed<const CAS: bool>(index: u32, slot: Slot, name: Name, before: u32, count: u32, peak: u32) {
    let names = slot.names();
    // SAFETY: points into the slot; so below.
    let (first, taken, known) = unsafe { ((*names).first, (*names).taken, (*names).known) };
    if known != 0 && first[0] == name[0] && first[1] == name[1] {
        // As nearly always, it is the only one.
        if taken != 0 {
            // SAFETY: as above.
            unsafe {
                (*names).first_overlapped |= u32::from((*names).last != 0);
                (*names).last = 0;
            }
        }
        return;
    }
    if CAS {
        task_changed(index, name[0], name[1], u64::from(before) << 32 | u64::from(count), peak);
    } else {
        task_changed_without_cas(index, name[0], name[1], u64::from(before) << 32 | u64::from(count), peak);
    }
}

// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn task_changed(index: u32, name0: u64, name1: u64, counts: u64, peak: u32) -> u64 {
    count_change::<true>(index, [name0, name1], (counts >> 32) as u32, counts as u32, peak);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn task_changed_without_cas(index: u32, name0: u64, name1: u64, counts: u64, peak: u32) -> u64 {
    count_change::<false>(index, [name0, name1], (counts >> 32) as u32, counts as u32, peak);
    0
}

#[inline(always)]
fn count_change<const CAS: bool>(index: u32, name: Name, before: u32, count: u32, peak: u32) {
    let Some(slot) = Slot::at(index) else { return };
    let names = slot.names();
    let (added, removed) = (count.saturating_sub(before), before.saturating_sub(count));
    // SAFETY: points into the slot, or into the table; so below.
    unsafe {
        if (*names).known == 0 {
            (*names).first = name;
            (*names).known = 1;
            return;
        }
        if (*names).first_peak == 0 {
            (*names).first_peak = peak;
        }
        let last = (*names).last;
        let place = place_of::<CAS>(slot, name, last.wrapping_sub(1));
        let Some(it) = entry(place) else {
            (*names).last = Names::OTHERS;
            (*names).others_added += u64::from(added);
            (*names).others_removed += u64::from(removed);
            return;
        };
        if last != place + 1 {
            (*it).overlapped |= u32::from((*it).peak != 0);
            (*names).last = place + 1;
        }
        (*it).added += u64::from(added);
        (*it).removed += u64::from(removed);
        if count > (*it).peak {
            (*it).peak = count;
        }
    }
}

/// A task of this name was refused a call.
#[inline(always)]
pub fn refused<const CAS: bool>(slot: Slot, name: Name) {
    let names = slot.names();
    // SAFETY: points into the slot.
    let (first, known, last) = unsafe { ((*names).first, (*names).known, (*names).last) };
    if known != 0 && first[0] == name[0] && first[1] == name[1] {
        return;
    }
    let place = place_of::<CAS>(slot, name, last.wrapping_sub(1));
    // Threads meet here, hence the atomics.
    // SAFETY: as above, or points into the table.
    let failed = unsafe {
        match entry(place) {
            Some(it) => Word::new(&raw mut (*it).failed),
            None => Word::new(&raw mut (*names).others_failed),
        }
    };
    failed.add(1);
}

/// The entry of this name, which may be the one that was used last; [`NONE`] where no more are to be had.
#[inline(always)]
fn place_of<const CAS: bool>(slot: Slot, name: Name, last: u32) -> u32 {
    let generation = slot.generation();
    if let Some(it) = entry(last) {
        // SAFETY: points into the table.
        let (of, comm) = unsafe { ((*it).generation, (*it).comm) };
        if of == generation && comm[0] == name[0] && comm[1] == name[1] {
            return last;
        }
    }
    let key = key_of(generation, name);
    let begin = (key >> 32) as u32;
    for i in 0..PROBES {
        let place = begin.wrapping_add(i) & (TASK_NAMES - 1);
        let Some(it) = entry(place) else { break };
        // SAFETY: points into the table, whose entries 64-bit words begin.
        let word = unsafe { Word::new(&raw mut (*it).key) };
        let mut seen = word.read();
        if seen == 0 {
            // SAFETY: points into the slot.
            let taken = unsafe { Word::new(&raw mut (*slot.names()).taken) };
            if taken.read() >= NAMES_PER_SLOT {
                break;
            }
            let claimed = if CAS {
                word.claim(0, key)
            } else {
                // Who writes last has it, and the other sees that now or never.
                word.write(key);
                let seen = word.read();
                if seen == key { Ok(()) } else { Err(seen) }
            };
            match claimed {
                Ok(()) => {
                    taken.add(1);
                    // SAFETY: points into the table.
                    unsafe {
                        (*it).comm = name;
                        (*it).generation = generation;
                    }
                    seen = key;
                }
                Err(other) => seen = other,
            }
        }
        if seen == key {
            return place;
        }
    }
    NONE
}

/// Never 0; nobody can choose a name that meets another's of another address space.
#[inline(always)]
fn key_of(generation: u64, name: Name) -> u64 {
    let mixed = (generation ^ config!(table_key)).wrapping_mul(SPREAD) ^ name[0];
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(SPREAD) ^ name[1];
    let mixed = (mixed ^ mixed >> 31).wrapping_mul(SPREAD);
    (mixed ^ mixed >> 32) | 1
}
