//! `vmaudit scan`: every process now, what it counts, and what the limit should be.
//!
//! Reading is one pass over /proc (or one answer of the kernel's task iterator and a few names from /proc); everything
//! after it is arithmetic on rows.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::application::{Anonymizer, application, arguments};
use crate::output::table::Look;
use crate::output::{self, Destination};
use crate::recommend::{DEFAULT_HEADROOM, DEFAULT_ROUND, KERNEL_DEFAULT, Margin, Measured, recommend};
use crate::report::{Coverage, Limits, MapCount, Process, Report, SCHEMA, Session, SourceKind, VERSION};
use crate::source::proc::{CountBuffer, Proc, Slab, Stat, Unreadable, host};

/// Options of `vmaudit scan`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  vmaudit scan --top 5\n  vmaudit scan --user postgres --sort app\n  \
    vmaudit scan --vma 200000 --headroom 1.25 --round 1\n  vmaudit scan --format json -o now.json")]
pub struct ScanArgs {
    /// How many processes to show; JSON and CSV always hold all of them. Example: --top 5
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub top: usize,
    /// Room above the largest count, as a factor of at least 1.2. Example: --headroom 1.25
    #[arg(long, value_name = "FACTOR", default_value_t = DEFAULT_HEADROOM)]
    pub headroom: f64,
    /// Round the recommended limit up to a multiple of this; 1 = do not round. Example: --round 1000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ROUND)]
    pub round: u64,
    /// Also say what a process of N VMAs would need. Example: --vma 200000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub vma: Option<u64>,
    /// Only these processes; repeat it or separate by commas. Example: -p 812,4711
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Only processes of this user, by name or number. Example: --user postgres
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Only processes whose name contains this. Example: --comm java
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Only processes whose cgroup path contains this: a slice, a unit, a container's id. Example: --cgroup docker-3f2a
    #[arg(long, visible_alias = "container", value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Order of the processes. Example: --sort app
    #[arg(long, value_name = "KEY", value_enum, default_value_t = Key::Count)]
    pub sort: Key,
    /// Turn the order around.
    #[arg(long)]
    pub reverse: bool,
    /// Show command lines. They may hold secrets: look through them before you share the output.
    #[arg(long)]
    pub show_args: bool,
    /// Leave users' names in paths instead of writing <user>.
    #[arg(long)]
    pub no_anonymize: bool,
    /// Where counts come from: the kernel's own counter through eBPF (root), or the lines of /proc/PID/maps.
    #[arg(long, value_enum, default_value_t = Source::Auto, value_name = "SOURCE")]
    pub source: Source,
    /// Form of the output; may be repeated, each one goes with the -o at the same place. Example: --format json
    #[arg(long, value_enum, value_name = "FORM")]
    pub format: Vec<Form>,
    /// Write to this file instead of standard output; may be repeated. Example: -o now.json
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<std::path::PathBuf>,
    /// A /proc mounted elsewhere.
    #[arg(long, hide = true, default_value = "/proc")]
    pub proc_root: std::path::PathBuf,
}

/// Order of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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

/// Where counts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// The kernel where it allows, else /proc.
    Auto,
    /// The kernel's task iterator, or an error.
    Ebpf,
    /// /proc.
    Proc,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// One document in the schema `vmaudit.report`.
    Json,
    /// One line per process.
    Csv,
}

/// Everything a scan found.
#[derive(Clone, Debug, Serialize)]
pub struct Scan {
    /// The report that all commands share.
    #[serde(flatten)]
    pub report: Report,
    /// Per application, largest first.
    pub applications: Vec<AppFigures>,
    /// VMAs of all processes together; no limit applies to this sum.
    pub total_vmas: u64,
    /// The kernel's cache of VMAs; null without root.
    pub slab: Option<Slab>,
    /// What a process of `--vma` VMAs would need; null when it was not asked.
    pub custom: Option<Need>,
    /// What the largest process needs; null when nothing could be read.
    pub largest: Option<Need>,
    /// Command lines, in the order of the processes; empty without `--show-args`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Vec<String>>,
    /// Names of owners by uid.
    #[serde(skip)]
    pub users: BTreeMap<u32, String>,
}

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppFigures {
    /// Name.
    pub app: String,
    /// Processes.
    pub instances: u64,
    /// Most VMAs of one of them.
    pub max: u64,
    /// Mean, rounded.
    pub avg: u64,
    /// Fewest.
    pub min: u64,
}

/// Arithmetic of one recommendation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    /// Whose.
    pub who: String,
    /// VMAs.
    pub vmas: u64,
    /// Recommended limit, VMAs.
    pub recommended: u64,
}

/// One process as read.
#[derive(Clone, Debug)]
struct Row {
    pid: u32,
    uid: Option<u32>,
    stat: Option<Stat>,
    exe: Option<String>,
    arguments: Vec<String>,
    app: String,
    cgroup: Option<String>,
    count: Result<u64, Unreadable>,
}

/// Runs the command. `kernel` gives (tgid, map_count) of every process that has an address space, or nothing where the
/// kernel's task iterator cannot be used; it is asked only when the options allow it.
pub fn scan_command(
    args: &ScanArgs,
    kernel: impl FnOnce() -> Option<Vec<(u32, u32)>>,
) -> anyhow::Result<ExitCode> {
    let margin = Margin::new(args.headroom, args.round)?;
    let proc = Proc::new(&args.proc_root);
    let kernel = match args.source {
        Source::Proc => None,
        Source::Auto => kernel(),
        Source::Ebpf => {
            Some(kernel().context("the kernel's task iterator cannot be used here; see `vmaudit doctor`")?)
        }
    };
    let outputs = destinations(&args.format, &args.output)?;
    let scan = scan(args, margin, &proc, kernel)?;
    let found = scan.largest.is_some();
    for (form, mut destination) in outputs {
        let look = Look::of(&destination);
        written(output::scan_text::write(&scan, form, args.top, &look, &mut destination))?;
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A reader that has seen enough (`| head`) is no failure.
pub fn written(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// Forms and files paired by their places: a form without a file goes to standard output, a file without a form takes
/// its form from its name.
pub fn destinations(
    forms: &[Form],
    files: &[std::path::PathBuf],
) -> anyhow::Result<Vec<(Form, Destination)>> {
    let mut pairs = Vec::new();
    for place in 0..forms.len().max(files.len()).max(1) {
        let file = files.get(place);
        let form = forms.get(place).copied().unwrap_or_else(|| {
            match file.and_then(|file| file.extension()).and_then(|extension| extension.to_str()) {
                Some("json") => Form::Json,
                Some("csv") => Form::Csv,
                _ => Form::Text,
            }
        });
        let destination = match file {
            Some(file) => {
                Destination::open(file).with_context(|| format!("cannot write {}", file.display()))?
            }
            None => Destination::Stdout,
        };
        pairs.push((form, destination));
    }
    Ok(pairs)
}

fn scan(
    args: &ScanArgs,
    margin: Margin,
    proc: &Proc,
    kernel: Option<Vec<(u32, u32)>>,
) -> anyhow::Result<Scan> {
    let began = SystemTime::now();
    let uid = args.user.as_deref().map(resolve_user).transpose()?;
    let wanted_details =
        args.format.iter().any(|form| *form != Form::Text) || !args.output.is_empty() || args.comm.is_some();
    let counter = kernel.map(|counts| counts.into_iter().collect::<HashMap<u32, u32>>());
    let rows = read(args, uid, wanted_details, proc, counter.as_ref())?;
    let mut names = BTreeMap::new();
    for uid in rows.iter().filter_map(|row| row.uid) {
        names.entry(uid).or_insert_with(|| user_name(uid));
    }
    let anonymizer = if args.no_anonymize { Anonymizer::off() } else { Anonymizer::new(own_names()) };
    let counted_by_kernel = counter.is_some();
    Ok(build(args, margin, proc, rows, names, &anonymizer, counted_by_kernel, began))
}

fn read(
    args: &ScanArgs,
    uid: Option<u32>,
    details: bool,
    proc: &Proc,
    kernel: Option<&HashMap<u32, u32>>,
) -> anyhow::Result<Vec<Row>> {
    let pids = if args.pid.is_empty() {
        proc.pids().with_context(|| format!("cannot read {}", proc.root().display()))?
    } else {
        let mut pids = args.pid.clone();
        pids.sort_unstable();
        pids.dedup();
        pids
    };
    let mut buffer = CountBuffer::default();
    let mut rows = Vec::with_capacity(pids.len());
    for pid in pids {
        if let Some(row) = read_row(args, pid, uid, details, proc, kernel, &mut buffer) {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// One process; `None` when a filter leaves it out, or it is a kernel thread that nobody asked for by its pid.
fn read_row(
    args: &ScanArgs,
    pid: u32,
    uid: Option<u32>,
    details: bool,
    proc: &Proc,
    kernel: Option<&HashMap<u32, u32>>,
    buffer: &mut CountBuffer,
) -> Option<Row> {
    let filtered = uid.is_some() || args.comm.is_some() || args.cgroup.is_some();
    let handle = match proc.open(pid) {
        Ok(handle) => handle,
        // Without its owner or its name no filter can be answered.
        Err(_) if filtered => return None,
        Err(reason) => return Some(Row::unread(pid, reason)),
    };
    if uid.is_some_and(|wanted| wanted != handle.uid) {
        return None;
    }
    let cgroup = if details || args.cgroup.is_some() { handle.cgroup() } else { None };
    if args
        .cgroup
        .as_ref()
        .is_some_and(|wanted| !cgroup.as_ref().is_some_and(|path| path.contains(wanted.as_str())))
    {
        return None;
    }
    let mut stat = if details { handle.stat().ok() } else { None };
    if let Some(wanted) = &args.comm
        && !stat.as_ref().is_some_and(|stat| stat.comm.contains(wanted.as_str()))
    {
        return None;
    }
    let fast = match kernel {
        Some(counts) => counts.get(&pid).map(|&count| u64::from(count)),
        // Most processes are alive and readable: then `stat` need not be read to know how to count.
        None => handle.file("maps").ok().and_then(|mut file| buffer.count(&mut file).ok()).filter(|&n| n > 0),
    };
    let count = match fast {
        Some(count) => Ok(count),
        None => {
            let result = match &stat {
                Some(stat) => Ok(stat.clone()),
                None => handle.stat(),
            };
            result.and_then(|found| {
                let count = handle.count(&found, buffer);
                stat = Some(found);
                count
            })
        }
    };
    if count == Err(Unreadable::KernelThread) && args.pid.is_empty() {
        return None;
    }
    let arguments = arguments(&handle.cmdline().unwrap_or_default());
    let mut exe = if details { handle.exe() } else { None };
    // The executable and the kernel's name are needed only where the command line does not speak for itself.
    let unclear = arguments.first().is_none_or(|first| first.is_empty() || first.contains(": "));
    if unclear {
        exe = exe.or_else(|| handle.exe());
        stat = stat.or_else(|| handle.stat().ok());
    }
    let comm = stat.as_ref().map_or("", |stat| stat.comm.as_str());
    let fallback = format!("[pid {pid}]");
    let app = application(exe.as_deref(), &arguments, if comm.is_empty() { &fallback } else { comm });
    Some(Row { pid, uid: Some(handle.uid), stat, exe, arguments, app, cgroup, count })
}

impl Row {
    fn unread(pid: u32, reason: Unreadable) -> Self {
        Self {
            pid,
            uid: None,
            stat: None,
            exe: None,
            arguments: Vec::new(),
            app: format!("[pid {pid}]"),
            cgroup: None,
            count: Err(reason),
        }
    }

    fn comm(&self) -> String {
        match &self.stat {
            Some(stat) => stat.comm.clone(),
            None => self.app.rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "called once; a struct would only repeat the names")]
fn build(
    args: &ScanArgs,
    margin: Margin,
    proc: &Proc,
    mut rows: Vec<Row>,
    users: BTreeMap<u32, String>,
    anonymizer: &Anonymizer,
    counted_by_kernel: bool,
    began: SystemTime,
) -> Scan {
    let limits = proc.limits();
    let slabs = proc.slabs(&crate::price::CACHES);
    let figure = |row: &Row| row.count.as_ref().ok().copied();
    rows.sort_by(|a, b| {
        let by_count = || figure(b).cmp(&figure(a)).then_with(|| a.app.cmp(&b.app)).then(a.pid.cmp(&b.pid));
        match args.sort {
            Key::Count => by_count(),
            Key::Pid => a.pid.cmp(&b.pid),
            Key::App => a.app.cmp(&b.app).then_with(by_count),
            Key::Comm => a.comm().cmp(&b.comm()).then_with(by_count),
            Key::User => {
                let name = |row: &Row| row.uid.and_then(|uid| users.get(&uid).cloned());
                name(a).cmp(&name(b)).then_with(by_count)
            }
        }
    });
    if args.reverse {
        rows.reverse();
    }

    let largest = rows
        .iter()
        .filter_map(|row| Some((figure(row)?, row)))
        // Of equals the first by name, as in the table.
        .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.app.cmp(&x.app)).then(y.pid.cmp(&x.pid)));
    let who = largest.map(|(_, row)| (anonymizer.apply(&row.app).into_owned(), row.pid));
    let recommendation = recommend(&Measured {
        peak: largest.map(|(count, _)| count),
        exact: false,
        clipped: largest.is_some_and(|(count, _)| limits.max_map_count.is_some_and(|limit| count >= limit)),
        who: who.clone(),
        margin,
        current: limits.max_map_count,
        failures: Vec::new(),
        vma_bytes: crate::price::price(&slabs).map(|price| price.usual),
    });
    let need = |who: String, vmas: u64| Need { who, vmas, recommended: margin.limit_for(vmas) };

    let mut by_app: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for row in &rows {
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

    let mut coverage = Coverage::default();
    if !nix::unistd::geteuid().is_root() {
        coverage.notes.push(
            "Not root: only your own processes can be counted; run as root to see all of them.".to_owned(),
        );
    }
    let total_vmas = rows.iter().filter_map(figure).sum();
    let custom = args.vma.map(|vmas| need("custom --vma value".to_owned(), vmas));
    let largest = largest.map(|(count, _)| need(who.map(|(app, _)| app).unwrap_or_default(), count));
    let arguments = if args.show_args {
        rows.iter()
            .map(|row| row.arguments.iter().map(|argument| anonymizer.apply(argument).into_owned()).collect())
            .collect()
    } else {
        Vec::new()
    };
    let processes =
        rows.into_iter().map(|row| process(row, &limits, anonymizer, counted_by_kernel)).collect::<Vec<_>>();
    Scan {
        report: Report {
            schema: SCHEMA.to_owned(),
            version: VERSION,
            vmaudit: env!("CARGO_PKG_VERSION").to_owned(),
            host: host(),
            session: Session {
                command: Vec::new(),
                started: rfc3339(began),
                duration_s: began.elapsed().unwrap_or_default().as_secs_f64(),
                exit: None,
                breach: None,
                still_running: processes.len() as u64,
            },
            source: if counted_by_kernel { SourceKind::Ebpf } else { SourceKind::Proc },
            coverage,
            limits,
            processes,
            failures: Vec::new(),
            ordinary_answers: Vec::new(),
            recommendation,
        },
        applications,
        total_vmas,
        slab: slabs.into_iter().next().flatten(),
        custom,
        largest,
        arguments,
        users,
    }
}

fn process(row: Row, limits: &Limits, anonymizer: &Anonymizer, exact: bool) -> Process {
    let comm = row.comm();
    let last = row.count.as_ref().ok().copied();
    let percent = last
        .zip(limits.max_map_count.filter(|&limit| limit > 0))
        .map(|(count, limit)| (count as f64 * 1000.0 / limit as f64).round() / 10.0);
    Process {
        pid: row.pid,
        ppid: row.stat.as_ref().map(|stat| stat.ppid),
        comm: anonymizer.apply(&comm).into_owned(),
        exe: row.exe.map(|exe| anonymizer.apply(&exe).into_owned()),
        app: Some(anonymizer.apply(&row.app).into_owned()),
        cgroup: row.cgroup,
        uid: row.uid,
        started_s: None,
        ended_s: None,
        map_count: MapCount {
            last,
            exact: exact && last.is_some(),
            clipped: last.zip(limits.max_map_count).is_some_and(|(count, limit)| count >= limit),
            percent_of_limit: percent,
            ..MapCount::default()
        },
        images: Vec::new(),
        calls: BTreeMap::new(),
        unmap_leaked_bytes: None,
        unreadable: row.count.err().map(|reason| reason.sentence()),
    }
}

fn resolve_user(name: &str) -> anyhow::Result<u32> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => bail!("there is no user {name}"),
    }
}

fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Names of the person at the keyboard: the user, and who called sudo.
pub fn own_names() -> Vec<String> {
    let mut names: Vec<String> = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .filter(|name| name != "root")
        .collect();
    names.push(user_name(nix::unistd::getuid().as_raw()));
    names.sort();
    names.dedup();
    names
}

/// Wall time as RFC 3339, UTC, whole seconds.
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(since)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|stamp| stamp.to_string())
        .unwrap_or_default()
}

/// `kernel default` or `custom value`.
pub fn origin(limit: u64) -> &'static str {
    if limit == KERNEL_DEFAULT { "kernel default" } else { "custom value" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table::Look;
    use clap::Parser as _;
    use std::path::{Path, PathBuf};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ScanArgs,
    }

    /// A /proc made of files, removed at the end of the test.
    struct Fake(PathBuf);
    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    impl Fake {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("vmaudit-scan-{name}-{}", std::process::id()));
            std::fs::create_dir_all(root.join("sys/vm")).unwrap();
            std::fs::write(root.join("sys/vm/max_map_count"), "65530\n").unwrap();
            Self(root)
        }

        fn process(&self, pid: u32, comm: &str, cmdline: &str, cgroup: &str, vmas: usize) {
            let own = self.0.join(pid.to_string());
            std::fs::create_dir_all(&own).unwrap();
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0");
            std::fs::write(own.join("stat"), stat).unwrap();
            std::fs::write(own.join("cmdline"), cmdline).unwrap();
            std::fs::write(own.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            std::fs::write(own.join("maps"), "1000-2000 rw-p 00000000 00:00 0 \n".repeat(vmas)).unwrap();
        }
    }

    fn run(root: &Path, options: &[&str]) -> Scan {
        let line = ["scan", "--proc-root", root.to_str().unwrap()].into_iter().chain(options.iter().copied());
        let args = Line::parse_from(line).args;
        let margin = Margin::new(args.headroom, args.round).unwrap();
        scan(&args, margin, &Proc::new(root), None).unwrap()
    }

    fn pids(scan: &Scan) -> Vec<u32> {
        scan.report.processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn rows_filters_and_order() {
        let fake = Fake::new("rows");
        fake.process(10, "java", "/usr/bin/java\0-jar\0", "/docker/3f2a", 50);
        fake.process(11, "java", "/usr/bin/java\0-jar\0", "/docker/3f2b", 61);
        fake.process(12, "x) (y", "python3\0-u\0/home/ann/a.py\0", "/", 61);
        let scan = run(&fake.0, &[]);
        assert_eq!(pids(&scan), [12, 11, 10]);
        assert_eq!(scan.total_vmas, 172);
        assert_eq!(scan.report.processes[0].app.as_deref(), Some("/home/<user>/a.py"));
        assert_eq!(
            scan.applications[1],
            AppFigures {
                app: "/usr/bin/java".into(),
                instances: 2,
                max: 61,
                avg: 56, // 55.5
                min: 50
            }
        );
        assert_eq!(scan.largest.as_ref().unwrap().recommended, 65530);
        assert_eq!(pids(&run(&fake.0, &["--sort", "pid"])), [10, 11, 12]);
        assert_eq!(pids(&run(&fake.0, &["--sort", "pid", "--reverse"])), [12, 11, 10]);
        assert_eq!(pids(&run(&fake.0, &["--comm", "jav"])), [11, 10]);
        assert_eq!(pids(&run(&fake.0, &["--container", "3f2a"])), [10]);
        assert_eq!(pids(&run(&fake.0, &["-p", "12,10"])), [12, 10]);
        assert_eq!(pids(&run(&fake.0, &["--user", "4294967294"])), [0; 0]);
    }

    #[test]
    fn a_process_that_is_gone_is_a_row_with_its_reason() {
        let fake = Fake::new("gone");
        fake.process(10, "a", "a\0", "/", 3);
        fake.process(11, "b", "b\0", "/", 0);
        let scan = run(&fake.0, &["-p", "9,10,11"]);
        let reasons: Vec<_> =
            scan.report.processes.iter().map(|process| process.unreadable.is_some()).collect();
        assert_eq!((pids(&scan), reasons), (vec![10, 9, 11], vec![false, true, true]));
        assert_eq!(scan.report.processes[1].map_count.last, None);
        assert_eq!(scan.applications.len(), 1);
    }

    #[test]
    fn counts_of_the_kernel_replace_those_of_proc() {
        let fake = Fake::new("kernel");
        fake.process(10, "a", "a\0", "/", 3);
        let args = Line::parse_from(["scan", "--proc-root", fake.0.to_str().unwrap()]).args;
        let scan = scan(&args, Margin::default(), &Proc::new(&fake.0), Some(vec![(10, 65530)])).unwrap();
        let row = &scan.report.processes[0].map_count;
        assert_eq!(
            (row.last, row.exact, row.clipped, row.percent_of_limit),
            (Some(65530), true, true, Some(100.0))
        );
        assert_eq!(scan.report.source, SourceKind::Ebpf);
        assert_eq!(scan.report.recommendation.value, Some(100_000));
    }

    #[test]
    fn every_form_is_whole_and_harmless() {
        let fake = Fake::new("forms");
        fake.process(10, "\x1b[2J,\"x", "\x1b]0;evil\x07\0--password=1\0", "/", 3);
        for options in [&["--vma", "70000"][..], &["--show-args"]] {
            let scan = run(&fake.0, options);
            for form in [Form::Text, Form::Json, Form::Csv] {
                let mut out = Vec::new();
                output::scan_text::write(&scan, form, 20, &Look::default(), &mut out).unwrap();
                let text = String::from_utf8(out).unwrap();
                assert!(!text.contains('\x1b'), "{text}");
                assert_eq!(
                    text.contains("--password"),
                    options == ["--show-args"] && form != Form::Csv,
                    "{text}"
                );
                assert!(text.ends_with('\n'));
            }
        }
        let scan = run(&fake.0, &["--vma", "70000"]);
        let json = serde_json::to_value(&scan).unwrap();
        assert_eq!(
            (&json["schema"], &json["custom"]["recommended"]),
            (&"vmaudit.report".into(), &110_000.into())
        );
        let back: Report = serde_json::from_value(json).unwrap();
        assert_eq!(back, scan.report);
    }
}
