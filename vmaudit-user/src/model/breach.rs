//! A budget that was broken.

use serde::{Deserialize, Serialize};

/// One demand that was broken, or could not be shown to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Breach {
    /// Its option: `max_peak`, `max_percent`, `fail_on_failure`, `fail_on_any_refusal`, `fail_on_peak`, `fail_on_lost`,
    /// `fail_on_killed`, `max_growth`; of a row of the budgets file also `max_failures`, `unmatched`, `expired`.
    pub budget: String,
    /// The row of the budgets file, as its `process` says; null where an option asks for it.
    #[serde(default)]
    pub row: Option<String>,
    /// What it allows; null where it allows none of something.
    pub limit: Option<Bound>,
    /// What was measured, in the same unit (VMAs, percent, calls, events, VMAs a second); null when nothing was.
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

/// What was demanded of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Demand {
    /// See [`Breach::budget`]; `row` for a row of the budgets file with all that it demands.
    pub budget: String,
    /// See [`Breach::row`].
    pub row: Option<String>,
    /// What it allows; null where it allows none of something, and of a row.
    pub limit: Option<Bound>,
    /// As it was asked for.
    pub option: String,
    /// The figures show that it held.
    pub held: bool,
}

impl Demand {
    /// This breach is one of it.
    pub fn is_broken_by(&self, breach: &Breach) -> bool {
        self.row == breach.row && (self.row.is_some() || self.budget == breach.budget)
    }
}

/// A figure of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Bound {
    /// A number of VMAs, calls or events.
    Count(u64),
    /// Percent, or VMAs a second.
    Real(f64),
}
