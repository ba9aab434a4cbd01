//! Sizes of address spaces that are not the current task's own, or not known by type.

use vmaudit_common::{ABSENT, Sizes};

use crate::{
    control::layout,
    kernel::{lock_sequence, map_count, read, read_words},
};

/// Of an address space.
#[inline(always)]
pub fn of(mm: u64) -> Sizes {
    let [total, data, locked, stack] = read_words(
        mm,
        [layout!(mm_total_vm), layout!(mm_data_vm), layout!(mm_locked_vm), layout!(mm_stack_vm)],
    );
    Sizes { total, data, locked, stack }
}

/// A count of mappings and the sizes, while no writer is changing them; `None` if one is, or where that cannot be told.
#[inline(always)]
pub fn settled(mm: u64) -> Option<(u32, Sizes)> {
    let lock = layout!(mm_lock_count);
    if lock == ABSENT {
        return None;
    }
    let written = || read::<u64>(mm, lock) & 1 != 0;
    let sequence = lock_sequence(mm);
    if written() {
        return None;
    }
    let (count, sizes) = (map_count(mm), of(mm));
    // Without numbers, a writer that came and went in between shows only in the count.
    (!written() && map_count(mm) == count && lock_sequence(mm) == sequence).then_some((count, sizes))
}
