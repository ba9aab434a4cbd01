//! Every map, its size and why that size; the slots of address spaces and how one is claimed.
//!
//! User space reads [`SLOTS`] and [`CONTROL`] through mmap and frees slots by writing to that memory: bpf() map calls
//! would switch classic tracepoint programs off on a CPU (kernel/bpf/syscall.c:bpf_disable_instrumentation).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use vmaudit_common::{
    Config, Control, FailureGroup, Followed, GROUPS, Layout, Lost, MmSlot, SECTIONS, SLOT_CLAIMED, SLOT_FREE,
    Section,
};

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// One per address space; the loader sets the number.
#[map]
pub static SLOTS: Array<MmSlot> = Array::with_max_entries(8192, BPF_F_MMAPABLE);

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

/// Followed processes by tgid.
#[map]
pub static FOLLOWED: HashMap<u32, Followed> = HashMap::with_max_entries(16384, 0);

/// Claims of the programs for kernels without compare-and-swap (before 5.12): who inserts an entry first has the thing.
/// Slots: (0, number of the attempt). Failure groups: (generation, index + 1).
#[map]
static CLAIMS: HashMap<[u64; 2], u32> = HashMap::with_max_entries(16384, 0);

/// The address space of each followed process, where its end has to be told by the process's (see `fallback`).
#[map]
pub static MM_OF_TGID: HashMap<u32, u64> = HashMap::with_max_entries(16384, 0);

/// Last lock section of each task, by `tid % SECTIONS`.
#[map]
pub static SECTION_OF_TASK: Array<Section> = Array::with_max_entries(SECTIONS, 0);

/// One page of counters and settings.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Details for user space; losing one costs no figure.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Set by the loader before load; the verifier sees constants and drops what they switch off.
#[unsafe(no_mangle)]
static LAYOUT: Layout = bytemuck_zeroed();
/// See [`LAYOUT`].
#[unsafe(no_mangle)]
static CONFIG: Config = bytemuck_zeroed();

const fn bytemuck_zeroed<T: Copy>() -> T {
    // SAFETY: used for `Layout` and `Config` only, which are plain integers (Pod).
    unsafe { core::mem::zeroed() }
}

/// Reads a member of [`LAYOUT`] so that the compiler cannot assume its value.
macro_rules! layout {
    ($($field:tt)+) => {
        {
            #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
            // SAFETY: an aligned read of a static; volatile because the loader rewrites the section.
            let value = unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::layout_ptr()).$($field)+) };
            value
        }
    };
}
pub(crate) use layout;

/// Reads a member of [`CONFIG`], see [`layout!`].
macro_rules! config {
    ($($field:tt)+) => {
        {
            #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
            // SAFETY: an aligned read of a static; volatile because the loader rewrites the section.
            let value = unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::config_ptr()).$($field)+) };
            value
        }
    };
}
pub(crate) use config;

#[inline(always)]
pub fn layout_ptr() -> *const Layout {
    &raw const LAYOUT
}

#[inline(always)]
pub fn config_ptr() -> *const Config {
    &raw const CONFIG
}

/// The shared page.
#[inline(always)]
pub fn control() -> Option<*mut Control> {
    CONTROL.get_ptr_mut(0)
}

/// 0, but not to the verifier. Mixed into a value that branches have built, it makes their ends look alike, so that
/// what follows is verified once and not once for each combination (before 6.3 the verifier compares all scalars of a
/// program with subprograms exactly, and gives up at a million instructions).
#[inline(always)]
pub fn unknown_zero(control: *const Control) -> u32 {
    // SAFETY: callers pass what `control` gave them.
    unsafe { core::ptr::read_volatile(&raw const (*control).zero) }
}

/// Adds to a counter that other CPUs also write.
#[inline(always)]
pub fn add(counter: *mut u64, n: u64) {
    // SAFETY: callers pass a pointer into a map value, aligned to 8 (all fields are u64 of repr(C) records).
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, n);
    }
}

/// Claims `*word` if it holds `from`.
#[inline(always)]
pub fn claim(word: *mut u64, from: u64, to: u64) -> Result<(), u64> {
    // SAFETY: as in `add`.
    let (seen, done) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, from, to)
    };
    if done { Ok(()) } else { Err(seen) }
}

/// Counts one loss.
#[inline(always)]
pub fn count_loss(counter: impl FnOnce(*mut Lost) -> *mut u64) {
    if let Some(control) = control() {
        // SAFETY: `control` points at the only value of CONTROL.
        add(counter(unsafe { &raw mut (*control).lost }), 1);
    }
}

/// Counts how often a program took an mmap lock.
#[inline(always)]
pub fn count_looks(n: u64) {
    if let Some(control) = control() {
        // SAFETY: `control` points at the only value of CONTROL.
        add(unsafe { &raw mut (*control).looks }, n);
    }
}

/// Counts a loss by the name of its counter.
macro_rules! lost {
    ($field:ident) => {
        $crate::maps::count_loss(|l| {
            #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
            // SAFETY: projects a valid pointer into the shared page.
            unsafe {
                &raw mut (*l).$field
            }
        })
    };
}
pub(crate) use lost;

/// How to submit a record of a stream: the reader comes by itself every few milliseconds and is woken only when a quarter
/// of the buffer is full. Waking it for each record costs the traced program more than the record.
#[inline(always)]
pub fn wake_rarely() -> u64 {
    const BPF_RB_NO_WAKEUP: u64 = 1;
    const BPF_RB_FORCE_WAKEUP: u64 = 2;
    const BPF_RB_AVAIL_DATA: u64 = 0;
    const BPF_RB_RING_SIZE: u64 = 1;
    let full = RECORDS.query(BPF_RB_AVAIL_DATA) >= RECORDS.query(BPF_RB_RING_SIZE) / 4;
    if full { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}

/// The slot of an address space.
#[inline(always)]
pub fn slot_of(mm: u64) -> Option<*mut MmSlot> {
    SLOTS.get_ptr_mut(index_of(mm)?)
}

/// The index of an address space's slot. `mm` must be a plain number, not a pointer that the verifier knows.
#[inline(always)]
pub fn index_of(mm: u64) -> Option<u32> {
    let shortcut = shortcut(mm)?;
    // SAFETY: points into SHORTCUT; the kernel side alone writes it, a word at a time.
    let entry = unsafe { core::ptr::read_volatile(shortcut) };
    if entry >> SLOT_BITS == tag(mm) {
        return Some(entry as u32 & ((1 << SLOT_BITS) - 1));
    }
    // SAFETY: the value is copied at once; entries are preallocated and never freed to the system.
    let index = *unsafe { SLOT_OF_MM.get(&mm) }?;
    // SAFETY: as above. Nobody can be removing this mm meanwhile: whoever asks still uses it.
    unsafe { core::ptr::write_volatile(shortcut, tag(mm) << SLOT_BITS | u64::from(index)) };
    Some(index)
}

/// mm_struct addresses are multiples of 64 (a slab with cache-line alignment) in the direct map, so that these bits
/// tell any two apart.
#[inline(always)]
fn tag(mm: u64) -> u64 {
    (mm >> 6) & ((1 << (64 - SLOT_BITS)) - 1)
}

#[inline(always)]
fn shortcut(mm: u64) -> Option<*mut u64> {
    SHORTCUT.get_ptr_mut(((mm >> 6 ^ mm >> 18) as u32) & (SHORTCUTS - 1))
}

/// Makes `index` the slot of `mm`; `false` when somebody else was first, or (counted) when the hash refused.
#[inline(always)]
pub fn enter(mm: u64, index: u32) -> bool {
    // A bucket may be busy with what this program interrupted (kernel/bpf/hashtab.c:htab_lock_bucket).
    for _ in 0..TRIES {
        match SLOT_OF_MM.insert(&mm, &index, BPF_NOEXIST) {
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
        taken = SLOT_OF_MM.remove(&mm);
        if matches!(taken, Ok(()) | Err(ENOENT)) {
            break;
        }
    }
    if !matches!(taken, Ok(()) | Err(ENOENT)) {
        // The slot stays with an address that is free: better never ended than ended and given to another.
        lost!(death_missed);
    }
    if let Some(shortcut) = shortcut(mm) {
        // SAFETY: as in `index_of`; an entry of another mm stays.
        unsafe {
            if core::ptr::read_volatile(shortcut) >> SLOT_BITS == tag(mm) {
                core::ptr::write_volatile(shortcut, 0);
            }
        }
    }
    taken.is_ok()
}

const BPF_NOEXIST: u64 = 1;
const ENOENT: i32 = -2;
const EEXIST: i32 = -17;
/// How often a hash that is busy is asked.
const TRIES: u32 = 4;

/// How many slots are looked at before the table counts as full.
const PROBES: u32 = 64;

/// [`claim_slot`] without atomics that return something. Generations come from the clock, which also rises.
#[inline(always)]
pub fn claim_slot_plainly() -> Option<(u32, *mut MmSlot)> {
    claimed(claim_index_plainly())
}

/// A slot by what claiming one has answered.
#[inline(always)]
fn claimed(answer: u64) -> Option<(u32, *mut MmSlot)> {
    let index = u32::try_from(answer).ok()?;
    Some((index, SLOTS.get_ptr_mut(index)?))
}

/// No slot.
const NO_INDEX: u64 = u64::MAX;

// Global, as is `claim_index`: the verifier looks at the loop once, not in each program and state again.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_index_plainly() -> u64 {
    try_plainly().unwrap_or(NO_INDEX)
}

#[inline(always)]
fn try_plainly() -> Option<u64> {
    let control = control()?;
    let mask = config!(slots).wrapping_sub(1);
    // SAFETY: pointer into the shared page.
    let first = unsafe { core::ptr::read_volatile(&raw const (*control).cursor) };
    for n in 0..PROBES {
        let turn = first + u64::from(n);
        let index = turn as u32 & mask;
        let slot = SLOTS.get_ptr_mut(index)?;
        // Nobody looks back so far; the entry of this turn goes in the same way, whether or not its place is free then.
        let _ = CLAIMS.remove(&[0, turn.wrapping_sub(512)]);
        // SAFETY: `slot` points into SLOTS.
        let free = unsafe { core::ptr::read_volatile(slot.cast::<u64>()) } == u64::from(SLOT_FREE);
        if !free || CLAIMS.insert(&[0, turn], &0, BPF_NOEXIST).is_err() {
            continue;
        }
        // SAFETY: both pointers are into map values; the slot is ours alone until its state changes.
        unsafe {
            core::ptr::write_volatile(slot.cast::<u64>(), u64::from(SLOT_CLAIMED));
            core::ptr::write_volatile(&raw mut (*control).cursor, turn + 1);
            (*slot).generation = bpf_ktime_get_ns() << 6 | u64::from(bpf_get_smp_processor_id() & 63);
        }
        return Some(u64::from(index));
    }
    // The next birth looks behind what is taken here.
    // SAFETY: pointer into the shared page.
    unsafe { core::ptr::write_volatile(&raw mut (*control).cursor, first + u64::from(PROBES)) };
    lost!(table_full);
    None
}

/// [`claim`] of a failure group's key in the same way; a key that somebody else is writing reads as 0.
#[inline(always)]
pub fn claim_group_plainly(generation: u64, n: usize, word: *mut u64, key: u64) -> Result<(), u64> {
    // SAFETY: callers pass a pointer into SLOTS.
    unsafe {
        if CLAIMS.insert(&[generation, n as u64 + 1], &0, BPF_NOEXIST).is_ok() {
            core::ptr::write_volatile(word, key);
            return Ok(());
        }
        Err(core::ptr::read_volatile(word))
    }
}

/// Forgets the claims of an address space's failure groups.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn drop_claims(index: u32) -> u64 {
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return 0 };
    // SAFETY: `slot` points into SLOTS, and `n` is below GROUPS.
    unsafe {
        for n in 0..GROUPS {
            if (*(&raw mut (*slot).failures).cast::<FailureGroup>().add(n)).key != 0 {
                let _ = CLAIMS.remove(&[(*slot).generation, n as u64 + 1]);
            }
        }
    }
    0
}

/// Takes a free slot; its `generation` is set, all else is the caller's to fill in before `state` becomes live.
#[inline(always)]
pub fn claim_slot() -> Option<(u32, *mut MmSlot)> {
    claimed(claim_index())
}

// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_index() -> u64 {
    try_to_claim().unwrap_or(NO_INDEX)
}

#[inline(always)]
fn try_to_claim() -> Option<u64> {
    let control = control()?;
    let mask = config!(slots).wrapping_sub(1);
    for _ in 0..PROBES {
        // SAFETY: pointer into the shared page.
        let turn =
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*control).cursor, 1) };
        let index = turn as u32 & mask;
        let slot = SLOTS.get_ptr_mut(index)?;
        // `state` and `flags` share the first word; a free slot has both 0.
        if claim(slot.cast::<u64>(), u64::from(SLOT_FREE), u64::from(SLOT_CLAIMED)).is_ok() {
            // SAFETY: both pointers are into map values; the slot is ours alone until its state changes.
            unsafe {
                (*slot).generation =
                    atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*control).generation, 1)
                        + 1;
            }
            return Some(u64::from(index));
        }
    }
    lost!(table_full);
    None
}
