//! Who holds the VMAs of a process.

use serde::{Deserialize, Serialize};

/// Who holds the VMAs of a process at the limit, from one look at its mappings soon after a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Holders {
    /// VMAs that the look found.
    pub vmas_read: u64,
    /// All were read.
    pub complete: bool,
    /// VMAs that the process had when the call was refused; null when that was not seen.
    #[serde(default)]
    pub vmas_expected: Option<u64>,
    /// The process ended, or called exec, before all were read.
    #[serde(default)]
    pub ended: bool,
    /// When the look began.
    #[serde(default)]
    pub at_s: f64,
    /// The refused call that made vmaudit look; one look serves all failures of an image.
    #[serde(default)]
    pub syscall: String,
    /// How long after that refusal the look began, ms.
    pub after_ms: u64,
    /// The largest owner, for people.
    pub sentence: String,
    /// It is the owner of most addresses, not of most VMAs: no free range was found.
    #[serde(default)]
    pub by_size: bool,
}

/// What the VMAs of an address space are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owners {
    /// Address space.
    pub generation: u64,
    /// What was found.
    pub holders: Holders,
}
