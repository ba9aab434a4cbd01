//! Exact or labelled while others preempt: short-lived families and bursts beside busy neighbours, and beside somebody
//! who hammers bpf() map calls.
//!
//! The kernel skips programs in two ways (vmaudit-user/src/source/hooks.rs). Whatever it does: a figure that is called
//! exact equals what the workload knows of itself, and one that is not has a loss counter that says so.

use std::collections::BTreeMap;
use std::io::Write as _;

use vmaudit_tests::rows::{assert_exact, assert_exact_peak};
use vmaudit_tests::session::Running;
use vmaudit_tests::{LowerLimit, Own, Session, has_lock_events, preempts_programs};
use vmaudit_user::model::report::{Cause, Process};

/// Busy neighbours, beside whatever runs under vmaudit.
const BUSY: &str = "10";

/// The programs that see the lock's releases, by form.
const RAW: [&str; 3] = ["released_raw2", "released_raw3", "asking_raw2"];
const CLASSIC: [&str; 3] = ["released_classic24", "released_classic20", "asking_classic24"];

/// What runs, each with known peaks: children that live for less than a millisecond, two bursts, holes that only a read
/// release shows, and threads.
fn work() -> Vec<Vec<String>> {
    let most: usize = std::env::var("VMAUDIT_CHILDREN").map_or(2000, |n| n.parse().expect("a number"));
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    [format!("children {}", most / 5), "burst 64".into(), "burst 1000".into(), "holes 500".into()]
        .into_iter()
        .chain(has_lock_events().then(|| "threads 4 200".into()))
        .map(words)
        .collect()
}

fn neighbours(words: &[&str]) -> Running {
    let mut running = Session::workload(words).start_with_pipe();
    running.wait_for_stdout("busy");
    running
}

#[track_caller]
fn assert_no_call_too_many(row: &Process, own: &Own) {
    for (name, calls) in &own.calls {
        let figures = row.calls.get(name).cloned().unwrap_or_default();
        assert!(figures.calls.is_none_or(|n| n <= calls.calls), "{name} of {own:?}: {row:?}");
        assert!(figures.failed.is_none_or(|n| n <= calls.failed), "{name} of {own:?}: {row:?}");
    }
}

/// What became of the rows of some sessions.
#[derive(Debug, Default)]
struct Tally {
    /// Peak and calls.
    exact: u64,
    /// The peak; calls were not watched, or are labelled.
    exact_peak: u64,
    /// The peak is labelled, or the row is missing and something says so.
    labelled: u64,
    skipped: u64,
    births_missed: u64,
    /// All counters of loss, and what each hook was not shown.
    lost: BTreeMap<String, u64>,
}

impl Tally {
    /// Runs all of [`work`]. Every row is exact and equal to the truth, or labelled and counted.
    fn of(options: &[&str], without: &[&str]) -> Self {
        let mut tally = Self::default();
        for words in work() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut session = Session::run(options, &words);
            if !without.is_empty() {
                session = session.without(without);
            }
            let done = session.go().succeeded();
            let (owns, report) = (done.own(), done.report());
            let lost = |name: &str| report.coverage.lost[name];
            let doubtful = lost("program_skipped") > 0 || lost("skips_unreadable") > 0;
            let mut all = true;
            for own in &owns {
                match report.processes.iter().find(|row| row.pid == own.pid) {
                    Some(row) if row.map_count.exact && report.coverage.exact_locking_calls => {
                        assert_exact(row, own);
                        tally.exact += 1;
                    }
                    Some(row) if row.map_count.exact => {
                        assert_exact_peak(row, own);
                        assert_no_call_too_many(row, own);
                        tally.exact_peak += 1;
                    }
                    other => {
                        assert!(
                            doubtful,
                            "not exact, and no counter says why: {other:?} {:?}",
                            report.coverage
                        );
                        all = false;
                        tally.labelled += 1;
                        let peak = other.and_then(|row| row.map_count.peak);
                        assert!(
                            peak.is_none_or(|peak| peak <= own.peak),
                            "above the truth: {other:?} {own:?}"
                        );
                    }
                }
            }
            let ours = |pid| owns.iter().any(|own| own.pid == pid);
            assert!(report.processes.iter().all(|row| ours(row.pid)), "a row of nobody");
            // Exact rows alone do not show that none is missing.
            assert!(if report.coverage.exact_peaks { all } else { doubtful }, "{:?}", report.coverage);
            let watched = !options.contains(&"--peaks-only");
            assert!(report.coverage.exact_locking_calls || doubtful || !watched, "{:?}", report.coverage);
            tally.skipped += lost("program_skipped");
            tally.births_missed += lost("birth_missed");
            let hooks = report.coverage.hooks.iter().filter_map(|hook| Some((&hook.name, hook.skipped?)));
            let counters = report.coverage.lost.iter().map(|(name, n)| (name, *n));
            for (name, n) in hooks.chain(counters).filter(|(_, n)| *n > 0) {
                *tally.lost.entry(name.clone()).or_default() += n;
            }
        }
        tally
    }

    /// Tells the figures, past the capture of test output: a table of kernels is made of them.
    fn tell(self, what: &str) -> Self {
        let _ = writeln!(std::io::stderr(), "\npreemption: {what}: {self:?}");
        self
    }

    #[track_caller]
    fn assert_all_exact(&self) {
        assert_eq!((self.labelled, self.skipped, self.births_missed), (0, 0, 0), "{self:?}");
        assert!(self.exact + self.exact_peak > 0);
    }
}

/// Every kernel allows exactness here: raw programs are not skipped before 7.0, classic ones not by preemption. On 7.0
/// and later only a birth may be half seen, by the program that does not know the child's address space.
#[track_caller]
fn assert_exact_beside_busy_neighbours(options: &[&str], what: &str) {
    let neighbours = neighbours(&["busy", BUSY]);
    let tally = Tally::of(options, &[]).tell(what);
    drop(neighbours);
    if preempts_programs() {
        assert_eq!((tally.skipped, tally.labelled), (0, tally.births_missed), "{tally:?}");
        assert!(tally.exact + tally.exact_peak > tally.labelled, "{tally:?}");
    } else {
        tally.assert_all_exact();
    }
}

#[test]
fn beside_busy_neighbours_all_is_exact() {
    assert_exact_beside_busy_neighbours(&[], "busy neighbours");
}

#[test]
fn beside_busy_neighbours_peaks_alone_are_exact() {
    assert_exact_beside_busy_neighbours(&["--peaks-only"], "busy neighbours, peaks only");
}

/// While a map call is preempted, classic programs are off on that processor. Kernels before 7.0 use raw ones, which do
/// not care. From 7.0 on the exits of calls are missed, and a change only if both its programs are skipped.
#[test]
fn beside_map_calls_all_is_exact_or_labelled() {
    let neighbours = [neighbours(&["map-calls", "4"]), neighbours(&["busy", "6"])];
    let tally = Tally::of(&[], &[]).tell("map calls");
    let peaks = Tally::of(&["--peaks-only"], &[]).tell("map calls, peaks only");
    drop(neighbours);
    if preempts_programs() {
        assert!(tally.exact + tally.exact_peak > 0, "{tally:?}");
        assert!(peaks.exact_peak > 0, "{peaks:?}");
    } else {
        tally.assert_all_exact();
        peaks.assert_all_exact();
    }
}

/// From 7.0 on raw programs are preempted, and then skipped. The kernel's numbers of write sections tell which address
/// spaces that hit: the rows of the others stay exact.
#[test]
fn raw_programs_alone_are_exact_or_labelled() {
    let neighbours = neighbours(&["busy", BUSY]);
    let tally = Tally::of(&["--peaks-only"], &CLASSIC).tell("raw programs alone");
    drop(neighbours);
    if preempts_programs() {
        assert!(tally.exact_peak > 0, "{tally:?}");
    } else {
        tally.assert_all_exact();
    }
}

/// Classic programs in place of raw ones, beside map calls: what is skipped shows on every kernel that numbers write
/// sections (6.4 and later), also where it is not counted as a skip (before 6.12). Earlier ones call nothing exact.
#[test]
fn classic_programs_alone_are_exact_or_labelled() {
    if !has_lock_events() {
        // There are none: the substitutes see the calls, one thread is exact.
        Tally::of(&[], &RAW).assert_all_exact();
        return;
    }
    let neighbours = [neighbours(&["map-calls", "4"]), neighbours(&["busy", "6"])];
    let tally = Tally::of(&["--peaks-only"], &RAW).tell("classic programs alone, map calls");
    drop(neighbours);
    if vmaudit_tests::kernel_version() < (6, 4) {
        assert_eq!(tally.exact + tally.exact_peak, 0, "nobody counts what is skipped: {tally:?}");
    }
}

/// Refusals at the limit, beside map calls: what is counted was refused, and what is certain is right. Where exits of
/// calls were skipped, some may be missing and none is called certain.
#[test]
fn refusals_beside_map_calls_are_right_or_labelled() {
    let _lower = LowerLimit::new();
    let neighbours = [neighbours(&["map-calls", "4"]), neighbours(&["busy", "6"])];
    let done = Session::run(&[], &["limit", "mprotect"]).go().succeeded();
    drop(neighbours);
    let (own, report) = (done.own().remove(0), done.report());
    let refused: u64 = own.refused.iter().map(|refused| refused.count).sum();
    let counted: u64 = report.failures.iter().map(|failure| failure.count).sum();
    assert!(refused > 0 && counted <= refused, "{own:?} {:?}", report.failures);
    for failure in report.failures.iter().filter(|failure| failure.certain) {
        assert_eq!(
            (failure.syscall.as_str(), failure.cause),
            ("mprotect", Cause::MaxMapCount),
            "{failure:?}"
        );
    }
    if report.coverage.exact_locking_calls {
        assert_eq!(counted, refused, "{:?}", report.failures);
    } else {
        assert!(preempts_programs(), "{:?}", report.coverage);
        assert!(report.failures.iter().all(|failure| !failure.certain), "{:?}", report.failures);
    }
}
