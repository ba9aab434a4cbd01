//! Ranges, files and locks: what a look has found, and where the order of the kernel's checks makes a cause certain.

use super::*;

/// mlock of a range that is mapped, and marked as locked.
const MARKED: u64 = CLASS_LOOKED | CLASS_DONE | CLASS_ASKED;

fn locked(class: u64) -> Verdict {
    let example =
        refused(call::MLOCK, ENOMEM, at(100) | MARKED | class, 100, [0x7000_0000, 32768, 0, 0, 0, 0]);
    with(&example, &limits(0), &seeing("6.18.44"))
}

#[test]
fn mlock_of_what_has_no_pages_to_give() {
    is(&locked(CLASS_CLOSED), Cause::RangeNotMapped, true);
    is(&locked(CLASS_CLOSED | CLASS_OF_FILES), Cause::RangeNotMapped, true);
    let verdict = locked(CLASS_PAST_FILE | CLASS_OF_FILES);
    is(&verdict, Cause::BeyondEndOfFile, true);
    assert!(verdict.sentence.contains("beyond the end of the file"), "{}", verdict.sentence);
    let both = locked(CLASS_CLOSED | CLASS_PAST_FILE | CLASS_OF_FILES);
    is(&both, Cause::RangeNotMapped, false);
    assert!(both.sentence.contains("the end of the file would look the same"), "{}", both.sentence);
    let verdict = locked(CLASS_OF_FILES);
    is(&verdict, Cause::Driver, false);
    assert!(verdict.sentence.contains("gave no page"), "{}", verdict.sentence);
    // Guard pages within a mapping.
    is(&locked(0), Cause::RangeNotMapped, false);
}

#[test]
fn ranges_that_go_past_the_last_number() {
    let rules = seeing("6.18.44");
    let protect = |address: u64, length: u64| {
        let example = refused(call::MPROTECT, ENOMEM, 0, 0, [address, length, 1, 0, 0, 0]);
        with(&example, &limits(0), &rules)
    };
    let last = !0xfff_u64;
    let verdict = protect(last, 8192);
    is(&verdict, Cause::InvalidRange, true);
    assert_eq!(
        verdict.sentence,
        "mprotect() was given a length at 0xfffffffffffff000 that goes past the last address there is."
    );
    assert!(verdict.limit_excluded);
    is(&protect(last, 4096), Cause::InvalidRange, true);
    is(&protect(4096, u64::MAX), Cause::InvalidRange, true);
    assert_ne!(protect(4096, 8192).cause, Cause::InvalidRange);
    let mut high = refused(
        call::MPROTECT,
        ENOMEM,
        at(9) | CLASS_LOOKED | CLASS_GAP | CLASS_ONE,
        9,
        [1 << 63, 4096, 1, 0, 0, 0],
    );
    high.hole = Some(1 << 63);
    let rules = KernelRules { address_end: Some((1 << 47) - 4096), ..rules };
    let verdict = with(&high, &limits(0), &rules);
    is(&verdict, Cause::RangeNotMapped, true);
    assert!(
        verdict.sentence.contains("0x8000000000000000 lies beyond the addresses of a process"),
        "{verdict:?}"
    );
}

fn of_a_file(errno: u8, class: u64) -> Refused {
    let class = at(20) | CLASS_ASKED | CLASS_FILE | class;
    refused(call::MMAP, errno, class, 20, [0, 2 << 20, 3, MAP_SHARED, 3, 0])
}

#[test]
fn huge_pages_through_a_file() {
    let rules = seeing("6.18.44");
    let verdict = |class, limits: &Limits| with(&of_a_file(ENOMEM, class | CLASS_SEARCHED), limits, &rules);
    is(&verdict(CLASS_HUGE, &limits(0)), Cause::Hugetlb, true);
    // Not charged, whatever the mode.
    is(&verdict(CLASS_HUGE | CLASS_CHARGED, &limits(2)), Cause::Hugetlb, true);
    is(&verdict(0, &limits(0)), Cause::KernelMemory, false);
}

#[test]
fn a_device_may_have_reasons_of_its_own() {
    let rules = seeing("6.18.44");
    let verdict = with(&of_a_file(ENOMEM, CLASS_DRIVER | CLASS_SEARCHED), &limits(0), &rules);
    is(&verdict, Cause::Driver, false);
    assert!(verdict.limit_excluded && verdict.cure.is_some(), "{verdict:?}");
    let mut locks = of_a_file(EAGAIN, CLASS_DRIVER | CLASS_OVER_MEMLOCK);
    locks.rlimits[2] = 65536;
    is(&with(&locks, &limits(0), &rules), Cause::RlimitMemlock, false);
    locks.class &= !CLASS_OVER_MEMLOCK;
    is(&with(&locks, &limits(0), &rules), Cause::Driver, true);
}

/// A sanitizer's shadow: whatever lies in the range, it cannot be as much as is asked for.
#[test]
fn a_fixed_range_that_alone_exceeds_a_limit_is_certain() {
    let rules = seeing("6.18.44");
    let verdict = |class, which: usize| {
        let mut shadow = anonymous(at(20) | class, 20, 1 << 40, 3, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED);
        shadow.rlimits[which] = 8 << 30;
        with(&shadow, &limits(0), &rules)
    };
    is(&verdict(CLASS_OVER_AS | CLASS_SURELY_OVER_AS, 0), Cause::RlimitAs, true);
    is(&verdict(CLASS_OVER_AS, 0), Cause::RlimitAs, false);
    is(&verdict(CLASS_OVER_DATA | CLASS_SURELY_OVER_DATA, 1), Cause::RlimitData, true);
    is(&verdict(CLASS_OVER_DATA, 1), Cause::RlimitData, false);
}

#[test]
fn a_heap_that_is_locked_as_it_grows() {
    let of = |release: &str| KernelRules { future_locks_captured: true, ..seeing(release) };
    let verdict = |class, release: &str, end: Option<u64>| {
        let class = at(20) | CLASS_OVER_MEMLOCK | CLASS_GROWS | CLASS_ASKED | class;
        let mut grow = refused(call::BRK, ENOMEM, class, 20, [0x1010_4000, 0, 0, 0, 0, 0]);
        grow.ret = 0x1000_4000;
        grow.rlimits[2] = 8192;
        with(&grow, &limits(0), &KernelRules { address_end: end, ..of(release) })
    };
    let end = Some((1 << 47) - 4096);
    is(&verdict(CLASS_LOCKS, "6.18.44", end), Cause::RlimitMemlock, true);
    // Up to 5.19 what lies above the heap is looked at before.
    is(&verdict(CLASS_LOCKS, "5.10.0", end), Cause::RlimitMemlock, false);
    is(&verdict(CLASS_LOCKS | CLASS_BEYOND, "6.18.44", end), Cause::NoAddressRange, true);
    is(&verdict(CLASS_LOCKS | CLASS_BEYOND, "6.18.44", None), Cause::RlimitMemlock, false);
    // mlockall(MCL_FUTURE) was not called.
    is(&verdict(0, "6.18.44", end), Cause::NoAddressRange, false);
}
