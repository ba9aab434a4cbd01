//! Rows that stand for many processes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::memory::{Accuracy, Memory};
use super::report::CallFigures;
use super::task_names::TaskFigures;

/// Processes that are alike, as one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FoldedProcesses {
    /// Name at the end.
    pub comm: String,
    /// See [`super::report::Process::app`].
    pub app: Option<String>,
    /// They have several names; the two above are those of the one with the largest peak.
    pub various: bool,
    /// How many.
    pub processes: u64,
    /// Of them, still alive when the report was written.
    pub still_running: u64,
    /// Smallest of their peaks.
    pub peak_min: Option<u64>,
    /// Largest of their peaks.
    pub peak_max: Option<u64>,
    /// All these peaks are the true ones.
    pub exact: bool,
    /// Of them, those whose true demand is unknown, see `map_count.clipped` of a row.
    pub clipped: u64,
    /// Of them, those that died of a signal.
    #[serde(default)]
    pub killed: u64,
    /// Of them, those of which it is not known how they ended.
    #[serde(default)]
    pub end_unknown: u64,
    /// Of them, those that vm.max_map_count refused a call.
    pub stopped: u64,
    /// Of them, those where a call failed (ordinary answers left out).
    pub failing: u64,
    /// Calls that failed in them, ordinary answers left out; null when the source cannot see them.
    pub failed: Option<u64>,
    /// First of them seen.
    pub first_started_s: Option<f64>,
    /// Last end; null when none has ended.
    pub last_ended_s: Option<f64>,
    /// What each system call did in all of them.
    pub calls: BTreeMap<String, CallFigures>,
    /// What tasks of each name did in all of them that had tasks of several names, see [`super::report::Process::tasks`]; `peak` is
    /// the largest, null where it is in one of them.
    #[serde(default)]
    pub tasks: Vec<TaskFigures>,
    /// Each size the largest that one of them had; null when the source does not look at them. The limits on them are told in
    /// rows of processes only.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// See [`super::report::Process::unmap_leaked_bytes`], of all of them.
    pub unmap_leaked_bytes: Option<u64>,
    /// See [`super::report::Process::unmap_leaked_bound`].
    #[serde(default)]
    pub unmap_leaked_bound: Option<Accuracy>,
}
