//! mremap.

use vmaudit_common::{
    CLASS_CHARGED, CLASS_COUNTS, CLASS_DONE, CLASS_GROWS, CLASS_KEEPS, CLASS_MAYMOVE, CLASS_NO_HOLE,
    CLASS_SEARCHED, CLASS_TARGETED,
};

use crate::domain::diagnosis::checks::met_if_inside;
use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};
use crate::model::session::MremapRule;

pub(crate) fn mremap(facts: &Facts<'_>, checks: &mut Checks) {
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
pub(crate) fn mremap_old(facts: &Facts<'_>, targeted: bool, grows: bool, checks: &mut Checks) {
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
pub(crate) fn mremap_old_move(facts: &Facts<'_>) -> Finding {
    if facts.started_at_least(-3) != Some(true) {
        return Finding::No;
    }
    let reached = facts.kernel().searches_seen && facts.has(CLASS_SEARCHED) && !facts.has(CLASS_NO_HOLE);
    // A newer kernel would have refused before it searched.
    if reached { Finding::Met } else { Finding::Likely }
}
