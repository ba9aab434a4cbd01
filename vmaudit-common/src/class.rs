//! What was found out about a refused call, as bits; refusals that differ in them are of different kinds.

use crate::call;

/// [`crate::GroupKey::class`], low 4 bits: where map_count stood when the call took the lock, as [`relative_to_max`].
pub const CLASS_MC0_MASK: u64 = 0xf;
/// Next 4 bits: where it stood when the call let the lock go.
pub const CLASS_MC1_SHIFT: u32 = 4;
/// The call was seen to take the mmap lock for writing, and the figures of that section are the failure's own.
pub const CLASS_SECTION: u64 = 1 << 8;
/// mmap: MAP_FIXED or MAP_FIXED_NOREPLACE was asked for.
pub const CLASS_FIXED: u64 = 1 << 9;
/// mremap: MREMAP_MAYMOVE was given.
pub const CLASS_MAYMOVE: u64 = 1 << 10;
/// mremap: the new length is larger than the old one. brk: the break should grow.
pub const CLASS_GROWS: u64 = 1 << 11;
/// `total_vm` + the asked pages exceed RLIMIT_AS (mm/mmap.c:may_expand_vm).
pub const CLASS_OVER_AS: u64 = 1 << 12;
/// `data_vm` + the asked pages exceed RLIMIT_DATA.
pub const CLASS_OVER_DATA: u64 = 1 << 13;
/// `locked_vm` + the asked pages exceed RLIMIT_MEMLOCK.
pub const CLASS_OVER_MEMLOCK: u64 = 1 << 14;
/// The last search for a free range within the call found none (mmap:vm_unmapped_area).
pub const CLASS_NO_HOLE: u64 = 1 << 15;
/// A search for a free range was made within the call.
pub const CLASS_SEARCHED: u64 = 1 << 16;
/// There was no place left for the figures of a lock section: whether this call had one is not known.
pub const CLASS_SECTION_LOST: u64 = 1 << 17;
/// There was no place left for the result of a search: whether this call made one is not known.
pub const CLASS_SEARCH_LOST: u64 = 1 << 18;
/// vm.max_map_count is the one that user space read last ([`crate::Control::max_map_count`]), not the one of this moment.
pub const CLASS_LIMIT_POLLED: u64 = 1 << 19;

/// The range that the call was about was looked at, and is as it was when the call was refused.
pub const CLASS_LOOKED: u64 = 1 << 29;
/// It has a part that is not mapped.
pub const CLASS_GAP: u64 = 1 << 20;
/// Its start lies inside a mapping.
pub const CLASS_CUT_START: u64 = 1 << 21;
/// Its end lies inside a mapping.
pub const CLASS_CUT_END: u64 = 1 << 22;
/// It lies in a single mapping; with [`CLASS_GAP`]: nothing is mapped at its very start.
pub const CLASS_ONE: u64 = 1 << 23;
/// RLIMIT_DATA applies: mmap asks for private writable memory; the mapping that mremap should enlarge is such; none of
/// what mprotect makes writable was such.
pub const CLASS_COUNTS: u64 = 1 << 24;
/// The same for overcommit accounting.
pub const CLASS_CHARGED: u64 = 1 << 25;
/// All of it is already as the call wants it: mprotect's protection, locked, not locked. mremap: what follows the range
/// is mapped.
pub const CLASS_DONE: u64 = 1 << 26;
/// Overcommit accounting was seen to refuse the call.
pub const CLASS_OVERCOMMIT_REFUSED: u64 = 1 << 27;
/// brk was seen to come as far as making the heap larger, past the search for what is in its way.
pub const CLASS_HEAP_REACHED: u64 = 1 << 28;
/// mmap: MAP_HUGETLB was asked for, or a file of huge pages.
pub const CLASS_HUGE: u64 = 1 << 31;
/// mremap: MREMAP_FIXED or MREMAP_DONTUNMAP was given.
pub const CLASS_TARGETED: u64 = 1 << 30;
/// mremap: MREMAP_DONTUNMAP was given. (The bit of [`CLASS_HUGE`]: other calls, other meaning.)
pub const CLASS_KEEPS: u64 = 1 << 31;

/// mmap: no access was asked for (PROT_NONE): a reservation.
pub const CLASS_NO_ACCESS: u64 = 1 << 32;
/// mmap: at least [`PROBE_BYTES`] were asked for.
pub const CLASS_VAST: u64 = 1 << 33;
/// mmap: of a file.
pub const CLASS_FILE: u64 = 1 << 34;
/// mmap: MAP_NORESERVE was given.
pub const CLASS_NORESERVE: u64 = 1 << 35;
/// mmap: MAP_32BIT was given (x86-64). mmap and mremap: by the 32-bit entry, which gives no address above 4 GiB.
pub const CLASS_LOW: u64 = 1 << 36;
/// mmap with MAP_FIXED, and brk: the range goes beyond the last address that is known ([`Bounds::address_end`], else
/// [`Bounds::task_size`]).
pub const CLASS_BEYOND: u64 = 1 << 37;
/// mmap: the length exceeds all addresses. Others: address and length together reach 0 again.
pub const CLASS_TOO_LONG: u64 = 1 << 38;
/// More than RAM and swap together was asked for.
pub const CLASS_OVER_RAM: u64 = 1 << 39;
/// Nothing was locked in the address space ([`CLASS_SECTION`] says whether that was seen).
pub const CLASS_NONE_LOCKED: u64 = 1 << 40;
/// What is mapped from now on is locked (mlockall(MCL_FUTURE)), or MAP_LOCKED was given.
pub const CLASS_LOCKS: u64 = 1 << 41;
/// mmap: the length rounds to 0. mprotect: write access was asked for. clone: CLONE_VM was given. brk: a break below the start of the heap.
/// madvise: an [`ADVICE_MEMORY`] or [`ADVICE_COLLAPSE`].
pub const CLASS_FIRST: u64 = 1 << 42;
/// brk: the heap alone would exceed RLIMIT_DATA. clone: CLONE_NEWPID was given. madvise: an [`ADVICE_PLAIN`] or [`ADVICE_COLLAPSE`].
pub const CLASS_SECOND: u64 = 1 << 43;
/// [`asked_for`] was answered with all arguments: what it did not set is not so.
pub const CLASS_ASKED: u64 = 1 << 44;
/// Calls that make a task, EAGAIN: the limit on tasks that is [`crate::TASKS_OF_USER`] is reached; the bits that follow
/// are the others'. All these share their bits with what other calls are asked for or looked at.
pub const CLASS_TASKS_REACHED: u64 = 1 << 20;
/// Likewise: that limit was read. The bits that follow are the others'.
pub const CLASS_TASKS_READ: u64 = 1 << 30;
/// Calls that make a task, ENOMEM: the first process of the pid namespace for children has ended.
pub const CLASS_NO_INIT: u64 = 1 << 28;
/// Likewise: and that was looked at. (The bit of [`CLASS_LOOKED`].)
pub const CLASS_INIT_LOOKED: u64 = CLASS_LOOKED;
/// [`CLASS_OVER_AS`] whatever a fixed range may replace.
pub const CLASS_SURELY_OVER_AS: u64 = 1 << 45;
/// [`CLASS_OVER_DATA`] likewise.
pub const CLASS_SURELY_OVER_DATA: u64 = 1 << 46;
/// mmap: of a file that is no regular one: a device, a socket, one that stands for something in the kernel.
pub const CLASS_DRIVER: u64 = 1 << 47;
/// mlock, with [`CLASS_LOOKED`]: a part of the range allows no access. (The bit of [`CLASS_COUNTS`]; these three are of
/// other calls.)
pub const CLASS_CLOSED: u64 = 1 << 24;
/// mlock likewise: a part of it lies beyond the end of its file. (The bit of [`CLASS_CHARGED`].)
pub const CLASS_PAST_FILE: u64 = 1 << 25;
/// mlock likewise: a part of it is of a file. (The bit of [`CLASS_HEAP_REACHED`].)
pub const CLASS_OF_FILES: u64 = 1 << 28;
/// How many bits a class has.
pub const CLASS_BITS: u32 = 48;

/// madvise: advice that changes flags, so it may split mappings.
pub const ADVICE_FLAGS: u64 = 0;
/// madvise: advice that needs memory or page tables: POPULATE, GUARD_INSTALL.
pub const ADVICE_MEMORY: u64 = CLASS_FIRST;
/// madvise: advice that only looks at what is mapped.
pub const ADVICE_PLAIN: u64 = CLASS_SECOND;
/// madvise: MADV_COLLAPSE.
pub const ADVICE_COLLAPSE: u64 = CLASS_FIRST | CLASS_SECOND;

/// A reservation so large that programs which try it can do without (V8, sanitizers), bytes.
pub const PROBE_BYTES: u64 = 1 << 40;

/// What a request is measured against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Bytes per page as a shift.
    pub page_shift: u32,
    /// End of the addresses that a process gets without asking for more, bytes.
    pub task_size: u64,
    /// End of all addresses that a process can ask for, bytes; 0: not known.
    pub address_end: u64,
    /// RAM and swap together, pages; 0: not known.
    pub ram_and_swap_pages: u64,
    /// mm.start_brk, an address; 0: not known.
    pub start_brk: u64,
    /// RLIMIT_DATA, bytes.
    pub rlimit_data: u64,
}

impl Bounds {
    /// End of the addresses, as far as it is known.
    #[inline(always)]
    const fn end(&self) -> u64 {
        if self.address_end != 0 { self.address_end } else { self.task_size }
    }

    /// Bytes rounded up to whole pages; what exceeds the last page begins at 0 again, as in the kernel.
    #[inline(always)]
    pub const fn whole_pages(&self, bytes: u64) -> u64 {
        let below = (1u64 << (self.page_shift & 31)) - 1;
        bytes.wrapping_add(below) & !below
    }
}

/// What a call asks for, as far as it changes which checks the kernel makes or what the answer means: refusals that
/// differ in it are of different kinds. `ret`: the call's answer; `args`: its first four arguments.
#[inline(always)]
pub fn asked_for(id: call::Call, ret: u64, args: [u64; 4], bounds: &Bounds) -> u64 {
    const PROT_WRITE: u64 = 2;
    const CLONE_VM: u64 = 0x100;
    const CLONE_NEWPID: u64 = 0x2000_0000;
    let [a0, a1, a2, a3] = args;
    match id {
        call::MMAP => CLASS_ASKED | mmap_asks(args, bounds),
        call::MREMAP => CLASS_ASKED | mremap_asks(args, bounds),
        call::MPROTECT | call::PKEY_MPROTECT => {
            let writes = if a2 & PROT_WRITE != 0 { CLASS_FIRST } else { 0 };
            CLASS_ASKED | writes | wraps(a0, a1, bounds) | over_ram(bounds.whole_pages(a1), bounds)
        }
        call::BRK if bounds.start_brk != 0 && a0 < bounds.start_brk => CLASS_ASKED | CLASS_FIRST,
        call::BRK if a0 > ret => {
            let heap = bounds.start_brk != 0 && a0.wrapping_sub(bounds.start_brk) > bounds.rlimit_data;
            let grown = bounds.whole_pages(a0).wrapping_sub(bounds.whole_pages(ret));
            let more = if heap { CLASS_SECOND } else { 0 };
            let beyond = if bounds.whole_pages(a0) > bounds.end() { CLASS_BEYOND } else { 0 };
            CLASS_ASKED | CLASS_GROWS | more | beyond | over_ram(grown, bounds)
        }
        call::SHMGET => CLASS_ASKED | shmget_asks(a1, a2, bounds),
        call::MADVISE => CLASS_ASKED | advice(a2),
        call::PROCESS_MADVISE => CLASS_ASKED | advice(a3),
        call::CLONE => {
            let bit = |flag: u64, bit: u64| if a0 & flag != 0 { bit } else { 0 };
            CLASS_ASKED | bit(CLONE_VM, CLASS_FIRST) | bit(CLONE_NEWPID, CLASS_SECOND)
        }
        call::MLOCK | call::MLOCK2 | call::MUNLOCK => CLASS_ASKED | wraps(a0, a1, bounds),
        _ => CLASS_ASKED,
    }
}

#[inline(always)]
fn mmap_asks([a0, a1, a2, a3]: [u64; 4], bounds: &Bounds) -> u64 {
    const PROT_WRITE: u64 = 2;
    const PROT_ANY: u64 = 7;
    const MAP_TYPE: u64 = 0xf;
    const MAP_PRIVATE: u64 = 2;
    const MAP_FIXED_OR_NOREPLACE: u64 = 0x10 | 0x10_0000;
    const MAP_ANONYMOUS: u64 = 0x20;
    const MAP_32BIT: u64 = 0x40;
    const MAP_GROWSDOWN: u64 = 0x100;
    const MAP_LOCKED: u64 = 0x2000;
    const MAP_NORESERVE: u64 = 0x4000;
    const MAP_HUGETLB: u64 = 0x4_0000;
    let bit = |is: bool, bit: u64| if is { bit } else { 0 };
    let fixed = a3 & MAP_FIXED_OR_NOREPLACE != 0;
    let length = bounds.whole_pages(a1);
    // mm/mmap.c:do_mmap, accountable_mapping. Strict accounting ignores MAP_NORESERVE: user space knows the mode.
    let private_writable = a3 & MAP_TYPE == MAP_PRIVATE && a2 & PROT_WRITE != 0;
    let shared_memory = a3 & MAP_TYPE != MAP_PRIVATE && a3 & MAP_ANONYMOUS != 0;
    let charged = (private_writable || shared_memory) && a3 & (MAP_NORESERVE | MAP_HUGETLB) == 0;
    let wraps = length < a1;
    // A hint above opens all addresses (arch/x86/mm/mmap.c:mmap_address_hint_valid).
    let too_long = a1 > bounds.task_size && a0 < bounds.task_size;
    let end = bounds.end();
    bit(fixed, CLASS_FIXED)
        | bit(a3 & MAP_HUGETLB != 0, CLASS_HUGE)
        | bit(private_writable && a3 & MAP_GROWSDOWN == 0, CLASS_COUNTS)
        | bit(charged, CLASS_CHARGED)
        | bit(a2 & PROT_ANY == 0, CLASS_NO_ACCESS)
        | bit(a1 >= PROBE_BYTES, CLASS_VAST)
        | bit(a3 & MAP_ANONYMOUS == 0, CLASS_FILE)
        | bit(a3 & MAP_NORESERVE != 0, CLASS_NORESERVE)
        | bit(a3 & MAP_32BIT != 0, CLASS_LOW)
        | bit(fixed && (length > end || a0 > end - length), CLASS_BEYOND)
        | bit(too_long, CLASS_TOO_LONG)
        | bit(wraps, CLASS_FIRST)
        | bit(a3 & MAP_LOCKED != 0, CLASS_LOCKS)
        | over_ram(length, bounds)
}

#[inline(always)]
fn mremap_asks([_, a1, a2, a3]: [u64; 4], bounds: &Bounds) -> u64 {
    const MREMAP_MAYMOVE: u64 = 1;
    const MREMAP_FIXED: u64 = 2;
    const MREMAP_DONTUNMAP: u64 = 4;
    let bit = |is: bool, bit: u64| if is { bit } else { 0 };
    let grown = if a2 > a1 { bounds.whole_pages(a2).wrapping_sub(bounds.whole_pages(a1)) } else { 0 };
    bit(a3 & MREMAP_MAYMOVE != 0, CLASS_MAYMOVE)
        | bit(a3 & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0, CLASS_TARGETED)
        | bit(a3 & MREMAP_DONTUNMAP != 0, CLASS_KEEPS)
        | bit(a2 > a1, CLASS_GROWS)
        | bit(a2 > a1 && grown >= PROBE_BYTES, CLASS_VAST)
        | over_ram(grown, bounds)
}

/// ipc/shm.c:newseg
#[inline(always)]
fn shmget_asks(size: u64, flags: u64, bounds: &Bounds) -> u64 {
    const SHM_HUGETLB: u64 = 0o4000;
    const SHM_NORESERVE: u64 = 0o10000;
    let huge = if flags & SHM_HUGETLB != 0 { CLASS_HUGE } else { 0 };
    let noreserve = if flags & SHM_NORESERVE != 0 { CLASS_NORESERVE } else { 0 };
    let charged = if huge | noreserve == 0 { CLASS_CHARGED } else { 0 };
    huge | noreserve | charged | over_ram(bounds.whole_pages(size), bounds)
}

#[inline(always)]
fn over_ram(bytes: u64, bounds: &Bounds) -> u64 {
    let most = bounds.ram_and_swap_pages;
    if most != 0 && bytes >> (bounds.page_shift & 31) > most { CLASS_OVER_RAM } else { 0 }
}

/// Address and length together reach 0 again.
#[inline(always)]
fn wraps(address: u64, length: u64, bounds: &Bounds) -> u64 {
    if length != 0 && address.wrapping_add(bounds.whole_pages(length)) <= address {
        CLASS_TOO_LONG
    } else {
        0
    }
}

#[inline(always)]
fn advice(advice: u64) -> u64 {
    match advice {
        0..=2 | 10..=19 => ADVICE_FLAGS,
        22 | 23 | 102 => ADVICE_MEMORY,
        25 => ADVICE_COLLAPSE,
        _ => ADVICE_PLAIN,
    }
}

/// `map_count` relative to the limit in 4 bits: 0 = 7 or more below max, 7 = at max, 8 = max + 1, 9 = more.
#[inline(always)]
pub const fn relative_to_max(map_count: u32, max: u32) -> u64 {
    if map_count + 7 <= max {
        0
    } else if map_count > max + 1 {
        9
    } else {
        (map_count + 7 - max) as u64
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
