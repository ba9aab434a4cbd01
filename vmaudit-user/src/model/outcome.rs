//! What became of a need that was refused, and from where it was refused.

use serde::{Deserialize, Serialize};

use super::stack::Frame;

/// What became of the need behind a refused call. Decided for each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The same thread did not get the like in its next memory calls.
    #[default]
    Unrecovered,
    /// It did: the same protection and flags in steps each at least a quarter of the one before, the same without huge
    /// pages, mmap of at least the same after brk, memory by mmap after the reservations for a heap that the GNU C
    /// library's malloc asks for in a thread, any other call once more. Also such a reservation whatever came next, where
    /// the stack shows that malloc made it: what malloc is refused then is told for itself.
    Recovered,
    /// A question that is normally answered with no; or a reservation of at least 1 TiB without access by a process that
    /// lived on for a second or more, or ended with status 0.
    Ordinary,
}

impl Outcome {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrecovered => "unrecovered",
            Self::Recovered => "recovered",
            Self::Ordinary => "ordinary",
        }
    }
}

/// A place that calls were refused at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Site {
    /// How many.
    pub count: u64,
    /// First there, whatever its outcome.
    pub first_at_s: f64,
    /// Last there, likewise.
    pub last_at_s: f64,
    /// Least that was asked for there; null where no argument tells.
    pub smallest_bytes: Option<u64>,
    /// Most that was asked for there; likewise.
    pub largest_bytes: Option<u64>,
    /// Of the first call there, innermost first; empty when it did not arrive.
    pub stack: Vec<Frame>,
    /// See [`super::stack::Example::stack_notes`].
    #[serde(default)]
    pub stack_notes: Vec<String>,
}
