//! Several sessions, of one machine or of many, as one summary.

use serde::Serialize;

use super::report::SourceKind;

/// Name of its schema.
pub const SCHEMA: &str = "vmaudit.fleet";
/// Version of its schema.
pub const VERSION: u32 = 1;

/// The summary. Applications come before files, the largest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fleet {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// [`VERSION`].
    pub version: u32,
    /// The answer in a sentence.
    pub sentence: String,
    /// By application.
    pub applications: Vec<FleetApplication>,
    /// By machine: those of one name are one.
    pub hosts: Vec<FleetHost>,
    /// By file.
    pub files: Vec<FleetFile>,
}

/// All processes of an application, in all files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FleetApplication {
    /// The last part of its path; a process's name where that is all that is known.
    pub app: String,
    /// Files that it is in.
    pub files: u64,
    /// Machines that it is on, by name: those of one name count as one, and those of files that do not tell it as none.
    pub hosts: u64,
    /// Its figures.
    #[serde(flatten)]
    pub sums: Sums,
}

/// All sessions of one machine, or of several of one name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FleetHost {
    /// Its name (`uname -n`); null: those of files that do not tell it, which may be several machines.
    pub host: Option<String>,
    /// Its files.
    pub files: u64,
    /// Whose the largest peak is.
    pub app: Option<String>,
    /// Its figures.
    #[serde(flatten)]
    pub sums: Sums,
    /// Budgets that were broken or not shown to hold.
    pub breaches: u64,
}

/// Each file tells the name of its machine, and there are some.
pub fn all_named(hosts: &[FleetHost]) -> bool {
    !hosts.is_empty() && hosts.iter().all(|row| row.host.is_some())
}

/// What is added up by application and by machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sums {
    /// Processes.
    pub processes: u64,
    /// Largest peak, VMAs; null: none is known.
    pub peak: Option<u64>,
    /// All peaks are the true ones.
    pub exact: bool,
    /// That peak in percent of the limit where it was; null where one of both is not known.
    pub percent_of_limit: Option<f64>,
    /// The file that it is in.
    pub peak_in: String,
    /// Processes whose true demand is unknown, because the limit stopped them.
    pub clipped: u64,
    /// Calls that failed, ordinary answers and what was done without left out.
    pub failed: u64,
    /// In some of the files not all could be seen that failed.
    pub failures_may_be_missing: bool,
}

impl Default for Sums {
    /// Of nothing.
    fn default() -> Self {
        Self {
            processes: 0,
            peak: None,
            exact: true,
            percent_of_limit: None,
            peak_in: String::new(),
            clipped: 0,
            failed: 0,
            failures_may_be_missing: false,
        }
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FleetFile {
    /// As it was named.
    pub file: String,
    /// The machine's name; null: it is not told.
    pub host: Option<String>,
    /// Wall time of its start, RFC 3339.
    pub started: String,
    /// `uname -r` there.
    pub kernel: String,
    /// vm.max_map_count there.
    pub max_map_count: Option<u64>,
    /// Where its figures come from.
    pub source: SourceKind,
    /// Processes.
    pub processes: u64,
    /// Largest peak, VMAs.
    pub peak: Option<u64>,
    /// Whose.
    pub app: Option<String>,
    /// All its peaks are the true ones.
    pub exact: bool,
    /// Processes whose true demand is unknown, because the limit stopped them.
    pub clipped: u64,
    /// Calls that failed, as above.
    pub failed: u64,
    /// A call that failed may be missing.
    pub failures_may_be_missing: bool,
    /// Budgets that were broken or not shown to hold.
    pub breaches: u64,
    /// It ends before its session did.
    pub cut: bool,
}
