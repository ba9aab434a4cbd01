//! Compares two sessions by application and role, never by process number. Pure.
//!
//! What is not exact is compared only as far as it tells: a sample is a least, so it can show that something became worse,
//! never that it did not.

use std::collections::BTreeMap;

use crate::domain::compare_makers::{Compared, compare_makers};
use crate::domain::role::{Key, key};
use crate::model::difference::{Change, Difference, Figures, GateBreach, Row, SCHEMA, Side, Tolerance};
use crate::model::report::{CallFigures, Process, Report};
use crate::text::{count, grouped, rate, total};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Less is the same.
    pub tolerance: Tolerance,
    /// A gate, percent.
    pub fail_over: Option<f64>,
}

/// A rate of growth that is so many times another one is no noise.
const FASTER: f64 = 2.0;

/// Compares `new` with `old`; each comes with its file's name.
pub fn compare(
    (old_file, old): (&str, &Report),
    (new_file, new): (&str, &Report),
    asked: &Asked,
) -> Difference {
    let (before, after) = (figures(old), figures(new));
    let keys: std::collections::BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let mut rows: Vec<Row> =
        keys.into_iter().map(|key| row(key, before.get(key), after.get(key), asked.tolerance)).collect();
    let grown = |row: &Row| {
        let peak = |it: &Option<Figures>| it.as_ref().and_then(|it| it.peak).unwrap_or(0);
        peak(&row.new).abs_diff(peak(&row.old))
    };
    rows.sort_by(|a, b| {
        a.change.cmp(&b.change).then_with(|| grown(b).cmp(&grown(a))).then_with(|| a.name().cmp(&b.name()))
    });
    let (old_side, new_side) = (side(old_file, old), side(new_file, new));
    let Compared { makers, notes: of_makers } = compare_makers(old, new, asked.tolerance);
    let breaches = asked
        .fail_over
        .map_or_else(Vec::new, |most| gate(&rows, &old_side, &new_side, most, asked.tolerance));
    Difference {
        schema: SCHEMA,
        version: 1,
        vmaudit: env!("CARGO_PKG_VERSION").into(),
        sentence: sentence(&rows),
        verdict: rows.iter().map(|row| row.change).min().unwrap_or(Change::Same),
        notes: notes(&old_side, &new_side).into_iter().chain(of_makers).collect(),
        old: old_side,
        new: new_side,
        tolerance: asked.tolerance,
        fail_over: asked.fail_over,
        rows,
        makers,
        breaches,
    }
}

fn side(file: &str, report: &Report) -> Side {
    Side {
        file: file.into(),
        started: report.session.started.clone(),
        duration_s: report.session.duration_s,
        kernel: report.host.kernel.clone(),
        max_map_count: report.limits.max_map_count,
        exact_peaks: report.coverage.exact_peaks,
        exact_failures: !report.locking_failures_may_be_missing(),
    }
}

fn add(figures: &mut Figures, calls: &BTreeMap<String, CallFigures>) {
    for (call, made) in calls.iter().filter(|(_, made)| made.added > 0) {
        let sum = figures.added.entry(call.clone()).or_default();
        *sum = sum.saturating_add(made.added);
    }
}

fn figures(report: &Report) -> BTreeMap<Key, Figures> {
    let mut all: BTreeMap<Key, Figures> = BTreeMap::new();
    let none = || Figures { exact: true, failed: Some(0), growth_per_s: Some(0.0), ..Figures::default() };
    let failed = |process: &Process| {
        process.unmap_leaked_bytes?;
        Some(total(report.unrecovered().filter(|it| it.is_of(process)).map(|it| it.count)))
    };
    let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    for process in &report.processes {
        let it = all.entry(key(process.app.as_deref(), &process.comm)).or_insert_with(none);
        it.processes += 1;
        it.peak = it.peak.max(process.map_count.peak);
        it.exact &= process.map_count.exact && process.map_count.peak.is_some();
        it.clipped |= process.map_count.clipped;
        it.failed = both(it.failed, failed(process));
        it.growth_per_s = faster(it.growth_per_s, growth(process));
        add(it, &process.calls);
    }
    for sum in &report.folded {
        let name =
            if sum.various { key(None, "(several names)") } else { key(sum.app.as_deref(), &sum.comm) };
        let it = all.entry(name).or_insert_with(none);
        it.processes = it.processes.saturating_add(sum.processes);
        it.peak = it.peak.max(sum.peak_max);
        it.exact &= sum.exact && sum.peak_max.is_some();
        it.clipped |= sum.clipped > 0;
        it.failed = both(it.failed, sum.failed);
        it.growth_per_s = None;
        add(it, &sum.calls);
    }
    all
}

/// Of a process whose growth is known: its rate, if it is a steady one.
fn growth(process: &Process) -> Option<f64> {
    match process.growth {
        // Its count is another one's.
        None if process.shares_address_space_of.is_some() => Some(0.0),
        known => known.map(|it| if it.steady { it.per_s.max(0.0) } else { 0.0 }),
    }
}

fn faster(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a?.max(b?))
}

/// How much faster it grows, if that is no noise: rates depend on how fast the machine is at that moment.
fn grows(old: &Figures, new: &Figures, tolerance: Tolerance) -> Option<String> {
    let (before, now) = (old.growth_per_s?, new.growth_per_s?);
    // Below that an hour makes no difference.
    let counts = (now - before) * 3600.0 > tolerance.vmas as f64;
    match before {
        _ if !counts => None,
        before if before <= 0.0 => Some(format!("it grows steadily by {}, and did not before", rate(now))),
        before if now > FASTER * before => {
            Some(format!("it grows steadily by {}; by {} before", rate(now), rate(before)))
        }
        _ => None,
    }
}

/// `b` is more than `a` by more than both.
fn more(a: u64, b: u64, percent: f64, least: u64) -> bool {
    b > a && b - a > least && (b - a) as f64 * 100.0 > percent * a as f64
}

fn row(key: &Key, old: Option<&Figures>, new: Option<&Figures>, tolerance: Tolerance) -> Row {
    let (change, why) = match (old, new) {
        (Some(old), Some(new)) => changed(old, new, tolerance),
        (None, Some(new)) => appeared(new),
        (None, None) => (Change::Same, None),
        (Some(_), None) => (Change::Gone, None),
    };
    let peaks = old.zip(new).and_then(|(old, new)| {
        (old.exact && new.exact && !old.clipped && !new.clipped).then_some((old.peak?, new.peak?))
    });
    let peaks = peaks.filter(|(old, _)| *old > 0);
    Row {
        app: key.0.clone(),
        comm: key.1.clone(),
        change,
        why,
        old: old.cloned(),
        new: new.cloned(),
        peak_percent: peaks.map(|(old, new)| (new as f64 - old as f64) * 100.0 / old as f64),
    }
}

/// What was not there before is worse only where it comes to harm.
fn appeared(new: &Figures) -> (Change, Option<String>) {
    match new.failed.unwrap_or(0) {
        0 if new.clipped => (Change::Worse, Some("new, and stopped by the limit".into())),
        0 => (Change::New, None),
        refused => {
            let were = count(refused, "call is refused", "calls are refused");
            (Change::Worse, Some(format!("new, and {were}")))
        }
    }
}

fn changed(old: &Figures, new: &Figures, tolerance: Tolerance) -> (Change, Option<String>) {
    let worse = |why: String| (Change::Worse, Some(why));
    if let (Some(before), Some(now)) = (old.failed, new.failed)
        && (before == 0 && now > 0 || more(before, now, tolerance.percent, 0))
    {
        let were = count(now, "call is refused", "calls are refused");
        return worse(match before {
            0 => format!("{were} that were not before"),
            _ => format!("{were}, {} before", grouped(before)),
        });
    }
    if let Some(why) = grows(old, new, tolerance) {
        return worse(why);
    }
    let (Some(before), Some(now)) = (old.peak, new.peak) else {
        return (Change::NotComparable, Some("a peak is not known".into()));
    };
    if old.clipped && new.clipped {
        let why = "at the limit in both, so the need is not known in either";
        return (Change::NotComparable, Some(why.into()));
    }
    if new.clipped {
        return worse(format!(
            "now stopped by the limit, at {} VMAs; {} before",
            grouped(now),
            grouped(before)
        ));
    }
    if !old.exact {
        return (Change::NotComparable, Some("the old peak is a sample, and may have been higher".into()));
    }
    if more(before, now, tolerance.percent, tolerance.vmas) {
        return (Change::Worse, None);
    }
    if !new.exact {
        return (Change::NotComparable, Some("the new peak is a sample, and may be higher".into()));
    }
    if old.clipped {
        return (Change::Better, Some("no longer stopped by the limit".into()));
    }
    let fewer = old
        .failed
        .zip(new.failed)
        .is_some_and(|(a, b)| a > 0 && (b == 0 || more(b, a, tolerance.percent, 0)));
    if fewer || more(now, before, tolerance.percent, tolerance.vmas) {
        return (Change::Better, None);
    }
    (Change::Same, None)
}

/// `java: 12,199 to 30,022 VMAs (+150.0 %)`.
fn told(row: &Row) -> String {
    if let Some(why) = &row.why {
        return format!("{}: {why}", row.name());
    }
    let peak = |it: &Option<Figures>| it.as_ref().and_then(|it| it.peak).map_or("?".to_owned(), grouped);
    let percent = row.peak_percent.map(|percent| format!(" ({percent:+.1} %)")).unwrap_or_default();
    format!("{}: {} to {} VMAs{percent}", row.name(), peak(&row.old), peak(&row.new))
}

fn sentence(rows: &[Row]) -> String {
    const NAMED: usize = 3;
    let of = |change: Change| rows.iter().filter(move |row| row.change == change);
    let number = |change: Change| of(change).count() as u64;
    let worse = number(Change::Worse);
    if worse > 0 {
        let named: Vec<String> = of(Change::Worse).take(NAMED).map(told).collect();
        let more = match worse.saturating_sub(NAMED as u64) {
            0 => String::new(),
            more => format!("; and {}", count(more, "more", "more")),
        };
        return format!("Worse: {}{more}.", named.join("; "));
    }
    let unknown = number(Change::NotComparable);
    let better = number(Change::Better);
    let others = [(better, "better"), (number(Change::New), "new"), (number(Change::Gone), "gone")];
    let others: Vec<String> =
        others.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))).collect();
    let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
    match (unknown, rows.len() as u64) {
        (_, 0) => "Nothing to compare: neither session has a process.".to_owned(),
        (0, all) => format!("Nothing became worse in {}{others}.", count(all, "application", "applications")),
        (unknown, _) => format!(
            "{} not be compared, and nothing else became worse{others}: {}.",
            count(unknown, "application can", "applications can"),
            of(Change::NotComparable).take(NAMED).map(told).collect::<Vec<_>>().join("; ")
        ),
    }
}

fn notes(old: &Side, new: &Side) -> Vec<String> {
    let mut notes = Vec::new();
    let limit = |side: &Side| side.max_map_count.map_or("not known".to_owned(), grouped);
    if old.max_map_count != new.max_map_count {
        notes.push(format!("The limits differ: {} before, {} now.", limit(old), limit(new)));
    }
    if old.kernel != new.kernel {
        notes.push(format!("The kernels differ: {} before, {} now.", old.kernel, new.kernel));
    }
    for (when, side) in [("old", old), ("new", new)] {
        if !side.exact_peaks {
            notes
                .push(format!("Not every peak of the {when} session is exact, or a process may be missing."));
        }
        if !side.exact_failures {
            notes.push(format!("Refused calls may be missing from the {when} session."));
        }
    }
    notes
}

/// What keeps the gate closed: what became more by more than `most` percent, and what is not shown not to have.
fn gate(rows: &[Row], old: &Side, new: &Side, most: f64, tolerance: Tolerance) -> Vec<GateBreach> {
    let mut all = Vec::new();
    let option = format!("--fail-over {most}%");
    for row in rows {
        let breach = |shown: bool, why: String| GateBreach {
            name: Some(row.name()),
            shown,
            sentence: format!("{why}: {option}"),
        };
        let failed = |it: &Option<Figures>| it.as_ref().and_then(|it| it.failed);
        match (row.change, row.peak_percent, failed(&row.old), failed(&row.new)) {
            (Change::NotComparable, ..) => {
                all.push(breach(false, format!("{}, so nothing is shown to hold", told(row))))
            }
            // It is refused more, or stopped by the limit, or a sample is already more.
            (Change::Worse, None, ..) => all.push(breach(true, told(row))),
            (Change::Worse, Some(_), Some(before), Some(now))
                if before == 0 && now > 0 || more(before, now, most, 0) =>
            {
                all.push(breach(true, told(row)));
            }
            (_, Some(percent), ..) if percent > most && grew(row) > tolerance.vmas => {
                all.push(breach(true, told(row)))
            }
            (Change::Worse, ..) if leaks(row, tolerance) => all.push(breach(true, told(row))),
            _ => {}
        }
    }
    let whole = |why: &str| GateBreach {
        name: None,
        shown: false,
        sentence: format!("{why}, so nothing is shown to hold: {option}"),
    };
    if !old.exact_peaks || !new.exact_peaks {
        all.push(whole("not every peak is exact, or a process may be missing"));
    }
    if !new.exact_failures {
        all.push(whole("refused calls may be missing from the new session"));
    }
    all
}

/// It grows steadily, and did not, or much faster.
fn leaks(row: &Row, tolerance: Tolerance) -> bool {
    row.old.as_ref().zip(row.new.as_ref()).is_some_and(|(old, new)| grows(old, new, tolerance).is_some())
}

fn grew(row: &Row) -> u64 {
    let peak = |it: &Option<Figures>| it.as_ref().and_then(|it| it.peak).unwrap_or(0);
    peak(&row.new).saturating_sub(peak(&row.old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::{clean_run, clipped_run, proc_source};

    const ASKED: Asked = Asked { tolerance: Tolerance { percent: 5.0, vmas: 10 }, fail_over: Some(10.0) };

    fn compared(old: &Report, new: &Report) -> Difference {
        compare(("old", old), ("new", new), &ASKED)
    }

    fn of(name: &str, peak: u64) -> Report {
        let mut report = clean_run();
        report.processes.truncate(1);
        report.ordinary_answers.clear();
        report.processes[0].comm = name.into();
        report.processes[0].map_count.peak = Some(peak);
        report
    }

    fn change(old: &Report, new: &Report) -> (Change, usize) {
        let it = compared(old, new);
        (it.rows[0].change, it.breaches.len())
    }

    #[test]
    fn noise_is_the_same_and_a_regression_is_worse_and_closes_the_gate() {
        let base = of("java", 1000);
        for (peak, expected) in [
            (1000, (Change::Same, 0)),
            (1050, (Change::Same, 0)),
            (1051, (Change::Worse, 0)),
            (1100, (Change::Worse, 0)),
            (1101, (Change::Worse, 1)),
            (900, (Change::Better, 0)),
        ] {
            assert_eq!(change(&base, &of("java", peak)), expected, "{peak}");
        }
        // Ten of a hundred are within the tolerance of VMAs.
        assert_eq!(change(&of("sh", 20), &of("sh", 30)), (Change::Same, 0));
        assert_eq!(
            compared(&base, &of("java", 2500)).sentence,
            "Worse: java: 1,000 to 2,500 VMAs (+150.0 %)."
        );
    }

    #[test]
    fn what_is_new_or_gone_is_said_and_no_regression() {
        let it = compared(&of("java", 1000), &of("pool", 1000));
        let changes: Vec<_> = it.rows.iter().map(|row| (row.name(), row.change)).collect();
        assert_eq!(changes, [("pool".into(), Change::New), ("java".into(), Change::Gone)]);
        assert!(it.breaches.is_empty(), "{:?}", it.breaches);
        let it = compared(&of("java", 1000), &clipped_run());
        assert_eq!(it.sentence, "Worse: holes: new, and 23 calls are refused.");
        assert!(it.breaches.iter().any(|breach| breach.name.as_deref() == Some("holes") && breach.shown));
    }

    #[test]
    fn steady_growth_that_is_new_or_much_faster_is_worse_whatever_the_peak() {
        use crate::model::report::Growth;
        let growing = |per_s: f64, steady: bool| {
            let mut report = of("java", 1000);
            report.processes[0].growth =
                Some(Growth { per_s, steady, over_s: None, reaches_limit_in_s: None });
            report
        };
        assert_eq!(change(&growing(0.0, false), &growing(500.0, false)), (Change::Same, 0), "a burst");
        let it = compared(&growing(0.0, false), &growing(50.0, true));
        assert_eq!(it.sentence, "Worse: java: it grows steadily by 50 VMAs a second, and did not before.");
        assert_eq!((it.breaches.len(), it.breaches[0].shown), (1, true));
        assert_eq!(change(&growing(50.0, true), &growing(80.0, true)).0, Change::Same, "a faster machine");
        assert_eq!(change(&growing(50.0, true), &growing(120.0, true)), (Change::Worse, 1));
        assert_eq!(change(&growing(0.0, false), &growing(0.002, true)).0, Change::Same, "7 an hour");
        let mut unknown = of("java", 1000);
        unknown.processes[0].growth = None;
        assert_eq!(change(&growing(0.0, false), &unknown).0, Change::Same, "nobody knows");
    }

    #[test]
    fn the_limit_and_refusals_are_no_figures_to_subtract() {
        let (good, bad) = (of("holes", 65_000), clipped_run());
        let it = compared(&good, &bad);
        assert_eq!((it.rows[0].name(), it.rows[0].change), ("holes".into(), Change::Worse));
        assert_eq!(it.sentence, "Worse: holes: 23 calls are refused that were not before.");
        assert!(it.breaches[0].shown, "{:?}", it.breaches);
        assert_eq!(change(&bad, &bad), (Change::NotComparable, 1), "the need is not known in either");
        assert_eq!(change(&bad, &good).0, Change::Better);
    }

    #[test]
    fn samples_can_be_worse_and_are_never_shown_to_hold() {
        let exact = of("java", 1000);
        let sampled = proc_source();
        // 1,204 were seen, and may have been more.
        let it = compared(&exact, &sampled);
        assert_eq!(it.rows[0].change, Change::Worse);
        let it = compared(&of("java", 1204), &sampled);
        assert_eq!(it.rows[0].change, Change::NotComparable);
        assert!(
            !it.breaches.is_empty() && it.breaches.iter().all(|breach| !breach.shown),
            "{:?}",
            it.breaches
        );
        assert!(!compared(&sampled, &exact).breaches.is_empty());
    }

    #[test]
    fn processes_are_alike_by_application_and_role_wherever_they_lie() {
        let (mut old, mut new) = (of("java", 1000), of("java", 1000));
        old.processes[0].app = Some("/usr/lib/jvm/17/bin/java".into());
        new.processes[0].app = Some("/usr/lib/jvm/21/bin/java".into());
        new.processes[0].pid += 1;
        assert_eq!(change(&old, &new), (Change::Same, 0));
    }
}
