//! What is known of the call that a task is in, for the refusal that may end it: the figures of its last write section of
//! the mmap lock, the result of its last search for a free range, what the probes have seen. The only room that reads or
//! writes this scratch.
//!
//! Task-local storage of the kernel would need its BTF at load, and says no when a lookup is interrupted by another; so
//! it is a table of sets with two places each. Which set a task falls into depends on a key that is drawn at load time:
//! nobody can choose a task id that meets another's. A place in use is its task's until the end of the call; who finds
//! both taken keeps nothing, and the set remembers that for ever, because a call's missing facts must not look like facts
//! that there never were.

use core::ptr::NonNull;

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{
    CLASS_HEAP_REACHED, CLASS_MC1_SHIFT, CLASS_NO_HOLE, CLASS_OVERCOMMIT_REFUSED, CLASS_SEARCH_LOST,
    CLASS_SEARCHED, CLASS_SECTION, CLASS_SECTION_LOST, PLACES, Section, SeenInSection, Sizes,
    call::{self, Call},
    relative_to_max,
};

use crate::{
    call::searches,
    control::{Word, config, layout, lost},
    kernel::{self, Current, OwnMm},
};

/// A power of two. Tasks in the middle of a call that takes the lock for writing, all at one time, are few; more only if
/// somebody holds them there (a file system in user space).
const SETS: u32 = PLACES / WAYS;
const WAYS: u32 = 2;
/// Overcommit accounting was seen to refuse.
pub const OVERCOMMIT_REFUSED: u32 = 1;
/// brk was seen to come as far as making the heap larger.
pub const HEAP_REACHED: u32 = 2;

/// What one call has shown so far.
#[repr(C)]
struct Scratch {
    /// Id of the task that is in the call; 0: free.
    owner: u64,
    /// Facts of a task that found no place here were lost since the start. Counts in the first place of a set.
    crowded: u64,
    /// The call in which the section was; 0: there was none.
    call: u32,
    /// Index of the address space's slot.
    slot: u32,
    /// map_count before the section, and at its end.
    mc0: u32,
    mc1: u32,
    /// Pages.
    total_vm: u64,
    locked_vm: u64,
    data_vm: u64,
    /// Address or negative errno; 0: no search was made.
    searched: u64,
    /// mm.mm_lock_seq within the section, 0 where the kernel has none.
    lock_sequence: u32,
    /// What the probes have seen, and in which call.
    probes: u32,
    probed_call: u32,
    /// The call whose answer is asked for, see [`crate::answer`]; 0: none is.
    asked: u32,
    /// Index of the address space's slot in which it was asked.
    asked_slot: u32,
    /// 1: it will be answered.
    under_way: u32,
    /// Where the task goes on after it.
    ip: u64,
}

#[map]
static CURRENT_CALLS: Array<Scratch> = Array::with_max_entries(SETS * WAYS, 0);

/// What is asked at the end of a call: was it refused?
#[derive(Clone, Copy)]
pub struct Question {
    /// Which call.
    pub id: Call,
    /// Index of the address space's slot.
    pub slot: u32,
    /// Where its task goes on.
    pub ip: u64,
}

/// No place.
const NONE: u32 = u32::MAX;

/// The first place of the set that a task falls into.
#[inline(always)]
fn first_place(tid: u32) -> u32 {
    // Multiply-shift by a random odd number: two ids meet with a probability of 2 in SETS, whichever they are.
    const SHIFT: u32 = 64 - SETS.trailing_zeros();
    let set = u64::from(tid).wrapping_mul(config!(table_key) | 1) >> SHIFT;
    (set as u32 & (SETS - 1)) * WAYS
}

/// A task's place while it is in a call. Not null, so that "none" is a null in the same register and not an unset one,
/// which the verifier refuses to see saved.
#[derive(Clone, Copy)]
pub struct Entry(NonNull<Scratch>);

impl Entry {
    #[inline(always)]
    fn at(place: u32) -> Option<Self> {
        CURRENT_CALLS.get_ptr_mut(place).and_then(NonNull::new).map(Self)
    }

    /// The place that this task has.
    #[inline(always)]
    pub fn of(tid: u32) -> Option<Self> {
        let first = first_place(tid);
        // By number and not by pointer, so that what follows is verified once for both.
        let other = Self::at(first)?.owner().read() != u64::from(tid);
        let entry = Self::at(first + u32::from(other))?;
        if entry.owner().read() == u64::from(tid) { Some(entry) } else { None }
    }

    /// The place that this task has or can have. `CAS`: the kernel has compare-and-swap.
    #[inline(always)]
    fn scratch_of<const CAS: bool>(tid: u32) -> Option<*mut Scratch> {
        // As nearly always, nobody is in its set, or itself alone.
        if CAS
            && let first = first_place(tid)
            && let Some(entry) = Self::at(first)
            && let Some(other) = Self::at(first + 1)
            && other.owner().read() == 0
        {
            let owner = entry.owner().read();
            if owner == u64::from(tid) {
                return Some(entry.scratch());
            }
            if owner == 0 && entry.owner().claim(0, u64::from(tid)).is_ok() {
                entry.clear();
                return Some(entry.scratch());
            }
        }
        let place = if CAS { claim_place(tid) } else { claim_place_without_cas(tid) } as u32;
        if place == NONE { None } else { Self::at(place).map(Self::scratch) }
    }

    #[inline(always)]
    fn scratch(self) -> *mut Scratch {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn owner(self) -> Word {
        // SAFETY: points into the map, which 64-bit words begin.
        unsafe { Word::new(&raw mut (*self.0.as_ptr()).owner) }
    }

    #[inline(always)]
    fn crowded(self) -> Word {
        // SAFETY: as above.
        unsafe { Word::new(&raw mut (*self.0.as_ptr()).crowded) }
    }

    /// Nothing is known of the call yet.
    #[inline(always)]
    fn clear(self) {
        // SAFETY: points into the map; the place is this task's alone.
        unsafe {
            (*self.0.as_ptr()).call = u32::from(call::OTHER);
            (*self.0.as_ptr()).searched = 0;
            (*self.0.as_ptr()).probed_call = u32::from(call::OTHER);
            (*self.0.as_ptr()).asked = u32::from(call::OTHER);
        }
    }

    /// The place of a task that a question was asked in: it stays the task's until the answer.
    #[inline(always)]
    pub fn with_question(place: u32, tid: u32) -> Option<Self> {
        let entry = Self::at(place)?;
        if entry.owner().read() == u64::from(tid) { Some(entry) } else { None }
    }

    /// The question that is open.
    #[inline(always)]
    pub fn question(self) -> Option<Question> {
        // SAFETY: points into the map; the place is this task's alone.
        let (asked, slot, ip) =
            unsafe { ((*self.0.as_ptr()).asked, (*self.0.as_ptr()).asked_slot, (*self.0.as_ptr()).ip) };
        if asked == u32::from(call::OTHER) { None } else { Some(Question { id: asked as Call, slot, ip }) }
    }

    /// Another question is open from here on.
    #[inline(always)]
    pub fn ask(self, question: Question) {
        // SAFETY: as above.
        unsafe {
            (*self.0.as_ptr()).asked = u32::from(question.id);
            (*self.0.as_ptr()).asked_slot = question.slot;
            (*self.0.as_ptr()).under_way = 0;
            (*self.0.as_ptr()).ip = question.ip;
        }
    }

    /// A question is open, and nobody has yet seen to its being answered.
    #[inline(always)]
    pub fn is_to_be_asked(self) -> bool {
        // SAFETY: as above.
        let (asked, under_way) = unsafe { ((*self.0.as_ptr()).asked, (*self.0.as_ptr()).under_way) };
        asked != u32::from(call::OTHER) && under_way == 0
    }

    /// Somebody sees to its being answered.
    #[inline(always)]
    pub fn is_asked(self) {
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).under_way = 1 };
    }

    /// Keeps the figures of this write section: the counts before and after, all pages, those locked, those of data. The
    /// last one of a call counts.
    #[inline(always)]
    pub fn keep_figures(self, call: Call, slot: u32, counts: (u32, u32), pages: [u64; 3], sequence: u32) {
        let scratch = self.scratch();
        // SAFETY: points into the map; the place is this task's alone.
        unsafe {
            (*scratch).call = u32::from(call);
            (*scratch).slot = slot;
            ((*scratch).mc0, (*scratch).mc1) = counts;
            [(*scratch).total_vm, (*scratch).locked_vm, (*scratch).data_vm] = pages;
            (*scratch).lock_sequence = sequence;
        }
    }

    /// The slot of the address space in which this very call has written.
    #[inline(always)]
    pub fn slot(self, id: Call) -> Option<u32> {
        // SAFETY: points into the map; the place is this task's alone, and it is in no other call.
        let (call, slot) = unsafe { ((*self.0.as_ptr()).call, (*self.0.as_ptr()).slot) };
        if call == u32::from(id) { Some(slot) } else { None }
    }

    /// The call is over: its place is free.
    #[inline(always)]
    pub fn end_call(self) {
        self.owner().write(0);
    }
}

/// The place that this task has or takes; [`NONE`] when others are in both.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_place(tid: u32) -> u64 {
    claim::<true>(tid)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_place_without_cas(tid: u32) -> u64 {
    claim::<false>(tid)
}

#[inline(always)]
fn claim<const CAS: bool>(tid: u32) -> u64 {
    let (first, tid) = (first_place(tid), u64::from(tid));
    for place in [first, first + 1] {
        if Entry::at(place).is_some_and(|entry| entry.owner().read() == tid) {
            return u64::from(place);
        }
    }
    for place in [first, first + 1] {
        let Some(entry) = Entry::at(place) else { break };
        let ours = if CAS {
            entry.owner().claim(0, tid).is_ok()
        } else {
            if entry.owner().read() == 0 {
                entry.owner().write(tid);
            }
            // Who writes last has it, and the other sees that when it comes back.
            entry.owner().read() == tid
        };
        if ours {
            entry.clear();
            return u64::from(place);
        }
    }
    if let Some(entry) = Entry::at(first) {
        entry.crowded().write(1);
    }
    u64::from(NONE)
}

/// Keeps the figures of this write section; the last one of a call counts.
#[inline(always)]
pub fn keep_section(task: Current, call: Call, mm: OwnMm, slot: u32, mc0: u32, mc1: u32) {
    if call < call::FIRST_REAL {
        return;
    }
    if let Some(entry) = entry_of(task.tid()) {
        let Sizes { total, locked, data, .. } = mm.sizes();
        entry.keep_figures(call, slot, (mc0, mc1), [total, locked, data], mm.lock_sequence());
    }
}

/// The place that this task has or takes.
#[inline(always)]
pub fn entry_of(tid: u32) -> Option<Entry> {
    Entry::scratch_of::<true>(tid).and_then(NonNull::new).map(Entry)
}

/// The place that this task has, by its number too.
#[inline(always)]
pub fn place_of(tid: u32) -> Option<(u32, Entry)> {
    let first = first_place(tid);
    let place = first + u32::from(Entry::at(first)?.owner().read() != u64::from(tid));
    Some((place, Entry::with_question(place, tid)?))
}

/// What was seen within the section that [`keep_section`] has kept: a search, and what the probes saw.
#[inline(always)]
pub fn keep_seen(entry: Entry, id: Call, seen: SeenInSection) {
    let scratch = entry.scratch();
    // SAFETY: as above.
    unsafe {
        if seen.searched != 0 {
            (*scratch).searched = seen.searched;
        }
        if seen.probes != 0 {
            (*scratch).probes = seen.probes;
            (*scratch).probed_call = u32::from(id);
        }
    }
}

/// Keeps the counts before and after a call in an address space that nobody else can have changed meanwhile.
#[inline(always)]
pub fn keep_sample(tid: u32, id: Call, mm: u64, before: u32, after: u32) {
    let Some(scratch) = Entry::scratch_of::<false>(tid) else { return };
    // SAFETY: as above.
    unsafe {
        (*scratch).call = u32::from(id);
        (*scratch).mc0 = before;
        (*scratch).mc1 = after;
        (*scratch).total_vm = kernel::read(mm, layout!(mm_total_vm));
        (*scratch).locked_vm = kernel::read(mm, layout!(mm_locked_vm));
        (*scratch).data_vm = kernel::read(mm, layout!(mm_data_vm));
        (*scratch).lock_sequence = 0;
    }
}

/// Keeps the result of a search for a free range; the last one of a call counts. `CAS`: the kernel has compare-and-swap.
#[inline(always)]
pub fn keep_search<const CAS: bool>(tid: u32, addr: u64) {
    if let Some(scratch) = Entry::scratch_of::<CAS>(tid) {
        // SAFETY: as above.
        unsafe { (*scratch).searched = addr };
    }
}

/// Keeps what a probe has seen of the call that `current` is in.
#[inline(always)]
pub fn keep_probe(bit: u32) {
    let task = Current::task();
    let call = u32::from(task.call());
    if let Some(scratch) = Entry::scratch_of::<true>(task.tid()) {
        // SAFETY: as above.
        unsafe {
            let more = (*scratch).probed_call == call;
            (*scratch).probes = if more { (*scratch).probes | bit } else { bit };
            (*scratch).probed_call = call;
        }
    }
}

/// A task has another id from now on, in the middle of a call: its answer will come to that one.
#[inline(always)]
pub fn rename(old: u32, new: u32) {
    if config!(calls) != 0
        && let Some(entry) = Entry::of(old)
    {
        entry.owner().write(if config!(asks) != 0 { u64::from(new) } else { 0 });
    }
}

/// A task is gone, perhaps in the middle of a call.
#[inline(always)]
pub fn forget(tid: u32) {
    if config!(calls) != 0
        && let Some(entry) = Entry::of(tid)
    {
        entry.end_call();
    }
}

/// What was kept of the call that a task is refused, as class bits and figures, and mm.mm_lock_seq; `max`:
/// vm.max_map_count.
#[inline(always)]
pub fn seen(tid: u32, id: Call, max: u32) -> (u64, Section, u32) {
    let mut class = 0;
    let mut figures = Section::default();
    let mut lock_sequence = 0;
    if let Some(scratch) = Entry::of(tid).map(Entry::scratch) {
        // SAFETY: points into the map; the place is this task's alone.
        unsafe {
            figures.searched = (*scratch).searched;
            if (*scratch).probed_call == u32::from(id) {
                if (*scratch).probes & OVERCOMMIT_REFUSED != 0 {
                    class |= CLASS_OVERCOMMIT_REFUSED;
                }
                if (*scratch).probes & HEAP_REACHED != 0 && id == call::BRK {
                    class |= CLASS_HEAP_REACHED;
                }
            }
            if (*scratch).call == u32::from(id) {
                figures.mc0 = (*scratch).mc0;
                figures.mc1 = (*scratch).mc1;
                figures.total_vm = (*scratch).total_vm;
                figures.locked_vm = (*scratch).locked_vm;
                figures.data_vm = (*scratch).data_vm;
                lock_sequence = (*scratch).lock_sequence;
                class |= CLASS_SECTION
                    | relative_to_max(figures.mc0, max)
                    | relative_to_max(figures.mc1, max) << CLASS_MC1_SHIFT;
            }
        }
    }
    if figures.searched != 0 {
        class |= CLASS_SEARCHED;
    }
    // An address is never this large: the kernel's half of the address space is out of reach.
    if (figures.searched as i64) < 0 {
        class |= CLASS_NO_HOLE;
    }
    if Entry::at(first_place(tid)).is_some_and(|entry| entry.crowded().read() != 0) {
        if class & CLASS_SECTION == 0 {
            class |= CLASS_SECTION_LOST;
        }
        if class & CLASS_SEARCHED == 0 && searches(id) {
            class |= CLASS_SEARCH_LOST;
        }
        if class & (CLASS_SECTION_LOST | CLASS_SEARCH_LOST) != 0 {
            lost!(section_lost);
        }
    }
    (class, figures, lock_sequence)
}
