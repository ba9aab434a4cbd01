//! The count of a process over time.

use serde::{Deserialize, Serialize};

/// How a count went, interval by interval. Each begins where the one before it ends; stretches in which nothing changed are
/// one interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Series {
    /// How long an interval is in which something changed: 0.1, in longer lives as often twice that as keeps the number of
    /// intervals small.
    pub interval_s: f64,
    /// Where the first begins.
    pub from_s: f64,
    /// Where each ends.
    pub ends_s: Vec<f64>,
    /// Largest count of each, the one that it began with included.
    pub peak: Vec<u64>,
    /// Count at the end of each.
    pub last: Vec<u64>,
    /// Each peak is the true one of its interval; else they are samples, or some changes were not seen.
    pub exact: bool,
}

/// How a count grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Growth {
    /// VMAs a second: where `steady`, the rate of that growth; else the mean over the whole time.
    pub per_s: f64,
    /// It grew steadily to the end (of the process, of the session, or to the limit): eight stretches of the same length,
    /// together at least 4 s, each with a larger peak than anything before, none with more than half of the growth, the last
    /// four with at least 45 % of it, and at least 32 VMAs in all.
    pub steady: bool,
    /// Seconds over which it was steady; null where it was not.
    pub over_s: Option<f64>,
    /// Seconds from then until vm.max_map_count is reached at that rate, 0 where it was; null where it is not steady, and
    /// where the limit is not known.
    pub reaches_limit_in_s: Option<f64>,
}

impl Growth {
    /// It grew steadily, and the limit has not stopped it.
    pub fn goes_on(&self) -> bool {
        self.steady && self.reaches_limit_in_s.is_none_or(|left| left > 0.0)
    }

    /// The limit is reached soon: nobody can foresee more than [`FORESIGHT`] times as long as was seen.
    pub fn foresees(&self) -> bool {
        let seen = self.over_s.unwrap_or(0.0);
        self.steady && self.reaches_limit_in_s.is_some_and(|left| left <= seen * FORESIGHT)
    }
}

/// 4 s say something of the next quarter of an hour, 10 minutes of the next day and a half.
const FORESIGHT: f64 = 200.0;
