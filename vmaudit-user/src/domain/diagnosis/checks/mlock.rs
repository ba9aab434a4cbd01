//! mlock and its like.

use vmaudit_common::call;
use vmaudit_common::{CLASS_CLOSED, CLASS_DONE, CLASS_OF_FILES, CLASS_OVER_MEMLOCK, CLASS_PAST_FILE};

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
    // All is marked as locked: then filling it with memory met a part that has none to give (mm/mlock.c:do_mlock,
    // __mlock_posix_error_return). A page that its file cannot give is an error of the file's.
    let marked = facts.question.call != call::MUNLOCK && facts.whole() && facts.has(CLASS_DONE);
    if marked {
        let found = [(Reason::NoAccess, CLASS_CLOSED), (Reason::FileEnd, CLASS_PAST_FILE)];
        let both = found.iter().all(|(_, bit)| facts.has(*bit));
        for (reason, bit) in found {
            let met = if both { Finding::Likely } else { Finding::Met };
            checks.add(reason, if facts.has(bit) { met } else { Finding::No });
        }
        if found.iter().all(|(_, bit)| !facts.has(*bit)) {
            // Pages that guard a stack are within mappings (mm/madvise.c:madvise_guard_install).
            let other = if facts.has(CLASS_OF_FILES) { Reason::Driver } else { Reason::NoAccess };
            checks.add(other, Finding::Likely);
        }
        if both {
            return;
        }
    }
    checks.add(Reason::MapCount, split);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}
