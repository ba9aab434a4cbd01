//! Reports of a part of a session.

use serde::{Deserialize, Serialize};

/// A stretch of a longer session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stretch {
    /// Its time line, tests and details begin here, seconds since the session's start; 0: nothing is missing. It has the
    /// processes that lived in it; their counts, peaks and numbers of refused calls are since the session's start.
    pub from_s: f64,
    /// Wall time of that, RFC 3339.
    pub from: String,
    /// Why it was kept, in words.
    pub why: String,
    /// Processes that ended before it: they are not in the report. 0 in recordings of versions that did not count them.
    #[serde(default)]
    pub gone_processes: u64,
    /// Their calls that were refused.
    #[serde(default)]
    pub gone_refused: u64,
}
