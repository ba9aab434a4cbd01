//! Figures of one process.

use serde::{Deserialize, Serialize};

/// From when on the figures of a process are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Since {
    /// It was seen from its start.
    Start,
    /// It ran before: what it did, and what its peak was until then, is not known.
    Attach,
}

/// VMA counts of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MapCount {
    /// When first seen.
    pub first: Option<u64>,
    /// At the end, or now.
    pub last: Option<u64>,
    /// Largest.
    pub peak: Option<u64>,
    /// When the peak was reached.
    pub peak_at_s: Option<f64>,
    /// The peak is the true one, not a sample.
    pub exact: bool,
    /// The true demand is unknown: the limit stopped it (then it is at least peak + 1), or it stood at the limit while
    /// refused calls could not all be seen.
    pub clipped: bool,
    /// Peak (for `scan`: now) in percent of vm.max_map_count.
    pub percent_of_limit: Option<f64>,
}

/// One image of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// Name at its end.
    pub comm: String,
    /// Its peak.
    pub peak: u64,
}

/// What one system call did in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallFigures {
    /// Calls that returned, without `coverage.exact_calls` only those that took the lock; null: they cannot all be counted.
    pub calls: Option<u64>,
    /// VMAs added.
    pub added: u64,
    /// VMAs removed.
    pub removed: u64,
    /// Calls refused for lack of memory or of a limit; null when the source cannot see them.
    pub failed: Option<u64>,
}

/// How a process ended: exactly one of the two is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Exit {
    /// Exit status.
    pub code: Option<i32>,
    /// Number of the signal it died of.
    pub signal: Option<i32>,
}
