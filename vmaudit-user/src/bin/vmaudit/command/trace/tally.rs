//! What was shown, in sum.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use vmaudit_common::call::Call;
use vmaudit_user::model::cause::{because, name_of};
use vmaudit_user::model::event::Change;
use vmaudit_user::model::report::{CallFigures, Cause, Failure, Report};
use vmaudit_user::text::{clean, count, grouped};

/// Kinds of refusals that are kept apart; a machine of any size takes bounded memory.
const KINDS: usize = 4096;
/// Rows shown.
const ROWS: usize = 10;

/// Sums: of the report, whose figures are kept in the kernel, or of the lines, written or not.
#[derive(Debug, Default)]
pub struct Tally {
    refused: BTreeMap<Kind, u64>,
    /// Those that found no room above.
    others: u64,
    calls: BTreeMap<String, Sum>,
    /// Processes behind kinds that stand for several.
    crowd: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    /// `None`: several of this name.
    pid: Option<u32>,
    process: String,
    call: String,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    /// Unknown where only changes were seen.
    calls: Option<u64>,
    added: u64,
    removed: u64,
    failed: Option<u64>,
}

impl Tally {
    /// Of those calls of the report that are `wanted`.
    pub fn of_report(report: &Report, wanted: &dyn Fn(&str) -> bool) -> Self {
        let mut tally = Self::default();
        let mut crowds: BTreeMap<&str, u64> = BTreeMap::new();
        for failure in report.failures.iter().chain(&report.ordinary_answers) {
            let several = failure.processes > 1;
            if !wanted(&failure.syscall) {
                continue;
            }
            if several {
                let crowd = crowds.entry(&failure.comm).or_default();
                *crowd = failure.processes.max(*crowd);
            }
            tally.add_refused(Kind::of(failure, several), failure.count);
        }
        tally.crowd = crowds.into_values().fold(0, u64::saturating_add);
        let rows = report.processes.iter().map(|process| &process.calls);
        let folded = report.folded.iter().map(|sum| &sum.calls);
        for (name, figures) in rows.chain(folded).flatten().filter(|(name, _)| wanted(name)) {
            tally.calls.entry(name.clone()).or_default().add(figures);
        }
        tally
    }

    /// Takes a change.
    pub fn change(&mut self, it: &Change) {
        let sum = self.calls.entry(name_of(it.call).to_owned()).or_default();
        sum.added += u64::from(it.after.saturating_sub(it.before));
        sum.removed += u64::from(it.before.saturating_sub(it.after));
    }

    /// Takes a refused call of a process of this name.
    pub fn refused(&mut self, (pid, call): (u32, Call), cause: Cause, process: &str) {
        let call = name_of(call).to_owned();
        let failed = &mut self.calls.entry(call.clone()).or_default().failed;
        *failed = Some(failed.unwrap_or(0) + 1);
        self.add_refused(Kind { pid: Some(pid), process: process.to_owned(), call, cause }, 1);
    }

    fn add_refused(&mut self, kind: Kind, times: u64) {
        if self.refused.len() >= KINDS && !self.refused.contains_key(&kind) {
            self.others = self.others.saturating_add(times);
            return;
        }
        let sum = self.refused.entry(kind).or_default();
        *sum = sum.saturating_add(times);
    }

    /// This failure is in it.
    pub fn knows(&self, failure: &Failure) -> bool {
        let several = failure.processes > 1;
        self.refused.keys().any(|kind| {
            kind.call == failure.syscall
                && if several { kind.pid.is_none() } else { kind.pid == Some(failure.pid) }
        })
    }

    fn most_frequent(&self) -> Vec<(&Kind, u64)> {
        let mut kinds: Vec<_> = self.refused.iter().map(|(kind, count)| (kind, *count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    /// Refused calls for programs.
    pub fn rows(&self) -> Vec<Value> {
        let row = |(kind, count): (&Kind, u64)| json!({"pid": kind.pid, "process": kind.process, "syscall": kind.call, "cause": kind.cause, "count": count});
        self.most_frequent().into_iter().map(row).collect()
    }

    /// What each call did, for programs.
    pub fn calls(&self) -> Vec<Value> {
        let row = |(call, sum): (&String, &Sum)| json!({"syscall": call, "calls": sum.calls, "added": sum.added, "removed": sum.removed, "failed": sum.failed});
        self.calls.iter().map(row).collect()
    }

    /// For people, without a line's end behind it. `changes`: also what each call did; `complete`: all were seen.
    pub fn text(&self, changes: bool, complete: bool) -> String {
        let kinds = self.most_frequent();
        let all = kinds.iter().fold(self.others, |sum, (_, count)| sum + count);
        let pids: BTreeSet<u32> = kinds.iter().filter_map(|(kind, _)| kind.pid).collect();
        let processes = self.crowd.saturating_add(pids.len() as u64);
        let mut lines = vec![match (all, complete) {
            (0, true) => "--- no memory call was refused".to_owned(),
            (0, false) => "--- no refused memory call was seen, and not all were seen".to_owned(),
            (all, complete) => format!(
                "--- {}{} in {}",
                if complete { "" } else { "at least " },
                count(all, "refused call", "refused calls"),
                count(processes, "process", "processes"),
            ),
        }];
        for (kind, calls) in kinds.iter().take(ROWS) {
            let Kind { pid, process, call, cause } = kind;
            let who = match pid {
                Some(pid) => format!("{} (pid {pid})", clean(process)),
                None => format!("processes named {}", clean(process)),
            };
            lines.push(format!("{:>9}  {who}: {}, {}", grouped(*calls), clean(call), because(*cause)));
        }
        let rest = kinds.iter().skip(ROWS).fold(self.others, |sum, (_, count)| sum + count);
        if rest > 0 {
            lines.push(format!("{:>9}  others", grouped(rest)));
        }
        if changes && !self.calls.is_empty() {
            lines.push(format!("\n{:>9} {:>9} {:>9} {:>9}  CALL", "CALLS", "ADDED", "REMOVED", "FAILED"));
            let mut calls: Vec<_> = self.calls.iter().collect();
            calls.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.added, sum.removed, sum.failed)));
            let figure = |it: Option<u64>| it.map_or("-".to_owned(), grouped);
            for (call, Sum { calls, added, removed, failed }) in calls {
                let [calls, failed] = [*calls, *failed].map(figure);
                let [added, removed] = [*added, *removed].map(grouped);
                lines.push(format!("{calls:>9} {added:>9} {removed:>9} {failed:>9}  {}", clean(call)));
            }
        }
        lines.join("\n")
    }
}

impl Kind {
    fn of(failure: &Failure, several: bool) -> Self {
        Self {
            pid: (!several).then_some(failure.pid),
            process: failure.comm.clone(),
            call: failure.syscall.clone(),
            cause: failure.cause,
        }
    }
}

impl Sum {
    fn add(&mut self, figures: &CallFigures) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        self.calls = sum(self.calls, figures.calls);
        self.failed = sum(self.failed, figures.failed);
        self.added = self.added.saturating_add(figures.added);
        self.removed = self.removed.saturating_add(figures.removed);
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
        let table = "    CALLS     ADDED   REMOVED    FAILED  CALL\n        -         4         0         -  mmap\n        -         0         2         -  munmap";
        assert!(tally.text(true, true).ends_with(table), "{}", tally.text(true, true));
        assert!(!tally.text(false, true).contains("munmap"));
    }
}
