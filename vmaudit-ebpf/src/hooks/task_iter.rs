//! What lived before the hooks: a walk over all tasks, started by user space reading the iterator's file.
//!
//! Reading map_count here is outside the lock. It is believed only if no writer held the lock before and after, with
//! the same count; a writer that comes and goes around the reading finds no slot and opens one itself, and then the
//! insertion here loses (NOEXIST). One that comes later finds the count it started with.

use vmaudit_common::MM_FROM_SNAPSHOT;

use crate::{
    address_space::{self, Owner},
    control::{Page, layout},
    followed,
    kernel::{self, TaskIterContext},
    lock_sequence, lodgers, sizes, slots,
};

/// match-proto: bpf_iter__task {struct bpf_iter_meta *meta; struct task_struct *task}, 5.8 and later
// SAFETY: no other symbol of the object has this name.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn snapshot(ctx: *const TaskIterContext) -> i32 {
    // SAFETY: the kernel's own context.
    if let Some(task) = unsafe { TaskIterContext::task(ctx) } {
        take(task);
    }
    0
}

#[inline(always)]
fn take(task: u64) {
    let mm = kernel::mm_of(task);
    if mm == 0 {
        return;
    }
    if Page::get().last_walk().read() != 0 {
        if let Some(slot) = slots::of_mm(mm)
            && let Some(sequence) = lock_sequence::settled(mm)
        {
            slot.set_verified(u64::from(sequence) + 1);
        }
        return;
    }
    if let Some(index) = slots::index_of(mm) {
        lodgers::met::<true>(index, task);
        return;
    }
    let tgid: u32 = kernel::read(task, layout!(task_tgid));
    if !followed::follows(tgid) {
        return;
    }
    let Some(seen) = sizes::settled(mm) else {
        return; // a writer is inside: its release will open the slot
    };
    let owner = Owner { task, tgid, ppid: kernel::parent_of(task), flags: MM_FROM_SNAPSHOT };
    if address_space::open_at(mm, owner, seen).is_none() {
        return;
    }
    // While the task still has the address space, its end is to come and will find the slot. Otherwise it may be past;
    // if other threads go on, the walk comes to one of them and begins anew.
    if kernel::mm_of(task) != mm
        && let Some(index) = slots::index_of(mm)
    {
        address_space::finish(index, mm, false);
    }
}
