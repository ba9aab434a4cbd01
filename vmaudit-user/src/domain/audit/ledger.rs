//! Every change of the count by call and place: rows of a process, which add up to what its calls did.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::makers::rows::{Stack, alike};
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
        let mut told = self.told(process);
        let size = |it: &Told| it.added.saturating_add(it.removed);
        told.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.call.cmp(b.call)));
        let brief = self.makers.brief.contains(&id);
        let others = told.split_off(if brief { FEW } else { ROWS }.min(told.len()));
        let mut left: Vec<Changes> = Vec::new();
        for (name, figures) in calls {
            let sum = |all: &[Told]| {
                all.iter().filter(|it| it.call == name).fold((0u64, 0u64), |(added, removed), it| {
                    (added.saturating_add(it.added), removed.saturating_add(it.removed))
                })
            };
            let (shown, other) = (sum(&told), sum(&others));
            let rest = |all: u64, shown: u64, other: u64| all.saturating_sub(shown).saturating_sub(other);
            let not = (rest(figures.added, shown.0, other.0), rest(figures.removed, shown.1, other.1));
            for (why, (added, removed)) in [(NoPlace::OtherPlaces, other), (NoPlace::NotSampled, not)] {
                if (added, removed) != (0, 0) {
                    let no_more = brief && why == NoPlace::OtherPlaces;
                    let stack_notes = no_more.then(|| NO_MORE.to_owned()).into_iter().collect();
                    left.push(Changes { nobody: Some(why), stack_notes, ..row(name, added, removed) });
                }
            }
        }
        told.iter().map(|it| self.shown(it)).chain(left).collect()
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

    /// Sums by call and stack. Each place is looked at once, however many entries tell of it.
    fn told(&self, process: &Process) -> Vec<Told> {
        let mut all: Vec<Told> = Vec::new();
        let (mut stacks, mut known) = (Stacks::default(), HashMap::new());
        for mm in process.own() {
            for it in mm.ledger.iter().flatten() {
                let place = self.makers.place_of_entry(mm.generation, it.key).filter(|place| *place != 0);
                let place = place.map(|place| (mm.generation, place));
                let stack =
                    stacks.of(place, |(generation, place)| self.stack_of_place(generation, place).frames);
                let call = name_of(it.call);
                let at = *known.entry((call, stack)).or_insert_with(|| {
                    all.push(Told { call, place, added: 0, removed: 0 });
                    all.len() - 1
                });
                if let Some(told) = all.get_mut(at) {
                    told.added = told.added.saturating_add(it.added);
                    told.removed = told.removed.saturating_add(it.removed);
                }
            }
        }
        all
    }

    fn shown(&self, told: &Told) -> Changes {
        let from = |(generation, place)| self.changed_from(generation, place);
        let Stack { frames: stack, notes: mut stack_notes, .. } = told.place.map(from).unwrap_or_default();
        let nobody = stack.is_empty().then_some(NoPlace::NotTold);
        if nobody.is_some() && stack_notes.is_empty() {
            stack_notes.push(NOT_TOLD.to_owned());
        }
        Changes { stack, stack_notes, nobody, ..row(told.call, told.added, told.removed) }
    }
}

/// What one call did from one stack.
struct Told {
    call: &'static str,
    /// The first place with that stack, and its address space; `None`: no place is known.
    place: Option<(u64, u32)>,
    added: u64,
    removed: u64,
}

/// Stacks as numbers, alike ones as the same.
#[derive(Default)]
struct Stacks {
    places: HashMap<Option<(u64, u32)>, usize>,
    frames: HashMap<Frame, usize>,
    stacks: HashMap<Vec<usize>, usize>,
}

impl Stacks {
    /// The number of this place's stack; without a place it is the one without frames.
    fn of(&mut self, place: Option<(u64, u32)>, stack: impl FnOnce((u64, u32)) -> Vec<Frame>) -> usize {
        if let Some(known) = self.places.get(&place) {
            return *known;
        }
        let frames = place.map(stack).unwrap_or_default();
        let numbers = frames.iter().map(|frame| number(&mut self.frames, alike(frame))).collect();
        let stack = number(&mut self.stacks, numbers);
        self.places.insert(place, stack);
        stack
    }
}

/// The number of a key, in the order in which they come.
fn number<K: Eq + Hash>(known: &mut HashMap<K, usize>, key: K) -> usize {
    let next = known.len();
    *known.entry(key).or_insert(next)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file can have any number of entries from one place.
    #[test]
    fn the_stack_of_a_place_is_made_once() {
        let frame = |name: &str, ip: u64| Frame { symbol: Some(name.into()), ..Frame::bare(ip) };
        let (mut stacks, mut made) = (Stacks::default(), Vec::new());
        let mut of = |place: u32| {
            let number = stacks.of(Some((7, place)), |(_, place)| {
                made.push(place);
                vec![frame("f", place.into()), frame(if place == 3 { "other" } else { "main" }, 9)]
            });
            (number, made.len())
        };
        let all = [1, 2, 1, 3, 2, 3].map(&mut of);
        assert_eq!(all, [(0, 1), (0, 2), (0, 2), (1, 3), (0, 3), (1, 3)], "1 and 2 are alike");
        assert_eq!(stacks.of(None, |_| panic!("there is no place")), 2);
    }
}
