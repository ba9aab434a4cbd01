//! Exits of watched calls: how many there were, which were refused, and the evidence of a refusal.

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use vmaudit_common::call::{self, Call};

use crate::{
    answer,
    call::ReturnedCall,
    call_result,
    current_call::Entry,
    failure::{failure, tasks::makes_one},
    kernel, lodgers,
    slots::{self, Slot},
};

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_raw(ctx: RawTracePointContext) -> i32 {
    // This runs at every system call of the machine: the number comes by plain loads, not by a reading helper.
    let id = kernel::Current::task().call();
    if id >= call::COMPAT {
        returned(id, ctx.arg::<u64>(1) as i64, ctx.arg(0));
    }
    0
}

/// Record: ret at 16.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
pub fn sys_exit_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: an offset inside the record (include/trace/events/syscalls.h, ABI in practice since 2.6.33).
    let ret = unsafe { ctx.read_at::<i64>(16) };
    let id = kernel::Current::task().call();
    if id >= call::COMPAT {
        returned(id, ret.unwrap_or(0), kernel::registers());
    }
    0
}

/// See [`unasked`]. match-proto: as above
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn unasked_raw(ctx: RawTracePointContext) -> i32 {
    unasked(kernel::Current::task(), ctx.arg::<u64>(1) as i64, ctx.arg(0));
    0
}

/// The refusals that answers are not asked for, when a limit is near ([`crate::near`]).
#[inline(always)]
fn unasked(current: kernel::Current, ret: i64, regs: u64) {
    let id = current.call();
    if ret >= 0 || !(makes_one(id) || id == call::MREMAP) {
        return;
    }
    let entry = Entry::of(current.tid());
    // The task is yet to answer (kernel/entry/common.c: works follow the events of the exit).
    if entry.is_some_and(|entry| entry.question().is_some()) {
        return;
    }
    // From 7.0 on raw programs are preempted, and others examine failures on the same CPU meanwhile.
    answer::undisturbed(
        #[inline(always)]
        || judge(id, ret, regs, current, entry),
    );
    if let Some(entry) = entry {
        entry.end_call();
    }
}

/// Inlined: verifiers before 6.5 cannot follow a number from a function to its caller and then track all numbers exactly
/// (kernel/bpf/verifier.c:backtrack_insn, mark_all_scalars_precise), which makes loading several times slower.
#[inline(always)]
fn returned(id: Call, ret: i64, regs: u64) {
    let current = kernel::Current::task();
    let entry = Entry::of(current.tid());
    judge(id, ret, regs, current, entry);
    if let Some(entry) = entry {
        entry.end_call();
    }
}

#[inline(always)]
fn judge(id: Call, ret: i64, regs: u64, current: kernel::Current, entry: Option<Entry>) {
    // The lock section of this very call knows the slot; only calls without one have to look for it.
    let known = entry.and_then(|entry| entry.slot(id));
    let Some(index) = known.or_else(|| slots::index_of(current.mm())) else { return };
    let Some(slot) = Slot::at(index) else { return };
    let returned = ReturnedCall { id, ret, regs, task: current.address() };
    if let Some(errno) = call_result::count::<true>(index, slot, &returned) {
        let index = lodgers::slot_of_caller(index) as u32;
        failure(index, u32::from(id), u32::from(errno), ret as u64);
    }
}
