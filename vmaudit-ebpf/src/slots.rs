//! The table of followed address spaces: which slot is whose. How one is claimed is in [`claim`](mod@claim).
//!
//! User space reads [`SLOTS`] through mmap and frees slots by writing to that memory (see [`crate::control`]).

mod cells;
mod claim;
mod group;

pub use self::{
    claim::{claim, claim_group_without_cas, drop_claims},
    group::Group,
};
use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_map_lookup_elem},
    macros::map,
    maps::{Array, HashMap},
};
use vmaudit_common::{
    COMM_LEN, CallStat, FailureGroup, Figures, GROUPS, Makers, MmSlot, Names, SLOT_DEAD, SLOT_FREE,
    SLOT_LIVE, SeenInSection, Sizes, call::Call,
};

use crate::{
    call::index_of as call_index,
    control::{Page, Word, lost},
    shares,
};

/// An array of [`MmSlot`], one per address space. It is none of the object's maps: the loader makes it while it reads the
/// object, and puts it in place of this (vmaudit-user/src/source/ebpf/placed.rs).
const SLOTS: usize = 0x7a5c_0df0_7a5c_0df5;

/// mm_struct address → index in [`SLOTS`]. Twice the slots, so that a full table is the slots' and not the hash's.
#[map]
static SLOT_OF_MM: HashMap<u64, u32> = HashMap::with_max_entries(16384, 0);

/// Shortcut into [`SLOT_OF_MM`] for address spaces that have a slot: an array lookup is inlined by the verifier, a hash
/// lookup is two calls. One word an entry, so that no reader can see half of one: address bits from 6 up, then the slot.
#[map]
static SHORTCUT: Array<u64> = Array::with_max_entries(SHORTCUTS, 0);
const SHORTCUTS: u32 = 4096;
/// Bits of an entry that hold the slot; the loader allows no more slots than that.
const SLOT_BITS: u32 = 20;

const BPF_NOEXIST: u64 = 1;
const ENOENT: i32 = -2;
const EEXIST: i32 = -17;
/// How often a hash that is busy is asked.
const TRIES: u32 = 4;

/// What is known of one address space: a place in [`SLOTS`].
#[derive(Clone, Copy)]
pub struct Slot(*mut MmSlot);

/// Plain fields of a slot: `field` reads one, `set_field` writes it.
macro_rules! fields {
    ($($set:ident = $field:ident: $type:ty;)+) => {
        $(
            #[inline(always)]
            pub fn $set(self, value: $type) {
                // SAFETY: points into SLOTS.
                unsafe { (*self.0).$field = value };
            }
        )+
    };
    ($($field:ident: $type:ty;)+) => {
        $(
            #[inline(always)]
            pub fn $field(self) -> $type {
                // SAFETY: points into SLOTS.
                unsafe { (*self.0).$field }
            }
        )+
    };
}

/// Words of a slot that several CPUs change, see [`MmSlot`].
macro_rules! words {
    ($($field:ident)+) => {
        $(
            #[inline(always)]
            pub fn $field(self) -> Word {
                // SAFETY: points into SLOTS.
                unsafe { Word::new(&raw mut (*self.0).$field) }
            }
        )+
    };
}

impl Slot {
    /// The slot with this index.
    #[inline(always)]
    pub fn at(index: u32) -> Option<Self> {
        let slots = core::ptr::without_provenance_mut::<c_void>(SLOTS);
        // SAFETY: the loader puts a map with keys of 32 bits there.
        let slot = unsafe { bpf_map_lookup_elem(slots, (&raw const index).cast()) };
        (!slot.is_null()).then(|| Self(slot.cast()))
    }

    fields! {
        set_tgid = tgid: u32;
        set_ppid = ppid: u32;
        set_start_boottime_ns = start_boottime_ns: u64;
        set_comm = comm: [u8; COMM_LEN];
        set_uid = uid: u32;
        set_first = first: u32;
        set_last = last: u32;
        set_peak = peak: u32;
        set_born_ns = born_ns: u64;
        set_peak_ns = peak_ns: u64;
        set_dead_ns = dead_ns: u64;
        set_flags = flags: u32;
        set_sequence = sequence: u32;
        set_generation = generation: u64;
        set_share = share: u32;
        set_figures = figures: Figures;
        set_seen = seen: SeenInSection;
        set_host = host: u64;
        set_host_slot = host_slot: u32;
        set_host_tgid = host_tgid: u32;
        set_shown_tgid = shown_tgid: u32;
        set_shown_ppid = shown_ppid: u32;
        set_verified = verified: u64;
        set_most = most: Sizes;
        set_makers = makers: Makers;
    }

    fields! {
        tgid: u32;
        first: u32;
        last: u32;
        peak: u32;
        flags: u32;
        sequence: u32;
        generation: u64;
        share: u32;
        figures: Figures;
        seen: SeenInSection;
        start_boottime_ns: u64;
        peak_ns: u64;
        host: u64;
        host_slot: u32;
        makers: Makers;
    }

    words! { leaked_range left_hull left_records gone_records waiting ledger ledger_change }

    /// Sets `MM_*` bits, which nobody takes away.
    #[inline(always)]
    pub fn mark(self, bits: u32) {
        self.set_flags(self.flags() | bits);
    }

    /// Of no section the figures are known.
    #[inline(always)]
    pub fn forget_figures(self) {
        // SAFETY: points into SLOTS.
        unsafe { (*self.0).figures.sequence = Figures::UNKNOWN };
    }

    /// A count that the address space has reached.
    #[inline(always)]
    pub fn reached(self, count: u32) {
        if count > self.peak() {
            self.set_peak(count);
            // SAFETY: no preconditions.
            self.set_peak_ns(unsafe { bpf_ktime_get_ns() });
        }
    }

    /// The address space has these sizes. Whoever writes holds the lock for writing, or all who read it meanwhile see the
    /// same.
    #[inline(always)]
    pub fn was_of(self, sizes: Sizes) {
        // SAFETY: points into SLOTS; so do the others. Where nothing grew nothing is written.
        unsafe {
            let most = &raw mut (*self.0).most;
            if sizes.total > (*most).total {
                (*most).total = sizes.total;
            }
            if sizes.data > (*most).data {
                (*most).data = sizes.data;
            }
            if sizes.locked > (*most).locked {
                (*most).locked = sizes.locked;
            }
            if sizes.stack > (*most).stack {
                (*most).stack = sizes.stack;
            }
        }
    }

    /// Whether it was never so large, pages of mm.total_vm.
    #[inline(always)]
    pub fn grows_to(self, total: u64) -> bool {
        // SAFETY: points into SLOTS.
        total > unsafe { (*self.0).most.total }
    }

    /// A change of it was missed.
    #[inline(always)]
    pub fn count_gap(self) {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).gaps) }.add(1);
    }

    /// Puts a change down to the call that made it. Runs under the mmap lock held for writing or just downgraded, so
    /// nobody else does so for this slot.
    #[inline(always)]
    pub fn count_change(self, call: Call, before: u32, count: u32) {
        let Some(stat) = self.stat(call) else { return };
        // SAFETY: both point into SLOTS.
        unsafe {
            if count > before {
                (*stat).added += u64::from(count - before);
            } else {
                (*stat).removed += u64::from(before - count);
            }
            (*self.0).last = count;
            (*self.0).changes += 1;
        }
        self.count_in_interval(if before > count { before } else { count }, count);
    }

    /// A call has returned.
    #[inline(always)]
    pub fn count_call(self, call: Call) {
        if let Some(stat) = self.stat(call) {
            // SAFETY: points into SLOTS.
            unsafe { Word::new(&raw mut (*stat).calls) }.add(1);
        }
    }

    /// A call was refused.
    #[inline(always)]
    pub fn count_refusal(self, call: Call) {
        if let Some(stat) = self.stat(call) {
            // SAFETY: points into SLOTS.
            unsafe { Word::new(&raw mut (*stat).failed) }.add(1);
        }
    }

    #[inline(always)]
    fn stat(self, call: Call) -> Option<*mut CallStat> {
        let index = call_index(call)?;
        // SAFETY: points into SLOTS, and the index is below CALL_COUNT.
        Some(unsafe { (&raw mut (*self.0).calls).cast::<CallStat>().add(index) })
    }

    /// See [`MmSlot::names`].
    #[inline(always)]
    pub fn names(self) -> *mut Names {
        // SAFETY: points into SLOTS.
        unsafe { &raw mut (*self.0).names }
    }

    /// The failure group with this number, which is below [`GROUPS`].
    #[inline(always)]
    pub fn group(self, n: usize) -> Option<Group> {
        if n >= GROUPS {
            return None;
        }
        // SAFETY: points into SLOTS, and `n` is below GROUPS.
        Some(Group(unsafe { (&raw mut (*self.0).failures).cast::<FailureGroup>().add(n) }))
    }

    /// `state` and `flags` in one word; a free slot has both 0.
    #[inline(always)]
    fn first_word(self) -> Word {
        // SAFETY: points into SLOTS; both are at the front.
        unsafe { Word::new(self.0.cast()) }
    }

    /// Others may see it from here on.
    #[inline(always)]
    pub fn go_live(self) {
        self.set_state(SLOT_LIVE);
    }

    /// User space may free it from here on.
    #[inline(always)]
    pub fn go_dead(self) {
        Page::get().slots_dead().add(1); // before user space can take it away again
        self.set_state(SLOT_DEAD);
    }

    /// Gives back a claimed slot that nobody else knows. What was filled in is filled in again by the next user.
    #[inline(always)]
    pub fn give_back(self) {
        shares::give_back(self.share());
        Page::get().slots_in_use().add(1u64.wrapping_neg());
        self.first_word().write(u64::from(SLOT_FREE));
    }

    #[inline(always)]
    fn set_state(self, state: u32) {
        // SAFETY: points into SLOTS.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).state, state) };
    }
}

/// The slot of an address space.
#[inline(always)]
pub fn of_mm(mm: u64) -> Option<Slot> {
    Slot::at(index_of(mm)?)
}

/// Whether an address space has one; 0: none.
#[inline(always)]
pub fn has(mm: u64) -> bool {
    mm != 0 && index_of(mm).is_some()
}

/// The index of an address space's slot. `mm` must be a plain number, not a pointer that the verifier knows.
#[inline(always)]
pub fn index_of(mm: u64) -> Option<u32> {
    let shortcut = shortcut(mm)?;
    let entry = shortcut.read();
    if entry >> SLOT_BITS == tag(mm) {
        return Some(entry as u32 & ((1 << SLOT_BITS) - 1));
    }
    let index = index_of_key(mm)?;
    // Nobody can be removing this mm meanwhile: whoever asks still uses it.
    shortcut.write(tag(mm) << SLOT_BITS | u64::from(index));
    Some(index)
}

/// What [`enter`] has put in under this address, or under a number that no address space can have.
#[inline(always)]
pub fn index_of_key(key: u64) -> Option<u32> {
    // SAFETY: the value is copied at once; entries are preallocated and never freed to the system.
    unsafe { SLOT_OF_MM.get(key) }.copied()
}

/// mm_struct addresses are multiples of 64 (a slab with cache-line alignment) in the direct map, so that these bits
/// tell any two apart.
#[inline(always)]
fn tag(mm: u64) -> u64 {
    (mm >> 6) & ((1 << (64 - SLOT_BITS)) - 1)
}

#[inline(always)]
fn shortcut(mm: u64) -> Option<Word> {
    let entry = SHORTCUT.get_ptr_mut(((mm >> 6 ^ mm >> 18) as u32) & (SHORTCUTS - 1))?;
    // SAFETY: points into SHORTCUT; the kernel side alone writes it, a word at a time.
    Some(unsafe { Word::new(entry) })
}

/// Makes `index` the slot of `mm`; `false` when somebody else was first, or (counted) when the hash refused.
#[inline(always)]
pub fn enter(mm: u64, index: u32) -> bool {
    // A bucket may be busy with what this program interrupted (kernel/bpf/hashtab.c:htab_lock_bucket).
    for _ in 0..TRIES {
        match SLOT_OF_MM.insert(mm, index, BPF_NOEXIST) {
            Ok(()) => return true,
            Err(EEXIST) => return false,
            Err(_) => {}
        }
    }
    lost!(table_full);
    false
}

/// The address space is gone. `true` for the one caller who took it out and therefore owns its end.
#[inline(always)]
pub fn leave(mm: u64) -> bool {
    let mut taken = Err(0);
    for _ in 0..TRIES {
        taken = SLOT_OF_MM.remove(mm);
        if matches!(taken, Ok(()) | Err(ENOENT)) {
            break;
        }
    }
    if !matches!(taken, Ok(()) | Err(ENOENT)) {
        // The slot stays with an address that is free: better never ended than ended and given to another.
        lost!(death_missed);
    }
    if let Some(shortcut) = shortcut(mm)
        // An entry of another mm stays.
        && shortcut.read() >> SLOT_BITS == tag(mm)
    {
        shortcut.write(0);
    }
    taken.is_ok()
}
