//! mlock and its like.

use vmaudit_common::call;
use vmaudit_common::{CLASS_DONE, CLASS_OVER_MEMLOCK};

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

/// mm/mlock.c:do_mlock; munlock has no limit of its own.
pub(crate) fn mlock(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EPERM {
        // Nothing at all may be locked (mm/mlock.c:can_do_mlock).
        checks.add(Reason::Memlock, Finding::Met);
        return;
    }
    if facts.question.errno == EAGAIN {
        // Everything was locked, and filling it with memory failed (mm/mlock.c:__mlock_posix_error_return).
        checks.add(Reason::KernelMemory, Finding::Met);
        return;
    }
    if facts.question.call != call::MUNLOCK {
        // Nothing was locked before, so no part of the range was counted twice.
        let exact = facts.kernel().memlock_bit_knows_capability && facts.none_locked() == Some(true);
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
