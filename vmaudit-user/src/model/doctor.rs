//! What `doctor` found: what this kernel, these rights and this build allow.

use serde::Serialize;

use super::report::{Condition, Hook};

/// Everything that it found.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Doctor {
    /// `vmaudit.doctor`.
    pub schema: &'static str,
    /// 1.
    pub version: u32,
    /// vmaudit's version.
    pub vmaudit: &'static str,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Reports from here can call peaks exact.
    pub exact_peaks: bool,
    /// What reports from here can say of their figures.
    pub verdict: String,
    /// Why there is no eBPF; null when there is.
    pub reason: Option<String>,
    /// vm.max_map_count, VMAs; null when it cannot be read.
    pub max_map_count: Option<u32>,
    /// What eBPF needs here, row by row.
    pub conditions: Vec<Condition>,
    /// The hooks, in the order of their table.
    pub hooks: Vec<HookFound>,
    /// Which refusals cannot be seen, for each arrangement of `run --calls` that works here.
    pub calls: Vec<CallsFound>,
    /// What capabilities of vmaudit's file give to everybody who may run it; null when it has none.
    pub given_away: Option<&'static str>,
}

/// One hook.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HookFound {
    /// What became of it.
    #[serde(flatten)]
    pub hook: Hook,
    /// What it gives.
    pub gives: &'static str,
}

/// One arrangement of `run --calls`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallsFound {
    /// `all` or `locking`.
    pub arrangement: &'static str,
    /// Refusals that are not seen: which calls, and where only some of theirs are not, which.
    pub not_watched: Vec<String>,
}
