//! A budget that was broken.

use serde::{Deserialize, Serialize};

/// One demand that was broken, or could not be shown to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Breach {
    /// Its option: `max_peak`, `max_percent`, `fail_on_failure`, `fail_on_any_refusal`, `fail_on_peak`, `fail_on_lost`.
    pub budget: String,
    /// What it allows; null where it allows none of something.
    pub limit: Option<Bound>,
    /// What was measured, in the same unit (VMAs, percent, calls, events); null when nothing was.
    pub actual: Option<Bound>,
    /// The process it was measured in, the worst of several; null when it is no process's.
    pub pid: Option<u32>,
    /// Name of that process.
    pub comm: Option<String>,
    /// The figures show that it was broken; false: they do not show that it holds.
    pub shown: bool,
    /// The same for people.
    pub sentence: String,
}

/// A figure of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Bound {
    /// A number of VMAs, calls or events.
    Count(u64),
    /// Percent.
    Percent(f64),
}
