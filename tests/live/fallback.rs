//! Without the lock events (5.10, or refused): counts are read at the exits of calls. Exact for one task, labelled for
//! several; the report and `doctor` say what takes the place of what. Forced here, so that every kernel shows it.

use vmaudit_tests::rows::{ASKED, assert_each_has_its_row, assert_exact, assert_nothing_lost};
use vmaudit_tests::session::each;
use vmaudit_tests::{Done, Own, Session, preempts_programs};
use vmaudit_user::model::report::{HookState, Process, Report, SourceKind};

const LOCK_EVENTS: [&str; 6] = [
    "asking_raw2",
    "asking_classic24",
    "released_raw2",
    "released_raw3",
    "released_classic24",
    "released_classic20",
];

fn run(words: &[&str]) -> Done {
    Session::run(&[], words).without(&LOCK_EVENTS).go().succeeded()
}

/// The substitutes are raw programs, which kernels from 7.0 on skip now and then, and then count it: nothing is called
/// exact any more.
fn skipped(report: &Report) -> bool {
    preempts_programs() && report.coverage.lost["program_skipped"] > 0
}

#[track_caller]
fn assert_labelled(report: &Report, owns: &[Own]) {
    assert!(!report.coverage.exact_peaks, "{:?}", report.coverage);
    for row in &report.processes {
        assert!(!row.map_count.exact, "{row:?}");
        let most = owns.iter().filter(|own| own.pid == row.pid).map(|own| own.peak).max();
        assert!(row.map_count.peak <= most, "never above the truth: {row:?} {owns:?}");
    }
}

/// Each process has its row, exact or (where programs are skipped) labelled.
#[track_caller]
fn assert_rows(done: &Done) {
    let (owns, report) = (done.own(), done.report());
    if skipped(&report) {
        assert_labelled(&report, &owns);
    } else {
        assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
        assert_nothing_lost(&report);
    }
}

fn images(row: &Process) -> Vec<u64> {
    let mut images: Vec<u64> = row.images.iter().map(|image| image.peak).collect();
    images.sort_unstable();
    images
}

#[track_caller]
fn assert_says_so(report: &Report) {
    assert_eq!(report.source, SourceKind::Ebpf);
    for (name, via) in [("mmap_lock_released", "sys_exit"), ("exit_mmap", "sched_process_exit")] {
        let hook = report.coverage.hooks.iter().find(|hook| hook.name == name).expect("each row is there");
        assert_eq!((hook.state, hook.via.as_deref()), (HookState::Missing, Some(via)), "{hook:?}");
        assert!(hook.loses.is_some() && hook.reason.is_some(), "{hook:?}");
    }
}

#[test]
fn one_thread_has_its_exact_peak_and_calls() {
    let done = run(&each(&["burst 5000", "holes 3000", "shrink 1000", "brk-shrink 1000"]));
    assert_eq!(done.own().len(), 5, "and the parent");
    assert_rows(&done);
    assert_says_so(&done.report());
}

#[test]
fn short_lived_children_have_their_exact_peaks_however_they_end() {
    for words in
        [["children", "300", "exit"], ["children", "100", "killed"], ["children", "50", "exec-missing"]]
    {
        assert_rows(&run(&words));
    }
}

#[test]
fn an_exec_starts_anew_and_vfork_shares() {
    let done = run(&["children", "30", "exec"]);
    let (owns, report) = (done.own(), done.report());
    if skipped(&report) {
        assert_labelled(&report, &owns);
    } else {
        for row in &report.processes {
            let mut peaks: Vec<u64> =
                owns.iter().filter(|own| own.pid == row.pid).map(|own| own.peak).collect();
            peaks.sort_unstable();
            assert_eq!((images(row), row.map_count.exact), (peaks, true), "{row:?}");
        }
    }
    let done = run(&["vfork", "10"]);
    let (owns, report) = (done.own(), done.report());
    if skipped(&report) {
        return assert_labelled(&report, &owns);
    }
    for own in &owns {
        let row = report.processes.iter().find(|row| row.pid == own.pid).expect("each has its row");
        assert_eq!((row.map_count.peak, row.map_count.exact), (Some(own.peak), true), "{row:?}");
    }
}

#[test]
fn several_threads_are_labelled() {
    let done = run(&["threads", "4", "1000"]);
    let (own, row) = done.only();
    assert!(row.map_count.peak.is_some_and(|peak| peak <= own.peak), "never above the truth: {row:?}");
    assert!(!row.map_count.exact, "{row:?}");
    assert!(!done.report().coverage.exact_peaks);
    assert_says_so(&done.report());
}

#[test]
fn refused_calls_are_counted_and_explained_for_one_thread() {
    let done = run(&["stackoverflow"]);
    let (own, row) = done.only();
    let report = done.report();
    if skipped(&report) {
        return assert_labelled(&report, &[own]);
    }
    assert_exact(&row, &own);
    let refused = &own.refused[0];
    assert_eq!(row.calls["munmap"].failed, Some(refused.count));
    assert_eq!(row.unmap_leaked_bytes, Some(own.leaked_bytes));
    let [failure] = report.failures.as_slice() else { panic!("one kind of failure: {:?}", report.failures) };
    assert_eq!((failure.count, failure.errno.as_str()), (refused.count, "ENOMEM"));
    assert_eq!((failure.cause.name(), failure.certain), ("max_map_count", true), "{failure:?}");
}

#[test]
fn a_trace_without_the_lock_events_has_every_change_of_one_thread() {
    let session = Session::vmaudit(&["trace", "-o"]).without(&LOCK_EVENTS);
    let lines = session.file("lines.json");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&["holes", "300"]).go().succeeded();
    let own = done.own().remove(0);
    let after: Vec<u64> = crate::attach::objects(&done.read("lines.json"))
        .iter()
        .filter_map(|line| crate::attach::find(line, &["after"]).and_then(serde_json::Value::as_u64))
        .collect();
    assert_eq!((after.iter().max().copied(), after.last().copied()), (Some(own.peak), own.last));
}

/// More places in a row are taken for good than one birth looks at: at most every birth that meets them is lost, and
/// not all that follow.
#[test]
fn many_neighbouring_places_taken_for_good_do_not_end_all_births() {
    let done = Session::run(&["--slots", "128"], &["beside-standing", "90", "120"])
        .without(&LOCK_EVENTS)
        .go()
        .succeeded();
    let report = done.report();
    let lost = report.coverage.lost["table_full"];
    // Each round through the table of 128 may lose one birth, or find a place for it a moment later.
    assert!(lost <= 8, "{lost} births lost: {:?}", report.coverage.lost);
    let rows = report.processes.len() as u64;
    assert!((1 + 90 + 120 - lost..=1 + 90 + 120).contains(&rows), "{rows} rows, {lost} lost");
}

#[test]
fn doctor_says_what_takes_the_place_of_what() {
    let done = Session::vmaudit(&["doctor"]).without(&LOCK_EVENTS).go();
    let said = String::from_utf8(done.stdout).expect("UTF-8");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("mmap_lock_released") && said.contains("several threads"), "{said}");
    assert!(!said.contains("Peaks are exact here. "), "{said}");
}

#[test]
fn without_the_substitutes_too_proc_is_left_and_said_so() {
    let programs = [LOCK_EVENTS.as_slice(), &["sampled_exit"]].concat();
    let done = Session::run(&[], &["exit", "0"]).without(&programs).go().succeeded();
    assert_eq!(done.report().source, SourceKind::Proc);
    assert_eq!(done.stderr_text().lines().count(), 1, "{}", done.said());
}

/// The program on the lock gives over to another when it wants an answer; where that one is missing, the exits of calls show
/// the same, be the program in between a raw or a classic one.
#[test]
fn refusals_are_seen_whichever_program_asks_for_them() {
    let asks = |report: &Report| {
        report.call_exit().and_then(|hook| hook.via.clone()).unwrap_or_default().contains(ASKED)
    };
    let usually = vmaudit_tests::answers_can_be_asked_for();
    assert_eq!(asks(&Session::run(&[], &["exit", "0"]).go().succeeded().report()), usually);
    for without in [&["ask_raw"][..], &["ask_raw", "ask_classic"]] {
        let done = Session::run(&[], &["limit", "munmap", "3"]).without(without).go().succeeded();
        let (own, row) = done.only();
        assert_exact(&row, &own);
        let refused: u64 = own.refused.iter().map(|refused| refused.count).sum();
        assert_eq!(row.calls["munmap"].failed, Some(refused), "{without:?}");
        let report = done.report();
        assert_eq!(asks(&report), usually && without.len() == 1, "{:?}", report.coverage.hooks);
    }
}
