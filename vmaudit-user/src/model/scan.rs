//! What `scan` found.

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::unreadable::Unreadable;
use super::within::Within;

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
    /// The kernel's cache of VMAs; null without root, and where the kernel has no figure of its own or would have to walk long
    /// lists for it.
    pub slab: Option<Slab>,
    /// Why there is none.
    #[serde(skip)]
    pub no_slab: Option<NoSlab>,
    /// What a process of `--vma` VMAs would need; null when it was not asked.
    pub custom: Option<Need>,
    /// What the largest process needs; null when nothing could be read.
    pub largest: Option<Need>,
    /// Command lines, in the order of the processes; empty without `--show-args`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Vec<String>>,
    /// vmaudit's own process id.
    #[serde(skip)]
    pub own: u32,
    /// vmaudit ran as root.
    #[serde(skip)]
    pub root: bool,
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

/// Why the objects of a cache are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlab {
    /// The kernel does not tell, or tells root alone.
    Hidden,
    /// They are kept together with others of their size.
    Merged,
    /// The kernel would walk so many slabs for it, with interrupts off.
    Long(u64),
}

/// Slab figures of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Slab {
    /// Objects in use.
    pub active: u64,
    /// Objects allocated.
    pub total: u64,
    /// What each takes.
    #[serde(flatten)]
    pub size: ObjectSize,
}

/// What an object of a slab cache takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObjectSize {
    /// Bytes of one object.
    pub object_bytes: u64,
    /// Objects in one slab.
    pub objects_per_slab: u64,
    /// Pages of one slab.
    pub pages_per_slab: u64,
}

/// One process as read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub ppid: Option<u32>,
    /// Effective owner.
    pub uid: Option<u32>,
    /// Name as the kernel holds it; empty when it was not read.
    pub comm: String,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line.
    pub arguments: Vec<String>,
    /// Application.
    pub app: String,
    /// cgroup path.
    pub cgroup: Option<String>,
    /// What its cgroups say.
    pub within: Within,
    /// VMAs, or why they are not known.
    pub count: Result<u64, Unreadable>,
    /// The count is the kernel's own.
    pub exact: bool,
    /// Why the rest could not be read of a process whose count is known.
    pub silent: Option<Unreadable>,
}

impl Row {
    /// Nothing is known of it.
    pub fn unread(pid: u32, reason: Unreadable) -> Self {
        Self {
            pid,
            ppid: None,
            uid: None,
            comm: String::new(),
            exe: None,
            arguments: Vec::new(),
            app: format!("[pid {pid}]"),
            cgroup: None,
            within: Within::default(),
            count: Err(reason),
            exact: false,
            silent: None,
        }
    }

    /// The kernel's name, or the last part of the application's.
    pub fn name(&self) -> &str {
        if self.comm.is_empty() { self.app.rsplit('/').next().unwrap_or_default() } else { &self.comm }
    }
}
