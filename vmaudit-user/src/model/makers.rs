//! Who made the VMAs that a process had at its peak: credits as they come from a source, and rows of the report.

use serde::{Deserialize, Serialize};
use vmaudit_common::call::Call;

use super::event_names;
use super::stack::Frame;

/// Note on a stack that was not followed.
pub const UNCOPIED: &str = "Found by frame pointers alone: callers that keep none are missing.";

/// Note on a stack that may be several.
pub const MIXED: &str =
    "Calls through code that was mapped while it ran may be among these too: vmaudit saw that code later.";

/// Who took the count to a level is credited with the levels below it, down to another: last in, first out, so that a later
/// credit takes the place of all above its `base`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Address space.
    pub generation: u64,
    /// Process id.
    pub tgid: u32,
    /// Task.
    #[serde(skip)]
    pub tid: u32,
    /// The levels above this one ...
    pub base: u32,
    /// ... up to this one.
    pub level: u32,
    /// Within which call.
    #[serde(with = "event_names::call")]
    pub call: Call,
    /// [`Place::place`] of its stack; 0: none is kept.
    #[serde(default)]
    pub place: u32,
    /// As in [`Place::caller`]; only until it has a place.
    #[serde(skip)]
    pub caller: Option<u64>,
    /// As in [`Place::stack`]; only until it has a place.
    #[serde(skip)]
    pub stack: Vec<u64>,
    /// Nobody is credited: it tells the place of the entry of the ledger ([`Entered::key`]) with this key; 0: it does not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub key: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What one call from one place added to an address space, and removed, in all changes of its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// Different for each call and place of an address space.
    pub key: u64,
    /// Which call.
    #[serde(with = "event_names::call")]
    pub call: Call,
    /// VMAs added, summed over changes with a gain.
    pub added: u64,
    /// VMAs removed, summed over changes with a loss.
    pub removed: u64,
}

/// What becomes of the uppermost part of a pile when a credit comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It stays, and so does all below it.
    Stays,
    /// It stays up to this level.
    To(u32),
    /// It goes.
    Goes,
}

impl Cut {
    /// Of the levels above `base` up to `level`, when one above `new_base` comes.
    pub fn of((base, level): (u32, u32), new_base: u32) -> Self {
        match new_base {
            new if level <= new => Self::Stays,
            new if base < new => Self::To(new),
            _ => Self::Goes,
        }
    }
}

/// From where credited calls were made: a stack that was met for the first time in its address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Address space.
    pub generation: u64,
    /// Tells it from the others of the address space; from 1 on.
    pub place: u32,
    /// The word on top of the stack: where the function that made the call probably returns to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<u64>,
    /// By frame pointers, innermost first.
    pub stack: Vec<u64>,
}

/// A part of the VMAs that a process had at its peak, and who made them. The rows of a process add up to its peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Maker {
    /// VMAs.
    pub count: u64,
    /// Of all at the peak, 0 to 1.
    pub share: f64,
    /// The call that took the count there; null where nobody is credited.
    pub syscall: Option<String>,
    /// From where, innermost first; empty where nobody is credited, and where the stack is not known.
    #[serde(default)]
    pub stack: Vec<Frame>,
    /// Sentences about the stack: where and why it is cut, how names could be had.
    #[serde(default)]
    pub stack_notes: Vec<String>,
    /// Callers are missing at the outer end of the stack, or may be.
    #[serde(default)]
    pub cut: bool,
    /// Why nobody is credited; null where somebody is.
    #[serde(default)]
    pub nobody: Option<Nobody>,
}

/// What one call from one place did to the count, in all of its changes. The rows of a call add up to what it did in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Changes {
    /// VMAs added, summed over changes with a gain.
    pub added: u64,
    /// VMAs removed, summed over changes with a loss.
    pub removed: u64,
    /// The call; `other` where none of its own changed the count.
    pub syscall: String,
    /// From where, innermost first, as far as frame pointers lead; empty where the place is not known.
    #[serde(default)]
    pub stack: Vec<Frame>,
    /// Sentences about the stack.
    #[serde(default)]
    pub stack_notes: Vec<String>,
    /// Why no place is told; null where one is.
    #[serde(default)]
    pub nobody: Option<NoPlace>,
}

/// Why no place is told for a part of the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NoPlace {
    /// Many places that changed little each; and where the report had no room for more, which a sentence says, all but a few.
    OtherPlaces,
    /// Put down with a place whose stack did not get through, or found no room; a sentence says so.
    NotTold,
    /// Not put down with a place: what other tasks or the kernel did to it, an exec's own to the new image, what found no room (`ledger_full`,
    /// `ledger_disturbed`), and images before the last ones of a process with very many.
    NotSampled,
}

/// Why nobody is credited with a part of the VMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Nobody {
    /// They were there when it began: what every program has, or what it had at the attach or from its parent.
    Before,
    /// Many places that made few each.
    OtherPlaces,
    /// Nobody looked: between two samples, or a sample was lost.
    NotSampled,
}
