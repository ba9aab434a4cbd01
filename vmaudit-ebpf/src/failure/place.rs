//! What tells the place of a refused call from others, in one word: its callers as far as a walk over frame pointers finds
//! them, and what of the words on top of the user's stack points into the program's own code.
//!
//! Code without frame pointers shows no callers to a walk. Its return addresses still lie on the stack, between words that
//! mean nothing and some that are left over from earlier calls: those may tell one place apart from itself, never two
//! places alike. User space puts together what turns out to have the same stack.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::PerCpuArray};
use vmaudit_common::{ABSENT, SITE_FRAMES};

use super::stack::Stack;
use crate::{control::layout, kernel};

/// Words on top of the stack that are looked at; a power of two for the verifier.
const WORDS: usize = 32;
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Each CPU has its own, as in [`super::stack`].
#[map]
static TOP: PerCpuArray<[u64; WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// The place that the stack which was taken on this CPU last is of. `regs`: saved user registers; `task`: whose they are.
#[inline(always)]
pub fn identity(regs: u64, task: u64) -> u64 {
    let (sp, mm) = (layout!(regs_sp), kernel::mm_of(task));
    let (start, end) = (layout!(mm_start_code), layout!(mm_end_code));
    if sp == ABSENT || start == ABSENT || end == ABSENT {
        return place_identity(0, 0, 0);
    }
    place_identity(kernel::read(regs, sp), kernel::read(mm, start), kernel::read(mm, end))
}

// Global: looked at once by the verifier.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn place_identity(sp: u64, start: u64, end: u64) -> u64 {
    let Some(stack) = Stack::last() else { return 0 };
    let frames = if stack.bytes() > 0 { stack.bytes() as u64 / 8 } else { 0 };
    let mut mixed = stack.word(0).wrapping_mul(SPREAD);
    for n in 0..SITE_FRAMES as u64 {
        if n >= frames {
            break;
        }
        mixed = mix(mixed, stack.word(n + 1));
    }
    if end == 0 {
        return mixed;
    }
    let Some(top) = TOP.get_ptr_mut(0) else { return mixed };
    let words = top.cast::<u64>();
    // A stack's last bytes may be nearer than that; then the callers above have to do.
    // SAFETY: as large as it is said to be; the helper checks the address in user space and never faults.
    if unsafe { bpf_probe_read_user(top.cast(), (WORDS * 8) as u32, sp as *const _) } != 0 {
        return mixed;
    }
    for n in 0..WORDS {
        // SAFETY: points into the map; volatile because a helper has written it.
        let word = unsafe { words.add(n & (WORDS - 1)).read_volatile() };
        // Without a branch, of which the verifier would follow every way through: all bits if it lies between, else none.
        let between = (start.wrapping_sub(word) & word.wrapping_sub(end)) as i64 >> 63;
        mixed = mix(mixed, word & between as u64);
    }
    mixed
}

#[inline(always)]
fn mix(mixed: u64, word: u64) -> u64 {
    (mixed ^ mixed >> 31 ^ word).wrapping_mul(SPREAD)
}
