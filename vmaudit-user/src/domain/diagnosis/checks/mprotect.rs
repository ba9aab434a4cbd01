//! mprotect, mbind and prctl, which split mappings.

use vmaudit_common::{CLASS_CHARGED, CLASS_COUNTS, CLASS_FIRST, CLASS_OVER_AS, CLASS_TOO_LONG};

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

pub(crate) fn mprotect(facts: &Facts<'_>, checks: &mut Checks) {
    // Before the lock is taken (mm/mprotect.c:do_mprotect_pkey).
    if facts.has(CLASS_TOO_LONG) {
        checks.add(Reason::Wraps, Finding::Met);
        return;
    }
    let writes = facts.asks(CLASS_FIRST).filter(|writes| !writes);
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

/// A gap says EFAULT here, so only the split and allocations say ENOMEM.
pub(crate) fn mbind(facts: &Facts<'_>, checks: &mut Checks) {
    let split = match facts.split_refused() {
        Finding::Likely => Finding::Met,
        other => other,
    };
    checks.add(Reason::MapCount, split);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

pub(crate) fn prctl(facts: &Facts<'_>, checks: &mut Checks) {
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

/// madvise and PR_SET_VMA: since 5.17 every refused split says EAGAIN; before, EAGAIN meant a failed allocation only.
pub(crate) fn at_the_limit_eagain(facts: &Facts<'_>, checks: &mut Checks) {
    let limit = match (facts.kernel().madvise_eagain, facts.ended_at_least(0)) {
        (Some(false), _) | (_, Some(false)) => Finding::No,
        (Some(true), Some(true)) => Finding::Met,
        (None, Some(true)) => Finding::Likely,
        (_, None) => Finding::Possible,
    };
    checks.add(Reason::MapCount, limit);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}
