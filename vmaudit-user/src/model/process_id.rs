//! Which process.

use serde::{Deserialize, Serialize};

/// Identity of a process: pids are reused, a pid with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Thread group id.
    pub tgid: u32,
    /// Start of the process, CLOCK_BOOTTIME ns (from /proc: rounded down to a clock tick).
    pub start_ns: u64,
}
