//! What tasks did, added up by their names.

use crate::model::task_names::{TaskName, TaskNames};

/// Names kept apart of one process.
pub const NAMES: usize = 129;

impl TaskName {
    /// Puts what others of the name did, in the same address space or in another, to it.
    pub fn add(&mut self, other: &Self) {
        self.added = self.added.saturating_add(other.added);
        self.removed = self.removed.saturating_add(other.removed);
        self.failed = self.failed.saturating_add(other.failed);
        self.peak = self.peak.max(other.peak);
        self.overlapped |= other.overlapped;
    }
}

impl TaskNames {
    /// Puts what tasks of a name did to it; beyond `most` names, to the others.
    pub fn take(&mut self, it: &TaskName, most: usize) {
        let full = self.names.len() >= most;
        match self.names.iter_mut().find(|known| known.name == it.name) {
            Some(known) => known.add(it),
            None if full => self.others.add(it),
            None => self.names.push(it.clone()),
        }
    }

    /// The same with all of another address space.
    pub fn take_all(&mut self, other: &Self, most: usize) {
        other.names.iter().for_each(|it| self.take(it, most));
        self.others.add(&other.others);
        self.sampled |= other.sampled;
    }
}
