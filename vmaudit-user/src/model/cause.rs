//! Why calls are refused: the names that reports bear, and how a sentence says them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use vmaudit_common::call::{CALLS, Call};

use super::report::Failure;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// vm.max_map_count.
    MaxMapCount,
    /// RLIMIT_AS.
    RlimitAs,
    /// RLIMIT_DATA.
    RlimitData,
    /// RLIMIT_STACK.
    RlimitStack,
    /// RLIMIT_MEMLOCK.
    RlimitMemlock,
    /// Overcommit accounting.
    Overcommit,
    /// No free hole of that size, or the hint range is used up.
    NoAddressRange,
    /// The range has a gap.
    RangeNotMapped,
    /// The range is mapped, and a part of it lies beyond the end of its file.
    BeyondEndOfFile,
    /// Address and length together go past the last number.
    InvalidRange,
    /// No huge pages.
    Hugetlb,
    /// RLIMIT_NPROC.
    RlimitNproc,
    /// pids.max of a cgroup.
    PidsMax,
    /// kernel.threads-max.
    ThreadsMax,
    /// kernel.pid_max.
    PidMax,
    /// The first process of the pid namespace has ended.
    PidNamespaceEnded,
    /// fs.aio-max-nr.
    AioMaxNr,
    /// kernel.shmmni, kernel.shmall or kernel.shmmax.
    ShmLimits,
    /// The file's own driver refused.
    Driver,
    /// A slab, page table or cgroup charge failed.
    KernelMemory,
    /// mseal.
    Sealed,
    /// Not known; the sentence says why.
    Unknown,
}

impl Cause {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxMapCount => "max_map_count",
            Self::RlimitAs => "rlimit_as",
            Self::RlimitData => "rlimit_data",
            Self::RlimitStack => "rlimit_stack",
            Self::RlimitMemlock => "rlimit_memlock",
            Self::Overcommit => "overcommit",
            Self::NoAddressRange => "no_address_range",
            Self::RangeNotMapped => "range_not_mapped",
            Self::BeyondEndOfFile => "beyond_end_of_file",
            Self::InvalidRange => "invalid_range",
            Self::Hugetlb => "hugetlb",
            Self::RlimitNproc => "rlimit_nproc",
            Self::PidsMax => "pids_max",
            Self::ThreadsMax => "threads_max",
            Self::PidMax => "pid_max",
            Self::PidNamespaceEnded => "pid_namespace_ended",
            Self::AioMaxNr => "aio_max_nr",
            Self::ShmLimits => "shm_limits",
            Self::Driver => "driver",
            Self::KernelMemory => "kernel_memory",
            Self::Sealed => "sealed",
            Self::Unknown => "unknown",
        }
    }
}

/// `cause` as the end of a sentence "the reason is ...".
pub fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::MaxMapCount => "vm.max_map_count",
        Cause::RlimitAs => "the address space limit RLIMIT_AS",
        Cause::RlimitData => "the data limit RLIMIT_DATA",
        Cause::RlimitStack => "the stack limit RLIMIT_STACK",
        Cause::RlimitMemlock => "the locked memory limit RLIMIT_MEMLOCK",
        Cause::Overcommit => "overcommit accounting (vm.overcommit_memory)",
        Cause::NoAddressRange => "no free address range",
        Cause::RangeNotMapped => "a range that is not mapped",
        Cause::BeyondEndOfFile => "a range beyond the end of its file",
        Cause::InvalidRange => "a range that goes past the last address",
        Cause::Hugetlb => "no free huge pages",
        Cause::RlimitNproc => "the limit on tasks of the user RLIMIT_NPROC",
        Cause::PidsMax => "the limit on tasks of a cgroup (pids.max)",
        Cause::ThreadsMax => "the limit on tasks of the machine (kernel.threads-max)",
        Cause::PidMax => "the limit on process numbers (kernel.pid_max)",
        Cause::PidNamespaceEnded => "a pid namespace whose first process has ended",
        Cause::AioMaxNr => "the limit on asynchronous I/O (fs.aio-max-nr)",
        Cause::ShmLimits => "the limits on shared memory segments (kernel.shm*)",
        Cause::Driver => "the file's own driver",
        Cause::KernelMemory => "a failed allocation in the kernel",
        Cause::Sealed => "sealed memory (mseal)",
        Cause::Unknown => "a cause that could not be told",
    }
}

/// Reasons with their counts, most frequent first.
pub fn reasons(kinds: impl Iterator<Item = (Cause, &'static str, u64)>) -> Vec<(&'static str, u64)> {
    let mut sums: BTreeMap<(Cause, &'static str), u64> = BTreeMap::new();
    for (cause, reason, count) in kinds {
        let sum: &mut u64 = sums.entry((cause, reason)).or_default();
        *sum = sum.saturating_add(count);
    }
    let mut sums: Vec<_> = sums.into_iter().map(|((_, reason), count)| (reason, count)).collect();
    sums.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    sums
}

/// Why `failure` failed, as the end of a sentence "the reason is ...".
pub fn reason(failure: &Failure) -> &'static str {
    // The limits on tasks have no cause of their own in the report; nothing else answers these calls so.
    let tasks = failure.cause == Cause::Unknown
        && failure.errno == "EAGAIN"
        && matches!(failure.syscall.as_str(), "clone" | "clone3" | "fork" | "vfork");
    if tasks { "a limit on the number of tasks" } else { because(failure.cause) }
}

/// The kernel's name of a call.
pub fn name_of(call: Call) -> &'static str {
    CALLS.get(usize::from(call)).map_or("[unknown]", |info| info.name)
}
