//! brk.

use vmaudit_common::{
    CLASS_FIRST, CLASS_GROWS, CLASS_HEAP_REACHED, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK, CLASS_SECOND,
};

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

pub(crate) fn brk(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.has(CLASS_FIRST) {
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
    checks.add(
        Reason::Data,
        match facts.asks(CLASS_SECOND) {
            _ if reached => Finding::No,
            Some(true) => Finding::Met,
            _ if facts.rlimit(Rlimit::Data) == Some(u64::MAX) => Finding::No,
            // data_vm holds the heap and the image's data.
            _ if facts.counters() && !facts.has(CLASS_OVER_DATA) => Finding::No,
            _ => Finding::Possible,
        },
    );
    // What lies above the heap is not captured.
    let in_the_way = if reached { Finding::No } else { Finding::Possible };
    let memlock = match (facts.rlimit(Rlimit::Memlock), facts.counters()) {
        (Some(u64::MAX), _) => Finding::No,
        _ if reached && facts.kernel().brk_memlock_first == Some(true) => Finding::No,
        (_, true) if !facts.has(CLASS_OVER_MEMLOCK) => Finding::No,
        // Applies only after mlockall(MCL_FUTURE), which almost nobody calls.
        (_, true) => match facts.locks() {
            // All that is locked counts here, so that the figures decide.
            Some(true) if facts.kernel().memlock_bit_knows_capability => Finding::Met,
            Some(true) => Finding::Likely,
            Some(false) => Finding::No,
            None if facts.none_locked() == Some(true) => Finding::No,
            None => Finding::Possible,
        },
        (_, false) => Finding::No,
    };
    if facts.kernel().brk_memlock_first == Some(true) {
        // mm/mmap.c:check_brk_limits: only addresses beyond the last come before.
        let beyond = match facts.beyond_the_end() {
            Some(true) if !reached => Finding::Met,
            None if !reached => Finding::Possible,
            _ => Finding::No,
        };
        checks.add(Reason::InTheWay, beyond);
        checks.add(Reason::Memlock, memlock);
        checks.add(Reason::InTheWay, in_the_way);
    } else {
        checks.add(Reason::InTheWay, in_the_way);
        checks.add(Reason::Memlock, memlock);
    }
    checks.add(Reason::AddressSpace, facts.address_space());
    checks.add(Reason::Data, facts.data(Some(true)));
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(Reason::Overcommit, facts.overcommit(Some(true)));
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}
