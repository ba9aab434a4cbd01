//! Processes without an address space of their own: what they are refused is theirs, what they change is told once.

use vmaudit_tests::rows::{assert_exact_peak, assert_nothing_lost};
use vmaudit_tests::{Done, Own, Session, has_lock_events};
use vmaudit_user::model::report::{Failure, Outcome, Process, Report};

/// In the default arrangement, and where every exit is watched.
fn lived(how: &str) -> [Done; 2] {
    [&["--calls", "all"][..], &[]]
        .map(|options| Session::run(options, &["lodger", how, "3", "2"]).go().succeeded())
}

#[track_caller]
fn of<'a>(done: &'a [Own], role: &str) -> &'a Own {
    done.iter().find(|own| own.role == role).unwrap_or_else(|| panic!("no {role} in {done:?}"))
}

#[track_caller]
fn row_of<'a>(report: &'a Report, own: &Own) -> &'a Process {
    let rows: Vec<_> = report.processes.iter().filter(|row| row.pid == own.pid).collect();
    assert_eq!(rows.len(), 1, "rows of {own:?}: {rows:?}");
    rows[0]
}

/// Refused calls of mmap with this outcome, in whose address space.
fn refused(report: &Report, own: &Own, outcome: Outcome) -> Vec<(u64, Option<u32>)> {
    let of = |failure: &&Failure| failure.pid == own.pid && failure.outcome == outcome;
    report.failures.iter().filter(of).map(|failure| (failure.count, failure.address_space_of)).collect()
}

/// Both rows' refusals, none of which is the other's.
#[track_caller]
fn each_has_its_refusals(report: &Report, host: &Own, lodger: &Own) {
    assert_eq!(refused(report, host, Outcome::Unrecovered), [(2, None)], "{:?}", report.failures);
    assert_eq!(refused(report, lodger, Outcome::Unrecovered), [(3, Some(host.pid))], "{:?}", report.failures);
    assert_eq!(refused(report, lodger, Outcome::Recovered), [(1, Some(host.pid))], "{:?}", report.failures);
    assert!(refused(report, host, Outcome::Recovered).is_empty());
    assert_eq!(row_of(report, host).calls["mmap"].failed, Some(2));
    assert_eq!(row_of(report, lodger).calls["mmap"].failed, Some(4));
}

fn a_row_of_the_shared_counts(how: &str, done: &Done) {
    let (owns, report) = (done.own(), done.report());
    let (host, lodger) = (of(&owns, "host"), of(&owns, "lodger"));
    each_has_its_refusals(&report, host, lodger);
    assert_eq!(report.processes.len(), 2, "{:?}", report.processes);
    let (row, shared) = (row_of(&report, host), row_of(&report, lodger));
    assert_eq!((row.shares_address_space_of, shared.shares_address_space_of), (None, Some(host.pid)));
    assert_eq!((shared.comm.as_str(), shared.ppid), ("lodger", Some(host.pid)));
    // What it mapped is in one of the two rows.
    assert!(shared.calls.values().all(|call| (call.calls, call.added, call.removed) == (None, 0, 0)));
    assert!(shared.images.is_empty());
    if has_lock_events() {
        assert_nothing_lost(&report);
        assert_exact_peak(row, host);
        let (count, own) = (&shared.map_count, lodger);
        assert_eq!((count.peak, count.last, count.exact), (Some(own.peak), own.last, true), "{shared:?}");
        if how == "beside" {
            assert_eq!(count.first, own.first);
        }
    }
}

#[test]
fn a_process_made_with_clone_vm_has_a_row_and_refusals_of_its_own() {
    lived("beside").iter().for_each(|done| a_row_of_the_shared_counts("beside", done));
}

#[test]
fn a_vfork_child_that_is_refused_something_has_a_row_too() {
    lived("vfork").iter().for_each(|done| a_row_of_the_shared_counts("vfork", done));
}

#[test]
fn a_vfork_child_that_execs_becomes_an_ordinary_row_and_keeps_its_refusals() {
    for done in lived("exec") {
        let (owns, report) = (done.own(), done.report());
        let (host, lodger, after) = (of(&owns, "host"), of(&owns, "lodger"), of(&owns, "after-exec"));
        assert_eq!(lodger.pid, after.pid);
        each_has_its_refusals(&report, host, lodger);
        let row = row_of(&report, after);
        assert_eq!(row.shares_address_space_of, None);
        assert_eq!(row.images.len(), 1, "{row:?}");
        if has_lock_events() {
            assert_exact_peak(row, after);
            assert_nothing_lost(&report);
        }
    }
}

#[test]
fn the_address_space_outlives_the_process_that_had_it_first() {
    for done in lived("outlives") {
        let (owns, report) = (done.own(), done.report());
        let (host, lodger) = (of(&owns, "host"), of(&owns, "lodger"));
        if !has_lock_events() {
            // There the address space is taken to end with the process that had it; what comes later is the other's own.
            let sum =
                |own, outcome| refused(&report, own, outcome).iter().map(|(count, _)| count).sum::<u64>();
            let of = |own| (sum(own, Outcome::Unrecovered), sum(own, Outcome::Recovered));
            assert_eq!((of(host), of(lodger)), ((2, 0), (3, 1)), "{:?}", report.failures);
            continue;
        }
        each_has_its_refusals(&report, host, lodger);
        assert_eq!(row_of(&report, lodger).map_count.peak, Some(lodger.peak));
        assert_nothing_lost(&report);
    }
}
