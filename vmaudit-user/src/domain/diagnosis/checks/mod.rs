//! The checks that can answer so, call by call, in the order in which the kernel makes them.

mod brk;
pub(super) mod madvise;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod process;
mod shared_memory;

use vmaudit_common::CLASS_OVERCOMMIT_REFUSED;
use vmaudit_common::call;

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

/// Adds every check that may have refused the call.
pub(super) fn all(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.has(CLASS_OVERCOMMIT_REFUSED) {
        // Seen, so everything before it had passed.
        checks.add(Reason::Overcommit, Finding::Met);
        return;
    }
    match facts.question.call {
        call::MMAP => mmap::mmap(facts, checks),
        call::MUNMAP => mmap::munmap(facts, checks),
        call::MPROTECT | call::PKEY_MPROTECT => mprotect::mprotect(facts, checks),
        call::MREMAP => mremap::mremap(facts, checks),
        call::BRK => brk::brk(facts, checks),
        call::MADVISE | call::PROCESS_MADVISE => madvise::madvise(facts, checks),
        call::PRCTL => mprotect::prctl(facts, checks),
        call::MLOCK | call::MLOCK2 | call::MUNLOCK => mlock::mlock(facts, checks),
        // Its only ENOMEM (mm/mlock.c:mlockall); failures of single mappings are ignored.
        call::MLOCKALL | call::SHMCTL => checks.add(Reason::Memlock, Finding::Met),
        call::SHMGET => shared_memory::shmget(facts, checks),
        // Only ranges that are not mapped have it (mm/msync.c, mm/mincore.c).
        call::MSYNC | call::MINCORE => checks.add(Reason::Gap, Finding::Met),
        call::MBIND | call::SET_MEMPOLICY_HOME_NODE => mprotect::mbind(facts, checks),
        call::MSEAL => {
            // The whole range is checked before anything is done (mm/mseal.c:do_mseal).
            checks.add(Reason::Gap, facts.gap(&[]));
            checks.add(Reason::MapCount, facts.split_refused());
            checks.add(Reason::KernelMemory, Finding::Unlikely);
        }
        call::REMAP_FILE_PAGES => mmap::remap_file_pages(facts, checks),
        call::SHMAT | call::IO_SETUP | call::MAP_SHADOW_STACK => mmap::inner_mmap(facts, checks),
        call::ARCH_PRCTL => mmap::arch_prctl(facts, checks),
        call::CLONE | call::CLONE3 | call::FORK | call::VFORK => process::fork(facts, checks),
        call::EXECVE | call::EXECVEAT => process::exec(facts, checks),
        call::IOCTL => process::ioctl(facts, checks),
        call::IO_URING_SETUP | call::IO_URING_REGISTER => {
            // Counted per user, not per process (io_uring/rsrc.c:__io_account_mem), so it cannot be computed here.
            checks.add(
                Reason::Memlock,
                if facts.rlimit(Rlimit::Memlock) == Some(u64::MAX) { Finding::No } else { Finding::Likely },
            );
            checks.add(Reason::KernelMemory, Finding::Unlikely);
        }
        _ => {}
    }
}

/// At the limit a range strictly inside one mapping is refused. Nobody looked whether this one was inside, so a memory
/// cgroup that is known to have run out may have refused it as well.
pub(crate) fn met_if_inside(checks: &Checks) -> Finding {
    if checks.short_of_memory { Finding::Likely } else { Finding::Met }
}
