//! What was asked beside what there was: promises of memory, addresses.

use super::*;
use crate::model::shortage::Commit;

fn strict(call: Call, class: u64, args: [u64; 6]) -> Verdict {
    let mut example = refused(call, ENOMEM, at(20) | CLASS_ASKED | class, 20, args);
    let page = 4096;
    if let Some(section) = &mut example.section {
        section.data_vm = (300 << 20) / page;
    }
    example.commit = Some(Commit { limit_bytes: 1 << 30, committed_bytes: 900 << 20, after_us: 310 });
    with(&example, &limits(2), &seeing("6.18.44"))
}

#[test]
fn a_fork_is_told_the_size_of_the_copy_and_what_was_missing() {
    let verdict = strict(call::CLONE, CLASS_INIT_LOOKED | CLASS_OVERCOMMIT_REFUSED, [17, 0, 0, 0, 0, 0]);
    is(&verdict, Cause::Overcommit, true);
    assert_eq!(
        verdict.sentence,
        "clone() had to promise the child a copy of all private writable memory, 300 MiB, which the system's commit \
         limit does not cover: 900 MiB of 1 GiB were promised, so 176 MiB were missing (read 1 ms later); \
         vm.overcommit_memory = 2."
    );
    for (name, mib) in [("asked", 300), ("commit_limit", 1024), ("committed", 900), ("missing", 176)] {
        assert_eq!(verdict.evidence.get(&format!("{name}_bytes")), Some(&(mib << 20)), "{name}");
    }
    assert!(verdict.cure.is_some_and(|cure| cure.contains("vfork or posix_spawn")));
}

#[test]
fn a_request_is_told_what_was_missing_only_while_it_still_was() {
    let map = |length| {
        strict(call::MMAP, CLASS_CHARGED | CLASS_OVERCOMMIT_REFUSED, [0, length, 3, 0x22, UNLIMITED, 0])
    };
    assert_eq!(map(200 << 20).evidence.get("missing_bytes"), Some(&(76 << 20)));
    let passed = map(1 << 20);
    assert_eq!(passed.evidence.get("missing_bytes"), None);
    assert!(
        passed.sentence.contains("when that was read, 1 ms later, 900 MiB of 1 GiB were promised"),
        "{}",
        passed.sentence
    );
}

#[test]
fn addresses_in_use_are_told_where_none_were_free() {
    let rules = seeing("6.18.44");
    let full = |class| {
        let mut example =
            anonymous(at(20) | CLASS_NO_HOLE | CLASS_SEARCHED | class, 20, 10 << 30, 0, MAP_PRIVATE);
        if let Some(section) = &mut example.section {
            section.total_vm = (127 << 40) >> 12;
        }
        with(&example, &limits(0), &rules)
    };
    let verdict = full(0);
    is(&verdict, Cause::NoAddressRange, true);
    assert_eq!(
        verdict.sentence,
        "mmap() found no free address range of 10 GiB: 127 TiB of the 128 TiB of addresses were in use."
    );
    assert_eq!(verdict.evidence.get("used_bytes"), Some(&(127 << 40)));
    assert_eq!(verdict.evidence.get("addresses_bytes"), Some(&rules.task_size));
    // Below 4 GiB there are far fewer.
    assert_eq!(full(CLASS_LOW).evidence.get("used_bytes"), None);
}
