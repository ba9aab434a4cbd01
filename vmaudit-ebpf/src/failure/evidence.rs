//! What a refused call asked for, and which limits that exceeds.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use vmaudit_common::{
    ABSENT, Bounds, CLASS_FILE, CLASS_LIMIT_POLLED, CLASS_LOCKS, CLASS_LOW, CLASS_NONE_LOCKED, CLASS_OVER_AS,
    CLASS_OVER_DATA, CLASS_OVER_MEMLOCK, CLASS_OVER_RAM, CLASS_SURELY_OVER_AS, CLASS_SURELY_OVER_DATA,
    Section,
    call::{self, Call},
};

use crate::{
    call::FailedCall,
    control::{Page, config, layout, lost},
    kernel::{self, whole_pages},
};

pub(super) const RLIMIT_DATA: u32 = 2;
const RLIMIT_STACK: u32 = 3;
pub(super) const RLIMIT_MEMLOCK: u32 = 8;
pub(super) const RLIMIT_AS: u32 = 9;

/// vm.max_map_count now, or as user space last saw it; and the class bit that tells which.
#[inline(always)]
pub fn max_map_count(page: Page) -> (u32, u64) {
    let at = config!(max_map_count_at);
    if at != 0 {
        // SAFETY: the helper checks the address itself and never faults.
        match unsafe { bpf_probe_read_kernel(at as *const u32) } {
            Ok(limit) => return (limit, 0),
            Err(_) => lost!(read_failed),
        }
    }
    (page.max_map_count(), CLASS_LIMIT_POLLED)
}

/// RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK of `current`, bytes.
#[inline(always)]
pub fn rlimits(task: u64) -> [u64; 4] {
    [
        kernel::rlimit(task, RLIMIT_AS),
        kernel::rlimit(task, RLIMIT_DATA),
        kernel::rlimit(task, RLIMIT_MEMLOCK),
        kernel::rlimit(task, RLIMIT_STACK),
    ]
}

/// What the call asks for, as class bits.
#[inline(always)]
pub fn request(failed: &FailedCall) -> u64 {
    let bounds = Bounds {
        page_shift: config!(page_shift) & 31,
        task_size: config!(task_size),
        address_end: config!(address_end),
        ram_and_swap_pages: config!(ram_and_swap_pages),
        start_brk: kernel::start_brk(failed.task),
        rlimit_data: kernel::rlimit(failed.task, RLIMIT_DATA),
    };
    let mut asked =
        vmaudit_common::asked_for(failed.id, failed.ret, kernel::first_arguments(failed.regs), &bounds);
    if failed.id == call::MMAP && asked & CLASS_FILE != 0 {
        asked |= super::file_kind::file_kind(kernel::argument(failed.regs, 4));
    }
    if failed.id == call::MMAP || failed.id == call::MREMAP {
        asked |= kernel::if_compat(CLASS_LOW);
    }
    asked | locks(failed.task)
}

/// Whether all that the address space maps from now on is locked.
#[inline(always)]
fn locks(task: u64) -> u64 {
    const VM_LOCKED: u64 = 0x2000;
    let def_flags = layout!(mm_def_flags);
    if def_flags != ABSENT && kernel::read::<u64>(kernel::mm_of(task), def_flags) & VM_LOCKED != 0 {
        CLASS_LOCKS
    } else {
        0
    }
}

/// Pages by which the call would have made the address space (mlock: its locked part) larger.
#[inline(always)]
pub(super) fn asked_pages(id: Call, ret: u64, [a0, a1, a2, _]: [u64; 4]) -> u64 {
    let shift = config!(page_shift) & 31;
    match id {
        call::MREMAP if a2 > a1 => (whole_pages(a2) - whole_pages(a1)) >> shift,
        call::MREMAP => 0,
        call::BRK if a0 > ret => (whole_pages(a0) - whole_pages(ret)) >> shift,
        call::BRK | call::CLONE | call::CLONE3 | call::FORK | call::VFORK => 0,
        _ => whole_pages(a1) >> shift,
    }
}

/// mmap's flags ask for a range in place of what is there.
#[inline(always)]
fn replaces(flags: u64) -> bool {
    const MAP_FIXED: u64 = 0x10;
    const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
    flags & MAP_FIXED != 0 && flags & MAP_FIXED_NOREPLACE == 0
}

/// Which of the process's limits the request exceeds, as class bits, by the kernel's own formulas (mm/mmap.c:
/// may_expand_vm, mm/mlock.c:do_mlock), on the figures (pages) of the lock section in which it was refused. Whether the
/// kernel asks that question for this kind of request is the diagnosis's to know.
#[inline(always)]
pub fn exceeded(failed: &FailedCall, section: &Section) -> u64 {
    let Section { total_vm, data_vm, locked_vm, .. } = *section;
    let pages = asked_pages(failed.id, failed.ret, kernel::first_arguments(failed.regs));
    let shift = config!(page_shift) & 31;
    let mut class = if locked_vm == 0 { CLASS_NONE_LOCKED } else { 0 };
    // What a fixed range replaces is not counted again: no more than there is, and nothing where it must be free.
    let replaced = if failed.id == call::MMAP && replaces(kernel::argument(failed.regs, 3)) {
        if pages < total_vm { pages } else { total_vm }
    } else {
        0
    };
    let limit = kernel::rlimit(failed.task, RLIMIT_AS) >> shift;
    if total_vm + pages > limit {
        class |= CLASS_OVER_AS;
    }
    if total_vm + pages - replaced > limit {
        class |= CLASS_SURELY_OVER_AS;
    }
    let limit = kernel::rlimit(failed.task, RLIMIT_DATA) >> shift;
    if data_vm + pages > limit {
        class |= CLASS_OVER_DATA;
    }
    if data_vm + pages - replaced > limit {
        class |= CLASS_SURELY_OVER_DATA;
    }
    // What is copied is charged mapping by mapping, none of which is larger than all.
    let most = config!(ram_and_swap_pages);
    if super::tasks::makes_one(failed.id) && most != 0 && total_vm > most {
        class |= CLASS_OVER_RAM;
    }
    let limit = kernel::rlimit(failed.task, RLIMIT_MEMLOCK) >> shift;
    let locked = if failed.id == call::MLOCKALL { total_vm } else { locked_vm + pages };
    if locked > limit && !kernel::may_lock_any(failed.task) {
        class |= CLASS_OVER_MEMLOCK;
    }
    class
}
