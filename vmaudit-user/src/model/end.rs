//! Ends of processes: what a source learns of one, and what a report says of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::process_id::ProcessId;
use super::report::Exit;

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// How the command ended; `None` when there was none.
    pub exit: Option<Exit>,
    /// Followed processes still alive.
    pub still_running: u64,
}

/// A process has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Process.
    pub process: ProcessId,
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Parent's process id.
    pub ppid: u32,
    /// Its name then.
    pub comm: String,
    /// As wait() gives it.
    pub status: u32,
    /// The signal that it died of, as it was raised; `None` when it died of none, or when that was not seen.
    #[serde(default)]
    pub signal: Option<Box<Raised>>,
}

impl Ended {
    /// Exit status, unless it died of a signal.
    pub fn code(&self) -> Option<i32> {
        (self.status & 0x7f == 0).then_some((self.status >> 8 & 0xff) as i32)
    }

    /// The signal that it died of.
    pub fn signal(&self) -> Option<i32> {
        match self.status & 0x7f {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}

/// A signal that a process died of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Its `si_code`.
    pub code: i32,
    /// Task that it was raised for.
    pub tid: u32,
    /// Who ran when it was raised: with a `code` of user space, who sent it.
    pub by: Sender,
    /// It was the OOM killer's.
    #[serde(default)]
    pub oom: bool,
    /// Raised within an exec.
    #[serde(default)]
    pub in_exec: bool,
    /// State of the process, where the signal was raised by one of its own tasks.
    #[serde(default)]
    pub own: Option<OwnState>,
    /// Raised by the processor.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// Who ran when a signal was raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Process id.
    pub tgid: u32,
    /// Task.
    pub tid: u32,
    /// Name of the task.
    pub comm: String,
}

/// A process as it was when one of its tasks raised a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnState {
    /// The task's stack pointer; 0 where it is not known.
    pub sp: u64,
    /// mm.total_vm, pages.
    pub total_vm: u64,
    /// mm.stack_vm, pages.
    pub stack_vm: u64,
    /// mm.env_end, an address just below the end of the main stack.
    pub env_end: u64,
    /// RLIMIT_STACK, soft, bytes.
    pub rlimit_stack: u64,
    /// RLIMIT_AS, soft, bytes.
    pub rlimit_as: u64,
    /// RLIMIT_CPU, soft and hard, seconds.
    pub rlimit_cpu: [u64; 2],
    /// CPU time used, as the kernel compares it with RLIMIT_CPU, ns; 0 where no such limit is in force.
    pub cpu_ns: u64,
    /// The mapping of the main stack, where somebody looked.
    #[serde(default)]
    pub stack: Option<[u64; 2]>,
}

/// An address that a process had no right to, or no page for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The address.
    pub address: u64,
    /// Somebody looked for its mapping.
    pub looked: bool,
    /// Which mapping it is in.
    #[serde(default)]
    pub mapping: Option<FaultMapping>,
}

/// The mapping that a fault was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultMapping {
    /// First address.
    pub start: u64,
    /// The kernel's flags of it.
    pub flags: u64,
    /// What it is of; `None` for memory without a file.
    #[serde(default)]
    pub file: Option<FaultFile>,
}

/// The mapped file that a fault was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultFile {
    /// Of the address in the file, bytes.
    pub offset: u64,
    /// Length of the file, bytes.
    pub size: u64,
    /// Kind of the file system (super_block.s_magic).
    pub magic: u64,
    /// Most pages of a tmpfs, 0 for no limit; `None` for another file system.
    #[serde(default)]
    pub blocks: Option<u64>,
}

/// The OOM killer has chosen a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomVictim {
    /// Process; its start is 0 where it is not known.
    pub process: ProcessId,
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Its memory cgroups at that moment, for whoever makes [`OomCgroups`] of them; in no recording.
    #[serde(skip)]
    pub memory: Option<Box<OomSeen>>,
}

/// The memory cgroups of a victim, as the kernel side saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OomSeen {
    /// Inode of the folder of its own cgroup.
    pub inode: u64,
    /// Names of its own cgroup and of those above it, the root not counted.
    pub names: Vec<String>,
    /// Figures of each of them.
    pub figures: Vec<OomFigures>,
    /// They are all.
    pub whole: bool,
    /// The task that the OOM killer ran in was within the outermost of those that it acted for.
    pub inside: bool,
}

/// Figures of one memory cgroup at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomFigures {
    /// memory.max or memory.limit_in_bytes, bytes.
    pub limit_bytes: u64,
    /// In use, bytes.
    pub used_bytes: u64,
    /// It, or one above it, had run out; `None` where this kernel does not say.
    pub acting: Option<bool>,
}

/// The memory cgroups of a process that the OOM killer has chosen, as they were then or a moment later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCgroups {
    /// Process.
    pub process: ProcessId,
    /// Its own first, then each one above it.
    pub levels: Vec<CgroupLevel>,
    /// They are all of its cgroups that can have a limit.
    pub complete: bool,
    /// The task that the OOM killer ran in was within the outermost of those that it acted for, if that is known.
    #[serde(default)]
    pub inside: bool,
}

/// One memory cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLevel {
    /// Its path below the mount.
    pub path: String,
    /// Of version 1.
    pub v1: bool,
    /// memory.max or memory.limit_in_bytes, bytes; `None`: no limit.
    pub limit_bytes: Option<u64>,
    /// How often it ran out of memory (v2: `oom` in memory.events.local or memory.events), or met its limit (v1:
    /// memory.failcnt).
    pub out_of_memory: u64,
    /// The same when the session met it first; `None` when it met it only now.
    pub out_of_memory_before: Option<u64>,
    /// Processes killed in it (`oom_kill`); `None` when it does not say.
    pub killed: Option<u64>,
    /// In use when the choice was made, bytes; `None` when the kernel side could not tell.
    #[serde(default)]
    pub used_bytes: Option<u64>,
    /// It, or one above it, had run out when the choice was made; `None` when the kernel side could not tell.
    #[serde(default)]
    pub acting: Option<bool>,
}

/// Why a process died of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// The OOM killer, because a memory cgroup reached its limit.
    OomCgroup,
    /// The OOM killer, because the machine ran out of memory.
    OomGlobal,
    /// A process sent it the signal.
    KilledBy,
    /// The stack reached RLIMIT_STACK.
    StackLimit,
    /// The stack found no room to grow.
    StackNoRoom,
    /// A mapped file is shorter than what was touched of it.
    BusFileShort,
    /// No huge page was to be had.
    BusHugetlb,
    /// The tmpfs of a mapped file is full.
    BusTmpfsFull,
    /// RLIMIT_CPU.
    CpuLimit,
    /// Another cause, or not known; the sentence says what is known.
    Unknown,
}

impl EndCause {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::OomCgroup => "oom_cgroup",
            Self::OomGlobal => "oom_global",
            Self::KilledBy => "killed_by",
            Self::StackLimit => "stack_limit",
            Self::StackNoRoom => "stack_no_room",
            Self::BusFileShort => "bus_file_short",
            Self::BusHugetlb => "bus_hugetlb",
            Self::BusTmpfsFull => "bus_tmpfs_full",
            Self::CpuLimit => "cpu_limit",
            Self::Unknown => "unknown",
        }
    }
}

/// How a process ended: exactly one of `code` and `signal` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessEnd {
    /// Exit status.
    pub code: Option<i32>,
    /// Number of the signal it died of.
    pub signal: Option<i32>,
    /// Why it died of that signal; null with a `code`.
    pub cause: Option<EndCause>,
    /// What was seen leaves no other cause possible.
    pub certain: bool,
    /// When the signal was raised; null when that was not seen.
    pub at_s: Option<f64>,
    /// Who sent the signal; null unless a process did.
    pub by: Option<Killer>,
    /// With `oom_cgroup`: path of the cgroup whose limit was reached.
    pub cgroup: Option<String>,
    /// Figures that the cause rests on: name → value (bytes where the name ends in `_bytes`).
    pub evidence: BTreeMap<String, u64>,
    /// What happened, for people; goes on after the name of the process.
    pub sentence: String,
}

/// Who sent a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Killer {
    /// Process id.
    pub pid: u32,
    /// Name of the task that sent it.
    pub comm: String,
}

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommandEnd {
    /// Process id; null when its row is not known.
    pub pid: Option<u32>,
    /// Its name at the end, and what it was started as if that is another.
    pub name: String,
    /// What happened, for people; goes on after the name.
    pub sentence: String,
}
