//! What each process did between the two boundaries of a mark, from its figures at both.
//!
//! The kernel side keeps the largest count of an address space since its birth, and how much each call has added and removed.
//! From these the largest count within a mark follows in most cases: it is new, the count only rose, it only fell, or the
//! address space was born in the mark. Where intervals end at both boundaries, it is the largest of those in between, or what
//! the address space came with: a change counts in its interval with what it found, too, so that one that was under way at a
//! boundary is missed on neither side. Else it is known between two numbers, and the report says "at least".

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::domain::audit::size::{of_list, of_map};
use crate::domain::audit::{Audit, Process};
use crate::model::event::{Interval, MmState, ProcessId, Reached};
use crate::model::mark::MarkSet;
use crate::model::memory::Accuracy;
use crate::model::report::{Mark, MarkedProcess};
use crate::text::total;

/// Marks of a session.
pub const MARKS: usize = 10_000;
/// Marks that run at a time.
pub const OPEN: usize = 64;
/// Processes told of each.
const PROCESSES: usize = 8;

/// Those that run, and those that are over.
#[derive(Debug, Default)]
pub(super) struct Marks {
    open: Vec<Open>,
    done: Vec<Done>,
}

#[derive(Debug)]
struct Open {
    set: MarkSet,
    before: HashMap<ProcessId, Before>,
    /// Largest counts of the intervals since, by generation.
    reached: HashMap<u64, u32>,
    /// Of processes that are not kept any longer.
    did: BTreeMap<ProcessId, Did>,
}

/// A process when the mark began.
#[derive(Debug)]
struct Before {
    /// By generation.
    counts: Vec<(u64, Count)>,
    failed: u64,
    sampled: Option<(u32, u32)>,
    /// What images did that have become one since, the last one, by its generation.
    folded: Option<(u64, ImageDid)>,
}

/// What an image did in a mark.
#[derive(Clone, Copy, Debug, Default)]
struct ImageDid {
    peak: Range,
    added: u64,
    removed: u64,
}

/// The stretch of a mark.
#[derive(Clone, Copy, Debug)]
struct Within<'a> {
    begun_ns: u64,
    /// Where intervals ended at both boundaries.
    cuts_ns: Option<(u64, u64)>,
    /// See [`Open::reached`].
    reached: &'a HashMap<u64, u32>,
}

/// An address space then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    peak: u32,
    last: u32,
    added: u64,
    removed: u64,
}

/// What a process did in a mark.
#[derive(Clone, Debug, Default)]
struct Did {
    comm: String,
    peak: Range,
    added: u64,
    removed: u64,
    failed: u64,
}

/// Between which numbers a peak lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    least: u64,
    most: u64,
}

impl Range {
    fn exactly(count: u32) -> Self {
        Self { least: count.into(), most: count.into() }
    }

    /// Of the larger one of both.
    fn larger(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), most: self.most.max(other.most) }
    }
}

#[derive(Debug)]
struct Done {
    set: MarkSet,
    end: Option<MarkSet>,
    did: Vec<(ProcessId, Did)>,
    left_out: u64,
    sums: [u64; 3],
    peak: Range,
    top: Option<(ProcessId, String)>,
}

impl Marks {
    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        let of_open = |open: &Open| {
            of_map::<ProcessId, Before>(open.before.len())
                + open.before.values().map(|before| of_list(&before.counts)).sum::<usize>()
                + of_map::<u64, u32>(open.reached.len())
                + of_map::<ProcessId, Did>(open.did.len())
        };
        of_list(&self.done)
            + self.done.iter().map(|done| of_list(&done.did)).sum::<usize>()
            + self.open.iter().map(of_open).sum::<usize>()
    }
}

impl Audit {
    /// A boundary was set.
    pub(super) fn mark(&mut self, set: MarkSet) {
        if set.begins {
            if self.marks.open.len() < OPEN && self.marks.done.len() + self.marks.open.len() < MARKS {
                let living = self.processes.iter().filter(|(_, process)| process.ended_ns.is_none());
                let before = living.map(|(id, process)| (*id, Before::of(process))).collect();
                let (reached, did) = (HashMap::new(), BTreeMap::new());
                self.marks.open.push(Open { set, before, reached, did });
            }
            return;
        }
        if let Some(at) = self.marks.open.iter().position(|open| open.set.number == set.number) {
            let open = self.marks.open.remove(at);
            self.finish_mark(open, Some(set));
        }
    }

    /// No figures will come any more.
    pub(super) fn finish_marks(&mut self) {
        std::mem::take(&mut self.marks.open).into_iter().for_each(|open| self.finish_mark(open, None));
        self.marks.done.sort_by_key(|done| done.set.number);
    }

    /// This process will not be kept any longer.
    pub(super) fn leaves_marks(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get(&id) else { return };
        for open in &mut self.marks.open {
            let before = open.before.remove(&id);
            open.did.extend(did(process, before.as_ref(), &open.within(None)).map(|did| (id, did)));
            process.mms.iter().for_each(|mm| _ = open.reached.remove(&mm.generation));
        }
    }

    fn finish_mark(&mut self, open: Open, end: Option<MarkSet>) {
        let within = open.within(end.as_ref());
        let more: Vec<_> = self
            .processes
            .iter()
            .filter_map(|(id, process)| Some((*id, did(process, open.before.get(id), &within)?)))
            .collect();
        let Open { set, did: mut all, .. } = open;
        all.extend(more);
        let peak = all.values().fold(Range::default(), |peak, did| peak.larger(did.peak));
        let top = all.iter().max_by_key(|(id, did)| (did.peak.least, Reverse(**id)));
        let top = top.map(|(id, did)| (*id, did.comm.clone()));
        let sum = |of: fn(&Did) -> u64| total(all.values().map(of));
        let sums = [sum(|did| did.added), sum(|did| did.removed), sum(|did| did.failed)];
        let busy = |did: &Did| did.added | did.removed | did.failed != 0;
        let mut did: Vec<(ProcessId, Did)> = all.into_iter().filter(|(_, did)| busy(did)).collect();
        did.sort_by_key(|(id, did)| (Reverse((did.failed, did.peak.least, did.added)), *id));
        let left_out = did.len().saturating_sub(PROCESSES) as u64;
        did.truncate(PROCESSES);
        self.marks.done.push(Done { set, end, did, left_out, sums, peak, top });
    }

    /// For the report. `exact`: peaks are, as far as the whole session tells.
    pub fn marks(&self, exact: bool) -> Vec<Mark> {
        self.marks.done.iter().map(|done| self.marked(done, exact)).collect()
    }

    fn marked(&self, done: &Done, exact: bool) -> Mark {
        let peak = |range: Range| (range.least > 0).then_some(range.least);
        let bound =
            |range: Range| peak(range).map(|_| Accuracy::of(!exact || range.least < range.most, false));
        let changes = |count: u64| self.sight.changes.then_some(count);
        let calls = |count: u64| self.sight.calls().then_some(count);
        let process = |(id, did): &(ProcessId, Did)| MarkedProcess {
            pid: id.tgid,
            comm: did.comm.clone(),
            peak: peak(did.peak),
            peak_bound: bound(did.peak),
            added: changes(did.added),
            removed: changes(did.removed),
            failed: calls(did.failed),
        };
        let top = done.top.as_ref().filter(|_| done.peak.least > 0);
        let doubts = |set: &MarkSet| set.doubt.is_some();
        Mark {
            name: done.set.name.clone(),
            by_pid: (done.set.by != 0).then_some(done.set.by),
            begun_s: self.seconds(done.set.at_ns),
            ended_s: done.end.as_ref().map(|end| self.seconds(end.at_ns)),
            exact: !doubts(&done.set) && !done.end.as_ref().is_some_and(doubts),
            peak: peak(done.peak),
            peak_bound: bound(done.peak),
            pid: top.map(|(id, _)| id.tgid),
            comm: top.map(|(_, comm)| comm.clone()),
            added: changes(done.sums[0]),
            removed: changes(done.sums[1]),
            failed: calls(done.sums[2]),
            processes: done.did.iter().map(process).collect(),
            processes_left_out: done.left_out,
        }
    }
}

impl Before {
    fn of(process: &Process) -> Self {
        Self {
            counts: process.own().map(|mm| (mm.generation, Count::of(mm))).collect(),
            failed: process.refused(),
            sampled: process.samples.map(|seen| (seen.peak, seen.last)),
            folded: None,
        }
    }
}

impl ImageDid {
    /// Since the mark began; nothing where it was over by then.
    fn of(mm: &MmState, before: Option<&Before>, within: &Within<'_>) -> Self {
        let folded = before.and_then(|before| before.folded).filter(|(of, _)| *of == mm.generation);
        if let Some((_, did)) = folded {
            return did;
        }
        if mm.dead_ns.is_some_and(|at| at <= within.begun_ns) {
            return Self::default();
        }
        let now = Count::of(mm);
        let then = before.and_then(|before| before.counts.iter().find(|(of, _)| *of == mm.generation));
        let (then, peak) = match then {
            Some((_, then)) => (*then, within.peak_of(mm, *then, now)),
            None if within.holds_birth(mm) => {
                (Count { added: 0, removed: 0, ..now }, Range::exactly(now.peak))
            }
            // It lived, and nobody had told of it.
            None => (now, Range { least: now.last.into(), most: now.peak.into() }),
        };
        Self {
            peak,
            added: now.added.saturating_sub(then.added),
            removed: now.removed.saturating_sub(then.removed),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            peak: self.peak.larger(other.peak),
            added: self.added.saturating_add(other.added),
            removed: self.removed.saturating_add(other.removed),
        }
    }
}

impl Marks {
    /// Two images of this process become one, the older: what each did in the marks that run can no longer be told apart.
    pub(super) fn fold(&mut self, id: ProcessId, older: &MmState, newer: &MmState) {
        for open in &mut self.open {
            let within = open.within(None);
            // Of who was born since, all is in the mark.
            let folded = open.before.get(&id).map(|before| {
                let did = |mm| ImageDid::of(mm, Some(before), &within);
                (older.generation, did(older).and(did(newer)))
            });
            if let Some(before) = open.before.get_mut(&id) {
                before.folded = folded;
            }
            open.reached.remove(&newer.generation);
        }
    }

    /// Some of those whose count changed in an interval.
    pub(super) fn interval(&mut self, interval: &Interval) {
        for open in &mut self.open {
            if open.set.cut_ns.is_none_or(|cut| interval.from_ns < cut) {
                continue;
            }
            for &Reached(generation, peak, _) in &interval.of {
                let reached = open.reached.entry(generation).or_default();
                *reached = peak.max(*reached);
            }
        }
    }
}

impl Open {
    fn within(&self, end: Option<&MarkSet>) -> Within<'_> {
        let to_ns = end.map_or(Some(u64::MAX), |end| end.cut_ns);
        Within { begun_ns: self.set.at_ns, cuts_ns: self.set.cut_ns.zip(to_ns), reached: &self.reached }
    }
}

impl Within<'_> {
    fn holds_birth(&self, mm: &MmState) -> bool {
        mm.born_ns >= self.cuts_ns.map_or(self.begun_ns, |(from_ns, _)| from_ns)
    }

    /// The largest count of an address space that lived at both ends, or up to its own.
    fn peak_of(&self, mm: &MmState, then: Count, now: Count) -> Range {
        let range = then.peak_until(now);
        let Some((from_ns, to_ns)) = self.cuts_ns else { return range };
        if self.holds_birth(mm) {
            return Range::exactly(now.peak);
        }
        let told = self.reached.get(&mm.generation).copied().unwrap_or(0);
        let untold = mm.untold.iter().filter(|it| it.from_ns >= from_ns && it.to_ns <= to_ns);
        let reached = untold.map(|it| it.peak).fold(told.max(then.last).max(now.last), u32::max);
        // Between the cut and the figures behind it others went on: then there may be no room for it.
        match u64::from(reached) {
            reached if (range.least..=range.most).contains(&reached) => {
                Range { least: reached, most: reached }
            }
            _ => range,
        }
    }
}

impl Count {
    fn of(mm: &MmState) -> Self {
        let added = total(mm.calls.iter().map(|(_, stat)| stat.added));
        let removed = total(mm.calls.iter().map(|(_, stat)| stat.removed));
        Self { peak: mm.peak, last: mm.last, added, removed }
    }

    /// The largest count from then to now.
    fn peak_until(self, now: Self) -> Range {
        if now.peak > self.peak {
            return Range::exactly(now.peak);
        }
        let (added, removed) =
            (now.added.saturating_sub(self.added), now.removed.saturating_sub(self.removed));
        let rose = u64::from(self.last).saturating_add(added);
        let known = rose.checked_sub(removed) == Some(now.last.into());
        match (known, added, removed) {
            (true, 0, _) => Range::exactly(self.last),
            (true, _, 0) => Range::exactly(now.last),
            _ => {
                let most = if known { rose.min(now.peak.into()) } else { now.peak.into() };
                let least = u64::from(self.last.max(now.last));
                Range { least, most: most.max(least) }
            }
        }
    }
}

/// What a process did since; `None`: it was over by then.
fn did(process: &Process, before: Option<&Before>, within: &Within<'_>) -> Option<Did> {
    if process.ended_ns.is_some_and(|at| at <= within.begun_ns) {
        return None;
    }
    let failed = process.refused().saturating_sub(before.map_or(0, |before| before.failed));
    let mut did = Did { comm: process.comm.clone(), failed, ..Did::default() };
    let images = process.own().map(|mm| ImageDid::of(mm, before, within));
    let ImageDid { peak, added, removed } = images.fold(ImageDid::default(), ImageDid::and);
    (did.peak, did.added, did.removed) = (peak, added, removed);
    if let Some(seen) = process.samples {
        let then = before.and_then(|before| before.sampled);
        let least = match then {
            Some((peak, _)) if seen.peak > peak => seen.peak,
            Some((_, last)) => last.max(seen.last),
            None => seen.peak,
        };
        did.peak = did.peak.larger(Range { least: least.into(), most: u64::MAX });
    }
    Some(did)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Untold;

    fn count(peak: u32, last: u32, added: u64, removed: u64) -> Count {
        Count { peak, last, added, removed }
    }

    #[test]
    fn a_peak_within_a_mark_is_exact_where_the_figures_leave_no_other() {
        let before = count(100, 50, 70, 30);
        for (now, least, most) in [
            // A new largest one.
            (count(101, 60, 130, 80), 101, 101),
            // Only up, only down, nothing.
            (count(100, 60, 80, 30), 60, 60),
            (count(100, 40, 70, 40), 50, 50),
            (before, 50, 50),
            // Both: up by 20 at most.
            (count(100, 55, 90, 45), 55, 70),
            // It cannot have been more than the largest of its life.
            (count(100, 55, 270, 225), 55, 100),
            // What was not counted.
            (count(100, 60, 70, 30), 60, 100),
        ] {
            assert_eq!(before.peak_until(now), Range { least, most }, "{now:?}");
        }
        assert_eq!(Range::exactly(70).larger(Range { least: 10, most: 60 }), Range::exactly(70));
    }

    #[test]
    fn what_is_kept_of_intervals_goes_with_its_process() {
        let mut audit = crate::domain::audit::tests::audit();
        let set = MarkSet {
            at_ns: 10,
            number: 1,
            begins: true,
            name: "m".into(),
            by: 1,
            cut_ns: Some(10),
            doubt: None,
        };
        audit.mark(set);
        let state = crate::domain::audit::tests::lodgers::state;
        for (generation, tgid) in [(1, 1), (2, 2), (3, 2)] {
            audit.apply(crate::model::event::Event::Mm(Box::new(state(generation, tgid, 0))));
        }
        let of = (1..=3).map(|generation| Reached(generation, 5, 5)).collect();
        audit.interval(&Interval { every_ns: 10, from_ns: 20, to_ns: 30, of, by: Vec::new() });
        let id = state(2, 2, 0).process;
        audit.remove(id, false);
        let reached: Vec<u64> = audit.marks.open[0].reached.keys().copied().collect();
        assert_eq!(reached, [1]);
        let (older, newer) = (state(1, 1, 0), state(4, 1, 0));
        let of = vec![Reached(4, 5, 5)];
        audit.interval(&Interval { every_ns: 10, from_ns: 30, to_ns: 40, of, by: Vec::new() });
        audit.marks.fold(older.process, &older, &newer);
        assert_eq!(audit.marks.open[0].reached.len(), 1, "of two that became one, the one");
    }

    #[test]
    fn where_intervals_end_at_its_boundaries_the_peak_of_a_mark_is_the_largest_of_them() {
        let untold = |from_ns, to_ns, peak| Untold { from_ns, to_ns, peak, last: 1 };
        let before = count(100, 50, 70, 30);
        let up_and_down = count(100, 55, 270, 225);
        let peak = |cuts_ns, told: u32, mm: &MmState| {
            let reached = HashMap::from([(mm.generation, told)]);
            Within { begun_ns: 1010, cuts_ns, reached: &reached }.peak_of(mm, before, up_and_down)
        };
        let mut mm = crate::domain::audit::tests::lodgers::state(1, 1, 0);
        (mm.born_ns, mm.untold) =
            (10, vec![untold(900, 1000, 99), untold(1000, 1100, 80), untold(1100, 1105, 90)]);
        let exactly = |count| Range { least: count, most: count };
        // What came before and what comes behind is not in it.
        assert_eq!(peak(Some((1000, 1100)), 0, &mm), exactly(80));
        assert_eq!(peak(Some((1000, 1100)), 85, &mm), exactly(85));
        assert_eq!(peak(Some((1000, u64::MAX)), 85, &mm), exactly(90));
        // It changed in none of them: as it came, or as it left.
        assert_eq!(peak(Some((1200, 1300)), 0, &mm), exactly(55));
        assert_eq!(peak(None, 85, &mm), Range { least: 55, most: 100 });
        mm.born_ns = 1005;
        assert_eq!(peak(Some((1000, 1100)), 0, &mm), exactly(100), "its whole life");
    }
}
