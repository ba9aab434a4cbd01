//! What holds for a whole session and is known before its first event: the header of a stream of events.

use serde::{Deserialize, Serialize};

use super::report::{Host, SourceKind};

/// The header: with it, the events alone make the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of vmaudit that watched.
    pub vmaudit: String,
    /// Machine.
    pub host: Host,
    /// Where the events come from.
    pub source: SourceKind,
    /// What that source can see at all.
    pub sight: Sight,
    /// What the kernel checks, and what is captured of it.
    pub rules: KernelRules,
    /// Wall time of the start, RFC 3339.
    pub started: String,
    /// The start, CLOCK_MONOTONIC ns: times of a report are relative to it.
    pub start_ns: u64,
    /// The command as the report shows it; empty when none was run.
    pub command: Vec<String>,
    /// What was watched of what ran already, in words; `None` where a command was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<String>,
    /// When what ran already was attached to, CLOCK_BOOTTIME ns as processes' starts are: figures of those that started
    /// before begin there. `None` where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_ns: Option<u64>,
    /// What the recommendation adds to a peak.
    pub margin: MarginAsked,
    /// What was demanded.
    pub budget: Budget,
    /// Every process has a row of its own.
    #[serde(default)]
    pub all_rows: bool,
    /// It is a stretch of a longer session; `None`: all of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stretch: Option<Stretch>,
}

/// What of a session the flight recorder kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Its time line begins here, CLOCK_MONOTONIC ns: what came before is not in it, but for figures that the kernel keeps.
    pub from_ns: u64,
    /// Why it was kept, in words.
    pub why: String,
    /// Processes that ended before it, of which nothing is in it.
    #[serde(default)]
    pub gone: Gone,
}

/// Processes that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// How many.
    pub processes: u64,
    /// How many of their calls were refused.
    pub refused: u64,
}

impl Gone {
    /// These as well.
    pub fn add(&mut self, more: Self) {
        self.processes = self.processes.saturating_add(more.processes);
        self.refused = self.refused.saturating_add(more.refused);
    }
}

/// What the source can see at all; what it cannot is null in the report, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// Every change of map_count.
    pub changes: bool,
    /// Every exit of a watched call.
    pub exits: bool,
    /// Not the exits, but each watched call that takes the lock of its own address space.
    #[serde(default)]
    pub locking: bool,
    /// How each process ended.
    #[serde(default)]
    pub ends: bool,
}

impl Sight {
    /// Refused calls are seen, if not all of them.
    pub const fn calls(self) -> bool {
        self.exits || self.locking
    }
}

/// What a recommendation adds to a peak, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarginAsked {
    /// Factor.
    pub headroom: f64,
    /// Rounded up to a multiple of this.
    pub round: u64,
}

/// What is demanded of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// VMAs that no process may exceed.
    pub max_peak: Option<u64>,
    /// The same in percent of vm.max_map_count.
    pub max_percent: Option<f64>,
    /// Steady growth that no process may exceed, VMAs a second.
    #[serde(default)]
    pub max_growth: Option<f64>,
    /// What must not happen.
    pub fail_on: Vec<FailOn>,
    /// Rows of the budgets file.
    #[serde(default)]
    pub rows: Vec<BudgetRow>,
}

/// A row of the budgets file: what processes of a name may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetRow {
    /// Whom it is for: a name, an application or a path, with `*` and `?`.
    pub process: String,
    /// VMAs that none of them may exceed.
    pub max_peak: Option<u64>,
    /// The same in percent of vm.max_map_count.
    pub max_percent: Option<f64>,
    /// Refused calls that none of them may exceed.
    pub max_failures: Option<u64>,
    /// Steady growth that none of them may exceed, VMAs a second.
    #[serde(default)]
    pub max_growth: Option<f64>,
    /// Why it is so.
    pub reason: Option<String>,
    /// The last day that it holds, as `2027-01-31`.
    pub expires: Option<String>,
    /// It may fit no process.
    pub optional: bool,
    /// Where it stands in its file, from 1.
    pub line: u64,
}

/// What breaks a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailOn {
    /// A memory call failed.
    Failure,
    /// A memory call was refused, be it as an ordinary answer.
    AnyRefusal,
    /// A peak reached the limit.
    Peak,
    /// Something was lost or could not be seen.
    Lost,
    /// A process died of a signal.
    Killed,
}

/// Facts that decide which checks a kernel makes, in which order. `None` in a field means that the release string does
/// not tell (an odd string, or a distribution that backports): then only what holds either way is called certain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRules {
    /// madvise and prctl(PR_SET_VMA) answer EAGAIN at the VMA limit, not ENOMEM (since 5.17,
    /// mm/madvise.c:madvise_vma_behavior).
    pub madvise_eagain: Option<bool>,
    /// brk looks at RLIMIT_MEMLOCK before it comes to making the heap larger (since 6.1, mm/mmap.c:check_brk_limits).
    pub brk_memlock_first: Option<bool>,
    /// How many VMAs mremap wants to see free.
    pub mremap: Option<MremapRule>,
    /// mremap with MREMAP_FIXED or MREMAP_DONTUNMAP looks at the count before it takes the lock (6.17 to 7.0,
    /// mm/mremap.c:check_mremap_params), so that refusal has no lock section.
    pub mremap_checks_unlocked: Option<bool>,
    /// mmap(MAP_FIXED) unmaps what was there before it asks for memory, so a refusal destroys it (up to 6.11,
    /// mm/mmap.c:mmap_region).
    pub fixed_unmaps_first: Option<bool>,
    /// Bytes per page.
    pub page_size: u64,
    /// End of the addresses a process gets without asking for more, bytes.
    pub task_size: u64,
    /// End of all addresses a process can ask for, bytes; `None` where it is not known.
    pub address_end: Option<u64>,
    /// MemTotal + SwapTotal, pages: what one request may not exceed in overcommit mode 0
    /// (mm/util.c:__vm_enough_memory); `None` when it was not read.
    pub ram_and_swap_pages: Option<u64>,
    /// The parameter `ignore_rlimit_data` is set (mm/mmap.c:may_expand_vm).
    pub ignore_rlimit_data: bool,
    /// The source fills CLASS_OVER_AS, CLASS_OVER_DATA and CLASS_OVER_MEMLOCK.
    pub vm_counters_captured: bool,
    /// The source sees every release of a write lock by its event, so that a call without CLASS_SECTION held none.
    pub sections_seen: bool,
    /// The source fills CLASS_SEARCHED and CLASS_NO_HOLE.
    pub searches_seen: bool,
    /// The source sets CLASS_OVER_MEMLOCK only for tasks without CAP_IPC_LOCK, to which the limit applies.
    pub memlock_bit_knows_capability: bool,
    /// The source fills CLASS_LOCKS.
    #[serde(default)]
    pub future_locks_captured: bool,
}

/// How many VMAs mremap wants to see free, by kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MremapRule {
    /// Up to 7.0: 4 for a move, 6 for MREMAP_FIXED and MREMAP_DONTUNMAP (mm/mremap.c:move_vma, mremap_to).
    Old,
    /// 7.1: 4 for every call (mm/mremap.c:check_map_count_against_split_early).
    Split71,
    /// From 7.2: 4 for every call, 5 for MREMAP_DONTUNMAP.
    Split72,
}
