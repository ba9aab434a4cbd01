//! The checks that can answer so, call by call, in the order in which the kernel makes them.

use vmaudit_common::call;
use vmaudit_common::{
    CLASS_CHARGED, CLASS_COUNTS, CLASS_DONE, CLASS_GROWS, CLASS_HEAP_REACHED, CLASS_HUGE, CLASS_KEEPS,
    CLASS_MAYMOVE, CLASS_NO_HOLE, CLASS_OVER_AS, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK,
    CLASS_OVERCOMMIT_REFUSED, CLASS_SEARCHED, CLASS_TARGETED,
};

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};
use crate::model::session::MremapRule;

/// Adds every check that may have refused the call.
pub(super) fn all(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.has(CLASS_OVERCOMMIT_REFUSED) {
        // Seen, so everything before it had passed.
        checks.add(Reason::Overcommit, Finding::Met);
        return;
    }
    match facts.question.call {
        call::MMAP => mmap(facts, checks),
        call::MUNMAP => munmap(facts, checks),
        call::MPROTECT | call::PKEY_MPROTECT => mprotect(facts, checks),
        call::MREMAP => mremap(facts, checks),
        call::BRK => brk(facts, checks),
        call::MADVISE | call::PROCESS_MADVISE => madvise(facts, checks),
        call::PRCTL => prctl(facts, checks),
        call::MLOCK | call::MLOCK2 | call::MUNLOCK => mlock(facts, checks),
        // Its only ENOMEM (mm/mlock.c:mlockall); failures of single mappings are ignored.
        call::MLOCKALL => checks.add(Reason::Memlock, Finding::Met),
        call::MBIND | call::SET_MEMPOLICY_HOME_NODE => mbind(facts, checks),
        call::MSEAL => {
            // The whole range is checked before anything is done (mm/mseal.c:do_mseal).
            checks.add(Reason::Gap, facts.gap(&[]));
            checks.add(Reason::MapCount, facts.split_refused());
            checks.add(Reason::KernelMemory, Finding::Unlikely);
        }
        call::REMAP_FILE_PAGES => remap_file_pages(facts, checks),
        call::SHMAT | call::IO_SETUP | call::MAP_SHADOW_STACK => inner_mmap(facts, checks),
        call::ARCH_PRCTL => arch_prctl(facts, checks),
        call::CLONE | call::CLONE3 | call::FORK | call::VFORK => fork(facts, checks),
        call::EXECVE | call::EXECVEAT => exec(facts, checks),
        call::IOCTL => ioctl(facts, checks),
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

fn mmap(facts: &Facts<'_>, checks: &mut Checks) {
    let anonymous = facts.arg_has(3, MAP_ANONYMOUS);
    // Pages are reserved last, by the file's own mmap, and not at all with MAP_NORESERVE (fs/hugetlbfs/inode.c:
    // hugetlbfs_file_mmap; on 6.18 a refusal at RLIMIT_MEMLOCK was seen to come first).
    let huge = facts.has(CLASS_HUGE) && facts.arg_has(3, MAP_NORESERVE) == Some(false);
    if facts.question.errno == EAGAIN {
        let over = !facts.counters() || facts.has(CLASS_OVER_MEMLOCK);
        checks.add(
            Reason::Memlock,
            match (over, anonymous) {
                (false, _) => Finding::No,
                (true, Some(true)) => Finding::Met,
                (true, _) => Finding::Likely,
            },
        );
        checks.add(Reason::Driver, if anonymous == Some(true) { Finding::No } else { Finding::Unlikely });
        return;
    }
    let task_size = facts.kernel().task_size;
    // Only the rounding of the length to pages comes before the first look at the count (mm/mmap.c:do_mmap).
    let overflows = facts.asked().is_some_and(|length| length > u64::MAX - facts.kernel().page_size + 1);
    checks.add(Reason::NoHole, if overflows { Finding::Met } else { Finding::No });
    checks.add(Reason::MapCount, facts.count_check(1));
    let too_long = facts.asked().is_some_and(|length| length > task_size)
        && facts.arg(0).is_some_and(|hint| hint < task_size);
    checks.add(
        Reason::NoHole,
        match (too_long, facts.fixed()) {
            (true, _) => Finding::Met,
            // Only the arguments of one call are known.
            (false, true) if facts.beyond_the_end() == Some(true) => match facts.question.count {
                0 | 1 => Finding::Met,
                _ => Finding::Likely,
            },
            (false, true) => match (facts.arg(0), facts.asked()) {
                (Some(address), Some(length)) if address <= task_size - length.min(task_size) => Finding::No,
                _ => Finding::Possible,
            },
            (false, false) if facts.arg_has(3, MAP_32BIT) == Some(true) && !facts.kernel().searches_seen => {
                Finding::Possible
            }
            (false, false) => facts.search(),
        },
    );
    // A fixed range strictly inside one mapping splits it; from 6.12 on before the limits of the process are looked at,
    // earlier after that, but then nothing would be added to what counts for them.
    let splits = match (facts.started_at_least(0), facts.strictly_inside()) {
        (Some(true), Some(true)) if facts.fixed() => Finding::Met,
        (Some(true), None) if facts.fixed() && !facts.looked() => Finding::Likely,
        _ => Finding::No,
    };
    checks.add(Reason::MapCount, splits);
    checks.add(Reason::AddressSpace, facts.address_space());
    checks.add(Reason::Data, facts.data(Some(facts.has(CLASS_COUNTS))));
    checks.add(Reason::Overcommit, facts.overcommit(facts.mmap_charged()));
    if huge {
        checks.add(Reason::Hugetlb, Finding::Met);
    }
    if splits == Finding::Likely && anonymous == Some(true) {
        // Convention (2): only the split is known to fail.
        return;
    }
    checks.add(Reason::Driver, if anonymous == Some(true) { Finding::No } else { Finding::Unlikely });
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// mm/vma.c:vms_gather_munmap_vmas: the count is looked at only for a range strictly inside one mapping, and before
/// any allocation but on 6.1 (mm/mmap.c:do_mas_align_munmap: mas_preallocate comes first); a range that is not inside
/// never gets ENOMEM but from an allocation.
fn munmap(facts: &Facts<'_>, checks: &mut Checks) {
    let limit = match facts.count_check(0) {
        Finding::Met => met_if_inside(checks),
        other => other,
    };
    checks.add(Reason::MapCount, limit);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// At the limit a range strictly inside one mapping is refused. Nobody looked whether this one was inside, so a memory
/// cgroup that is known to have run out may have refused it as well.
fn met_if_inside(checks: &Checks) -> Finding {
    if checks.short_of_memory { Finding::Likely } else { Finding::Met }
}

fn mprotect(facts: &Facts<'_>, checks: &mut Checks) {
    let writes = facts.arg_has(2, PROT_WRITE).filter(|writes| !writes);
    // The test is "fails now and did not before", so only memory that becomes writable is looked at, and not where the
    // address space alone is over its limit.
    let counts = match facts.of_the_one(CLASS_COUNTS) {
        Some(_) if facts.has(CLASS_OVER_AS) => Some(false),
        counts => counts.or(writes),
    };
    let data = facts.data(counts);
    let overcommit = facts.overcommit(facts.of_the_one(CLASS_CHARGED).or(writes));
    let split = facts.split_refused();
    checks.add(Reason::Gap, facts.gap(&[data, overcommit, split]));
    checks.add(Reason::Data, data);
    checks.add(Reason::Overcommit, overcommit);
    checks.add(Reason::MapCount, split);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

fn mremap(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        checks.add(Reason::Memlock, Finding::Met);
        return;
    }
    let targeted = facts.has(CLASS_TARGETED);
    let keeps = facts.has(CLASS_KEEPS);
    let old = match facts.kernel().mremap {
        // Checked first, for every call (mm/mremap.c:check_map_count_against_split_early).
        Some(MremapRule::Split71) => {
            checks.add(Reason::MapCount, facts.count_check(-3));
            false
        }
        Some(MremapRule::Split72) => {
            let with_copy = match facts.started_at_least(-4) {
                Some(true) if keeps => Finding::Met,
                _ => Finding::No,
            };
            checks.add(Reason::MapCount, facts.count_check(-3).max(with_copy));
            false
        }
        Some(MremapRule::Old) | None => true,
    };
    let grows = facts.has(CLASS_GROWS);
    if old {
        mremap_old(facts, targeted, grows, checks);
    }
    if grows {
        checks.add(Reason::AddressSpace, facts.address_space());
        checks.add(Reason::Data, facts.data(facts.of_the_one(CLASS_COUNTS)));
        if !facts.has(CLASS_MAYMOVE) {
            // What follows is mapped (mm/mremap.c:vma_expandable).
            let blocked = facts.looked() && facts.has(CLASS_DONE);
            checks.add(Reason::NoRoomInPlace, if blocked { Finding::Met } else { Finding::Likely });
        } else if !targeted {
            checks.add(Reason::NoHole, facts.search());
        }
        if old && facts.has(CLASS_MAYMOVE) {
            checks.add(Reason::MapCount, mremap_old_move(facts));
        }
        checks.add(Reason::Overcommit, facts.overcommit(facts.of_the_one(CLASS_CHARGED)));
    } else if targeted {
        checks.add(Reason::AddressSpace, if keeps { facts.address_space() } else { Finding::No });
        checks.add(Reason::NoHole, if keeps { facts.search() } else { Finding::No });
        if old {
            checks.add(Reason::MapCount, mremap_old_move(facts));
        }
    }
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// What kernels up to 7.0 look at first.
fn mremap_old(facts: &Facts<'_>, targeted: bool, grows: bool, checks: &mut Checks) {
    let known = facts.kernel().mremap == Some(MremapRule::Old);
    let finding = match (facts.at, targeted) {
        // Without the lock nothing else in mremap says ENOMEM (mm/mremap.c:check_mremap_params).
        (None, true) if !facts.section_lost() && facts.kernel().mremap_checks_unlocked == Some(true) => {
            Finding::Met
        }
        // A kernel that may be newer asks for four free ones in every call.
        (Some(_), _) if !known && facts.started_at_least(-3) == Some(true) => {
            if !grows && facts.started_at_least(0) == Some(true) {
                met_if_inside(checks)
            } else {
                Finding::Likely
            }
        }
        // A tail that is cut off may split, as munmap does; with a target, two more conditions hold as well.
        (Some(_), _) if !grows && facts.started_at_least(0) == Some(true) => met_if_inside(checks),
        (Some(_), true) if facts.started_at_least(-5) == Some(true) => {
            // The first check, under the lock, up to 6.14 (mm/mremap.c:mremap_to).
            if known && facts.kernel().mremap_checks_unlocked == Some(false) {
                Finding::Met
            } else {
                Finding::Likely
            }
        }
        (None, _) => Finding::Possible,
        _ => Finding::No,
    };
    checks.add(Reason::MapCount, finding);
}

/// mm/mremap.c:move_vma up to 7.0 wants four free; a successful search before it proves that everything earlier passed.
fn mremap_old_move(facts: &Facts<'_>) -> Finding {
    if facts.started_at_least(-3) != Some(true) {
        return Finding::No;
    }
    let reached = facts.kernel().searches_seen && facts.has(CLASS_SEARCHED) && !facts.has(CLASS_NO_HOLE);
    // A newer kernel would have refused before it searched.
    if reached { Finding::Met } else { Finding::Likely }
}

fn brk(facts: &Facts<'_>, checks: &mut Checks) {
    let example = facts.question.example;
    if example.is_some_and(|example| example.start_brk > 0 && example.args[0] < example.start_brk) {
        checks.add(Reason::BreakQuery, Finding::Met);
        return;
    }
    if !facts.has(CLASS_GROWS) {
        checks.add(Reason::InTheWay, Finding::Possible);
        checks.add(
            Reason::MapCount,
            match facts.count_check(0) {
                Finding::Met => Finding::Likely,
                other => other,
            },
        );
        checks.add(Reason::KernelMemory, Finding::Unlikely);
        return;
    }
    // Seen to have come as far as making the heap larger (mm/vma.c:do_brk_flags): all that comes before had passed.
    let reached = facts.has(CLASS_HEAP_REACHED);
    // The heap alone, first thing (mm/mmap.c:check_data_rlimit); its second figure is at least this.
    let heap = example.map(|example| example.args[0].saturating_sub(example.start_brk));
    checks.add(
        Reason::Data,
        match (heap, facts.rlimit(Rlimit::Data)) {
            (_, Some(u64::MAX)) => Finding::No,
            _ if reached => Finding::No,
            (Some(heap), Some(limit)) if heap > limit => Finding::Met,
            // data_vm holds the heap and the image's data.
            _ if facts.counters() && !facts.has(CLASS_OVER_DATA) => Finding::No,
            _ => Finding::Possible,
        },
    );
    // What lies above the heap is not captured.
    checks.add(Reason::InTheWay, if reached { Finding::No } else { Finding::Possible });
    checks.add(
        Reason::Memlock,
        match (facts.rlimit(Rlimit::Memlock), facts.counters()) {
            (Some(u64::MAX), _) => Finding::No,
            _ if reached && facts.kernel().brk_memlock_first == Some(true) => Finding::No,
            (_, true) if !facts.has(CLASS_OVER_MEMLOCK) => Finding::No,
            // Applies only after mlockall(MCL_FUTURE), which almost nobody calls.
            (_, true) if facts.section().is_some_and(|section| section.locked_vm == 0) => Finding::No,
            (_, true) => Finding::Possible,
            (_, false) => Finding::No,
        },
    );
    checks.add(Reason::AddressSpace, facts.address_space());
    checks.add(Reason::Data, facts.data(Some(true)));
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(Reason::Overcommit, facts.overcommit(Some(true)));
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// What a madvise advice can run into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Changes flags, so it may split mappings.
    Flags,
    /// Needs memory or page tables: POPULATE, GUARD_INSTALL.
    Memory,
    /// MADV_COLLAPSE.
    Collapse,
    /// Only looks at what is mapped.
    Plain,
    /// No example tells.
    Unknown,
}

pub(super) fn advice(facts: &Facts<'_>) -> Advice {
    let index = if facts.question.call == call::PROCESS_MADVISE { 3 } else { 2 };
    match facts.arg(index) {
        None => Advice::Unknown,
        Some(0..=2 | 10..=19) => Advice::Flags,
        Some(22 | 23 | 102) => Advice::Memory,
        Some(25) => Advice::Collapse,
        Some(_) => Advice::Plain,
    }
}

fn madvise(facts: &Facts<'_>, checks: &mut Checks) {
    let advice = advice(facts);
    let new = facts.kernel().madvise_eagain;
    if facts.question.errno == EAGAIN {
        if advice == Advice::Collapse {
            checks.add(Reason::Busy, Finding::Met);
            return;
        }
        at_the_limit_eagain(facts, checks);
        return;
    }
    let splits = matches!(advice, Advice::Flags | Advice::Unknown) && new != Some(true);
    let split_refused = if splits { facts.split_refused() } else { Finding::No };
    // The gap is reported at the end, after the advice has been applied to everything that is mapped.
    let usual = !matches!(advice, Advice::Flags | Advice::Plain) && split_refused == Finding::No;
    let gap = facts.gap(&[split_refused]);
    checks.add(Reason::Gap, if usual { gap.max(facts.gap_if_unseen()) } else { gap });
    checks.add(Reason::MapCount, split_refused);
    if !matches!(advice, Advice::Flags | Advice::Plain) || gap == Finding::No {
        checks.add(Reason::KernelMemory, Finding::Unlikely);
    }
}

/// madvise and PR_SET_VMA: since 5.17 every refused split says EAGAIN; before, EAGAIN meant a failed allocation only.
fn at_the_limit_eagain(facts: &Facts<'_>, checks: &mut Checks) {
    let limit = match (facts.kernel().madvise_eagain, facts.ended_at_least(0)) {
        (Some(false), _) | (_, Some(false)) => Finding::No,
        (Some(true), Some(true)) => Finding::Met,
        (None, Some(true)) => Finding::Likely,
        (_, None) => Finding::Possible,
    };
    checks.add(Reason::MapCount, limit);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

fn prctl(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.arg(0).is_some_and(|option| option != PR_SET_VMA) {
        return;
    }
    if facts.question.errno == EAGAIN {
        at_the_limit_eagain(facts, checks);
    } else {
        checks.add(Reason::Gap, facts.gap(&[]).max(facts.gap_if_unseen()));
        checks.add(Reason::KernelMemory, Finding::Unlikely);
    }
}

/// mm/mlock.c:do_mlock; munlock has no limit of its own.
fn mlock(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        // Everything was locked, and filling it with memory failed (mm/mlock.c:__mlock_posix_error_return).
        checks.add(Reason::KernelMemory, Finding::Met);
        return;
    }
    if facts.question.call != call::MUNLOCK {
        // Nothing was locked before, so no part of the range was counted twice.
        let exact = facts.kernel().memlock_bit_knows_capability
            && facts.section().is_some_and(|section| section.locked_vm == 0);
        checks.add(
            Reason::Memlock,
            match (facts.rlimit(Rlimit::Memlock), facts.counters()) {
                (Some(u64::MAX), _) => Finding::No,
                (_, true) if !facts.has(CLASS_OVER_MEMLOCK) => Finding::No,
                (_, true) if exact => Finding::Met,
                (_, true) => Finding::Likely,
                (_, false) => Finding::Possible,
            },
        );
    }
    let split = facts.split_refused();
    checks.add(Reason::Gap, facts.gap(&[split]));
    // All is marked as locked: then filling it with memory met a part without access (mm/mlock.c:do_mlock).
    let marked = facts.question.call != call::MUNLOCK && facts.whole() && facts.has(CLASS_DONE);
    checks.add(Reason::NoAccess, if marked { Finding::Met } else { Finding::No });
    checks.add(Reason::MapCount, split);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// A gap says EFAULT here, so only the split and allocations say ENOMEM.
fn mbind(facts: &Facts<'_>, checks: &mut Checks) {
    let split = match facts.split_refused() {
        Finding::Likely => Finding::Met,
        other => other,
    };
    checks.add(Reason::MapCount, split);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// mm/mmap.c:remap_file_pages maps anew with MAP_FIXED inside one mapping.
fn remap_file_pages(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        checks.add(Reason::Memlock, Finding::Met);
        return;
    }
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(
        Reason::MapCount,
        match (facts.started_at_least(0), facts.strictly_inside()) {
            (Some(true), Some(true)) => Finding::Met,
            (Some(true), None) if !facts.looked() => Finding::Likely,
            (Some(_), _) => Finding::No,
            (None, _) => Finding::Possible,
        },
    );
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// Calls that map something whose size the arguments do not show. io_setup hides the real errno (fs/aio.c:ioctx_alloc).
fn inner_mmap(facts: &Facts<'_>, checks: &mut Checks) {
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(Reason::NoHole, facts.search());
    let finite = |which| match facts.rlimit(which) {
        Some(u64::MAX) => Finding::No,
        _ => Finding::Possible,
    };
    checks.add(Reason::AddressSpace, finite(Rlimit::As));
    if facts.question.call == call::MAP_SHADOW_STACK {
        checks.add(Reason::Overcommit, facts.overcommit(None));
    }
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// ARCH_MAP_VDSO_* looks at no count (mm/vma.c:_install_special_mapping); enabling a shadow stack maps as mmap does.
fn arch_prctl(facts: &Facts<'_>, checks: &mut Checks) {
    checks.add(
        Reason::MapCount,
        match facts.count_check(1) {
            Finding::Met => Finding::Likely,
            other => other,
        },
    );
    checks.add(Reason::NoHole, facts.search());
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// kernel/fork.c: the VMA limit plays no part; a child may even start above it.
fn fork(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        checks.add(Reason::Tasks, Finding::Met);
        return;
    }
    let shares = match facts.question.call {
        call::VFORK => Some(true),
        call::CLONE => facts.arg_has(0, CLONE_VM),
        call::FORK => Some(false),
        _ => None,
    };
    let mode = facts.question.limits.overcommit_memory;
    // Copying begins with the write lock of the parent's address space (kernel/fork.c, mm/mmap.c:dup_mmap).
    let not_copied = facts.kernel().sections_seen && facts.at.is_none() && !facts.section_lost();
    // Each charged mapping is a request of its own; in mode 0 one alone must exceed RAM and swap.
    let impossible = mode == Some(0)
        && facts.counters()
        && match (facts.section(), facts.kernel().ram_and_swap_pages) {
            (Some(section), Some(most)) => section.total_vm <= most,
            _ => false,
        };
    checks.add(
        Reason::Overcommit,
        match mode {
            _ if shares == Some(true) || impossible || not_copied => Finding::No,
            Some(1) => Finding::No,
            Some(2) => Finding::Likely,
            _ => Finding::Possible,
        },
    );
    checks.add(Reason::KernelMemory, Finding::Unlikely);
    checks.add(Reason::DeadNamespace, Finding::Unlikely);
}

/// The new image's own limits; the VMA limit is not looked at while it is set up by the kernel alone.
fn exec(facts: &Facts<'_>, checks: &mut Checks) {
    let finite = |which| match facts.rlimit(which) {
        Some(u64::MAX) => Finding::No,
        Some(_) => Finding::Likely,
        None => Finding::Possible,
    };
    checks.add(Reason::AddressSpace, finite(Rlimit::As));
    checks.add(
        Reason::Data,
        if facts.kernel().ignore_rlimit_data { Finding::No } else { finite(Rlimit::Data) },
    );
    // The usual 8 MiB hold every image's first stack.
    checks.add(
        Reason::Stack,
        match facts.rlimit(Rlimit::Stack) {
            Some(limit) if limit >= 1 << 20 => Finding::No,
            Some(_) => Finding::Likely,
            None => Finding::Possible,
        },
    );
    checks.add(
        Reason::Overcommit,
        if facts.question.limits.overcommit_memory == Some(2) { Finding::Possible } else { Finding::No },
    );
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// Only userfaultfd's calls split mappings; other drivers have reasons of their own.
fn ioctl(facts: &Facts<'_>, checks: &mut Checks) {
    match facts.arg(1) {
        // UFFDIO_REGISTER and UFFDIO_UNREGISTER by type and number (include/uapi/linux/userfaultfd.h).
        // As with mbind, only the split and allocations say ENOMEM.
        Some(command) if command & 0xffff == 0xaa00 || command & 0xffff == 0xaa01 => mbind(facts, checks),
        Some(_) => checks.add(Reason::Driver, Finding::Met),
        None => {
            checks.add(Reason::MapCount, facts.split_refused());
            checks.add(Reason::Driver, Finding::Unlikely);
            checks.add(Reason::KernelMemory, Finding::Unlikely);
        }
    }
}
