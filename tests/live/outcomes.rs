//! What became of a need that was refused, and from where it was refused: told for each call, not for a group.

use vmaudit_tests::rows::assert_nothing_lost;
use vmaudit_tests::{Done, Session};
use vmaudit_user::model::report::{Failure, Outcome, Report};

/// How many calls had which outcome.
fn outcomes(report: &Report) -> [u64; 3] {
    let all = || report.failures.iter().chain(&report.ordinary_answers);
    [Outcome::Unrecovered, Outcome::Recovered, Outcome::Ordinary]
        .map(|outcome| all().filter(|failure| failure.outcome == outcome).map(|failure| failure.count).sum())
}

/// Both arrangements: every exit of a call is seen, or the releases of the lock are.
const ARRANGEMENTS: [&[&str]; 2] = [&["--calls", "all"], &["--calls", "locking"]];

/// The case's refusals have these outcomes, in either arrangement: unrecovered, recovered, ordinary.
#[track_caller]
fn become_of(case: &str, [unrecovered, recovered, ordinary]: [u64; 3], status: i32) {
    for arrangement in ARRANGEMENTS {
        let done = Session::run(arrangement, &["outcomes", case]).go().ended_with(status);
        let (own, row) = done.only();
        let report = done.report();
        // Without lock events the peaks of several threads are samples.
        if vmaudit_tests::has_lock_events() || case != "another-thread" {
            assert_nothing_lost(&report);
        }
        assert_eq!(outcomes(&report), [unrecovered, recovered, ordinary], "{case}: {:?}", report.failures);
        let counted: u64 = own.refused.iter().map(|refused| refused.count).sum();
        assert_eq!(counted, unrecovered + recovered + ordinary, "{case}");
        for failure in report.failures.iter().chain(&report.ordinary_answers) {
            let refused = own.refused.iter().find(|refused| refused.cause == failure.cause.name());
            assert!(refused.is_some_and(|refused| refused.syscall == failure.syscall), "{failure:?}");
            assert_eq!(failure.pid, row.pid);
        }
    }
}

/// A budget on failures holds exactly if nothing is left unrecovered.
#[track_caller]
fn breaks_the_budget(case: &str, breaks: bool) {
    let expected = if breaks { 86 } else { 0 };
    let done = Session::run(&["--fail-on", "failure"], &["outcomes", case]).go().ended_with(expected);
    assert_eq!(done.report().session.breach.is_some(), breaks, "{case}");
}

#[test]
fn huge_pages_tried_and_ordinary_ones_given() {
    become_of("huge-then-ordinary", [0, 1, 0], 0);
    breaks_the_budget("huge-then-ordinary", false);
}

/// Calls that take no lock are seen by one arrangement alone.
#[test]
fn a_huge_segment_tried_and_an_ordinary_one_given() {
    let words = ["outcomes", "huge-segment-then-ordinary"];
    let done = Session::run(&["--calls", "all"], &words).go().succeeded();
    assert_eq!(outcomes(&done.report()), [0, 1, 0], "{:?}", done.report().failures);
    breaks_the_budget("huge-segment-then-ordinary", false);
}

#[test]
fn a_heap_that_is_blocked_and_mmap_in_its_place() {
    become_of("heap-then-mmap", [0, 3, 0], 0);
    breaks_the_budget("heap-then-mmap", false);
}

#[test]
fn a_ladder_whose_smaller_step_is_given() {
    for arrangement in ARRANGEMENTS {
        let done = Session::run(arrangement, &["outcomes", "ladder"]).go().succeeded();
        let (own, _) = done.only();
        let refused = own.refused[0].count;
        assert!(refused > 5, "the first step was not far too large: {own:?}");
        assert_eq!(outcomes(&done.report()), [0, refused, 0], "{:?}", done.report().failures);
    }
    breaks_the_budget("ladder", false);
}

#[test]
fn a_step_that_is_much_smaller_is_no_recovery() {
    become_of("too-steep", [1, 0, 0], 0);
    breaks_the_budget("too-steep", true);
}

#[test]
fn what_comes_after_another_memory_call_is_no_recovery() {
    become_of("interrupted", [1, 0, 0], 0);
}

#[test]
fn what_another_thread_gets_is_no_recovery() {
    become_of("another-thread", [1, 0, 0], 0);
}

#[test]
fn what_has_another_access_is_no_recovery() {
    become_of("another-access", [1, 0, 0], 0);
}

#[test]
fn the_same_call_once_more() {
    become_of("again", [0, 2, 0], 0);
}

#[test]
fn malloc_that_gets_no_heap_for_a_thread_and_goes_on() {
    become_of("no-own-heap", [0, 4, 0], 0);
    become_of("no-own-heap-hinted", [0, 3, 0], 0);
    breaks_the_budget("no-own-heap", false);
}

#[test]
fn a_reservation_that_only_resembles_mallocs_is_no_recovery() {
    become_of("no-own-heap-nor-memory", [3, 0, 0], 0);
    become_of("no-own-heap-then-stack", [2, 0, 0], 0);
    become_of("a-reservation-of-that-size", [1, 0, 0], 0);
    become_of("reservations-of-other-sizes", [2, 0, 0], 0);
    breaks_the_budget("no-own-heap-nor-memory", true);
}

/// With another C library there are none of these refusals.
#[test]
fn threads_without_heaps_of_their_own_break_no_budget() {
    for arrangement in ARRANGEMENTS {
        let done = Session::run(arrangement, &["outcomes", "malloc-in-threads"]).go().succeeded();
        let [unrecovered, recovered, ordinary] = outcomes(&done.report());
        assert_eq!((unrecovered, ordinary), (0, 0), "{:?}", done.report().failures);
        assert!(recovered % 2 == 0, "{recovered}");
    }
    breaks_the_budget("malloc-in-threads", false);
}

/// With another C library there are no such reservations.
#[test]
fn a_heap_that_malloc_did_without_is_no_failure_where_the_need_itself_is_one() {
    let done = Session::run(&[], &["outcomes", "malloc-in-vain"]).go().ended_with(1);
    let report = done.report();
    for failure in &report.failures {
        let args = failure.example.as_ref().map(|it| &it.args);
        let heap = failure.syscall == "mmap" && args.is_some_and(|it| it["prot"] == "0x0");
        assert_eq!(failure.outcome == Outcome::Recovered, heap, "{failure:?}");
        // Of a process with threads the causes are open without lock events.
        let cause = if vmaudit_tests::has_lock_events() { "rlimit_as" } else { failure.cause.name() };
        assert_eq!(failure.cause.name(), cause, "{failure:?}");
    }
    assert!(report.failures.iter().any(|failure| failure.outcome == Outcome::Unrecovered));
}

#[test]
fn a_vast_reservation_is_a_failure_if_the_program_fails() {
    become_of("probe-and-success", [0, 0, 1], 0);
    become_of("probe-and-failure", [1, 0, 0], 1);
    breaks_the_budget("probe-and-success", false);
}

/// One probe that does no harm must not speak for the needs that were refused for the same reason.
#[test]
fn a_probe_hides_no_need() {
    become_of("probe-hides-needs", [5, 0, 1], 0);
    breaks_the_budget("probe-hides-needs", true);
}

#[test]
fn needs_that_a_full_address_space_refuses_are_failures() {
    become_of("full-address-space", [7, 0, 1], 0);
    breaks_the_budget("full-address-space", true);
}

#[test]
fn a_library_that_cannot_be_mapped_is_a_failure() {
    become_of("library", [5, 0, 1], 0);
    breaks_the_budget("library", true);
}

fn only(done: &Done) -> Failure {
    let [failure] = done.report().failures.try_into().expect("one failure");
    failure
}

fn names(failure: &Failure, n: usize, part: &str) -> bool {
    let stack = &failure.sites[n].stack;
    stack.iter().any(|frame| frame.symbol.as_deref().is_some_and(|symbol| symbol.contains(part)))
}

#[test]
fn places_are_told_apart_with_their_counts_and_sizes() {
    const TOO_MUCH: u64 = 1 << 46;
    const MIB: u64 = 1 << 20;
    for arrangement in ARRANGEMENTS {
        let done = Session::run(arrangement, &["sites", "30", "7"]).go().succeeded();
        let failure = only(&done);
        assert_eq!((failure.count, failure.elsewhere), (37, 0));
        let seen: Vec<_> =
            failure.sites.iter().map(|site| (site.count, site.smallest_bytes, site.largest_bytes)).collect();
        let sizes = (Some(TOO_MUCH + MIB), Some(TOO_MUCH + 7 * MIB));
        assert_eq!(
            seen,
            [(30, Some(TOO_MUCH), Some(TOO_MUCH)), (7, sizes.0, sizes.1)],
            "{:?}",
            failure.sites
        );
        let times = |n: usize| (failure.sites[n].first_at_s, failure.sites[n].last_at_s);
        assert!(times(0).0 <= times(0).1 && times(0).1 <= times(1).0 && times(1).0 <= times(1).1);
        assert_eq!(failure.first_at_s, Some(times(0).0));
        assert_eq!(failure.last_at_s, Some(times(1).1));
    }
}

/// The rarest place is shown as well: a program may have ended there.
#[test]
fn the_last_place_is_never_left_out() {
    let done = Session::run(&[], &["sites", "1000", "1"]).go().succeeded();
    let failure = only(&done);
    assert_eq!(failure.sites.iter().map(|site| site.count).collect::<Vec<_>>(), [1000, 1]);
    assert!(names(&failure, 0, "first_place") && names(&failure, 1, "second_place"), "{:?}", failure.sites);
}

#[test]
fn the_text_tells_the_places() {
    let done = Session::vmaudit(&["run", "--"]).then_workload(&["sites", "30", "7"]).go().succeeded();
    let said = done.stderr_text();
    let first = said.find("30 calls of 64 TiB").expect("the first place is told");
    let second = said.find("7 calls of 64 TiB").expect("the second place is told");
    assert!(first < second, "{said}");
    assert!(said.contains("first_place") && said.contains("second_place"), "{said}");
}
