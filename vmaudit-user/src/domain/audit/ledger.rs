//! Every change of the count by call and place: rows of a process, which add up to what its calls did.

use std::collections::{BTreeMap, HashMap};

use super::makers::{Stack, alike};
use super::{Audit, Process};
use crate::model::cause::name_of;
use crate::model::event::{MmState, ProcessId};
use crate::model::report::{self, CallFigures, Changes, Frame, NoPlace};

/// Rows of one process that name a place.
const ROWS: usize = 200;
/// The same of processes for whose changes the report has no more room.
const FEW: usize = 8;
/// Of those.
const NO_MORE: &str = "The report had no room for more rows of this process.";
/// With fewer frames by frame pointers what tells changes apart is little.
const MANY: usize = 6;
/// Of such a stack.
const ONE_OF: &str = "The stack is that of one of these changes: the code keeps few frame pointers, and calls through \
                      libraries from elsewhere may be among them.";
/// Of an entry whose place was not told.
const NOT_TOLD: &str =
    "Its place was not told: the ring buffer was full, or there was no room for more stacks.";

impl Audit {
    /// Address spaces with a ledger.
    pub(super) fn ledgers(&self) -> impl Iterator<Item = &MmState> {
        let wrote = |mm: &&MmState| mm.ledger.as_ref().is_some_and(|entries| !entries.is_empty());
        self.processes.values().flat_map(|process| &process.mms).filter(wrote)
    }

    /// Rows of a process: the largest first, and behind these, by call, what has no row of its own. Empty where nobody asked for
    /// them. `calls`: what each did in all.
    pub(super) fn changes_of(
        &self,
        id: ProcessId,
        process: &Process,
        calls: &BTreeMap<String, CallFigures>,
    ) -> Vec<Changes> {
        let asked = process.own().any(|mm| mm.ledger.is_some());
        // What was before a stretch is in the sums, and not in the stretch.
        if !asked || self.stretch_ns.is_some() {
            return Vec::new();
        }
        let mut rows = self.told(process);
        let size = |row: &Changes| row.added.saturating_add(row.removed);
        rows.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.syscall.cmp(&b.syscall)));
        let brief = self.makers.brief.contains(&id);
        let others = rows.split_off(if brief { FEW } else { ROWS }.min(rows.len()));
        let mut left: Vec<Changes> = Vec::new();
        for (name, figures) in calls {
            let sum = |rows: &[Changes]| {
                rows.iter().filter(|row| row.syscall == *name).fold((0u64, 0u64), |(added, removed), row| {
                    (added.saturating_add(row.added), removed.saturating_add(row.removed))
                })
            };
            let (told, other) = (sum(&rows), sum(&others));
            let rest = |all: u64, told: u64, other: u64| all.saturating_sub(told).saturating_sub(other);
            let not = (rest(figures.added, told.0, other.0), rest(figures.removed, told.1, other.1));
            for (why, (added, removed)) in [(NoPlace::OtherPlaces, other), (NoPlace::NotSampled, not)] {
                if (added, removed) != (0, 0) {
                    let no_more = brief && why == NoPlace::OtherPlaces;
                    let stack_notes = no_more.then(|| NO_MORE.to_owned()).into_iter().collect();
                    left.push(Changes { nobody: Some(why), stack_notes, ..row(name, added, removed) });
                }
            }
        }
        rows.extend(left);
        rows
    }

    /// Of this process the report has no room for more than the largest.
    pub(super) fn in_brief(&mut self, id: ProcessId, row: &mut report::Process) {
        self.makers.brief.insert(id);
        if let Some(process) = self.processes.get(&id) {
            row.changes = self.changes_of(id, process, &row.calls);
        }
    }

    fn changed_from(&self, generation: u64, place: u32) -> Stack {
        let mut stack = self.stack_of_place(generation, place);
        if !stack.frames.is_empty() && self.makers.frame_pointers(generation, place) < MANY {
            stack.notes.push(ONE_OF.to_owned());
        }
        stack
    }

    fn told(&self, process: &Process) -> Vec<Changes> {
        let mut rows: Vec<Changes> = Vec::new();
        let mut known: HashMap<(&str, Vec<Frame>), usize> = HashMap::new();
        for mm in process.own() {
            for it in mm.ledger.iter().flatten() {
                let place = self.makers.place_of_entry(mm.generation, it.key).filter(|place| *place != 0);
                let mut stack =
                    place.map(|place| self.changed_from(mm.generation, place)).unwrap_or_default();
                let nobody = stack.frames.is_empty().then_some(NoPlace::NotTold);
                if nobody.is_some() && stack.notes.is_empty() {
                    stack.notes.push(NOT_TOLD.to_owned());
                }
                let name = name_of(it.call);
                let key = (name, stack.frames.iter().map(alike).collect());
                let at = *known.entry(key).or_insert_with(|| {
                    let Stack { frames: stack, notes: stack_notes, .. } = stack;
                    rows.push(Changes { stack, stack_notes, nobody, ..row(name, 0, 0) });
                    rows.len() - 1
                });
                if let Some(row) = rows.get_mut(at) {
                    row.added = row.added.saturating_add(it.added);
                    row.removed = row.removed.saturating_add(it.removed);
                }
            }
        }
        rows
    }
}

fn row(syscall: &str, added: u64, removed: u64) -> Changes {
    Changes {
        added,
        removed,
        syscall: syscall.to_owned(),
        stack: Vec::new(),
        stack_notes: Vec::new(),
        nobody: None,
    }
}
