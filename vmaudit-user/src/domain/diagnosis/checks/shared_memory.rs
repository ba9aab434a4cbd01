//! System V shared memory.

use vmaudit_common::{CLASS_CHARGED, CLASS_HUGE, CLASS_NORESERVE};

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

/// ipc/shm.c:newseg: the limits first (ENOSPC), then the file of the segment, which is charged or made of huge pages.
pub(crate) fn shmget(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == ENOSPC {
        checks.add(Reason::Segments, Finding::Met);
        return;
    }
    if facts.has(CLASS_HUGE) {
        let reserves = facts.asks(CLASS_NORESERVE) == Some(false);
        checks.add(Reason::Hugetlb, if reserves { Finding::Met } else { Finding::Possible });
    } else {
        checks.add(Reason::Overcommit, facts.overcommit(Some(facts.has(CLASS_CHARGED))));
    }
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}
