//! `vmaudit explain`: who owns the VMAs of one process, and why neighbours do not merge.
//!
//! Mappings stream through once; what is kept is bounded whatever the input: tallies by kind, by owner, by reason, the
//! largest regions, and a folded picture.

pub mod boundary;
pub mod picture;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Serialize;

use self::boundary::{Reason, is_library, kernel_made, same_object, why};
use self::picture::{Cluster, Picture};
use crate::application::{Anonymizer, application, arguments};
use crate::maps::{Damage, Mapping, Parser};
use crate::output::table::{Look, percent};
use crate::output::{self, bytes, count, grouped};
use crate::scan::{Form, destinations, own_names, written};
use crate::source::proc::{Handle, Paced, Proc, Stat};

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

/// Distinct owners, sizes and reasons that are told apart; what comes later is put together as the rest.
const MAX_OWNERS: usize = 20_000;
/// Regions kept while the file streams by.
const MAX_REGIONS: usize = 16;
/// Reasons or sizes told apart within one region.
const MAX_IN_REGION: usize = 64;
/// Bytes of all owners' names together.
const MAX_OWNER_BYTES: usize = 8 << 20;
/// Policies other than the default that are remembered.
const MAX_POLICIES: usize = 100_000;
/// Holes up to this many bytes belong to a region.
const REGION_HOLE: u64 = 256 << 10;
/// Segments of a program; a region of more of them was split by something else.
const MAX_SEGMENTS: u64 = 16;

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program or library (executable file or its segments).
    Library,
    /// Any other file.
    File,
    /// A file that was deleted.
    DeletedFile,
    /// memfd, /dev/shm, SysV, MAP_SHARED | MAP_ANONYMOUS.
    SharedMemory,
    /// A device.
    Device,
    /// `[heap]`: brk.
    Heap,
    /// `[stack]` of the first thread.
    MainStack,
    /// Memory behind a guard page: stacks of threads and fibers.
    Stack,
    /// A short range without access beside a longer one with it.
    Guard,
    /// glibc's malloc arenas: 64 MiB, aligned.
    Arena,
    /// Another range without access.
    Reserved,
    /// Anonymous memory with a name.
    Named,
    /// Anonymous memory that can be executed: compiled at run time.
    Jit,
    /// Other anonymous memory.
    Anonymous,
    /// vdso, vvar, uprobes.
    Kernel,
}

impl Kind {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Library => "programs and libraries",
            Self::File => "other files",
            Self::DeletedFile => "deleted files",
            Self::SharedMemory => "shared memory",
            Self::Device => "devices",
            Self::Heap => "heap (brk)",
            Self::MainStack => "main stack",
            Self::Stack => "stacks behind a guard page",
            Self::Guard => "guard pages",
            Self::Arena => "malloc arenas (glibc)",
            Self::Reserved => "ranges without access (reserved)",
            Self::Named => "named anonymous memory",
            Self::Jit => "executable anonymous memory",
            Self::Anonymous => "anonymous memory",
            Self::Kernel => "kernel-made (vdso, vvar)",
        }
    }
}

/// Sum over mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Its sum.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Boundaries of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// `vmaudit.explain`.
    pub schema: &'static str,
    /// 1.
    pub version: u32,
    /// Process, when it was a live one.
    pub pid: Option<u32>,
    /// Application or file.
    pub subject: String,
    /// VMAs.
    pub vmas: u64,
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

/// Collects while mappings stream by.
#[derive(Debug, Default)]
struct Analysis {
    total: Tally,
    kinds: BTreeMap<Kind, Tally>,
    owners: HashMap<String, Tally>,
    owner_bytes: usize,
    extensions: HashMap<String, Tally>,
    permissions: BTreeMap<String, Tally>,
    sizes: [Tally; SIZES.len()],
    boundaries: HashMap<Reason, (u64, u64)>,
    regions: Vec<Region>,
    run: Option<Run>,
    picture: Picture,
    flags_seen: bool,
    /// The mapping whose successor is not known yet, and what touches it from below.
    last: Option<(Mapping, Option<Below>)>,
    policies: HashMap<u64, String>,
}

/// The mapping that touches another from below.
#[derive(Clone, Copy, Debug)]
struct Below {
    kind: Kind,
    bytes: u64,
}

#[derive(Debug)]
struct Run {
    start: u64,
    end: u64,
    vmas: u64,
    stacks: u64,
    name: String,
    sizes: HashMap<u64, u64>,
    reasons: HashMap<Reason, u64>,
}

/// Upper ends of the size classes, bytes.
const SIZES: [(u64, &str); 8] = [
    (4 << 10, "up to 4 KiB"),
    (16 << 10, "up to 16 KiB"),
    (64 << 10, "up to 64 KiB"),
    (1 << 20, "up to 1 MiB"),
    (16 << 20, "up to 16 MiB"),
    (256 << 20, "up to 256 MiB"),
    (4 << 30, "up to 4 GiB"),
    (u64::MAX, "larger"),
];

/// Runs the command.
pub fn explain_command(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let outputs = destinations(&args.format, &args.output)?;
    let anonymizer = if args.no_anonymize { Anonymizer::off() } else { Anonymizer::new(own_names()) };
    let explanation = match args.pid {
        Some(pid) => live(args, pid, &anonymizer)?,
        None => recorded(args, &anonymizer)?,
    };
    for (form, mut destination) in outputs {
        let look = Look::of(&destination);
        written(output::explain_text::write(&explanation, form, args.top, &look, &mut destination))?;
    }
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

fn live(args: &ExplainArgs, pid: u32, anonymizer: &Anonymizer) -> anyhow::Result<Explanation> {
    let proc = Proc::new(&args.proc_root);
    let refuse =
        |reason: crate::source::proc::Unreadable| anyhow::anyhow!("process {pid} {}", reason.sentence());
    let handle = proc.open(pid).map_err(refuse)?;
    let stat = handle.stat().map_err(refuse)?;
    if stat.kernel_thread {
        bail!("process {pid} is a kernel thread, without an address space of its own");
    }
    let mut notes = Vec::new();
    let paced = |name: &str| {
        handle.map_file(&stat, name).map(|file| BufReader::with_capacity(64 << 10, Paced::new(file)))
    };
    let read = |name: &str, notes: &mut Vec<String>, with_policies: bool| -> anyhow::Result<Explanation> {
        let policies = match if with_policies { paced("numa_maps").ok() } else { None } {
            Some(reader) => policies(Box::new(reader)),
            None => HashMap::new(),
        };
        let reader = paced(name).map_err(refuse)?;
        stream(reader, args.max_vmas, policies, anonymizer, notes)
            .with_context(|| format!("process {pid}: cannot read its {name}"))
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
                Ok(detailed) if detailed.vmas > 0 => {
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
    explanation.pid = Some(pid);
    explanation.subject = anonymizer.apply(&subject(&handle, &stat)).into_owned();
    explanation.max_map_count = proc.limits().max_map_count;
    explanation.notes = notes;
    explanation.verdict = verdict(&explanation);
    Ok(explanation)
}

fn subject(handle: &Handle, stat: &Stat) -> String {
    let arguments = arguments(&handle.cmdline().unwrap_or_default());
    application(handle.exe().as_deref(), &arguments, &stat.comm)
}

/// Policies other than the default, by first address.
fn policies(reader: Box<dyn BufRead + '_>) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    // A line of numa_maps is short but for the file's name, which stands behind the policy.
    for line in reader.take(1 << 30).split(b'\n') {
        let Ok(line) = line else { break };
        let text = String::from_utf8_lossy(line.get(..line.len().min(256)).unwrap_or_default());
        let mut words = text.split(' ');
        if let (Some(address), Some(policy)) = (words.next(), words.next())
            && policy != "default"
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            if found.len() >= MAX_POLICIES {
                break;
            }
            found.insert(address, policy.to_owned());
        }
    }
    found
}

fn stream(
    reader: impl BufRead,
    max_vmas: u64,
    policies: HashMap<u64, String>,
    anonymizer: &Anonymizer,
    notes: &mut Vec<String>,
) -> std::io::Result<Explanation> {
    let mut parser = Parser::new(reader);
    let mut analysis = Analysis { policies, ..Analysis::default() };
    loop {
        match parser.next_mapping() {
            Ok(Some(_)) if analysis.total_seen() >= max_vmas => {
                notes.push(format!("Only the first {} VMAs were read (--max-vmas).", grouped(max_vmas)));
                break;
            }
            Ok(Some(mapping)) => analysis.push(mapping),
            Ok(None) => break,
            // A process that dies meanwhile: what was read stands.
            Err(error) if analysis.total_seen() > 0 => {
                notes.push(format!("Reading ended early: {error}."));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let damage = parser.damage();
    if damage.lines > 0 {
        notes.push(format!(
            "{} could not be understood, the first is line {}.",
            count(damage.lines, "line", "lines"),
            grouped(damage.first.unwrap_or(0))
        ));
    }
    if damage.truncated {
        notes.push("The last line is not complete: the file was cut.".to_owned());
    }
    let mut explanation = analysis.finish(anonymizer);
    explanation.damage = damage;
    Ok(explanation)
}

impl Analysis {
    fn total_seen(&self) -> u64 {
        self.total.vmas + u64::from(self.last.is_some())
    }

    fn push(&mut self, next: Mapping) {
        let mut kind_before = None;
        if let Some((last, before)) = self.last.take() {
            let kind = kind(before, &last, Some(&next));
            self.settle(&last, kind);
            let reason = self.boundary(&last, kind, &next);
            self.extend_run(&last, kind, Some((&next, reason)));
            kind_before = (next.start == last.end).then(|| Below { kind, bytes: last.bytes() });
        }
        self.last = Some((next, kind_before));
    }

    fn boundary(&mut self, a: &Mapping, kind: Kind, b: &Mapping) -> Reason {
        let policy = |mapping: &Mapping| self.policies.get(&mapping.start).map(String::as_str);
        let segments = self.run.as_ref().is_none_or(|run| run.vmas <= MAX_SEGMENTS);
        let mut reason = why(a, b, (policy(a), policy(b)), segments);
        // Permissions differ for many ends; memory beside a range without access has a well-known one.
        if matches!(reason, Reason::Permissions { .. })
            && !a.has_file()
            && (a.inaccessible() || b.inaccessible())
        {
            reason = match kind {
                Kind::Arena => Reason::Arena,
                Kind::Guard | Kind::Stack => Reason::Guard,
                _ if b.inaccessible() && b.bytes() <= MAX_GUARD && a.bytes() / GUARDED >= b.bytes() => {
                    Reason::Guard
                }
                _ => Reason::Commit,
            };
        }
        // Flags of a made-up file could give reasons without end.
        if self.boundaries.len() < MAX_OWNERS || self.boundaries.contains_key(&reason) {
            self.boundaries.entry(reason.clone()).or_insert((0, b.start)).0 += 1;
        } else {
            self.boundaries.entry(Reason::Flags { flags: "others".to_owned() }).or_insert((0, b.start)).0 +=
                1;
        }
        reason
    }

    fn settle(&mut self, mapping: &Mapping, kind: Kind) {
        self.total.add(mapping);
        self.kinds.entry(kind).or_default().add(mapping);
        self.flags_seen |= mapping.details.as_ref().is_some_and(|details| details.has_flags);
        self.permissions.entry(mapping.permissions.to_string()).or_default().add(mapping);
        let class = SIZES.iter().position(|&(end, _)| mapping.bytes() <= end).unwrap_or(0);
        if let Some(tally) = self.sizes.get_mut(class) {
            tally.add(mapping);
        }
        self.picture.add(mapping.start, mapping.end);
        if !mapping.name.is_empty() {
            let room = self.owners.len() < MAX_OWNERS && self.owner_bytes < MAX_OWNER_BYTES;
            let name = if room || self.owners.contains_key(&mapping.name) { &mapping.name } else { REST };
            if !self.owners.contains_key(name) {
                self.owner_bytes += name.len();
            }
            self.owners.entry(name.to_owned()).or_default().add(mapping);
        }
        if let Some(extension) = extension(mapping) {
            let room = self.extensions.len() < MAX_OWNERS || self.extensions.contains_key(&extension);
            self.extensions.entry(if room { extension } else { REST.to_owned() }).or_default().add(mapping);
        }
    }

    /// Takes `mapping` into its region; `next` with the reason between them decides whether the region goes on.
    fn extend_run(&mut self, mapping: &Mapping, kind: Kind, next: Option<(&Mapping, Reason)>) {
        let run = self.run.get_or_insert_with(|| Run {
            start: mapping.start,
            end: mapping.end,
            vmas: 0,
            stacks: 0,
            name: mapping.name.clone(),
            sizes: HashMap::new(),
            reasons: HashMap::new(),
        });
        run.vmas += 1;
        run.end = run.end.max(mapping.end);
        run.stacks += u64::from(matches!(kind, Kind::Stack | Kind::Guard));
        if run.sizes.len() < MAX_IN_REGION || run.sizes.contains_key(&mapping.bytes()) {
            *run.sizes.entry(mapping.bytes()).or_default() += 1;
        }
        if let Some((next, reason)) = next
            && same_object(mapping, next)
            && next.start.checked_sub(mapping.end).is_some_and(|hole| hole <= REGION_HOLE)
        {
            if run.reasons.len() < MAX_IN_REGION || run.reasons.contains_key(&reason) {
                *run.reasons.entry(reason).or_default() += 1;
            }
            return;
        }
        if let Some(run) = self.run.take().filter(|run| run.vmas > 1) {
            self.regions.push(run.finish());
            if self.regions.len() > MAX_REGIONS {
                self.regions.sort_by_key(|region| std::cmp::Reverse(region.vmas));
                self.regions.truncate(MAX_REGIONS / 2);
            }
        }
    }

    fn finish(mut self, anonymizer: &Anonymizer) -> Explanation {
        if let Some((last, before)) = self.last.take() {
            let kind = kind(before, &last, None);
            self.settle(&last, kind);
            self.extend_run(&last, kind, None);
        }
        let named = |map: HashMap<String, Tally>| {
            let mut rows: Vec<Row> = map
                .into_iter()
                .map(|(name, tally)| Row { name: anonymizer.apply(&name).into_owned(), tally })
                .collect();
            rows.sort_by(|a, b| b.tally.vmas.cmp(&a.tally.vmas).then_with(|| a.name.cmp(&b.name)));
            rows.truncate(1000);
            rows
        };
        let mut kinds: Vec<(Kind, Tally)> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|&(kind, tally)| (std::cmp::Reverse(tally.vmas), kind));
        let mut boundaries: Vec<BoundaryRow> = self
            .boundaries
            .into_iter()
            .map(|(reason, (boundaries, example))| BoundaryRow {
                title: reason.title(),
                boundaries,
                example: format!("{example:#x}"),
                cure: reason.cure(),
                reason,
            })
            .collect();
        boundaries.sort_by(|a, b| b.boundaries.cmp(&a.boundaries).then_with(|| a.reason.cmp(&b.reason)));
        boundaries.truncate(1000);
        let mut regions = self.regions;
        regions.sort_by_key(|region| std::cmp::Reverse(region.vmas));
        regions.truncate(MAX_REGIONS / 2);
        for region in &mut regions {
            region.name = anonymizer.apply(&region.name).into_owned();
        }
        Explanation {
            schema: "vmaudit.explain",
            version: 1,
            pid: None,
            subject: String::new(),
            vmas: self.total.vmas,
            max_map_count: None,
            flags_seen: self.flags_seen,
            notes: Vec::new(),
            damage: Damage::default(),
            total: self.total,
            kinds,
            owners: named(self.owners),
            extensions: named(self.extensions),
            permissions: named(self.permissions.into_iter().collect()),
            sizes: SIZES
                .iter()
                .zip(self.sizes)
                .filter(|(_, tally)| tally.vmas > 0)
                .map(|(&(_, name), tally)| Row { name: name.to_owned(), tally })
                .collect(),
            boundaries,
            regions,
            picture: self.picture.finish(),
            verdict: Vec::new(),
        }
    }
}

/// Name of the row of all that had no room of their own.
const REST: &str = "(others)";

impl Run {
    fn finish(self) -> Region {
        let (piece_bytes, pieces) =
            self.sizes.into_iter().max_by_key(|&(size, n)| (n, size)).unwrap_or((0, 0));
        let mut reasons: Vec<(Reason, u64)> = self.reasons.into_iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        reasons.truncate(3);
        Region {
            start: format!("{:#x}", self.start),
            bytes: self.end.saturating_sub(self.start),
            vmas: self.vmas,
            name: self.name,
            piece_bytes,
            pieces,
            reasons,
            stacks: self.stacks,
        }
    }
}

const MIB: u64 = 1 << 20;

/// Guards are at most this long, bytes (a page of 64 KiB) ...
const MAX_GUARD: u64 = 64 << 10;
/// ... and guard at least so many times their length.
const GUARDED: u64 = 4;

/// What `it` is; `before` touches it from below, `after` is the next one.
fn kind(before: Option<Below>, it: &Mapping, after: Option<&Mapping>) -> Kind {
    let name = it.name.as_str();
    let touching = after.filter(|after| after.start == it.end && !after.has_file() && after.name.is_empty());
    if kernel_made(name) {
        return Kind::Kernel;
    }
    if it.has_file() {
        let shared_memory = ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero", "/anon_hugepage", "[anon_shmem"];
        return if shared_memory.iter().any(|prefix| name.starts_with(prefix)) {
            Kind::SharedMemory
        } else if name.starts_with("/dev/") || name.starts_with("anon_inode:") {
            Kind::Device
        } else if name.ends_with(" (deleted)") {
            Kind::DeletedFile
        } else if it.permissions.execute || is_library(name) {
            Kind::Library
        } else {
            Kind::File
        };
    }
    match name {
        "[heap]" => return Kind::Heap,
        "[stack]" => return Kind::MainStack,
        "" => {}
        _ => return Kind::Named,
    }
    if it.inaccessible() {
        // The unused part of an arena ends where the arena ends.
        if before.is_some_and(|before| before.kind == Kind::Arena) && it.end.is_multiple_of(64 * MIB) {
            return Kind::Arena;
        }
        let guards = |bytes: u64| it.bytes() <= MAX_GUARD && bytes / GUARDED >= it.bytes();
        let above = touching.is_some_and(|next| next.permissions.write && guards(next.bytes()));
        let below = before.is_some_and(|before| {
            matches!(before.kind, Kind::Stack | Kind::Anonymous | Kind::Named | Kind::Jit)
                && guards(before.bytes)
        });
        return if above || below { Kind::Guard } else { Kind::Reserved };
    }
    if it.permissions.execute {
        return Kind::Jit;
    }
    if it.start.is_multiple_of(64 * MIB)
        && it.permissions.write
        && touching.is_some_and(|next| {
            next.inaccessible() && next.end.is_multiple_of(64 * MIB) && next.end - it.start == 64 * MIB
        })
    {
        return Kind::Arena;
    }
    if it.permissions.write
        && before.is_some_and(|before| before.kind == Kind::Guard && it.bytes() / GUARDED >= before.bytes)
    {
        return Kind::Stack;
    }
    Kind::Anonymous
}

/// Ending of a file's name: `.dvd (deleted)`, `.so`; `None` for what is no file.
fn extension(mapping: &Mapping) -> Option<String> {
    if !mapping.has_file() || !mapping.name.starts_with('/') {
        return None;
    }
    let (name, deleted) = match mapping.name.strip_suffix(" (deleted)") {
        Some(name) => (name, " (deleted)"),
        None => (mapping.name.as_str(), ""),
    };
    let file = name.rsplit('/').next().unwrap_or(name);
    if is_library(file) {
        return Some(format!(".so{deleted}"));
    }
    Some(match file.rsplit_once('.') {
        Some((stem, ending))
            if !stem.is_empty()
                && ending.len() <= 12
                // `python3.11` has no ending.
                && ending.bytes().any(|b| !b.is_ascii_digit()) =>
        {
            format!(".{ending}{deleted}")
        }
        _ => format!("(no ending){deleted}"),
    })
}

/// The verdict: what the VMAs are, and what would make them fewer. Pure.
fn verdict(it: &Explanation) -> Vec<String> {
    let mut sentences = Vec::new();
    let share = |vmas: u64| vmas as f64 / it.vmas.max(1) as f64;
    let of =
        |vmas: u64| format!("{} of {} VMAs ({})", grouped(vmas), grouped(it.vmas), percent(vmas, it.vmas));
    let tally = |kind: Kind| it.kinds.iter().find(|(k, _)| *k == kind).map_or(0, |(_, tally)| tally.vmas);

    let stacks = tally(Kind::Stack);
    let guarded = stacks * 2;
    let region = it.regions.first().filter(|region| region.vmas >= 64 && share(region.vmas) >= 0.3);
    let file = it
        .owners
        .iter()
        .find(|row| row.name.starts_with('/') && row.tally.vmas >= 64)
        .filter(|row| share(row.tally.vmas) >= 0.3);
    let extension = it
        .extensions
        .iter()
        .find(|row| !row.name.starts_with(".so") && row.tally.vmas >= 64 && share(row.tally.vmas) >= 0.3);
    let reason = it
        .boundaries
        .iter()
        .find(|row| row.cure.is_some() && row.boundaries >= 64 && share(row.boundaries) >= 0.3);

    if stacks >= 16 && share(guarded.min(it.vmas)) >= 0.3 {
        sentences.push(format!(
            "{} are {} behind guard pages: two VMAs for each thread or fiber.",
            of(guarded.min(it.vmas)),
            count(stacks, "stack", "stacks")
        ));
        sentences.push(
            "Fewer threads, or guards by madvise(MADV_GUARD_INSTALL) on Linux 6.13 and later, make them fewer.".to_owned(),
        );
    } else if let Some(region) = region {
        let what = match region.name.as_str() {
            "" => "anonymous region".to_owned(),
            name => format!("region of {name}"),
        };
        let pieces = if region.pieces * 2 >= region.vmas {
            format!("{} pieces", bytes(region.piece_bytes))
        } else {
            format!("pieces of many sizes (most often {})", bytes(region.piece_bytes))
        };
        // A second reason counts when it would keep a good part of them apart by itself.
        let strong: Vec<&(Reason, u64)> =
            region.reasons.iter().filter(|(_, n)| *n * 4 >= region.vmas).collect();
        let titles: Vec<String> =
            strong.iter().map(|(reason, n)| format!("{} ({})", reason.title(), grouped(*n))).collect();
        let split =
            if titles.is_empty() { String::new() } else { format!(", kept apart by: {}", titles.join("; ")) };
        sentences.push(format!(
            "{} are {pieces} of one {what} of {} at {}{split}.",
            of(region.vmas),
            bytes(region.bytes),
            region.start
        ));
        sentences.extend(
            strong.iter().filter_map(|(reason, _)| reason.cure()).map(|cure| format!("What helps: {cure}.")),
        );
    } else if let Some(file) = file {
        sentences.push(format!("{} map one file, {}.", of(file.tally.vmas), file.name));
        sentences.extend(reason.and_then(|row| row.cure.clone()).map(|cure| format!("What helps: {cure}.")));
    } else if let Some(extension) = extension {
        sentences.push(format!("{} map files with the ending {}.", of(extension.tally.vmas), extension.name));
        sentences.push(if extension.name.ends_with("(deleted)") {
            "The files are deleted and still mapped: whoever maps them does not unmap them.".to_owned()
        } else {
            "One mapping per file: fewer and larger files, or reading small ones instead of mapping them, make them fewer."
                .to_owned()
        });
    } else if let Some(reason) = reason {
        sentences.push(format!(
            "{} of {} boundaries between VMAs have one reason: {}.",
            grouped(reason.boundaries),
            grouped(it.vmas.saturating_sub(1)),
            reason.title
        ));
        sentences.extend(reason.cure.as_ref().map(|cure| format!("What helps: {cure}.")));
    } else if let Some((kind, tally)) = it.kinds.first() {
        let libraries = it.owners.iter().filter(|row| is_library(&row.name)).count() as u64;
        let detail = if *kind == Kind::Library && libraries > 0 {
            format!(" ({})", count(libraries, "library", "libraries"))
        } else {
            String::new()
        };
        sentences.push(format!(
            "Nothing stands out; the largest group are {}{detail}: {}.",
            kind.title(),
            of(tally.vmas)
        ));
    }

    let avoidable: u64 =
        it.boundaries.iter().filter(|row| row.reason.avoidable()).map(|row| row.boundaries).sum();
    if it.vmas > 1 {
        sentences.push(format!(
            "{} of {} boundaries between VMAs have a reason that somebody could remove.",
            grouped(avoidable),
            grouped(it.vmas - 1)
        ));
    }
    if let Some(limit) = it.max_map_count {
        sentences.push(format!("The count is {} of the limit {}.", percent(it.vmas, limit), grouped(limit)));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(text: &str) -> Explanation {
        let mut notes = Vec::new();
        let mut it =
            stream(text.as_bytes(), u64::MAX, HashMap::new(), &Anonymizer::off(), &mut notes).unwrap();
        it.notes = notes;
        it.verdict = verdict(&it);
        it
    }

    fn check_sums(it: &Explanation) {
        assert_eq!(it.kinds.iter().map(|(_, tally)| tally.vmas).sum::<u64>(), it.vmas);
        assert_eq!(it.permissions.iter().map(|row| row.tally.vmas).sum::<u64>(), it.vmas);
        assert_eq!(it.sizes.iter().map(|row| row.tally.vmas).sum::<u64>(), it.vmas);
        assert_eq!(it.boundaries.iter().map(|row| row.boundaries).sum::<u64>(), it.vmas.saturating_sub(1));
        assert_eq!(it.picture.iter().map(|row| row.vmas).sum::<u64>(), it.vmas);
    }

    #[test]
    fn one_region_split_by_mprotect() {
        let mut text = String::from("400000-401000 r-xp 00000000 08:01 7 /bin/x\n");
        for piece in 0..1000u64 {
            let start = 0x7f00_0000_0000 + piece * 0x10000;
            let mode = if piece % 2 == 0 { "rw-p" } else { "r--p" };
            text.push_str(&format!("{start:x}-{:x} {mode} 00000000 00:00 0 \n", start + 0x10000));
        }
        let it = explain(&text);
        check_sums(&it);
        assert_eq!(
            it.verdict[0],
            "1,000 of 1,001 VMAs (99.9%) are 64 KiB pieces of one anonymous region of 62.5 MiB at 0x7f0000000000, kept apart by: permissions rw-p | r--p (999)."
        );
    }

    #[test]
    fn holes_punched_into_a_region() {
        let mut text = String::new();
        for piece in 0..500u64 {
            let start = 0x7f00_0000_0000 + piece * 0x2000;
            text.push_str(&format!("{start:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x1000));
        }
        let it = explain(&text);
        check_sums(&it);
        assert!(
            it.verdict[0].contains("4 KiB pieces") && it.verdict[0].contains("small hole"),
            "{:?}",
            it.verdict
        );
        assert!(it.verdict[1].contains("MADV_DONTNEED"));
    }

    #[test]
    fn stacks_and_their_guards() {
        let mut text = String::new();
        for thread in 0..100u64 {
            let start = 0x7f00_0000_0000 + thread * 0x10_1000;
            text.push_str(&format!("{start:x}-{:x} ---p 00000000 00:00 0 \n", start + 0x1000));
            text.push_str(&format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x1000, start + 0x10_1000));
        }
        let it = explain(&text);
        check_sums(&it);
        assert!(
            it.verdict[0].starts_with("200 of 200 VMAs (100.0%) are 100 stacks behind guard pages"),
            "{:?}",
            it.verdict
        );
    }

    #[test]
    fn reserve_and_commit_in_equal_pieces_is_no_stack() {
        let mut text = String::new();
        for piece in 0..800u64 {
            let start = 0x7f00_0000_0000 + piece * 0x10000;
            let (mode, flags) =
                [("rw-p", "rd wr ac"), ("---p", ""), ("---p", "ac"), ("---p", "")][piece as usize % 4];
            let line =
                format!("{start:x}-{:x} {mode} 00000000 00:00 0 \nVmFlags: mr mw {flags}\n", start + 0x10000);
            text.push_str(&line);
        }
        let it = explain(&text);
        check_sums(&it);
        assert_eq!(it.kinds[0], (Kind::Reserved, Tally { vmas: 600, bytes: 600 << 16, resident_bytes: 0 }));
        let first = &it.verdict[0];
        assert!(first.contains("flags differ: ac (VM_ACCOUNT) (400); a reserved range"), "{first}");
        assert!(it.verdict[1].contains("MAP_NORESERVE"), "{:?}", it.verdict);
    }

    #[test]
    fn arenas_are_no_stacks() {
        let text = "7f0000000000-7f0000021000 rw-p 0 00:00 0 \n7f0000021000-7f0004000000 ---p 0 00:00 0 \n";
        assert_eq!(
            explain(text).kinds,
            [(Kind::Arena, Tally { vmas: 2, bytes: 64 * MIB, resident_bytes: 0 })]
        );
    }

    #[test]
    fn deleted_files_of_one_kind() {
        let mut text = String::new();
        for file in 0..300u64 {
            let start = 0x7f00_0000_0000 + file * 0x1_0000_0000;
            text.push_str(&format!(
                "{start:x}-{:x} r--s 0 08:01 {} /d/_{file}.dvd (deleted)\n",
                start + 0x1000,
                file + 1
            ));
        }
        let it = explain(&text);
        check_sums(&it);
        assert!(
            it.verdict[0].contains("ending .dvd (deleted)") && it.verdict[1].contains("still mapped"),
            "{:?}",
            it.verdict
        );
    }

    #[test]
    fn owners_without_end_take_bounded_memory() {
        let mut text = String::new();
        for file in 0..50_000u64 {
            let start = 0x1000 + file * 0x1000;
            text.push_str(&format!(
                "{start:x}-{:x} r--s 0 08:01 {} /{file}.{file}\n",
                start + 0x1000,
                file + 1
            ));
        }
        let mut analysis = Analysis::default();
        let mut parser = Parser::new(text.as_bytes());
        while let Some(mapping) = parser.next_mapping().unwrap() {
            analysis.push(mapping);
        }
        assert!(analysis.owners.len() <= MAX_OWNERS + 1 && analysis.extensions.len() <= MAX_OWNERS + 1);
        check_sums(&analysis.finish(&Anonymizer::off()));
    }

    /// xorshift64*: the same sequence everywhere.
    struct Dice(u64);
    impl Dice {
        fn next(&mut self, below: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
        }
    }

    /// A file out of real lines, odd lines and rubbish, then bytes changed, removed, doubled and cut.
    fn hostile(dice: &mut Dice) -> Vec<u8> {
        const LINES: [&str; 22] = [
            "1000-2000 rw-p 00000000 00:00 0 ",
            "2000-3000 ---p 00000000 00:00 0 ",
            "3000-13000 rw-p 00000000 00:00 0 ",
            "2000-3000 rw-s 00000000 00:01 5 /dev/zero (deleted)",
            "7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ",
            "7f0000021000-7f0004000000 ---p 00000000 00:00 0 ",
            "7f0004000000-7f0004001000 r-xp 00001000 fe:01 99 /lib/a b.so.6",
            "7f0004001000-7f0004002000 r--p 00002000 fe:01 99 /lib/a b.so.6",
            "7f0004002000-7f0004003000 rw-p 00000000 00:00 0 [anon:x\x1b]0;y\x07]",
            "0-ffffffffffffffff rwxp ffffffffffffffff ffffffff:ffffffff 18446744073709551615 /x",
            "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
            "fffffffffffff000-ffffffffffffffff rw-p fffffffffffff000 08:01 7 /wrap",
            "Rss:                99999999999999999999 kB",
            "Rss:                18446744073709551615 kB",
            "Anonymous:             4 kB",
            "VmFlags: rd wr mr mw me ac sd ?? ",
            "VmFlags: rd hg de io pf mm nr \u{202e}",
            "ProtectionKey:         -1",
            "10000000000000000000-2 rw-p 0 0:0 0",
            "1000-2000 rw-p 0 0:0 99999999999999999999999 /y",
            "",
            "\u{0}\u{0}: \u{feff}-\u{202e} rwxp",
        ];
        let mut bytes = Vec::new();
        for _ in 0..dice.next(40) {
            bytes.extend_from_slice(LINES[dice.next(LINES.len())].as_bytes());
            bytes.push(b'\n');
        }
        for _ in 0..dice.next(12) {
            let length = bytes.len();
            if length == 0 {
                break;
            }
            let at = dice.next(length);
            match dice.next(5) {
                0 => bytes[at] = dice.next(256) as u8,
                1 => drop(bytes.drain(at..(at + dice.next(30)).min(length))),
                2 => {
                    let piece = bytes[at..(at + dice.next(60)).min(length)].to_vec();
                    let to = dice.next(length);
                    bytes.splice(to..to, piece);
                }
                3 => bytes.truncate(at),
                _ => bytes.insert(at, b"\n -:0f[]()"[dice.next(10)]),
            }
        }
        bytes
    }

    /// Fuzzing without a fuzzer: VMAUDIT_FUZZ_RUNS sets the number of executions, VMAUDIT_FUZZ_SEED the sequence.
    #[test]
    fn hostile_files_neither_panic_nor_lose_count() {
        let number = |name: &str, default: u64| {
            std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let mut dice = Dice(number("VMAUDIT_FUZZ_SEED", 0x5eed) | 1);
        for run in 0..number("VMAUDIT_FUZZ_RUNS", 3_000) {
            let input = hostile(&mut dice);
            let mut notes = Vec::new();
            // In pieces of any length, as a pipe gives them.
            let reader = BufReader::with_capacity(1 + dice.next(100), input.as_slice());
            let policies = policies(Box::new(input.as_slice()));
            let mut it =
                stream(reader, u64::MAX, policies, &Anonymizer::new(["x".to_owned()]), &mut notes).unwrap();
            it.verdict = verdict(&it);
            check_sums(&it);
            let look = Look { colour: false, columns: [None, Some(1), Some(80)][dice.next(3)] };
            for form in [Form::Text, Form::Json, Form::Csv] {
                let mut out = Vec::new();
                output::explain_text::write(&it, form, 1 + dice.next(20), &look, &mut out).unwrap();
                let text = String::from_utf8(out).unwrap();
                assert!(!text.contains(['\x1b', '\x07']), "run {run}");
                assert!(form == Form::Json || !text.contains('\u{202e}'), "run {run}");
            }
        }
    }
}
