//! Which limit on tasks a call has met that makes one: each limit with what counts for it, read right after the refusal.
//!
//! All is read by address: these programs run on kernels where the verifier does not know types as well.

use vmaudit_common::{
    ABSENT, CLASS_INIT_LOOKED, CLASS_NO_INIT, CLASS_TASKS_REACHED, CLASS_TASKS_READ, TASK_LIMITS,
    TASK_NUMBERS, TASKS_OF_CGROUP, TASKS_OF_MACHINE, TASKS_OF_USER, TaskCount, call,
};

use crate::{
    control::{Page, config, layout},
    kernel::{self, peek},
};

const RLIMIT_NPROC: u32 = 6;
/// Namespaces looked at, from the process's own upwards; more are hardly ever nested.
const NAMESPACES: u64 = 6;
/// cgroups looked at, likewise.
const CGROUPS: u64 = 12;
/// pid_namespace.pid_allocated: a task may be added (include/linux/pid_namespace.h:PIDNS_ADDING, 5.10 to 7.3).
const ADDING: u32 = 1 << 31;

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
        class |= class_of_count(which as u32, *word);
    }
    class
}

/// Of one. Global: before 6.3 the verifier would else follow every combination of answers to the end of the program.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn class_of_count(which: u32, word: u64) -> u64 {
    let which = (which as usize) % TASK_LIMITS;
    match TaskCount::unpack(word) {
        Some(count) if count.reached(which) => (CLASS_TASKS_READ | CLASS_TASKS_REACHED) << which,
        Some(_) => CLASS_TASKS_READ << which,
        None => 0,
    }
}

/// Tasks that `current` and all others may still make before the first of the limits is reached.
#[inline(always)]
pub fn room() -> u64 {
    let mut least = u64::MAX;
    for which in 0..TASK_LIMITS as u32 {
        let room = room_of_count(which, count_tasks(which));
        if room < least {
            least = room;
        }
    }
    least
}

/// Of one limit. Global for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn room_of_count(which: u32, word: u64) -> u64 {
    match TaskCount::unpack(word) {
        Some(count) => count.room(which as usize % TASK_LIMITS),
        None => u64::MAX,
    }
}

/// The count and the limit of `which`, as [`TaskCount::pack`]; 0: not known.
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
    let mut own = 0;
    for level in 0..NAMESPACES {
        let here = tasks_by_ucounts(counts, limit, level, special as u64);
        let Some(known) = TaskCount::unpack(here) else { break };
        if known.reached(TASKS_OF_USER) {
            return Some(known);
        }
        if level == 0 {
            own = here;
        }
        let Some(ns) = peek::<u64>(counts, layout!(tasks.ucounts_ns)) else { break };
        limit = peek(ns, layout!(tasks.user_ns_most_tasks)).unwrap_or(u64::MAX);
        counts = peek(ns, layout!(tasks.user_ns_ucounts)).unwrap_or(0);
    }
    TaskCount::unpack(own)
}

/// One step of [`of_user`], as [`TaskCount::pack`]; 0: cannot be read. The steps of these walks are global functions of
/// plain numbers, so that the verifier looks at one of them instead of every walk that there could be.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tasks_by_ucounts(ucounts: u64, limit: u64, level: u64, special: u64) -> u64 {
    match peek(ucounts, layout!(tasks.ucounts_tasks)) {
        Some(count) => TaskCount { count, limit, level, special: special != 0 }.pack(),
        None => 0,
    }
}

/// nr_threads, and max_threads as user space last read it. Where the kernel does not tell where the first is, each task
/// has a number in the machine's first pid namespace, so there are at most so many.
#[inline(always)]
fn of_machine(task: u64) -> Option<TaskCount> {
    let limit = Page::get().max_threads();
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
        let limit = Page::get().pid_max();
        let count = allocated(first_ns(task)?)?;
        let count = TaskCount { count, limit: u64::from(limit), level: 0, special: false };
        return if limit == 0 { None } else { Some(count) };
    }
    let mut ns = children_ns(task)?;
    let mut tightest = 0;
    for level in 0..NAMESPACES {
        let next = numbers_by_ns(ns, level, tightest);
        if next == 0 {
            break;
        }
        tightest = next;
        ns = peek(ns, layout!(tasks.pid_ns_parent)).unwrap_or(0);
    }
    TaskCount::unpack(tightest)
}

/// One step of [`numbers`]: what is tighter, this or what was found below; 0: cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn numbers_by_ns(ns: u64, level: u64, below: u64) -> u64 {
    let (Some(count), Some(limit)) = (allocated(ns), peek::<u32>(ns, layout!(tasks.pid_ns_max))) else {
        return 0;
    };
    let here = TaskCount { count, limit: u64::from(limit), level, special: false };
    tighter(below, here, TASK_NUMBERS)
}

/// kernel/cgroup/pids.c:pids_try_charge: from the task's own cgroup upwards, the root not counted.
#[inline(always)]
fn of_cgroup(task: u64) -> Option<TaskCount> {
    let set: u64 = peek(task, layout!(tasks.task_cgroups))?;
    let mut css: u64 = peek(set, layout!(tasks.cgroups_pids))?;
    let mut tightest = 0;
    for level in 0..CGROUPS {
        let parent: u64 = peek(css, layout!(tasks.css_parent))?;
        if parent == 0 {
            break;
        }
        tightest = tasks_by_css(css, level, tightest);
        if tightest == 0 {
            return None;
        }
        css = parent;
    }
    let none = TaskCount { count: 0, limit: u64::MAX, level: 0, special: false };
    TaskCount::unpack(tightest).or(Some(none))
}

/// One step of [`of_cgroup`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tasks_by_css(css: u64, level: u64, below: u64) -> u64 {
    // "max" is one more than there can be numbers (kernel/cgroup/pids.c:PIDS_MAX).
    const NONE: u64 = 4 << 20;
    let (Some(count), Some(limit)) =
        (peek(css, layout!(tasks.css_counter)), peek::<u64>(css, layout!(tasks.css_limit)))
    else {
        return 0;
    };
    let limit = if limit > NONE { u64::MAX } else { limit };
    tighter(below, TaskCount { count, limit, level, special: false }, TASKS_OF_CGROUP)
}

/// The one that is reached, else the one that leaves less room; of equals the first. Packed.
#[inline(always)]
fn tighter(below: u64, here: TaskCount, which: usize) -> u64 {
    match TaskCount::unpack(below) {
        Some(first) if first.reached(which) => below,
        Some(first)
            if !here.reached(which)
                && first.limit.wrapping_sub(first.count) <= here.limit.wrapping_sub(here.count) =>
        {
            below
        }
        _ => here.pack(),
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
