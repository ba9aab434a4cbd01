//! Why a process has no figures, or not all of them.

use serde::{Deserialize, Serialize};

/// A process of which there is no figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NotCounted {
    /// Process id.
    pub pid: u32,
    /// Name; null when not even that could be read.
    pub comm: Option<String>,
    /// Owner; null when unknown.
    pub uid: Option<u32>,
    /// The owner's name.
    pub user: Option<String>,
    /// Why, as the end of a sentence about it.
    pub reason: String,
    /// These rights do not allow it: somebody with more would see it.
    pub forbidden: bool,
}

/// Why a process has no figures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unreadable {
    /// It ended while it was being read.
    Gone,
    /// These rights do not allow it.
    Forbidden,
    /// It has ended and waits for its parent: it has no address space any more.
    Zombie,
    /// A kernel thread: it has no address space of its own.
    KernelThread,
    /// It did not answer in time: it, or somebody for it, holds its mmap lock, or what was to be read lies in a file of
    /// a file system that does not answer.
    Silent,
    /// Others did not answer, and the time for all was used up before its turn.
    NotAsked,
    /// The kernel gave another error, named here.
    Failed(String),
}

impl Unreadable {
    /// The reason for people and for the report.
    pub fn sentence(&self) -> String {
        match self {
            Self::Gone => "is not there, or ended while it was being read".to_owned(),
            Self::Forbidden => {
                "may not be read: that needs root or CAP_SYS_PTRACE, and no policy against it".to_owned()
            }
            Self::Zombie => "has ended and waits for its parent; it holds no memory".to_owned(),
            Self::KernelThread => "is a kernel thread, without an address space of its own".to_owned(),
            Self::Silent => "did not answer within 1 s (its memory map is locked)".to_owned(),
            Self::NotAsked => {
                "was not looked at: others that did not answer took all the time there was".to_owned()
            }
            Self::Failed(why) => format!("could not be read: {why}"),
        }
    }
}
