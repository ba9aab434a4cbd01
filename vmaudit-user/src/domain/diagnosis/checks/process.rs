//! Calls that make processes, images and userfaultfd ranges.

use vmaudit_common::{CLASS_FIRST, CLASS_INIT_LOOKED, CLASS_NO_INIT, CLASS_OVER_RAM, CLASS_SECOND, call};

use crate::domain::diagnosis::checks::mprotect;
use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason, tasks};

/// kernel/fork.c: the VMA limit plays no part; a child may even start above it.
pub(crate) fn fork(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        tasks::judge(facts, checks);
        return;
    }
    let shares = match facts.question.call {
        call::VFORK => Some(true),
        call::CLONE => facts.asks(CLASS_FIRST),
        call::FORK => Some(false),
        _ => None,
    };
    let mode = facts.question.limits.overcommit_memory;
    // Copying begins with the write lock of the parent's address space (kernel/fork.c, mm/mmap.c:dup_mmap).
    let not_copied = facts.kernel().sections_seen && facts.at.is_none() && !facts.section_lost();
    // Each charged mapping is a request of its own; in mode 0 one alone must exceed RAM and swap.
    let impossible = mode == Some(0)
        && facts.counters()
        && facts.kernel().ram_and_swap_pages.and(facts.asks(CLASS_OVER_RAM)) == Some(false);
    checks.add(
        Reason::Overcommit,
        match mode {
            _ if shares == Some(true) || impossible || not_copied => Finding::No,
            Some(1) => Finding::No,
            Some(2) => Finding::Likely,
            _ => Finding::Possible,
        },
    );
    // kernel/pid.c:alloc_pid; a call that makes a namespace of its own does not need the old one.
    let own_namespace = facts.question.call == call::CLONE && facts.asks(CLASS_SECOND) == Some(true);
    let ended = match (facts.has(CLASS_INIT_LOOKED), facts.has(CLASS_NO_INIT)) {
        (_, true) if !own_namespace => Finding::Met,
        (true, _) => Finding::No,
        (false, _) => Finding::Unlikely,
    };
    if ended != Finding::Met {
        checks.add(Reason::KernelMemory, Finding::Unlikely);
    }
    checks.add(Reason::DeadNamespace, ended);
}

/// The new image's own limits; the VMA limit is not looked at while it is set up by the kernel alone.
pub(crate) fn exec(facts: &Facts<'_>, checks: &mut Checks) {
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
pub(crate) fn ioctl(facts: &Facts<'_>, checks: &mut Checks) {
    match facts.arg(1) {
        // UFFDIO_REGISTER and UFFDIO_UNREGISTER by type and number (include/uapi/linux/userfaultfd.h).
        // As with mbind, only the split and allocations say ENOMEM.
        Some(command) if command & 0xffff == 0xaa00 || command & 0xffff == 0xaa01 => {
            mprotect::mbind(facts, checks)
        }
        Some(_) => {
            // A driver may map something itself, which the VMA limit can refuse.
            let limit =
                if facts.started_at_least(0) == Some(false) { Finding::No } else { Finding::Possible };
            checks.add(Reason::Driver, Finding::Likely);
            checks.add(Reason::MapCount, limit);
            checks.add(Reason::KernelMemory, Finding::Unlikely);
        }
        None => {
            checks.add(Reason::MapCount, facts.split_refused());
            checks.add(Reason::Driver, Finding::Unlikely);
            checks.add(Reason::KernelMemory, Finding::Unlikely);
        }
    }
}
