//! What was found out about a refused call, as bits; refusals that differ in them are of different kinds.

use crate::call;

/// [`crate::GroupKey::class`], low 4 bits: where map_count stood when the call took the lock, as [`relative_to_max`].
pub const CLASS_MC0_MASK: u32 = 0xf;
/// Next 4 bits: where it stood when the call let the lock go.
pub const CLASS_MC1_SHIFT: u32 = 4;
/// The call was seen to take the mmap lock for writing, and the figures of that section are the failure's own.
pub const CLASS_SECTION: u32 = 1 << 8;
/// mmap: MAP_FIXED or MAP_FIXED_NOREPLACE was asked for.
pub const CLASS_FIXED: u32 = 1 << 9;
/// mremap: MREMAP_MAYMOVE was given.
pub const CLASS_MAYMOVE: u32 = 1 << 10;
/// mremap: the new length is larger than the old one. brk: the break should grow.
pub const CLASS_GROWS: u32 = 1 << 11;
/// `total_vm` + the asked pages exceed RLIMIT_AS (mm/mmap.c:may_expand_vm).
pub const CLASS_OVER_AS: u32 = 1 << 12;
/// `data_vm` + the asked pages exceed RLIMIT_DATA.
pub const CLASS_OVER_DATA: u32 = 1 << 13;
/// `locked_vm` + the asked pages exceed RLIMIT_MEMLOCK.
pub const CLASS_OVER_MEMLOCK: u32 = 1 << 14;
/// The last search for a free range within the call found none (mmap:vm_unmapped_area).
pub const CLASS_NO_HOLE: u32 = 1 << 15;
/// A search for a free range was made within the call.
pub const CLASS_SEARCHED: u32 = 1 << 16;
/// There was no place left for the figures of a lock section: whether this call had one is not known.
pub const CLASS_SECTION_LOST: u32 = 1 << 17;
/// There was no place left for the result of a search: whether this call made one is not known.
pub const CLASS_SEARCH_LOST: u32 = 1 << 18;
/// vm.max_map_count is the one that user space read last ([`crate::Control::max_map_count`]), not the one of this moment.
pub const CLASS_LIMIT_POLLED: u32 = 1 << 19;

/// The range that the call was about was looked at, and is as it was when the call was refused.
pub const CLASS_LOOKED: u32 = 1 << 29;
/// It has a part that is not mapped.
pub const CLASS_GAP: u32 = 1 << 20;
/// Its start lies inside a mapping.
pub const CLASS_CUT_START: u32 = 1 << 21;
/// Its end lies inside a mapping.
pub const CLASS_CUT_END: u32 = 1 << 22;
/// It lies in a single mapping; with [`CLASS_GAP`]: nothing is mapped at its very start.
pub const CLASS_ONE: u32 = 1 << 23;
/// RLIMIT_DATA applies: mmap asks for private writable memory; the mapping that mremap should enlarge is such; none of
/// what mprotect makes writable was such.
pub const CLASS_COUNTS: u32 = 1 << 24;
/// The same for overcommit accounting.
pub const CLASS_CHARGED: u32 = 1 << 25;
/// All of it is already as the call wants it: mprotect's protection, locked, not locked. mremap: what follows the range
/// is mapped.
pub const CLASS_DONE: u32 = 1 << 26;
/// Overcommit accounting was seen to refuse the call.
pub const CLASS_OVERCOMMIT_REFUSED: u32 = 1 << 27;
/// brk was seen to come as far as making the heap larger, past the search for what is in its way.
pub const CLASS_HEAP_REACHED: u32 = 1 << 28;
/// mmap: MAP_HUGETLB was asked for.
pub const CLASS_HUGE: u32 = 1 << 31;
/// mremap: MREMAP_FIXED or MREMAP_DONTUNMAP was given.
pub const CLASS_TARGETED: u32 = 1 << 30;
/// mremap: MREMAP_DONTUNMAP was given. (The bit of [`CLASS_HUGE`]: other calls, other meaning.)
pub const CLASS_KEEPS: u32 = 1 << 31;

/// What the flags ask for, as far as it changes which checks the kernel makes: refusals that differ in it are of
/// different kinds. `a2`, `a3`: third and fourth argument.
#[inline(always)]
pub const fn asked_for(id: call::Call, a2: u64, a3: u64) -> u32 {
    const PROT_WRITE: u64 = 2;
    const MAP_TYPE: u64 = 0xf;
    const MAP_PRIVATE: u64 = 2;
    const MAP_FIXED_OR_NOREPLACE: u64 = 0x10 | 0x10_0000;
    const MAP_ANONYMOUS: u64 = 0x20;
    const MAP_GROWSDOWN: u64 = 0x100;
    const MAP_NORESERVE: u64 = 0x4000;
    const MAP_HUGETLB: u64 = 0x4_0000;
    const MREMAP_MAYMOVE: u64 = 1;
    const MREMAP_FIXED: u64 = 2;
    const MREMAP_DONTUNMAP: u64 = 4;
    let mut class = 0;
    if id == call::MMAP {
        if a3 & MAP_FIXED_OR_NOREPLACE != 0 {
            class |= CLASS_FIXED;
        }
        if a3 & MAP_HUGETLB != 0 {
            class |= CLASS_HUGE;
        }
        // mm/mmap.c:do_mmap, accountable_mapping. Strict accounting ignores MAP_NORESERVE: user space knows the mode.
        let private_writable = a3 & MAP_TYPE == MAP_PRIVATE && a2 & PROT_WRITE != 0;
        if private_writable && a3 & MAP_GROWSDOWN == 0 {
            class |= CLASS_COUNTS;
        }
        let shared_memory = a3 & MAP_TYPE != MAP_PRIVATE && a3 & MAP_ANONYMOUS != 0;
        if (private_writable || shared_memory) && a3 & (MAP_NORESERVE | MAP_HUGETLB) == 0 {
            class |= CLASS_CHARGED;
        }
    }
    if id == call::MREMAP {
        if a3 & MREMAP_MAYMOVE != 0 {
            class |= CLASS_MAYMOVE;
        }
        if a3 & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 {
            class |= CLASS_TARGETED;
        }
        if a3 & MREMAP_DONTUNMAP != 0 {
            class |= CLASS_KEEPS;
        }
    }
    class
}

/// `map_count` relative to the limit in 4 bits: 0 = 7 or more below max, 7 = at max, 8 = max + 1, 9 = more.
#[inline(always)]
pub const fn relative_to_max(map_count: u32, max: u32) -> u32 {
    if map_count + 7 <= max {
        0
    } else if map_count > max + 1 {
        9
    } else {
        map_count + 7 - max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_to_the_limit_keeps_every_step_that_decides() {
        let max = 65530;
        for (count, class) in
            [(1, 0), (65523, 0), (65524, 1), (65529, 6), (65530, 7), (65531, 8), (65532, 9), (90000, 9)]
        {
            assert_eq!(relative_to_max(count, max), class, "{count}");
        }
    }
}
