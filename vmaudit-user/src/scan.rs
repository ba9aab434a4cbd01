//! `vmaudit scan`: every process now, what it counts, and what the limit should be.
//!
//! [`read`] looks at the machine once; everything after it ([`figures`]) is arithmetic on rows.

use crate::model::scan::Scan;
use crate::os::rights;

pub mod figures;
pub mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::bail;

use crate::domain::application::Anonymizer;
use crate::domain::recommend::{DEFAULT_HEADROOM, DEFAULT_ROUND, Margin};
use crate::os::procfs::Proc;
use crate::output::form::{Form, Outputs};
use crate::output::scan_text;
use crate::source::ebpf::task_iter::Census;
use figures::Facts;
use read::{Walk, Wanted};

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
    /// Leave users' names in paths, names of processes and arguments instead of writing <user>.
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

/// Runs the command.
pub fn scan_command(args: &ScanArgs) -> anyhow::Result<ExitCode> {
    let margin = Margin::new(args.headroom, args.round)?;
    let outputs = Outputs::open(&args.format, &args.output)?;
    let proc = Proc::new("/proc");
    let (census, refused) = match args.source {
        Source::Ebpf => {
            (Some(Census::open().map_err(|reason| anyhow::anyhow!("--source ebpf: {reason}"))?), None)
        }
        Source::Auto => match Census::open() {
            Ok(census) => (Some(census), None),
            Err(reason) => (None, Some(reason)),
        },
        Source::Proc => (None, None),
    };
    let walk = census.as_ref().map(|census| || census.take());
    let walk: Option<Walk<'_>> = walk.as_ref().map(|walk| walk as Walk<'_>);
    let details = outputs.any(|form| form != Form::Text);
    let mut scan = scan(args, margin, &proc, walk, details)?;
    drop(census);
    rights::finish(&outputs.rights());
    if let Some(reason) = refused.filter(|_| nix::unistd::geteuid().is_root()) {
        scan.report
            .coverage
            .notes
            .push(format!("Counted by the lines of /proc/PID/maps, not by the kernel: {reason}."));
    }
    let found = scan.largest.is_some();
    outputs.write(|form, look, out| scan_text::write(&scan, form, args.top, look, out))?;
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scan(
    args: &ScanArgs,
    margin: Margin,
    proc: &Proc,
    walk: Option<Walk<'_>>,
    details: bool,
) -> anyhow::Result<Scan> {
    let began = SystemTime::now();
    let uid = args.user.as_deref().map(resolve_user).transpose()?;
    let (rows, slabs) = {
        let _rights = rights::raised(&rights::PROCESSES);
        let rows = read::read(&Wanted { args, uid, details }, proc, walk)?;
        (rows, proc.slabs(&crate::domain::vma_cost::CACHES))
    };
    let mut users = BTreeMap::new();
    for uid in rows.iter().filter_map(|row| row.uid) {
        users.entry(uid).or_insert_with(|| user_name(uid));
    }
    let anonymizer = if args.no_anonymize { Anonymizer::off() } else { Anonymizer::new(own_names()) };
    let facts = Facts {
        limits: proc.limits(),
        slabs,
        by_kernel: walk.is_some(),
        root: nix::unistd::geteuid().is_root(),
        began,
        users,
    };
    Ok(figures::build(args, margin, facts, rows, &anonymizer))
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

/// Names of the person at the keyboard: the user, and who called sudo. Accounts of services (`postgres`, `jenkins`) are
/// nobody's name, and often the program's.
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
        .retain(|name| !matches!(nix::unistd::User::from_name(name), Ok(Some(user)) if is_service(user.uid)));
    names
}

/// The usual limit (login.defs: UID_MIN); `nobody` is none either.
fn is_service(uid: nix::unistd::Uid) -> bool {
    uid.as_raw() < 1000 || uid.as_raw() == 65534
}
