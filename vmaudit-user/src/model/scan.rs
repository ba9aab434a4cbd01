//! What `scan` found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::Report;

/// Everything a scan found.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Scan {
    /// The report that all commands share.
    #[serde(flatten)]
    pub report: Report,
    /// Per application, largest first.
    pub applications: Vec<AppFigures>,
    /// VMAs of all processes together; no limit applies to this sum.
    pub total_vmas: u64,
    /// The kernel's cache of VMAs; null without root.
    pub slab: Option<Slab>,
    /// What a process of `--vma` VMAs would need; null when it was not asked.
    pub custom: Option<Need>,
    /// What the largest process needs; null when nothing could be read.
    pub largest: Option<Need>,
    /// Command lines, in the order of the processes; empty without `--show-args`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Vec<String>>,
    /// Names of owners by uid.
    #[serde(skip)]
    pub users: BTreeMap<u32, String>,
}

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AppFigures {
    /// Name.
    pub app: String,
    /// Processes.
    pub instances: u64,
    /// Most VMAs of one of them.
    pub max: u64,
    /// Mean, rounded.
    pub avg: u64,
    /// Fewest.
    pub min: u64,
}

/// Arithmetic of one recommendation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Need {
    /// Whose.
    pub who: String,
    /// VMAs.
    pub vmas: u64,
    /// Recommended limit, VMAs.
    pub recommended: u64,
}

/// Slab figures of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Slab {
    /// Objects in use.
    pub active: u64,
    /// Objects allocated.
    pub total: u64,
    /// Bytes of one object.
    pub object_bytes: u64,
    /// Objects in one slab.
    pub objects_per_slab: u64,
    /// Pages of one slab.
    pub pages_per_slab: u64,
}
