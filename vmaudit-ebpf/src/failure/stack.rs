//! The user stack of a refused call, taken once: the mappings it lies in are told from it, and then it goes into the
//! call's record.

use aya_ebpf::{
    helpers::{
        bpf_probe_read_user,
        generated::{bpf_get_current_task_btf, bpf_get_stack, bpf_get_task_stack},
    },
    macros::map,
    maps::PerCpuArray,
};
use vmaudit_common::{ABSENT, STACK_FRAMES};

use crate::{
    control::{layout, lost},
    kernel,
};

const BPF_F_USER_STACK: u64 = 1 << 8;
/// The caller and the frames; a power of two for the verifier.
pub const WORDS: usize = 64;
const _: () = assert!(WORDS > STACK_FRAMES);
const SIZE: u32 = (STACK_FRAMES * 8) as u32;

/// A stack as it was taken.
#[repr(C)]
struct Taken {
    /// The caller, then the frames.
    words: [u64; WORDS],
    /// Bytes of frames, or a negative errno.
    bytes: i64,
}

/// Each CPU has its own, and failures are examined one after the other on it: see [`crate::answer::undisturbed`].
#[map]
static TAKEN: PerCpuArray<Taken> = PerCpuArray::with_max_entries(1, 0);

/// The stack that was taken on this CPU last.
#[derive(Clone, Copy)]
pub struct Stack(*mut Taken);

impl Stack {
    /// Without looking whether one was taken in this program.
    #[inline(always)]
    pub fn last() -> Option<Self> {
        TAKEN.get_ptr_mut(0).map(Self)
    }

    /// Takes the stack of `current`, known by type.
    #[inline(always)]
    pub fn take(regs: u64) -> Option<Self> {
        let stack = Self::last()?;
        // SAFETY: points into the map, with room for the frames; a valid task; the helper checks the rest.
        unsafe {
            let task = bpf_get_current_task_btf();
            (*stack.0).bytes = bpf_get_task_stack(task, stack.frames().cast(), SIZE, BPF_F_USER_STACK);
        }
        stack.finish(regs);
        Some(stack)
    }

    /// As [`Stack::take`], for kernels that know no task by type. `ctx`: the program's own context.
    #[inline(always)]
    pub fn take_by_context(ctx: *mut core::ffi::c_void, regs: u64) -> Option<Self> {
        let stack = Self::last()?;
        // SAFETY: as above; the verifier accepts nothing but the program's own context.
        unsafe {
            let taken = bpf_get_stack(ctx, stack.frames().cast(), SIZE, BPF_F_USER_STACK);
            (*stack.0).bytes = i64::from(taken as i32);
        }
        stack.finish(regs);
        Some(stack)
    }

    #[inline(always)]
    fn finish(self, regs: u64) {
        if self.bytes() < 0 {
            lost!(stack_missing);
        }
        // SAFETY: points into the map.
        unsafe { (*self.0).words[0] = caller(regs) };
    }

    #[inline(always)]
    fn frames(self) -> *mut u64 {
        // SAFETY: points into the map; the frames follow the caller.
        unsafe { (&raw mut (*self.0).words).cast::<u64>().add(1) }
    }

    /// Bytes of frames that are valid, or a negative errno.
    #[inline(always)]
    pub fn bytes(self) -> i64 {
        // SAFETY: points into the map; volatile because a helper has written it.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).bytes) }
    }

    /// Word number `index`, which is cut to what there is: 0 is the caller, the frames follow.
    #[inline(always)]
    pub fn word(self, index: u64) -> u64 {
        // SAFETY: points into the map, and the index is masked.
        unsafe {
            (&raw const (*self.0).words).cast::<u64>().add(index as usize & (WORDS - 1)).read_volatile()
        }
    }

    /// Copies all frames, valid ones or not.
    ///
    /// # Safety
    /// `into` has room for them.
    #[inline(always)]
    pub unsafe fn copy_frames(self, into: *mut u64) {
        for n in 0..STACK_FRAMES {
            // SAFETY: both have STACK_FRAMES words.
            unsafe { into.add(n).write(self.frames().add(n).read()) };
        }
    }
}

/// Return address of the function that holds the system call instruction, if it has no frame.
#[inline(always)]
fn caller(regs: u64) -> u64 {
    if layout!(regs_lr) != ABSENT {
        return kernel::read(regs, layout!(regs_lr));
    }
    let sp: u64 = kernel::read(regs, layout!(regs_sp));
    // SAFETY: the helper checks the address itself and never faults.
    unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or(0)
}
