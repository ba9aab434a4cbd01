//! What a report advises about vm.max_map_count.

use serde::{Deserialize, Serialize};

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Recommendation {
    /// `vm.max_map_count`.
    pub setting: String,
    /// Value in force; null when unknown.
    pub current: Option<u64>,
    /// Value to set; null when none is recommended.
    pub value: Option<u64>,
    /// What the value rests on; null when nothing was measured.
    pub basis: Option<Basis>,
    /// What kind of advice it is.
    pub action: Action,
    /// Reasons, for people.
    pub sentences: Vec<String>,
    /// Commands that carry it out; empty when there is nothing to do.
    pub commands: Vec<String>,
}

/// What a recommended value rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Basis {
    /// Largest count, VMAs.
    pub peak: u64,
    /// That count was stopped by the limit.
    pub clipped: bool,
    /// Factor.
    pub headroom: f64,
    /// Rounded up to a multiple of this.
    pub round: u64,
}

/// Kind of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The limit is high enough.
    Leave,
    /// Raise it to the value.
    Raise,
    /// Raise it and measure again: the demand was cut off.
    RaiseAndRerun,
    /// Calls failed, or a process grows steadily, and raising this limit would not help.
    WillNotHelp,
    /// Nothing was measured.
    Unknown,
}
