//! Limits whose refusals let no lock go, so that nobody asks for the answer ([`crate::answer`]): those on tasks, and
//! vm.max_map_count in kernels whose mremap checks it without the lock. When one of them is near, user space is told, and
//! puts a program on the exits of calls; one that was reached before that is kept in mind.

use vmaudit_common::{LIMIT_NEAR, LIMIT_ON_TASKS_MET, LIMIT_ON_VMAS_MET};

use crate::{
    control::{Page, config},
    failure::tasks,
    records,
};

/// Tasks that there is still room for when a limit on them is near: some milliseconds of births on many processors, which
/// user space has to notice. Limits as small as this are always near.
const FEW_TASKS: u64 = 512;
/// The part of vm.max_map_count, likewise.
const FEW_VMAS: u32 = 8;
/// mremap wants room for so many VMAs (mm/mremap.c, 6.17 to 7.0: `map_count + 2 >= max - 3`).
const WANTED_BY_MREMAP: u32 = 6;

/// A followed process has made another or a thread, or has a new image.
#[inline(always)]
pub fn look_at_tasks() {
    let page = Page::get();
    if page.watched() {
        return;
    }
    let room = tasks::room();
    if room < FEW_TASKS {
        met(page, if room == 0 { LIMIT_NEAR | LIMIT_ON_TASKS_MET } else { LIMIT_NEAR });
    }
}

/// A followed address space has so many VMAs.
#[inline(always)]
pub fn look_at_count(count: u32) {
    if config!(mremap_unlocked) == 0 {
        return;
    }
    let max = Page::get().max_map_count();
    if count >= max - max / FEW_VMAS {
        count_is_near(count, max);
    }
}

// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_is_near(count: u32, max: u32) -> u64 {
    let page = Page::get();
    if !page.watched() {
        met(page, if count + WANTED_BY_MREMAP > max { LIMIT_NEAR | LIMIT_ON_VMAS_MET } else { LIMIT_NEAR });
    }
    0
}

#[inline(always)]
fn met(page: Page, bits: u32) {
    let before = page.limits_met();
    if before & bits == bits {
        return;
    }
    page.meet_limits(before | bits);
    if before & LIMIT_NEAR == 0 {
        records::limit_near();
    }
}
