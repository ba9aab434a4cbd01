//! What is known, as rows of the report.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmaudit_common::call::{COMPAT, LOCKING};
use vmaudit_common::{CLASS_MC0_MASK, CLASS_SECTION};

use crate::domain::audit::group::Group;
use crate::domain::audit::{Audit, Process};
use crate::domain::recommend::Failed;
use crate::domain::unit::unit_of;
use crate::model::cause::{name_of, reason};
use crate::model::event::{MmState, ProcessId, RefusalGroup, Sizes, UsedShare, Within};
use crate::model::loss::LossReason::{
    self, AnswersLost, BirthMissed, ChangesMissed, DeathMissed, ExamplesFull, GroupsFull, ReadFailed,
    RecordingCut, TableFull, TestUnknown, TreeFull,
};
use crate::model::report;
use crate::model::report::{
    Accuracy, CallFigures, Cause, Condition, Exit, Failure, Hook, Image, Limits, MapCount, Memory, Outcome,
    Rlimits, Since,
};
use crate::text::bytes;

/// What [`Audit::rows`] found.
pub struct Rows {
    /// Largest peak first.
    pub processes: Vec<report::Process>,
    /// See [`report::Report::folded`].
    pub folded: Vec<report::FoldedProcesses>,
    /// Most frequent first.
    pub failures: Vec<Failure>,
    /// See [`report::Report::ordinary_answers`].
    pub ordinary: Vec<Failure>,
    /// The failures as advice needs them.
    pub kinds: Vec<Failed>,
    /// No process that should have been followed can be missing.
    pub complete: bool,
    /// See [`report::Coverage::exact_peaks`].
    pub exact_peaks: bool,
    /// See [`report::Coverage::exact_calls`].
    pub exact_calls: bool,
    /// See [`report::Coverage::exact_locking_calls`].
    pub exact_locking_calls: bool,
    /// See [`report::Coverage::exact_limit_calls`].
    pub exact_limit_calls: bool,
    /// For [`report::Coverage::notes`].
    pub notes: Vec<String>,
    /// Totals by reason.
    pub lost: BTreeMap<LossReason, u64>,
    /// As last read.
    pub limits: Limits,
}
/// What the audit knows of the session as a whole.
pub struct SessionSeen<'a> {
    /// What became of each hook.
    pub hooks: &'a [Hook],
    /// What kernel, rights and container allow.
    pub conditions: &'a [Condition],
    /// Sentences about what could not be seen.
    pub notes: &'a [String],
    /// Seconds; up to the last event where the end was not seen.
    pub duration_s: f64,
    /// Kernel memory per VMA, bytes.
    pub vma_bytes: Option<f64>,
    /// Limits that the command began with.
    pub rlimits: Option<Rlimits>,
    /// How the command ended.
    pub exit: Option<Exit>,
    /// Followed processes still alive at the end.
    pub still_running: u64,
}

/// See [`Audit::seen_whole`].
pub(super) struct SeenWhole {
    /// No process that should have been followed can be missing.
    pub processes: bool,
    /// As far as the session as a whole tells.
    pub exact_peaks: bool,
    /// Every call.
    pub calls: bool,
    /// Every call that takes the lock.
    pub locking_calls: bool,
    /// Whatever vm.max_map_count has refused.
    pub limit_calls: bool,
}

impl Rows {
    fn take(&mut self, group: Group) {
        if group.outcome == Outcome::Ordinary {
            self.ordinary.push(group.failure);
            return;
        }
        let Failure { cause, count, .. } = group.failure;
        let reason = reason(&group.failure);
        // Who got the like after a refusal at the VMA limit stood at the limit all the same.
        if group.outcome == Outcome::Unrecovered || cause == Cause::MaxMapCount {
            self.kinds.push(Failed { cause, reason, count, limit_excluded: group.limit_excluded });
        }
        self.failures.push(group.failure);
    }
}

impl Audit {
    /// The session as a whole.
    pub fn session(&self) -> SessionSeen<'_> {
        SessionSeen {
            hooks: &self.hooks,
            conditions: &self.conditions,
            notes: &self.notes,
            duration_s: self.seconds(self.end.map_or(self.seen_ns, |end| end.at_ns)),
            vma_bytes: self.vma_bytes,
            rlimits: self.rlimits,
            exit: self.end.and_then(|end| end.exit),
            still_running: self.end.map_or(0, |end| end.still_running),
        }
    }

    fn lost(&self, reasons: &[LossReason]) -> bool {
        reasons.iter().any(|reason| self.losses.counters.get(reason).is_some_and(|count| *count > 0))
    }

    /// Somewhere in the session.
    pub(super) fn changes_missed(&self) -> bool {
        self.lost(&[ChangesMissed])
    }

    /// Every peak is doubtful: something was lost, and which address space it belongs to is not known.
    pub(super) fn peaks_doubtful(&self) -> bool {
        self.losses.doubt.peaks || self.lost(&[TableFull, TreeFull, ReadFailed])
    }

    /// What of the session was seen without a gap.
    pub(super) fn seen_whole(&self) -> SeenWhole {
        // Whose end was missed may have kept a later one from its own row.
        let processes = self.cut.is_none()
            && !self.losses.doubt.processes
            && !self.lost(&[TableFull, TreeFull, DeathMissed]);
        // A counter that says more than "details are gone" may stand for calls.
        let locking_calls = processes
            && self.sight.calls()
            && !self.losses.doubt.calls
            && !self.lost(&[GroupsFull, ReadFailed, DeathMissed, BirthMissed, ChangesMissed, AnswersLost]);
        let calls = locking_calls && self.sight.exits;
        SeenWhole {
            processes,
            exact_peaks: processes && !self.lost(&[ChangesMissed]),
            calls,
            locking_calls,
            // Where that needs more than the locks, the source watches more.
            limit_calls: calls || locking_calls && !self.losses.doubt.at_limit,
        }
    }

    /// Rows of the report, largest peak first, and the failures.
    pub fn rows(&self) -> Rows {
        let whole = self.seen_whole();
        let limit_seen = whole.limit_calls;
        let mut rows = Rows {
            complete: whole.processes,
            exact_peaks: whole.exact_peaks,
            exact_calls: whole.calls,
            exact_locking_calls: whole.locking_calls,
            exact_limit_calls: limit_seen,
            processes: Vec::with_capacity(self.processes.len()),
            folded: Vec::new(),
            failures: Vec::new(),
            ordinary: Vec::new(),
            kinds: Vec::new(),
            notes: self.losses.shares.iter().map(UsedShare::sentence).collect(),
            lost: self.losses.counters.clone(),
            limits: self.limits.clone(),
        };
        rows.lost.insert(ExamplesFull, self.examples_full);
        rows.lost.insert(TestUnknown, self.tests_unknown());
        if let Some(cut) = self.cut {
            rows.lost.insert(RecordingCut, 1);
            rows.notes.push(format!(
                "The recording {} after {}; its session went on. Figures are as they were until then",
                cut.what(),
                bytes(cut.whole_bytes)
            ));
        }
        let remarkable = self.with_series();
        for (id, process) in &self.processes {
            // Only mentioned (an exec whose slot was not to be had): nothing is known of its counts.
            let only_mentioned = process.mms.is_empty() && process.samples.is_none();
            if only_mentioned && !process.killed() {
                continue;
            }
            let (mut row, groups) = self.whole_row(*id, process, limit_seen);
            if remarkable.contains(id) || row.growth.is_some_and(|growth| growth.steady) {
                row.series = self.shown_series(process, row.map_count.exact);
            }
            rows.exact_peaks &= row.map_count.exact || only_mentioned;
            rows.processes.push(row);
            groups.into_iter().for_each(|group| rows.take(group));
        }
        for mut sum in self.folded.names() {
            sum.row.exact &= !self.peaks_doubtful();
            sum.row.clipped += if limit_seen { 0 } else { sum.at_limit };
            rows.exact_peaks &= sum.row.exact;
            rows.folded.push(sum.row);
        }
        self.folded.failures().for_each(|alike| rows.take(self.alike(alike)));
        // Of those with one address space the one that has it comes first.
        rows.processes.sort_by(|a, b| {
            let order = |p: &report::Process| (p.shares_address_space_of.is_some(), p.pid);
            b.map_count.peak.cmp(&a.map_count.peak).then_with(|| order(a).cmp(&order(b)))
        });
        let by_count = |a: &Failure, b: &Failure| (b.count, a.pid).cmp(&(a.count, b.pid));
        rows.failures.sort_by(by_count);
        rows.ordinary.sort_by(by_count);
        rows
    }

    /// A row with all its verdicts.
    pub(super) fn whole_row(
        &self,
        id: ProcessId,
        process: &Process,
        limit_seen: bool,
    ) -> (report::Process, Vec<Group>) {
        let groups = self.failures_of(id, process);
        let mut row = self.row(id, process);
        // What was refused in the address space of another says nothing of its own.
        let lodges = row.shares_address_space_of.is_some();
        let stopped = self.lodger_stopped(process)
            || groups.iter().any(|group| {
                group.outcome != Outcome::Ordinary
                    && group.failure.cause == Cause::MaxMapCount
                    && (lodges || group.failure.address_space_of.is_none())
            });
        row.end = self.end_of(id, process, &groups);
        // 32-bit calls enter by another door, where refusals are not seen.
        let unseen = !limit_seen || row.calls.contains_key("[32-bit]");
        row.map_count.clipped = stopped || self.at_limit(row.map_count.peak) && unseen;
        (row, groups)
    }

    /// It had as many VMAs as the limit ever allowed at the least.
    pub(super) fn at_limit(&self, peak: Option<u64>) -> bool {
        peak.zip(self.limit.least).is_some_and(|(peak, max)| peak >= max)
    }

    fn row(&self, id: ProcessId, process: &Process) -> report::Process {
        let first = process.own().next();
        let last = process.own().next_back();
        let top = process.own().max_by(|a, b| a.peak.cmp(&b.peak).then(b.generation.cmp(&a.generation)));
        let lodger = process.lodges();
        let seen_from_start = first.is_some_and(|mm| mm.from_birth || mm.from_snapshot);
        let count = match (first, last, top, process.samples) {
            (Some(first), Some(last), Some(top), _) => MapCount {
                first: Some(first.first.into()),
                last: Some(last.last.into()),
                peak: Some(top.peak.into()),
                peak_at_s: Some(self.seconds(top.peak_ns)),
                exact: self.sight.changes
                    && seen_from_start
                    && !process.own().any(MmState::partly_seen)
                    && !self.peaks_doubtful()
                    // Behind the end of a recording that was cut it may have gone on.
                    && (self.cut.is_none() || process.ended_ns.is_some()),
                clipped: false,
                percent_of_limit: None,
            },
            (.., Some(seen)) => MapCount {
                first: Some(seen.first.into()),
                last: Some(seen.last.into()),
                peak: Some(seen.peak.into()),
                peak_at_s: Some(self.seconds(seen.peak_ns)),
                exact: false,
                clipped: false,
                percent_of_limit: None,
            },
            _ => {
                lodger.map_or_else(MapCount::default, |mm| self.shared_count(mm, process.ended_ns.is_some()))
            }
        };
        let percent = count.peak.zip(self.limits.max_map_count).map(|(peak, max)| {
            // One decimal is what people read; the exact ratio is in peak and limit.
            (peak as f64 * 1000.0 / max.max(1) as f64).round() / 10.0
        });
        let mut calls: BTreeMap<String, CallFigures> = BTreeMap::new();
        for (call, stat) in process.own().flat_map(|mm| &mm.calls) {
            let figures = calls.entry(name_of(*call).to_owned()).or_default();
            figures.added = figures.added.saturating_add(stat.added);
            figures.removed = figures.removed.saturating_add(stat.removed);
            // Of a call that may do without the lock not all are seen.
            if self.sight.exits || self.sight.locking && LOCKING >> (*call & 63) & 1 == 1 {
                figures.calls = Some(figures.calls.unwrap_or(0).saturating_add(stat.calls));
            }
            if self.sight.calls() {
                figures.failed = Some(figures.failed.unwrap_or(0).saturating_add(stat.failed));
            }
        }
        // In the address space of another only its refusals are told from those of others.
        for (call, stat) in process.mms.iter().filter(|mm| mm.host.is_some()).flat_map(|mm| &mm.calls) {
            let figures = calls.entry(name_of(*call).to_owned()).or_default();
            figures.calls = None;
            figures.failed = Some(figures.failed.unwrap_or(0).saturating_add(stat.failed));
        }
        let parent = self.same_image(id, process);
        let exe = process.exe.as_deref().or_else(|| parent?.exe.as_deref()).map(str::to_owned);
        let watched = self.sight.calls() && !process.mms.is_empty();
        // Born in its parent's cgroup; who is moved elsewhere nearly always execs there.
        let placed = Some(process).filter(|process| process.cgroup.is_some()).or(parent).unwrap_or(process);
        let Within { unit, container, pod } = placed.within.clone();
        report::Process {
            pid: id.tgid,
            ppid: process.ppid,
            comm: process.comm.clone(),
            app: exe.as_deref().and_then(|exe| exe.rsplit('/').next()).map(str::to_owned),
            exe,
            unit: unit.or_else(|| placed.cgroup.as_deref().and_then(unit_of).map(str::to_owned)),
            container,
            pod,
            since: self.since(id, process),
            cgroup: placed.cgroup.clone(),
            uid: process.uid,
            user: process.uid.and_then(|uid| self.users.get(&uid)).cloned(),
            args: process.arguments.clone().or_else(|| parent?.arguments.clone()),
            test: process.test.clone().or_else(|| parent?.test.clone()),
            started_s: Some(self.seconds(process.started_ns)),
            ended_s: process.ended_ns.map(|ns| self.seconds(ns)),
            map_count: MapCount { percent_of_limit: percent, ..count },
            shares_address_space_of: lodger.and_then(|mm| mm.host).map(|host| host.tgid),
            images: process.own().map(|mm| Image { comm: mm.comm.clone(), peak: mm.peak.into() }).collect(),
            images_folded: process.images_folded.saturating_add(process.joined()),
            tasks: self.tasks_of(process),
            unmap_leaked_bytes: watched.then(|| {
                let refusals = process.mms.iter().flat_map(|mm| &mm.refusals);
                refusals.fold(process.kept_bytes, |sum, group| group.kept_bytes.saturating_add(sum))
            }),
            unmap_leaked_bound: watched
                .then(|| process.mms.iter().map(kept_bound).fold(Accuracy::Exact, Accuracy::and)),
            memory: self.memory(process, count.exact),
            makers: self.makers_of(process),
            layout: self.layouts.of(process),
            changes: self.changes_of(id, process, &calls),
            calls,
            end: None,
            series: None,
            growth: self.growth(process, count.peak),
            unreadable: None,
        }
    }

    /// From when on its figures are.
    fn since(&self, id: ProcessId, process: &Process) -> Option<Since> {
        if self.attached_ns.is_some_and(|attached| id.start_ns < attached) {
            return Some(Since::Attach);
        }
        process.own().next().is_some_and(|mm| mm.from_birth).then_some(Since::Start)
    }

    /// The largest sizes over all its images; `exact`: of its counts nothing was missed.
    fn memory(&self, process: &Process, exact: bool) -> Option<Memory> {
        let sizes: Option<Vec<Sizes>> = process.mms.iter().map(|mm| mm.most).collect();
        let most = sizes?.into_iter().reduce(Sizes::or)?;
        let bytes = |pages: u64| pages.saturating_mul(self.rules.page_size);
        Some(Memory {
            address_space_peak_bytes: bytes(most.total),
            data_peak_bytes: bytes(most.data),
            locked_peak_bytes: bytes(most.locked),
            stack_peak_bytes: bytes(most.stack),
            exact: exact && most.all_seen,
        })
    }

    /// A forked child that never called exec runs its parent's file.
    pub(super) fn parents_exe(&self, id: ProcessId, process: &Process) -> Option<Arc<str>> {
        self.same_image(id, process)?.exe.clone()
    }

    /// The parent of such a child.
    fn same_image(&self, id: ProcessId, process: &Process) -> Option<&Process> {
        if process.mms.iter().any(|mm| mm.from_exec) {
            return None;
        }
        let parent = process.ppid?;
        let of = |start_ns| ProcessId { tgid: parent, start_ns };
        // The youngest that was there at the birth: its number may have been another's before, and after.
        self.processes.range(of(0)..=of(id.start_ns)).next_back().map(|(_, parent)| &**parent)
    }
}

/// How the bytes that refused calls have left mapped in this address space relate to the true ones.
pub(super) fn kept_bound(mm: &MmState) -> Accuracy {
    let any = mm.refusals.iter().any(|refusals| refusals.kept_bytes > 0);
    // Who unmaps by another door, or while no program runs, or for the one whose address space it is, is not seen.
    let unseen =
        any && (mm.partly_seen() || mm.host.is_some() || mm.calls.iter().any(|(call, _)| *call == COMPAT));
    match mm.kept {
        Some(kept) => Accuracy::of(kept.ranges_lost > 0, any && kept.went_lost > 0)
            .and(Accuracy::of(unseen, unseen || mm.refusals.iter().any(may_have_holes))),
        // Sums of refusals: without lock events, and in recordings of 0.1.0.
        None => Accuracy::of(false, any),
    }
}

/// The range that a refused call has left may have parts that were not mapped: what the count refuses lies in one mapping,
/// what a failed allocation does need not.
fn may_have_holes(refusals: &RefusalGroup) -> bool {
    // As relative_to_max: at the limit or above.
    const AT_LIMIT: u64 = 7;
    let needs = if refusals.call == vmaudit_common::call::MREMAP { AT_LIMIT - 5 } else { AT_LIMIT };
    refusals.kept_bytes > 0
        && (refusals.class & CLASS_SECTION == 0 || refusals.class & CLASS_MC0_MASK < needs)
}
