//! `cargo xtask parity`: vmaudit's counts of calls and refusals beside strace's, of the same processes in the same run.
//!
//! vmaudit runs strace, and strace runs the program: both see every call of it. strace's own calls are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;
use vmaudit_common::call::{CALLS, Refusal};

use crate::bench::machine;
use crate::command::{TempDir, as_root, find, output, say, shown};
use crate::programs::{self, Linking};

/// Stressors of stress-ng, and how many of their operations: enough for each kind of call that they make, little enough for
/// strace.
const STRESSORS: [(&str, u32); 29] = [
    ("aiol", 5),
    ("bigheap", 20),
    ("brk", 200),
    ("clone", 50),
    ("fork", 50),
    ("madvise", 2),
    ("mincore", 20),
    ("mlock", 2),
    ("mlockmany", 1),
    ("mmap", 2),
    ("mmapaddr", 200),
    ("mmapfixed", 50),
    ("mmapfork", 1),
    ("mmaphuge", 20),
    ("mmapmany", 1),
    ("mprotect", 50),
    ("mremap", 20),
    ("msync", 20),
    ("munmap", 1),
    ("numa", 2),
    ("pkey", 20),
    ("remap", 1),
    ("secretmem", 2),
    ("shm", 2),
    ("shm-sysv", 2),
    ("stack", 2),
    ("sysbadaddr", 20),
    ("userfaultfd", 5),
    ("vfork", 50),
];
/// Those that are run once more with little address space.
const CRAMPED: [&str; 6] = ["bigheap", "brk", "mmap", "mmapmany", "mremap", "shm-sysv"];
/// How little, for prlimit.
const LITTLE: &str = "--as=200000000";
/// What the names of the Linux Test Project's tests of memory calls begin with, before a number.
const LTP: [&str; 23] = [
    "brk",
    "io_setup",
    "madvise",
    "mbind",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mprotect",
    "mremap",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "pkey",
    "process_madvise",
    "remap_file_pages",
    "shmat",
    "shmctl",
    "shmget",
    "shmt",
    "userfaultfd",
];
/// What vmaudit rightly counts less of: call, errno (empty: number of calls), and why. Any other difference makes the command
/// fail.
const EXPLAINED: [(&str, &str, &str); 1] = [(
    "brk",
    "ENOMEM",
    "strace shows no start of the heap: a request below it is a question to vmaudit, and unlike its answer to strace",
)];

/// What to compare.
#[derive(Args, Debug)]
pub struct Options {
    /// Stressors of stress-ng; without any, those of memory and processes
    stressors: Vec<String>,
    /// Folder of the built tests of the Linux Test Project, which Debian has no package of: those of memory calls are run,
    /// too
    #[arg(long)]
    ltp: Option<PathBuf>,
}

/// Calls by name, and refusals by name and errno.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    calls: BTreeMap<String, u64>,
    refused: BTreeMap<(String, String), u64>,
}

impl Options {
    /// Runs everything, watched by both, and prints the table. Errors: a difference that nothing explains.
    pub fn run(&self) -> Result<()> {
        let vmaudit = programs::vmaudit(Linking::Usual)?;
        let strace = find("strace").context("strace is missing: apt-get install strace")?;
        let folder = TempDir::new("parity")?;
        let programs = self.programs(folder.path())?;
        println!("{}; {}\n", machine()?, version(&strace)?);
        println!("| program | processes | calls | refusals (limits) | differences |\n|--|--|--|--|--|");
        let mut reasons = BTreeSet::new();
        let mut unexplained = 0;
        for (name, program) in programs {
            let row = compare(&vmaudit, &strace, folder.path(), program);
            let Compared { processes, status, by_strace, by_vmaudit } = row.with_context(|| name.clone())?;
            let name = if status == 0 { name } else { format!("{name} (status {status})") };
            let differences = differences(&by_strace, &by_vmaudit);
            unexplained += differences.iter().filter(|it| it.why.is_none()).count();
            reasons.extend(differences.iter().filter_map(|it| it.why));
            let told: Vec<String> = differences.iter().map(Difference::told).collect();
            let refused: Vec<String> =
                by_strace.refused.iter().map(|((call, errno), n)| format!("{call} {errno} {n}")).collect();
            let list = |list: Vec<String>| if list.is_empty() { "none".into() } else { list.join(", ") };
            let calls: u64 = by_strace.calls.values().sum();
            println!("| {name} | {processes} | {calls} | {} | {} |", list(refused), list(told));
        }
        reasons.iter().for_each(|why| println!("\nExplained: {why}."));
        match unexplained {
            0 => Ok(()),
            n => bail!("{n} differences have no explanation"),
        }
    }

    /// Names and commands.
    fn programs(&self, folder: &Path) -> Result<Vec<(String, Command)>> {
        let stress = find("stress-ng").context("stress-ng is missing: apt-get install stress-ng")?;
        let of_stressor = |name: &str, operations: u32| {
            let mut command = Command::new(&stress);
            command.args([format!("--{name}"), "1".into(), format!("--{name}-ops"), operations.to_string()]);
            command.args(["--timeout", "20", "--oom-avoid", "--temp-path"]).arg(folder);
            (format!("stress-ng {name}"), command)
        };
        let known = |name: &str| STRESSORS.iter().find(|(known, _)| *known == name).map_or(1, |(_, n)| *n);
        let mut programs: Vec<_> = match self.stressors.as_slice() {
            [] => STRESSORS.map(|(name, operations)| of_stressor(name, operations)).into(),
            named => named.iter().map(|name| of_stressor(name, known(name))).collect(),
        };
        for name in CRAMPED.iter().filter(|_| self.stressors.is_empty()) {
            let (title, stressor) = of_stressor(name, known(name));
            let mut command = Command::new("prlimit");
            command.arg(LITTLE).arg(stressor.get_program()).args(stressor.get_args());
            programs.push((format!("{title}, RLIMIT_AS 200 MB"), command));
        }
        if let Some(ltp) = &self.ltp {
            let mut tests = Vec::new();
            for entry in fs::read_dir(ltp).with_context(|| format!("cannot read {}", ltp.display()))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if LTP.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit())) && path.is_file() {
                    tests.push((format!("LTP {name}"), Command::new(&path)));
                }
            }
            tests.sort_by(|(a, _), (b, _)| a.cmp(b));
            programs.extend(tests);
        }
        Ok(programs)
    }
}

struct Compared {
    processes: usize,
    /// The program's own.
    status: i32,
    by_strace: Counts,
    by_vmaudit: Counts,
}

fn compare(vmaudit: &Path, strace: &Path, folder: &Path, program: Command) -> Result<Compared> {
    let (report, trace) = (folder.join("report.json"), folder.join("trace"));
    // Marked so that a strace that does not know a call yet does without.
    let names: Vec<String> = watched().map(|(name, _)| format!("?{name}")).collect();
    let mut command = as_root(vmaudit);
    command.args(["run", "--all-rows", "--calls", "all", "-q", "-o"]).arg(&report).arg("--").arg(strace);
    command.args(["-f", "-qq", "-e", "signal=none", "-e", &format!("trace={}", names.join(",")), "-o"]);
    command.arg(&trace).arg(program.get_program()).args(program.get_args());
    say!("{}", shown(&program));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?.code().unwrap_or(-1);
    let report: Value = serde_json::from_slice(&fs::read(&report).context("there is no report")?)?;
    let lost = &report["coverage"]["lost"];
    if report["coverage"]["exact_calls"] != true
        || report["folded"].as_array().is_some_and(|it| !it.is_empty())
    {
        bail!("vmaudit does not call its counts of calls exact here: {lost}");
    }
    let trace = String::from_utf8_lossy(&fs::read(&trace).context("strace wrote nothing")?).into_owned();
    let processes = report["processes"].as_array().map_or(0, Vec::len);
    Ok(Compared { processes, status, by_strace: of_strace(&trace), by_vmaudit: of_report(&report) })
}

/// The watched calls, and which answers of each count as refusals. Not ioctl, prctl and others of which only one use is
/// watched.
fn watched() -> impl Iterator<Item = (&'static str, Refusal)> {
    const OF_ONE_USE: [&str; 6] = ["ioctl", "prctl", "arch_prctl", "shmctl", "bpf", "map_shadow_stack"];
    let real = CALLS.iter().filter(|call| !call.name.starts_with('[') && !OF_ONE_USE.contains(&call.name));
    real.map(|call| (call.name, call.refusal))
}

/// The answer is one that a limit gives, as far as a trace tells: EPERM may have another reason.
fn refuses(refusal: Refusal, errno: &str) -> bool {
    use Refusal::{EnomemEagain, EnomemEnospc, Lock, Mmap, Never};
    match errno {
        "ENOMEM" => refusal != Never,
        "EAGAIN" => matches!(refusal, EnomemEagain | Lock | Mmap),
        "ENOSPC" => refusal == EnomemEnospc,
        _ => false,
    }
}

/// The counts of everybody but strace itself.
fn of_report(report: &Value) -> Counts {
    let empty = Vec::new();
    let list = |name: &str| report[name].as_array().unwrap_or(&empty);
    let rows = list("processes").iter().filter(|row| row["comm"] != "strace");
    let mut counts = Counts::default();
    let mut pids = BTreeSet::new();
    for row in rows {
        pids.insert(row["pid"].as_u64());
        for (name, _) in watched() {
            match row["calls"][name]["calls"].as_u64() {
                None | Some(0) => {}
                Some(calls) => *counts.calls.entry(name.into()).or_default() += calls,
            }
        }
    }
    for failure in list("failures").iter().chain(list("ordinary_answers")) {
        let (call, errno) = (&failure["syscall"], failure["errno"].as_str().unwrap_or_default());
        let known = watched().any(|(name, refusal)| call == name && refuses(refusal, errno));
        if known && pids.contains(&failure["pid"].as_u64()) {
            let key = (call.as_str().unwrap_or_default().to_owned(), errno.to_owned());
            *counts.refused.entry(key).or_default() += failure["count"].as_u64().unwrap_or(0);
        }
    }
    counts
}

/// The counts of a trace as `strace -f -o` writes it: one line a call, or two of one that others came in between.
fn of_strace(trace: &str) -> Counts {
    let mut counts = Counts::default();
    for line in trace.lines() {
        let Some((name, begun, answer)) = parsed(line) else { continue };
        let Some((_, refusal)) = watched().find(|(known, _)| *known == name) else { continue };
        *counts.calls.entry(name.into()).or_default() += 1;
        let errno = match answer.split_once(' ') {
            // brk shows no errno: another answer than what was asked for refuses.
            _ if refusal == Refusal::Brk => {
                let asked = begun.split_once("brk(").map_or("", |(_, rest)| rest.trim_end_matches(')'));
                if asked.is_empty() || asked == "NULL" || asked == answer { continue } else { "ENOMEM" }
            }
            Some(("-1", errno)) => errno.split(' ').next().unwrap_or_default(),
            _ => continue,
        };
        if refuses(refusal, errno) {
            *counts.refused.entry((name.into(), errno.into())).or_default() += 1;
        }
    }
    counts
}

/// Name of the call, the line up to its answer, the answer. `None` for lines of calls that have not returned.
fn parsed(line: &str) -> Option<(&str, &str, &str)> {
    let (_, call) = line.split_once(' ')?;
    let call = call.trim_start();
    let name = match call.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(" resumed>")?.0,
        None => call.split_once('(')?.0,
    };
    let (begun, answer) = call.rsplit_once(" = ")?;
    // "= ?" alone: the task ended within the call; with an errno it was interrupted, and came back.
    let returned = !begun.contains("<unfinished") && answer != "?";
    returned.then_some((name, begun.trim_end(), answer))
}

struct Difference {
    what: String,
    strace: u64,
    vmaudit: u64,
    why: Option<&'static str>,
}

impl Difference {
    fn told(&self) -> String {
        let Self { what, strace, vmaudit, why } = self;
        let mark = if why.is_some() { "explained" } else { "**unexplained**" };
        format!("{what}: strace {strace}, vmaudit {vmaudit} ({mark})")
    }
}

fn differences(strace: &Counts, vmaudit: &Counts) -> Vec<Difference> {
    let why = |call: &str, errno: &str| {
        let known = EXPLAINED.iter().find(|(of, with, _)| *of == call && *with == errno);
        known.map(|(.., why)| *why)
    };
    let mut found = Vec::new();
    let mut look = |what: String, strace: Option<&u64>, vmaudit: Option<&u64>, why: Option<&'static str>| {
        let (strace, vmaudit) = (strace.copied().unwrap_or(0), vmaudit.copied().unwrap_or(0));
        if strace != vmaudit {
            found.push(Difference { what, strace, vmaudit, why: why.filter(|_| vmaudit < strace) });
        }
    };
    for name in strace.calls.keys().chain(vmaudit.calls.keys()).collect::<BTreeSet<_>>() {
        look(name.clone(), strace.calls.get(name), vmaudit.calls.get(name), why(name, ""));
    }
    for key in strace.refused.keys().chain(vmaudit.refused.keys()).collect::<BTreeSet<_>>() {
        let (call, errno) = key;
        look(format!("{call} {errno}"), strace.refused.get(key), vmaudit.refused.get(key), why(call, errno));
    }
    found
}

/// "strace 6.1; stress-ng 0.15.06".
fn version(strace: &Path) -> Result<String> {
    let first = |text: String| text.lines().next().unwrap_or_default().replace(" -- version", "");
    let strace = first(output(Command::new(strace).arg("-V"))?);
    let stress = output(Command::new("stress-ng").arg("--version"))?;
    let stress: Vec<&str> = stress.split_whitespace().take(3).collect();
    Ok(format!("{strace}; {}", stress.join(" ").replace(", version", "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(calls: &[(&str, u64)], refused: &[(&str, &str, u64)]) -> Counts {
        Counts {
            calls: calls.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            refused: refused.iter().map(|(a, b, n)| (((*a).to_owned(), (*b).to_owned()), *n)).collect(),
        }
    }

    #[test]
    fn lines_of_strace_are_counted_once_each() {
        let trace = "\
7 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
7 mmap(NULL, 9007199254740992, PROT_READ, MAP_PRIVATE, -1, 0) = -1 ENOMEM (Cannot allocate memory)
7 mmap(NULL, 0, PROT_READ, MAP_PRIVATE, 3, 0) = -1 EINVAL (Invalid argument)
7 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>
8 munmap(0x7f0000000000, 4096 <unfinished ...>
7 <... clone resumed>) = ? ERESTARTNOINTR (To be restarted)
8 <... munmap resumed>)        = 0
8 brk(NULL)                    = 0x55d000
8 brk(0x57d000)                = 0x57d000
8 brk(0x7ff000)                = 0x57d000
8 mlock(0x7f0000000000, 4096)  = -1 EAGAIN (Resource temporarily unavailable)
8 execve(\"/bin/x\", [\"x\"], 0x7ffe /* 3 vars */ <unfinished ...>
8 <... execve resumed>)        = ?
8 getpid()                     = 8
9 +++ exited with 0 +++
";
        let calls = [("brk", 3), ("clone", 1), ("mlock", 1), ("mmap", 3), ("munmap", 1)];
        let refused = [("brk", "ENOMEM", 1), ("mlock", "EAGAIN", 1), ("mmap", "ENOMEM", 1)];
        assert_eq!(of_strace(trace), counts(&calls, &refused));
    }

    #[test]
    fn strace_itself_is_left_out_of_the_report() {
        let report = serde_json::json!({
            "processes": [
                {"pid": 1, "comm": "strace", "calls": {"mmap": {"calls": 9}}},
                {"pid": 2, "comm": "x", "calls": {"mmap": {"calls": 3}, "munmap": {"calls": null}, "[other]": {"calls": 5}}},
            ],
            "failures": [
                {"pid": 2, "syscall": "mmap", "errno": "ENOMEM", "count": 2},
                {"pid": 1, "syscall": "mmap", "errno": "ENOMEM", "count": 7},
            ],
            "ordinary_answers": [{"pid": 2, "syscall": "mmap", "errno": "ENOMEM", "count": 1}],
        });
        assert_eq!(of_report(&report), counts(&[("mmap", 3)], &[("mmap", "ENOMEM", 3)]));
    }

    #[test]
    fn what_differs_is_found_on_either_side() {
        let strace = counts(&[("mmap", 3)], &[("brk", "ENOMEM", 2), ("mmap", "ENOMEM", 1)]);
        let vmaudit = counts(&[("mmap", 3), ("brk", 1)], &[("brk", "ENOMEM", 1), ("mmap", "ENOMEM", 1)]);
        let found: Vec<(String, bool)> =
            differences(&strace, &vmaudit).into_iter().map(|it| (it.told(), it.why.is_some())).collect();
        assert_eq!(
            found,
            [
                ("brk: strace 0, vmaudit 1 (**unexplained**)".to_owned(), false),
                ("brk ENOMEM: strace 2, vmaudit 1 (explained)".to_owned(), true),
            ]
        );
        assert!(differences(&strace, &strace).is_empty());
        assert!(differences(&vmaudit, &strace)[1].why.is_none(), "more is never right");
    }
}
