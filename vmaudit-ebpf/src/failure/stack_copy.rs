//! The user stack of a refused call, copied: most code keeps no frame pointers, and what tells of its callers is in its
//! files, which user space can read. Once for each kind of refusal.
//!
//! Nothing is waited for: a page that is not in memory ends the copy. Of the main thread's stack the arguments and the
//! environment, which lie above it, are not copied.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use vmaudit_common::{ABSENT, RECORD_STACK, REGISTERS, STACK_PIECE, STACK_PIECES, StackRecord};

use crate::{
    control::{Word, layout, lost},
    kernel, records,
    slots::Slot,
};

/// Words of `struct pt_regs` on x86 (arch/x86/include/asm/ptrace.h, all versions), and which of them is the stack pointer.
const X86: (usize, usize) = (21, 19);
/// Which word of `struct user_pt_regs` is the stack pointer on arm64.
const ARM64_SP: usize = 31;
/// Above where the main thread's stack began: the number of arguments.
const BEGINNING: u64 = 8;
const HEAD: usize = offset_of!(StackRecord, data);

/// In a map, so that the verifier knows none of the values.
#[repr(C)]
struct Piece {
    record: StackRecord,
    /// 1 while it is some task's: programs can be preempted (7.0 and later), and others then run on the CPU.
    busy: u64,
}

#[map]
static PIECE: PerCpuArray<Piece> = PerCpuArray::with_max_entries(1, 0);

/// Sends the stack of `current` piece by piece; `index` is the address space's slot, `now` the call's time; of a longer one
/// the innermost `most` bytes. 0, and counted: there was no room for all.
// SAFETY: no other symbol of the object has this name; so for the next.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_stack(index: u32, now: u64, most: u64) -> u64 {
    let Some(piece) = PIECE.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map, at a word.
    let busy = unsafe { Word::new(&raw mut (*piece).busy) };
    if busy.claim(0, 1).is_err() {
        lost!(stack_copy_missing);
        return 0;
    }
    let sent = copy(index, kernel::registers(), now, most);
    busy.write(0);
    sent
}

/// The same where no task is known by type: these are its saved registers. On those kernels nothing comes in between.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_stack_by_registers(index: u32, regs: u64, now: u64, most: u64) -> u64 {
    copy(index, regs, now, most)
}

#[inline(always)]
fn copy(index: u32, regs: u64, now: u64, most: u64) -> u64 {
    let (Some(piece), Some(slot)) = (PIECE.get_ptr_mut(0), Slot::at(index)) else { return 0 };
    let piece = piece.cast::<StackRecord>();
    if !records::has_room_for_stacks() {
        return 0;
    }
    let arm64 = layout!(regs_lr) != ABSENT;
    let start_stack = layout!(mm_start_stack);
    // SAFETY: points into the map; the helpers check the addresses and never fault; lengths are masked.
    unsafe {
        (*piece).head = records::head(RECORD_STACK, now, slot.generation());
        // What the architecture does not have stays 0.
        let words = (&raw mut (*piece).registers).cast::<c_void>();
        if arm64 {
            bpf_probe_read_kernel(words, size_of::<[u64; REGISTERS]>() as u32, regs as *const c_void);
            (*piece).sp = (*piece).registers[ARM64_SP];
        } else {
            bpf_probe_read_kernel(words, (X86.0 * 8) as u32, regs as *const c_void);
            (*piece).sp = (*piece).registers[X86.1];
        }
        let sp = ptr::read_volatile(&raw const (*piece).sp);
        let mut end = sp.wrapping_add(most);
        if start_stack != ABSENT {
            let main: u64 = kernel::read(kernel::mm_of(kernel::current()), start_stack);
            let whole = main.wrapping_add(BEGINNING);
            if sp < main && whole < end {
                end = whole;
            }
        }
        (*piece).start = sp;
        for _ in 0..STACK_PIECES {
            let start = ptr::read_volatile(&raw const (*piece).start);
            let page = STACK_PIECE as u64 - (start & (STACK_PIECE as u64 - 1));
            let left = end.wrapping_sub(start);
            (*piece).bytes = if left < page { left } else { page };
            let bytes = ptr::read_volatile(&raw const (*piece).bytes) & (2 * STACK_PIECE as u64 - 1);
            if bytes == 0 || bytes > STACK_PIECE as u64 {
                break;
            }
            let data = (&raw mut (*piece).data).cast::<c_void>();
            if bpf_probe_read_user(data, bytes as u32, start as *const c_void) != 0 {
                break;
            }
            let record = core::slice::from_raw_parts(piece.cast::<u8>(), HEAD + bytes as usize);
            if !records::stack_piece(slot, record) {
                return 0;
            }
            (*piece).start = start.wrapping_add(bytes);
        }
    }
    1
}
