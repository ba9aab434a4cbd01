//! The hooks, as reports bear them.

use serde::{Deserialize, Serialize};

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

/// One hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hook {
    /// Name in the hook table.
    pub name: String,
    /// What became of it.
    pub state: HookState,
    /// How it was attached (`raw_tp`, `tracepoint`, `iter` ...), when it was.
    #[serde(default)]
    pub via: Option<String>,
    /// What is lost without it, or, when it is attached in a way that has blind spots, what may be; else null.
    pub loses: Option<String>,
    /// Why it is not attached, or not in the best way; else null.
    #[serde(default)]
    pub reason: Option<String>,
    /// Events that the kernel may have shown to none of its programs, whoever's they were; null when it is not at work,
    /// when nobody counts, or before the end of a session. What that cost is in `lost`.
    #[serde(default)]
    pub skipped: Option<u64>,
}

impl Hook {
    /// One that is not asked for.
    pub fn unused(name: &str) -> Self {
        Self {
            name: name.into(),
            state: HookState::Unused,
            via: None,
            loses: None,
            reason: None,
            skipped: None,
        }
    }
}

/// What became of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HookState {
    /// At work.
    Attached,
    /// This kernel or these rights do not allow it.
    Missing,
    /// Not asked for in this session.
    Unused,
}
