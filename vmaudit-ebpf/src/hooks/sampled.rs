//! A second set of programs for kernels without mmap_lock_released (5.10), or where it cannot be had: the count is read
//! when a watched call returns, and at birth and exec.
//!
//! While one task alone can change an address space, nothing happens between two samples but the call itself, so that
//! peaks are exact as with the lock events. From the moment a second one can, the slot is marked [`MM_SHARED`]: its peak
//! is then the largest sample. Everything here runs on 5.10: no atomics that return a value, no task known by type, no
//! `bpf_task_pt_regs`. The end of an address space is its process's last exit, or its next exec.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};
use vmaudit_common::{
    ABSENT, FOLLOW_FROM_BIRTH, MM_FROM_BIRTH, MM_FROM_EXEC, MM_FROM_SNAPSHOT, MM_SHARED, Sizes,
    call::{self, Call},
};

use crate::{
    address_space::{self, Owner},
    call::{FailedCall, ReturnedCall},
    call_result,
    control::{config, layout, lost},
    current_call::{self, Entry},
    ends,
    failure::legacy_failure,
    followed::{self, follows},
    kernel::{self, TaskIterContext},
    lodgers,
    makers::credit_by_registers,
    records, sizes,
    slots::{self, Slot},
    task_names,
};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD: u64 = 0x1_0000;

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sampled_exit(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let id = kernel::call_of(regs);
    if id >= call::COMPAT {
        let ret: u64 = ctx.arg(1);
        let refused = sampled_call(u32::from(id), ret, regs);
        if refused != 0 {
            let index = lodgers::slot_of_caller_without_cas((refused >> 8) as u32) as u32;
            refuse(ctx.as_ptr(), index, u32::from(id) << 8 | refused as u32 & 0xff, ret, regs);
        }
    }
    0
}

/// A call has returned. 0, or, if it was refused, the index of its address space's slot, with the errno in the low 8 bits.
// Global: the verifier follows no number from it to its caller. The rest is apart for the sake of the stack.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sampled_call(id: u32, ret: u64, regs: u64) -> u64 {
    let id = id as Call;
    let task = kernel::current();
    let mm = kernel::mm_of(task);
    if mm == 0 {
        return 0;
    }
    let Some(index) = slots::index_of(mm).or_else(|| adopt(task, mm)) else { return 0 };
    let Some(slot) = Slot::at(index) else { return 0 };
    let (before, count) = sample(index, slot, (task, regs), mm, id);
    if config!(calls) == 0 {
        return 0;
    }
    let (_, tid) = kernel::ids();
    // Where nobody else can have changed anything, the call had what the last sample saw and left what this one sees.
    if slot.flags() & MM_SHARED == 0 {
        current_call::keep_sample(tid, id, mm, before, count);
    }
    match call_result::count::<false>(index, slot, &ReturnedCall { id, ret: ret as i64, regs, task }) {
        Some(errno) => u64::from(index) << 8 | u64::from(errno),
        None => {
            end_call(tid);
            0
        }
    }
}

/// `what`: the call, with the errno in the low 8 bits.
#[inline(never)]
fn refuse(ctx: *mut core::ffi::c_void, index: u32, what: u32, ret: u64, regs: u64) {
    if let Some(slot) = Slot::at(index) {
        let (id, errno) = ((what >> 8) as Call, what as u8);
        legacy_failure(ctx, index, slot, &FailedCall { id, errno, ret, regs, task: kernel::current() });
    }
    let (_, tid) = kernel::ids();
    end_call(tid);
}

#[inline(always)]
fn end_call(tid: u32) {
    if let Some(entry) = Entry::of(tid) {
        entry.end_call();
    }
}

/// Reads the count, puts its change since the last sample down to the call; returns both counts.
#[inline(always)]
fn sample(index: u32, slot: Slot, (task, regs): (u64, u64), mm: u64, by: Call) -> (u32, u32) {
    let count = kernel::map_count(mm);
    // Threads meet here; what they lose of each other is why their slot is marked.
    let before = slot.last();
    if count == before {
        return (before, count);
    }
    let peak = slot.peak();
    slot.reached(count);
    slot.count_change(by, before, count);
    // Else it may have been another's change.
    if slot.flags() & MM_SHARED == 0 {
        task_names::changed::<false>(index, slot, kernel::name_of(task), before, count, peak);
        if config!(makers) != 0 && !slot.makers().rests(count) {
            credit_by_registers(index, u32::from(by), count, regs);
        }
    }
    if config!(stream_changes) != 0 {
        records::change(slot, by, before, count, task);
    }
    (before, count)
}

/// The first sign of a process that ran before the hooks did.
#[inline(always)]
fn adopt(task: u64, mm: u64) -> Option<u32> {
    let (tgid, _) = kernel::ids();
    if !follows(tgid) {
        return None;
    }
    if followed::flags_of(tgid).is_some_and(|flags| flags & FOLLOW_FROM_BIRTH != 0) {
        // Its birth or exec found no place.
        lost!(birth_missed);
    }
    let owner = Owner { task, tgid, ppid: kernel::parent_of(task), flags: shared_by_now(mm) };
    open(mm, owner, kernel::map_count(mm));
    slots::index_of(mm)
}

/// [`MM_SHARED`] for an address space that was met in its middle.
#[inline(always)]
fn shared_by_now(mm: u64) -> u32 {
    let users = layout!(mm_users);
    if users == ABSENT || kernel::read::<u32>(mm, users) > 1 { MM_SHARED } else { 0 }
}

/// Starts following an address space; the one that its process had before is over.
#[inline(always)]
fn open(mm: u64, owner: Owner, count: u32) {
    end(owner.tgid, mm);
    if address_space::claim_for::<false>(mm, owner, (count, Sizes::default())).is_some() {
        followed::set_mm(owner.tgid, mm);
    }
}

/// The address space of this process ends, unless it is `but`.
#[inline(always)]
fn end(tgid: u32, but: u64) {
    let Some(mm) = followed::mm_of(tgid) else { return };
    if mm == but {
        return;
    }
    followed::remove_mm(tgid);
    let Some(index) = slots::index_of(mm) else { return };
    let Some(slot) = Slot::at(index) else { return };
    // The mm_struct may be another's by now, whose birth ended this slot.
    if slot.tgid() == tgid {
        finish(index, mm);
    }
}

#[inline(always)]
fn finish(index: u32, mm: u64) {
    slots::drop_claims(index);
    address_space::finish(index, mm, false);
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
    let (tgid, _) = kernel::ids();
    if !follows(tgid) {
        return;
    }
    let mm = kernel::mm_of(child);
    if mm == 0 {
        return; // a kernel thread
    }
    let shares = flags & CLONE_VM != 0;
    // After vfork the parent sleeps until the child is done with the memory.
    if shares
        && (flags & CLONE_VFORK == 0 || flags & CLONE_THREAD != 0)
        && let Some(slot) = slots::of_mm(mm)
    {
        slot.mark(MM_SHARED);
    }
    if flags & CLONE_THREAD != 0 || config!(follow_children) == 0 {
        return;
    }
    let child_tgid: u32 = kernel::read(child, layout!(task_tgid));
    followed::add_from_birth(child_tgid);
    if shares {
        if flags & CLONE_VFORK == 0
            && let Some(host) = slots::index_of(mm)
        {
            let owner = Owner { task: child, tgid: child_tgid, ppid: tgid, flags: MM_FROM_BIRTH };
            lodgers::open::<false>(host, owner);
        }
        return;
    }
    if let Some(stale) = slots::index_of(mm) {
        // Its former owner is between the end of its address space and its own.
        finish(stale, mm);
    }
    let owner = Owner { task: child, tgid: child_tgid, ppid: tgid, flags: MM_FROM_BIRTH };
    open(mm, owner, kernel::map_count(mm));
}

/// match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sampled_exec(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = kernel::ids();
    if !followed::follows_or_waits(tgid) {
        return 0;
    }
    let old = ctx.arg::<u64>(1) as u32;
    if old != tgid {
        current_call::forget(old);
    }
    followed::begin_anew(tgid);
    lodgers::left::<false>(tgid, false);
    let task = kernel::current();
    let mm = kernel::mm_of(task);
    if let Some(stale) = slots::index_of(mm) {
        finish(stale, mm);
    }
    let owner = Owner { task, tgid, ppid: kernel::parent_of(task), flags: MM_FROM_BIRTH | MM_FROM_EXEC };
    open(mm, owner, kernel::map_count(mm));
    let slot = slots::of_mm(mm);
    records::new_image(slot, task, kernel::read(ctx.arg::<u64>(2), layout!(bprm_filename)));
    0
}

/// match-proto: sched_process_exit(struct task_struct *p), 6.16 and later also (…, bool group_dead)
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sampled_end(_ctx: RawTracePointContext) -> i32 {
    let task = kernel::current();
    let (tgid, tid) = kernel::ids();
    current_call::forget(tid);
    if !follows(tgid) {
        return 0;
    }
    if !kernel::group_is_dead(task) {
        return 0;
    }
    if let Some(mm) = followed::mm_of(tgid)
        && let Some(slot) = slots::of_mm(mm)
        && slot.tgid() == tgid
    {
        slot.set_comm(kernel::comm_of(kernel::leader_of(task)));
    }
    lodgers::left::<false>(tgid, true);
    end(tgid, 0);
    ends::over::<false>(task, tgid);
    followed::remove(tgid);
    0
}

/// match-proto: vm_unmapped_area(unsigned long addr, struct vm_unmapped_area_info *info), all versions
#[raw_tracepoint(tracepoint = "vm_unmapped_area")]
pub fn sampled_search(ctx: RawTracePointContext) -> i32 {
    if slots::has(kernel::mm_of(kernel::current())) {
        let (_, tid) = kernel::ids();
        current_call::keep_search::<false>(tid, ctx.arg(0));
    }
    0
}

/// [`super::task_iter::snapshot`] for these programs.
// SAFETY: no other symbol of the object has this name.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn sampled_snapshot(ctx: *const TaskIterContext) -> i32 {
    // SAFETY: the kernel's own context.
    let Some(task) = (unsafe { TaskIterContext::task(ctx) }) else { return 0 };
    let mm = kernel::mm_of(task);
    if mm == 0 {
        return 0;
    }
    if let Some(index) = slots::index_of(mm) {
        lodgers::met::<false>(index, task);
        return 0;
    }
    let tgid: u32 = kernel::read(task, layout!(task_tgid));
    if !follows(tgid) {
        return 0;
    }
    if let Some(count) = sizes::settled(mm).map(|(count, _)| count) {
        let flags = MM_FROM_SNAPSHOT | shared_by_now(mm);
        open(mm, Owner { task, tgid, ppid: kernel::parent_of(task), flags }, count);
    }
    0
}
