//! Signals that end processes, and the OOM killer's choices. What is kept of them is in [`crate::ends`].

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};

use crate::{
    control::layout,
    ends::{self, Raised},
    kernel,
};

/// match-proto: signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result), all
/// versions; with looks at mappings (5.17 and later).
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_raw(ctx: RawTracePointContext) -> i32 {
    if let Some(raised) = raised(&ctx) {
        ends::raised::<true>(&raised);
    }
    0
}

/// The same without, for older kernels.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_plain_raw(ctx: RawTracePointContext) -> i32 {
    if let Some(raised) = raised(&ctx) {
        ends::raised::<false>(&raised);
    }
    0
}

#[inline(always)]
fn raised(ctx: &RawTracePointContext) -> Option<Raised> {
    let signal = ctx.arg::<u64>(0) as u32;
    if !ends::may_end(signal, ctx.arg::<u64>(4) as u32) {
        return None;
    }
    let task: u64 = ctx.arg(2);
    let tgid = kernel::read(task, layout!(task_tgid));
    ends::concerns(tgid).then(|| Raised { signal, task, tgid, info: ctx.arg(1), tid: 0, code: 0 })
}

/// Record: sig at 8, code at 16, comm, pid at 36, group, result at 44. Neither the task nor the address is in it. Backs up
/// [`signal_raw`] on 7.0 and later.
#[tracepoint(category = "signal", name = "signal_generate")]
pub fn signal_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offsets inside the record (include/trace/events/signal.h, all versions).
    let (signal, code, pid, result) = unsafe {
        (ctx.read_at::<u32>(8), ctx.read_at::<i32>(16), ctx.read_at::<u32>(36), ctx.read_at::<u32>(44))
    };
    let (Ok(signal), Ok(code), Ok(pid), Ok(result)) = (signal, code, pid, result) else { return 0 };
    if !ends::may_end(signal, result) {
        return 0;
    }
    let (own, tid) = kernel::ids();
    // A thread's number does not tell its process's; of its own process a task knows.
    let (tgid, task) = if pid == tid { (own, kernel::current()) } else { (pid, 0) };
    if ends::concerns(tgid) {
        ends::raised::<false>(&Raised { signal, task, tgid, info: 0, tid: pid, code });
    }
    0
}

/// match-proto: mark_victim(int pid), 5.10; mark_victim(struct task_struct *task, uid_t uid), 6.9 and later; which one, the
/// loader says.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn victim_raw(ctx: RawTracePointContext) -> i32 {
    let first: u64 = ctx.arg(0);
    if layout!(end.victim_is_task) != 0 {
        ends::chosen(kernel::read(first, layout!(task_pid)), first);
    } else {
        ends::chosen(first as u32, 0);
    }
    0
}

/// Record: pid at 8, in every version the first field.
#[tracepoint(category = "oom", name = "mark_victim")]
pub fn victim_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: an offset inside the record (include/trace/events/oom.h).
    if let Ok(pid) = unsafe { ctx.read_at::<u32>(8) } {
        ends::chosen(pid, 0);
    }
    0
}
