//! How large the process would have had to be allowed to be, so that a refused call had passed its limits: what was in use,
//! and what was asked for on top. The largest of each kind is kept.

use vmaudit_common::{
    ABSENT, CLASS_COUNTS, CLASS_LOCKS, CLASS_MC0_MASK, CLASS_SECTION, Section,
    call::{self, Call},
};

use super::evidence::{RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, asked_pages};
use crate::{
    call::FailedCall,
    control::{config, layout},
    kernel::{self, whole_pages},
    slots::{Group, Slot},
};

const ENOMEM: u8 = 12;
const EAGAIN: u8 = 11;

/// Words of [`vmaudit_common::Needed`].
const TOTAL: u32 = 0;
const DATA: u32 = 1;
const LOCKED: u32 = 2;

/// The refused call, beside its arguments: in one word, because global functions take no more than five.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Index of the address space's slot.
    index: u32,
    /// Of the group that it was counted in.
    group: u8,
    pub id: Call,
    pub errno: u8,
    /// vm.max_map_count refused it before any of these limits was looked at (mm/mmap.c:do_mmap, do_brk_flags).
    above_count: bool,
    /// The figures of its lock section are known.
    section: bool,
    /// What it maps is locked.
    locks: bool,
    /// What it maps counts for RLIMIT_DATA.
    counts: bool,
}

impl Asked {
    /// In one word. Without a branch, for the same reason.
    #[inline(always)]
    pub fn packed(index: u32, group: usize, failed: &FailedCall, class: u64) -> u64 {
        // As relative_to_max: 8 is one above the limit, and the most.
        let above_count = (class & CLASS_MC0_MASK) >> 3;
        let bit = |class_bit: u64, place: u32| u64::from(class & class_bit != 0) << place;
        u64::from(index) << 32
            | u64::from(failed.id)
            | u64::from(failed.errno) << 8
            | (group as u64 & 0xff) << 16
            | (above_count & 1) << 24
            | bit(CLASS_LOCKS, 25)
            | bit(CLASS_COUNTS, 26)
            | bit(CLASS_SECTION, 27)
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            index: (word >> 32) as u32,
            id: word as u8,
            errno: (word >> 8) as u8,
            group: (word >> 16) as u8,
            above_count: word >> 24 & 1 == 1,
            locks: word >> 25 & 1 == 1,
            counts: word >> 26 & 1 == 1,
            section: word >> 27 & 1 == 1,
        }
    }

    /// A limit on the address space, or on its data, may be what refused it.
    #[inline(always)]
    fn grows(self) -> bool {
        self.errno == ENOMEM && !self.above_count
    }

    #[inline(always)]
    fn meets_as(self) -> bool {
        self.grows() && matches!(self.id, call::MMAP | call::MREMAP | call::BRK)
    }

    #[inline(always)]
    fn meets_data(self) -> bool {
        self.grows()
            && match self.id {
                call::MMAP => self.counts,
                call::MREMAP | call::BRK | call::MPROTECT | call::PKEY_MPROTECT => true,
                _ => false,
            }
    }

    /// Of mmap and mremap RLIMIT_MEMLOCK has an errno of its own.
    #[inline(always)]
    fn meets_memlock(self) -> bool {
        match self.id {
            call::MMAP | call::MREMAP => self.errno == EAGAIN,
            call::BRK => self.locks,
            call::MLOCK | call::MLOCK2 | call::MLOCKALL => true,
            _ => false,
        }
    }
}

/// Pages that brk counts for RLIMIT_DATA by itself: the heap as asked for, and the image's data
/// (include/linux/mm.h:check_data_rlimit).
#[inline(always)]
fn heap_and_data(task: u64, asked: u64) -> u64 {
    let (start, end) = (layout!(mm_start_data), layout!(mm_end_data));
    if start == ABSENT || end == ABSENT {
        return 0;
    }
    let [start, end, heap] = kernel::read_words(kernel::mm_of(task), [start, end, layout!(mm_start_brk)]);
    let bytes = asked.wrapping_sub(heap).wrapping_add(end.wrapping_sub(start));
    whole_pages(bytes) >> (config!(page_shift) & 31)
}

/// Keeps what the call would have needed, on the figures (pages) of the lock section in which it was refused.
#[inline(always)]
pub fn keep(asked: Asked, ret: u64, task: u64, arguments: [u64; 4], section: &Section) {
    if !asked.section {
        return;
    }
    let Some(group) = Slot::at(asked.index).and_then(|slot| slot.group(usize::from(asked.group))) else {
        return;
    };
    let Section { total_vm, data_vm, locked_vm, .. } = *section;
    let pages = asked_pages(asked.id, ret, arguments);
    let [most_total, most_data, most_locked] =
        kernel::rlimits(task, [RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK]);
    if asked.meets_as() {
        raise(group, TOTAL, total_vm + pages, most_total);
    }
    if asked.meets_data() {
        let heap = if asked.id == call::BRK { heap_and_data(task, arguments[0]) } else { 0 };
        let most = if heap > data_vm + pages { heap } else { data_vm + pages };
        raise(group, DATA, most, most_data);
    }
    if asked.meets_memlock() {
        let locked = if asked.id == call::MLOCKALL { total_vm } else { locked_vm + pages };
        raise(group, LOCKED, locked, most_locked);
    }
}

#[inline(always)]
fn raise(group: Group, which: u32, pages: u64, limit: u64) {
    if pages > limit >> (config!(page_shift) & 31)
        && let Some(word) = group.needed(which)
    {
        word.raise(pages);
    }
}
