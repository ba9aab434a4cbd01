//! What is known, as rows of the report.

use std::collections::BTreeMap;

use super::{Audit, Folded, Process, name_of};
use crate::{
    recommend::{Failed, reason},
    report::{self, CallFigures, Cause, Failure, Image, Limits, MapCount},
    source::{MmState, ProcessId},
};

/// What [`Audit::rows`] found.
pub struct Rows {
    /// Largest peak first.
    pub processes: Vec<report::Process>,
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
    /// For [`report::Coverage::notes`].
    pub notes: Vec<String>,
    /// Totals by reason.
    pub lost: BTreeMap<String, u64>,
    /// As last read.
    pub limits: Limits,
}
impl Audit {
    fn lost(&self, reasons: &[&str]) -> bool {
        reasons.iter().any(|reason| self.losses.counters.get(*reason).is_some_and(|count| *count > 0))
    }

    /// Every peak is doubtful: something was lost, and which address space it belongs to is not known.
    fn peaks_doubtful(&self) -> bool {
        self.losses.doubt.peaks || self.lost(&["table_full", "tree_full", "read_failed"])
    }

    /// Rows of the report, largest peak first, and the failures.
    pub fn rows(&self) -> Rows {
        // Whose end was missed may have kept a later one from its own row.
        let complete =
            !self.losses.doubt.processes && !self.lost(&["table_full", "tree_full", "death_missed"]);
        // A counter that says more than "details are gone" may stand for calls.
        let exact_calls = complete
            && self.sight.exits
            && !self.losses.doubt.calls
            && !self.lost(&["groups_full", "read_failed", "death_missed", "birth_missed", "changes_missed"]);
        let mut failures = Vec::new();
        let mut ordinary = Vec::new();
        let mut kinds = Vec::new();
        let mut processes: Vec<report::Process> = Vec::new();
        for (id, process) in &self.processes {
            // Only mentioned (an exec whose slot was not to be had): nothing is known of its counts.
            if process.mms.is_empty() && process.samples.is_none() {
                continue;
            }
            let groups = self.failures_of(*id, process);
            let stopped = groups.iter().any(|g| !g.ordinary && g.failure.cause == Cause::MaxMapCount);
            let mut row = self.row(*id, process);
            // 32-bit calls enter by another door, where refusals are not seen.
            let unseen = !exact_calls || row.calls.contains_key("[32-bit]");
            let at_limit = row.map_count.peak.zip(self.least_limit).is_some_and(|(peak, max)| peak >= max);
            row.map_count.clipped = stopped || at_limit && unseen;
            processes.push(row);
            for group in groups {
                if group.ordinary {
                    ordinary.push(group.failure);
                    continue;
                }
                let Failure { cause, count, .. } = group.failure;
                let reason = reason(&group.failure);
                kinds.push(Failed { cause, reason, count, limit_excluded: group.limit_excluded });
                failures.push(group.failure);
            }
        }
        processes.sort_by(|a, b| (b.map_count.peak, a.pid).cmp(&(a.map_count.peak, b.pid)));
        let by_count = |a: &Failure, b: &Failure| (b.count, a.pid).cmp(&(a.count, b.pid));
        failures.sort_by(by_count);
        ordinary.sort_by(by_count);
        let mut notes: Vec<String> = self.losses.shares.iter().map(|share| share.sentence()).collect();
        let Folded { processes: folded, peak, failed } = self.folded;
        if folded > 0 {
            let failures = match failed {
                0 => "without a failure".to_owned(),
                n => format!("after {n} failed calls in all"),
            };
            notes.push(format!(
                "{folded} more processes ended {failures} and with at most {peak} VMAs; they are only counted here"
            ));
        }
        let mut lost = self.losses.counters.clone();
        lost.insert("rows_folded".into(), folded);
        lost.insert("failed_folded".into(), failed);
        lost.insert("examples_full".into(), self.examples_full);
        Rows {
            complete,
            exact_peaks: complete
                && processes.iter().all(|process| process.map_count.exact)
                // Of one that is folded, too.
                && !self.lost(&["changes_missed"]),
            exact_calls,
            processes,
            failures,
            ordinary,
            kinds,
            notes,
            lost,
            limits: self.limits.clone(),
        }
    }

    fn row(&self, id: ProcessId, process: &Process) -> report::Process {
        let first = process.mms.values().next();
        let last = process.mms.values().next_back();
        let top =
            process.mms.values().max_by(|a, b| a.peak.cmp(&b.peak).then(b.generation.cmp(&a.generation)));
        let seen_from_start = first.is_some_and(|mm| mm.from_birth || mm.from_snapshot);
        let count = match (first, last, top, process.samples) {
            (Some(first), Some(last), Some(top), _) => MapCount {
                first: Some(first.first.into()),
                last: Some(last.last.into()),
                peak: Some(top.peak.into()),
                peak_at_s: Some(self.seconds(top.peak_ns)),
                exact: self.sight.changes
                    && seen_from_start
                    && !process.mms.values().any(MmState::partly_seen)
                    && !self.peaks_doubtful(),
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
            _ => MapCount::default(),
        };
        let percent = count.peak.zip(self.limits.max_map_count).map(|(peak, max)| {
            // One decimal is what people read; the exact ratio is in peak and limit.
            (peak as f64 * 1000.0 / max.max(1) as f64).round() / 10.0
        });
        let mut calls: BTreeMap<String, CallFigures> = BTreeMap::new();
        for (call, stat) in process.mms.values().flat_map(|mm| &mm.calls) {
            let figures = calls.entry(name_of(*call).to_owned()).or_default();
            figures.added += stat.added;
            figures.removed += stat.removed;
            if self.sight.exits {
                figures.calls = Some(figures.calls.unwrap_or(0) + stat.calls);
                figures.failed = Some(figures.failed.unwrap_or(0) + stat.failed);
            }
        }
        let exe = process.exe.clone().or_else(|| self.parents_exe(id, process));
        report::Process {
            pid: id.tgid,
            ppid: process.ppid,
            comm: process.comm.clone(),
            app: exe.as_deref().and_then(|exe| exe.rsplit('/').next()).map(str::to_owned),
            exe,
            cgroup: process.cgroup.clone(),
            uid: process.uid,
            started_s: Some(self.seconds(process.started_ns)),
            ended_s: process.ended_ns.map(|ns| self.seconds(ns)),
            map_count: MapCount { percent_of_limit: percent, ..count },
            images: process
                .mms
                .values()
                .map(|mm| Image { comm: mm.comm.clone(), peak: mm.peak.into() })
                .collect(),
            images_folded: process.images_folded,
            calls,
            unmap_leaked_bytes: (self.sight.exits && !process.mms.is_empty()).then(|| {
                let refusals = process.mms.values().flat_map(|mm| &mm.refusals);
                refusals.fold(process.kept_bytes, |sum, group| group.kept_bytes.saturating_add(sum))
            }),
            unreadable: None,
        }
    }

    /// A forked child that never called exec runs its parent's file.
    fn parents_exe(&self, id: ProcessId, process: &Process) -> Option<String> {
        if process.mms.values().any(|mm| mm.from_exec) {
            return None;
        }
        let parent = process.ppid?;
        let of = |start_ns| ProcessId { tgid: parent, start_ns };
        // The youngest that was there at the birth: its number may have been another's before, and after.
        self.processes.range(of(0)..=of(id.start_ns)).next_back()?.1.exe.clone()
    }
}
