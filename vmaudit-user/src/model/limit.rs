//! What `limit` found: the value, who sets it, what it costs, what software is said to need.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The kernel's own default, VMAs (include/linux/mm.h:DEFAULT_MAX_MAP_COUNT); nothing below it is recommended.
pub const KERNEL_DEFAULT: u64 = 65530;

/// Largest value the sysctl accepts: it is an int (mm/util.c:sysctl_max_map_count).
pub const KERNEL_LARGEST: u64 = i32::MAX as u64;

/// Kernel memory per VMA when slab figures cannot be read, bytes: above everything measured for ordinary mappings
/// on 5.10 to 7.3 (180 to 330 with an anon_vma of its own for every second one).
pub const SAFE_VMA_BYTES: f64 = 300.0;

/// `kernel default` or `custom value`.
pub fn origin(limit: u64) -> &'static str {
    if limit == KERNEL_DEFAULT { "kernel default" } else { "custom value" }
}

/// Everything that is known about the limit.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitReport {
    /// `vmaudit.limit`.
    pub schema: &'static str,
    /// 1.
    pub version: u32,
    /// The running value, VMAs; null when it cannot be read.
    pub running: Option<u64>,
    /// The kernel's default, VMAs.
    pub kernel_default: u64,
    /// The largest the kernel accepts, VMAs.
    pub kernel_largest: u64,
    /// What the files say.
    pub boot: Boot,
    /// Value after the next boot, VMAs.
    pub after_boot: u64,
    /// Files of other programs that set it when their service starts.
    pub other_files: Vec<OtherFile>,
    /// Sentences about values that clash.
    pub warnings: Vec<String>,
    /// A sign that this is a container; null when there is none.
    pub container: Option<String>,
    /// What this machine's distribution ships; null where nobody has published it.
    pub shipped: Option<Distribution>,
    /// Processes that could not be counted.
    pub not_counted: u64,
    /// Bytes of kernel memory per VMA on this kernel; null when its slab figures cannot be read.
    pub price: Option<Price>,
    /// Process with most VMAs now.
    pub largest: Option<Largest>,
    /// What known software is said to need, against what is measured.
    pub needs: Vec<Need>,
    /// Value that satisfies all of this, VMAs; null when the running one does.
    pub suggested: Option<u64>,
    /// Commands that carry it out.
    pub commands: Vec<String>,
}

/// What a distribution ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Distribution {
    /// `ID` in /etc/os-release.
    #[serde(skip)]
    pub id: &'static str,
    /// From this `VERSION_ID` on; null: in each.
    #[serde(skip)]
    pub from: Option<u32>,
    /// Name for people.
    pub name: &'static str,
    /// Its value, VMAs.
    pub ships: u64,
    /// Where it is published.
    pub source: &'static str,
}

/// A line in another program's file.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OtherFile {
    /// File.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u64,
    /// Value as written.
    pub text: String,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Largest {
    /// Application.
    pub app: String,
    /// Process id.
    pub pid: u32,
    /// VMAs now.
    pub vmas: u64,
}

/// What one piece of software is said to need.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Need {
    /// Its rule.
    #[serde(flatten)]
    pub known: Known,
    /// Why it is listed.
    pub found: Found,
    /// VMAs by the rule; null when it cannot be told.
    pub vmas: Option<u64>,
    /// What is missing to tell.
    pub missing: Option<String>,
    /// Most VMAs of one of its processes now; null when none runs or can be read.
    pub measured: Option<u64>,
    /// The verdict, for people.
    pub sentence: String,
}

/// Why a piece of software is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// These processes are it.
    Running(Vec<u32>),
    /// This path exists.
    Installed(PathBuf),
    /// Asked for.
    Named,
}

/// Sentence that holds wherever this runs.
pub const SCOPE: &str = "The limit belongs to the host's kernel and to all its containers at once: it is not namespaced, and applies to each process by itself.";

/// One piece of software.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Known {
    /// Name for `--for`.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// An argument that is, or contains, one of these means that it runs.
    pub arguments: Vec<String>,
    /// Names of its processes, as the kernel cuts them (15 bytes).
    pub comm: Vec<String>,
    /// Paths below the root whose presence means that it is installed.
    pub installed: Vec<String>,
    /// The installed file must contain this.
    #[serde(default)]
    pub installed_contains: Option<String>,
    /// How many VMAs it is said to need.
    pub rule: Rule,
    /// Used when the rule counts things whose number is not known, VMAs.
    #[serde(default)]
    pub otherwise: Option<u64>,
    /// It refuses to work below this limit, VMAs; null when it does not check.
    pub enforced: Option<u64>,
    /// What people should know about the rule.
    pub note: String,
    /// Where it is published.
    pub source: String,
}

/// How many VMAs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rule {
    /// A number.
    Fixed {
        /// VMAs.
        vmas: u64,
    },
    /// So many per granule of the heap.
    PerHeap {
        /// Bytes of a granule.
        granule_bytes: u64,
        /// VMAs per granule.
        factor: f64,
    },
    /// So many per thing.
    PerItem {
        /// What is counted.
        item: String,
        /// VMAs per thing.
        factor: u64,
    },
    /// Memory divided by a size.
    MemoryDivided {
        /// Divisor, bytes.
        bytes: u64,
        /// Never below, VMAs.
        least: u64,
    },
    /// Nothing is published.
    Unknown,
}

/// Who applies the files at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Applier {
    /// systemd-sysctl.service.
    SystemdSysctl,
    /// `sysctl --system` in a boot script.
    Procps,
}

/// A line that sets the limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    /// File, as seen on the running system.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u64,
    /// The value as written.
    pub text: String,
    /// The value as the kernel reads it, VMAs; null when the kernel refuses it.
    pub value: Option<u64>,
    /// The key was given as a pattern.
    pub pattern: bool,
    /// What becomes of it.
    pub fate: Fate,
    /// It is lower than a line that is applied before it.
    pub lowers: bool,
}

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It decides.
    Wins,
    /// A later line replaces it.
    Replaced,
    /// A file of the same name in this folder's precedence hides the whole file.
    Hidden {
        /// That file.
        by: PathBuf,
    },
    /// The program that applies files at boot does not read this one.
    NotRead,
}

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Boot {
    /// Who applies them.
    pub applier: Applier,
    /// Every line that sets the limit, in the order of application.
    pub settings: Vec<Setting>,
    /// Value after boot, VMAs; null when no file sets it, or the line that wins is refused by the kernel.
    pub value: Option<u64>,
    /// Set on the kernel's command line (before any file), VMAs.
    pub command_line: Option<u64>,
    /// Files that could not be read, or not to their end: what they set is not known.
    pub unread: Vec<Unread>,
}

/// A file that could not be read, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unread {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub why: String,
}

impl Unread {
    /// The same for people.
    pub fn sentence(&self) -> String {
        format!("{} {}: what it sets is not known, and may be another value", self.file.display(), self.why)
    }
}

impl Boot {
    /// The line that decides.
    pub fn winner(&self) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.fate == Fate::Wins)
    }
}

/// Bytes of kernel memory per VMA. It cannot be swapped, and the process's memory cgroup pays for it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Price {
    /// Never written to, tree full: the least.
    pub least: f64,
    /// Half of them written to, leaves three quarters full.
    pub usual: f64,
    /// Each written to with an anon_vma of its own, leaves half full.
    pub most: f64,
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plan {
    /// The drop-in, as seen on the running system.
    pub file: PathBuf,
    /// Its new content; null = it is removed.
    pub content: Option<String>,
    /// The running value to set, VMAs; null = it stays.
    pub running: Option<u64>,
    /// What people should know before.
    pub notes: Vec<String>,
}

impl Applier {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemdSysctl => "systemd-sysctl",
            Self::Procps => "sysctl --system (procps)",
        }
    }
}

impl Fate {
    /// What became of the line, for people and tables; a file's name in it is a stranger's.
    pub fn sentence(&self) -> String {
        match self {
            Self::Wins => "wins".to_owned(),
            Self::Replaced => "replaced by a later line".to_owned(),
            Self::Hidden { by } => format!("hidden by {}", by.to_string_lossy()),
            Self::NotRead => "not read at boot".to_owned(),
        }
    }
}
