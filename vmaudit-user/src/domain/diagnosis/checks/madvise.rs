//! madvise and process_madvise.

use vmaudit_common::{CLASS_FIRST, CLASS_SECOND};

use crate::domain::diagnosis::checks::mprotect;
use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

/// What a madvise advice can run into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
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

pub(crate) fn advice(facts: &Facts<'_>) -> Advice {
    match (facts.asks(CLASS_FIRST), facts.asks(CLASS_SECOND)) {
        (Some(true), Some(true)) => Advice::Collapse,
        (Some(true), _) => Advice::Memory,
        (_, Some(true)) => Advice::Plain,
        (Some(false), Some(false)) => Advice::Flags,
        _ => Advice::Unknown,
    }
}

pub(crate) fn madvise(facts: &Facts<'_>, checks: &mut Checks) {
    let advice = advice(facts);
    let new = facts.kernel().madvise_eagain;
    if facts.question.errno == EAGAIN {
        if advice == Advice::Collapse {
            checks.add(Reason::Busy, Finding::Met);
            return;
        }
        mprotect::at_the_limit_eagain(facts, checks);
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
