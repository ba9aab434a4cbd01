//! Functions of the kernel whose passing, or whose answer, settles why a call is refused. Only where the kernel lets
//! tracing programs listen to functions, and only such that hardly any call passes.
//!
//! What is seen counts; what is not seen says nothing, because the kernel may skip a program.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe, raw_tracepoint, tracepoint},
    programs::{FExitContext, ProbeContext, RawTracePointContext, RetProbeContext, TracePointContext},
};

use crate::{
    answer,
    control::config,
    current_call::{HEAP_REACHED, OVERCOMMIT_REFUSED, keep_probe, keep_search},
    kernel, slots,
};

/// match-proto: int __vm_enough_memory(const struct mm_struct *mm, long pages, int cap_sys_admin), 5.10 to 7.3
#[fexit(function = "__vm_enough_memory")]
pub fn overcommit_fexit(ctx: FExitContext) -> i32 {
    if ctx.arg::<u64>(3) as i32 != 0 {
        probed(OVERCOMMIT_REFUSED);
    }
    0
}

/// As [`overcommit_fexit`], for kernels without trampolines. The kernel drops some under load, without a word.
#[kretprobe]
pub fn overcommit_kretprobe(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u64>() as i32 != 0 {
        probed(OVERCOMMIT_REFUSED);
    }
    0
}

/// do_brk_flags, whose arguments differ by version and are not read.
#[kprobe]
pub fn heap_kprobe(_ctx: ProbeContext) -> u32 {
    probed(HEAP_REACHED);
    0
}

/// match-proto: vm_unmapped_area(unsigned long addr, struct vm_unmapped_area_info *info), all versions
#[raw_tracepoint(tracepoint = "vm_unmapped_area")]
pub fn searched_raw(ctx: RawTracePointContext) -> i32 {
    searched(ctx.arg(0));
    0
}

/// Record: addr at 8.
#[tracepoint(category = "mmap", name = "vm_unmapped_area")]
pub fn searched_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset inside the record (include/trace/events/mmap.h).
    if let Ok(addr) = unsafe { ctx.read_at::<u64>(8) } {
        searched(addr);
    }
    0
}

/// A search for a free range ended; the last one of a call counts. Only those of followed address spaces are kept.
#[inline(always)]
fn searched(addr: u64) {
    let task = kernel::Current::task();
    let mm = task.mm();
    if config!(asks) != 0 {
        answer::searched(task, mm, addr);
    } else if slots::has(mm) {
        keep_search::<true>(task.tid(), addr);
    }
}

/// A probe has seen something of the call that the current task is in.
#[inline(always)]
fn probed(bit: u32) {
    if config!(asks) != 0 {
        let task = kernel::Current::task();
        answer::probed(task, task.mm(), bit);
    } else {
        keep_probe(bit);
    }
}
