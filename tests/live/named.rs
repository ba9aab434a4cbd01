//! What tasks do is told by their names.

use vmaudit_tests::rows::{assert_exact_peak, assert_nothing_lost};
use vmaudit_tests::{Own, Session, has_lock_events};
use vmaudit_user::model::report::{Process, TaskFigures};

/// Tasks, pages of the first.
const TASKS: u64 = 4;
const PAGES: u64 = 30;

fn named(options: &[&str], how: &str) -> (Own, Process) {
    let done =
        Session::run(options, &["named", how, &TASKS.to_string(), &PAGES.to_string()]).go().succeeded();
    if has_lock_events() {
        assert_nothing_lost(&done.report());
    }
    let (own, row) = done.only();
    if has_lock_events() {
        assert_exact_peak(&row, &own);
    }
    (own, row)
}

#[track_caller]
fn case(row: &Process, i: u64) -> &TaskFigures {
    let name = format!("case-{i}");
    let found: Vec<_> = row.tasks.iter().filter(|it| it.name.as_deref() == Some(&name)).collect();
    assert_eq!(found.len(), 1, "{name} in {:?}", row.tasks);
    found[0]
}

/// All that was done is some name's.
#[track_caller]
fn nothing_is_left(row: &Process) {
    let sum = |figure: fn(&TaskFigures) -> Option<u64>| row.tasks.iter().filter_map(figure).sum::<u64>();
    let all = row.calls.iter().filter(|(name, _)| *name != "[foreign]");
    let (mut added, mut removed, mut failed) = (0, 0, 0);
    for (_, call) in all {
        added += call.added;
        removed += call.removed;
        failed += call.failed.unwrap_or(0);
    }
    assert_eq!((sum(|it| it.added), sum(|it| it.removed), sum(|it| it.failed)), (added, removed, failed));
}

/// Each name has what its tasks did, with a peak of its own.
#[track_caller]
fn one_after_the_other(own: &Own, row: &Process) {
    for i in 0..TASKS {
        let pages = PAGES + i;
        let it = case(row, i);
        assert_eq!((it.added, it.removed, it.failed), (Some(pages), Some(pages), Some(i)), "{it:?}");
        assert_eq!(it.peak, Some(own.base + pages), "{it:?}, {own:?}");
    }
    nothing_is_left(row);
}

#[test]
fn a_task_that_renames_itself_has_figures_for_each_name() {
    let (own, row) = named(&["--calls", "all"], "renames");
    one_after_the_other(&own, &row);
    assert_eq!(row.tasks.len() as u64, TASKS + 1, "{:?}", row.tasks);
}

#[test]
fn threads_that_work_one_after_the_other_have_figures_and_peaks_of_their_own() {
    for options in [&["--calls", "all"][..], &[]] {
        let (own, row) = named(options, "threads");
        if has_lock_events() {
            one_after_the_other(&own, &row);
            continue;
        }
        // Samples do not tell whose changes they saw; refusals are told.
        for i in 1..TASKS {
            let it = case(&row, i);
            assert_eq!((it.added, it.removed, it.failed, it.peak), (None, None, Some(i), None), "{it:?}");
        }
    }
}

#[test]
fn threads_that_work_together_have_no_peaks_of_their_own() {
    let (_, row) = named(&[], "together");
    if !has_lock_events() {
        assert!(row.tasks.is_empty(), "{:?}", row.tasks);
        return;
    }
    for i in 0..TASKS {
        let it = case(&row, i);
        assert_eq!((it.added, it.removed, it.peak), (Some(PAGES), Some(PAGES), None), "{it:?}");
    }
    nothing_is_left(&row);
}

#[test]
fn names_beyond_what_is_kept_are_counted_together() {
    let done = Session::run(&[], &["named", "many", "200", "1"]).go().succeeded();
    let (_, row) = done.only();
    assert_eq!(row.tasks.len(), 130, "{:?}", row.tasks);
    let rest = row.tasks.last().unwrap();
    // 128 beside the first.
    assert_eq!((rest.name.as_deref(), rest.added, rest.peak), (None, Some(200 - 128), None));
    nothing_is_left(&row);
}

#[test]
fn a_process_whose_tasks_have_one_name_is_not_told_by_names() {
    let done = Session::run(&[], &["threads", "3", "20"]).go().succeeded();
    assert!(done.only().1.tasks.is_empty());
}
