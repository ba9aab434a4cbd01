//! How large processes were, and how large they may be.

use serde::{Deserialize, Serialize};

use super::cause::Cause;

/// Largest sizes of a process, each by itself, as the limits on it count them: what was seen at the ends of the changes of
/// its mappings. (Within one call it may be more for a moment, which no limit looks at.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Memory {
    /// All that is mapped, touched or not; what RLIMIT_AS counts.
    pub address_space_peak_bytes: u64,
    /// Private writable memory, stacks apart; what RLIMIT_DATA counts.
    pub data_peak_bytes: u64,
    /// What was locked by mlock and its like; what RLIMIT_MEMLOCK counts. (What io_uring, BPF and drivers pin is counted
    /// elsewhere.)
    pub locked_peak_bytes: u64,
    /// Stacks that grow by themselves, together; RLIMIT_STACK limits each.
    pub stack_peak_bytes: u64,
    /// These are the largest that there were; else there may have been larger ones.
    pub exact: bool,
}

impl Memory {
    /// Each size the larger one.
    pub fn largest(self, other: Self) -> Self {
        Self {
            address_space_peak_bytes: self.address_space_peak_bytes.max(other.address_space_peak_bytes),
            data_peak_bytes: self.data_peak_bytes.max(other.data_peak_bytes),
            locked_peak_bytes: self.locked_peak_bytes.max(other.locked_peak_bytes),
            stack_peak_bytes: self.stack_peak_bytes.max(other.stack_peak_bytes),
            exact: self.exact && other.exact,
        }
    }

    /// The size that this limit looks at; `None` for other causes.
    pub fn peak_under(&self, limit: Cause) -> Option<u64> {
        match limit {
            Cause::RlimitAs => Some(self.address_space_peak_bytes),
            Cause::RlimitData => Some(self.data_peak_bytes),
            Cause::RlimitMemlock => Some(self.locked_peak_bytes),
            Cause::RlimitStack => Some(self.stack_peak_bytes),
            _ => None,
        }
    }
}

/// How a figure relates to the true one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Accuracy {
    /// It is the true one.
    #[default]
    Exact,
    /// The true one may be larger.
    AtLeast,
    /// The true one may be smaller.
    AtMost,
    /// The true one may be either.
    About,
}

impl Accuracy {
    /// Of a figure of which something may be missing, and in which something may be too much.
    pub const fn of(missing: bool, too_much: bool) -> Self {
        match (missing, too_much) {
            (false, false) => Self::Exact,
            (true, false) => Self::AtLeast,
            (false, true) => Self::AtMost,
            (true, true) => Self::About,
        }
    }

    /// Of a sum.
    pub fn and(self, other: Self) -> Self {
        let missing = |bound| matches!(bound, Self::AtLeast | Self::About);
        let too_much = |bound| matches!(bound, Self::AtMost | Self::About);
        Self::of(missing(self) || missing(other), too_much(self) || too_much(other))
    }

    /// What stands before such a figure in a text, with a blank.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::AtLeast => "at least ",
            Self::AtMost => "at most ",
            Self::About => "about ",
        }
    }
}

/// A limit on a process: bytes, or a number where it counts something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rlimit {
    /// In force; null: unlimited.
    pub soft: Option<u64>,
    /// To where the process may raise it; null: as far as it likes.
    pub hard: Option<u64>,
}

/// Limits that a command begins with; its processes inherit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rlimits {
    /// RLIMIT_AS, bytes.
    #[serde(rename = "as")]
    pub address_space: Rlimit,
    /// RLIMIT_DATA, bytes.
    pub data: Rlimit,
    /// RLIMIT_STACK, bytes.
    pub stack: Rlimit,
    /// RLIMIT_MEMLOCK, bytes.
    pub memlock: Rlimit,
    /// RLIMIT_NPROC, tasks of the user.
    pub nproc: Rlimit,
    /// RLIMIT_NOFILE, descriptors.
    pub nofile: Rlimit,
}

/// Sizes of an address space, pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// All of it.
    pub total: u64,
    /// Private and writable, stacks apart.
    pub data: u64,
    /// Locked.
    pub locked: u64,
    /// Stacks that grow.
    pub stack: u64,
    /// They were read whenever they can have grown, so that these are the largest that there were (if no change was
    /// missed); else only from time to time.
    pub all_seen: bool,
}

impl Sizes {
    /// The larger of both, size by size.
    pub fn or(self, other: Self) -> Self {
        Self {
            total: self.total.max(other.total),
            data: self.data.max(other.data),
            locked: self.locked.max(other.locked),
            stack: self.stack.max(other.stack),
            all_seen: self.all_seen && other.all_seen,
        }
    }
}

/// The most that a refused call would have needed of each limit, pages: what was in use and what it asked for. 0: none was
/// refused for more than the limit allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// RLIMIT_AS.
    pub total: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_MEMLOCK.
    pub locked: u64,
}

impl Needed {
    /// The larger of both, limit by limit.
    pub fn or(self, other: Self) -> Self {
        Self {
            total: self.total.max(other.total),
            data: self.data.max(other.data),
            locked: self.locked.max(other.locked),
        }
    }
}

/// What is not known of the ranges that refused calls have left mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Ranges that were not kept: it may be more.
    pub ranges_lost: u64,
    /// Calls that may have unmapped some of them and were not kept: it may be less.
    pub went_lost: u64,
}

impl Kept {
    /// Of both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            ranges_lost: self.ranges_lost.saturating_add(other.ranges_lost),
            went_lost: self.went_lost.saturating_add(other.went_lost),
        }
    }
}

impl Rlimits {
    /// The soft limit that may be this cause; `None`: unlimited, or another cause.
    pub fn soft(&self, limit: Cause) -> Option<u64> {
        match limit {
            Cause::RlimitAs => self.address_space.soft,
            Cause::RlimitData => self.data.soft,
            Cause::RlimitMemlock => self.memlock.soft,
            Cause::RlimitStack => self.stack.soft,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_too_much_add_up() {
        use Accuracy::{About, AtLeast, AtMost, Exact};
        assert_eq!(Exact.and(Exact), Exact);
        assert_eq!((Exact.and(AtLeast), AtMost.and(Exact)), (AtLeast, AtMost));
        assert_eq!((AtLeast.and(AtMost), About.and(Exact)), (About, About));
        assert_eq!(About.word(), "about ");
    }
}
