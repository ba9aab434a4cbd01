//! Which calls are watched, and that of those not one is missing: equality with what the program itself has counted.

use std::collections::BTreeMap;
use std::io::Write as _;

use vmaudit_tests::rows::{ASKED, assert_nothing_lost};
use vmaudit_tests::{Done, Session};
use vmaudit_user::model::report::Report;

const LOCKING: [&str; 2] = ["--calls", "locking"];

/// What was refused, by call, as the report has it and as the program has counted it.
fn refused(done: &Done) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let (own, row) = done.only();
    let seen = row.calls.iter().map(|(call, figures)| (call.clone(), figures.failed.unwrap_or(0)));
    let mut counted = BTreeMap::new();
    for group in &own.refused {
        *counted.entry(group.syscall.clone()).or_default() += group.count;
    }
    (seen.filter(|(_, failed)| *failed > 0).collect(), counted)
}

fn groups(report: &Report) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for failure in report.failures.iter().chain(&report.ordinary_answers) {
        *sums.entry(failure.syscall.clone()).or_default() += failure.count;
    }
    sums
}

#[track_caller]
fn every_refusal_is_counted(options: &[&str], words: &[&str]) {
    let done = Session::run(options, words).go().succeeded();
    // Without lock events the peaks of several threads are samples.
    if vmaudit_tests::has_lock_events() {
        assert_nothing_lost(&done.report());
    }
    let (seen, counted) = refused(&done);
    assert!(!counted.is_empty(), "nothing was refused, so nothing was tested");
    assert_eq!(seen, counted, "{words:?}");
    assert_eq!(groups(&done.report()), counted, "{words:?}: groups");
    // The log keeps what was compared.
    let all = counted.values().sum::<u64>();
    let _ = writeln!(std::io::stderr(), "{}: {all} refusals, all counted: {counted:?}", words.join(" "));
}

#[test]
fn one_thread_of_refused_and_fine_calls() {
    every_refusal_is_counted(&LOCKING, &["mixed", "1", "20000"]);
}

#[test]
fn threads_of_refused_and_fine_calls() {
    every_refusal_is_counted(&LOCKING, &["mixed", "4", "10000"]);
    every_refusal_is_counted(&LOCKING, &["mixed", "16", "5000"]);
}

/// At the limit on VMAs, where munmap is refused as well, one thread and several.
#[test]
fn threads_at_the_limit() {
    let _lower = vmaudit_tests::LowerLimit::new();
    every_refusal_is_counted(&LOCKING, &["mixed-full", "1", "10000"]);
    every_refusal_is_counted(&LOCKING, &["mixed-full", "8", "5000"]);
}

/// Equal to the program's own count, or short of it by no more than what the report says was lost: a work that is put off by
/// an interrupt of the processor to itself comes too late where that interrupt does, and a signal is delivered first.
#[test]
fn signal_handlers_that_make_refused_calls_in_their_midst() {
    const SESSIONS: u32 = 6;
    let mut exact = 0;
    for words in [["mixed", "1", "20000", "100"], ["mixed", "8", "5000", "100"]] {
        for _ in 0..SESSIONS {
            let done = Session::run(&LOCKING, &words).go().succeeded();
            let report = done.report();
            let (seen, counted) = refused(&done);
            let lost = report.coverage.lost["answers_lost"];
            if lost == 0 {
                assert_eq!((&seen, &groups(&report)), (&counted, &counted), "{words:?}");
                exact += 1;
                continue;
            }
            assert!(!report.coverage.exact_locking_calls, "{:?}", report.coverage);
            let missing: u64 = counted
                .iter()
                .map(|(call, count)| {
                    let seen = seen.get(call).copied().unwrap_or(0);
                    assert!(seen <= *count, "{call}: {seen} of {count}");
                    count - seen
                })
                .sum();
            assert!(missing <= lost, "{missing} are missing, {lost} said to be lost: {words:?}");
        }
    }
    assert!(exact > 0, "no session was exact");
}

#[test]
fn the_same_with_all_calls_watched() {
    every_refusal_is_counted(&["--calls", "all"], &["mixed", "4", "5000", "200"]);
}

/// What a growing stack adds must not be taken for what the next call has mapped.
#[test]
fn a_refused_mmap_after_the_stack_has_grown() {
    every_refusal_is_counted(&LOCKING, &["mixed-stack", "1000"]);
}

/// Calls that take the lock are counted where their exits are not seen, others are not; both say which is the case.
#[test]
fn counts_of_calls_are_the_same_in_both_arrangements_or_null() {
    // An arena of malloc's own for the thread is cut to its alignment, which chance gives to one in 32: a munmap less.
    let run = |options: &[&str]| {
        Session::run(options, &["mixed", "1", "3000"]).env("MALLOC_ARENA_MAX", "1").go().succeeded()
    };
    let (one, all) = (run(&LOCKING), run(&["--calls", "all"]));
    let (one, all) = (one.only().1, all.only().1);
    for call in ["mmap", "munmap", "mprotect", "mremap", "brk"] {
        assert_eq!(one.calls[call].calls, all.calls[call].calls, "{call}");
        assert_eq!(one.calls[call].failed, all.calls[call].failed, "{call}");
    }
    let exact = run(&LOCKING).report().coverage.exact_calls;
    assert_eq!(one.calls["madvise"].calls.is_some(), exact, "madvise may do without the lock");
}

/// Another vmaudit looks at the mappings of a task that was refused something, as the task is on its way back and while other
/// threads unmap: neither takes that for a call.
#[test]
fn two_sessions_count_the_same() {
    const CALLS: [&str; 5] = ["mmap", "munmap", "mprotect", "mremap", "brk"];
    let session = Session::run_command(&LOCKING);
    let file = session.file("inner.json");
    let vmaudit = vmaudit_tests::vmaudit();
    let words =
        [vmaudit.to_str().unwrap(), "run", "-q", "--calls", "locking", "-o", file.to_str().unwrap(), "--"];
    let done = session.words(&words).then_workload(&["mixed", "4", "10000"]).go().succeeded();
    let inner: Report = serde_json::from_slice(&std::fs::read(&file).unwrap()).expect("a report");
    let own = done.own().remove(0);
    let [outer, inner] = [done.report(), inner].map(|report| {
        if vmaudit_tests::has_lock_events() && !vmaudit_tests::preempts_programs() {
            assert_nothing_lost(&report);
        }
        let row = report.processes.iter().find(|row| row.pid == own.pid).expect("a row");
        let counts = CALLS.map(|call| (call, row.calls[call].calls, row.calls[call].failed));
        (counts, report.coverage.lost["program_skipped"])
    });
    if outer.1 == 0 && inner.1 == 0 {
        assert_eq!(outer.0, inner.0);
    }
    for (call, _, failed) in outer.0 {
        let counted: u64 =
            own.refused.iter().filter(|group| group.syscall == call).map(|group| group.count).sum();
        assert!(outer.1 > 0 || failed.unwrap_or(0) == counted, "{call}: {failed:?}, {counted}");
    }
}

/// A budget on failures must not rest on calls that nobody looks at.
#[test]
fn a_budget_on_failures_watches_all_calls() {
    let scratch = vmaudit_tests::Scratch::new();
    let budget = scratch.path("budget.toml");
    std::fs::write(&budget, "[[budget]]\nprocess = \"*\"\nmax_failures = 0\n").unwrap();
    let budget = budget.to_str().unwrap();
    for options in
        [["--fail-on", "failure"], ["--fail-on", "any-refusal"], ["--fail-on", "lost"], ["--budget", budget]]
    {
        let report = Session::run(&options, &["burst", "10"]).go().succeeded().report();
        assert!(report.coverage.exact_calls, "{options:?}: {:?}", report.coverage);
        assert!(report.session.breach.is_none(), "{options:?}: {:?}", report.session);
    }
    // A peak needs no calls.
    let report = Session::run(&["--fail-on", "peak"], &["burst", "10"]).go().succeeded().report();
    assert_eq!(
        report.coverage.exact_calls,
        !vmaudit_tests::answers_can_be_asked_for(),
        "{:?}",
        report.coverage
    );
}

/// `doctor` names each call whose refusals the cheaper arrangement does not see.
#[test]
fn doctor_names_the_refusals_that_are_not_seen() {
    let doctor = Session::vmaudit(&["doctor", "--json"]).go().succeeded();
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    // The log has the table of `tests/README.md`.
    let hooks = found["hooks"].as_array().expect("a list");
    let via = |name: &str| hooks.iter().find(|hook| hook["name"] == name).map(|hook| hook["via"].to_string());
    let ways = ["mmap_lock_released", "sys_exit", "exit_mmap", "vm_unmapped_area", "do_brk_flags"]
        .map(|name| format!("{name} {}", via(name).unwrap_or_default()));
    let _ = writeln!(std::io::stderr(), "doctor on {}: {}", found["kernel"], ways.join(", "));
    let arrangements: Vec<&str> = found["calls"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["arrangement"].as_str())
        .collect();
    let cheaper = Session::run(&["--calls", "locking"], &["exit", "0"]).go().succeeded().report();
    let asks = cheaper.call_exit().and_then(|hook| hook.via.clone()).as_deref() == Some(ASKED);
    assert_eq!(asks, vmaudit_tests::answers_can_be_asked_for(), "{:?}", cheaper.coverage);
    let expected: &[&str] = if asks { &["all", "locking"] } else { &["all"] };
    assert_eq!(arrangements, expected, "{found}");
    if !asks {
        return;
    }
    let named = found["calls"][1]["not_watched"].to_string();
    let mut unseen = 0;
    for words in [
        &["causes", "tasks"][..],
        &["causes", "wrap"],
        &["causes", "gap"],
        &["more-calls", "shmget-vast", "3"],
        &["more-calls", "mincore-gap", "3"],
        &["more-calls", "msync-gap", "3"],
        &["more-calls", "lock-nothing", "3"],
    ] {
        let refused = |arrangement: &str| {
            groups(&Session::run(&["--calls", arrangement], words).go().succeeded().report())
        };
        let seen = refused("locking");
        for (call, count) in refused("all") {
            if seen.get(&call) != Some(&count) {
                unseen += 1;
                assert!(named.contains(&call), "{words:?}: {call} is not in {named}");
            }
        }
    }
    assert!(unseen >= 6, "{unseen} calls were not seen: is the arrangement the cheaper one?");
}
