//! Rows in, the whole scan out: order, sums, applications, advice. Pure.

use std::collections::BTreeMap;

use crate::domain::application::{Anonymizer, same_application};
use crate::domain::recommend::{Margin, Measured, recommend_now};
use crate::domain::vma_cost;
use crate::model::report::{
    Coverage, Host, Limits, MapCount, NotCounted, Process, Report, SCHEMA, Session, SourceKind, VERSION,
};
use crate::model::scan::{AppFigures, Need, NoSlab, ObjectSize, Row, Scan, Slab};
use crate::model::unreadable::Unreadable;
use crate::text::count;

/// What is made of the processes.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// For the recommended limit.
    pub margin: Margin,
    /// Also what a process of so many VMAs would need.
    pub vma: Option<u64>,
    /// Order of the processes.
    pub sort: Key,
    /// Turns it around.
    pub reverse: bool,
    /// With command lines.
    pub show_args: bool,
    /// How many processes people will look at.
    pub top: usize,
}

impl ScanOptions {
    /// The processes that people look at are those with most VMAs.
    pub fn largest_first(&self) -> bool {
        self.sort == Key::Count && !self.reverse
    }
}

/// Order of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Most VMAs first.
    Count,
    /// Process id.
    Pid,
    /// Application.
    App,
    /// Name.
    Comm,
    /// Owner.
    User,
}

/// What was found besides the processes.
pub struct Facts {
    /// System-wide limits.
    pub limits: Limits,
    /// The VMAs that the kernel holds.
    pub slab: Result<Slab, NoSlab>,
    /// What objects of [`vma_cost::CACHES`] take.
    pub object_sizes: Vec<Option<ObjectSize>>,
    /// The kernel counted.
    pub by_kernel: bool,
    /// vmaudit ran as root.
    pub root: bool,
    /// The machine.
    pub host: Host,
    /// Start of the scan, RFC 3339.
    pub started: String,
    /// How long it took, s.
    pub duration_s: f64,
    /// Names of owners by uid.
    pub users: BTreeMap<u32, String>,
    /// vmaudit's own process id: what it needs is no reason for anything.
    pub own: u32,
}

/// Puts the rows in order and works out everything that follows from them.
pub fn build(options: &ScanOptions, facts: Facts, mut rows: Vec<Row>, anonymizer: &Anonymizer) -> Scan {
    let Facts { limits, slab, object_sizes, by_kernel, root, mut host, started, duration_s, users, own } =
        facts;
    anonymizer.texts(&mut host.name);
    let margin = options.margin;
    unite(&mut rows);
    let mut rows = in_order(rows, options.sort, options.reverse, &users);
    let largest = rows
        .iter()
        .filter(|row| row.pid != own)
        .filter_map(|row| Some((figure(row)?, row)))
        // Of equals the first by name, as in the table.
        .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.app.cmp(&x.app)).then(y.pid.cmp(&x.pid)))
        .map(|(count, row)| (count, anonymizer.apply(&row.app).into_owned(), row.pid));
    let uncounted: Vec<Row> = rows.extract_if(.., |row| row.count.is_err()).collect();
    let not_counted = not_counted(uncounted, &users);
    let recommendation = recommend_now(&Measured {
        peak: largest.as_ref().map(|(count, ..)| *count),
        clipped: largest
            .as_ref()
            .is_some_and(|(count, ..)| limits.max_map_count.is_some_and(|limit| *count >= limit)),
        who: largest.as_ref().map(|(_, app, pid)| (app.clone(), *pid)),
        margin,
        current: limits.max_map_count,
        unread: not_counted.iter().filter(|it| it.forbidden).count() as u64,
        root,
        vma_bytes: vma_cost::price(&object_sizes, host.page_size).map(|price| price.usual),
        ..Measured::default()
    });
    let need = |who: String, vmas: u64| Need { who, vmas, recommended: margin.limit_for(vmas) };
    let applications = applications(&rows, anonymizer);
    let total_vmas = rows.iter().filter_map(figure).sum();
    let mut arguments: Vec<Vec<String>> = match options.show_args {
        true => rows.iter().map(|row| row.arguments.clone()).collect(),
        false => Vec::new(),
    };
    anonymizer.texts(arguments.iter_mut().flatten());
    let mut coverage = Coverage::default();
    if !root {
        coverage.notes.push(
            "Not root: only your own processes can be counted; run as root to see all of them.".to_owned(),
        );
    }
    coverage.notes.extend(notes(&rows));
    anonymizer.texts(&mut coverage.notes);
    let mut processes = rows.into_iter().map(|row| process(row, &limits, &users)).collect::<Vec<_>>();
    processes.iter_mut().for_each(|process| anonymizer.process(process));
    Scan {
        report: Report {
            schema: SCHEMA.to_owned(),
            version: VERSION,
            vmaudit: env!("CARGO_PKG_VERSION").to_owned(),
            host,
            session: Session {
                watched: None,
                stretch: None,
                elsewhere: None,
                command: Vec::new(),
                started,
                duration_s,
                exit: None,
                end: None,
                breach: None,
                rlimits: None,
                still_running: processes.len() as u64,
            },
            source: if by_kernel { SourceKind::Ebpf } else { SourceKind::Proc },
            coverage,
            limits,
            processes,
            folded: Vec::new(),
            not_counted,
            failures: Vec::new(),
            ordinary_answers: Vec::new(),
            marks: Vec::new(),
            budgets: Vec::new(),
            breaches: Vec::new(),
            recommendation,
        },
        applications,
        total_vmas,
        slab: slab.ok(),
        no_slab: slab.err(),
        custom: options.vma.map(|vmas| need("custom --vma value".to_owned(), vmas)),
        largest: largest.map(|(count, app, _)| need(app, count)),
        arguments,
        own,
        root,
    }
}

/// Processes without a figure, apart from the others.
fn not_counted(rows: Vec<Row>, users: &BTreeMap<u32, String>) -> Vec<NotCounted> {
    let one = |row: Row| {
        let reason = row.silent.or(row.count.err());
        NotCounted {
            pid: row.pid,
            comm: (!row.comm.is_empty()).then_some(row.comm),
            uid: row.uid,
            user: row.uid.and_then(|uid| users.get(&uid)).cloned(),
            forbidden: reason == Some(Unreadable::Forbidden),
            reason: reason.map_or_else(|| "is not known".into(), |reason| reason.sentence()),
        }
    };
    let mut all: Vec<NotCounted> = rows.into_iter().map(one).collect();
    all.sort_by_key(|it| it.pid);
    all
}

/// Gives processes of one application one name, see [`same_application`]: of several the first with a path.
fn unite(rows: &mut [Row]) {
    let mut names: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for row in rows.iter() {
        if let Some(key) = same_application(&row.app, row.exe.as_deref(), &row.arguments) {
            let name = names.entry(key).or_insert(&row.app);
            let rank = |name: &str| (!name.contains('/'), name.to_owned());
            if rank(&row.app) < rank(name) {
                *name = &row.app;
            }
        }
    }
    let united: Vec<Option<String>> = rows
        .iter()
        .map(|row| {
            let key = same_application(&row.app, row.exe.as_deref(), &row.arguments)?;
            names.get(&key).filter(|name| **name != row.app).map(|name| (*name).to_owned())
        })
        .collect();
    for (row, name) in rows.iter_mut().zip(united) {
        row.app = name.unwrap_or_else(|| std::mem::take(&mut row.app));
    }
}

fn figure(row: &Row) -> Option<u64> {
    row.count.as_ref().ok().copied()
}

/// Rows are large: each is moved once.
fn in_order(rows: Vec<Row>, by: Key, reverse: bool, users: &BTreeMap<u32, String>) -> Vec<Row> {
    let mut places: Vec<(usize, &Row)> = rows.iter().enumerate().collect();
    places.sort_by(|(_, a), (_, b)| {
        let by_count = || figure(b).cmp(&figure(a)).then_with(|| a.app.cmp(&b.app)).then(a.pid.cmp(&b.pid));
        match by {
            Key::Count => by_count(),
            Key::Pid => a.pid.cmp(&b.pid),
            Key::App => a.app.cmp(&b.app).then_with(by_count),
            Key::Comm => a.name().cmp(b.name()).then_with(by_count),
            Key::User => {
                let name = |row: &Row| row.uid.and_then(|uid| users.get(&uid));
                name(a).cmp(&name(b)).then_with(by_count)
            }
        }
    });
    if reverse {
        places.reverse();
    }
    let places: Vec<usize> = places.into_iter().map(|(place, _)| place).collect();
    let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
    places.into_iter().filter_map(|place| rows.get_mut(place)?.take()).collect()
}

fn applications(rows: &[Row], anonymizer: &Anonymizer) -> Vec<AppFigures> {
    let mut by_app: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for row in rows {
        if let Some(count) = figure(row) {
            by_app.entry(row.app.as_str()).or_default().push(count);
        }
    }
    let mut applications: Vec<AppFigures> = by_app
        .into_iter()
        .map(|(app, counts)| AppFigures {
            app: anonymizer.apply(app).into_owned(),
            instances: counts.len() as u64,
            max: counts.iter().copied().max().unwrap_or(0),
            // Halves go to the even neighbour, as people coming from the Python tool see them.
            avg: (counts.iter().sum::<u64>() as f64 / counts.len() as f64).round_ties_even() as u64,
            min: counts.iter().copied().min().unwrap_or(0),
        })
        .collect();
    applications.sort_by(|a, b| b.max.cmp(&a.max).then_with(|| a.app.cmp(&b.app)));
    applications
}

fn process(row: Row, limits: &Limits, users: &BTreeMap<u32, String>) -> Process {
    let last = figure(&row);
    let percent = last
        .zip(limits.max_map_count.filter(|&limit| limit > 0))
        // Below the limit it is not called 100 %.
        .map(|(count, limit)| {
            let tenths = (count as f64 * 1000.0 / limit as f64).round();
            (if count < limit { tenths.min(999.0) } else { tenths }) / 10.0
        });
    Process {
        pid: row.pid,
        ppid: row.ppid,
        comm: row.name().to_owned(),
        exe: row.exe,
        app: Some(row.app),
        unit: row.within.unit,
        container: row.within.container,
        pod: row.within.pod,
        since: None,
        cgroup: row.cgroup,
        user: row.uid.and_then(|uid| users.get(&uid)).cloned(),
        args: None,
        test: None,
        uid: row.uid,
        started_s: None,
        ended_s: None,
        shares_address_space_of: None,
        map_count: MapCount {
            last,
            exact: row.exact && last.is_some(),
            clipped: last.zip(limits.max_map_count).is_some_and(|(count, limit)| count >= limit),
            percent_of_limit: percent,
            ..MapCount::default()
        },
        images: Vec::new(),
        images_folded: 0,
        calls: BTreeMap::new(),
        tasks: Vec::new(),
        unmap_leaked_bytes: None,
        unmap_leaked_bound: None,
        series: None,
        growth: None,
        memory: None,
        makers: Vec::new(),
        layout: None,
        changes: Vec::new(),
        end: None,
        unreadable: row.silent.map(|reason| reason.sentence()),
    }
}

/// A sentence for each reason why processes are not shown completely, with their number and the first one.
fn notes(rows: &[Row]) -> Vec<String> {
    let mut reasons: BTreeMap<&Unreadable, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        if let Some(why) = &row.silent {
            reasons.entry(why).or_default().push(row);
        }
    }
    let sentence = |(why, rows): (&Unreadable, Vec<&Row>)| {
        let who = count(rows.len() as u64, "process is", "processes are");
        let first = rows.first().map(|row| format!("{} (pid {})", row.name(), row.pid)).unwrap_or_default();
        format!(
            "{who} not shown completely; {first}{} {}.",
            if rows.len() > 1 { ", the first," } else { "" },
            why.sentence()
        )
    };
    reasons.into_iter().map(sentence).collect()
}
