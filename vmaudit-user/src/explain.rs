//! `vmaudit explain`: who owns the VMAs of one process, and why neighbours do not merge.
//!
//! Mappings stream through once; what is kept is bounded whatever the input: tallies by kind, by owner, by reason, the
//! largest regions, and a folded picture.

mod analysis;
pub mod boundary;
pub mod holders;
pub mod kinds;
pub mod picture;
mod verdict;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use self::analysis::{policies, stream};
use self::boundary::Reason;
use self::kinds::Kind;
use self::picture::Cluster;
use self::verdict::verdict;
use crate::apart::{self, Beat, Patience, Unanswered};
use crate::application::{Anonymizer, application, arguments};
use crate::maps::{Damage, Mapping};
use crate::output;
use crate::output::form::{Form, Outputs};
use crate::scan::own_names;
use crate::source::proc::{Handle, Paced, Proc, Stat, Unreadable};

/// Options of `vmaudit explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  vmaudit explain 812\n  vmaudit explain 812 --details always\n  \
    cat /proc/812/smaps > smaps.txt; vmaudit explain --smaps smaps.txt\n  vmaudit explain --maps maps.txt --format json")]
pub struct ExplainArgs {
    /// The process.
    #[arg(value_name = "PID", required_unless_present_any = ["maps", "smaps"])]
    pub pid: Option<u32>,
    /// A recorded /proc/PID/maps instead of a process; - is standard input. Example: --maps maps.txt
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub maps: Option<PathBuf>,
    /// A recorded /proc/PID/smaps; it holds all that maps holds, so it is used alone. Example: --smaps smaps.txt
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub smaps: Option<PathBuf>,
    /// A recorded /proc/PID/numa_maps beside it. Example: --numa-maps numa.txt
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub numa_maps: Option<PathBuf>,
    /// Whether to read smaps and numa_maps of the process, which walk its page tables: auto = when it is small.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Details::Auto)]
    pub details: Details,
    /// Rows of each table. Example: --top 30
    #[arg(short = 'n', long, value_name = "N", default_value_t = 12)]
    pub top: usize,
    /// Stop reading after this many VMAs. Example: --max-vmas 20000000
    #[arg(long, value_name = "N", default_value_t = 4_000_000)]
    pub max_vmas: u64,
    /// Form of the output. Example: --format json
    #[arg(long, value_enum, value_name = "FORM")]
    pub format: Vec<Form>,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Leave users' names in paths instead of writing <user>.
    #[arg(long)]
    pub no_anonymize: bool,
    /// A /proc mounted elsewhere.
    #[arg(long, hide = true, default_value = "/proc")]
    pub proc_root: PathBuf,
}

/// When smaps is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Details {
    /// When the process has few VMAs and little resident memory.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// With `--details auto` smaps is read up to this many VMAs ...
const SMALL_VMAS: u64 = 5_000;
/// ... and up to so many resident bytes: its page tables are walked.
const SMALL_RESIDENT: u64 = 1 << 30;

/// Sum over mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// VMAs.
    pub vmas: u64,
    /// Bytes of address space.
    pub bytes: u64,
    /// Resident bytes; 0 when smaps was not read.
    pub resident_bytes: u64,
}

impl Tally {
    fn add(&mut self, mapping: &Mapping) {
        self.vmas += 1;
        self.bytes = self.bytes.saturating_add(mapping.bytes());
        let resident = mapping.details.as_ref().map_or(0, |details| details.rss_bytes);
        self.resident_bytes = self.resident_bytes.saturating_add(resident);
    }
}

/// A named row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Its sum.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Boundaries of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryRow {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub title: String,
    /// Boundaries.
    pub boundaries: u64,
    /// Address of one of them, hexadecimal.
    pub example: String,
    /// What would help; null where nothing is known or nothing is wrong.
    pub cure: Option<String>,
}

/// Mappings of one object that follow each other without a wide hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First address, hexadecimal.
    pub start: String,
    /// Length, bytes.
    pub bytes: u64,
    /// VMAs.
    pub vmas: u64,
    /// What it is: a file's name, or anonymous memory.
    pub name: String,
    /// Commonest size of a piece, bytes.
    pub piece_bytes: u64,
    /// Pieces of that size.
    pub pieces: u64,
    /// Commonest reasons between its pieces, at most three, with their boundaries.
    pub reasons: Vec<(Reason, u64)>,
    /// VMAs that are stacks or their guard pages.
    pub stacks: u64,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// `vmaudit.explain`.
    #[serde(skip_deserializing, default = "schema")]
    pub schema: &'static str,
    /// 1.
    pub version: u32,
    /// Process, when it was a live one.
    pub pid: Option<u32>,
    /// Application or file.
    pub subject: String,
    /// VMAs.
    pub vmas: u64,
    /// These are all of them; false when reading ended early.
    pub complete: bool,
    /// vm.max_map_count here and now; null for a recorded file.
    pub max_map_count: Option<u64>,
    /// smaps was read: flags and resident memory are known.
    pub flags_seen: bool,
    /// Sentences about what could not be read.
    pub notes: Vec<String>,
    /// Damage of the input.
    pub damage: Damage,
    /// Bytes of address space, resident bytes.
    pub total: Tally,
    /// By kind.
    pub kinds: Vec<(Kind, Tally)>,
    /// By owner: file or name of memory.
    pub owners: Vec<Row>,
    /// By ending of the file's name.
    pub extensions: Vec<Row>,
    /// By permissions.
    pub permissions: Vec<Row>,
    /// By size.
    pub sizes: Vec<Row>,
    /// Boundaries by reason.
    pub boundaries: Vec<BoundaryRow>,
    /// Regions of most pieces.
    pub regions: Vec<Region>,
    /// The address space.
    pub picture: Vec<Cluster>,
    /// The verdict.
    pub verdict: Vec<String>,
}

fn schema() -> &'static str {
    SCHEMA
}

const SCHEMA: &str = "vmaudit.explain";

/// Runs the command.
pub fn explain_command(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let outputs = Outputs::open(&args.format, &args.output)?;
    let anonymizer = if args.no_anonymize { Anonymizer::off() } else { Anonymizer::new(own_names()) };
    let explanation = match args.pid {
        Some(pid) => live(args, pid, &anonymizer)?,
        None => recorded(args, &anonymizer)?,
    };
    outputs.write(|form, look, out| output::explain_text::write(&explanation, form, args.top, look, out))?;
    Ok(if explanation.vmas > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn recorded(args: &ExplainArgs, anonymizer: &Anonymizer) -> anyhow::Result<Explanation> {
    let path =
        args.smaps.as_deref().or(args.maps.as_deref()).context("neither a process nor a file was given")?;
    let policies = match &args.numa_maps {
        Some(path) => policies(open(path)?),
        None => HashMap::new(),
    };
    let mut notes = Vec::new();
    if args.smaps.is_some() && args.maps.is_some() {
        notes.push("smaps holds all that maps holds: the maps file was not read.".to_owned());
    }
    let mut explanation = stream(open(path)?, args.max_vmas, policies, anonymizer, &mut notes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    explanation.subject = anonymizer.apply(&path.display().to_string()).into_owned();
    explanation.notes = notes;
    explanation.verdict = verdict(&explanation);
    Ok(explanation)
}

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(256 << 10, file)))
}

/// The answer to the only question.
fn only<R>(answers: Vec<Result<R, Unanswered>>) -> Result<R, Unreadable> {
    answers.into_iter().next().unwrap_or(Err(Unanswered::NotAsked)).map_err(Unreadable::from)
}

/// Looks at a living process from a child: its files may block for ever.
fn live(args: &ExplainArgs, pid: u32, anonymizer: &Anonymizer) -> anyhow::Result<Explanation> {
    let proc = Proc::new(&args.proc_root);
    let refuse = |reason: Unreadable| anyhow::anyhow!("process {pid} {}", reason.sentence());
    // These two never block.
    let handle = proc.open(pid).map_err(refuse)?;
    let stat = handle.stat().map_err(refuse)?;
    if stat.kernel_thread {
        bail!("process {pid} is a kernel thread, without an address space of its own");
    }
    drop(handle);
    let same = || {
        let handle = proc.open(pid)?;
        let now = handle.stat()?;
        // Its number may be another process's by now.
        if now.start_ticks == stat.start_ticks { Ok((handle, now)) } else { Err(Unreadable::Gone) }
    };
    let patience = Patience::for_one();
    // Rights to read other users' processes (CAP_SYS_PTRACE) are needed in there, and in the other one below.
    let look = |(): &(), (): &mut (), beat: &Beat| {
        let (handle, stat) = same().map_err(|reason| refuse(reason).to_string())?;
        mappings(args, &handle, &stat, anonymizer, beat).map_err(|e| format!("{e:#}"))
    };
    let found: Result<Explanation, String> =
        only(apart::each(&[()], &patience, || (), look)).map_err(refuse)?;
    let mut explanation = found.map_err(anyhow::Error::msg)?;
    let look = |(): &(), (): &mut (), _: &Beat| {
        same().map_or_else(|_| stat.comm.clone(), |(handle, stat)| subject(&handle, &stat))
    };
    let subject = only(apart::each(&[()], &patience, || (), look)).unwrap_or_else(|why| {
        let name = "the kernel's name is shown instead.";
        explanation.notes.push(format!("Its command line {}: {name}", why.sentence()));
        stat.comm.clone()
    });
    explanation.pid = Some(pid);
    explanation.subject = anonymizer.apply(&subject).into_owned();
    explanation.max_map_count = proc.limits().max_map_count;
    explanation.verdict = verdict(&explanation);
    Ok(explanation)
}

/// In the child: the mappings, with what stands in smaps if that is asked for or cheap.
fn mappings(
    args: &ExplainArgs,
    handle: &Handle,
    stat: &Stat,
    anonymizer: &Anonymizer,
    beat: &Beat,
) -> anyhow::Result<Explanation> {
    let pid = handle.pid;
    let mut notes = Vec::new();
    let read = |name: &str, notes: &mut Vec<String>, with_policies: bool| -> anyhow::Result<Explanation> {
        let policies = match if with_policies { handle.map_file(stat, "numa_maps").ok() } else { None } {
            Some(file) => policies(paced(&file, beat)),
            None => HashMap::new(),
        };
        let file = handle
            .map_file(stat, name)
            .map_err(|reason| anyhow::anyhow!("process {pid} {}", reason.sentence()))?;
        let mut read = stream(paced(&file, beat), args.max_vmas, policies, anonymizer, notes)
            .with_context(|| format!("process {pid}: cannot read its {name}"))?;
        if !still_there(&file) {
            read.complete = false;
            notes.push(format!(
                "The process ended while it was read: these are the first {} of its VMAs.",
                output::grouped(read.vmas)
            ));
        }
        Ok(read)
    };
    let detailed = args.details == Details::Always;
    let mut explanation = read(if detailed { "smaps" } else { "maps" }, &mut notes, detailed)?;
    if explanation.vmas == 0 {
        bail!("process {pid} has no mappings: it is ending");
    }
    if args.details == Details::Auto {
        if explanation.vmas <= SMALL_VMAS
            && handle.resident_bytes().is_some_and(|bytes| bytes <= SMALL_RESIDENT)
        {
            let mut second = Vec::new();
            // Between the two looks it may have ended, or smaps may be forbidden: the first look stands.
            match read("smaps", &mut second, true) {
                Ok(detailed) if detailed.vmas > 0 && (detailed.complete || !explanation.complete) => {
                    explanation = detailed;
                    notes = second;
                }
                _ => notes.push("smaps could not be read: flags are not known.".to_owned()),
            }
        } else {
            notes.push(
                "Flags were not read: smaps walks the page tables of a process this large. --details always reads it."
                    .to_owned(),
            );
        }
    }
    explanation.notes = notes;
    Ok(explanation)
}

fn paced<'a>(file: &'a File, beat: &'a Beat) -> impl BufRead + 'a {
    BufReader::with_capacity(64 << 10, Answering { inner: Paced::new(file), beat })
}

/// Tells the parent with each read that the process answers.
struct Answering<'a, R> {
    inner: R,
    beat: &'a Beat,
}

impl<R: Read> Read for Answering<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer);
        self.beat.goes_on();
        read
    }
}

/// The address space behind an open maps file has not ended. An end in the middle looks like the end of the file.
fn still_there(mut file: &File) -> bool {
    file.rewind().is_ok() && file.read(&mut [0]).is_ok_and(|read| read > 0)
}

fn subject(handle: &Handle, stat: &Stat) -> String {
    let arguments = arguments(&handle.cmdline().unwrap_or_default());
    application(handle.exe().as_deref(), &arguments, &stat.comm)
}

#[cfg(test)]
mod tests;
