//! What changed between two sessions.

use std::collections::BTreeMap;

use serde::Serialize;

use super::stack::Frame;

/// Name of the schema.
pub const SCHEMA: &str = "vmaudit.diff";

/// Everything that a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Difference {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of the schema.
    pub version: u32,
    /// Version of vmaudit that compared.
    pub vmaudit: String,
    /// The answer for people.
    pub sentence: String,
    /// Worst of the rows.
    pub verdict: Change,
    /// The session that is compared with.
    pub old: Side,
    /// The one that is judged.
    pub new: Side,
    /// Less is called the same.
    pub tolerance: Tolerance,
    /// By how much more, in percent, nothing may have become; null where it is no gate.
    pub fail_over: Option<f64>,
    /// By application and role, the worst first.
    pub rows: Vec<Row>,
    /// Who made more, or less, of the VMAs of the largest process of an application that is in both: the largest difference
    /// first, up to 50 of an application. What chance, missing stacks and VMAs of before the attach may have made is not among
    /// them; what freed VMAs may have made only where the peak changed likewise, see [`Made::freed`].
    pub makers: Vec<Made>,
    /// What breaks the gate.
    pub breaches: Vec<GateBreach>,
    /// What makes the two hard to compare.
    pub notes: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Side {
    /// As it was named.
    pub file: String,
    /// Wall time of its start, RFC 3339.
    pub started: String,
    /// Seconds.
    pub duration_s: f64,
    /// `uname -r`.
    pub kernel: String,
    /// vm.max_map_count; null where it was not read.
    pub max_map_count: Option<u64>,
    /// Its peaks are all exact, and no process is missing.
    pub exact_peaks: bool,
    /// All its refusals of calls that change mappings were seen.
    pub exact_failures: bool,
}

/// Two figures are the same if they differ by no more than either.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tolerance {
    /// In percent of the old one.
    pub percent: f64,
    /// In VMAs.
    pub vmas: u64,
}

/// What became of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It needs more, or is refused more.
    Worse,
    /// The figures do not tell.
    NotComparable,
    /// It was not there before.
    New,
    /// It needs less, or is refused less.
    Better,
    /// It is not there any more.
    Gone,
    /// Within the tolerance.
    Same,
}

impl Change {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::NotComparable => "unclear",
            Self::New => "new",
            Self::Better => "better",
            Self::Gone => "gone",
            Self::Same => "same",
        }
    }
}

/// One application in one role.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Row {
    /// The application: the last part of its path.
    pub app: String,
    /// The name that its processes have.
    pub comm: String,
    /// What became of it.
    pub change: Change,
    /// Why, as a sentence; null where figures say it.
    pub why: Option<String>,
    /// Before; null: it was not there.
    pub old: Option<Figures>,
    /// Now; likewise.
    pub new: Option<Figures>,
    /// By how much the peak changed, percent of the old one; null where that is not known.
    pub peak_percent: Option<f64>,
}

impl Row {
    /// `java`, or `firefox-esr: Web Content`.
    pub fn name(&self) -> String {
        if self.app == self.comm || self.app.is_empty() {
            self.comm.clone()
        } else {
            format!("{}: {}", self.app, self.comm)
        }
    }
}

/// One call from one place, in both sessions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Made {
    /// As in [`Row`].
    pub app: String,
    /// As in [`Row`].
    pub comm: String,
    /// What became of it.
    pub change: MadeChange,
    /// The call.
    pub syscall: String,
    /// From where, innermost first, as far as it is the same for all; without addresses.
    pub stack: Vec<Frame>,
    /// VMAs of the old session, 0: it made none that are known.
    pub old: u64,
    /// VMAs of the new one.
    pub new: u64,
    /// So many more or less chance, missing stacks and VMAs of before the attach can make, VMAs; 0: none.
    pub noise: u64,
    /// So many more or less VMAs that were freed before the peaks can make, at most: they are taken from who came last, whoever
    /// made them. A difference that is not more than `noise` and this may be of that alone. With `noise` 0 and this 0 both
    /// figures are exact.
    pub freed: u64,
    /// The figures are of all VMAs that were added (`--stacks`); false: of those at the peak.
    pub every_change: bool,
}

impl Made {
    /// The whole difference may come of how VMAs that were freed are counted.
    pub fn perhaps_freed(&self) -> bool {
        let differs = self.new.abs_diff(self.old);
        self.freed > 0 && differs <= self.noise.saturating_add(self.freed)
    }
}

/// What became of a maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MadeChange {
    /// It made none before: of each VMA it is known that another made it.
    New,
    /// It makes more.
    More,
    /// It makes less.
    Less,
    /// It makes none any more, likewise.
    Gone,
}

impl MadeChange {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::More => "more",
            Self::Less => "less",
            Self::Gone => "gone",
        }
    }
}

/// What is known of an application in a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Figures {
    /// Its processes.
    pub processes: u64,
    /// Largest peak of one of them, VMAs.
    pub peak: Option<u64>,
    /// Their peaks are exact.
    pub exact: bool,
    /// One of them was stopped by the limit: the true demand is higher.
    pub clipped: bool,
    /// Refused calls whose need was not met another way; null when they could not be seen.
    pub failed: Option<u64>,
    /// The fastest steady growth of one of them, VMAs a second, 0 where none grows steadily; null where that is not known of
    /// all.
    pub growth_per_s: Option<f64>,
    /// VMAs that each call added in all of them.
    pub added: BTreeMap<String, u64>,
}

/// One reason why the gate is closed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GateBreach {
    /// Application and role; null when it is of the whole session.
    pub name: Option<String>,
    /// The figures show it; false: they do not show that it holds.
    pub shown: bool,
    /// For people.
    pub sentence: String,
}
