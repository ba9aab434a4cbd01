//! From where calls were refused: the refusals of one kind told apart by their user stacks.

use bytemuck::{Pod, Zeroable};

/// Entries of the table of [`Site`]s, a power of two.
pub const SITES: u32 = 4096;
/// Sites kept apart of one kind of failure; of more the kind alone counts.
pub const SITES_PER_GROUP: u64 = 16;
/// Frames that tell one site from another, the innermost ones.
pub const SITE_FRAMES: usize = 12;

/// Refusals of one kind in one address space that came from one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Site {
    /// 0 = free; else made of the address space, the kind and the stack, different for each.
    pub key: u64,
    /// [`crate::MmSlot::generation`].
    pub generation: u64,
    /// Index in [`crate::MmSlot::failures`].
    pub group: u64,
    /// Refusals.
    pub count: u64,
    /// Of them, those after which the same thread got the like.
    pub recovered: u64,
    /// First, CLOCK_MONOTONIC ns.
    pub first_ns: u64,
    /// Last, CLOCK_MONOTONIC ns.
    pub last_ns: u64,
    /// Most that was asked for, bytes.
    pub largest: u64,
    /// Least that was asked for, bytes, with all bits inverted: so that both begin at 0.
    pub smallest_inverted: u64,
}

const _: () = assert!(SITES.is_power_of_two());
const _: () = assert!(size_of::<Site>().is_multiple_of(8));
