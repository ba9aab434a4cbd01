//! Why a memory call was refused: one kind of refusal in, one verdict out. Pure.
//!
//! For each call the checks that can answer so are listed in the order in which the kernel makes them; each is judged
//! as excluded, possible, likely or met by what was captured. The first check that is met ends the list, because the
//! kernel goes no further. A verdict is certain when one candidate is left, and more speaks for it than that nothing else
//! is left: a failed allocation inside the kernel needs a memory cgroup that is known to have run out.
//!
//! Two conventions. (1) Class bits come from the kernel side and hold for the whole kind: they alone decide. Arguments come
//! from one example of it, and are told. (2) A kernel allocation of a few hundred bytes may fail anywhere (a task that is being killed, a
//! memory cgroup at its end); where a check that is *known to fail* fits, that is not counted as an alternative.

mod checks;
mod cures;
mod facts;
mod kernel;
mod sentences;
mod tasks;

use std::collections::BTreeMap;

use facts::{Facts, Rlimit};
use vmaudit_common::call::{self, Call};
use vmaudit_common::{CLASS_NO_ACCESS, CLASS_VAST};

use crate::model::event::{MemoryCgroup, Needed, Refused, Section};
use crate::model::report::{Accuracy, Cause, Limits};
use crate::model::session::KernelRules;

/// One kind of refusal.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Which call.
    pub call: Call,
    /// Positive errno (brk: ENOMEM by convention).
    pub errno: u8,
    /// `vmaudit_common::CLASS_*` bits.
    pub class: u64,
    /// Refusals of this kind.
    pub count: u64,
    /// Bytes that they should have unmapped and that are still mapped.
    pub kept_bytes: u64,
    /// How that figure relates to the true one.
    pub kept_bound: Accuracy,
    /// The most that one of them would have needed of the limits on the process.
    pub needed: Needed,
    /// One of them; `None` when none arrived.
    pub example: Option<&'a Refused>,
    /// The process's memory cgroup, if it is known to have run out of memory.
    pub cgroup: Option<&'a MemoryCgroup>,
    /// System-wide limits.
    pub limits: &'a Limits,
    /// Facts about the kernel and about what the source captures.
    pub kernel: &'a KernelRules,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Why.
    pub cause: Cause,
    /// No other cause is possible.
    pub certain: bool,
    /// A normal answer to the question the call asks, no incident.
    pub ordinary: bool,
    /// A reservation so large that programs which try it can do without: no incident if they go on.
    pub probe: bool,
    /// vm.max_map_count had no part in it, whether or not the cause is known.
    pub limit_excluded: bool,
    /// Figures the verdict rests on: counts of VMAs, or bytes where the name ends in `_bytes`; `cgroup_out_of_memory`:
    /// times.
    pub evidence: BTreeMap<String, u64>,
    /// For people.
    pub sentence: String,
    /// What would help.
    pub cure: Option<String>,
}

/// Why the calls of `question` were refused.
pub fn why(question: &Question<'_>) -> Verdict {
    let facts = Facts::new(question);
    let mut checks = Checks { short_of_memory: question.cgroup.is_some(), ..Checks::default() };
    checks::all(&facts, &mut checks);
    let (reason, certain, others) = checks.decide();
    Verdict {
        cause: reason.cause(),
        certain,
        // Where the VMA limit is among the candidates, nobody is told that all is well.
        ordinary: ordinary(&facts, reason) && !others.contains(&Reason::MapCount),
        probe: probe(&facts, reason) && !others.contains(&Reason::MapCount),
        limit_excluded: reason != Reason::MapCount
            && !others.contains(&Reason::MapCount)
            && (reason != Reason::Unknown || !others.is_empty()),
        evidence: evidence(&facts, reason),
        sentence: sentences::sentence(&facts, reason, certain, &others),
        cure: cures::cure(&facts, reason),
    }
}

/// What a check of the kernel says, finer than [`Cause`]: each has its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    MapCount,
    AddressSpace,
    Data,
    Stack,
    Memlock,
    Overcommit,
    /// The search for a free range found none, or the length fits nowhere.
    NoHole,
    /// brk: another mapping, or the end of the addresses, stands where the heap should go.
    InTheWay,
    /// mremap without MREMAP_MAYMOVE cannot grow where it is.
    NoRoomInPlace,
    /// brk asked where the break is.
    BreakQuery,
    Gap,
    /// The range is mapped, and a part of it allows no access.
    NoAccess,
    /// It is mapped, and a part of it lies beyond the end of the file.
    FileEnd,
    /// Address and length together go past the last number.
    Wraps,
    Hugetlb,
    /// A limit on System V shared memory.
    Segments,
    /// fs.aio-max-nr.
    AsynchronousIo,
    KernelMemory,
    /// The mapped file's driver gave the errno.
    Driver,
    /// A limit on the number of tasks; which one is not known.
    Tasks,
    /// RLIMIT_NPROC.
    UserTasks,
    /// kernel.threads-max.
    MachineTasks,
    /// kernel.pid_max.
    TaskNumbers,
    /// pids.max of a cgroup.
    CgroupTasks,
    /// The init process of the pid namespace has ended.
    DeadNamespace,
    /// MADV_COLLAPSE met pages that are busy.
    Busy,
    Unknown,
}

impl Reason {
    fn limits_tasks(self) -> bool {
        use Reason::{CgroupTasks, MachineTasks, TaskNumbers, Tasks, UserTasks};
        matches!(self, Tasks | UserTasks | MachineTasks | TaskNumbers | CgroupTasks)
    }

    fn cause(self) -> Cause {
        match self {
            Self::MapCount => Cause::MaxMapCount,
            Self::AddressSpace => Cause::RlimitAs,
            Self::Data => Cause::RlimitData,
            Self::Stack => Cause::RlimitStack,
            Self::Memlock => Cause::RlimitMemlock,
            Self::Overcommit => Cause::Overcommit,
            Self::NoHole | Self::InTheWay | Self::NoRoomInPlace | Self::BreakQuery => Cause::NoAddressRange,
            Self::Gap | Self::NoAccess => Cause::RangeNotMapped,
            Self::Hugetlb => Cause::Hugetlb,
            Self::Segments => Cause::ShmLimits,
            Self::AsynchronousIo => Cause::AioMaxNr,
            Self::KernelMemory => Cause::KernelMemory,
            Self::FileEnd => Cause::BeyondEndOfFile,
            Self::Wraps => Cause::InvalidRange,
            Self::Driver => Cause::Driver,
            Self::UserTasks => Cause::RlimitNproc,
            Self::MachineTasks => Cause::ThreadsMax,
            Self::TaskNumbers => Cause::PidMax,
            Self::CgroupTasks => Cause::PidsMax,
            Self::DeadNamespace => Cause::PidNamespaceEnded,
            Self::Tasks | Self::Busy | Self::Unknown => Cause::Unknown,
        }
    }
}

/// What the captured state says about one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    /// It did not refuse.
    No,
    /// It may have, and hardly ever does.
    Unlikely,
    /// It may have.
    Possible,
    /// Its figures fit; whether it applied to this call is not seen.
    Likely,
    /// A call that reaches it is refused by it.
    Met,
}

/// Checks in the kernel's order.
#[derive(Default)]
struct Checks {
    open: Vec<(Reason, Finding)>,
    met: bool,
    /// The process's memory cgroup has run out of memory.
    short_of_memory: bool,
}

impl Checks {
    fn add(&mut self, reason: Reason, mut finding: Finding) {
        if self.short_of_memory && reason == Reason::KernelMemory && finding == Finding::Unlikely {
            finding = Finding::Likely;
        }
        if !self.met && finding != Finding::No {
            // A second chance to fail for the same reason tells nothing new, unless it is surer.
            match self.open.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, known)) if finding != Finding::Met => *known = (*known).max(finding),
                _ => {
                    self.open.retain(|(known, _)| *known != reason);
                    self.open.push((reason, finding));
                }
            }
            self.met = finding == Finding::Met;
        }
    }

    /// The reason, whether it is certain, and what else is possible.
    fn decide(self) -> (Reason, bool, Vec<Reason>) {
        let reasons: Vec<Reason> = self.open.iter().map(|(reason, _)| *reason).collect();
        if let [(only, finding)] = self.open.as_slice() {
            let certain = !matches!(only.cause(), Cause::Unknown) && *finding > Finding::Unlikely;
            return (*only, certain, Vec::new());
        }
        let of =
            |finding| self.open.iter().filter(move |(_, known)| *known == finding).map(|(reason, _)| *reason);
        let chosen = if self.met {
            reasons.last().copied()
        } else if let Some(likely) = of(Finding::Likely).next() {
            Some(likely)
        } else {
            match (of(Finding::Possible).count(), of(Finding::Possible).next()) {
                (1, possible) => possible,
                (0, _) => of(Finding::Unlikely).find(|reason| *reason == Reason::KernelMemory),
                _ => None,
            }
        };
        let chosen = chosen.unwrap_or(Reason::Unknown);
        (chosen, false, reasons.into_iter().filter(|reason| *reason != chosen).collect())
    }
}

/// Refusals that answer a question rather than disappoint a need.
fn ordinary(facts: &Facts<'_>, reason: Reason) -> bool {
    match reason {
        Reason::NoRoomInPlace | Reason::BreakQuery | Reason::Busy => true,
        Reason::Gap => matches!(
            facts.question.call,
            call::MADVISE | call::PROCESS_MADVISE | call::PRCTL | call::MSYNC | call::MINCORE
        ),
        _ => false,
    }
}

/// Programs reserve huge ranges without access, and try a smaller one when refused.
fn probe(facts: &Facts<'_>, reason: Reason) -> bool {
    reason != Reason::MapCount
        && facts.question.call == call::MMAP
        && facts.has(CLASS_NO_ACCESS)
        && !facts.fixed()
        && facts.has(CLASS_VAST)
}

fn evidence(facts: &Facts<'_>, reason: Reason) -> BTreeMap<String, u64> {
    let mut evidence = BTreeMap::new();
    let mut put = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            evidence.insert(name.to_owned(), value);
        }
    };
    let page = facts.kernel().page_size;
    let section = facts.section();
    let used = |pages: fn(&Section) -> u64| {
        section.filter(|_| facts.counters()).map(|section| pages(section).saturating_mul(page))
    };
    // The least limit that every one of the calls had passed.
    let enough = |pages: u64| (pages > 0).then(|| pages.saturating_mul(page));
    put("map_count", facts.map_count());
    put("max_map_count", facts.max);
    match reason {
        Reason::MapCount => put("needed", Some(sentences::free_needed(facts))),
        Reason::AddressSpace => {
            put("asked_bytes", facts.asked());
            put("used_bytes", used(|section| section.total_vm));
            put("limit_bytes", facts.rlimit(Rlimit::As));
            put("enough_bytes", enough(facts.question.needed.total));
        }
        Reason::Data => {
            put("asked_bytes", facts.asked());
            put("used_bytes", used(|section| section.data_vm));
            put("limit_bytes", facts.rlimit(Rlimit::Data));
            put("enough_bytes", enough(facts.question.needed.data));
        }
        Reason::Memlock => {
            put("asked_bytes", facts.asked());
            put("used_bytes", used(|section| section.locked_vm));
            put("limit_bytes", facts.rlimit(Rlimit::Memlock));
            put("enough_bytes", enough(facts.question.needed.locked));
        }
        Reason::Stack => put("limit_bytes", facts.rlimit(Rlimit::Stack)),
        Reason::KernelMemory => {
            let cgroup = facts.question.cgroup;
            put("cgroup_limit_bytes", cgroup.map(|cgroup| cgroup.limit_bytes));
            put("cgroup_used_bytes", cgroup.map(|cgroup| cgroup.used_bytes));
            put("cgroup_out_of_memory", cgroup.map(|cgroup| cgroup.out_of_memory));
        }
        Reason::Overcommit => {
            put("asked_bytes", if facts.forks() { facts.copied() } else { facts.asked() });
            let commit = facts.commit();
            put("commit_limit_bytes", commit.map(|(commit, _)| commit.limit_bytes));
            put("committed_bytes", commit.map(|(commit, _)| commit.committed_bytes));
            put("missing_bytes", commit.and_then(|(commit, asked)| commit.missing(asked?)));
            put("overcommit_memory", facts.question.limits.overcommit_memory);
            put(
                "ram_and_swap_bytes",
                facts.kernel().ram_and_swap_pages.map(|pages| pages.saturating_mul(page)),
            );
        }
        Reason::NoHole => {
            put("asked_bytes", facts.asked());
            put("used_bytes", facts.addresses().map(|(used, _)| used));
            put("addresses_bytes", facts.addresses().map(|(_, all)| all));
        }
        Reason::NoRoomInPlace | Reason::InTheWay | Reason::Hugetlb => put("asked_bytes", facts.asked()),
        _ => {}
    }
    for (name, value) in facts.tasks().map(tasks::evidence).into_iter().flatten() {
        put(name, value);
    }
    // What was missing, where it can be computed.
    let missing = match (evidence.get("asked_bytes"), evidence.get("used_bytes"), evidence.get("limit_bytes"))
    {
        (Some(asked), Some(used), Some(limit)) => {
            asked.saturating_add(*used).checked_sub(*limit).filter(|missing| *missing > 0)
        }
        _ => None,
    };
    if let Some(missing) = missing {
        evidence.insert("missing_bytes".into(), missing);
    }
    if let Some(added) = facts.added() {
        evidence.insert("added".into(), added);
    }
    if facts.question.kept_bytes > 0 {
        evidence.insert("kept_bytes".into(), facts.question.kept_bytes);
    }
    evidence
}

#[cfg(test)]
mod tests;
