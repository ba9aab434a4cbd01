//! What helps against each reason, each written once.

use vmaudit_common::call;

use crate::domain::diagnosis::facts::Facts;
use crate::domain::diagnosis::{Reason, tasks};

/// What would help against `reason`.
pub(super) fn cure(facts: &Facts<'_>, reason: Reason) -> Option<String> {
    let text = match reason {
        Reason::MapCount => "Raise vm.max_map_count, or make fewer mappings.",
        Reason::AddressSpace => "Raise RLIMIT_AS (ulimit -v, LimitAS= of systemd).",
        Reason::Data => "Raise RLIMIT_DATA (ulimit -d, LimitDATA= of systemd).",
        Reason::Stack => "Raise RLIMIT_STACK (ulimit -s, LimitSTACK= of systemd).",
        Reason::Memlock => {
            "Raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= of systemd), or give the program CAP_IPC_LOCK."
        }
        Reason::Overcommit if facts.forks() => {
            "Set vm.overcommit_memory to 1, add swap or raise vm.overcommit_ratio, or start programs by vfork or \
             posix_spawn, which copy nothing."
        }
        Reason::Overcommit if facts.question.limits.overcommit_memory == Some(2) => {
            "Raise vm.overcommit_ratio or vm.overcommit_kbytes, add swap, or set vm.overcommit_memory to 0."
        }
        Reason::Overcommit => {
            "Ask for less at once, map with MAP_NORESERVE, add swap, or set vm.overcommit_memory to 1."
        }
        Reason::Gap => "Not a limit: use addresses that are all mapped.",
        Reason::FileEnd => {
            "Not a limit: make the file long enough first (ftruncate), or lock no more than it holds."
        }
        Reason::Wraps => "Not a limit: look at the address and the length that the program computes.",
        Reason::Driver if facts.question.call == call::MMAP => {
            "Look at what the driver says (its documentation, the kernel log): no limit of the process did it."
        }
        Reason::Hugetlb => {
            "Reserve huge pages (vm.nr_hugepages), or allow more on demand (vm.nr_overcommit_hugepages)."
        }
        Reason::Segments => {
            "Raise kernel.shmmni or kernel.shmall, or remove segments that nobody uses (ipcs -m, ipcrm)."
        }
        Reason::AsynchronousIo => "Raise fs.aio-max-nr.",
        Reason::KernelMemory if facts.question.cgroup.is_some() => {
            "Raise memory.max of the process's cgroup (MemoryMax= of systemd, the container's memory limit), or use less."
        }
        Reason::KernelMemory => {
            "Look at memory.events and memory.max of the process's cgroup, and at the kernel log."
        }
        _ if reason.limits_tasks() => return Some(tasks::cure(facts, reason)),
        Reason::DeadNamespace => {
            "Start a new pid namespace whose first process stays: unshare --pid --fork, or an init (docker run --init)."
        }
        _ => return None,
    };
    Some(text.into())
}
