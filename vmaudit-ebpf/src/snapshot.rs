//! What lived before the hooks: a walk over all tasks, started by user space reading the iterator's file.
//!
//! Reading map_count here is outside the lock. It is taken only while no writer holds the lock; a writer that comes
//! and goes around the reading finds no slot and opens one itself, and then the insertion here loses (NOEXIST).

use vmaudit_common::{ABSENT, MM_FROM_SNAPSHOT};

use crate::{
    kernel, lifecycle,
    maps::{self, layout},
};

/// Context of a task iterator: `meta`, `task` (include/linux/bpf.h, kernel/bpf/task_iter.c).
#[repr(C)]
pub struct TaskIterContext {
    meta: *const u64,
    task: *const u64,
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
    let lock = layout!(mm_lock_count);
    if lock == ABSENT || kernel::read::<u64>(mm, lock) & 1 != 0 {
        return; // a writer is inside: its release will open the slot
    }
    let parent: u64 = kernel::read(task, layout!(task_real_parent));
    let _ = lifecycle::open_slot(mm, task, tgid, kernel::read(parent, layout!(task_tgid)), MM_FROM_SNAPSHOT);
}
