//! Birth, exec and end of processes and of their address spaces: which mm belongs to whom.
//!
//! A forked child's mm is filled under the parent's hands before the child has a number (kernel/fork.c:copy_process),
//! so it is named at sched_process_fork. An exec's new mm is adopted at the first write release after the switch; until
//! then it holds one VMA. exit_mmap is the death of an mm; its address may be used again at once.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_uid_gid, bpf_ktime_get_ns},
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;
use vmaudit_common::{
    DeadRecord, FOLLOW_AFTER_EXEC, FOLLOW_FROM_BIRTH, FOLLOW_LATE, Followed, MM_FROM_BIRTH, MM_FROM_EXEC,
    MmSlot, RECORD_DEAD, RECORD_EXEC, RECORD_EXIT, RECORD_FORK, RecordHeader, SLOT_DEAD, SLOT_LIVE,
    TaskRecord,
    call::{self, Call},
};

use crate::{
    kernel,
    maps::{self, FOLLOWED, RECORDS, SLOTS, config, layout, lost},
    sections, syscalls,
};

/// match-proto: sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_raw(ctx: RawTracePointContext) -> i32 {
    forked(&ctx, ctx.arg(1));
    0
}

/// Record: parent_comm, parent_pid, child_comm, child_pid; the child itself is out of reach, so it is only put on the
/// list of followed processes, marked as late, and its address space adopted later. Backs up [`fork_raw`], which 7.0
/// and later can skip and which takes the mark away.
#[tracepoint(category = "sched", name = "sched_process_fork")]
pub fn fork_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset of child_pid as the loader found it in the format file; see Config.
    let child = unsafe { ctx.read_at::<u32>(config!(fork_child_pid_offset) as usize) };
    let (tgid, _) = kernel::ids();
    if let Ok(child) = child
        && follows(tgid)
        && config!(follow_children) != 0
    {
        // A thread's id lands here too: harmless, no process has it as its tgid while the thread lives, and
        // `exited` or `execed` removes it.
        // SAFETY: the map is ours; NOEXIST keeps what `fork_raw` wrote.
        let known = unsafe { FOLLOWED.get(&child) }.is_some();
        if !known && FOLLOWED.insert(&child, &Followed { flags: FOLLOW_LATE, reserved: 0 }, 1).is_err() {
            lost!(tree_full);
        }
    }
    0
}

#[inline(always)]
fn forked<C: EbpfContext>(ctx: &C, child: u64) {
    let (tgid, tid) = kernel::ids();
    if config!(follow_children) == 0 || !follows(tgid) {
        return;
    }
    let child_tgid: u32 = kernel::read(child, layout!(task_tgid));
    if child_tgid == tgid {
        return; // a thread
    }
    let mm = kernel::mm_of(child);
    if mm == 0 {
        return; // a kernel thread
    }
    if FOLLOWED.insert(&child_tgid, &Followed { flags: FOLLOW_FROM_BIRTH, reserved: 0 }, 0).is_err() {
        lost!(tree_full);
    }
    if config!(debug) != 0 {
        debug!(ctx, "fork: {} -> {}", tgid, child_tgid);
    }
    task_record(RECORD_FORK, child_tgid, tid, tgid, child, 0, 0);
    if mm == kernel::mm_of(kernel::current()) {
        return; // vfork or CLONE_VM: one address space, counted once
    }
    if let Some(stale) = maps::index_of(mm) {
        bury(stale, mm);
    }
    let _ = open_slot(mm, child, child_tgid, tgid, MM_FROM_BIRTH);
}

/// match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_raw(ctx: RawTracePointContext) -> i32 {
    let bprm: u64 = ctx.arg(2);
    execed(ctx.arg::<u64>(1) as u32, kernel::read(bprm, layout!(bprm_filename)));
    0
}

/// Record: __data_loc filename, pid, old_pid. Backs up [`exec_raw`] on 7.0 and later; the path is not read here.
#[tracepoint(category = "sched", name = "sched_process_exec")]
pub fn exec_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset of old_pid as the loader found it in the format file; see Config.
    let old = unsafe { ctx.read_at::<u32>(config!(exec_old_pid_offset) as usize) };
    execed(old.unwrap_or(0), 0);
    0
}

/// `old`: the id of the thread that called exec, which has its process's id from now on.
#[inline(always)]
fn execed(old: u32, filename: u64) {
    let (tgid, tid) = kernel::ids();
    if !follows_or_waits(tgid) {
        return;
    }
    if old != tgid {
        // Nobody will exit under this id: it may be another's by now.
        let _ = FOLLOWED.remove(&old);
        syscalls::forget(old);
    }
    // SAFETY: the map is ours; the value is changed in place, by the process's only running thread.
    if let Some(followed) = FOLLOWED.get_ptr_mut(&tgid) {
        unsafe { (*followed).flags = FOLLOW_FROM_BIRTH };
    }
    let task = kernel::current();
    let mm = kernel::mm_of(task);
    let mut known = maps::index_of(mm);
    if let Some(index) = known
        && let Some(slot) = SLOTS.get_ptr_mut(index)
    {
        // SAFETY: `slot` points into SLOTS.
        unsafe {
            if (*slot).tgid == tgid {
                (*slot).comm = kernel::comm_of(task);
                (*slot).flags |= MM_FROM_EXEC;
            } else {
                bury(index, mm);
                known = None;
            }
        }
    }
    if known.is_none()
        && let Some(slot) = open_slot(mm, task, tgid, parent_of(task), MM_FROM_BIRTH | MM_FROM_EXEC)
    {
        sections::late(slot);
    }
    if filename != 0 {
        task_record(RECORD_EXEC, tgid, tid, parent_of(task), task, filename, 0);
    }
}

/// match-proto: sched_process_exit(struct task_struct *p), 6.16 and later also (…, bool group_dead)
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit_raw(_ctx: RawTracePointContext) -> i32 {
    exited();
    0
}

/// Backs up [`exit_raw`] on 7.0 and later.
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn exit_classic(_ctx: TracePointContext) -> u32 {
    exited();
    0
}

#[inline(always)]
fn exited() {
    let task = kernel::current();
    let (tgid, tid) = kernel::ids();
    if tid != tgid {
        // An entry under a thread's id can only be fork_classic's.
        let _ = FOLLOWED.remove(&tid);
    }
    if !follows(tgid) {
        return;
    }
    syscalls::forget(tid);
    // Before 6.16 the address space is already gone here (0).
    let mm = kernel::mm_of(task);
    if mm != 0 {
        match maps::slot_of(mm) {
            // The name may have changed by prctl; threads have names of their own, so ask the leader.
            // SAFETY: `slot` points into SLOTS.
            Some(slot) => unsafe {
                if (*slot).tgid == tgid {
                    (*slot).comm = kernel::comm_of(kernel::leader_of(task));
                }
            },
            // A child that changed nothing, on kernels where only fork_classic saw its birth.
            None => {
                if let Some(slot) = open_slot(mm, task, tgid, parent_of(task), MM_FROM_BIRTH) {
                    sections::only_born(slot);
                }
            }
        }
    }
    if !kernel::group_is_dead(task) {
        return;
    }
    let _ = FOLLOWED.remove(&tgid);
    if config!(stream_changes) != 0 {
        let code: u32 = kernel::read(task, layout!(task_exit_code));
        task_record(RECORD_EXIT, tgid, tid, parent_of(task), task, 0, code);
    }
}

/// match-proto: exit_mmap(struct mm_struct *mm), 6.1 and later
#[raw_tracepoint(tracepoint = "exit_mmap")]
pub fn exit_mmap_raw(ctx: RawTracePointContext) -> i32 {
    torn_down(ctx.arg(0));
    0
}

/// Record: mm at 8.
#[tracepoint(category = "mmap", name = "exit_mmap")]
pub fn exit_mmap_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset inside the record, checked against the format file by the loader.
    if let Ok(mm) = unsafe { ctx.read_at::<u64>(8) } {
        torn_down(mm);
    }
    0
}

#[inline(always)]
fn torn_down(mm: u64) {
    let Some(index) = maps::index_of(mm) else { return };
    // Before 6.16 sched_process_exit comes too late to ask for the last name. An exec also ends an address space, but
    // by then the task may bear the new image's name.
    if let Some(slot) = SLOTS.get_ptr_mut(index)
        && !in_exec()
    {
        let (tgid, _) = kernel::ids();
        // SAFETY: `slot` points into SLOTS.
        unsafe {
            if (*slot).tgid == tgid {
                (*slot).comm = kernel::comm_of(kernel::leader_of(kernel::current()));
            } else if kernel::mm_of(kernel::current()) == 0 {
                // Not a reader who came last, but a task that ends: the owner's end was not seen, and this one's
                // changes went to the owner's slot. (Or the owner ended before a vfork child of it.)
                sections::late(slot);
            }
        }
    }
    finish(index, mm, true);
}

/// The former owner of this mm_struct died unseen. A function of its own because it is rare.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bury(index: u32, mm: u64) -> u64 {
    lost!(death_missed);
    if let Some(slot) = SLOTS.get_ptr_mut(index) {
        sections::late(slot);
    }
    finish(index, mm, false);
    0
}

/// This call fills an address space that is not the caller's own yet.
#[inline(always)]
pub fn is_making(id: Call) -> bool {
    const MAKING: u64 = 1 << call::CLONE
        | 1 << call::CLONE3
        | 1 << call::FORK
        | 1 << call::VFORK
        | 1 << call::EXECVE
        | 1 << call::EXECVEAT;
    MAKING >> (id & 63) & 1 == 1
}

#[inline(always)]
fn in_exec() -> bool {
    matches!(kernel::Current::task().call(), call::EXECVE | call::EXECVEAT)
}

/// Is this process followed?
#[inline(always)]
pub fn follows(tgid: u32) -> bool {
    if config!(watch_all) != 0 {
        return tgid != config!(self_tgid);
    }
    // SAFETY: the value is read at once.
    match unsafe { FOLLOWED.get(&tgid) } {
        Some(followed) => followed.flags & FOLLOW_AFTER_EXEC == 0,
        None => false,
    }
}

#[inline(always)]
pub fn follows_or_waits(tgid: u32) -> bool {
    // SAFETY: only the presence of the entry counts.
    (config!(watch_all) != 0 && tgid != config!(self_tgid)) || unsafe { FOLLOWED.get(&tgid) }.is_some()
}

#[inline(always)]
pub fn parent_of(task: u64) -> u32 {
    kernel::read(kernel::read(task, layout!(task_real_parent)), layout!(task_tgid))
}

/// A write release of an address space that has no slot: an exec's new one, or the first sign of a process that ran
/// before the hooks did.
#[inline(always)]
pub fn adopt_current<C: EbpfContext>(ctx: &C, mm: u64) {
    let task = kernel::current();
    let own = kernel::mm_of(task);
    if own != mm {
        last_look(task, own);
        return;
    }
    let (tgid, _) = kernel::ids();
    let flags = if config!(watch_all) != 0 {
        if tgid == config!(self_tgid) {
            return;
        }
        0
    } else {
        // SAFETY: the value is copied at once.
        match unsafe { FOLLOWED.get(&tgid) } {
            Some(followed) => followed.flags,
            None => return,
        }
    };
    let in_exec = in_exec();
    if flags & FOLLOW_AFTER_EXEC != 0 && !in_exec {
        return; // our own child, still running our code
    }
    let born = if in_exec {
        MM_FROM_BIRTH | MM_FROM_EXEC
    } else if flags & FOLLOW_FROM_BIRTH != 0 {
        MM_FROM_BIRTH
    } else {
        if flags & FOLLOW_LATE != 0 {
            lost!(birth_missed);
        }
        0
    };
    if config!(debug) != 0 {
        debug!(ctx, "adopt: tgid {} flags {}", tgid, born);
    }
    if let Some(slot) = open_slot(mm, task, tgid, parent_of(task), born) {
        sections::begin(slot, mm, in_exec);
        if !in_exec && born & MM_FROM_BIRTH != 0 {
            sections::late(slot); // its birth gave it a slot, or should have
        }
    }
}

/// `current` fills an address space that is not its own yet. If that is an exec's, and the old one belongs to a process
/// that was followed late and has changed nothing, then the old one still has the count it was born with.
#[inline(always)]
fn last_look(task: u64, own: u64) {
    if config!(fork_child_pid_offset) == 0 || own == 0 {
        return;
    }
    let (tgid, _) = kernel::ids();
    // SAFETY: the value is copied at once.
    let late = unsafe { FOLLOWED.get(&tgid) }.is_some_and(|followed| followed.flags & FOLLOW_LATE != 0);
    if late && in_exec() && maps::index_of(own).is_none() {
        if let Some(slot) = open_slot(own, task, tgid, parent_of(task), MM_FROM_BIRTH) {
            sections::only_born(slot);
        }
    }
}

/// Starts following an address space with the count it has now.
#[inline(always)]
pub fn open_slot(mm: u64, task: u64, tgid: u32, ppid: u32, flags: u32) -> Option<*mut MmSlot> {
    open_slot_at(mm, task, tgid, ppid, flags, kernel::map_count(mm))
}

/// Starts following an address space with this count.
#[inline(always)]
pub fn open_slot_at(mm: u64, task: u64, tgid: u32, ppid: u32, flags: u32, count: u32) -> Option<*mut MmSlot> {
    let (index, slot) = maps::claim_slot()?;
    fill(index, slot, mm, task, tgid, ppid, flags, count)
}

/// Makes a claimed slot the one of `mm`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "all in registers: the function exists inlined only")]
pub fn fill(
    index: u32,
    slot: *mut MmSlot,
    mm: u64,
    task: u64,
    tgid: u32,
    ppid: u32,
    flags: u32,
    count: u32,
) -> Option<*mut MmSlot> {
    // SAFETY: the slot is ours alone until `state` changes; user space zeroed it when it freed it.
    unsafe {
        let now = bpf_ktime_get_ns();
        (*slot).tgid = tgid;
        (*slot).ppid = ppid;
        (*slot).start_boottime_ns = kernel::read(kernel::leader_of(task), layout!(task_start_boottime));
        (*slot).comm = kernel::comm_of(kernel::leader_of(task));
        (*slot).uid = bpf_get_current_uid_gid() as u32;
        (*slot).first = count;
        (*slot).last = count;
        (*slot).peak = count;
        (*slot).born_ns = now;
        (*slot).peak_ns = now;
        (*slot).sequence = sections::now(mm);
        (*slot).flags = flags;
        core::ptr::write_volatile(&raw mut (*slot).state, SLOT_LIVE);
    }
    // NOEXIST: two who adopt the same mm must not both win.
    if maps::enter(mm, index) {
        return Some(slot);
    }
    // SAFETY: nobody else knows this slot yet; both halves of the first word go back to free. What was filled in is
    // filled in again by the next user.
    unsafe { core::ptr::write_volatile(slot.cast::<u64>(), 0) };
    None
}

/// The figures of this address space are final.
#[inline(always)]
pub fn finish(index: u32, mm: u64, read_last: bool) {
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    // exit_mmap runs once, but two programs may listen to it, and a snapshot may end what it began too late.
    if !maps::leave(mm) {
        if maps::index_of(mm) == Some(index) {
            // Counted as a missed death: the table refused.
            sections::late(slot);
        }
        return;
    }
    // SAFETY: `slot` points into SLOTS, and nobody else finds it any more.
    unsafe {
        if read_last {
            // exit_mmap never counts down, so the field still holds the last value (kernel.md 1.1).
            let count = kernel::map_count(mm);
            (*slot).last = count;
            if count > (*slot).peak {
                (*slot).peak = count;
            }
            sections::end(slot, mm);
        }
        (*slot).dead_ns = bpf_ktime_get_ns();
    }
    // SAFETY: as above; user space may free the slot from here on.
    let (generation, tgid) = unsafe { ((*slot).generation, (*slot).tgid) };
    unsafe { core::ptr::write_volatile(&raw mut (*slot).state, SLOT_DEAD) };
    // Only a hint to look soon: a full ring loses nothing here, user space also looks by itself.
    if let Some(mut entry) = RECORDS.reserve::<DeadRecord>(0) {
        entry.write(DeadRecord {
            head: RecordHeader {
                kind: RECORD_DEAD,
                tgid,
                tid: 0,
                reserved: 0,
                // SAFETY: no preconditions.
                at_ns: unsafe { bpf_ktime_get_ns() },
                generation,
            },
            slot: u64::from(index),
        });
        entry.submit(0);
    }
}

#[inline(always)]
pub fn task_record(kind: u32, tgid: u32, tid: u32, ppid: u32, task: u64, filename: u64, exit_code: u32) {
    if kind != RECORD_EXEC && config!(stream_changes) == 0 {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<TaskRecord>(0) else {
        lost!(ring_full);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points at reserved memory of this size; every byte is written before it is submitted.
    unsafe {
        (*record).head =
            RecordHeader { kind, tgid, tid, reserved: 0, at_ns: bpf_ktime_get_ns(), generation: 0 };
        (*record).ppid = ppid;
        (*record).exit_code = exit_code;
        (*record).start_boottime_ns = kernel::read(kernel::leader_of(task), layout!(task_start_boottime));
        (*record).comm = kernel::comm_of(task);
        core::ptr::write_bytes(&raw mut (*record).filename, 0, 1);
        if filename != 0 {
            kernel::read_str(filename, &mut (*record).filename);
        }
    }
    entry.submit(0);
}
