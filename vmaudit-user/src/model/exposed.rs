//! What an exporter shows of a session at work, by group of processes.

use std::collections::BTreeMap;

use super::cause::Cause;
use super::end::ProcessEnd;
use super::loss::LossReason;
use super::report::SourceKind;
use super::session::Sight;

/// The group of all that have none of their own.
pub const OTHER: &str = "other";

/// Refused calls that are one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusalKind {
    /// Name of the call.
    pub syscall: String,
    /// Name of the errno.
    pub errno: String,
    /// Why.
    pub cause: Cause,
}

/// Figures of a group of processes. Counts only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupFigures {
    /// VMAs of the one that has most now; `None` when none lives.
    pub now: Option<u64>,
    /// The largest peak that one of them had; `None` when nobody knows one.
    pub peak: Option<u64>,
    /// The largest peak in the last whole minute; `None` when none lived in it.
    pub minute: Option<u64>,
    /// Peaks of processes that have ended, by minute; of the last whole one and of the one that runs.
    pub ended_in: BTreeMap<u64, u64>,
    /// VMAs a second by which the one grows that grows fastest, of those that grow steadily; 0 when none does, `None` when none
    /// lives or nobody can tell.
    pub growth: Option<f64>,
    /// The peak of one of them is not known exactly: the true one may be higher.
    pub peak_doubtful: bool,
    /// Calls that were refused for good.
    pub refused: BTreeMap<RefusalKind, u64>,
    /// Calls that were refused, and whose task got the like in its next calls.
    pub recovered: BTreeMap<RefusalKind, u64>,
    /// Processes that ended, by [`end_name`].
    pub ends: BTreeMap<&'static str, u64>,
}

/// The state of an exporter.
#[derive(Debug)]
pub struct Exposed<'a> {
    /// Version of vmaudit.
    pub version: &'a str,
    /// Where the figures come from.
    pub source: SourceKind,
    /// What that can see at all.
    pub sight: Sight,
    /// When it began, seconds since 1970.
    pub started_s: i64,
    /// vm.max_map_count.
    pub limit: Option<u64>,
    /// By name.
    pub groups: Vec<(&'a str, &'a GroupFigures)>,
    /// Processes that were counted in [`OTHER`] for want of room.
    pub processes_in_other: u64,
    /// Groups that ended long ago and were added to [`OTHER`] to make room.
    pub groups_retired: u64,
    /// Every peak is the true one.
    pub exact_peaks: bool,
    /// Peaks reached since then are exact, seconds since 1970; `None`: never.
    pub peaks_exact_since_s: Option<i64>,
    /// Every call that vm.max_map_count refused was seen.
    pub exact_limit_calls: bool,
    /// Every one since then, seconds since 1970; `None`: never.
    pub limit_calls_exact_since_s: Option<i64>,
    /// What was lost.
    pub lost: &'a BTreeMap<LossReason, u64>,
}

/// A process exited with status 0.
pub const EXITED: &str = "exit";
/// A process exited with another status.
pub const EXITED_WITH_ERROR: &str = "exit_error";
/// Nobody saw how a process ended.
pub const END_NOT_SEEN: &str = "not_seen";

/// The name of an end: that of a report for one by a signal.
pub fn end_name(end: Option<&ProcessEnd>) -> &'static str {
    match end {
        None => END_NOT_SEEN,
        Some(ProcessEnd { cause: Some(cause), .. }) => cause.name(),
        Some(ProcessEnd { code: Some(0), .. }) => EXITED,
        Some(ProcessEnd { code: Some(_), .. }) => EXITED_WITH_ERROR,
        Some(_) => END_NOT_SEEN,
    }
}
