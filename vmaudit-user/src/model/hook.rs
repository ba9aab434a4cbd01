//! Names of the hooks, as reports bear them.

/// Name of the row that makes peaks exact.
pub const LOCK_RELEASED: &str = "mmap_lock_released";
/// Name of the row that sees refused calls.
pub const CALL_EXIT: &str = "sys_exit";
/// Name of the row that sees searches for free addresses.
pub const ADDRESS_SEARCH: &str = "vm_unmapped_area";
/// Name of the row that sees the end of address spaces.
pub const EXIT_MMAP: &str = "exit_mmap";
/// Name of the row that sees the end of processes.
pub const EXIT: &str = "sched_process_exit";
/// Name of the row that sees births.
pub const FORK: &str = "sched_process_fork";
/// Name of the row that sees new images.
pub const EXEC: &str = "sched_process_exec";
/// Name of the row that sees brk come past its first checks.
pub const HEAP_GROWTH: &str = "do_brk_flags";
/// Name of the row that sees overcommit accounting refuse.
pub const OVERCOMMIT: &str = "vm_enough_memory";
/// Name of the row that sees signals.
pub const SIGNAL: &str = "signal_generate";
/// Name of the row that sees the OOM killer's choices.
pub const VICTIM: &str = "mark_victim";
/// Rows that only settle causes: nothing they miss touches a figure.
pub const SETTLING: [&str; 5] = [ADDRESS_SEARCH, HEAP_GROWTH, OVERCOMMIT, SIGNAL, VICTIM];
/// Name of the row that starts with running processes.
pub const SNAPSHOT: &str = "task_iterator";
