//! Who raises the count of an address space: at levels that are drawn ([`vmaudit_common::Makers`]) the stack of the task that
//! took it there goes to user space.
//!
//! While the count stays below its highest level, and does not fall far, this costs two comparisons. The stack is followed
//! by frame pointers, which crosses from one stack to another (Go); its innermost part is copied too, because most code
//! keeps no frame pointers.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use vmaudit_common::{
    ABSENT, MAKER_FRAMES, MAKER_WORDS, MAKERS_COPIES, MAKERS_SHORT_COPY, MakerRecord, RECORD_MAKER,
    call::Call,
};

use crate::{
    control::{Word, layout, lost},
    failure::{COPY, copy_stack, copy_stack_by_registers},
    kernel, records,
    slots::Slot,
};

const HEAD: usize = offset_of!(MakerRecord, words);
/// Offset of the frame pointer in `struct pt_regs` of x86, and in `struct user_pt_regs` of arm64.
const FRAME_POINTER: (u32, u32) = (4 * 8, 29 * 8);
/// User addresses are below, and no stack lies in the first page.
const HIGHEST: u64 = 1 << 56;
const LOWEST: u64 = 4096;

/// Where the walk along a stack is, and the record that it fills. In a map, so that the verifier knows none of the values.
#[repr(C)]
struct Walk {
    record: MakerRecord,
    /// 1 while it is some task's: programs can be preempted (7.0 and later), and others then run on the CPU.
    busy: u64,
    /// Where the next frame is.
    fp: u64,
    /// A frame: where the next one is, and the return address.
    frame: [u64; 2],
}

#[map]
static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// The count has changed, by a call of the task's own.
#[inline(always)]
pub fn changed(index: u32, slot: Slot, call: Call, count: u32) {
    if !slot.makers().rests(count) {
        credit(index, u32::from(call), count);
    }
}

/// Something is to be done at this level.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn credit(index: u32, call: u32, count: u32) -> u64 {
    let Some(walk) = WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map, at a word.
    let busy = unsafe { Word::new(&raw mut (*walk).busy) };
    let free = busy.claim(0, 1).is_ok();
    let level = take_level(index, count, free);
    if level != 0 && free {
        // SAFETY: no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        copy_stack(index, now, copied(level));
        send(index, kernel::registers(), now, (call, level));
    } else if level != 0 {
        lost!(credits_lost);
    }
    if free {
        busy.write(0);
    }
    0
}

/// The same where no task is known by type: these are its saved registers. On those kernels nothing comes in between.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn credit_by_registers(index: u32, call: u32, count: u32, regs: u64) -> u64 {
    let level = take_level(index, count, true);
    if level != 0 {
        // SAFETY: no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        copy_stack_by_registers(index, regs, now, copied(level));
        send(index, regs, now, (call, level));
    }
    0
}

/// Bytes of a stack to copy.
#[inline(always)]
fn copied(level: u32) -> u64 {
    if level < MAKERS_COPIES { MAKERS_SHORT_COPY } else { COPY }
}

/// Up to which level somebody is to be credited now; 0: nobody is. The level above which is kept in the record, if that is
/// `free`.
#[inline(always)]
fn take_level(index: u32, count: u32, free: bool) -> u32 {
    let (Some(slot), Some(walk)) = (Slot::at(index), WALK.get_ptr_mut(0)) else { return 0 };
    let before = slot.makers();
    // SAFETY: no preconditions.
    let (after, credits) = before.at(count, unsafe { bpf_get_prandom_u32() });
    slot.set_makers(after);
    if free {
        // SAFETY: points into the map.
        unsafe { (*walk).record.base = before.credited };
    }
    if credits { after.credited } else { 0 }
}

#[inline(always)]
fn send(index: u32, regs: u64, now: u64, (call, level): (u32, u32)) {
    let (Some(slot), Some(walk)) = (Slot::at(index), WALK.get_ptr_mut(0)) else { return };
    let arm64 = layout!(regs_lr) != ABSENT;
    // SAFETY: points into the map; the helper checks the address and never faults.
    unsafe {
        let record = &raw mut (*walk).record;
        (*record).head = records::head(RECORD_MAKER, now, slot.generation());
        (*record).call = call;
        (*record).level = level;
        (*record).words[1] = kernel::read(regs, layout!(regs_ip));
        if arm64 {
            (*record).words[0] = kernel::read(regs, layout!(regs_lr));
            (*walk).fp = kernel::read(regs, FRAME_POINTER.1);
        } else {
            let sp: u64 = kernel::read(regs, layout!(regs_sp));
            (*record).words[0] = 0;
            let top = (&raw mut (*record).words[0]).cast::<c_void>();
            bpf_probe_read_user(top, 8, sp as *const c_void);
            (*walk).fp = kernel::read(regs, FRAME_POINTER.0);
        }
        (*record).used = 2;
        for _ in 0..MAKER_FRAMES {
            if up() == 0 {
                break;
            }
        }
        let used = ptr::read_volatile(&raw const (*record).used) as usize & (MAKER_WORDS - 1);
        let bytes = core::slice::from_raw_parts(record.cast::<u8>(), HEAD + used * 8);
        records::maker(slot, bytes, level, now);
    }
}

/// One frame up; 0 ends it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn up() -> u64 {
    let Some(walk) = WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map; the helper checks the address and never faults; the index is masked.
    unsafe {
        let fp = (*walk).fp;
        if fp & 7 != 0 || !(LOWEST..HIGHEST).contains(&fp) {
            return 0;
        }
        let frame = (&raw mut (*walk).frame).cast::<c_void>();
        if bpf_probe_read_user(frame, 16, fp as *const c_void) != 0 {
            return 0;
        }
        let [next, ip] = ptr::read_volatile(&raw const (*walk).frame);
        if ip == 0 {
            return 0;
        }
        let used = (*walk).record.used;
        let word = (&raw mut (*walk).record.words).cast::<u64>().add(used as usize & (MAKER_WORDS - 1));
        word.write(ip);
        (*walk).record.used = used + 1;
        (*walk).fp = next;
        // Code without frame pointers may leave a frame that points to itself.
        u64::from(next != fp)
    }
}
