//! What a source learns: the one stream that every report is made of.

pub use crate::model::call_stat::CallStat;
pub use crate::model::host::Host;
pub use crate::model::interval::{INTERVAL_NS, Interval, Reached, Untold};
pub use crate::model::joined::Joined;
pub use crate::model::loss::{Doubt, Losses, UsedShare};
pub use crate::model::makers::{Credit, Entered, Place};
pub use crate::model::memory::{Kept, Needed, Sizes};

use serde::{Deserialize, Serialize};
use vmaudit_common::call::Call;

pub use super::end::End;
use super::end::{Ended, OomCgroups, OomVictim};
use super::event_names;
pub use super::holders::Owners;
pub use super::layout::Laid;
use super::memory::Rlimits;
pub use super::process_id::ProcessId;
use super::report::{Condition, Hook, Limits};
use super::shortage::{Commit, Tasks};
pub use super::stack::{FollowedStack, Mapped, MappedFile, StackEnds, StackName, StackPiece};
pub use super::task_names::TaskNames;
pub use super::within::Within;

/// One thing that a source learned. Times `at_ns` are CLOCK_MONOTONIC ns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// State of one address space; a later one with the same generation replaces it.
    Mm(Box<MmState>),
    /// An interval is over.
    Interval(Box<Interval>),
    /// A look at one process from outside.
    Sample(Sample),
    /// One change of map_count.
    Change(Change),
    /// One refused call with its details.
    Refused(Box<Refused>),
    /// Somebody is credited with a part of what an address space has.
    Credit(Box<Credit>),
    /// From where such calls are made. Comes before the first of them.
    Place(Box<Place>),
    /// What lies at an address of a refused call's stack. Comes before the call.
    Mapped(Box<Mapped>),
    /// Facts about a process that need /proc or the exec hook.
    Process(ProcessFacts),
    /// The command line of a process, where the caller asked for it.
    CommandLine(Box<CommandLine>),
    /// Which test a process belongs to.
    Test(Box<super::test::TestOf>),
    /// What a user is called.
    User(UserName),
    /// The session's limits, as read now.
    Limits(Limits),
    /// Limits that the command begins with.
    Rlimits(Rlimits),
    /// A look at vm.max_map_count.
    LimitSeen(LimitSeen),
    /// A boundary of a mark was set. Comes behind the figures of all that lives.
    Mark(Box<super::mark::MarkSet>),
    /// What was not seen so far.
    Lost(Losses),
    /// What the VMAs of an address space at the limit are.
    Owners(Box<Owners>),
    /// Where in an address space its VMAs lay.
    Laid(Box<Laid>),
    /// The memory cgroup of an address space in which a call was refused ran out of memory.
    CgroupExhausted(CgroupExhausted),
    /// A piece of the stack that a call was refused on. Comes before the call, and is nowhere written down.
    StackPiece(Box<StackPiece>),
    /// A process has ended.
    Ended(Box<Ended>),
    /// The OOM killer has chosen a process.
    OomVictim(Box<OomVictim>),
    /// The memory cgroups of such a process. Comes before the choice.
    OomCgroups(Box<OomCgroups>),
    /// The name of an address on a refused call's stack.
    Frame(Box<StackName>),
    /// The stack of a refused call, followed.
    Stack(Box<FollowedStack>),
    /// A word on a stack that is no return address: stacks end before it.
    StackEnds(StackEnds),
    /// What became of each hook; a later one replaces it.
    Hooks(Vec<Hook>),
    /// What kernel, rights and container allow; a later one replaces it.
    Conditions(Vec<Condition>),
    /// A sentence for people about what could not be seen.
    Note(String),
    /// Of these processes nothing more will come: in a crowd, the less remarkable ones are added up.
    Gone(Vec<ProcessId>),
    /// No figure will come any more; what follows is about what is known.
    FiguresEnd,
    /// Kernel memory per VMA, bytes.
    VmaBytes(f64),
    /// Addresses of this process are not the caller's to know.
    AddressesHidden(u32),
    /// The session is over.
    End(End),
    /// The recording ends here, and its session did not.
    Cut(Cut),
}

/// Where a recording ends before its session did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Bytes of the file that were read and are whole.
    pub whole_bytes: u64,
    /// What comes behind them is there and is damaged; else the file ends there.
    pub damaged: bool,
    /// More is there, and was not read: it tells more names than a reader keeps.
    #[serde(default)]
    pub too_many_names: bool,
    /// More is there, and was not read: what it told takes more memory than a reader gives.
    #[serde(default)]
    pub too_much: bool,
}

impl Cut {
    /// The file ends behind so many whole bytes.
    pub fn at(whole_bytes: u64) -> Self {
        Self { whole_bytes, damaged: false, too_many_names: false, too_much: false }
    }

    /// More is there than was read.
    pub fn leaves_some(self) -> bool {
        self.damaged || self.too_many_names || self.too_much
    }

    /// What the recording does there.
    pub fn what(self) -> &'static str {
        match self {
            Self { damaged: true, .. } => "is damaged",
            Self { too_many_names: true, .. } => "is read no further (it tells more than 512 MiB of names)",
            Self { too_much: true, .. } => {
                "is read no further (what it tells takes more than 1 GiB of memory)"
            }
            _ => "ends",
        }
    }
}

impl Event {
    /// When it was, CLOCK_MONOTONIC ns; `None` where an event says nothing of time.
    pub fn at_ns(&self) -> Option<u64> {
        match self {
            Self::Mm(state) => Some(state.dead_ns.unwrap_or(state.peak_ns)),
            Self::Interval(it) => Some(it.to_ns),
            Self::Sample(it) => Some(it.at_ns),
            Self::Change(it) => Some(it.at_ns),
            Self::Refused(it) => Some(it.at_ns),
            Self::Credit(it) => Some(it.at_ns),
            Self::Process(it) => Some(it.at_ns),
            Self::LimitSeen(it) => Some(it.at_ns),
            Self::Mark(it) => Some(it.at_ns),
            Self::Ended(it) => Some(it.at_ns),
            Self::OomVictim(it) => Some(it.at_ns),
            Self::End(End { at_ns, .. }) | Self::Lost(Losses { at_ns, .. }) => Some(*at_ns),
            _ => None,
        }
    }
}

/// A memory cgroup that ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupExhausted {
    /// Address space.
    pub generation: u64,
    /// The cgroup.
    pub cgroup: MemoryCgroup,
}

/// What the kernel side knows of one address space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MmState {
    /// Unique in a session, rising with time of birth.
    pub generation: u64,
    /// Its process.
    pub process: ProcessId,
    /// Parent's process id.
    pub ppid: u32,
    /// Owner.
    pub uid: u32,
    /// Name.
    pub comm: String,
    /// map_count when first seen.
    pub first: u32,
    /// map_count after the last change.
    pub last: u32,
    /// Largest map_count left behind by a completed change.
    pub peak: u32,
    /// First seen.
    pub born_ns: u64,
    /// When the peak was reached.
    pub peak_ns: u64,
    /// Torn down; `None` while it lives.
    pub dead_ns: Option<u64>,
    /// Followed from its first instruction.
    pub from_birth: bool,
    /// First count read at attach, while no writer held the lock.
    pub from_snapshot: bool,
    /// Made by exec.
    pub from_exec: bool,
    /// Followed by samples while several tasks could change it: its peak is the largest sample.
    #[serde(default)]
    pub shared: bool,
    /// How often the kernel's own count of write sections showed that a change was missed; `None` where it does not
    /// count (before 6.4, or without CONFIG_PER_VMA_LOCK).
    #[serde(default)]
    pub gaps: Option<u64>,
    /// The largest sizes that were seen; `None` in recordings of versions that did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<Sizes>,
    /// What is not known of the ranges that [`RefusalGroup::kept_bytes`] counts; `None` in recordings of versions that added
    /// up refusals instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// It lives, and its last change may be one that was missed: no later one has shown a gap.
    #[serde(default)]
    pub open_end: bool,
    /// Per call; only calls with a figure.
    #[serde(with = "event_names::calls")]
    pub calls: Vec<(Call, CallStat)>,
    /// Refusals by kind.
    pub refusals: Vec<RefusalGroup>,
    /// Intervals of it that were not told; none where it has changed, if at all, in a single one, in which its whole life lies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Untold>,
    /// Of a process without an address space of its own, the one that it lives in: what it was refused there is its own, its
    /// counts are those of that one at the same times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// What its tasks did by name, where they have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Box<TaskNames>>,
    /// Its changes by place; `None` where nobody asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Vec<Entered>>,
    /// Later images of its process that it stands for, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Box<Joined>>,
}

impl MmState {
    /// A change of it was missed, or may have been.
    pub fn partly_seen(&self) -> bool {
        self.shared || self.open_end || self.gaps.is_some_and(|gaps| gaps > 0)
    }
}

/// Refusals of one kind in one address space, counted in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalGroup {
    /// Which call.
    #[serde(with = "event_names::call")]
    pub call: Call,
    /// Positive errno.
    pub errno: u8,
    /// `vmaudit_common::CLASS_*` bits.
    #[serde(with = "event_names::class")]
    pub class: u64,
    /// How many.
    pub count: u64,
    /// First, CLOCK_MONOTONIC ns.
    pub first_ns: u64,
    /// Last, CLOCK_MONOTONIC ns.
    pub last_ns: u64,
    /// Bytes that should have been unmapped, were not, and are still mapped, as far as [`MmState::kept`] does not say
    /// otherwise. A range counts once, with the call that was refused last.
    pub kept_bytes: u64,
    /// Of them, those after which the same thread got the like in its next memory calls.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recovered: u64,
    /// What they would have needed of the limits on the process, each by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub needed: Needed,
    /// From where they came, as far as places are kept apart: `count` may be more than their sum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<RefusalSite>,
}

/// Refusals of one kind that came from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalSite {
    /// Tells the place from others, as in [`Refused::site`]; never 0.
    pub site: u64,
    /// How many.
    pub count: u64,
    /// See [`RefusalGroup::recovered`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recovered: u64,
    /// First, CLOCK_MONOTONIC ns.
    pub first_ns: u64,
    /// Last, CLOCK_MONOTONIC ns.
    pub last_ns: u64,
    /// Least that was asked for; 0 where no argument tells.
    pub smallest_bytes: u64,
    /// Most that was asked for.
    pub largest_bytes: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One refused call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// When.
    pub at_ns: u64,
    /// Address space.
    pub generation: u64,
    /// Process id.
    pub tgid: u32,
    /// Task.
    pub tid: u32,
    /// Name of the task.
    pub comm: String,
    /// Which call.
    #[serde(with = "event_names::call")]
    pub call: Call,
    /// Positive errno.
    pub errno: u8,
    /// `vmaudit_common::CLASS_*` bits.
    #[serde(with = "event_names::class")]
    pub class: u64,
    /// Return value as the kernel gave it.
    pub ret: i64,
    /// Arguments as passed.
    pub args: [u64; 6],
    /// Figures of the lock section the call was refused in, when it took the lock.
    pub section: Option<Section>,
    /// vm.max_map_count at that time.
    pub max_map_count: u32,
    /// RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK soft limits, bytes; `u64::MAX` = unlimited.
    pub rlimits: [u64; 4],
    /// mm.start_brk, an address.
    pub start_brk: u64,
    /// First address of the range that is not mapped; `None` when there is none or nobody looked.
    #[serde(default)]
    pub hole: Option<u64>,
    /// Of calls that make a task: how many there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Box<Tasks>>,
    /// Of calls that overcommit accounting may have refused: what was promised to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// Where the function that made the call probably returns to: a walk over frame pointers misses it. A caller if
    /// it lies in an executable mapping, else nothing.
    #[serde(default)]
    pub caller: Option<u64>,
    /// The [`RefusalSite`] that it belongs to; 0: none is kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub site: u64,
    /// User return addresses, innermost first.
    pub stack: Vec<u64>,
}

/// State of the address space while a refused call held the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// map_count when the lock was taken.
    pub mc0: u32,
    /// map_count when it was let go.
    pub mc1: u32,
    /// mm.total_vm, pages.
    pub total_vm: u64,
    /// mm.locked_vm, pages.
    pub locked_vm: u64,
    /// mm.data_vm, pages.
    pub data_vm: u64,
    /// Result of the last search for a free range (address, or negative errno); `None` when none was seen.
    pub searched: Option<i64>,
}

/// One change of map_count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at_ns: u64,
    /// Address space.
    pub generation: u64,
    /// Process id.
    pub tgid: u32,
    /// Task that made it.
    pub tid: u32,
    /// Name of that task.
    pub comm: String,
    /// Before.
    pub before: u32,
    /// After.
    pub after: u32,
    /// Within which call.
    #[serde(with = "event_names::call")]
    pub call: Call,
}

/// A count read from outside; never exact as a peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at_ns: u64,
    /// Process.
    pub process: ProcessId,
    /// Parent's process id.
    pub ppid: u32,
    /// Name.
    pub comm: String,
    /// VMAs, `[vsyscall]` not counted; `None` when the process is gone or reading was refused.
    pub map_count: Option<u32>,
}

/// A look at vm.max_map_count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSeen {
    /// When.
    pub at_ns: u64,
    /// VMAs.
    pub max_map_count: u32,
}

/// The command line of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// Process.
    pub process: ProcessId,
    /// Its arguments, the program's own name first; a long one is cut.
    pub arguments: Vec<String>,
}

/// What a user is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserName {
    /// His number.
    pub uid: u32,
    /// His name; his number where he has none.
    pub name: String,
}

/// Facts about a process from /proc or from exec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Process.
    pub process: ProcessId,
    /// When.
    pub at_ns: u64,
    /// Path of the executable.
    pub exe: Option<String>,
    /// cgroup path.
    pub cgroup: Option<String>,
    /// What that, or its path in another hierarchy, says; empty where nothing was read.
    #[serde(default, skip_serializing_if = "Within::is_empty")]
    pub within: Within,
}

/// A memory cgroup with a limit that was hit: the process's own, or the nearest above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCgroup {
    /// memory.max, bytes.
    pub limit_bytes: u64,
    /// In use when it was looked at, bytes.
    pub used_bytes: u64,
    /// How often it ran out of memory since it was made: charges that failed after all reclaim (v2: `oom` in
    /// memory.events.local, or memory.events before 5.12), or processes killed for it (v1: `oom_kill` in memory.oom_control).
    pub out_of_memory: u64,
}

#[cfg(test)]
impl Refused {
    /// One without a cause, for tests to build on.
    pub fn example() -> Self {
        Self {
            at_ns: 1,
            generation: 1,
            tgid: 1,
            tid: 1,
            comm: "x".into(),
            call: vmaudit_common::call::FOREIGN,
            errno: libc::ENOMEM as u8,
            class: 0,
            ret: -i64::from(libc::ENOMEM),
            args: [0; 6],
            section: None,
            max_map_count: 65530,
            rlimits: [u64::MAX; 4],
            start_brk: 0,
            hole: None,
            tasks: None,
            commit: None,
            caller: None,
            site: 0,
            stack: Vec::new(),
        }
    }
}
