//! From where calls were refused: a table of places, each with its own count and sizes.

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{GROUPS, SITES, SITES_PER_GROUP, Site};

use crate::{
    control::{BPF_F_MMAPABLE, Word},
    slots::Slot,
};

/// User space reads it, and clears the entries of address spaces that are gone.
#[map]
static SITE_TABLE: Array<Site> = Array::with_max_entries(SITES, BPF_F_MMAPABLE);

/// Entries looked at before a place counts as one of many.
const PROBES: u32 = 16;
/// No entry.
pub const NONE: u32 = u32::MAX;
/// Set in an answer: nobody was refused there before.
const NEW: u64 = 1 << 32;
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// An entry of the table.
#[derive(Clone, Copy)]
pub struct Entry(*mut Site);

macro_rules! words {
    ($($field:ident)+) => {
        $(
            #[inline(always)]
            pub fn $field(self) -> Word {
                // SAFETY: points into the table, all of whose fields are 64-bit words.
                unsafe { Word::new(&raw mut (*self.0).$field) }
            }
        )+
    };
}

impl Entry {
    #[inline(always)]
    pub fn at(place: u32) -> Option<Self> {
        SITE_TABLE.get_ptr_mut(place).map(Self)
    }

    words! { key generation group count recovered first_ns last_ns largest smallest_inverted }
}

/// Where a refusal was counted.
#[derive(Clone, Copy)]
pub struct Counted {
    /// Index of the entry, or [`NONE`].
    pub place: u32,
    /// It is the first from there.
    pub new: bool,
}

impl Counted {
    /// [`Site::key`], or 0.
    #[inline(always)]
    pub fn key(self) -> u64 {
        Entry::at(self.place).map_or(0, |entry| entry.key().read())
    }
}

/// Counts a refusal in group `n` of the slot under the place that it came from. `stack`: what tells that place from
/// others; `bytes`: asked for.
#[inline(always)]
pub fn count(cas: bool, index: u32, n: usize, stack: u64, bytes: u64, now: u64) -> Counted {
    let answer = if cas {
        site_count(index, n as u32, stack, bytes, now)
    } else {
        site_count_without_cas(index, n as u32, stack, bytes, now)
    };
    Counted { place: answer as u32, new: answer & NEW != 0 }
}

// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_count(index: u32, n: u32, stack: u64, bytes: u64, now: u64) -> u64 {
    enter::<true>(index, n, stack, bytes, now)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_count_without_cas(index: u32, n: u32, stack: u64, bytes: u64, now: u64) -> u64 {
    enter::<false>(index, n, stack, bytes, now)
}

#[inline(always)]
fn enter<const CAS: bool>(index: u32, n: u32, stack: u64, bytes: u64, now: u64) -> u64 {
    let none = u64::from(NONE);
    if n as usize >= GROUPS {
        return none;
    }
    let Some(slot) = Slot::at(index) else { return none };
    let Some(group) = slot.group(n as usize) else { return none };
    let generation = slot.generation();
    let key = key_of(generation, n, stack);
    let first = (key >> 32) as u32;
    for i in 0..PROBES {
        let place = first.wrapping_add(i) & (SITES - 1);
        let Some(entry) = Entry::at(place) else { return none };
        let mut seen = entry.key().read();
        let mut new = 0;
        if seen == 0 {
            if group.sites().read() >= SITES_PER_GROUP {
                return none;
            }
            let claimed = if CAS {
                entry.key().claim(0, key)
            } else {
                // Who writes last has it, and the other sees that now or never.
                entry.key().write(key);
                let seen = entry.key().read();
                if seen == key { Ok(()) } else { Err(seen) }
            };
            match claimed {
                Ok(()) => {
                    group.sites().add(1);
                    entry.generation().write(generation);
                    entry.group().write(u64::from(n));
                    entry.first_ns().write(now);
                    seen = key;
                    new = NEW;
                }
                Err(other) => seen = other,
            }
        }
        if seen == key {
            entry.count().add(1);
            entry.last_ns().write(now);
            if CAS {
                site_sizes(place, bytes);
            } else {
                raise::<false>(entry.largest(), bytes);
                raise::<false>(entry.smallest_inverted(), !bytes);
            }
            return u64::from(place) | new;
        }
    }
    none
}

/// Takes down what was asked for at this place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn site_sizes(place: u32, bytes: u64) -> u64 {
    if let Some(entry) = Entry::at(place) {
        raise::<true>(entry.largest(), bytes);
        raise::<true>(entry.smallest_inverted(), !bytes);
    }
    0
}

/// Never 0.
#[inline(always)]
fn key_of(generation: u64, n: u32, stack: u64) -> u64 {
    let mixed = (generation ^ stack.rotate_left(32)).wrapping_mul(SPREAD) ^ u64::from(n);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(SPREAD);
    (mixed ^ mixed >> 32) | 1
}

/// Makes a word as large as `to`. Threads meet here; who is overtaken more than a few times was overtaken by larger ones.
#[inline(always)]
fn raise<const CAS: bool>(word: Word, to: u64) {
    for _ in 0..8 {
        let seen = word.read();
        if seen >= to {
            return;
        }
        if !CAS {
            word.write(to);
            return;
        }
        if word.claim(seen, to).is_ok() {
            return;
        }
    }
}
