//! The watched system calls: the one list of their names, numbers and what their answers mean.
//!
//! The kernel side sees only [`Call`] ids: the loader turns [`CALLS`] into a table *number → id* for the running
//! architecture and hands it to the programs, so no number stands in the eBPF code.

/// Index of a watched call in [`CALLS`], or one of the pseudo calls at its end.
pub type Call = u8;

/// How many rows [`CALLS`] has, pseudo calls included.
pub const CALL_COUNT: usize = 42;
const _: () = assert!(CALL_COUNT <= 64, "DOWNGRADING is one word");

/// How a call shows that it was refused for lack of memory or of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No answer of this call counts as a memory failure.
    Never = 0,
    /// ENOMEM.
    Enomem = 1,
    /// ENOMEM or EAGAIN (madvise and prctl answer EAGAIN at the VMA limit since 5.17; mmap and mremap answer EAGAIN
    /// at RLIMIT_MEMLOCK; mm/madvise.c:madvise_vma_behavior, mm/mmap.c:do_mmap).
    EnomemEagain = 2,
    /// brk: never an errno; the unchanged break says no (mm/mmap.c:brk).
    Brk = 3,
    /// ENOMEM, or ENOSPC at the limits of System V shared memory (ipc/shm.c:newseg, ipc/util.c:ipc_addid).
    EnomemEnospc = 4,
    /// ENOMEM or EAGAIN; EPERM where nothing may be locked at all (mm/mlock.c:can_do_mlock).
    Lock = 5,
    /// The same, EPERM only with MAP_LOCKED.
    Mmap = 6,
}

/// One watched call.
#[derive(Clone, Copy, Debug)]
pub struct CallInfo {
    /// The kernel's name of the call, or a bracketed name for a pseudo call.
    pub name: &'static str,
    /// Number on x86-64, or [`NO_NUMBER`].
    pub x86_64: u16,
    /// Number on arm64, or [`NO_NUMBER`].
    pub aarch64: u16,
    /// Number by which 32-bit programs and `int $0x80` know it on x86, or [`NO_NUMBER`].
    pub i386: u16,
    /// Which answers count as failed.
    pub refusal: Refusal,
    /// The call may downgrade the mmap lock, so its change is seen at a *read* release
    /// (mm/vma.c:vms_complete_munmap_vmas and callers, all versions).
    pub downgrades: bool,
}

/// "This architecture does not have the call."
pub const NO_NUMBER: u16 = u16::MAX;

const fn call(name: &'static str, x86_64: u16, aarch64: u16, i386: u16, refusal: Refusal) -> CallInfo {
    CallInfo { name, x86_64, aarch64, i386, refusal, downgrades: false }
}

const fn downgrading(name: &'static str, x86_64: u16, aarch64: u16, i386: u16, refusal: Refusal) -> CallInfo {
    CallInfo { name, x86_64, aarch64, i386, refusal, downgrades: true }
}

/// Any call that is not in the list, or no call at all (page fault, signal delivery).
pub const OTHER: Call = 0;
/// A task other than one of the address space's own changed it (khugepaged, ptrace, uprobes, a parent in fork).
pub const FOREIGN: Call = 1;
/// A call made through the 32-bit entry that is not in the list, or cannot be told (arm64).
pub const COMPAT: Call = 2;
/// mmap.
pub const MMAP: Call = 3;
/// munmap.
pub const MUNMAP: Call = 4;
/// mprotect.
pub const MPROTECT: Call = 5;
/// pkey_mprotect.
pub const PKEY_MPROTECT: Call = 6;
/// mremap.
pub const MREMAP: Call = 7;
/// brk.
pub const BRK: Call = 8;
/// madvise.
pub const MADVISE: Call = 9;
/// process_madvise.
pub const PROCESS_MADVISE: Call = 10;
/// mlock.
pub const MLOCK: Call = 11;
/// mlock2.
pub const MLOCK2: Call = 12;
/// mlockall.
pub const MLOCKALL: Call = 13;
/// munlock.
pub const MUNLOCK: Call = 14;
/// munlockall.
pub const MUNLOCKALL: Call = 15;
/// mbind.
pub const MBIND: Call = 16;
/// set_mempolicy_home_node.
pub const SET_MEMPOLICY_HOME_NODE: Call = 17;
/// mseal.
pub const MSEAL: Call = 18;
/// prctl (PR_SET_VMA names and splits mappings).
pub const PRCTL: Call = 19;
/// remap_file_pages.
pub const REMAP_FILE_PAGES: Call = 20;
/// shmat.
pub const SHMAT: Call = 21;
/// shmdt.
pub const SHMDT: Call = 22;
/// io_setup.
pub const IO_SETUP: Call = 23;
/// io_destroy.
pub const IO_DESTROY: Call = 24;
/// map_shadow_stack.
pub const MAP_SHADOW_STACK: Call = 25;
/// clone.
pub const CLONE: Call = 26;
/// clone3.
pub const CLONE3: Call = 27;
/// fork.
pub const FORK: Call = 28;
/// vfork.
pub const VFORK: Call = 29;
/// execve.
pub const EXECVE: Call = 30;
/// execveat.
pub const EXECVEAT: Call = 31;
/// ioctl (userfaultfd register and unregister split mappings).
pub const IOCTL: Call = 32;
/// io_uring_setup.
pub const IO_URING_SETUP: Call = 33;
/// io_uring_register.
pub const IO_URING_REGISTER: Call = 34;
/// arch_prctl (ARCH_MAP_VDSO_*, used by CRIU, adds special mappings).
pub const ARCH_PRCTL: Call = 35;
/// shmget.
pub const SHMGET: Call = 36;
/// shmctl (SHM_LOCK).
pub const SHMCTL: Call = 37;
/// msync.
pub const MSYNC: Call = 38;
/// mincore.
pub const MINCORE: Call = 39;
/// bpf.
pub const BPF: Call = 40;
/// userfaultfd.
pub const USERFAULTFD: Call = 41;

/// Every watched call; the index is its [`Call`] id.
///
/// Numbers: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h (arm64) and
/// arch/x86/entry/syscalls/syscall_32.tbl; all are ABI. The older mmap of 32-bit programs (90), which takes its arguments in
/// memory, and ipc (117) are not in the list.
pub const CALLS: [CallInfo; CALL_COUNT] = [
    call("[other]", NO_NUMBER, NO_NUMBER, NO_NUMBER, Refusal::Never),
    call("[foreign]", NO_NUMBER, NO_NUMBER, NO_NUMBER, Refusal::Never),
    downgrading("[32-bit]", NO_NUMBER, NO_NUMBER, NO_NUMBER, Refusal::Never),
    call("mmap", 9, 222, 192, Refusal::Mmap),
    downgrading("munmap", 11, 215, 91, Refusal::Enomem),
    call("mprotect", 10, 226, 125, Refusal::Enomem),
    call("pkey_mprotect", 329, 288, 380, Refusal::Enomem),
    downgrading("mremap", 25, 216, 163, Refusal::EnomemEagain),
    downgrading("brk", 12, 214, 45, Refusal::Brk),
    call("madvise", 28, 233, 219, Refusal::EnomemEagain),
    call("process_madvise", 440, 440, 440, Refusal::EnomemEagain),
    call("mlock", 149, 228, 150, Refusal::Lock),
    call("mlock2", 325, 284, 376, Refusal::Lock),
    call("mlockall", 151, 230, 152, Refusal::Lock),
    call("munlock", 150, 229, 151, Refusal::Enomem),
    call("munlockall", 152, 231, 153, Refusal::Enomem),
    call("mbind", 237, 235, 274, Refusal::Enomem),
    call("set_mempolicy_home_node", 450, 450, 450, Refusal::Enomem),
    call("mseal", 462, 462, 462, Refusal::Enomem),
    call("prctl", 157, 167, 172, Refusal::EnomemEagain),
    call("remap_file_pages", 216, 234, 257, Refusal::EnomemEagain),
    call("shmat", 30, 196, 397, Refusal::Enomem),
    call("shmdt", 67, 197, 398, Refusal::Enomem),
    call("io_setup", 206, 0, 245, Refusal::EnomemEagain),
    call("io_destroy", 207, 1, 246, Refusal::Enomem),
    call("map_shadow_stack", 453, 453, 453, Refusal::Enomem),
    call("clone", 56, 220, 120, Refusal::EnomemEagain),
    call("clone3", 435, 435, 435, Refusal::EnomemEagain),
    call("fork", 57, NO_NUMBER, 2, Refusal::EnomemEagain),
    call("vfork", 58, NO_NUMBER, 190, Refusal::EnomemEagain),
    call("execve", 59, 221, 11, Refusal::Enomem),
    call("execveat", 322, 281, 358, Refusal::Enomem),
    call("ioctl", 16, 29, 54, Refusal::Enomem),
    call("io_uring_setup", 425, 425, 425, Refusal::Enomem),
    call("io_uring_register", 427, 427, 427, Refusal::Enomem),
    call("arch_prctl", 158, NO_NUMBER, 384, Refusal::Enomem),
    call("shmget", 29, 194, 395, Refusal::EnomemEnospc),
    call("shmctl", 31, 195, 396, Refusal::Lock),
    call("msync", 26, 227, 144, Refusal::Enomem),
    call("mincore", 27, 232, 218, Refusal::Enomem),
    call("bpf", 321, 280, 357, Refusal::Enomem),
    call("userfaultfd", 323, 282, 374, Refusal::Enomem),
];

/// One bit for each call with [`CallInfo::downgrades`].
pub const DOWNGRADING: u64 = {
    let mut bits = 0;
    let mut id = 0;
    while id < CALL_COUNT {
        if CALLS[id].downgrades {
            bits |= 1 << id;
        }
        id += 1;
    }
    bits
};

/// One bit for each call that takes the lock of its own address space whenever it has not been refused for its arguments
/// alone (EINVAL, EBADF and the like).
pub const LOCKING: u64 =
    1 << MMAP | 1 << MUNMAP | 1 << MPROTECT | 1 << PKEY_MPROTECT | 1 << MREMAP | 1 << BRK;

/// First id of a real system call in [`CALLS`]; smaller ids are pseudo calls.
pub const FIRST_REAL: Call = MMAP;

/// How many system call numbers the table *number → id* covers; higher numbers are [`OTHER`].
pub const NUMBERS: usize = 512;

/// The table *number → id* for one architecture, `number` choosing the column; `others`: what all other numbers stand for.
pub fn by_number(number: fn(&CallInfo) -> u16, others: Call) -> [Call; NUMBERS] {
    let mut table = [others; NUMBERS];
    for (id, info) in CALLS.iter().enumerate() {
        if let Some(entry) = table.get_mut(usize::from(number(info))) {
            *entry = id as Call;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_point_at_their_own_rows() {
        for (id, name) in
            [(MMAP, "mmap"), (MUNMAP, "munmap"), (BRK, "brk"), (PRCTL, "prctl"), (CLONE, "clone")]
        {
            assert_eq!(CALLS[usize::from(id)].name, name);
        }
        assert_eq!(CALLS[usize::from(ARCH_PRCTL)].name, "arch_prctl");
        assert_eq!(CALLS[usize::from(USERFAULTFD)].name, "userfaultfd");
        assert_eq!(usize::from(USERFAULTFD) + 1, CALL_COUNT);
    }

    #[test]
    fn calls_that_downgrade_have_their_bit() {
        let downgrading = |call: Call| DOWNGRADING >> call & 1 == 1;
        assert!([MUNMAP, MREMAP, BRK, COMPAT].into_iter().all(downgrading));
        assert!(![OTHER, FOREIGN, MMAP, MPROTECT, ARCH_PRCTL].into_iter().any(downgrading));
        assert_eq!(DOWNGRADING.count_ones(), 4);
    }

    #[test]
    fn every_number_leads_back_to_its_call() {
        for number in [|c: &CallInfo| c.x86_64, |c: &CallInfo| c.aarch64, |c: &CallInfo| c.i386] {
            let table = by_number(number, OTHER);
            for (id, info) in CALLS.iter().enumerate() {
                if number(info) != NO_NUMBER {
                    assert_eq!(usize::from(table[usize::from(number(info))]), id, "{}", info.name);
                }
            }
        }
    }
}
