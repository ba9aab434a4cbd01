//! mmap, munmap and calls that map something inside.

use vmaudit_common::call;
use vmaudit_common::{
    CLASS_COUNTS, CLASS_DRIVER, CLASS_FILE, CLASS_FIRST, CLASS_HUGE, CLASS_LOW, CLASS_NORESERVE,
    CLASS_OVER_MEMLOCK, CLASS_TOO_LONG,
};

use crate::domain::diagnosis::checks::met_if_inside;
use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::{Checks, Finding, Reason};

pub(crate) fn mmap(facts: &Facts<'_>, checks: &mut Checks) {
    let anonymous = facts.asks(CLASS_FILE).map(|file| !file);
    // Pages are reserved last, by the file's own mmap, and not at all with MAP_NORESERVE (fs/hugetlbfs/inode.c:
    // hugetlbfs_file_mmap; on 6.18 a refusal at RLIMIT_MEMLOCK was seen to come first).
    let huge = match facts.asks(CLASS_NORESERVE) {
        _ if !facts.has(CLASS_HUGE) => Finding::No,
        Some(true) => Finding::No,
        Some(false) => Finding::Met,
        // No example arrived, and the kind is of a version that did not put it there.
        None => Finding::Likely,
    };
    // A device, a socket and the like map by code of their own; of other files nearly all map by the kernel's.
    let driver = match (anonymous, facts.has(CLASS_DRIVER)) {
        (Some(true), _) => Finding::No,
        (_, true) => Finding::Likely,
        (_, false) => Finding::Unlikely,
    };
    if facts.question.errno == EPERM {
        // MAP_LOCKED where nothing may be locked at all; other permissions are not counted (mm/mmap.c:do_mmap).
        checks.add(Reason::Memlock, Finding::Met);
        return;
    }
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
        checks.add(Reason::Driver, driver);
        return;
    }
    // Only the rounding of the length to pages comes before the first look at the count (mm/mmap.c:do_mmap).
    checks.add(Reason::Wraps, if facts.has(CLASS_FIRST) { Finding::Met } else { Finding::No });
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(
        Reason::NoHole,
        match (facts.has(CLASS_TOO_LONG), facts.fixed()) {
            (true, _) => Finding::Met,
            (false, true) => match facts.beyond_the_end() {
                Some(true) => Finding::Met,
                Some(false) => Finding::No,
                None => Finding::Possible,
            },
            (false, false) if facts.has(CLASS_LOW) && !facts.kernel().searches_seen => Finding::Possible,
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
    checks.add(Reason::Hugetlb, huge);
    if splits == Finding::Likely && anonymous == Some(true) {
        // Convention (2): only the split is known to fail.
        return;
    }
    checks.add(Reason::Driver, driver);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// mm/vma.c:vms_gather_munmap_vmas: the count is looked at only for a range strictly inside one mapping, and before
/// any allocation but on 6.1 (mm/mmap.c:do_mas_align_munmap: mas_preallocate comes first); a range that is not inside
/// never gets ENOMEM but from an allocation.
pub(crate) fn munmap(facts: &Facts<'_>, checks: &mut Checks) {
    let limit = match facts.count_check(0) {
        Finding::Met => met_if_inside(checks),
        other => other,
    };
    checks.add(Reason::MapCount, limit);
    checks.add(Reason::KernelMemory, Finding::Unlikely);
}

/// Calls that map something whose size the arguments do not show. io_setup hides the real errno (fs/aio.c:ioctx_alloc).
pub(crate) fn inner_mmap(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.call == call::IO_SETUP && facts.question.errno == EAGAIN {
        // fs/aio.c:ioctx_alloc, before anything is mapped.
        checks.add(Reason::AsynchronousIo, Finding::Met);
        return;
    }
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

/// mm/mmap.c:remap_file_pages maps anew with MAP_FIXED inside one mapping.
pub(crate) fn remap_file_pages(facts: &Facts<'_>, checks: &mut Checks) {
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

/// ARCH_MAP_VDSO_* looks at no count (mm/vma.c:_install_special_mapping); enabling a shadow stack maps as mmap does.
pub(crate) fn arch_prctl(facts: &Facts<'_>, checks: &mut Checks) {
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
