//! What the tasks of each name did.

use serde::{Deserialize, Serialize};

/// What the tasks of one address space did, by name, where they have more than one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNames {
    /// Each name once.
    pub names: Vec<TaskName>,
    /// Tasks of further names together; their name is empty and their peak 0.
    pub others: TaskName,
    /// The changes are not told apart: they come from samples, which do not tell whose they were.
    #[serde(default)]
    pub sampled: bool,
}

/// What the tasks of one name did in one address space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskName {
    /// The name.
    pub name: String,
    /// VMAs added.
    pub added: u64,
    /// VMAs removed.
    pub removed: u64,
    /// Refused calls.
    pub failed: u64,
    /// Largest map_count from their first change to their last; 0: they made none.
    pub peak: u32,
    /// Tasks of other names made changes in between.
    pub overlapped: bool,
}

/// What the tasks of one name did in a process; also processes that lived in its address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TaskFigures {
    /// The name, as the kernel keeps it (15 bytes: longer ones may have become one); null: all further names.
    pub name: Option<String>,
    /// VMAs that they added; null where samples do not tell whose changes they saw.
    pub added: Option<u64>,
    /// VMAs that they removed; likewise.
    pub removed: Option<u64>,
    /// Calls that they were refused; null when the source cannot see them.
    pub failed: Option<u64>,
    /// Largest count that their changes left behind; null where tasks of other names made changes between their first and their
    /// last, and where they made none.
    pub peak: Option<u64>,
}
