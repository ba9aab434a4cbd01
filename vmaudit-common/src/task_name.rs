//! Which names the tasks of an address space have, and what the tasks of each name did.

use bytemuck::{Pod, Zeroable};

use crate::COMM_LEN;

/// Entries of the table of [`TaskName`]s, a power of two.
pub const TASK_NAMES: u32 = 4096;
/// Entries that one address space may have; tasks of further names are counted together.
pub const NAMES_PER_SLOT: u64 = 128;

/// What the tasks of one name did in an address space in which another name was there first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TaskName {
    /// 0 = free; else made of the address space and the name, different for each.
    pub key: u64,
    /// [`crate::MmSlot::generation`].
    pub generation: u64,
    /// The name.
    pub comm: [u64; COMM_LEN / 8],
    /// VMAs added.
    pub added: u64,
    /// VMAs removed.
    pub removed: u64,
    /// Refused calls.
    pub failed: u64,
    /// Largest map_count that one of its changes left behind; 0: there was none.
    pub peak: u32,
    /// Not 0: tasks of other names made changes between two of its own.
    pub overlapped: u32,
}

/// Names of tasks in one address space. Of the first one, which nearly always is the only one, nothing is counted: it did what
/// is left when the others are taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Names {
    /// The name of the task that made the first change.
    pub first: [u64; COMM_LEN / 8],
    /// Not 0: `first` is known.
    pub known: u32,
    /// Whose the last change was: 0 the first name's, else an entry's index + 1, or [`Names::OTHERS`].
    pub last: u32,
    /// Entries that were taken.
    pub taken: u64,
    /// Largest map_count before a task of another name made a change.
    pub first_peak: u32,
    /// Not 0: tasks of other names made changes between two of the first name's.
    pub first_overlapped: u32,
    /// VMAs that tasks of names without an entry added.
    pub others_added: u64,
    /// VMAs that they removed.
    pub others_removed: u64,
    /// Calls that they were refused.
    pub others_failed: u64,
}

impl Names {
    /// See [`Names::last`].
    pub const OTHERS: u32 = u32::MAX;
}

const _: () = assert!(TASK_NAMES.is_power_of_two());
const _: () = assert!(size_of::<TaskName>() == 64);
const _: () = assert!(size_of::<Names>() == 64);
