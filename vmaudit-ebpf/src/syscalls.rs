//! Exits of watched calls: how many there were, which were refused, and the evidence of a refusal.

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use vmaudit_common::{
    MmSlot, SECTIONS, Section,
    call::{self, CALL_COUNT, CALLS, Call, Refusal},
};

use crate::{
    booking::given_back,
    kernel::{self, argument},
    map_count::call_index,
    maps::{self, SECTION_OF_TASK, SLOTS, config},
    refused,
};

const ENOMEM: i64 = 12;
const EAGAIN: i64 = 11;
const PR_SET_VMA: u64 = 0x5356_4d41;
/// Type byte of userfaultfd's ioctls (include/uapi/linux/userfaultfd.h:UFFDIO).
const UFFDIO: u64 = 0xaa;

/// [`CALLS`]' refusals alone, so that no names travel into the object.
static REFUSALS: [u8; CALL_COUNT] = {
    let mut refusals = [0; CALL_COUNT];
    let mut id = 0;
    while id < CALL_COUNT {
        refusals[id] = CALLS[id].refusal as u8;
        id += 1;
    }
    refusals
};

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_raw(ctx: RawTracePointContext) -> i32 {
    // This runs at every system call of the machine: the number comes by plain loads, not by a reading helper.
    let id = kernel::call_by_number(u64::from(kernel::Current::task().call_number()));
    if id >= call::FIRST_REAL {
        returned(id, ctx.arg::<u64>(1) as i64, ctx.arg(0));
    }
    0
}

/// Record: id at 8, ret at 16.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
pub fn sys_exit_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offsets inside the record (include/trace/events/syscalls.h, ABI in practice since 2.6.33).
    let (number, ret) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<i64>(16)) };
    let id = kernel::call_by_number(number.unwrap_or(u64::MAX));
    if id >= call::FIRST_REAL {
        returned(id, ret.unwrap_or(0), kernel::registers());
    }
    0
}

/// Inlined: verifiers before 6.5 cannot follow a number from a function to its caller and then track all numbers exactly
/// (kernel/bpf/verifier.c:backtrack_insn, mark_all_scalars_precise), which makes loading several times slower.
#[inline(always)]
fn returned(id: Call, ret: i64, regs: u64) {
    let current = kernel::Current::task();
    let tid = current.tid();
    let section = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1));
    judge(id, ret, regs, current, section);
    consume(section, tid);
}

/// The call is over.
#[inline(always)]
pub fn consume(section: Option<*mut Section>, tid: u32) {
    if let Some(section) = section {
        // What was kept belongs to this call only: the next one must not find it.
        // SAFETY: points into the map.
        unsafe {
            if (*section).tid == tid {
                (*section).call = u32::from(call::OTHER);
            }
            if (*section).searcher == tid {
                (*section).searched = 0;
            }
            if (*section).prober == tid {
                (*section).prober = 0;
            }
        }
    }
}

#[inline(always)]
fn judge(id: Call, ret: i64, regs: u64, current: kernel::Current, section: Option<*mut Section>) {
    let tid = current.tid();
    // The lock section of this very call knows the slot; only calls without one have to look for it.
    let known = section.and_then(|section| {
        // SAFETY: points into the map; the entry is this task's own, and it is in no other call.
        let (owner, call, slot) = unsafe { ((*section).tid, (*section).call, (*section).slot) };
        if owner == tid && call == u32::from(id) { Some(slot) } else { None }
    });
    let Some(index) = known.or_else(|| maps::index_of(current.mm())) else { return };
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    let made = Made { id, ret, regs, task: current.address(), compat: current.in_compat_call() };
    if let Some(errno) = answered::<false>(slot, &made) {
        refused::refused(index, u32::from(id), u32::from(errno), ret as u64);
    }
}

/// A call that has returned.
pub struct Made {
    /// Which.
    pub id: Call,
    /// Its answer.
    pub ret: i64,
    /// Saved registers.
    pub regs: u64,
    /// Who made it.
    pub task: u64,
    /// Through the 32-bit entry.
    pub compat: bool,
}

/// Counts a call, and what it gave back; the errno of one that was refused. `PLAIN`: for kernels whose programs have no
/// compare-and-swap.
#[inline(always)]
pub fn answered<const PLAIN: bool>(slot: *mut MmSlot, made: &Made) -> Option<u8> {
    let Made { id, ret, regs, task, compat } = *made;
    if compat {
        count(slot, call::COMPAT);
        return None;
    }
    if ret == 0 && matches!(id, call::CLONE | call::CLONE3 | call::FORK | call::VFORK) {
        return None; // the child's side of the call
    }
    if id == call::IOCTL && argument(regs, 1) >> 8 & 0xff != UFFDIO {
        return None;
    }
    count(slot, id);
    let errno = refusal(id, ret, regs, task);
    if errno.is_none() && call::DOWNGRADING >> (id & 63) & 1 == 1 {
        given_back::<PLAIN>(slot, id, ret, regs);
    }
    errno
}

/// A task is gone: its entry in the table of lock sections speaks for nobody.
#[inline(always)]
pub fn forget(tid: u32) {
    if config!(calls) == 0 {
        return;
    }
    if let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) {
        // SAFETY: points into the map.
        unsafe {
            if (*section).tid == tid {
                (*section).tid = 0;
            }
            if (*section).searcher == tid {
                (*section).searcher = 0;
            }
            if (*section).prober == tid {
                (*section).prober = 0;
            }
        }
    }
}

#[inline(always)]
fn count(slot: *mut MmSlot, id: Call) {
    if let Some(index) = call_index(id) {
        // SAFETY: `index` is below CALL_COUNT.
        maps::add(
            unsafe {
                &raw mut (*(&raw mut (*slot).calls).cast::<vmaudit_common::CallStat>().add(index)).calls
            },
            1,
        );
    }
}

/// The errno of a refusal for lack of memory or of a limit; `None` for success and for other errors.
#[inline(always)]
pub fn refusal(id: Call, ret: i64, regs: u64, task: u64) -> Option<u8> {
    let rule = REFUSALS[call_index(id)?];
    if rule == Refusal::Brk as u8 {
        return brk_refused(ret, regs, task);
    }
    let errno = -ret;
    let hit = (errno == ENOMEM && rule != Refusal::Never as u8)
        || (errno == EAGAIN && rule == Refusal::EnomemEagain as u8);
    if !hit || (id == call::PRCTL && argument(regs, 0) != PR_SET_VMA) {
        return None;
    }
    Some(errno as u8)
}

/// brk answers with the break it leaves behind; asking for another one and not getting it is the refusal. A request
/// below the start of the heap, brk(0) above all, is a question (mm/mmap.c:brk).
#[inline(always)]
fn brk_refused(ret: i64, regs: u64, task: u64) -> Option<u8> {
    let asked = argument(regs, 0);
    if ret < 0 || asked == ret as u64 || asked < kernel::start_brk(task) {
        return None;
    }
    Some(ENOMEM as u8)
}
