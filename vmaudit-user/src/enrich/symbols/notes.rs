//! What symbols cost is said: stacks and files left without names.

use super::Symbols;
use crate::model::unreadable::Unreadable;
use crate::text::count;

/// Unreadable files that a note names.
const SHOWN: usize = 4;

impl Symbols {
    /// Sentences for the report about what was left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.gone > 0 {
            notes.push(format!(
                "{} of failed calls kept addresses without names: the process was gone before its mappings were read, and \
                 the kernel had not told them",
                count(self.gone, "stack", "stacks")
            ));
        }
        let skipped = self.skipped + self.queue.len() as u64 + u64::from(self.busy());
        if skipped > 0 {
            notes.push(format!(
                "{} of failed calls kept addresses without names, so as not to read mappings too often",
                count(skipped, "stack", "stacks")
            ));
        }
        if self.cut > 0 {
            notes.push(format!(
                "{} of failed calls kept addresses without names: before Linux 6.11 mappings can only be read one after \
                 the other, which is done once for a process image and for 0.1 s of processor time",
                count(self.cut, "stack", "stacks")
            ));
        }
        if let Some((stacks, why, comm, pid)) = &self.silent {
            notes.push(format!(
                "{} of failed calls kept addresses without names: {comm} (pid {pid}){} {}",
                count(*stacks, "stack", "stacks"),
                if *stacks > 1 { ", the first," } else { "" },
                Unreadable::from(*why).sentence()
            ));
        }
        if !self.unreadable.is_empty() {
            let shown = self.unreadable.get(..SHOWN).unwrap_or(&self.unreadable).join(", ");
            let more = self.unreadable.len().saturating_sub(SHOWN);
            notes.push(format!(
                "The symbols of {} could not be read in time or at all: {shown}{}",
                count(self.unreadable.len() as u64, "file", "files"),
                if more > 0 { format!(" and {more} more") } else { String::new() }
            ));
        }
        if self.left_behind > 0 {
            notes.push(format!(
                "{} that read symbols could not be ended and may still wait for a file",
                count(self.left_behind, "process of vmaudit's", "processes of vmaudit's")
            ));
        }
        notes
    }
}
