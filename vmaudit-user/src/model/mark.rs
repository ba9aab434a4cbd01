//! Stretches of a session that somebody named: their boundaries as they are set, and what a report says of them.

use serde::{Deserialize, Serialize};

use super::memory::Accuracy;

/// A boundary of a mark was set, after figures of all that lived were told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkSet {
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Which mark of the session, from 1; its end bears the number of its beginning.
    pub number: u64,
    /// It begins; else it ends.
    pub begins: bool,
    /// What it is called.
    pub name: String,
    /// The process that asked; 0: not known.
    pub by: u32,
    /// An interval of all address spaces ended here, a moment before, CLOCK_MONOTONIC ns; `None`: the source has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_ns: Option<u64>,
    /// Who asked may have gone on before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<MarkDoubt>,
}

/// Why a boundary may not be where it was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkDoubt {
    /// It was set more than 100 ms after it was asked for.
    Late,
    /// Who asked for it did not wait for an answer.
    Unanswered,
}

/// A stretch of the session that somebody named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// The process that began it; null: not known.
    pub by_pid: Option<u32>,
    /// Its beginning.
    pub begun_s: f64,
    /// Its end; null: it was not ended, and its figures are up to the session's end.
    pub ended_s: Option<f64>,
    /// Both boundaries were set while whoever asked for them waited; else changes made just behind them may be on the wrong
    /// side.
    pub exact: bool,
    /// Largest number of VMAs that one process had in it; null: not known.
    pub peak: Option<u64>,
    /// How that relates to the true one; null without one.
    pub peak_bound: Option<Accuracy>,
    /// The process that had it.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// VMAs added in it, in all processes; null where the source does not see changes.
    pub added: Option<u64>,
    /// VMAs removed; likewise.
    pub removed: Option<u64>,
    /// Calls refused, ordinary answers among them; null where the source does not see them.
    pub failed: Option<u64>,
    /// The processes that did most in it.
    pub processes: Vec<MarkedProcess>,
    /// Further processes that did something in it.
    pub processes_left_out: u64,
}

/// What one process did in a mark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MarkedProcess {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Largest number of VMAs in the mark.
    pub peak: Option<u64>,
    /// How that relates to the true one; null without one.
    pub peak_bound: Option<Accuracy>,
    /// VMAs added.
    pub added: Option<u64>,
    /// VMAs removed.
    pub removed: Option<u64>,
    /// Calls refused.
    pub failed: Option<u64>,
}
