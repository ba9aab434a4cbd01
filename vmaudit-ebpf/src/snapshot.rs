//! What lived before the hooks: a walk over all tasks, started by user space reading the iterator's file.
//!
//! Reading map_count here is outside the lock. It is taken only while no writer holds the lock; a writer that comes
//! and goes around the reading finds no slot and opens one itself, and then the insertion here loses (NOEXIST).

use aya_ebpf::helpers::generated::bpf_seq_write;
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

/// Writes (tgid, map_count) of every process to the reader, for `scan`: no slot, no hook, no lock, one pass. Each
/// figure is the one of that moment, also in the middle of a change.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn count(ctx: *const TaskIterContext) -> i32 {
    // SAFETY: as above.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let task = task as u64;
    let mm = kernel::mm_of(task);
    let leader = kernel::leader_of(task);
    // One line a process; another thread speaks for a leader that has already ended.
    if mm == 0 || (task != leader && kernel::mm_of(leader) != 0) {
        return 0;
    }
    let line: [u32; 2] = [kernel::read(task, layout!(task_tgid)), kernel::map_count(mm)];
    // SAFETY: `meta.seq` is the first member; the helper copies 8 bytes.
    unsafe { bpf_seq_write((*meta) as *mut _, line.as_ptr().cast(), 8) };
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
