//! Which limit on tasks a call has met that makes one: each limit with what counts for it, read right after the refusal.
//!
//! All is read by address: these programs run on kernels where the verifier does not know types as well.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use vmaudit_common::{
    ABSENT, CLASS_INIT_LOOKED, CLASS_NO_INIT, CLASS_TASKS_REACHED, CLASS_TASKS_READ, TASK_LIMITS,
    TASK_NUMBERS, TASKS_OF_CGROUP, TASKS_OF_MACHINE, TASKS_OF_USER, TaskCount, call,
};

use crate::{
    control::{Page, config, layout},
    kernel,
};

const RLIMIT_NPROC: u32 = 6;
/// Namespaces looked at, from the process's own upwards; more are hardly ever nested.
const NAMESPACES: u64 = 6;
/// cgroups looked at, likewise.
const CGROUPS: u64 = 12;
/// pid_namespace.pid_allocated: a task may be added (include/linux/pid_namespace.h:PIDNS_ADDING, 5.10 to 7.3).
const ADDING: u32 = 1 << 31;

/// Reads a `T`; `None`, which is no loss here, when the kernel refuses or has no such member.
#[inline(always)]
fn peek<T>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address itself and never faults.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// This call makes a task.
#[inline(always)]
pub fn makes_one(id: call::Call) -> bool {
    matches!(id, call::CLONE | call::CLONE3 | call::FORK | call::VFORK)
}

/// The class bits of these counts.
#[inline(always)]
pub fn class(counts: &[u64; TASK_LIMITS]) -> u64 {
    let mut class = 0;
    for (which, word) in counts.iter().enumerate() {
        if let Some(count) = TaskCount::unpack(*word) {
            class |= CLASS_TASKS_READ << which;
            if count.reached(which) {
                class |= CLASS_TASKS_REACHED << which;
            }
        }
    }
    class
}

/// The count and the limit of `which`, as [`TaskCount::pack`]; 0: not known.
// SAFETY: no other symbol of the object has this name; so for the next.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_tasks(which: u32) -> u64 {
    let task = kernel::current();
    let count = match which as usize {
        TASKS_OF_USER => of_user(task),
        TASKS_OF_MACHINE => of_machine(task),
        TASK_NUMBERS => numbers(task),
        TASKS_OF_CGROUP => of_cgroup(task),
        _ => None,
    };
    match count {
        Some(count) => count.pack(),
        None => 0,
    }
}

/// Whether the pid namespace for children can take one, as class bits.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn init_ended() -> u64 {
    match children_ns(kernel::current()).and_then(|ns| peek::<u32>(ns, layout!(tasks.pid_ns_allocated))) {
        Some(allocated) if allocated & ADDING == 0 => CLASS_INIT_LOOKED | CLASS_NO_INIT,
        Some(_) => CLASS_INIT_LOOKED,
        None => 0,
    }
}

/// kernel/fork.c:copy_process; kernel/ucount.c:is_rlimit_overlimit from 5.14 on.
#[inline(always)]
fn of_user(task: u64) -> Option<TaskCount> {
    const CAPABLE: u32 = 1 << 21 | 1 << 24; // CAP_SYS_ADMIN, CAP_SYS_RESOURCE
    let cred: u64 = peek(task, layout!(task_cred))?;
    let mut limit = kernel::rlimit(task, RLIMIT_NPROC);
    let capable = peek::<u32>(cred, layout!(cred_cap_effective))? & CAPABLE != 0;
    let special =
        peek::<u32>(cred, layout!(cred_uid))? == 0 || capable && kernel::in_first_user_namespace(cred);
    if layout!(tasks.cred_ucounts) == ABSENT {
        let user: u64 = peek(cred, layout!(tasks.cred_user))?;
        let count = peek::<u32>(user, layout!(tasks.user_processes))?;
        return Some(TaskCount { count: u64::from(count), limit, level: 0, special });
    }
    let mut counts: u64 = peek(cred, layout!(tasks.cred_ucounts))?;
    let mut own = None;
    for level in 0..NAMESPACES {
        let Some(count) = peek(counts, layout!(tasks.ucounts_tasks)) else { break };
        let here = TaskCount { count, limit, level, special };
        if here.reached(TASKS_OF_USER) {
            return Some(here);
        }
        own = own.or(Some(here));
        let Some(ns) = peek::<u64>(counts, layout!(tasks.ucounts_ns)) else { break };
        limit = peek(ns, layout!(tasks.user_ns_most_tasks)).unwrap_or(u64::MAX);
        counts = peek(ns, layout!(tasks.user_ns_ucounts)).unwrap_or(0);
    }
    own
}

/// nr_threads, and max_threads as user space last read it. Where the kernel does not tell where the first is, each task has a number in the machine's first
/// pid namespace, so there are at most so many.
#[inline(always)]
fn of_machine(task: u64) -> Option<TaskCount> {
    let limit = Page::get()?.max_threads();
    if limit == 0 {
        return None;
    }
    let limit = u64::from(limit);
    if let Some(count) = peek::<u32>(config!(threads_at), 0) {
        return Some(TaskCount { count: u64::from(count), limit, level: 0, special: false });
    }
    Some(TaskCount { count: allocated(first_ns(task)?)?, limit, level: 0, special: true })
}

/// kernel/pid.c:alloc_pid.
#[inline(always)]
fn numbers(task: u64) -> Option<TaskCount> {
    if layout!(tasks.pid_ns_max) == ABSENT {
        let limit = Page::get()?.pid_max();
        let count = allocated(first_ns(task)?)?;
        let count = TaskCount { count, limit: u64::from(limit), level: 0, special: false };
        return if limit == 0 { None } else { Some(count) };
    }
    let mut ns = children_ns(task)?;
    let mut tightest: Option<TaskCount> = None;
    for level in 0..NAMESPACES {
        let (Some(count), Some(limit)) = (allocated(ns), peek::<u32>(ns, layout!(tasks.pid_ns_max))) else {
            break;
        };
        let here = TaskCount { count, limit: u64::from(limit), level, special: false };
        if here.reached(TASK_NUMBERS) {
            return Some(here);
        }
        tightest = Some(tighter(tightest, here));
        ns = peek(ns, layout!(tasks.pid_ns_parent)).unwrap_or(0);
    }
    tightest
}

/// kernel/cgroup/pids.c:pids_try_charge: from the task's own cgroup upwards, the root not counted.
#[inline(always)]
fn of_cgroup(task: u64) -> Option<TaskCount> {
    let set: u64 = peek(task, layout!(tasks.task_cgroups))?;
    let mut css: u64 = peek(set, layout!(tasks.cgroups_pids))?;
    let mut tightest = None;
    for level in 0..CGROUPS {
        let parent: u64 = peek(css, layout!(tasks.css_parent))?;
        if parent == 0 {
            break;
        }
        let count: u64 = peek(css, layout!(tasks.css_counter))?;
        // "max" is one more than there can be numbers (kernel/cgroup/pids.c:PIDS_MAX).
        const NONE: u64 = 4 << 20;
        let limit = match peek::<u64>(css, layout!(tasks.css_limit))? {
            limit if limit > NONE => u64::MAX,
            limit => limit,
        };
        let here = TaskCount { count, limit, level, special: false };
        if here.reached(TASKS_OF_CGROUP) {
            return Some(here);
        }
        tightest = Some(tighter(tightest, here));
        css = parent;
    }
    tightest.or(Some(TaskCount { count: 0, limit: u64::MAX, level: 0, special: false }))
}

/// The one that leaves less room; of equals the first.
#[inline(always)]
fn tighter(first: Option<TaskCount>, second: TaskCount) -> TaskCount {
    match first {
        Some(first) if first.limit.wrapping_sub(first.count) <= second.limit.wrapping_sub(second.count) => {
            first
        }
        _ => second,
    }
}

/// Process numbers given out in a pid namespace.
#[inline(always)]
fn allocated(ns: u64) -> Option<u64> {
    peek::<u32>(ns, layout!(tasks.pid_ns_allocated)).map(|count| u64::from(count & !ADDING))
}

#[inline(always)]
fn first_ns(task: u64) -> Option<u64> {
    let pid: u64 = peek(task, layout!(tasks.task_thread_pid))?;
    peek(pid, layout!(tasks.pid_first_ns))
}

#[inline(always)]
fn children_ns(task: u64) -> Option<u64> {
    let proxy: u64 = peek(task, layout!(tasks.task_nsproxy))?;
    peek(proxy, layout!(tasks.nsproxy_children))
}
