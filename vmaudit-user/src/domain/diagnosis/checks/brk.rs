//! brk.

use vmaudit_common::{CLASS_GROWS, CLASS_HEAP_REACHED, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK};

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

pub(crate) fn brk(facts: &Facts<'_>, checks: &mut Checks) {
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
