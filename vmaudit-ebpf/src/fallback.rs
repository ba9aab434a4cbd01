//! A second set of programs for kernels without mmap_lock_released (5.10), or where it cannot be had: the count is read
//! when a watched call returns, and at birth and exec.
//!
//! While one task alone can change an address space, nothing happens between two samples but the call itself, so that
//! peaks are exact as with the lock events. From the moment a second one can, the slot is marked [`MM_SHARED`]: its peak
//! is then the largest sample. Everything here runs on 5.10: no atomics that return a value, no task known by type, no
//! `bpf_task_pt_regs`. The end of an address space is its process's last exit, or its next exec.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext,
};
use vmaudit_common::{
    ABSENT, FOLLOW_FROM_BIRTH, Followed, MM_FROM_BIRTH, MM_FROM_EXEC, MM_FROM_SNAPSHOT, MM_SHARED, MmSlot,
    RECORD_EXEC, RECORD_EXIT, RECORD_FORK, SECTIONS,
    call::{self, Call},
};

use crate::{
    kernel, lifecycle,
    map_count::{account, stream},
    maps::{self, FOLLOWED, MM_OF_TGID, SECTION_OF_TASK, SLOTS, config, layout, lost},
    probes,
    refused::{self, Refused},
    snapshot::{TaskIterContext, settled_count},
    syscalls::{self, Made},
};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sampled_exit(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let id = kernel::call_by_number(u64::from(kernel::read::<u32>(regs, layout!(regs_nr))));
    if id >= call::FIRST_REAL {
        returned(ctx.as_ptr(), id, ctx.arg::<u64>(1) as i64, regs);
    }
    0
}

#[inline(never)]
fn returned(ctx: *mut core::ffi::c_void, id: Call, ret: i64, regs: u64) {
    let task = kernel::current();
    let mm = kernel::mm_of(task);
    if mm == 0 {
        return;
    }
    let Some(index) = maps::index_of(mm).or_else(|| adopt(task, mm)) else { return };
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    let compat = layout!(task_compat) != ABSENT
        && kernel::read::<u32>(task, layout!(task_compat)) & layout!(compat_mask) != 0;
    let by = if compat { call::COMPAT } else { id };
    let (before, count) = sample(slot, task, mm, by);
    if config!(calls) == 0 {
        return;
    }
    let (_, tid) = kernel::ids();
    let section = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1));
    // SAFETY: `slot` points into SLOTS, the section into its map. Where nobody else can have changed anything, the
    // call had what the last sample saw and left what this one sees.
    unsafe {
        if let Some(section) = section
            && (*slot).flags & MM_SHARED == 0
        {
            (*section).tid = tid;
            (*section).call = u32::from(id);
            (*section).mc0 = before;
            (*section).mc1 = count;
            (*section).total_vm = kernel::read(mm, layout!(mm_total_vm));
            (*section).locked_vm = kernel::read(mm, layout!(mm_locked_vm));
            (*section).data_vm = kernel::read(mm, layout!(mm_data_vm));
        }
    }
    if let Some(errno) = syscalls::answered::<true>(slot, &Made { id, ret, regs, task, compat }) {
        refused::refused_plainly(ctx, index, slot, &Refused { id, errno, ret: ret as u64, regs, task });
    }
    syscalls::consume(section, tid);
}

/// Reads the count, books its change since the last sample; returns both counts.
#[inline(always)]
fn sample(slot: *mut MmSlot, task: u64, mm: u64, by: Call) -> (u32, u32) {
    let count = kernel::map_count(mm);
    // SAFETY: `slot` points into SLOTS. Threads meet here; what they lose of each other is why their slot is marked.
    let before = unsafe { (*slot).last };
    if count == before {
        return (before, count);
    }
    unsafe {
        if count > (*slot).peak {
            (*slot).peak = count;
            (*slot).peak_ns = bpf_ktime_get_ns();
        }
    }
    account(slot, by, before, count);
    if config!(stream_changes) != 0 {
        stream(slot, by, before, count, task);
    }
    (before, count)
}

/// The first sign of a process that ran before the hooks did.
#[inline(always)]
fn adopt(task: u64, mm: u64) -> Option<u32> {
    let (tgid, _) = kernel::ids();
    if !lifecycle::follows(tgid) {
        return None;
    }
    // SAFETY: the value is copied at once.
    let born = unsafe { FOLLOWED.get(&tgid) }.is_some_and(|f| f.flags & FOLLOW_FROM_BIRTH != 0);
    if born {
        // Its birth or exec found no place.
        lost!(birth_missed);
    }
    open(mm, task, tgid, lifecycle::parent_of(task), shared_by_now(mm), kernel::map_count(mm));
    maps::index_of(mm)
}

/// [`MM_SHARED`] for an address space that was met in its middle.
#[inline(always)]
fn shared_by_now(mm: u64) -> u32 {
    let users = layout!(mm_users);
    if users == ABSENT || kernel::read::<u32>(mm, users) > 1 { MM_SHARED } else { 0 }
}

/// Starts following an address space; the one that its process had before is over.
#[inline(always)]
fn open(mm: u64, task: u64, tgid: u32, ppid: u32, flags: u32, count: u32) {
    end(tgid, mm);
    let Some((index, slot)) = maps::claim_slot_plainly() else { return };
    if lifecycle::fill(index, slot, mm, task, tgid, ppid, flags, count).is_some()
        && MM_OF_TGID.insert(&tgid, &mm, 0).is_err()
    {
        lost!(death_missed);
    }
}

/// The address space of this process ends, unless it is `but`.
#[inline(always)]
fn end(tgid: u32, but: u64) {
    // SAFETY: the value is copied at once.
    let Some(mm) = unsafe { MM_OF_TGID.get(&tgid) }.copied() else { return };
    if mm == but {
        return;
    }
    let _ = MM_OF_TGID.remove(&tgid);
    let Some(index) = maps::index_of(mm) else { return };
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    // The mm_struct may be another's by now, whose birth ended this slot.
    // SAFETY: `slot` points into SLOTS.
    if unsafe { (*slot).tgid } == tgid {
        finish(index, mm);
    }
}

#[inline(always)]
fn finish(index: u32, mm: u64) {
    maps::drop_claims(index);
    lifecycle::finish(index, mm, false);
}

/// match-proto: task_newtask(struct task_struct *task, unsigned long clone_flags), all versions; fires just before
/// sched_process_fork, with everything in place, and tells threads and vfork apart.
#[raw_tracepoint(tracepoint = "task_newtask")]
pub fn sampled_newtask(ctx: RawTracePointContext) -> i32 {
    born(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn born(child: u64, flags: u64) {
    let (tgid, tid) = kernel::ids();
    if !lifecycle::follows(tgid) {
        return;
    }
    let mm = kernel::mm_of(child);
    if mm == 0 {
        return; // a kernel thread
    }
    let shares = flags & CLONE_VM != 0;
    // After vfork the parent sleeps until the child is done with the memory.
    if shares && (flags & CLONE_VFORK == 0 || flags & CLONE_THREAD != 0) {
        if let Some(slot) = maps::slot_of(mm) {
            // SAFETY: `slot` points into SLOTS; the bit is only ever set.
            unsafe { (*slot).flags |= MM_SHARED };
        }
    }
    if flags & CLONE_THREAD != 0 || config!(follow_children) == 0 {
        return;
    }
    let child_tgid: u32 = kernel::read(child, layout!(task_tgid));
    if FOLLOWED.insert(&child_tgid, &Followed { flags: FOLLOW_FROM_BIRTH, reserved: 0 }, 0).is_err() {
        lost!(tree_full);
    }
    lifecycle::task_record(RECORD_FORK, child_tgid, tid, tgid, child, 0, 0);
    if shares {
        return;
    }
    if let Some(stale) = maps::index_of(mm) {
        // Its former owner is between the end of its address space and its own.
        finish(stale, mm);
    }
    open(mm, child, child_tgid, tgid, MM_FROM_BIRTH, kernel::map_count(mm));
}

/// match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sampled_exec(ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = kernel::ids();
    if !lifecycle::follows_or_waits(tgid) {
        return 0;
    }
    let old = ctx.arg::<u64>(1) as u32;
    if old != tgid {
        syscalls::forget(old);
    }
    // SAFETY: the map is ours; the value is changed in place, by the process's only running thread.
    if let Some(followed) = FOLLOWED.get_ptr_mut(&tgid) {
        unsafe { (*followed).flags = FOLLOW_FROM_BIRTH };
    }
    let task = kernel::current();
    let mm = kernel::mm_of(task);
    let ppid = lifecycle::parent_of(task);
    if let Some(stale) = maps::index_of(mm) {
        finish(stale, mm);
    }
    open(mm, task, tgid, ppid, MM_FROM_BIRTH | MM_FROM_EXEC, kernel::map_count(mm));
    let filename = kernel::read(ctx.arg::<u64>(2), layout!(bprm_filename));
    lifecycle::task_record(RECORD_EXEC, tgid, tid, ppid, task, filename, 0);
    0
}

/// match-proto: sched_process_exit(struct task_struct *p), 6.16 and later also (…, bool group_dead)
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sampled_end(_ctx: RawTracePointContext) -> i32 {
    let task = kernel::current();
    let (tgid, tid) = kernel::ids();
    if !lifecycle::follows(tgid) {
        return 0;
    }
    syscalls::forget(tid);
    if !kernel::group_is_dead(task) {
        return 0;
    }
    // SAFETY: the value is copied at once.
    if let Some(mm) = unsafe { MM_OF_TGID.get(&tgid) }.copied()
        && let Some(slot) = maps::slot_of(mm)
    {
        // SAFETY: `slot` points into SLOTS.
        unsafe {
            if (*slot).tgid == tgid {
                (*slot).comm = kernel::comm_of(kernel::leader_of(task));
            }
        }
    }
    end(tgid, 0);
    let _ = FOLLOWED.remove(&tgid);
    if config!(stream_changes) != 0 {
        let code: u32 = kernel::read(task, layout!(task_exit_code));
        lifecycle::task_record(RECORD_EXIT, tgid, tid, lifecycle::parent_of(task), task, 0, code);
    }
    0
}

/// match-proto: vm_unmapped_area(unsigned long addr, struct vm_unmapped_area_info *info), all versions
#[raw_tracepoint(tracepoint = "vm_unmapped_area")]
pub fn sampled_search(ctx: RawTracePointContext) -> i32 {
    if probes::follows_mm(kernel::mm_of(kernel::current())) {
        let (_, tid) = kernel::ids();
        probes::keep_search(tid, ctx.arg(0));
    }
    0
}

/// [`crate::snapshot::snapshot`] for these programs.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn sampled_snapshot(ctx: *const TaskIterContext) -> i32 {
    // SAFETY: the kernel passes a valid context; `task` is null after the last one.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return 0;
    }
    let task = task as u64;
    let mm = kernel::mm_of(task);
    if mm == 0 || maps::slot_of(mm).is_some() {
        return 0;
    }
    let tgid: u32 = kernel::read(task, layout!(task_tgid));
    if !lifecycle::follows(tgid) {
        return 0;
    }
    if let Some(count) = settled_count(mm) {
        let parent: u64 = kernel::read(task, layout!(task_real_parent));
        let ppid = kernel::read(parent, layout!(task_tgid));
        open(mm, task, tgid, ppid, MM_FROM_SNAPSHOT | shared_by_now(mm), count);
    }
    0
}
