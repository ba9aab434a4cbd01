//! What lived before the hooks: a walk over all tasks, started by user space reading the iterator's file.
//!
//! Reading map_count here is outside the lock. It is believed only if no writer held the lock before and after, with
//! the same count; a writer that comes and goes around the reading finds no slot and opens one itself, and then the
//! insertion here loses (NOEXIST). One that comes later finds the count it started with.

use vmaudit_common::{ABSENT, MM_FROM_SNAPSHOT};

use crate::{
    kernel, lifecycle,
    maps::{self, layout},
};

/// Context of a task iterator: `meta`, `task` (include/linux/bpf.h, kernel/bpf/task_iter.c).
#[repr(C)]
pub struct TaskIterContext {
    _meta: *const u64,
    /// Null after the last one.
    pub task: *const u64,
}

/// match-proto: bpf_iter__task {struct bpf_iter_meta *meta; struct task_struct *task}, 5.8 and later
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn snapshot(ctx: *const TaskIterContext) -> i32 {
    // SAFETY: the kernel passes a valid context; `task` is null after the last one.
    let task = unsafe { (*ctx).task };
    if !task.is_null() {
        take(task as u64);
    }
    0
}

#[inline(always)]
fn take(task: u64) {
    let mm = kernel::mm_of(task);
    if mm == 0 || maps::slot_of(mm).is_some() {
        return;
    }
    let tgid: u32 = kernel::read(task, layout!(task_tgid));
    if !lifecycle::follows(tgid) {
        return;
    }
    let Some(count) = settled_count(mm) else {
        return; // a writer is inside: its release will open the slot
    };
    let parent: u64 = kernel::read(task, layout!(task_real_parent));
    let ppid = kernel::read(parent, layout!(task_tgid));
    if lifecycle::open_slot_at(mm, task, tgid, ppid, MM_FROM_SNAPSHOT, count).is_none() {
        return;
    }
    // While the task still has the address space, its end is to come and will find the slot. Otherwise it may be past;
    // if other threads go on, the walk comes to one of them and begins anew.
    if kernel::mm_of(task) != mm
        && let Some(index) = maps::index_of(mm)
    {
        lifecycle::finish(index, mm, false);
    }
}

/// The count, as no writer is changing it.
#[inline(always)]
pub fn settled_count(mm: u64) -> Option<u32> {
    let lock = layout!(mm_lock_count);
    if lock == ABSENT {
        return None;
    }
    let written = || kernel::read::<u64>(mm, lock) & 1 != 0;
    if written() {
        return None;
    }
    let count = kernel::map_count(mm);
    (!written() && kernel::map_count(mm) == count).then_some(count)
}
