//! The rows of a budgets file, held against a report.

use crate::domain::process_filter::NamePattern;
use crate::model::breach::{Bound, Breach};
use crate::model::report::{Failure, FoldedProcesses, Process, Report, SourceKind};
use crate::model::session::BudgetRow;
use crate::text::{self, count, grouped, rate};

/// Which processes a row is for: by the name of any of their images, by application, or by the path of their file.
struct Pattern {
    name: NamePattern,
    whole: NamePattern,
}

impl Pattern {
    fn of(row: &BudgetRow) -> Self {
        Self { name: NamePattern::new(&row.process), whole: NamePattern::whole(&row.process) }
    }

    fn fits(&self, process: &Process) -> bool {
        self.name.fits(&process.comm)
            || process.images.iter().any(|image| self.name.fits(&image.comm))
            || process.exe.as_deref().is_some_and(|exe| self.whole.fits(exe))
            || self.fits_application(process.app.as_deref())
    }

    fn fits_sum(&self, sum: &FoldedProcesses) -> bool {
        self.name.fits(&sum.comm) || self.fits_application(sum.app.as_deref())
    }

    fn fits_application(&self, app: Option<&str>) -> bool {
        app.is_some_and(|app| {
            self.whole.fits(app) || app.rsplit('/').next().is_some_and(|last| self.whole.fits(last))
        })
    }
}

/// What a row decides.
#[derive(Default)]
struct Held<'a> {
    processes: Vec<&'a Process>,
    sums: Vec<&'a FoldedProcesses>,
    /// It fits some process, if only one that an earlier row decides.
    fits: bool,
}

/// Each process is held to the first row that fits it; a row that fits none is broken, unless it says that it may.
pub fn breaches(rows: &[BudgetRow], report: &Report) -> Vec<Breach> {
    let patterns: Vec<Pattern> = rows.iter().map(Pattern::of).collect();
    let mut held: Vec<Held<'_>> = rows.iter().map(|_| Held::default()).collect();
    for process in &report.processes {
        let mut first = true;
        for (pattern, held) in patterns.iter().zip(&mut held) {
            if pattern.fits(process) {
                held.fits = true;
                if std::mem::take(&mut first) {
                    held.processes.push(process);
                }
            }
        }
    }
    for sum in &report.folded {
        let mut first = true;
        for (pattern, held) in patterns.iter().zip(&mut held) {
            // Of several names together it is not known whom the row is for.
            if sum.various || pattern.fits_sum(sum) {
                held.fits |= !sum.various;
                if sum.various || std::mem::take(&mut first) {
                    held.sums.push(sum);
                }
            }
        }
    }
    rows.iter().zip(&held).flat_map(|(row, held)| of_row(row, held, report)).collect()
}

fn of_row(row: &BudgetRow, held: &Held<'_>, report: &Report) -> Vec<Breach> {
    let mut all = Vec::new();
    let today = report.session.started.get(..10).unwrap_or_default();
    if let Some(date) = row.expires.as_deref().filter(|date| *date < today) {
        all.push(breach(row, "expired", format!("{} expired on {date}", named(row)), true));
    }
    if !held.fits && !row.optional {
        let why = match report.source {
            SourceKind::Ebpf => String::new(),
            SourceKind::Proc => "; from /proc a short-lived one is not seen".to_owned(),
        };
        all.push(breach(row, "unmatched", format!("{} fits no process{why}", named(row)), true));
    }
    if held.fits || !held.sums.is_empty() {
        all.extend(peak(row, held, report));
        all.extend(failures(row, held, report));
        all.extend(growth(row, held, report));
    }
    all
}

/// `row "java*" (line 3)`.
pub fn named(row: &BudgetRow) -> String {
    format!("row \"{}\" (line {})", row.process, row.line)
}

fn breach(row: &BudgetRow, budget: &str, sentence: String, shown: bool) -> Breach {
    let why = row.reason.as_ref().map(|reason| format!(" [{reason}]")).unwrap_or_default();
    Breach {
        budget: budget.into(),
        row: Some(row.process.clone()),
        limit: None,
        actual: None,
        pid: None,
        comm: None,
        shown,
        sentence: format!("{sentence}{why}"),
    }
}

fn peak(row: &BudgetRow, held: &Held<'_>, report: &Report) -> Vec<Breach> {
    let limit = report.limits.max_map_count;
    let percent =
        |peak: u64| limit.filter(|limit| *limit > 0).map(|limit| peak as f64 * 100.0 / limit as f64);
    let demands = [
        row.max_peak.map(|most| ("max_peak", Bound::Count(most), grouped(most))),
        row.max_percent.map(|most| ("max_percent", Bound::Real(most), format!("{most} %"))),
    ];
    let over = |bound: Bound, peak: u64| match bound {
        Bound::Count(most) => peak > most,
        Bound::Real(most) => percent(peak).is_some_and(|share| share > most),
    };
    let worst = held.processes.iter().filter_map(|it| Some((*it, it.map_count.peak?)));
    let worst = worst.reduce(|worst, it| if it.1 > worst.1 { it } else { worst });
    let sum = held.sums.iter().filter_map(|it| Some((*it, it.peak_max?)));
    let sum = sum.reduce(|worst, it| if it.1 > worst.1 { it } else { worst });
    let of = |(budget, bound, most): (&str, Bound, String)| {
        let told = |who: String, had: u64, pid: Option<(u32, &str)>| {
            let sentence =
                format!("{who} had {} VMAs, more than {budget} {most} of {}", grouped(had), named(row));
            let actual = match bound {
                Bound::Count(_) => Some(Bound::Count(had)),
                Bound::Real(_) => percent(had).map(Bound::Real),
            };
            let (pid, comm) = (pid.map(|(pid, _)| pid), pid.map(|(_, comm)| comm.to_owned()));
            Some(Breach { limit: Some(bound), actual, pid, comm, ..breach(row, budget, sentence, true) })
        };
        let not_shown = |why: &str| {
            let sentence = format!("{budget} {most} of {} is not shown to hold: {why}", named(row));
            Some(Breach { limit: Some(bound), ..breach(row, budget, sentence, false) })
        };
        if matches!(bound, Bound::Real(_)) && limit.is_none() {
            return not_shown("vm.max_map_count could not be read");
        }
        match (worst, sum) {
            (Some((process, peak)), _) if over(bound, peak) => {
                let comm = process.peak_comm();
                return told(format!("{comm} (pid {})", process.pid), peak, Some((process.pid, comm)));
            }
            (_, Some((sum, peak))) if over(bound, peak) && sum.various => {
                return not_shown(
                    "processes without a row of their own may be meant, and one of them had more",
                );
            }
            (_, Some((sum, peak))) if over(bound, peak) => {
                return told(format!("one of the processes named {}", sum.comm), peak, None);
            }
            _ => {}
        }
        match report.source {
            SourceKind::Proc => not_shown("peaks are samples, a burst between two looks at /proc is missed"),
            SourceKind::Ebpf if !report.coverage.exact_peaks => {
                not_shown("not every peak is exact, or a process may be missing: see coverage.lost")
            }
            SourceKind::Ebpf => None,
        }
    };
    demands.into_iter().flatten().filter_map(of).collect()
}

fn failures(row: &BudgetRow, held: &Held<'_>, report: &Report) -> Option<Breach> {
    const BUDGET: &str = "max_failures";
    let most = row.max_failures?;
    let limit = Some(Bound::Count(most));
    let of = |process: &Process| {
        text::total(report.unrecovered().filter(|it: &&Failure| it.is_of(process)).map(|it| it.count))
    };
    let each = held.processes.iter().map(|process| (*process, of(process)));
    let worst = each.reduce(|worst, it| if it.1 > worst.1 { it } else { worst });
    // Of processes without rows only the sum is known.
    let folded = text::total(held.sums.iter().filter_map(|sum| sum.failed));
    let not_shown = |why: &str| {
        let sentence = format!("{BUDGET} {} of {} is not shown to hold: {why}", grouped(most), named(row));
        Some(Breach { limit, ..breach(row, BUDGET, sentence, false) })
    };
    match worst {
        Some((process, failed)) if failed > most => {
            let sentence = format!(
                "{} failed in {} (pid {}), more than {BUDGET} {} of {}",
                count(failed, "memory call", "memory calls"),
                process.comm,
                process.pid,
                grouped(most),
                named(row)
            );
            Some(Breach {
                limit,
                actual: Some(Bound::Count(failed)),
                pid: Some(process.pid),
                comm: Some(process.comm.clone()),
                ..breach(row, BUDGET, sentence, true)
            })
        }
        _ if folded > most => {
            not_shown("of processes without a row of their own only the sum is known, and it is larger")
        }
        _ if report.failures_may_be_missing() => {
            not_shown("no more failed calls were seen, but some may be missing, see coverage")
        }
        _ => None,
    }
}

fn growth(row: &BudgetRow, held: &Held<'_>, report: &Report) -> Option<Breach> {
    const BUDGET: &str = "max_growth";
    let most = row.max_growth?;
    let limit = Some(Bound::Real(most));
    let steady = |process: &Process| process.growth.filter(|growth| growth.steady).map(|growth| growth.per_s);
    let each = held.processes.iter().filter_map(|process| Some((*process, steady(process)?)));
    let fastest = each.reduce(|fastest, it| if it.1 > fastest.1 { it } else { fastest });
    if let Some((process, per_s)) = fastest.filter(|(_, per_s)| *per_s > most) {
        let (comm, pid) = (process.peak_comm(), process.pid);
        let row_of = named(row);
        let sentence = format!(
            "{comm} (pid {pid}) grew steadily by {}, more than {BUDGET} {most}/s of {row_of}",
            rate(per_s)
        );
        return Some(Breach {
            limit,
            actual: Some(Bound::Real(per_s)),
            pid: Some(pid),
            comm: Some(comm.to_owned()),
            ..breach(row, BUDGET, sentence, true)
        });
    }
    let untold = |process: &&Process| process.growth.is_none() && process.shares_address_space_of.is_none();
    let why = match report.source {
        SourceKind::Proc => "counts are samples, what lies between two looks at /proc is missed",
        SourceKind::Ebpf if !report.coverage.exact_peaks => {
            "not every peak is exact, or a process may be missing: see coverage.lost"
        }
        SourceKind::Ebpf if held.processes.iter().any(untold) || !held.sums.is_empty() => {
            "how processes without a row of their own grew is not kept (--all-rows)"
        }
        SourceKind::Ebpf => return None,
    };
    let sentence = format!("{BUDGET} {most}/s of {} is not shown to hold: {why}", named(row));
    Some(Breach { limit, ..breach(row, BUDGET, sentence, false) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::{alike, clean_run, clipped_run};

    fn row(process: &str) -> BudgetRow {
        BudgetRow { process: process.into(), line: 3, ..BudgetRow::default() }
    }

    fn said(rows: &[BudgetRow], report: &Report) -> Vec<String> {
        breaches(rows, report).into_iter().map(|breach| breach.sentence).collect()
    }

    #[test]
    fn each_process_is_held_to_the_first_row_that_fits_it() {
        // java had 1,204, each worker 31.
        let report = clean_run();
        let java = BudgetRow { max_peak: Some(2000), ..row("java") };
        let all = BudgetRow { max_peak: Some(100), ..row("*") };
        assert!(said(&[java.clone(), all.clone()], &report).is_empty());
        let broken = said(&[all, java], &report);
        assert_eq!(broken, ["java (pid 4242) had 1,204 VMAs, more than max_peak 100 of row \"*\" (line 3)"]);
        let share = BudgetRow { max_percent: Some(1.0), reason: Some("ticket 7".into()), ..row("ja?a") };
        assert!(
            said(&[share], &report)[0]
                .ends_with("more than max_percent 1 % of row \"ja?a\" (line 3) [ticket 7]")
        );
    }

    #[test]
    fn a_row_that_fits_none_or_has_expired_is_broken() {
        let report = clean_run();
        let gone = BudgetRow { max_peak: Some(1), ..row("postgres") };
        assert_eq!(said(std::slice::from_ref(&gone), &report), ["row \"postgres\" (line 3) fits no process"]);
        assert!(said(&[BudgetRow { optional: true, ..gone }], &report).is_empty());
        // The session was on 2026-11-21.
        let until = |day: &str| BudgetRow { max_peak: Some(9000), expires: Some(day.into()), ..row("java") };
        assert!(said(&[until("2026-11-21")], &report).is_empty());
        assert_eq!(said(&[until("2026-11-20")], &report), ["row \"java\" (line 3) expired on 2026-11-20"]);
    }

    #[test]
    fn refused_calls_are_held_to_their_number_and_nothing_to_what_was_not_seen() {
        let mut report = clipped_run();
        let at_most = |most| BudgetRow { max_failures: Some(most), ..row("holes") };
        assert!(said(&[at_most(23)], &report).is_empty());
        assert!(
            said(&[at_most(22)], &report)[0]
                .starts_with("23 memory calls failed in holes (pid 123), more than ")
        );
        report.coverage.exact_calls = false;
        report.coverage.exact_peaks = false;
        assert!(said(&[at_most(23)], &report)[0].contains("is not shown to hold: "));
        let peak = BudgetRow { max_peak: Some(70_000), ..row("holes") };
        assert!(said(&[peak], &report)[0].contains("is not shown to hold: not every peak is exact"));
    }

    #[test]
    fn steady_growth_is_held_to_its_rate() {
        use crate::model::report::Growth;
        let mut report = clean_run();
        let growth = Growth { per_s: 12.0, steady: true, over_s: None, reaches_limit_in_s: None };
        report.processes.iter_mut().for_each(|it| it.growth = Some(Growth { steady: false, ..growth }));
        let at_most = |most| BudgetRow { max_growth: Some(most), ..row("java") };
        assert!(said(&[at_most(1.0)], &report).is_empty(), "a burst");
        report.processes.iter_mut().filter(|it| it.comm == "java").for_each(|it| it.growth = Some(growth));
        assert!(said(&[at_most(12.0)], &report).is_empty());
        let broken = said(&[at_most(10.0)], &report);
        assert_eq!(
            broken,
            [
                "java (pid 4242) grew steadily by 12 VMAs a second, more than max_growth 10/s of row \"java\" (line 3)"
            ]
        );
        report.processes.iter_mut().filter(|it| it.comm == "java").for_each(|it| it.growth = None);
        assert!(said(&[at_most(10.0)], &report)[0].contains("is not shown to hold: "));
    }

    #[test]
    fn processes_without_rows_are_held_too() {
        let mut report = clean_run();
        report.folded = vec![alike("cc1", 500, (20, 300))];
        let cc1 = |most| BudgetRow { max_peak: Some(most), ..row("cc1") };
        assert!(said(&[cc1(300)], &report).is_empty());
        assert!(said(&[cc1(299)], &report)[0].starts_with("one of the processes named cc1 had 300 VMAs"));
        report.folded[0].various = true;
        let told = said(&[cc1(299)], &report);
        assert!(told[0].contains("fits no process") && told[1].contains("is not shown to hold"), "{told:?}");
    }
}
