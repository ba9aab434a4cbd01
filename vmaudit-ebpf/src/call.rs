//! What a call's id means to the programs, and a call that the kernel refused.

use vmaudit_common::call::{self, CALL_COUNT, Call, DOWNGRADING};

/// A call that has returned.
#[derive(Clone, Copy)]
pub struct ReturnedCall {
    /// Which.
    pub id: Call,
    /// Its answer.
    pub ret: i64,
    /// Saved registers.
    pub regs: u64,
    /// Who made it.
    pub task: u64,
}

/// A refused call.
#[derive(Clone, Copy)]
pub struct FailedCall {
    /// Which.
    pub id: Call,
    /// The errno that it was refused with.
    pub errno: u8,
    /// Its answer.
    pub ret: u64,
    /// Saved registers.
    pub regs: u64,
    /// Who made it.
    pub task: u64,
}

/// The call's place in a table of [`CALL_COUNT`] rows. The bound is for the verifier; the barrier keeps the compiler from
/// checking one copy of the number and using another.
#[inline(always)]
pub fn index_of(call: Call) -> Option<usize> {
    let index = core::hint::black_box(usize::from(call));
    if index < CALL_COUNT { Some(index) } else { None }
}

/// See [`vmaudit_common::call::CallInfo::downgrades`].
#[inline(always)]
pub fn may_downgrade(call: Call) -> bool {
    DOWNGRADING >> (call & 63) & 1 == 1
}

/// This call fills an address space that is not the caller's own yet.
#[inline(always)]
pub fn fills_another(id: Call) -> bool {
    const FILLING: u64 = 1 << call::CLONE
        | 1 << call::CLONE3
        | 1 << call::FORK
        | 1 << call::VFORK
        | 1 << call::EXECVE
        | 1 << call::EXECVEAT;
    FILLING >> (id & 63) & 1 == 1
}

/// Calls that may look for a free range of addresses.
#[inline(always)]
pub fn searches(id: Call) -> bool {
    matches!(id, call::MMAP | call::MREMAP | call::SHMAT | call::IO_SETUP | call::MAP_SHADOW_STACK)
}
