//! Peaks of short stretches of time, as a source tells them.

use serde::{Deserialize, Serialize};

use crate::model::event::ProcessId;

/// How long an interval usually is, ns.
pub const INTERVAL_NS: u64 = 100_000_000;

/// An interval that is over: what changed in it. Of whoever is not in it nothing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// How long intervals are meant to be, ns.
    pub every_ns: u64,
    /// Its beginning, CLOCK_MONOTONIC ns.
    pub from_ns: u64,
    /// Its end. The next one begins there.
    pub to_ns: u64,
    /// Address spaces whose count changed.
    pub of: Vec<Reached>,
    /// Whose they are, in the same order; in no recording, and empty where nobody asks.
    #[serde(skip)]
    pub by: Vec<ProcessId>,
}

/// What one address space did in an interval: its generation, the largest map_count (also the one that it came with), the
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached(pub u64, pub u32, pub u32);

/// The same of an interval that was not told, with its beginning and its end, or the time of the look, CLOCK_MONOTONIC ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Beginning.
    pub from_ns: u64,
    /// End, or the time of the look.
    pub to_ns: u64,
    /// Largest map_count.
    pub peak: u32,
    /// Last map_count.
    pub last: u32,
}
