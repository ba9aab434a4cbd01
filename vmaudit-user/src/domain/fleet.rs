//! Several reports as one summary, taken one by one: none is kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::fleet::{Fleet, FleetApplication, FleetFile, FleetHost, SCHEMA, Sums, VERSION, all_named};
use crate::model::report::{Outcome, Report};
use crate::text::{clean, count, grouped, total};

/// Applications told apart; further ones go by no name.
const APPLICATIONS: usize = 10_000;
/// In place of a name where there are several.
const OTHERS: &str = "(others)";

/// What was taken so far.
#[derive(Debug, Default)]
pub struct Collected {
    applications: BTreeMap<String, Sum>,
    /// Each with its number.
    hosts: BTreeMap<Option<String>, (usize, FleetHost)>,
    files: Vec<FleetFile>,
}

#[derive(Debug)]
struct Sum {
    row: FleetApplication,
    files: BTreeSet<usize>,
    /// Numbers of those with a name.
    hosts: BTreeSet<usize>,
}

impl Sums {
    /// These as well: `true` when theirs is the largest peak so far.
    fn add(&mut self, more: Self) -> bool {
        self.processes = self.processes.saturating_add(more.processes);
        self.exact &= more.exact;
        self.clipped = self.clipped.saturating_add(more.clipped);
        self.failed = self.failed.saturating_add(more.failed);
        self.failures_may_be_missing |= more.failures_may_be_missing;
        let largest = more.peak > self.peak;
        if largest {
            (self.peak, self.percent_of_limit, self.peak_in) =
                (more.peak, more.percent_of_limit, more.peak_in);
        }
        largest
    }
}

/// Processes of one name.
struct Part<'a> {
    app: &'a str,
    processes: u64,
    peak: Option<u64>,
    exact: bool,
    clipped: u64,
}

impl Collected {
    /// Takes one report; `cut`: its recording ends before its session did.
    pub fn take(&mut self, file: &str, report: &Report, cut: bool) {
        let at = self.files.len();
        let limit = report.limits.max_map_count;
        let missing = report.failures_may_be_missing();
        let (host, _) = *self.host(report.host.name.as_ref());
        for some in all_of(report) {
            let sum = self.sum(some.app);
            sum.files.insert(at);
            sum.hosts.extend(report.host.name.is_some().then_some(host));
            sum.row.sums.add(Sums {
                processes: some.processes,
                peak: some.peak,
                exact: some.exact,
                percent_of_limit: share(some.peak, limit),
                peak_in: file.to_owned(),
                clipped: some.clipped,
                failed: 0,
                failures_may_be_missing: missing,
            });
        }
        let mut failed = 0_u64;
        for failure in report.failures.iter().filter(|it| it.outcome == Outcome::Unrecovered) {
            failed = failed.saturating_add(failure.count);
            let process = report.processes.iter().find(|process| failure.is_of(process));
            let app = match process {
                Some(process) => name(process.app.as_deref(), &process.comm),
                None if failure.various => OTHERS,
                None => &failure.comm,
            };
            let sums = &mut self.sum(app).row.sums;
            sums.failed = sums.failed.saturating_add(failure.count);
        }
        let top = all_of(report).max_by_key(|some| some.peak);
        let peak = top.as_ref().and_then(|some| some.peak);
        let taken = FleetFile {
            file: file.to_owned(),
            host: report.host.name.clone(),
            started: report.session.started.clone(),
            kernel: report.host.kernel.clone(),
            max_map_count: limit,
            source: report.source,
            processes: total(all_of(report).map(|some| some.processes)),
            peak,
            app: top.filter(|some| some.peak.is_some()).map(|some| some.app.to_owned()),
            exact: all_of(report).all(|some| some.exact),
            clipped: total(all_of(report).map(|some| some.clipped)),
            failed,
            failures_may_be_missing: missing,
            breaches: report.breaches.len() as u64,
            cut,
        };
        let sums = Sums {
            processes: taken.processes,
            peak,
            exact: taken.exact,
            percent_of_limit: share(peak, limit),
            peak_in: file.to_owned(),
            clipped: taken.clipped,
            failed,
            failures_may_be_missing: missing,
        };
        let (_, row) = self.host(taken.host.as_ref());
        row.files += 1;
        row.breaches = row.breaches.saturating_add(taken.breaches);
        if row.sums.add(sums) {
            row.app.clone_from(&taken.app);
        }
        self.files.push(taken);
    }

    /// The row of a machine, with its number.
    fn host(&mut self, name: Option<&String>) -> &mut (usize, FleetHost) {
        let number = self.hosts.len();
        self.hosts.entry(name.cloned()).or_insert_with(|| {
            let host = name.cloned();
            (number, FleetHost { host, files: 0, app: None, sums: Sums::default(), breaches: 0 })
        })
    }

    fn sum(&mut self, app: &str) -> &mut Sum {
        let full = self.applications.len() >= APPLICATIONS && !self.applications.contains_key(app);
        let app = if full { OTHERS } else { app };
        let row = || FleetApplication { app: app.to_owned(), files: 0, hosts: 0, sums: Sums::default() };
        let sum = || Sum { row: row(), files: BTreeSet::new(), hosts: BTreeSet::new() };
        self.applications.entry(app.to_owned()).or_insert_with(sum)
    }

    /// The summary.
    pub fn summary(self) -> Fleet {
        let Self { applications, hosts, mut files } = self;
        let row = |sum: Sum| FleetApplication {
            files: sum.files.len() as u64,
            hosts: sum.hosts.len() as u64,
            ..sum.row
        };
        let mut applications: Vec<FleetApplication> = applications.into_values().map(row).collect();
        applications.sort_by_key(|row| Reverse(remarkable(&row.sums)));
        files.sort_by_key(|file| Reverse((file.failed > 0, file.peak)));
        let mut hosts: Vec<FleetHost> = hosts.into_values().map(|(_, row)| row).collect();
        hosts.sort_by_key(|row| Reverse(remarkable(&row.sums)));
        let sentence = sentence(&applications, &hosts, &files);
        Fleet { schema: SCHEMA, version: VERSION, sentence, applications, hosts, files }
    }
}

fn remarkable(sums: &Sums) -> (bool, bool, Option<u64>) {
    (sums.clipped > 0, sums.failed > 0, sums.peak)
}

fn all_of(report: &Report) -> impl Iterator<Item = Part<'_>> {
    let rows = report.processes.iter().map(|row| Part {
        app: name(row.app.as_deref(), &row.comm),
        processes: 1,
        peak: row.map_count.peak,
        exact: row.map_count.exact,
        clipped: row.map_count.clipped.into(),
    });
    rows.chain(report.folded.iter().map(|sum| Part {
        app: if sum.various { OTHERS } else { name(sum.app.as_deref(), &sum.comm) },
        processes: sum.processes,
        peak: sum.peak_max,
        exact: sum.exact,
        clipped: sum.clipped,
    }))
}

fn name<'a>(app: Option<&'a str>, comm: &'a str) -> &'a str {
    let app = app.unwrap_or(comm);
    app.rsplit('/').next().unwrap_or(app)
}

/// In percent.
fn share(peak: Option<u64>, limit: Option<u64>) -> Option<f64> {
    let share = |(peak, limit): (u64, u64)| peak as f64 * 100.0 / limit as f64;
    peak.zip(limit.filter(|limit| *limit > 0)).map(share)
}

fn sentence(applications: &[FleetApplication], hosts: &[FleetHost], files: &[FleetFile]) -> String {
    let mut sessions = count(files.len() as u64, "session", "sessions");
    if all_named(hosts) {
        sessions += &format!(" under {}", count(hosts.len() as u64, "host name", "host names"));
    }
    let failed = total(files.iter().map(|file| file.failed));
    let with = files.iter().filter(|file| file.failed > 0).count() as u64;
    let refused = match failed {
        0 if files.iter().any(|file| file.failures_may_be_missing) => {
            "no memory call failed as far as was seen".to_owned()
        }
        0 => "no memory call failed".to_owned(),
        failed => {
            format!("{} failed, in {} of them", count(failed, "memory call", "memory calls"), grouped(with))
        }
    };
    let largest = applications.iter().max_by_key(|row| row.sums.peak);
    let largest = largest.and_then(|row| Some((row, &row.sums, row.sums.peak?)));
    let largest = largest.map(|(row, sums, peak)| {
        let (doubt, more) = (if sums.exact { "" } else { "~" }, if sums.clipped > 0 { "+" } else { "" });
        format!(
            "; the largest process is of {} with {doubt}{}{more} VMAs, in {}",
            clean(&row.app),
            grouped(peak),
            clean(&sums.peak_in)
        )
    });
    format!("{sessions}: {refused}{}.", largest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::{clean_run, clipped_run};

    fn of(files: &[(&str, Option<&str>)]) -> Fleet {
        let mut collected = Collected::default();
        for (file, host) in files {
            let mut report = if *file == "clipped" { clipped_run() } else { clean_run() };
            report.host.name = host.map(str::to_owned);
            collected.take(file, &report, false);
        }
        collected.summary()
    }

    fn hosts(fleet: &Fleet) -> Vec<(Option<&str>, u64)> {
        fleet.hosts.iter().map(|row| (row.host.as_deref(), row.files)).collect()
    }

    #[test]
    fn machines_are_counted_by_name_and_only_where_all_have_one() {
        let fleet = of(&[("a", Some("web")), ("b", Some("db")), ("c", Some("web"))]);
        assert!(fleet.sentence.starts_with("3 sessions under 2 host names: "), "{}", fleet.sentence);
        assert_eq!(hosts(&fleet), [(Some("db"), 1), (Some("web"), 2)]);
        assert!(fleet.applications.iter().all(|row| (row.files, row.hosts) == (3, 2)), "{fleet:?}");
        let some = of(&[("a", Some("web")), ("clipped", None), ("c", None)]);
        assert!(some.sentence.starts_with("3 sessions: "), "{}", some.sentence);
        assert_eq!(hosts(&some), [(None, 2), (Some("web"), 1)]);
        assert!(all_named(&fleet.hosts) && !all_named(&some.hosts));
        // All files were bad.
        let none = of(&[]);
        assert!(none.sentence.starts_with("0 sessions: ") && !all_named(&none.hosts), "{}", none.sentence);
    }

    #[test]
    fn a_host_has_the_sums_of_its_files() {
        let one = of(&[("clipped", Some("web"))]);
        let two = of(&[("a", Some("web")), ("clipped", Some("web"))]);
        let (sums, other) = (&two.hosts[0].sums, &one.hosts[0].sums);
        assert_eq!(
            (sums.peak, &sums.peak_in, sums.clipped),
            (other.peak, &"clipped".to_owned(), other.clipped)
        );
        assert_eq!((sums.failed, sums.percent_of_limit), (other.failed, other.percent_of_limit));
        assert_eq!((&two.hosts[0].app, two.hosts[0].files), (&one.hosts[0].app, 2));
        assert!(sums.processes > other.processes);
    }
}
