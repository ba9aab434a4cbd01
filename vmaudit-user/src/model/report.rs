//! The finished report: the one plain struct that every output renders.
//!
//! Field names are the JSON contract (`schema` = `vmaudit.report`, additive changes keep the version). Unknown is
//! `None` (JSON null), never 0. Times `*_s` are seconds since the session's start; `*_bytes` are bytes; counts of VMAs
//! have no suffix. Nothing here is computed lazily and nothing here does I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmaudit_common::call::{CALLS, COMPAT, IO_URING_SETUP};

pub use super::advice::{Action, Basis, Recommendation};
pub use super::breach::{Breach, Demand};
pub use super::cause::Cause;
pub use super::end::{CommandEnd, EndCause, Killer, ProcessEnd};
pub use super::holders::Holders;
use super::hook::CALL_EXIT;
pub use super::hook::{Hook, HookState};
pub use super::layout::{Layout, Moment};
pub use super::makers::{Changes, Maker, NoPlace, Nobody};
pub use super::mark::{Mark, MarkedProcess};
pub use super::memory::{Accuracy, Memory, Rlimit, Rlimits};

pub use super::crowd::FoldedProcesses;
pub use super::figures::{CallFigures, Exit, Image, MapCount, Since};
pub use super::outcome::{Outcome, Site};
pub use super::series::{Growth, Series};
pub use super::stack::{Example, Frame};
pub use super::stretch::Stretch;
pub use super::task_names::TaskFigures;
pub use super::unreadable::NotCounted;

/// Name of the schema.
pub const SCHEMA: &str = "vmaudit.report";
/// Version of the schema.
pub const VERSION: u32 = 2;

/// Everything one session found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`VERSION`].
    pub version: u32,
    /// Version of vmaudit that wrote it.
    pub vmaudit: String,
    /// Machine.
    pub host: Host,
    /// What was run and how it ended.
    pub session: Session,
    /// Where the figures come from.
    pub source: SourceKind,
    /// What could be seen and what was lost.
    pub coverage: Coverage,
    /// Limits in force at the end of the session.
    pub limits: Limits,
    /// One row per process, by peak, largest first. In a crowd the most remarkable ones; the others are in `folded`.
    pub processes: Vec<Process>,
    /// Processes without a row of their own, added up by name. Together with `processes` these are all.
    #[serde(default)]
    pub folded: Vec<FoldedProcesses>,
    /// Processes that could not be counted; never among `processes`.
    #[serde(default)]
    pub not_counted: Vec<NotCounted>,
    /// Failures grouped by (process, system call, errno, cause), most frequent first.
    pub failures: Vec<Failure>,
    /// Refusals that are a normal answer to the question the call asks, not incidents; same shape.
    #[serde(default)]
    pub ordinary_answers: Vec<Failure>,
    /// Stretches of the session that somebody named (`run --marks`), in the order of their beginnings.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// What was demanded of the session, and whether it held.
    #[serde(default)]
    pub budgets: Vec<Demand>,
    /// Budgets that were broken or could not be shown to hold.
    #[serde(default)]
    pub breaches: Vec<Breach>,
    /// What to do about vm.max_map_count.
    pub recommendation: Recommendation,
}

impl Report {
    /// Refused calls whose need was not met another way: what makes an incident.
    pub fn unrecovered(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(|failure| failure.outcome == Outcome::Unrecovered)
    }

    /// Whether a failed call may be missing from the report altogether.
    pub fn failures_may_be_missing(&self) -> bool {
        !self.coverage.exact_calls || self.has_other_doors()
    }

    /// The same of calls that take the lock of their address space.
    pub fn locking_failures_may_be_missing(&self) -> bool {
        !self.coverage.exact_locking_calls || self.has_other_doors()
    }

    /// The same of calls that vm.max_map_count refuses.
    pub fn limit_failures_may_be_missing(&self) -> bool {
        !self.coverage.exact_limit_calls && !self.coverage.exact_calls || self.has_other_doors()
    }

    /// Some process entered the kernel where its changes are seen and its refusals are not: by calls of the 32-bit entry that
    /// are not in the list, or through io_uring.
    fn has_other_doors(&self) -> bool {
        let other =
            [COMPAT, IO_URING_SETUP].map(|call| CALLS.get(usize::from(call)).map_or("", |call| call.name));
        let any = |calls: &BTreeMap<String, CallFigures>| other.iter().any(|name| calls.contains_key(*name));
        self.processes.iter().any(|process| any(&process.calls))
            || self.folded.iter().any(|sum| any(&sum.calls))
    }

    /// The hook on the exits of system calls, which sees refused calls; `None` when the report does not list it.
    pub fn call_exit(&self) -> Option<&Hook> {
        self.coverage.hooks.iter().find(|hook| hook.name == CALL_EXIT)
    }
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// `uname -n`, the user's name in it replaced as in paths; null in reports of versions that did not tell it.
    #[serde(default)]
    pub name: Option<String>,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// CPUs online.
    pub cpus: u32,
    /// Bytes per page.
    pub page_size: u64,
}

/// Bytes of the longest name of a machine: the kernel's have 64, and some of them change when they are made anonymous.
const HOST_NAME: usize = 255;

impl Host {
    /// Cuts a name that is no machine's: in a file there can be any.
    pub fn cut_name(&mut self) {
        self.name.iter_mut().for_each(|name| crate::text::shorten(name, HOST_NAME));
    }
}

/// The session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Session {
    /// The command: its name only unless `--show-args` was given; empty when none was run.
    pub command: Vec<String>,
    /// What was watched of what ran already, in words; null where a command was run.
    #[serde(default)]
    pub watched: Option<String>,
    /// Wall time of the start, RFC 3339.
    pub started: String,
    /// Seconds.
    pub duration_s: f64,
    /// How the command ended; null while it runs or when there is none.
    pub exit: Option<Exit>,
    /// The same with its reason and the command's name at its end; null while it runs or when there is none.
    #[serde(default)]
    pub end: Option<CommandEnd>,
    /// A program among those that were followed hands its work on to somebody who was not, in one sentence that says what
    /// follows that; null where none does.
    #[serde(default)]
    pub elsewhere: Option<String>,
    /// The first of `breaches`, in one sentence; null when none was broken.
    pub breach: Option<String>,
    /// Limits that the command began with; null when none was run.
    #[serde(default)]
    pub rlimits: Option<Rlimits>,
    /// Followed processes still alive when the report was written.
    #[serde(default)]
    pub still_running: u64,
    /// It is a stretch that the flight recorder kept; null: a whole session.
    #[serde(default)]
    pub stretch: Option<Stretch>,
}

/// Where figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Live kernel hooks.
    Ebpf,
    /// Looks at /proc from time to time.
    Proc,
}

/// What this session could see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Coverage {
    /// Every peak in the report is exact, and no process is missing.
    pub exact_peaks: bool,
    /// Every watched call of every process was seen: counts of calls and of failures are complete.
    #[serde(default)]
    pub exact_calls: bool,
    /// Every watched call that took the lock of its process's address space was seen.
    #[serde(default)]
    pub exact_locking_calls: bool,
    /// Every call that vm.max_map_count refused was seen.
    #[serde(default)]
    pub exact_limit_calls: bool,
    /// Each hook of the table and what became of it.
    pub hooks: Vec<Hook>,
    /// What kernel, rights and container allow, each with what is lost by it.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Losses by reason, zeros included.
    pub lost: BTreeMap<String, u64>,
    /// When something was lost: between two looks that found more. None in recordings of versions that did not tell.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Sentences about what could not be seen, for people.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A time in which something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gap {
    /// The look before, seconds since the session's start.
    pub from_s: f64,
    /// The look that found it.
    pub to_s: f64,
    /// How many events.
    pub lost: u64,
}

/// One thing that kernel, rights or container may withhold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Condition {
    /// What.
    pub name: String,
    /// It is as it should be; null when nobody can tell.
    pub met: Option<bool>,
    /// What was found.
    pub found: String,
    /// What is lost; null unless something is.
    pub loses: Option<String>,
    /// How to get it.
    pub cure: Option<String>,
}

/// System-wide limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// vm.max_map_count, VMAs; null when it cannot be read.
    pub max_map_count: Option<u64>,
    /// vm.overcommit_memory.
    pub overcommit_memory: Option<u64>,
    /// vm.overcommit_ratio, percent.
    pub overcommit_ratio: Option<u64>,
}

/// One process (thread group), over all its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Parent's process id when it was first seen.
    pub ppid: Option<u32>,
    /// Name at the end.
    pub comm: String,
    /// Path of the executable; null when it could not be read in time.
    pub exe: Option<String>,
    /// Application it belongs to, as far as its name tells.
    pub app: Option<String>,
    /// cgroup v2 path (or the v1 memory path); null when it could not be read in time.
    pub cgroup: Option<String>,
    /// Owner; null when unknown.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The owner's name, its number where it has none, `<user>` for the person at the keyboard of a session unless
    /// `--no-anonymize` was given; null when it was not asked for.
    #[serde(default)]
    pub user: Option<String>,
    /// Its command line, the program's own name first, as it was soon after its last exec; null unless `--show-args` was
    /// given, and where it could not be read in time.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// The test that it belongs to, as its runner tells: of cargo-nextest the binary and the test, of `go test` the package's
    /// program and where it ran; null for all others, and where it could not be read in time.
    #[serde(default)]
    pub test: Option<String>,
    /// systemd unit, as its cgroup tells; null outside of any.
    #[serde(default)]
    pub unit: Option<String>,
    /// Container, as its cgroup tells: the id, or the name where the runtime has no ids (LXC, systemd-nspawn); null outside
    /// of any, and where a cgroup namespace hides it.
    #[serde(default)]
    pub container: Option<String>,
    /// uid of the Kubernetes pod, as its cgroup tells; null outside of any.
    #[serde(default)]
    pub pod: Option<String>,
    /// From when on its figures are: its own start, or, of one that ran before the session, the attach; null for one look
    /// at it, and where its start was missed.
    #[serde(default)]
    pub since: Option<Since>,
    /// First seen.
    pub started_s: Option<f64>,
    /// End; null while it lives.
    pub ended_s: Option<f64>,
    /// The process in whose address space it lived, for want of one of its own (vfork; clone with CLONE_VM and without
    /// CLONE_THREAD): its counts are those of that address space at its own beginning and end, with the peak up to then, and the
    /// calls of both are in that one's row but for what this one was refused. Null: it had its own.
    #[serde(default)]
    pub shares_address_space_of: Option<u32>,
    /// The counts; null fields where reading was refused.
    pub map_count: MapCount,
    /// One per exec, in order.
    pub images: Vec<Image>,
    /// Further images that the first of `images` stands for, in a process with very many: its peak is the largest of
    /// all these.
    #[serde(default)]
    pub images_folded: u64,
    /// What each system call did; only calls that were made.
    pub calls: BTreeMap<String, CallFigures>,
    /// What its tasks did by name, those that did most first; empty where in none of its images tasks of more than one name
    /// changed the count or were refused calls.
    #[serde(default)]
    pub tasks: Vec<TaskFigures>,
    /// Bytes that failed munmap, mremap and brk calls should have unmapped and that were still mapped at the end (of the
    /// image, or of the session); null when the source cannot know. However often it was refused, a range counts once; what
    /// a later call has unmapped, replaced or moved does not count.
    pub unmap_leaked_bytes: Option<u64>,
    /// How that figure relates to the true one; null when there is none.
    #[serde(default)]
    pub unmap_leaked_bound: Option<Accuracy>,
    /// Largest sizes; null when the source does not look at them.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Who made the VMAs that it had at its peak (last in, first out: what was freed is taken from who came last), largest
    /// part first; the rows add up to the peak. Empty where nobody looked.
    #[serde(default)]
    pub makers: Vec<Maker>,
    /// Where in its address space its VMAs lay; null where nobody looked.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// Every change of its count by call and place, where that was asked for: the largest first, and behind these, by
    /// call, what has no row of its own (`other_places`, `not_sampled`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Changes>,
    /// How it ended; null while it lives, and when that was not seen.
    #[serde(default)]
    pub end: Option<ProcessEnd>,
    /// How its count went; null where nobody looked more than once, and in large sessions for processes that are not
    /// remarkable (few VMAs, nothing refused).
    #[serde(default)]
    pub series: Option<Series>,
    /// How its count grows; null where that is not known: without a series, and where the series is not exact.
    #[serde(default)]
    pub growth: Option<Growth>,
    /// Why figures are missing from this row; null when none are.
    #[serde(default)]
    pub unreadable: Option<String>,
}

impl Process {
    /// Name of the image that holds the peak; an exec may have given the process another one since.
    pub fn peak_comm(&self) -> &str {
        // The first of equals, as with the time of the peak.
        let mut best: Option<&Image> = None;
        for image in &self.images {
            if best.is_none_or(|best| image.peak > best.peak) {
                best = Some(image);
            }
        }
        best.map_or(&self.comm, |image| &image.comm)
    }
}

/// A group of failures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// Process id.
    pub pid: u32,
    /// [`Process::started_s`] of the process: tells those apart that had the same id one after the other.
    #[serde(default)]
    pub started_s: Option<f64>,
    /// Name of the process.
    pub comm: String,
    /// The process in whose address space the calls were made, for want of an own one; null: they were made in its own.
    #[serde(default)]
    pub address_space_of: Option<u32>,
    /// The kernel's name of the call.
    pub syscall: String,
    /// Symbolic errno, for example `ENOMEM`.
    pub errno: String,
    /// Why.
    pub cause: Cause,
    /// What became of the need.
    #[serde(default)]
    pub outcome: Outcome,
    /// The kernel's state leaves no other cause possible.
    pub certain: bool,
    /// Failures in the group.
    pub count: u64,
    /// Processes they occurred in. More than one only for those without a row of their own: then pid, sentence, evidence
    /// and example (its stack cut short) are those of the process with most of them, all else is of all.
    #[serde(default = "one")]
    pub processes: u64,
    /// These processes have several names.
    #[serde(default)]
    pub various: bool,
    /// First.
    pub first_at_s: Option<f64>,
    /// Last.
    pub last_at_s: Option<f64>,
    /// One of them; null when none arrived.
    pub example: Option<Example>,
    /// From where they came, the most frequent places and the last one; empty for processes without a row of their own,
    /// and where stacks were not taken.
    #[serde(default)]
    pub sites: Vec<Site>,
    /// Of `count`, those from places that are not in `sites`.
    #[serde(default)]
    pub elsewhere: u64,
    /// Figures that the verdict rests on: name → value (counts of VMAs, or bytes where the name ends in `_bytes`).
    pub evidence: BTreeMap<String, u64>,
    /// The verdict for people, with the numbers in it.
    pub sentence: String,
    /// What would help; null where nothing is known.
    #[serde(default)]
    pub cure: Option<String>,
    /// With cause `max_map_count` or `no_address_range`: what the process's VMAs are; null when nobody could look while it
    /// lived.
    #[serde(default)]
    pub holders: Option<Holders>,
}

fn one() -> u64 {
    1
}

impl Failure {
    /// It is this process's. A number alone may have been several processes', one after the other.
    pub fn is_of(&self, process: &Process) -> bool {
        (self.pid, self.started_s) == (process.pid, process.started_s)
    }
}
