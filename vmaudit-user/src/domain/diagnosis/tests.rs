//! Verdicts by call, kernel and distance to the limit, and their sentences as text.

use vmaudit_common::*;

use crate::domain::diagnosis::facts::*;
use crate::domain::diagnosis::*;
use crate::model::event::{Needed, Section};
use crate::model::session::KernelRules;

mod amounts;
mod ranges;
mod tasks;

const MAP_NORESERVE: u64 = 0x4000;
const MAP_ANONYMOUS: u64 = 0x20;
const MAX: u32 = 65530;
const MAP_PRIVATE: u64 = 2;
const MAP_HUGETLB: u64 = 0x40000;
const UNLIMITED: u64 = u64::MAX;
const ENOMEM: u8 = libc::ENOMEM as u8;

/// A kernel whose hooks capture only what they captured first: counts, no counters and no searches.
fn kernel(release: &str) -> KernelRules {
    KernelRules { ram_and_swap_pages: Some(4 << 20), ..KernelRules::for_release(release) }
}

/// One that captures everything.
fn seeing(release: &str) -> KernelRules {
    KernelRules {
        vm_counters_captured: true,
        sections_seen: true,
        searches_seen: true,
        memlock_bit_knows_capability: true,
        ..kernel(release)
    }
}

fn limits(overcommit: u64) -> Limits {
    Limits {
        max_map_count: Some(u64::from(MAX)),
        overcommit_memory: Some(overcommit),
        overcommit_ratio: Some(50),
    }
}

/// Class bits of a call that took the lock at `before` VMAs and let it go at `after`.
fn section(before: u32, after: u32) -> u64 {
    CLASS_SECTION | relative_to_max(before, MAX) | relative_to_max(after, MAX) << CLASS_MC1_SHIFT
}

fn at(count: u32) -> u64 {
    section(count, count)
}

/// An example with the figures of `class`.
fn refused(call: Call, errno: u8, class: u64, count: u32, args: [u64; 6]) -> Refused {
    Refused {
        call,
        errno,
        class,
        ret: -i64::from(errno),
        args,
        section: (class & CLASS_SECTION != 0).then_some(Section {
            mc0: count,
            mc1: count,
            total_vm: 48640,
            locked_vm: 0,
            data_vm: 1000,
            searched: None,
        }),
        max_map_count: MAX,
        start_brk: 0x1000_0000,
        ..Refused::example()
    }
}

fn bare(call: Call, errno: u8, class: u64, kernel: &KernelRules) -> Verdict {
    why(&question(call, errno, class, &limits(0), kernel))
}

fn question<'a>(
    call: Call,
    errno: u8,
    class: u64,
    limits: &'a Limits,
    kernel: &'a KernelRules,
) -> Question<'a> {
    Question {
        call,
        errno,
        class,
        count: 1,
        kept_bytes: 0,
        kept_bound: Accuracy::Exact,
        needed: Needed::default(),
        example: None,
        cgroup: None,
        limits,
        kernel,
    }
}

/// The verdict on an example; the class bits that come from the arguments are added.
fn with(example: &Refused, limits: &Limits, kernel: &KernelRules) -> Verdict {
    why(&Question {
        call: example.call,
        errno: example.errno,
        class: example.class,
        count: 1,
        kept_bytes: 0,
        kept_bound: Accuracy::Exact,
        needed: Needed::default(),
        example: Some(example),
        cgroup: None,
        limits,
        kernel,
    })
}

/// `mmap(NULL, length, prot, flags)` of anonymous memory.
fn anonymous(class: u64, count: u32, length: u64, prot: u64, flags: u64) -> Refused {
    refused(call::MMAP, ENOMEM, class, count, [0, length, prot, flags | MAP_ANONYMOUS, UNLIMITED, 0])
}

#[track_caller]
fn is(verdict: &Verdict, cause: Cause, certain: bool) {
    assert_eq!((verdict.cause, verdict.certain), (cause, certain), "{}", verdict.sentence);
}

#[test]
fn class_bits_alone_decide_the_limit() {
    use Cause::{KernelMemory, MaxMapCount, Unknown};
    let (madvise, mremap_grow) = (call::MADVISE, CLASS_GROWS | CLASS_MAYMOVE);
    let cases: [(&str, Call, u8, u64, Cause, bool); 30] = [
        ("6.18.44", call::MMAP, ENOMEM, at(MAX + 1), MaxMapCount, true),
        ("6.18.44", call::MMAP, ENOMEM, at(MAX + 9), MaxMapCount, true),
        ("5.10.0", call::MMAP, ENOMEM, at(MAX + 1), MaxMapCount, true),
        ("6.18.44", call::MMAP, ENOMEM, at(MAX) | CLASS_COUNTS, Unknown, false),
        ("6.18.44", call::MMAP, ENOMEM, at(MAX) | CLASS_FIXED, MaxMapCount, false),
        ("6.18.44", call::MUNMAP, ENOMEM, at(MAX), MaxMapCount, true),
        ("6.18.44", call::MUNMAP, ENOMEM, at(MAX + 1), MaxMapCount, true),
        ("6.18.44", call::MUNMAP, ENOMEM, at(MAX - 1), KernelMemory, false),
        ("6.18.44", call::MUNMAP, ENOMEM, CLASS_SECTION_LOST, MaxMapCount, false),
        ("6.18.44", call::MPROTECT, ENOMEM, at(MAX), MaxMapCount, false),
        ("6.18.44", call::MPROTECT, ENOMEM, section(MAX - 1, MAX), MaxMapCount, false),
        ("6.18.44", call::MPROTECT, ENOMEM, at(MAX - 1), Unknown, false),
        ("6.18.44", madvise, EAGAIN, at(MAX), MaxMapCount, true),
        ("6.18.44", madvise, EAGAIN, section(MAX - 1, MAX), MaxMapCount, true),
        ("6.18.44", madvise, EAGAIN, at(MAX - 1), KernelMemory, false),
        ("5.15.0", madvise, EAGAIN, at(MAX), KernelMemory, false),
        ("5.14.0-427.el9", madvise, EAGAIN, at(MAX), MaxMapCount, false),
        ("5.10.0", madvise, ENOMEM, at(MAX), MaxMapCount, false),
        ("6.18.44", call::PRCTL, EAGAIN, at(MAX), MaxMapCount, true),
        ("6.18.44", call::MBIND, ENOMEM, at(MAX), MaxMapCount, true),
        ("6.18.44", call::MBIND, ENOMEM, at(MAX - 2), KernelMemory, false),
        ("7.1.0", call::MREMAP, ENOMEM, at(MAX - 3), MaxMapCount, true),
        ("7.1.0", call::MREMAP, ENOMEM, at(MAX - 3) | mremap_grow, MaxMapCount, true),
        ("7.1.0", call::MREMAP, ENOMEM, at(MAX - 4), KernelMemory, false),
        ("7.2.12", call::MREMAP, ENOMEM, at(MAX - 3), MaxMapCount, true),
        ("7.2.12", call::MREMAP, ENOMEM, at(MAX - 4) | CLASS_KEEPS, MaxMapCount, true),
        ("6.18.44", call::MREMAP, ENOMEM, at(MAX), MaxMapCount, true),
        ("6.18.44", call::MREMAP, ENOMEM, at(MAX - 3) | mremap_grow, MaxMapCount, false),
        ("odd", call::MREMAP, ENOMEM, at(MAX), MaxMapCount, true),
        ("6.18.44", call::IO_SETUP, ENOMEM, at(MAX + 1), MaxMapCount, true),
    ];
    for (release, call, errno, class, cause, certain) in cases {
        let verdict = bare(call, errno, class, &kernel(release));
        assert_eq!(
            (verdict.cause, verdict.certain),
            (cause, certain),
            "{release} {call} {class:#x}: \
         {verdict:?}"
        );
        assert_eq!(
            verdict.sentence.contains("Not certain"),
            !certain && cause != Unknown,
            "{}",
            verdict.sentence
        );
    }
}

#[test]
fn tasks_are_never_refused_for_the_vma_limit() {
    for call in [call::CLONE, call::CLONE3, call::FORK, call::VFORK, call::EXECVE] {
        for errno in [ENOMEM, EAGAIN] {
            for class in [at(MAX + 1), CLASS_SECTION_LOST, 0] {
                let verdict = bare(call, errno, class, &kernel("6.18.44"));
                assert_ne!(verdict.cause, Cause::MaxMapCount, "{call}");
            }
        }
    }
    let verdict = bare(call::CLONE, EAGAIN, 0, &kernel("6.18.44"));
    is(&verdict, Cause::Unknown, false);
    assert_eq!(
        verdict.sentence,
        "clone() was refused by a limit on the number of tasks: RLIMIT_NPROC, kernel.threads-max, \
         kernel.pid_max or pids.max of a cgroup. Which of them cannot be told; vm.max_map_count is none of them."
    );
    let fork = refused(call::FORK, ENOMEM, 0, 0, [0; 6]);
    is(&with(&fork, &limits(2), &kernel("6.18.44")), Cause::Overcommit, false);
    is(&with(&fork, &limits(1), &kernel("6.18.44")), Cause::KernelMemory, false);
    // The parent's lock was not even taken, so that nothing of it was copied and charged.
    is(&with(&fork, &limits(2), &seeing("6.18.44")), Cause::KernelMemory, false);
}

#[test]
fn mmap_by_what_was_captured() {
    let rules = seeing("6.18.44");
    let mut limited = anonymous(at(100) | CLASS_SEARCHED | CLASS_OVER_AS, 100, 2 << 30, 3, MAP_PRIVATE);
    limited.rlimits[0] = 1 << 30;
    let verdict = with(&limited, &limits(0), &rules);
    is(&verdict, Cause::RlimitAs, true);
    assert_eq!(
        verdict.sentence,
        "mmap() asked for 2 GiB, and 190 MiB of address space were in use: more than RLIMIT_AS = 1 GiB \
         allows."
    );
    let expected = [
        ("asked_bytes", 2u64 << 30),
        ("limit_bytes", 1 << 30),
        ("map_count", 100),
        ("max_map_count", 65530),
        ("missing_bytes", (1 << 30) + (190 << 20)),
        ("used_bytes", 190 << 20),
    ];
    assert_eq!(verdict.evidence, expected.map(|(name, value)| (name.to_owned(), value)).into());
    // Both limits are exceeded: the kernel looks at the address space first.
    limited.class |= CLASS_OVER_DATA;
    limited.rlimits[1] = 1 << 20;
    is(&with(&limited, &limits(0), &rules), Cause::RlimitAs, true);
    limited.class &= !CLASS_OVER_AS;
    is(&with(&limited, &limits(0), &rules), Cause::RlimitData, true);
    // Memory without write access does not count as data.
    limited.args[2] = 1;
    is(&with(&limited, &limits(1), &rules), Cause::KernelMemory, false);

    // What is not captured is not concluded from.
    let verdict = with(&anonymous(at(100), 100, 2 << 30, 3, MAP_PRIVATE), &limits(0), &kernel("6.18.44"));
    is(&verdict, Cause::KernelMemory, false);
    let mut finite = anonymous(at(100) | CLASS_OVER_AS, 100, 2 << 30, 3, MAP_PRIVATE);
    finite.rlimits = [1 << 30, 1 << 20, UNLIMITED, UNLIMITED];
    let verdict = with(&finite, &limits(0), &kernel("6.18.44"));
    is(&verdict, Cause::Unknown, false);
    assert_eq!(
        verdict.sentence,
        "Why mmap() said ENOMEM cannot be told. It may be no free address range, RLIMIT_AS = 1 GiB, \
         RLIMIT_DATA = 1 MiB or \
         a failed allocation in the kernel; it is not vm.max_map_count = 65,530 (the process had 100 VMAs)."
    );
}

#[test]
fn mmap_and_memory_that_is_not_there() {
    let rules = seeing("6.18.44");
    let searched = at(100) | CLASS_SEARCHED;
    let verdict = with(&anonymous(searched, 100, 1 << 43, 3, MAP_PRIVATE), &limits(0), &rules);
    is(&verdict, Cause::Overcommit, true);
    assert_eq!(
        verdict.sentence,
        "mmap() asked for 8 TiB at once, more than RAM and swap together (16 GiB); vm.overcommit_memory = \
         0 refuses that."
    );
    assert!(!verdict.ordinary);
    let reserve = anonymous(searched, 100, 1 << 43, 3, MAP_PRIVATE | MAP_NORESERVE);
    is(&with(&reserve, &limits(0), &rules), Cause::KernelMemory, false);
    is(&with(&reserve, &limits(2), &rules), Cause::Overcommit, false);
    let huge = anonymous(searched, 100, 4 << 20, 3, MAP_PRIVATE | MAP_HUGETLB);
    let verdict = with(&huge, &limits(0), &rules);
    is(&verdict, Cause::Hugetlb, true);
    assert_eq!(verdict.sentence, "mmap() asked for 4 MiB of huge pages, and too few are free.");
    is(
        &with(&anonymous(searched | CLASS_NO_HOLE, 100, 1 << 46, 3, MAP_PRIVATE), &limits(1), &rules),
        Cause::NoAddressRange,
        true,
    );
    let probe = with(
        &anonymous(searched | CLASS_NO_HOLE, 100, 1 << 46, 0, MAP_PRIVATE | MAP_NORESERVE),
        &limits(1),
        &rules,
    );
    is(&probe, Cause::NoAddressRange, true);
    assert!(probe.probe);
    let long = with(&anonymous(at(100), 100, 1 << 60, 3, MAP_PRIVATE), &limits(0), &kernel("6.18.44"));
    is(&long, Cause::NoAddressRange, true);
    assert_eq!(long.sentence, "mmap() asked for 1 EiB, more than a process has addresses.");
    // The length that cannot be rounded to pages is refused even before the count is looked at.
    is(
        &with(&anonymous(at(MAX + 1), MAX + 1, UNLIMITED, 3, MAP_PRIVATE), &limits(0), &rules),
        Cause::InvalidRange,
        true,
    );
    is(
        &with(&anonymous(at(MAX + 1), MAX + 1, 1 << 60, 3, MAP_PRIVATE), &limits(0), &rules),
        Cause::MaxMapCount,
        true,
    );
}

#[test]
fn mmap_fixed() {
    let rules = seeing("6.18.44");
    let inside = refused(
        call::MMAP,
        ENOMEM,
        at(MAX) | CLASS_FIXED,
        MAX,
        [0x7000_0000, 4096, 3, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, 0, 0],
    );
    let verdict = with(&inside, &limits(0), &rules);
    is(&verdict, Cause::MaxMapCount, true);
    assert_eq!(
        verdict.sentence,
        "mmap() with MAP_FIXED had to split the mapping it lies in, which needs one more VMA than \
         vm.max_map_count = 65,530 allows."
    );
    // A refusal on an old kernel has already destroyed the old mapping.
    let mut big = inside.clone();
    big.args[1] = 1 << 40;
    big.class = at(100) | CLASS_FIXED;
    let old = with(&big, &limits(0), &seeing("6.1.0"));
    is(&old, Cause::Overcommit, false);
    assert!(old.sentence.contains("What was mapped there before is gone"), "{}", old.sentence);
    assert!(!with(&big, &limits(0), &rules).sentence.contains("gone"));
}

/// A fixed range behind the end of all addresses; with five levels of page tables the end lies elsewhere.
#[test]
fn mmap_fixed_beyond_all_addresses() {
    let ends = |end| KernelRules { address_end: end, ..seeing("6.18.44") };
    let high = refused(
        call::MMAP,
        ENOMEM,
        at(100) | CLASS_FIXED,
        100,
        [1 << 47, 4096, 3, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, 0, 0],
    );
    let verdict = with(&high, &limits(0), &ends(Some((1 << 47) - 4096)));
    is(&verdict, Cause::NoAddressRange, true);
    assert_eq!(
        verdict.sentence,
        "mmap() with MAP_FIXED asked for 4 KiB at 0x800000000000, which lies beyond the addresses of a process."
    );
    for unknown in [None, Some((1 << 56) - 4096)] {
        let verdict = with(&high, &limits(0), &ends(unknown));
        assert!(!verdict.certain && !verdict.sentence.contains("beyond"), "{verdict:?}");
    }
}

#[test]
fn locked_memory() {
    let rules = seeing("6.18.44");
    let mut lock =
        refused(call::MLOCK, ENOMEM, at(100) | CLASS_OVER_MEMLOCK, 100, [0x7000_0000, 16384, 0, 0, 0, 0]);
    lock.rlimits[2] = 8192;
    let verdict = with(&lock, &limits(0), &rules);
    is(&verdict, Cause::RlimitMemlock, true);
    assert_eq!(
        verdict.sentence,
        "mlock() asked to lock 16 KiB, and 0 B were locked: more than \
     RLIMIT_MEMLOCK = 8 KiB allows."
    );
    let blind = KernelRules { memlock_bit_knows_capability: false, ..rules.clone() };
    is(&with(&lock, &limits(0), &blind), Cause::RlimitMemlock, false);
    lock.class = at(100);
    let verdict = with(&lock, &limits(0), &rules);
    is(&verdict, Cause::RangeNotMapped, false);
    assert!(!verdict.ordinary);
    lock.class = at(MAX);
    is(&with(&lock, &limits(0), &rules), Cause::MaxMapCount, false);
    is(&bare(call::MLOCKALL, ENOMEM, at(100), &kernel("6.18.44")), Cause::RlimitMemlock, true);
    is(&bare(call::MLOCK, EAGAIN, at(100), &kernel("6.18.44")), Cause::KernelMemory, true);
    let mut map = anonymous(at(100), 100, 4096, 3, MAP_PRIVATE | 0x2000);
    map.errno = EAGAIN;
    is(&with(&map, &limits(0), &kernel("6.18.44")), Cause::RlimitMemlock, true);
    is(&bare(call::MREMAP, EAGAIN, at(100), &kernel("7.3.0")), Cause::RlimitMemlock, true);
}

#[test]
fn gaps_are_ordinary_for_advice_only() {
    let advise = |advice, release| {
        let example = refused(call::MADVISE, ENOMEM, at(100), 100, [0x7000_0000, 8192, advice, 0, 0, 0]);
        with(&example, &limits(0), &kernel(release))
    };
    for release in ["6.18.44", "5.10.0"] {
        for advice in [4, 8, 14] {
            let verdict = advise(advice, release);
            is(&verdict, Cause::RangeNotMapped, true);
            assert!(verdict.ordinary);
        }
    }
    is(&advise(23, "6.18.44"), Cause::RangeNotMapped, false);
    assert_eq!(
        advise(4, "6.18.44").sentence,
        "madvise() met a gap in its range; the advice was applied to everything that is mapped: an \
         ordinary answer."
    );
    let protect = refused(call::MPROTECT, ENOMEM, at(100), 100, [0x7000_0000, 8192, 1, 0, 0, 0]);
    let verdict = with(&protect, &limits(0), &kernel("6.18.44"));
    is(&verdict, Cause::RangeNotMapped, false);
    assert!(!verdict.ordinary);
    assert_eq!(verdict.cure.as_deref(), Some("Not a limit: use addresses that are all mapped."));
}

#[test]
fn mremap_questions_and_refusals() {
    let grow = |class: u64, count, flags| {
        refused(call::MREMAP, ENOMEM, class | CLASS_GROWS, count, [0x7000_0000, 4096, 8192, flags, 0, 0])
    };
    // May it grow here? An answer, not an incident.
    let verdict = with(&grow(at(100), 100, 0), &limits(0), &seeing("6.18.44"));
    assert_eq!((verdict.cause, verdict.ordinary), (Cause::NoAddressRange, true));
    // From 7.1 on the count is looked at first, whatever was asked.
    let verdict = with(&grow(at(MAX - 3), MAX - 3, 0), &limits(0), &seeing("7.1.0"));
    is(&verdict, Cause::MaxMapCount, true);
    assert!(!verdict.ordinary);
    assert_eq!(
        verdict.sentence,
        "mremap() wants 4 free VMAs before it begins, and the process had 65,527 of the 65,530 that \
         vm.max_map_count allows."
    );
    // Up to 7.0 only a move needs them, and a search that found room proves that a move had begun.
    let moved = grow(at(MAX - 3) | CLASS_MAYMOVE | CLASS_SEARCHED, MAX - 3, 1);
    is(&with(&moved, &limits(0), &seeing("6.18.44")), Cause::MaxMapCount, true);
    is(&with(&moved, &limits(0), &kernel("6.18.44")), Cause::MaxMapCount, false);
    let below = grow(at(MAX - 4) | CLASS_MAYMOVE | CLASS_SEARCHED, MAX - 4, 1);
    is(&with(&below, &limits(0), &seeing("6.18.44")), Cause::KernelMemory, false);
    // A target asks for two more, under the lock up to 6.14 and before it from 6.17 to 7.0.
    let target = |class| {
        refused(
            call::MREMAP,
            ENOMEM,
            class | CLASS_MAYMOVE,
            MAX - 5,
            [0x7000_0000, 4096, 4096, 3, 0x8000_0000, 0],
        )
    };
    is(&with(&target(at(MAX - 5)), &limits(0), &kernel("6.12.0")), Cause::MaxMapCount, true);
    is(&with(&target(0), &limits(0), &kernel("6.18.44")), Cause::MaxMapCount, true);
    is(&with(&target(CLASS_SECTION_LOST), &limits(0), &kernel("6.18.44")), Cause::MaxMapCount, false);
    is(&with(&target(at(MAX - 6)), &limits(0), &kernel("6.12.0")), Cause::KernelMemory, false);
    // A copy asks for one more from 7.2 on.
    let copy = refused(
        call::MREMAP,
        ENOMEM,
        at(MAX - 4) | CLASS_MAYMOVE,
        MAX - 4,
        [0x7000_0000, 4096, 4096, 5, 0, 0],
    );
    is(&with(&copy, &limits(0), &kernel("7.2.12")), Cause::MaxMapCount, true);
    is(&with(&copy, &limits(0), &seeing("7.1.0")), Cause::KernelMemory, false);
}

#[test]
fn the_heap() {
    let rules = seeing("6.18.44");
    let grow = |class: u64, count| Refused {
        ret: 0x1000_4000,
        ..refused(call::BRK, ENOMEM, class | CLASS_GROWS, count, [0x1010_4000, 0, 0, 0, 0, 0])
    };
    let verdict = with(&grow(at(MAX + 1), MAX + 1), &limits(0), &rules);
    is(&verdict, Cause::MaxMapCount, false);
    assert_eq!(
        verdict.sentence,
        "brk() was refused because the process had 65,531 VMAs, more than vm.max_map_count = 65,530 allows. \
         Not certain: another mapping in the heap's way would look the same."
    );
    let mut limited = grow(at(100) | CLASS_OVER_DATA, 100);
    limited.rlimits[1] = 1 << 20;
    let verdict = with(&limited, &limits(0), &rules);
    is(&verdict, Cause::RlimitData, true);
    assert_eq!(verdict.evidence.get("asked_bytes"), Some(&(1 << 20)));
    is(&with(&grow(at(100), 100), &limits(0), &rules), Cause::NoAddressRange, false);
    let query = refused(call::BRK, ENOMEM, 0, 0, [0; 6]);
    let verdict = with(&query, &limits(0), &rules);
    assert!(verdict.ordinary);
    let shrink = Refused {
        ret: 0x1010_4000,
        ..refused(call::BRK, ENOMEM, at(MAX), MAX, [0x1000_4000, 0, 0, 0, 0, 0])
    };
    is(&with(&shrink, &limits(0), &rules), Cause::MaxMapCount, false);
}

#[test]
fn bytes_that_stay_mapped_are_in_the_sentence() {
    let limits = limits(0);
    let rules = kernel("6.18.44");
    let mut question = Question {
        call: call::MUNMAP,
        errno: ENOMEM,
        class: at(MAX),
        count: 1,
        kept_bytes: 4096,
        kept_bound: Accuracy::Exact,
        needed: Needed::default(),
        example: None,
        cgroup: None,
        limits: &limits,
        kernel: &rules,
    };
    assert_eq!(
        why(&question).sentence,
        "munmap() had to split a mapping in two, which needs one more VMA than vm.max_map_count = 65,530 \
         allows; 4 KiB stay mapped."
    );
    question.count = 23;
    question.kept_bytes = 94208;
    let verdict = why(&question);
    assert!(verdict.sentence.ends_with("allows; in all, 92 KiB stay mapped."));
    let expected = [("kept_bytes", 94208u64), ("map_count", 65530), ("max_map_count", 65530), ("needed", 1)];
    assert_eq!(verdict.evidence, expected.map(|(name, value)| (name.to_owned(), value)).into());
    question.class = at(100);
    assert_eq!(
        why(&question).sentence,
        "munmap(): an allocation inside the kernel failed (slab, page tables, or the memory cgroup at its \
         limit); \
         the process was below vm.max_map_count = 65,530; in all, 92 KiB stay mapped. Not certain: \
         nothing else fits, but nothing that was seen proves it."
    );
}

/// At the limit a range that is not strictly inside one mapping is not split, so its ENOMEM is an allocation's.
#[test]
fn at_the_limit_a_memory_cgroup_that_ran_out_is_named_beside_it() {
    let limits = limits(0);
    let cgroup = MemoryCgroup { limit_bytes: 8 << 20, used_bytes: 8_388_000, out_of_memory: 2 };
    for (release, call, class) in [
        ("6.18.44", call::MUNMAP, at(MAX)),
        ("6.1.0", call::MUNMAP, at(MAX + 1)),
        ("6.18.44", call::MREMAP, at(MAX)),
        ("odd", call::MREMAP, at(MAX)),
    ] {
        let rules = kernel(release);
        let mut question = question(call, ENOMEM, class, &limits, &rules);
        is(&why(&question), Cause::MaxMapCount, true);
        question.cgroup = Some(&cgroup);
        let verdict = why(&question);
        is(&verdict, Cause::MaxMapCount, false);
        assert!(verdict.sentence.contains("a failed allocation in the kernel"), "{}", verdict.sentence);
    }
}

#[test]
fn a_memory_cgroup_that_ran_out_proves_a_failed_allocation() {
    let (limits, rules) = (limits(0), kernel("6.18.44"));
    let cgroup = MemoryCgroup { limit_bytes: 8 << 20, used_bytes: 8_388_000, out_of_memory: 2 };
    let mut question = Question {
        call: call::MUNMAP,
        errno: ENOMEM,
        class: at(100),
        count: 1,
        kept_bytes: 0,
        kept_bound: Accuracy::Exact,
        needed: Needed::default(),
        example: None,
        cgroup: Some(&cgroup),
        limits: &limits,
        kernel: &rules,
    };
    let verdict = why(&question);
    is(&verdict, Cause::KernelMemory, true);
    assert_eq!(
        verdict.sentence,
        "munmap(): an allocation inside the kernel failed; the process's memory cgroup has a limit of 8 MiB and \
         ran out of memory (2 times since it was made); the process was below vm.max_map_count = 65,530."
    );
    assert_eq!(
        (verdict.evidence["cgroup_limit_bytes"], verdict.evidence["cgroup_out_of_memory"]),
        (8 << 20, 2)
    );
    // What is known to refuse stays the cause: mmap is refused above the limit, whatever it asks for.
    question.class = at(MAX + 1);
    question.call = call::MMAP;
    is(&why(&question), Cause::MaxMapCount, true);
}

#[test]
fn a_split_that_was_made_is_said() {
    let verdict = bare(call::MPROTECT, ENOMEM, section(MAX - 1, MAX), &kernel("6.18.44"));
    assert!(verdict.sentence.contains("the first of its splits was made; it stays."), "{}", verdict.sentence);
    assert_eq!(verdict.evidence.get("needed"), Some(&2));
    let verdict = bare(call::MADVISE, EAGAIN, at(MAX), &kernel("6.18.44"));
    assert_eq!(
        verdict.sentence,
        "madvise() on a part of a mapping had to split it, which needs more VMAs than vm.max_map_count = \
         65,530 \
         allows; for that it answers EAGAIN, not ENOMEM."
    );
}

/// What a look at the range decides, which counters leave open.
#[test]
fn a_look_at_the_range_decides() {
    use Cause::{KernelMemory, MaxMapCount, Overcommit, RangeNotMapped, RlimitData};
    const LIMIT: u64 = CLASS_LOOKED | CLASS_ONE;
    const GAP: u64 = CLASS_LOOKED | CLASS_GAP;
    let rules = seeing("6.18.44");
    let full = at(MAX);
    let cases: [(Call, [u64; 2], u64, Cause, bool); 24] = [
        (call::MPROTECT, [4096, 0], full | LIMIT | CLASS_CUT_START | CLASS_CUT_END, MaxMapCount, true),
        (call::MPROTECT, [4096, 0], section(MAX - 1, MAX) | LIMIT | CLASS_CUT_END, MaxMapCount, true),
        (call::MPROTECT, [4096, 0], full | CLASS_LOOKED | CLASS_CUT_START, MaxMapCount, true),
        // Nothing is cut, so nothing had to be split.
        (call::MPROTECT, [4096, 0], full | LIMIT, KernelMemory, false),
        (call::MPROTECT, [4096, 0], full | LIMIT | CLASS_CUT_END | CLASS_DONE, KernelMemory, false),
        (call::MPROTECT, [4096, 0], full | GAP, RangeNotMapped, true),
        (call::MPROTECT, [4096, 0], full | GAP | CLASS_ONE, RangeNotMapped, true),
        // The split comes first, if one was needed.
        (call::MPROTECT, [4096, 0], full | GAP | CLASS_CUT_START, RangeNotMapped, false),
        (call::MPROTECT, [4096, 0], at(100) | GAP | CLASS_CUT_START, RangeNotMapped, true),
        (call::MPROTECT, [4096, 3], at(100) | LIMIT | CLASS_OVER_DATA | CLASS_COUNTS, RlimitData, true),
        // What was writable before is no new data; and where the address space is too large as well, nobody asks.
        (call::MPROTECT, [4096, 3], at(100) | LIMIT | CLASS_OVER_DATA, KernelMemory, false),
        (
            call::MPROTECT,
            [4096, 3],
            at(100) | LIMIT | CLASS_OVER_DATA | CLASS_OVER_AS | CLASS_COUNTS,
            KernelMemory,
            false,
        ),
        (call::MPROTECT, [1 << 40, 3], at(100) | LIMIT | CLASS_CHARGED, Overcommit, true),
        (call::MPROTECT, [1 << 40, 3], at(100) | LIMIT, KernelMemory, false),
        (call::PKEY_MPROTECT, [4096, 0], full | LIMIT | CLASS_CUT_START, MaxMapCount, true),
        (call::MLOCK, [4096, 0], full | LIMIT | CLASS_CUT_START, MaxMapCount, true),
        (call::MLOCK, [4096, 0], at(100) | GAP, RangeNotMapped, true),
        // All is marked as locked, so filling it failed: no access.
        (call::MLOCK, [4096, 0], full | LIMIT | CLASS_DONE | CLASS_CLOSED, RangeNotMapped, true),
        (call::MUNLOCK, [4096, 0], full | LIMIT | CLASS_CUT_END, MaxMapCount, true),
        (call::MSEAL, [4096, 0], full | LIMIT | CLASS_CUT_END, MaxMapCount, true),
        (call::MSEAL, [4096, 0], full | GAP, RangeNotMapped, true),
        (
            call::REMAP_FILE_PAGES,
            [4096, 0],
            full | LIMIT | CLASS_CUT_START | CLASS_CUT_END,
            MaxMapCount,
            true,
        ),
        (call::REMAP_FILE_PAGES, [4096, 0], full | LIMIT | CLASS_CUT_END, KernelMemory, false),
        (call::PRCTL, [0x5356_4d41, 0], at(100) | GAP, RangeNotMapped, true),
    ];
    for (call, [second, third], class, cause, certain) in cases {
        let first = if call == call::PRCTL { second } else { 0x7000_0000 };
        let mut example = refused(call, ENOMEM, class, MAX, [first, second, third, 0, 0, 0]);
        example.rlimits[1] = 1 << 20;
        let verdict = with(&example, &limits(0), &rules);
        assert_eq!(
            (verdict.cause, verdict.certain),
            (cause, certain),
            "{call} {class:#x}: {}",
            verdict.sentence
        );
    }
}

#[test]
fn mremap_by_the_mapping_it_should_enlarge() {
    let rules = seeing("6.18.44");
    let grow = |class: u64, to: u64, flags: u64| {
        let class = at(100) | CLASS_GROWS | CLASS_LOOKED | CLASS_ONE | class;
        let mut example = refused(call::MREMAP, ENOMEM, class, 100, [0x7000_0000, 4096, to, flags, 0, 0]);
        example.rlimits[1] = 1 << 20;
        with(&example, &limits(0), &rules)
    };
    is(&grow(CLASS_OVER_DATA | CLASS_COUNTS, 1 << 22, 1), Cause::RlimitData, true);
    is(&grow(CLASS_CHARGED | CLASS_SEARCHED, 30 << 40, 1), Cause::Overcommit, true);
    // 30 TiB of memory that is only read are charged to nobody: it is the search that failed.
    is(&grow(CLASS_NO_HOLE | CLASS_SEARCHED, 30 << 40, 1), Cause::NoAddressRange, true);
    is(&grow(CLASS_SEARCHED, 30 << 40, 1), Cause::KernelMemory, false);
    let blocked = grow(CLASS_DONE, 8192, 0);
    is(&blocked, Cause::NoAddressRange, true);
    assert!(blocked.ordinary);
}

#[test]
fn what_was_listened_to_settles_it() {
    let rules = seeing("6.18.44");
    for call in [call::MMAP, call::MPROTECT, call::MREMAP, call::BRK, call::FORK, call::CLONE] {
        let class = at(MAX + 1) | CLASS_OVERCOMMIT_REFUSED;
        is(&with(&refused(call, ENOMEM, class, 100, [0; 6]), &limits(2), &rules), Cause::Overcommit, true);
    }
    let grow = |class: u64| {
        let example = Refused {
            ret: 0x1000_4000,
            ..refused(call::BRK, ENOMEM, class | CLASS_GROWS, MAX + 1, [0x1010_4000, 0, 0, 0, 0, 0])
        };
        with(&example, &limits(0), &rules)
    };
    is(&grow(at(MAX + 1) | CLASS_HEAP_REACHED), Cause::MaxMapCount, true);
    is(&grow(at(MAX + 1)), Cause::MaxMapCount, false);
    is(&grow(at(100) | CLASS_HEAP_REACHED), Cause::KernelMemory, false);
}

#[test]
fn the_words_for_what_a_look_found() {
    let rules = seeing("6.18.44");
    let mut gap = refused(
        call::MPROTECT,
        ENOMEM,
        section(100, 101) | CLASS_LOOKED | CLASS_GAP,
        100,
        [0x7000_0000, 12288, 0, 0, 0, 0],
    );
    gap.hole = Some(0x7000_1000);
    gap.section.as_mut().unwrap().mc1 = 101;
    let verdict = with(&gap, &limits(0), &rules);
    assert_eq!(
        verdict.sentence,
        "The range given to mprotect() has a part that is not mapped: nothing is at 0x70001000. 1 VMA was added \
         before one such call failed, and stays."
    );
    assert_eq!(verdict.evidence.get("added"), Some(&1));
    let class = at(100) | CLASS_LOOKED | CLASS_ONE | CLASS_DONE | CLASS_CLOSED;
    let lock = refused(call::MLOCK, ENOMEM, class, 100, [0x7000_0000, 4096, 0, 0, 0, 0]);
    assert_eq!(
        with(&lock, &limits(0), &rules).sentence,
        "The range given to mlock() is mapped, but a part of it allows no access, so it cannot be filled with \
         memory; it stays marked as locked."
    );
    let stack = anonymous(at(MAX + 1), MAX + 1, 1 << 23, 0, MAP_PRIVATE | MAP_STACK);
    assert_eq!(
        with(&stack, &limits(0), &rules).sentence,
        "mmap() was refused because the process had 65,531 VMAs, more than vm.max_map_count = 65,530 allows. It \
         was to be a thread's stack."
    );
}

#[test]
fn other_calls() {
    let rules = kernel("6.18.44");
    let command = |command, class| refused(call::IOCTL, ENOMEM, class, MAX, [3, command, 0, 0, 0, 0]);
    is(&with(&command(0xc020_aa00, at(MAX)), &limits(0), &rules), Cause::MaxMapCount, true);
    is(&with(&command(0xc020_aa00, at(100)), &limits(0), &rules), Cause::KernelMemory, false);
    is(&with(&command(0x1234, 0), &limits(0), &rules), Cause::Driver, false);
    let mut ring = refused(call::IO_URING_SETUP, ENOMEM, 0, 0, [0; 6]);
    is(&with(&ring, &limits(0), &rules), Cause::KernelMemory, false);
    ring.rlimits[2] = 65536;
    is(&with(&ring, &limits(0), &rules), Cause::RlimitMemlock, false);
    let mut exec = refused(call::EXECVE, ENOMEM, 0, 0, [0; 6]);
    exec.rlimits[0] = 1 << 20;
    is(&with(&exec, &limits(0), &rules), Cause::RlimitAs, false);
}

#[test]
fn nothing_asked_makes_it_panic_or_fall_silent() {
    let classes = [0, CLASS_SECTION_LOST, u64::MAX, at(0), at(MAX), CLASS_SECTION | 0xff];
    for call in 0..=u8::MAX {
        for errno in [0, ENOMEM, EAGAIN, 255] {
            for class in classes {
                for release in ["", "5.10", "6.18.44", "7.3"] {
                    for rules in [kernel(release), seeing(release)] {
                        let mut example = refused(call, errno, class, u32::MAX, [UNLIMITED; 6]);
                        example.rlimits = [0; 4];
                        for verdict in
                            [bare(call, errno, class, &rules), with(&example, &Limits::default(), &rules)]
                        {
                            assert!(!verdict.sentence.is_empty());
                            assert!(!(verdict.certain && verdict.cause == Cause::Unknown));
                        }
                    }
                }
            }
        }
    }
}

/// The one call that was kept is lost, and the kind says only that huge pages were asked for.
#[test]
fn hugetlb_without_an_example_is_among_what_is_said() {
    let seeing = seeing("6.18");
    let told = |class| bare(call::MMAP, ENOMEM, at(100) | CLASS_SEARCHED | CLASS_HUGE | class, &seeing);
    assert_eq!((told(CLASS_ASKED).cause, told(CLASS_ASKED).certain), (Cause::Hugetlb, true));
    let old = told(0);
    assert_eq!((old.cause, old.certain), (Cause::Hugetlb, false), "{old:?}");
    assert_ne!(told(CLASS_ASKED | CLASS_NORESERVE).cause, Cause::Hugetlb);
}
