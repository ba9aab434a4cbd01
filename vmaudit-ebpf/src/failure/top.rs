//! The words on top of the user's stack, among which return addresses are that a walk over frame pointers does not find.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::PerCpuArray};

use crate::{control::layout, kernel};

/// Words that are looked at; a power of two.
pub const TOP: usize = 256;

/// Each CPU has its own, as in [`super::stack`].
#[map]
static ON_TOP: PerCpuArray<[u64; TOP]> = PerCpuArray::with_max_entries(1, 0);

const _: () = assert!(TOP.is_power_of_two());

/// Reads the words on top of the stack; says how many.
// Global, as the next: looked at once by the verifier, and their frames are not below those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn words_of_current() -> u64 {
    read_top(kernel::registers())
}

/// The same where no task is known by type: these are its saved registers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn words_at(regs: u64) -> u64 {
    read_top(regs)
}

#[inline(always)]
fn read_top(regs: u64) -> u64 {
    // A stack's last bytes may be nearer than that.
    const LESS: usize = TOP / 8;
    let Some(top) = ON_TOP.get_ptr_mut(0) else { return 0 };
    let sp: u64 = kernel::peek(regs, layout!(end.regs_user_sp)).unwrap_or(0);
    for words in [TOP, LESS] {
        // SAFETY: the map has room for them; the helper checks the address in user space and never faults.
        if unsafe { bpf_probe_read_user(top.cast(), (words * 8) as u32, sp as *const c_void) } == 0 {
            return words as u64;
        }
    }
    0
}

/// Word number `n` of those that were read last.
#[inline(always)]
pub fn word(n: u64) -> u64 {
    let Some(top) = ON_TOP.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map, and the index is masked; volatile because a helper has written it.
    unsafe { top.cast::<u64>().add(n as usize & (TOP - 1)).read_volatile() }
}
