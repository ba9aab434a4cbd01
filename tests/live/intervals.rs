//! Peaks by interval: equal to the book of a workload that knows when its count was how high; of those that lived shorter
//! than one too.

use std::fs::File;

use vmaudit_tests::{Done, Session};
use vmaudit_user::model::event::{Event, Interval, Reached};
use vmaudit_user::model::report::{Process, Series};
use vmaudit_user::source::Source as _;
use vmaudit_user::source::recording::Reader;

/// A burst stood at this height from one time to another, CLOCK_MONOTONIC ns.
#[derive(Clone, Copy)]
struct Stood {
    from: u64,
    until: u64,
    height: u64,
}

/// What the workload booked: the count between bursts, and the bursts.
fn book(done: &Done) -> (u64, Vec<Stood>) {
    let text = String::from_utf8_lossy(&done.stdout);
    let mut numbers = text.split_whitespace().map(|word| word.parse::<u64>().expect("a number"));
    let base = numbers.next().expect("a base");
    let rest: Vec<u64> = numbers.collect();
    let bursts = rest.chunks_exact(3).map(|it| Stood { from: it[0], until: it[1], height: it[2] });
    (base, bursts.collect())
}

fn intervals(done: &Done) -> Vec<Interval> {
    let file = File::open(done.scratch.path("session.vma")).expect("a recording");
    let mut reader = Reader::new(file).expect("a recording that can be read");
    let mut all = Vec::new();
    while reader.drain(usize::MAX, &mut |event| {
        if let Event::Interval(interval) = event {
            all.push(*interval);
        }
    }) {}
    all
}

/// Least and most that the peak from one time to another can be; a boundary is a clock reading beside a store.
fn bounds(book: &(u64, Vec<Stood>), from: u64, to: u64, margin: u64) -> (u64, u64) {
    let (base, bursts) = book;
    let inside = |it: &&Stood| it.from >= from + margin && it.until + margin <= to;
    let least = bursts.iter().filter(inside).map(|it| it.height).max().unwrap_or(*base);
    // A burst begins behind the one before it and ends before the next.
    let within = bursts.iter().enumerate().filter(|(n, _)| {
        let begins = n.checked_sub(1).map_or(0, |before| bursts[before].until);
        let ends = bursts.get(n + 1).map_or(u64::MAX, |next| next.from);
        begins <= to + margin && ends + margin >= from
    });
    let most = within.map(|(_, it)| it.height).max().unwrap_or(*base);
    (least, most)
}

fn series(row: &Process) -> &Series {
    let series = row.series.as_ref().unwrap_or_else(|| panic!("no series: {row:?}"));
    assert_eq!(
        (series.ends_s.len(), series.peak.len()),
        (series.peak.len(), series.last.len()),
        "{series:?}"
    );
    assert!(series.ends_s.len() <= 128, "{}", series.ends_s.len());
    assert!(series.ends_s.windows(2).all(|two| two[0] < two[1]), "{series:?}");
    assert_eq!(series.peak.iter().max().copied(), row.map_count.peak, "{series:?}");
    assert_eq!(series.last.last().copied(), row.map_count.last, "{series:?}");
    series
}

/// Runs bursts and compares each interval with the book; returns how many were equal to what could be told exactly.
#[track_caller]
fn judged(interval: &str, ms: &str, margin: u64) -> (usize, Process) {
    let done = Session::run(&["--interval", interval], &["bursts", ms]).go().succeeded();
    let book = book(&done);
    let report = done.report();
    let row = report.processes[0].clone();
    let mut equal = 0;
    for Interval { from_ns, to_ns, of, .. } in intervals(&done) {
        for Reached(_, peak, _) in of {
            // Before its first burst there is the start of the program, behind the last its end.
            let busy = book.1.first().is_some_and(|first| first.from < from_ns)
                && book.1.last().is_some_and(|last| last.until > to_ns);
            if !busy {
                continue;
            }
            let (least, most) = bounds(&book, from_ns, to_ns, margin);
            let peak = u64::from(peak);
            assert!(least <= peak && peak <= most, "{from_ns} to {to_ns}: {peak}, not {least} to {most}");
            equal += usize::from(least == most);
        }
    }
    (equal, row)
}

#[test]
fn the_peak_of_each_interval_is_that_of_the_book() {
    let (equal, row) = judged("100ms", "3000", 1_000_000);
    // How many depends on the machine; one is enough to have compared something.
    assert!(equal > 0, "{equal}");
    let series = series(&row);
    assert!(series.exact && series.interval_s == 0.1, "{series:?}");
}

#[test]
fn fast_intervals_beside_changes_at_full_rate_lose_no_peak() {
    let (equal, row) = judged("10ms", "3000", 500_000);
    assert!(equal > 0, "{equal}");
    let series = series(&row);
    assert!(series.exact, "{series:?}");
    // An emulated machine comes to fewer than are kept.
    assert!(
        series.interval_s > 0.01 || vmaudit_tests::in_guest(),
        "{}: as many as were told",
        series.interval_s
    );
}

#[test]
fn those_that_live_shorter_than_an_interval_have_theirs() {
    let done = Session::run(&[], &["children", "40"]).go().succeeded();
    let report = done.report();
    assert!(report.processes.len() >= 41);
    for row in &report.processes {
        assert!(series(row).exact || !row.map_count.exact, "{row:?}");
    }
}

#[test]
fn an_exec_goes_on_in_the_same_series() {
    let done = Session::run(&[], &["exec-self", "100", "5"]).go().succeeded();
    let report = done.report();
    let row = &report.processes[0];
    assert!(row.images.len() > 1 && series(row).exact == row.map_count.exact, "{row:?}");
}

#[test]
fn samples_over_time_are_not_called_exact() {
    let done = Session::run(&["--source", "proc"], &["leak", "200", "3000"]).go().succeeded();
    let report = done.report();
    let sampled = report.processes.iter().filter_map(|row| row.series.as_ref());
    assert!(sampled.clone().count() > 0 && sampled.into_iter().all(|series| !series.exact), "{report:?}");
}

#[test]
fn a_leak_is_told_with_its_rate_and_a_burst_is_none() {
    let done = Session::run(&["--max-growth", "100/s"], &["leak", "400", "5000"]).go();
    assert_eq!(done.status.code(), Some(86), "{}", done.stderr_text());
    let report = done.report();
    assert!(report.breaches[0].shown && report.breaches[0].budget == "max_growth", "{:?}", report.breaches);
    let advice = report.recommendation.sentences.join(" ");
    assert!(advice.contains("grew steadily") && advice.contains("only delays"), "{advice}");
    let growth = report.processes[0].growth.expect("a series tells");
    assert!(growth.steady && (growth.per_s - 400.0).abs() < 20.0, "{growth:?}");
    let limit = report.limits.max_map_count.unwrap() as f64;
    let left = (limit - report.processes[0].map_count.last.unwrap() as f64) / growth.per_s;
    assert!((growth.reaches_limit_in_s.unwrap() - left).abs() < 1.0, "{growth:?} {left}");
    let calm = Session::run(&["--max-growth", "100/s"], &["bursts", "5000"]).go().succeeded().report();
    assert!(calm.breaches.is_empty(), "{:?}", calm.breaches);
    assert!(!calm.processes[0].growth.expect("a series tells").steady, "{:?}", calm.processes[0].growth);
}
