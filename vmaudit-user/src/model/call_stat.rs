//! Figures of one call.

use serde::{Deserialize, Serialize};

/// What one call did to one address space; see [`vmaudit_common::CallStat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallStat {
    /// Calls that returned.
    pub calls: u64,
    /// VMAs added.
    pub added: u64,
    /// VMAs removed.
    pub removed: u64,
    /// Refused calls.
    pub failed: u64,
}
