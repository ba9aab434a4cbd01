//! Several reports as one summary, taken one by one: none is kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::fleet::{Fleet, FleetApplication, FleetFile, FleetHost, SCHEMA, VERSION};
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
    hosts: BTreeMap<Option<String>, FleetHost>,
    files: Vec<FleetFile>,
}

#[derive(Debug)]
struct Sum {
    row: FleetApplication,
    files: BTreeSet<usize>,
    hosts: BTreeSet<String>,
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
        for some in all_of(report) {
            let sum = self.sum(some.app);
            sum.files.insert(at);
            sum.hosts.extend(report.host.name.clone());
            let row = &mut sum.row;
            row.processes = row.processes.saturating_add(some.processes);
            row.exact &= some.exact;
            row.failures_may_be_missing |= missing;
            row.clipped = row.clipped.saturating_add(some.clipped);
            if some.peak > row.peak {
                row.peak = some.peak;
                row.peak_in = file.to_owned();
                row.percent_of_limit = share(some.peak, limit);
            }
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
            let row = &mut self.sum(app).row;
            row.failed = row.failed.saturating_add(failure.count);
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
            failed,
            failures_may_be_missing: missing,
            breaches: report.breaches.len() as u64,
            cut,
        };
        self.host(&taken, total(all_of(report).map(|some| some.clipped)));
        self.files.push(taken);
    }

    /// A file of this machine was taken.
    fn host(&mut self, file: &FleetFile, clipped: u64) {
        let row = self.hosts.entry(file.host.clone()).or_insert_with(|| FleetHost {
            host: file.host.clone(),
            files: 0,
            processes: 0,
            peak: None,
            app: None,
            exact: true,
            percent_of_limit: None,
            peak_in: String::new(),
            clipped: 0,
            failed: 0,
            failures_may_be_missing: false,
            breaches: 0,
        });
        row.files += 1;
        row.processes = row.processes.saturating_add(file.processes);
        row.exact &= file.exact;
        row.clipped = row.clipped.saturating_add(clipped);
        row.failed = row.failed.saturating_add(file.failed);
        row.failures_may_be_missing |= file.failures_may_be_missing;
        row.breaches = row.breaches.saturating_add(file.breaches);
        if file.peak > row.peak {
            (row.peak, row.app) = (file.peak, file.app.clone());
            row.peak_in.clone_from(&file.file);
            row.percent_of_limit = share(file.peak, file.max_map_count);
        }
    }

    fn sum(&mut self, app: &str) -> &mut Sum {
        let full = self.applications.len() >= APPLICATIONS && !self.applications.contains_key(app);
        let app = if full { OTHERS } else { app };
        let row = || FleetApplication {
            app: app.to_owned(),
            processes: 0,
            files: 0,
            hosts: 0,
            peak: None,
            exact: true,
            percent_of_limit: None,
            peak_in: String::new(),
            clipped: 0,
            failed: 0,
            failures_may_be_missing: false,
        };
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
        applications.sort_by_key(|row| Reverse((row.clipped > 0, row.failed > 0, row.peak)));
        files.sort_by_key(|file| Reverse((file.failed > 0, file.peak)));
        let mut hosts: Vec<FleetHost> = hosts.into_values().collect();
        hosts.sort_by_key(|row| Reverse((row.clipped > 0, row.failed > 0, row.peak)));
        let sentence = sentence(&applications, &hosts, &files);
        Fleet { schema: SCHEMA, version: VERSION, sentence, applications, hosts, files }
    }
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
    if hosts.iter().all(|row| row.host.is_some()) {
        sessions += &format!(" on {}", count(hosts.len() as u64, "machine", "machines"));
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
    let largest = applications.iter().max_by_key(|row| row.peak).and_then(|row| Some((row, row.peak?)));
    let largest = largest.map(|(row, peak)| {
        let (doubt, more) = (if row.exact { "" } else { "~" }, if row.clipped > 0 { "+" } else { "" });
        format!(
            "; the largest process is of {} with {doubt}{}{more} VMAs, in {}",
            clean(&row.app),
            grouped(peak),
            clean(&row.peak_in)
        )
    });
    format!("{sessions}: {refused}{}.", largest.unwrap_or_default())
}
