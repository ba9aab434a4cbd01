//! Birth, exec and end of processes and of their address spaces: which mm belongs to whom.
//!
//! A forked child's mm is filled under the parent's hands before the child has a number (kernel/fork.c:copy_process),
//! so it is named at sched_process_fork. An exec's new mm is adopted at the first write release after the switch; until
//! then it holds one VMA. exit_mmap is the death of an mm; its address may be used again at once.

use aya_ebpf::{
    EbpfContext,
    macros::{raw_tracepoint, tracepoint},
    maps::ProgramArray,
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;
use vmaudit_common::{MM_FROM_BIRTH, MM_FROM_EXEC};

use crate::{
    address_space::{self, Owner},
    control::{config, layout},
    current_call, ends,
    failure::outcome,
    followed::{self, follows, follows_or_waits},
    hooks::mmap_lock::{ASK_CLASSIC, ASK_RAW},
    kernel, lock_sequence, lodgers, records,
    slots::{self, Slot},
};

/// match-proto: sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_raw(ctx: RawTracePointContext) -> i32 {
    if forked(&ctx, ctx.arg(1)) {
        look_at_tasks(&ctx, &ASK_RAW);
    }
    0
}

/// A followed process has made another or a thread, or has a new image: gives over to the program that looks how many more
/// the limits leave room for, where nobody sees the exits of calls (see [`crate::near`]).
#[inline(always)]
fn look_at_tasks<C: EbpfContext>(ctx: &C, program: &ProgramArray) {
    if config!(asks) != 0 {
        // SAFETY: the program there is of the same kind, and looks at nothing of the event.
        unsafe { program.tail_call(ctx, 0) };
    }
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
        followed::add_late(child);
        look_at_tasks(&ctx, &ASK_CLASSIC);
    }
    0
}

/// Says whether the parent is followed.
#[inline(always)]
fn forked<C: EbpfContext>(ctx: &C, child: u64) -> bool {
    let (tgid, _) = kernel::ids();
    if config!(follow_children) == 0 || !follows(tgid) {
        return false;
    }
    let child_tgid: u32 = kernel::read(child, layout!(task_tgid));
    if child_tgid == tgid {
        return true; // a thread
    }
    let mm = kernel::mm_of(child);
    if mm == 0 {
        return true; // a kernel thread
    }
    followed::add_from_birth(child_tgid);
    if config!(debug) != 0 {
        debug!(ctx, "fork: {} -> {}", tgid, child_tgid);
    }
    if mm == kernel::mm_of(kernel::current()) {
        // vfork or CLONE_VM: one address space, counted once.
        lodgers::born(child, child_tgid, tgid, mm);
        return true;
    }
    if let Some(stale) = slots::index_of(mm) {
        address_space::end_unseen(stale, mm);
    }
    let owner = Owner { task: child, tgid: child_tgid, ppid: tgid, flags: MM_FROM_BIRTH };
    let _ = address_space::open(mm, owner);
    true
}

/// match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_raw(ctx: RawTracePointContext) -> i32 {
    let bprm: u64 = ctx.arg(2);
    if execed(ctx.arg::<u64>(1) as u32, kernel::read(bprm, layout!(bprm_filename))) {
        look_at_tasks(&ctx, &ASK_RAW);
    }
    0
}

/// Record: __data_loc filename, pid, old_pid. Backs up [`exec_raw`] on 7.0 and later; the path is not read here.
#[tracepoint(category = "sched", name = "sched_process_exec")]
pub fn exec_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset of old_pid as the loader found it in the format file; see Config.
    let old = unsafe { ctx.read_at::<u32>(config!(exec_old_pid_offset) as usize) };
    if execed(old.unwrap_or(0), 0) {
        look_at_tasks(&ctx, &ASK_CLASSIC);
    }
    0
}

/// Where a runner of tests is at work, beside the other; it takes what it needs to know from that one's tables.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn environment_raw(ctx: RawTracePointContext) -> i32 {
    let (tgid, _) = kernel::ids();
    if follows(tgid) {
        let bprm: u64 = ctx.arg(2);
        records::environment(kernel::current(), kernel::read(bprm, layout!(bprm_filename)));
    }
    0
}

/// `old`: the id of the thread that called exec, which has its process's id from now on. Says whether it is followed.
#[inline(always)]
fn execed(old: u32, filename: u64) -> bool {
    let (tgid, _) = kernel::ids();
    if !follows_or_waits(tgid) {
        return false;
    }
    if old != tgid {
        // Nobody will exit under this id: it may be another's by now.
        followed::remove(old);
        current_call::rename(old, tgid);
    }
    followed::begin_anew(tgid);
    lodgers::left::<true>(tgid, false);
    let task = kernel::current();
    let mm = kernel::mm_of(task);
    let mut known = slots::index_of(mm);
    if let Some(index) = known
        && let Some(slot) = Slot::at(index)
    {
        if slot.tgid() == tgid {
            slot.set_comm(kernel::comm_of(task));
            slot.mark(MM_FROM_EXEC);
        } else {
            address_space::end_unseen(index, mm);
            known = None;
        }
    }
    let owner = Owner { task, tgid, ppid: kernel::parent_of(task), flags: MM_FROM_BIRTH | MM_FROM_EXEC };
    if known.is_none()
        && let Some(slot) = address_space::open(mm, owner)
    {
        lock_sequence::late(slot);
    }
    records::new_image(slots::of_mm(mm), task, filename);
    true
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
        followed::remove(tid);
    }
    // Also one that is not followed but shares a followed address space.
    current_call::forget(tid);
    outcome::forget(tid);
    if !follows(tgid) {
        return;
    }
    // Before 6.16 the address space is already gone here (0).
    let mm = kernel::mm_of(task);
    if mm != 0 {
        match slots::of_mm(mm) {
            // The name may have changed by prctl; threads have names of their own, so ask the leader.
            Some(slot) => {
                if slot.tgid() == tgid {
                    slot.set_comm(kernel::comm_of(kernel::leader_of(task)));
                }
            }
            // A child that changed nothing, on kernels where only fork_classic saw its birth.
            None => address_space::open_with_birth(mm, task, tgid),
        }
    }
    if kernel::group_is_dead(task) {
        lodgers::left::<true>(tgid, true);
        ends::over::<true>(task, tgid);
        followed::remove(tgid);
    }
}

/// match-proto: exit_mmap(struct mm_struct *mm), 6.1 and later
#[raw_tracepoint(tracepoint = "exit_mmap")]
pub fn exit_mmap_raw(ctx: RawTracePointContext) -> i32 {
    address_space::torn_down(ctx.arg(0));
    0
}

/// Record: mm at 8.
#[tracepoint(category = "mmap", name = "exit_mmap")]
pub fn exit_mmap_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset inside the record, checked against the format file by the loader.
    if let Ok(mm) = unsafe { ctx.read_at::<u64>(8) } {
        address_space::torn_down(mm);
    }
    0
}
