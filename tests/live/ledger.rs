//! Every change of the count by place (`--stacks`): what the rows say is what the program did, to the last VMA.

use std::collections::BTreeMap;

use vmaudit_tests::{Done, Session, mappings_can_be_asked_for, send_signal};
use vmaudit_user::model::report::{Changes, NoPlace, Process, Report};

fn process(report: &Report) -> &Process {
    &report.processes[0]
}

fn lost(report: &Report, what: &str) -> u64 {
    report.coverage.lost.get(what).copied().unwrap_or(0)
}

/// The rows of each call add up to what it did in all.
fn assert_adds_up(process: &Process) {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in &process.changes {
        let (added, removed) = sums.entry(&row.syscall).or_default();
        (*added, *removed) = (*added + row.added, *removed + row.removed);
        assert!(row.nobody.is_none() || row.stack.is_empty(), "{row:?}");
    }
    let mut calls: BTreeMap<&str, (u64, u64)> =
        process.calls.iter().map(|(name, it)| (name.as_str(), (it.added, it.removed))).collect();
    calls.retain(|_, (added, removed)| *added + *removed > 0);
    assert_eq!(sums, calls);
}

fn numbers(done: &Done, of: &str) -> BTreeMap<String, u64> {
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one line of JSON");
    let sites = said[of].as_object().expect("a book").iter();
    sites.map(|(site, n)| (site.clone(), n.as_u64().expect("a number"))).collect()
}

fn unmapped(done: &Done) -> u64 {
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one line of JSON");
    said["unmapped"].as_u64().expect("a number")
}

/// What an exec does to the new image has no place in it.
fn of_exec(row: &Changes) -> bool {
    row.syscall.starts_with("exec")
}

fn passes(row: &Changes, function: &str) -> bool {
    row.stack.iter().any(|frame| frame.symbol.as_deref().is_some_and(|name| name.contains(function)))
}

/// A history, as the workload did it and as the rows tell it. Exact: not within some points.
fn compare(words: &[&str]) {
    let done =
        Session::run(&["--stacks"], &[&["--linger", "500", "credits"], words].concat()).go().succeeded();
    let report = done.report();
    let process = process(&report);
    assert_adds_up(process);
    let not_told =
        process.changes.iter().filter(|row| row.nobody == Some(NoPlace::NotSampled) && !of_exec(row));
    let not_told: u64 = not_told.map(|row| row.added + row.removed).sum();
    // Each change that is not told is counted as lost, but for those of others than the process's tasks. Where a mapping
    // is cut in three it is of two VMAs.
    let lost = lost(&report, "ledger_full") + lost(&report, "ledger_disturbed");
    assert!(not_told <= 2 * lost, "{report:#?}");
    let told = |function: &str| {
        let rows = process.changes.iter().filter(|row| passes(row, function));
        rows.fold((0, 0), |(added, removed), row| (added + row.added, removed + row.removed))
    };
    // Of a place whose only stack was not copied in time the callers are missing, and said to be.
    // So where the mappings, which are many, can only be read as a text, and a busy machine left no time for that.
    let says = |row: &Changes, part: &str| row.stack_notes.iter().any(|note| note.contains(part));
    let cut = |row: &&Changes| {
        says(row, "Found by frame pointers")
            || !mappings_can_be_asked_for() && says(row, "so many mappings that")
    };
    let cut = process.changes.iter().filter(cut);
    let (added_by_cut, removed_by_cut) =
        cut.fold((0, 0), |(added, removed), row| (added + row.added, removed + row.removed));
    for (site, made) in numbers(&done, "made") {
        let (added, removed) = told(&site);
        let missing = made.checked_sub(added);
        assert!(
            missing.is_some_and(|missing| missing <= added_by_cut + lost) && removed == 0,
            "{words:?}, {site}: {made} made, {added} and {removed} told: {:#?}",
            process.changes
        );
    }
    let missing = unmapped(&done).checked_sub(told("Holes::unmap").1);
    let missing = missing.is_some_and(|missing| missing <= removed_by_cut + lost);
    assert!(missing, "{words:?}: {:#?}", process.changes);
}

mod lock_events_only {
    use super::*;

    /// A table of what was added and removed from where, and what it is.
    #[test]
    fn the_text_names_the_places() {
        let words = ["--linger", "500", "credits", "swings"];
        let done = Session::run(&["--stacks", "-o", "-"], &words).go().succeeded();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            ["Who changed the count", "REMOVED", "site_a"].iter().all(|part| text.contains(part)),
            "{text}"
        );
    }

    #[test]
    fn each_change_has_its_place() {
        compare(&["few"]);
        compare(&["saw-tooth"]);
        compare(&["shift"]);
    }

    /// Beside the changes of others, each under the lock.
    #[test]
    fn of_threads_at_once() {
        compare(&["threads", "4"]);
    }

    /// Its registers are those of the program before.
    #[test]
    fn of_an_exec_no_place_is_told() {
        let report = Session::run(&["--stacks"], &["burst", "300"]).go().succeeded().report();
        let rows = process(&report).changes.iter().filter(|row| of_exec(row));
        let (added, placed) =
            rows.fold((0, 0), |(added, placed), row| (added + row.added, placed + row.stack.len()));
        assert!(added > 0 && placed == 0, "{:#?}", process(&report).changes);
        assert_adds_up(process(&report));
    }

    /// It goes on while its figures are read: no row has what the sum of its call has not.
    #[test]
    fn of_who_lives_on() {
        let mut target = Session::workload(&["around", "200"]).start_with_pipe();
        target.wait_for_stdout("around");
        let mut watch = Session::watch(&["--stacks", "-p", &target.pid().to_string()]).start();
        watch.wait_for_stderr("watching ");
        // A whole round.
        assert!(target.write(b"x"), "the workload is gone");
        target.wait_for_stdout("again");
        send_signal(watch.pid(), libc::SIGTERM);
        let report = watch.wait().succeeded().report();
        target.wait().succeeded();
        assert!(process(&report).changes.iter().any(|row| row.added > 100 && !row.stack.is_empty()));
        assert_adds_up(process(&report));
    }

    /// Below the levels at which anybody is credited, too: who goes up and down there makes no peak.
    #[test]
    fn of_who_goes_up_and_down() {
        compare(&["swings"]);
    }
}

/// Who does not ask has none of it.
#[test]
fn only_where_it_is_asked_for() {
    let report = Session::run(&[], &["burst", "300"]).go().succeeded().report();
    assert!(process(&report).changes.is_empty());
}

/// Where the kernel refuses the programs the session goes on, exact as ever, and says once why no change has a place.
#[test]
fn where_it_cannot_be_had_it_is_said() {
    let words = ["--linger", "100", "credits", "few"];
    let without = |session: Session| {
        let report = session.go().succeeded().report();
        assert!(
            process(&report).changes.is_empty() && process(&report).map_count.peak > Some(400),
            "{report:#?}"
        );
        let notes: Vec<_> = report.coverage.notes.iter().filter(|it| it.starts_with("--stacks: ")).collect();
        assert_eq!(notes.len(), 1, "{:?}", report.coverage.notes);
        report
    };
    let session = Session::run(&["--stacks"], &words).without(&["ledger_raw", "ledger_classic"]);
    assert!(without(session).coverage.exact_peaks);
    without(Session::run(&["--stacks", "--source", "proc"], &words));
}
