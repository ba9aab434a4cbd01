//! What is known of the call that a task is in, for the refusal that may end it: the figures of its last write section of
//! the mmap lock, the result of its last search for a free range, what the probes have seen. The only room that reads or
//! writes this scratch.

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{
    CLASS_HEAP_REACHED, CLASS_MC1_SHIFT, CLASS_NO_HOLE, CLASS_OVERCOMMIT_REFUSED, CLASS_SEARCH_LOST,
    CLASS_SEARCHED, CLASS_SECTION, CLASS_SECTION_LOST, PROBE_HEAP_REACHED, PROBE_OVERCOMMIT_REFUSED,
    SECTIONS, Section,
    call::{self, Call},
    relative_to_max,
};

use crate::{
    call::searches,
    control::{config, layout, lost},
    kernel::{self, Current, OwnMm},
};

/// One entry for all tasks whose ids differ by a multiple of [`SECTIONS`].
#[map]
static SECTION_OF_TASK: Array<Section> = Array::with_max_entries(SECTIONS, 0);

/// The entry that a task uses, perhaps together with others.
#[derive(Clone, Copy)]
pub struct Entry {
    section: *mut Section,
    tid: u32,
}

impl Entry {
    /// The one of the task with this id.
    #[inline(always)]
    pub fn of(tid: u32) -> Option<Self> {
        SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)).map(|section| Self { section, tid })
    }

    /// The slot of the address space in which this very call has written.
    #[inline(always)]
    pub fn slot(self, id: Call) -> Option<u32> {
        // SAFETY: points into the map; if the entry is this task's own, then it is in no other call.
        let (owner, call, slot) =
            unsafe { ((*self.section).tid, (*self.section).call, (*self.section).slot) };
        if owner == self.tid && call == u32::from(id) { Some(slot) } else { None }
    }

    /// The call is over: what was kept belongs to it only, the next one must not find it.
    #[inline(always)]
    pub fn end_call(self) {
        // SAFETY: points into the map.
        unsafe {
            if (*self.section).tid == self.tid {
                (*self.section).call = u32::from(call::OTHER);
            }
            if (*self.section).searcher == self.tid {
                (*self.section).searched = 0;
            }
            if (*self.section).prober == self.tid {
                (*self.section).prober = 0;
            }
        }
    }

    /// Keeps the counts before and after a call in an address space that nobody else can have changed meanwhile.
    #[inline(always)]
    pub fn keep_sample(self, id: Call, mm: u64, before: u32, after: u32) {
        // SAFETY: points into the map.
        unsafe {
            (*self.section).tid = self.tid;
            (*self.section).call = u32::from(id);
            (*self.section).mc0 = before;
            (*self.section).mc1 = after;
            (*self.section).total_vm = kernel::read(mm, layout!(mm_total_vm));
            (*self.section).locked_vm = kernel::read(mm, layout!(mm_locked_vm));
            (*self.section).data_vm = kernel::read(mm, layout!(mm_data_vm));
        }
    }
}

/// Keeps the figures of this write section; the last one of a call counts.
#[inline(always)]
pub fn keep_section(task: Current, call: Call, mm: OwnMm, slot: u32, mc0: u32, mc1: u32) {
    if call < call::FIRST_REAL {
        return;
    }
    let Some(Entry { section, tid }) = Entry::of(task.tid()) else { return };
    let (total_vm, locked_vm, data_vm) = mm.pages();
    // SAFETY: `section` points into the map; torn entries are recognised by their `tid`, written last.
    unsafe {
        core::ptr::write_volatile(&raw mut (*section).tid, 0);
        (*section).call = u32::from(call);
        (*section).slot = slot;
        (*section).mc0 = mc0;
        (*section).mc1 = mc1;
        (*section).total_vm = total_vm;
        (*section).locked_vm = locked_vm;
        (*section).data_vm = data_vm;
        (*section).lock_sequence = mm.lock_sequence();
        core::ptr::write_volatile(&raw mut (*section).tid, tid);
    }
}

/// Keeps the result of a search for a free range; the last one of a call counts.
#[inline(always)]
pub fn keep_search(tid: u32, addr: u64) {
    if let Some(Entry { section, tid }) = Entry::of(tid) {
        // SAFETY: points into the map.
        unsafe {
            (*section).searched = addr;
            (*section).searcher = tid;
        }
    }
}

/// Keeps a `PROBE_*` bit of the call that `current` is in.
#[inline(always)]
pub fn keep_probe(bit: u32) {
    let task = Current::task();
    let call = u32::from(task.call());
    if let Some(Entry { section, tid }) = Entry::of(task.tid()) {
        // SAFETY: points into the map; whoever reads compares task and call.
        unsafe {
            let more = (*section).prober == tid && (*section).probed_call == call;
            (*section).probes = if more { (*section).probes | bit } else { bit };
            (*section).probed_call = call;
            (*section).prober = tid;
        }
    }
}

/// A task is gone: its entry speaks for nobody.
#[inline(always)]
pub fn forget(tid: u32) {
    if config!(calls) == 0 {
        return;
    }
    if let Some(Entry { section, tid }) = Entry::of(tid) {
        // SAFETY: points into the map.
        unsafe {
            if (*section).tid == tid {
                (*section).tid = 0;
            }
            if (*section).searcher == tid {
                (*section).searcher = 0;
            }
            if (*section).prober == tid {
                (*section).prober = 0;
            }
        }
    }
}

/// What was kept of the call that a task is refused, as class bits and figures; `max`: vm.max_map_count.
#[inline(always)]
pub fn seen(tid: u32, id: Call, max: u32) -> (u32, Section) {
    let mut class = 0;
    let mut figures = Section::default();
    let Some(Entry { section, tid }) = Entry::of(tid) else { return (class, figures) };
    // SAFETY: points into the map; the copy is checked below.
    let seen = unsafe { core::ptr::read_volatile(section) };
    if seen.searcher == tid {
        if seen.searched != 0 {
            class |= CLASS_SEARCHED;
        }
        // An address is never this large: the kernel's half of the address space is out of reach.
        if (seen.searched as i64) < 0 {
            class |= CLASS_NO_HOLE;
        }
    } else if seen.searcher != 0 && searches(id) {
        class |= CLASS_SEARCH_LOST;
        lost!(section_lost);
    }
    if seen.prober == tid && seen.probed_call == u32::from(id) {
        if seen.probes & PROBE_OVERCOMMIT_REFUSED != 0 {
            class |= CLASS_OVERCOMMIT_REFUSED;
        }
        if seen.probes & PROBE_HEAP_REACHED != 0 && id == call::BRK {
            class |= CLASS_HEAP_REACHED;
        }
    }
    if seen.tid == tid && seen.call == u32::from(id) {
        class |= CLASS_SECTION
            | relative_to_max(seen.mc0, max)
            | relative_to_max(seen.mc1, max) << CLASS_MC1_SHIFT;
        figures = seen;
    } else if seen.tid != 0 && seen.tid != tid {
        class |= CLASS_SECTION_LOST;
        lost!(section_lost);
    }
    (class, figures)
}
