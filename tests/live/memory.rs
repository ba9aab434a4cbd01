//! How large processes were, which limits they had, which would have been enough, and what refused calls left mapped.

use std::io;
use std::os::unix::process::CommandExt as _;

use vmaudit_tests::rows::{assert_left, assert_nothing_lost};
use vmaudit_tests::{LowerLimit, PAGE, Session, has_lock_events};
use vmaudit_user::model::report::{Accuracy, Cause, Report, Rlimit};

/// Runs a case of `sizes`: the report's figures are those that the process read in its own status file.
#[track_caller]
fn sizes_of(case: &str) {
    let done = Session::run(&[], &["sizes", case]).go().succeeded();
    let (own, row) = done.only();
    assert_nothing_lost(&done.report());
    let sizes = own.sizes.expect("the workload knows them");
    if !has_lock_events() {
        assert_eq!(row.memory, None);
        return;
    }
    let memory = row.memory.expect("the lock events show sizes");
    let seen = [
        memory.address_space_peak_bytes,
        memory.data_peak_bytes,
        memory.locked_peak_bytes,
        memory.stack_peak_bytes,
    ];
    assert!(memory.exact, "{memory:?}");
    let known = [sizes.address_space, sizes.data, sizes.locked, sizes.stack];
    assert_eq!(seen, known, "address space, data, locked, stack of {case}");
}

macro_rules! cases {
    ($of:ident: $($name:ident $case:literal,)*) => {
        mod $of {
            $(#[test]
            fn $name() {
                super::$of($case);
            })*
        }
    };
}

cases! { sizes_of:
    mappings_that_come_and_go "up-and-down",
    a_mapping_that_grows_where_it_is "in-place",
    a_mapping_that_moves "moved",
    a_mapping_in_place_of_another "replaced",
    a_heap "heap",
    locked_memory "locked",
    a_stack_that_grows "stack",
    a_stack_that_grows_while_much_is_mapped "deep-at-the-peak",
}

/// Runs a case of `left`: what is still mapped at the end counts, and counts once.
#[track_caller]
fn left_by(case: &str) {
    let _lower = LowerLimit::new();
    for options in [["--calls", "all"], ["--calls", "locking"]] {
        left_as_seen_by(&options, case);
    }
}

#[track_caller]
fn left_as_seen_by(options: &[&str], case: &str) {
    let done = Session::run(options, &["left", case]).go().succeeded();
    let (own, row) = done.only();
    let report = done.report();
    let refused: u64 = own.refused.iter().map(|refused| refused.count).sum();
    assert_eq!(
        report.failures.iter().map(|failure| failure.count).sum::<u64>(),
        refused,
        "{:?}",
        report.failures
    );
    assert_left(&row, &own);
    if !has_lock_events() {
        return;
    }
    // What comes and goes close by may be more than the ring buffer holds.
    let bound = row.unmap_leaked_bound;
    let loops = case == "beside-a-loop" && bound == Some(Accuracy::AtMost);
    assert!(bound == Some(Accuracy::Exact) || loops, "{case}: {bound:?}");
    let kept: u64 = report.failures.iter().filter_map(|failure| failure.evidence.get("kept_bytes")).sum();
    assert_eq!(kept, own.leaked_bytes, "{:?}", report.failures);
}

cases! { left_by:
    fifty_refusals_of_two_pages "retried",
    ranges_that_overlap "overlapping",
    a_range_that_is_unmapped_later "granted-later",
    ranges_that_go_with_all_around_them "with-all-around",
    a_range_that_goes_in_part "an-edge",
    a_range_that_something_else_is_mapped_over "replaced",
    a_range_that_moves "moved",
    a_range_in_what_shrinks_later "shrunk-later",
    a_range_that_comes_again_and_is_refused_again "refused-again",
    a_thousand_ranges_twice "many",
    a_range_beside_others_that_come_and_go "beside-a-loop",
    the_end_of_a_heap "heap",
}

/// Bytes that the report calls enough of this limit.
#[track_caller]
fn enough(report: &Report, cause: Cause) -> u64 {
    let failure = report.failures.iter().find(|failure| failure.cause == cause);
    let failure =
        failure.unwrap_or_else(|| panic!("no call was refused by {cause:?}: {:?}", report.failures));
    failure.evidence["enough_bytes"]
}

/// A limit that refuses calls: with the one that the report calls enough they are granted, with a page less they are not.
#[track_caller]
fn enough_of(which: &str, bytes: &str, cause: Cause, name: &str) {
    if !has_lock_events() {
        let report = Session::run(&[], &["needs", which, bytes]).go().ended_with(3).report();
        assert!(report.failures.iter().all(|failure| !failure.evidence.contains_key("enough_bytes")));
        return;
    }
    let report = Session::run(&[], &["needs", which, bytes]).go().ended_with(3).report();
    let said = |enough: u64| {
        let begin = format!("{name} of ");
        let kib = format!(" {})", enough.div_ceil(1024));
        report.recommendation.sentences.iter().any(|it| it.starts_with(&begin) && it.contains(&kib))
    };
    let first = enough(&report, cause);
    assert!(said(first), "{first}: {:?}", report.recommendation.sentences);
    // What was refused at first takes its place when it is granted: what comes then is known only by another run.
    let mut needed = first;
    for _ in 0..3 {
        let done = Session::run(&[], &["needs", which, &needed.to_string()]).go();
        if done.status.code() == Some(0) {
            break;
        }
        let next = enough(&done.ended_with(3).report(), cause);
        assert!(next > needed, "{next} after {needed}");
        needed = next;
    }
    Session::run(&[], &["needs", which, &needed.to_string()]).go().succeeded();
    Session::run(&[], &["needs", which, &(needed - PAGE).to_string()]).go().ended_with(3);
}

#[test]
fn the_address_space_that_would_have_been_enough() {
    enough_of("as", "25000000", Cause::RlimitAs, "RLIMIT_AS");
}

#[test]
fn the_data_that_would_have_been_enough() {
    enough_of("data", "16000000", Cause::RlimitData, "RLIMIT_DATA");
}

#[test]
fn the_locked_memory_that_would_have_been_enough() {
    enough_of("memlock", "65536", Cause::RlimitMemlock, "RLIMIT_MEMLOCK");
}

/// A session on the workload whose report is written as a text too.
fn with_text(words: &[&str]) -> Session {
    let session = Session::vmaudit(&["run"]);
    let files = ["report.json", "report.txt"].map(|name| session.file(name));
    let session = session.words(&["-o"]).words(&files[..1]).words(&["-o"]).words(&files[1..]);
    session.words(&["--"]).then_workload(words)
}

/// The limits are the caller's, although vmaudit lifts its own; a line tells of those that somebody has set.
#[test]
fn the_limits_that_the_command_began_with() {
    const AS: (u64, u64) = (3 << 30, 4 << 30);
    const FILES: (u64, u64) = (123, 456);
    let session = with_text(&["burst", "10"]);
    let mut command = session.command();
    // SAFETY: system calls only, on values made here.
    unsafe {
        command.pre_exec(|| {
            for (resource, (rlim_cur, rlim_max)) in [(libc::RLIMIT_AS, AS), (libc::RLIMIT_NOFILE, FILES)] {
                if libc::setrlimit(resource, &libc::rlimit { rlim_cur, rlim_max }) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let done = session.start_as(&mut command).wait().succeeded();
    let report = done.report();
    let rlimits = report.session.rlimits.expect("a command was run");
    let of = |(soft, hard)| Rlimit { soft: Some(soft), hard: Some(hard) };
    assert_eq!((rlimits.address_space, rlimits.nofile), (of(AS), of(FILES)));
    let text = done.read("report.txt");
    assert!(
        text.contains("Largest sizes: address space ") && text.contains("of 3 GiB (RLIMIT_AS, "),
        "{text}"
    );
    let usual = with_text(&["burst", "10"]).go().succeeded();
    assert_eq!(usual.report().session.rlimits.expect("a command was run").address_space.soft, None);
    assert!(!usual.read("report.txt").contains("Largest sizes"));
}
