//! Numbers of tasks in the pid namespace that vmaudit runs in, where that is not the machine's first one.

use crate::{
    control::{config, layout},
    kernel::{current, read},
};

/// The number of a task in the pid namespace that vmaudit runs in; 0 where that is the machine's first one, or the task has
/// none there.
#[inline(always)]
pub fn shown(task: u64) -> u32 {
    if config!(pid_ns_level) == 0 { 0 } else { number_in_namespace(task) as u32 }
}

/// `current` has a number where vmaudit runs.
#[inline(always)]
pub fn in_sight() -> bool {
    config!(pid_ns_level) == 0 || number_in_namespace(current()) != 0
}

/// See [`shown`]. A task has a number in its own namespace and in each above it (include/linux/pid.h:struct pid, `numbers`, all
/// versions).
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn number_in_namespace(task: u64) -> u64 {
    const UPID: u32 = 16; // size of struct upid: the number, padding, the namespace
    let pid = read::<u64>(task, layout!(tasks.task_thread_pid));
    let level = config!(pid_ns_level);
    if pid == 0 || read::<u32>(pid, layout!(tasks.pid_level)) < level {
        return 0;
    }
    let at = layout!(tasks.pid_first_ns) + level * UPID;
    if read::<u64>(pid, at) != config!(pid_ns_at) {
        return 0;
    }
    u64::from(read::<u32>(pid, at - 8))
}
