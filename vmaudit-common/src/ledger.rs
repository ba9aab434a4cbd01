//! What each call from each place added to the count of an address space, and removed.

use bytemuck::{Pod, Zeroable};

/// Kind of a [`crate::MakerRecord`] that tells the place of a [`LedgerEntry`]: `base` and `level` are the lower and the upper
/// half of its key.
pub const RECORD_LEDGER: u32 = 18;
/// Entries of the table where it is asked for, a power of two.
pub const LEDGER_ENTRIES: u32 = 1 << 15;
/// Entries that one address space may have by whole stacks; as many more by the innermost caller alone.
pub const LEDGER_PER_SLOT: u64 = 4096;

/// Changes by one call from one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LedgerEntry {
    /// 0 = free; else made of the address space, the call and the place, different for each.
    pub key: u64,
    /// [`crate::MmSlot::generation`].
    pub generation: u64,
    /// VMAs added, summed over changes with a gain.
    pub added: u64,
    /// VMAs removed, summed over changes with a loss.
    pub removed: u64,
    /// Which [`crate::call::Call`].
    pub call: u32,
    /// 0: its place was not told; [`LedgerEntry::TOLD`], [`LedgerEntry::TOLD_WITH_COPY`].
    pub told: u32,
}

impl LedgerEntry {
    /// Its place was told, without a copy of the stack.
    pub const TOLD: u32 = 1;
    /// With one.
    pub const TOLD_WITH_COPY: u32 = 2;
}

const _: () = assert!(LEDGER_ENTRIES.is_power_of_two());
const _: () = assert!(size_of::<LedgerEntry>() == 40);
