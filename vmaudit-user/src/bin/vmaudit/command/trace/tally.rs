//! What was shown, in sum.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vmaudit_common::call::Call;
use vmaudit_user::model::cause::{because, name_of};
use vmaudit_user::model::event::Change;
use vmaudit_user::model::report::Cause;
use vmaudit_user::text::{clean, count, grouped};

/// Kinds of refusals that are kept apart; a machine of any size takes bounded memory.
const KINDS: usize = 4096;
/// Rows shown.
const ROWS: usize = 10;

/// Sums of the lines, written or not.
#[derive(Debug, Default)]
pub struct Tally {
    refused: BTreeMap<Kind, u64>,
    /// Those that found no room above.
    others: u64,
    calls: BTreeMap<Call, Changes>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    pid: u32,
    process: String,
    call: Call,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    changes: u64,
    added: u64,
    removed: u64,
}

impl Tally {
    /// Takes a change.
    pub fn change(&mut self, it: &Change) {
        let sum = self.calls.entry(it.call).or_default();
        sum.changes += 1;
        sum.added += u64::from(it.after.saturating_sub(it.before));
        sum.removed += u64::from(it.before.saturating_sub(it.after));
    }

    /// Takes a refused call of a process of this name.
    pub fn refused(&mut self, (pid, call): (u32, Call), cause: Cause, process: &str) {
        let kind = Kind { pid, process: process.to_owned(), call, cause };
        if self.refused.len() >= KINDS && !self.refused.contains_key(&kind) {
            self.others += 1;
            return;
        }
        *self.refused.entry(kind).or_default() += 1;
    }

    /// Such a call of this process was refused.
    pub fn knows(&self, pid: u32, syscall: &str) -> bool {
        self.refused.keys().any(|kind| kind.pid == pid && name_of(kind.call) == syscall)
    }

    fn most_frequent(&self) -> Vec<(&Kind, u64)> {
        let mut kinds: Vec<_> = self.refused.iter().map(|(kind, count)| (kind, *count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    /// Refused calls for programs.
    pub fn rows(&self) -> Vec<Value> {
        let row = |(kind, count): (&Kind, u64)| {
            json!({"pid": kind.pid, "process": kind.process, "syscall": name_of(kind.call), "cause": kind.cause,
                   "count": count})
        };
        self.most_frequent().into_iter().map(row).collect()
    }

    /// For people, without a line's end behind it. `changes`: also what each call changed; `complete`: nothing was lost.
    pub fn text(&self, changes: bool, complete: bool) -> String {
        let kinds = self.most_frequent();
        let all = kinds.iter().fold(self.others, |sum, (_, count)| sum + count);
        let mut processes: Vec<u32> = kinds.iter().map(|(kind, _)| kind.pid).collect();
        processes.sort_unstable();
        processes.dedup();
        let mut lines = vec![match (all, complete) {
            (0, true) => "--- no memory call was refused".to_owned(),
            (0, false) => "--- no refused memory call was seen, and not all were seen".to_owned(),
            (all, complete) => format!(
                "--- {}{} in {}",
                if complete { "" } else { "at least " },
                count(all, "refused call", "refused calls"),
                count(processes.len() as u64, "process", "processes"),
            ),
        }];
        for (kind, calls) in kinds.iter().take(ROWS) {
            let Kind { pid, process, call, cause } = kind;
            let who = format!("{} (pid {pid})", clean(process));
            lines.push(format!("{:>9}  {who}: {}, {}", grouped(*calls), name_of(*call), because(*cause)));
        }
        let rest = kinds.iter().skip(ROWS).fold(self.others, |sum, (_, count)| sum + count);
        if rest > 0 {
            lines.push(format!("{:>9}  others", grouped(rest)));
        }
        if changes && !self.calls.is_empty() {
            lines.push(format!("\n{:>9} {:>9} {:>9}  CALL", "CHANGES", "ADDED", "REMOVED"));
            let mut calls: Vec<_> = self.calls.iter().collect();
            calls.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.added));
            for (call, Changes { changes, added, removed }) in calls {
                let [changes, added, removed] = [*changes, *added, *removed].map(grouped);
                lines.push(format!("{changes:>9} {added:>9} {removed:>9}  {}", name_of(*call)));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmaudit_common::call::{MMAP, MUNMAP};

    #[test]
    fn the_sum_is_of_all_and_names_the_most_frequent() {
        let mut tally = Tally::default();
        assert_eq!(tally.text(false, true), "--- no memory call was refused");
        assert!(tally.text(false, false).ends_with("not all were seen"));
        for _ in 0..334 {
            tally.refused((28_868, MMAP), Cause::MaxMapCount, "ja\u{1b}va");
        }
        tally.refused((9, MUNMAP), Cause::MaxMapCount, "b");
        let said = tally.text(false, true);
        assert_eq!(
            said,
            "--- 335 refused calls in 2 processes\n      334  ja\\x1bva (pid 28868): mmap, vm.max_map_count\n        1  \
             b (pid 9): munmap, vm.max_map_count"
        );
        assert!(tally.text(false, false).starts_with("--- at least 335 "));
        assert_eq!(tally.rows().iter().filter_map(|row| row["count"].as_u64()).sum::<u64>(), 335);
    }

    #[test]
    fn processes_without_end_take_bounded_memory_and_are_counted() {
        let mut tally = Tally::default();
        for pid in 0..2 * KINDS as u32 {
            tally.refused((pid, MMAP), Cause::Unknown, "x");
        }
        assert_eq!(tally.refused.len(), KINDS);
        let said = tally.text(false, true);
        assert!(
            said.starts_with("--- 8,192 refused calls in ") && said.ends_with("    8,182  others"),
            "{said}"
        );
    }

    #[test]
    fn changes_are_summed_by_call() {
        let mut tally = Tally::default();
        for (call, before, after) in [(MMAP, 1, 4), (MUNMAP, 4, 2), (MMAP, 2, 3)] {
            let one =
                Change { at_ns: 1, generation: 1, tgid: 1, tid: 1, comm: "x".into(), before, after, call };
            tally.change(&one);
        }
        let table = "  CHANGES     ADDED   REMOVED  CALL\n        2         4         0  mmap\n        1         0         2  munmap";
        assert!(tally.text(true, true).ends_with(table), "{}", tally.text(true, true));
        assert!(!tally.text(false, true).contains("munmap"));
    }
}
