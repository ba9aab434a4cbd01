//! Processes without a row of their own, added up by name: so that a crowd, of whatever names and failures, takes bounded
//! memory and a report that somebody can read, and no count of it is lost.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    mem,
    sync::Arc,
};

use serde::Serialize;
use vmaudit_common::call::Call;

use super::{ALL_ROWS, Audit, MOST_ROW_BYTES, Process, group::Group, task_names};
use crate::model::cause::reason;
use crate::model::event::{Cut, End, ProcessId, Refused};
use crate::model::report;
use crate::model::report::{Cause, Failure, FoldedProcesses, Outcome};

/// Names kept apart, and kinds of failure; beyond these, those with the fewest processes go by no name.
const NAMES: usize = 400;
/// Frames of the one example of failures of many processes.
const FRAMES: usize = 8;
/// Bytes of an example (names in it are the workload's) beyond which it is left out.
const EXAMPLE_BYTES: usize = 4096;

/// Name and application; `None` when they differ.
type Name = Option<(String, Option<String>)>;

/// What failures have in common that become one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    outcome: Outcome,
    comm: Option<String>,
    call: Call,
    /// Of those that are known by number only, none.
    errno: Option<String>,
    cause: Cause,
    reason: &'static str,
    certain: bool,
    limit_excluded: bool,
}

/// Sums by name.
#[derive(Debug, Default)]
pub struct Folded {
    names: BTreeMap<Name, Sum>,
    failures: BTreeMap<Kind, Alike>,
}

#[derive(Clone, Debug)]
pub struct Sum {
    pub row: FoldedProcesses,
    /// Of them, those that stood at the limit without a refusal that was seen.
    pub at_limit: u64,
}

#[derive(Debug)]
pub struct Alike {
    pub group: Group,
    /// The example that its failure is to get.
    pub refused: Option<Refused>,
}

impl Folded {
    /// Adds one process with its failures.
    pub fn take(&mut self, row: report::Process, at_limit: bool, groups: Vec<(Group, Option<Refused>)>) {
        let mut sum = sum_of(row, at_limit);
        for (mut group, refused) in groups {
            // Made of `refused` at the end, when the frames have names.
            group.failure.example = None;
            group.failure.sites.clear();
            group.failure.elsewhere = 0;
            let failure = &group.failure;
            if group.outcome == Outcome::Unrecovered {
                sum.row.failing = 1;
                sum.row.failed = sum.row.failed.map(|all| all.saturating_add(failure.count));
                sum.row.stopped |= u64::from(failure.cause == Cause::MaxMapCount);
            }
            let kind = Kind {
                outcome: group.outcome,
                comm: Some(failure.comm.clone()),
                call: group.call,
                errno: failure.first_at_s.is_some().then(|| failure.errno.clone()),
                cause: failure.cause,
                reason: reason(failure),
                certain: failure.certain,
                limit_excluded: group.limit_excluded,
            };
            self.failure(kind, Alike { group, refused });
        }
        self.name(Some((sum.row.comm.clone(), sum.row.app.clone())), sum);
        if self.names.len() > NAMES {
            let mut least: Vec<(u64, Name)> =
                self.names.iter().map(|(name, sum)| (sum.row.processes, name.clone())).collect();
            least.retain(|(_, name)| name.is_some());
            least.sort();
            for (_, name) in least.into_iter().take(NAMES / 2) {
                if let Some(mut sum) = self.names.remove(&name) {
                    sum.row.various = true;
                    self.name(None, sum);
                }
            }
        }
        if self.failures.len() > NAMES {
            let mut least: Vec<(u64, Kind)> =
                self.failures.iter().map(|(kind, it)| (it.group.failure.processes, kind.clone())).collect();
            least.retain(|(_, kind)| kind.comm.is_some());
            least.sort();
            for (_, kind) in least.into_iter().take(NAMES / 2) {
                if let Some(mut alike) = self.failures.remove(&kind) {
                    alike.group.failure.various = true;
                    self.failure(Kind { comm: None, ..kind }, alike);
                }
            }
        }
    }

    fn name(&mut self, name: Name, sum: Sum) {
        match self.names.get_mut(&name) {
            Some(known) => known.add(sum),
            None => drop(self.names.insert(name, sum)),
        }
    }

    fn failure(&mut self, kind: Kind, alike: Alike) {
        match self.failures.get_mut(&kind) {
            Some(known) => known.add(alike),
            None => drop(self.failures.insert(kind, alike)),
        }
    }

    /// The sums, those of most processes first.
    pub fn names(&self) -> Vec<Sum> {
        let mut sums: Vec<Sum> = self.names.values().cloned().collect();
        sums.sort_by_key(|sum| (Reverse(sum.row.processes), Reverse(sum.row.peak_max)));
        sums
    }

    pub fn failures(&self) -> impl Iterator<Item = &Alike> {
        self.failures.values()
    }
}

fn sum_of(row: report::Process, at_limit: bool) -> Sum {
    let count = row.map_count;
    let folded = FoldedProcesses {
        comm: row.comm,
        app: row.app,
        various: false,
        processes: 1,
        still_running: u64::from(row.ended_s.is_none()),
        peak_min: count.peak,
        peak_max: count.peak,
        exact: count.exact,
        clipped: count.clipped.into(),
        killed: row.end.as_ref().is_some_and(|end| end.signal.is_some()).into(),
        end_unknown: (row.ended_s.is_some() && row.end.is_none()).into(),
        stopped: 0,
        failing: 0,
        failed: row.unmap_leaked_bytes.map(|_| 0),
        first_started_s: row.started_s,
        last_ended_s: row.ended_s,
        calls: row.calls,
        tasks: row.tasks,
        memory: row.memory,
        unmap_leaked_bytes: row.unmap_leaked_bytes,
        unmap_leaked_bound: row.unmap_leaked_bound,
    };
    Sum { row: folded, at_limit: (at_limit && !count.clipped).into() }
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.at_limit += other.at_limit;
        let (sum, other) = (&mut self.row, other.row);
        if other.peak_max > sum.peak_max {
            (sum.comm, sum.app) = (other.comm, other.app);
        }
        let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        sum.various |= other.various;
        sum.processes += other.processes;
        sum.still_running += other.still_running;
        sum.peak_min = sum.peak_min.into_iter().chain(other.peak_min).min();
        sum.peak_max = sum.peak_max.max(other.peak_max);
        sum.exact &= other.exact;
        sum.clipped += other.clipped;
        sum.killed += other.killed;
        sum.end_unknown += other.end_unknown;
        sum.stopped += other.stopped;
        sum.failing += other.failing;
        sum.failed = both(sum.failed, other.failed);
        sum.first_started_s = sum.first_started_s.into_iter().chain(other.first_started_s).reduce(f64::min);
        sum.last_ended_s = sum.last_ended_s.into_iter().chain(other.last_ended_s).reduce(f64::max);
        sum.unmap_leaked_bytes = both(sum.unmap_leaked_bytes, other.unmap_leaked_bytes);
        sum.unmap_leaked_bound =
            sum.unmap_leaked_bound.zip(other.unmap_leaked_bound).map(|(sum, other)| sum.and(other));
        sum.memory = sum.memory.zip(other.memory).map(|(sum, other)| sum.largest(other));
        task_names::add_all(&mut sum.tasks, other.tasks);
        for (call, figures) in other.calls {
            let all = sum.calls.entry(call).or_insert(report::CallFigures {
                calls: Some(0),
                failed: Some(0),
                ..report::CallFigures::default()
            });
            all.calls = both(all.calls, figures.calls);
            all.failed = both(all.failed, figures.failed);
            all.added = all.added.saturating_add(figures.added);
            all.removed = all.removed.saturating_add(figures.removed);
        }
    }
}

impl Alike {
    fn add(&mut self, other: Self) {
        let (mine, its) = (&mut self.group.failure, other.group.failure);
        let count = mine.count.saturating_add(its.count);
        let processes = mine.processes + its.processes;
        let various = mine.various | its.various;
        let first_at_s = mine.first_at_s.into_iter().chain(its.first_at_s).reduce(f64::min);
        let last_at_s = mine.last_at_s.into_iter().chain(its.last_at_s).reduce(f64::max);
        // The example speaks of the process with most of them.
        if its.count > mine.count && (other.refused.is_some() || self.refused.is_none()) {
            (*mine, self.refused) = (its, other.refused);
        }
        (mine.count, mine.processes, mine.various) = (count, processes, various);
        (mine.first_at_s, mine.last_at_s) = (first_at_s, last_at_s);
    }
}

/// Cuts what the workload can make long.
pub fn shorten(failure: &mut Failure) {
    if let Some(example) = &mut failure.example {
        example.stack.truncate(FRAMES);
        if bytes(example) > EXAMPLE_BYTES {
            failure.example = None;
        }
    }
}

/// Bytes that a value takes in a report.
pub fn bytes(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // A counter cannot fail.
    let _ = serde_json::to_writer_pretty(&mut counter, value);
    counter.0
}

impl Audit {
    /// There are many more processes than rows: time for [`Audit::fold`].
    pub fn crowded(&self) -> bool {
        self.processes.len() > self.fold_at
    }

    /// Processes whose last known address space has ended. They may live: an exec is such an end, too.
    pub fn ended(&self) -> impl Iterator<Item = ProcessId> {
        let only_mentioned = |p: &Process| p.mms.is_empty() && p.samples.is_none();
        self.processes
            .iter()
            .filter(move |(_, p)| p.ended_ns.is_some() && self.end_is_told(p) || only_mentioned(p))
            .map(|(id, _)| *id)
    }

    /// Another process has its number by now.
    pub fn succeeded(&self, ProcessId { tgid, start_ns }: ProcessId) -> bool {
        let later = ProcessId { tgid, start_ns: start_ns.saturating_add(1) };
        self.processes
            .range(later..=ProcessId { tgid, start_ns: u64::MAX })
            .next()
            .is_some_and(|(id, _)| *id >= later)
    }

    /// Adds up the less remarkable of the processes that are `over`: of which nothing more will come.
    pub fn fold(&mut self, over: &HashSet<ProcessId>) {
        // What cannot be added up must not be looked through for each event.
        if over.is_empty() {
            return self.fold_later();
        }
        // Only mentioned (an exec whose slot was not to be had): nothing is known of its counts.
        let mut tests_unknown = 0;
        self.processes.retain(|id, p| {
            let only_mentioned = p.mms.is_empty() && p.samples.is_none() && !p.killed();
            let goes = only_mentioned && over.contains(id);
            tests_unknown += u64::from(goes && p.lacks_its_test());
            !goes
        });
        self.tests_unknown = self.tests_unknown.saturating_add(tests_unknown);
        self.inherit();
        for id in self.less_remarkable() {
            if over.contains(&id) {
                self.fold_one(id);
            }
        }
        self.fold_later();
    }

    /// A look at all processes is due when so many more have come that it costs each of them a constant.
    fn fold_later(&mut self) {
        let known = self.processes.len();
        self.fold_at = self.rows.max(known) + super::SURPLUS.max(known / 8);
    }

    /// The same for all, because the session is over.
    pub fn fold_at_end(&mut self) {
        self.inherit();
        self.less_remarkable().for_each(|id| self.fold_one(id));
    }

    /// No figure comes any more. Each of these looks at all processes, and acts once.
    pub(super) fn settle(&mut self) {
        if !mem::replace(&mut self.settled, true) {
            self.finish_marks();
            self.fold_at_end();
            self.looks_names_up();
        }
    }

    pub(super) fn took_session_end(&mut self, end: End) {
        if self.end.replace(end).is_none() {
            self.fit_in_report();
        }
    }

    pub(super) fn took_cut(&mut self, cut: Cut) {
        if self.cut.replace(cut).is_none() {
            self.finish_marks();
            self.fold_at_end();
            self.fit_in_report();
        }
    }

    /// All processes, the most remarkable ones first. One half of the rows is for the largest peaks, the other for those
    /// where something was refused.
    fn by_remarkability(&self) -> Vec<ProcessId> {
        let mut all: Vec<(ProcessId, &Process)> = self.processes.iter().map(|(id, p)| (*id, &**p)).collect();
        // The first of equals stays.
        all.sort_by_cached_key(|(id, p)| (Reverse(p.peak()), id.start_ns, id.tgid));
        let first = |p: &Process| p.mms.iter().any(|mm| self.first_refused.contains(&mm.generation));
        if let Some((_, others)) = all.split_at_mut_checked(self.rows / 2) {
            others.sort_by_cached_key(|(id, p)| {
                let special = Some(*id) == self.root || first(p) || self.at_limit(p.peak());
                (Reverse((special, p.refused() > 0 || p.killed(), p.peak())), id.start_ns, id.tgid)
            });
        }
        all.into_iter().map(|(id, _)| id).collect()
    }

    /// All but the most remarkable ones, the least remarkable first.
    fn less_remarkable(&self) -> impl Iterator<Item = ProcessId> + use<> {
        self.by_remarkability().into_iter().skip(self.rows).rev()
    }

    /// A forked child runs its parent's file, which may be forgotten before the child.
    pub(super) fn inherit(&mut self) {
        let of = |id: ProcessId, process: &Process| Some((id, self.parents_exe(id, process)?));
        let nameless = self.processes.iter().filter(|(_, process)| process.exe.is_none());
        let inherited: Vec<(ProcessId, Arc<str>)> =
            nameless.filter_map(|(id, process)| of(*id, process)).collect();
        for (id, exe) in inherited {
            if let Some(process) = self.processes.get_mut(&id) {
                process.exe = Some(exe);
            }
        }
    }

    /// Adds up what does not fit into a report of this size; the first row always does. That every change was asked for must
    /// not leave processes without a row: a third is for what changed them, and of the rest the largest.
    pub(super) fn fit_in_report(&mut self) {
        if self.rows >= ALL_ROWS {
            return;
        }
        self.fit(MOST_ROW_BYTES);
    }

    pub(super) fn fit(&mut self, most: usize) {
        let (mut sum, mut of_changes) = (0, 0);
        for (n, id) in self.by_remarkability().into_iter().enumerate() {
            if let Some(process) = self.processes.get(&id) {
                let (mut row, groups) = self.whole_row(id, process, true);
                if of_changes + bytes(&row.changes) > most / 3 {
                    self.in_brief(id, &mut row);
                }
                of_changes += bytes(&row.changes);
                sum += bytes(&row) + groups.iter().map(|group| bytes(&group.failure)).sum::<usize>();
            }
            if n > 0 && sum > most {
                self.fold_one(id);
            }
        }
    }

    fn fold_one(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get(&id) else { return };
        let (row, groups) = self.whole_row(id, process, true);
        let at_limit = self.at_limit(row.map_count.peak);
        let groups = groups.into_iter().map(|group| {
            let refused = group.example.and_then(|key| self.examples.get(&key)).cloned();
            (group, refused)
        });
        let groups: Vec<_> = groups.collect();
        let stopped = groups.iter().any(|(group, _)| {
            group.failure.address_space_of.is_some() && group.failure.cause == Cause::MaxMapCount
        });
        self.remove(id, stopped);
        self.folded.take(row, at_limit, groups);
    }

    /// Takes out one process with its examples; `stopped`: by vm.max_map_count in the address space of another.
    pub(super) fn remove(&mut self, id: ProcessId, stopped: bool) {
        self.leaves_marks(id);
        let Some(process) = self.processes.remove(&id) else { return };
        self.tests_unknown = self.tests_unknown.saturating_add(process.lacks_its_test().into());
        self.lodgers.forget(id, &process, stopped);
        for mm in &process.mms {
            self.series.remove(&mm.generation);
            self.minutes.remove(&mm.generation);
            self.makers.forget(mm.generation);
            for kind in &mm.refusals {
                for place in super::places(mm.generation, kind) {
                    self.examples.remove(&place);
                }
            }
        }
    }

    /// Address spaces whose stacks the report may show.
    pub fn examples_of(&self) -> HashSet<u64> {
        self.refused_in().chain(self.makers.generations()).collect()
    }

    /// Address spaces whose stacks the report will show.
    pub fn stacks_of(&self) -> HashSet<u64> {
        self.refused_in().chain(self.makers_followed()).collect()
    }

    fn refused_in(&self) -> impl Iterator<Item = u64> {
        let folded = self.folded.failures().filter_map(|alike| alike.refused.as_ref());
        self.examples.values().chain(folded).map(|refused| refused.generation)
    }
}
