//! What an exporter takes from the audit: how each process stands, and those that are over, which the audit then forgets,
//! so that a session of months takes no more memory than one of minutes.

use std::collections::{BTreeMap, HashSet};

use crate::domain::audit::{Audit, Process};
use crate::domain::unit::unit_of;
use crate::model::event::{ProcessId, Within};
use crate::model::loss::LossReason;
use crate::model::report::{self, Failure, Outcome};
use crate::model::session::Sight;

/// Steps from a process to the one whose cgroups were read.
const ANCESTORS: usize = 16;

/// One process as it stands, or as it ended.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which.
    pub id: ProcessId,
    /// Its row.
    pub row: report::Process,
    /// Its refused calls.
    pub refused: Vec<(Outcome, Failure)>,
    /// Its peaks in the minute before the one that runs and in that one, by their numbers; see [`Audit::minute`].
    pub minutes: [(u64, Option<u64>); 2],
}

/// What is known of a session at work as a whole.
#[derive(Clone, Debug)]
pub struct SeenSoFar {
    /// What the source can see at all.
    pub sight: Sight,
    /// vm.max_map_count as last read.
    pub limit: Option<u64>,
    /// See [`report::Coverage::exact_peaks`]; what single processes miss is not in it.
    pub exact_peaks: bool,
    /// Something was lost, and nobody knows whose it was: no peak is called exact any more, of those that came later neither.
    pub all_peaks_doubtful: bool,
    /// See [`report::Coverage::exact_limit_calls`].
    pub exact_limit_calls: bool,
    /// Totals by reason.
    pub lost: BTreeMap<LossReason, u64>,
}

impl Audit {
    /// The session as a whole so far.
    pub fn seen_so_far(&self) -> SeenSoFar {
        let whole = self.seen_whole();
        let mut lost = self.losses.counters.clone();
        lost.insert(LossReason::ExamplesFull, self.examples_full);
        SeenSoFar {
            sight: self.sight,
            limit: self.limit.seen.map(|seen| seen.max_map_count.into()).or(self.limits.max_map_count),
            exact_peaks: whole.exact_peaks,
            all_peaks_doubtful: self.peaks_doubtful(),
            exact_limit_calls: whole.limit_calls,
            lost,
        }
    }

    /// Every process that is known, also those that have ended and were not let go yet.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        let limit_seen = self.seen_whole().limit_calls;
        self.processes.iter().filter_map(move |(id, process)| self.standing(*id, process, limit_seen))
    }

    /// The same, with how the counts of those went that a report would show; see [`report::Process::series`].
    pub fn standings_with_series(&self) -> impl Iterator<Item = Standing> {
        let remarkable = self.with_series();
        self.standings().map(move |mut standing| {
            let process = self.processes.get(&standing.id).filter(|_| remarkable.contains(&standing.id));
            standing.row.series =
                process.and_then(|process| self.shown_series(process, standing.row.map_count.exact));
            standing
        })
    }

    /// Forgets the processes that are `over`: of which nothing more will come. Returns what is known of them.
    pub fn release(&mut self, over: &HashSet<ProcessId>) -> Vec<Standing> {
        self.fold_at = self.rows.max(self.processes.len().saturating_sub(over.len())) + super::SURPLUS;
        if over.is_empty() {
            return Vec::new();
        }
        self.inherit();
        self.inherit_cgroups();
        let limit_seen = self.seen_whole().limit_calls;
        let known = over.iter().filter_map(|id| self.standing(*id, self.processes.get(id)?, limit_seen));
        let released: Vec<Standing> = known.collect();
        for id in over {
            self.remove(*id, false);
        }
        released
    }

    /// Forgets what is kept of address spaces that no process has any more. One that is not known yet may be a young one's:
    /// it goes when it is still not known the next time, before which every living one must have been told.
    pub fn forget_details(&mut self) {
        let known: HashSet<u64> =
            self.processes.values().flat_map(|process| &process.mms).map(|mm| mm.generation).collect();
        let before = std::mem::take(&mut self.strange);
        let mut strange = HashSet::new();
        let mut keeps = |generation: u64| {
            known.contains(&generation)
                || !before.contains(&generation) && {
                    strange.insert(generation);
                    true
                }
        };
        self.examples.retain(|(generation, ..), _| keeps(*generation));
        self.frames.retain(|(generation, _), _| keeps(*generation));
        self.stacks.retain(|(generation, ..), _| keeps(*generation));
        self.ends.retain(|(generation, _)| keeps(*generation));
        self.makers.retain(&mut keeps);
        self.holders.retain(|generation, _| keeps(*generation));
        self.layouts.retain(&mut keeps);
        self.cgroups.retain(|generation, _| keeps(*generation));
        self.first_refused.retain(|generation| keeps(*generation));
        self.series.retain(|generation, _| keeps(*generation));
        self.minutes.retain(|generation, _| keeps(*generation));
        self.strange = strange;
    }

    fn standing(&self, id: ProcessId, process: &Process, limit_seen: bool) -> Option<Standing> {
        let only_mentioned = process.mms.is_empty() && process.samples.is_none();
        if only_mentioned && !process.killed() {
            return None;
        }
        let (mut row, groups) = self.whole_row(id, process, limit_seen);
        if process.cgroup.is_none() {
            let inherited = self.parents_groups(id, process);
            if let Some(Within { unit, container, pod }) = inherited.map(|(_, within)| within) {
                (row.unit, row.container, row.pod) =
                    (row.unit.or(unit), row.container.or(container), row.pod.or(pod));
            }
        }
        let refused = groups.into_iter().map(|group| (group.outcome, group.failure)).collect();
        let minute = self.minute();
        let minutes =
            [minute.saturating_sub(1), minute].map(|number| (number, self.peak_in_minute(process, number)));
        Some(Standing { id, row, refused, minutes })
    }

    /// Cgroup of a process that nobody could ask for its own: a child is born into its parent's.
    fn parents_groups(&self, id: ProcessId, process: &Process) -> Option<(String, Within)> {
        let (mut id, mut process) = (id, process);
        for _ in 0..ANCESTORS {
            let parent = process.ppid?;
            let of = |start_ns| ProcessId { tgid: parent, start_ns };
            // Not itself, should a number name its own bearer.
            let next =
                self.processes.range(of(0)..=of(id.start_ns)).rev().find(|(known, _)| **known != id)?;
            (id, process) = (*next.0, next.1);
            if let Some(cgroup) = &process.cgroup {
                let mut within = process.within.clone();
                within.unit = within.unit.or_else(|| unit_of(cgroup).map(str::to_owned));
                return Some((cgroup.clone(), within));
            }
        }
        None
    }

    /// The parent may be forgotten before the child.
    fn inherit_cgroups(&mut self) {
        let of = |id: ProcessId, process: &Process| Some((id, self.parents_groups(id, process)?));
        let nameless = self.processes.iter().filter(|(_, process)| process.cgroup.is_none());
        let inherited: Vec<_> = nameless.filter_map(|(id, process)| of(*id, process)).collect();
        for (id, (cgroup, within)) in inherited {
            if let Some(process) = self.processes.get_mut(&id) {
                (process.cgroup, process.within) = (Some(cgroup), within);
            }
        }
    }
}
