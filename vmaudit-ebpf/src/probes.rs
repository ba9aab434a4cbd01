//! Functions of the kernel whose passing, or whose answer, settles why a call is refused. Only where the kernel lets
//! tracing programs listen to functions, and only such that hardly any call passes.
//!
//! What is seen counts; what is not seen says nothing, because the kernel may skip a program.

use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe, raw_tracepoint, tracepoint},
    programs::{FExitContext, ProbeContext, RawTracePointContext, RetProbeContext, TracePointContext},
};
use vmaudit_common::{PROBE_HEAP_REACHED, PROBE_OVERCOMMIT_REFUSED, SECTIONS};

use crate::{
    kernel,
    maps::{self, SECTION_OF_TASK},
};

/// match-proto: int __vm_enough_memory(const struct mm_struct *mm, long pages, int cap_sys_admin), 5.10 to 7.3
#[fexit(function = "__vm_enough_memory")]
pub fn overcommit_fexit(ctx: FExitContext) -> i32 {
    if ctx.arg::<u64>(3) as i32 != 0 {
        note(PROBE_OVERCOMMIT_REFUSED);
    }
    0
}

/// As [`overcommit_fexit`], for kernels without trampolines. The kernel drops some under load, without a word.
#[kretprobe]
pub fn overcommit_kretprobe(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u64>() as i32 != 0 {
        note(PROBE_OVERCOMMIT_REFUSED);
    }
    0
}

/// do_brk_flags, whose arguments differ by version and are not read.
#[kprobe]
pub fn heap_kprobe(_ctx: ProbeContext) -> u32 {
    note(PROBE_HEAP_REACHED);
    0
}

/// Notes for the exit of the call that the task is in.
#[inline(always)]
fn note(bit: u32) {
    let task = kernel::Current::task();
    let (tid, call) = (task.tid(), u32::from(task.call()));
    if let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) {
        // SAFETY: points into the map; whoever reads compares task and call.
        unsafe {
            let more = (*section).prober == tid && (*section).probed_call == call;
            (*section).probes = if more { (*section).probes | bit } else { bit };
            (*section).probed_call = call;
            (*section).prober = tid;
        }
    }
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

/// A search for a free range ended; the last one of a call counts. Only those of followed address spaces are kept:
/// the entries are shared by all tasks whose ids differ by a multiple of [`SECTIONS`].
#[inline(always)]
fn searched(addr: u64) {
    let task = kernel::Current::task();
    if follows_mm(task.mm()) {
        keep_search(task.tid(), addr);
    }
}

#[inline(always)]
pub fn follows_mm(mm: u64) -> bool {
    mm != 0 && maps::index_of(mm).is_some()
}

/// Keeps the result of a search for the refusal that may follow.
#[inline(always)]
pub fn keep_search(tid: u32, addr: u64) {
    if let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) {
        // SAFETY: points into the map.
        unsafe {
            (*section).searched = addr;
            (*section).searcher = tid;
        }
    }
}
