//! Processes that live in the address space of another: vfork's children, and what clone makes with CLONE_VM and without
//! CLONE_THREAD. Their refused calls are their own, their counts are the shared ones.

use std::collections::HashMap;

use crate::domain::audit::{Audit, Process};
use crate::model::event::{Host, MmState, ProcessId};
use crate::model::report::{Cause, MapCount, Outcome};

/// Shared address spaces that are kept in mind.
const HOSTS: usize = 10_000;
/// Processes kept in mind of each.
const LODGERS: usize = 100;

/// Who lives where, by address space.
#[derive(Debug, Default)]
pub struct Lodgers(HashMap<u64, Lodged>);

#[derive(Debug, Default)]
struct Lodged {
    lodgers: Vec<ProcessId>,
    /// One of those whose row is gone was refused a call there at vm.max_map_count, or may have been.
    stopped: bool,
}

impl Lodgers {
    /// Keeps in mind where a process lives.
    pub fn saw(&mut self, state: &MmState) {
        let Some(Host { generation, .. }) = state.host else { return };
        if self.0.len() >= HOSTS && !self.0.contains_key(&generation) {
            return;
        }
        let lodged = self.0.entry(generation).or_default();
        if lodged.lodgers.contains(&state.process) {
            return;
        }
        if lodged.lodgers.len() < LODGERS {
            lodged.lodgers.push(state.process);
        } else {
            lodged.stopped |= !state.refusals.is_empty();
        }
    }

    /// This process will have no row; `stopped`: by vm.max_map_count in the address space of another.
    pub fn forget(&mut self, id: ProcessId, process: &Process, stopped: bool) {
        for host in process.mms.iter().filter_map(|mm| mm.host) {
            if let Some(lodged) = self.0.get_mut(&host.generation) {
                lodged.lodgers.retain(|lodger| *lodger != id);
                lodged.stopped |= stopped;
            }
        }
        for mm in &process.mms {
            self.0.remove(&mm.generation);
        }
    }
}

impl Process {
    /// Where it lives, if it has no address space of its own.
    pub(super) fn lodges(&self) -> Option<&MmState> {
        let only = self.mms.iter().all(|mm| mm.host.is_some());
        self.mms.last().filter(|_| only)
    }

    /// Its own address spaces.
    pub(super) fn own(&self) -> impl DoubleEndedIterator<Item = &MmState> {
        self.mms.iter().filter(|mm| mm.host.is_none())
    }
}

impl Audit {
    /// The counts of the address space that a process lives in: at its beginning and its end, and the peak up to then.
    pub(super) fn shared_count(&self, lodger: &MmState, ended: bool) -> MapCount {
        let host = lodger.host.and_then(|host| self.address_space(host));
        let seen = match host {
            Some(mm) => (mm.from_birth || mm.from_snapshot) && !mm.partly_seen(),
            // Its row is gone: what was missed of it stands in the losses of the session.
            None => lodger.from_birth && !self.changes_missed(),
        };
        // While it lives, the slot of the process has what was there at its beginning.
        let (last, peak, peak_ns) = match host {
            Some(mm) if !ended => (mm.last, mm.peak, mm.peak_ns),
            _ => (lodger.last, lodger.peak, lodger.peak_ns),
        };
        MapCount {
            first: Some(lodger.first.into()),
            last: Some(last.into()),
            peak: Some(peak.into()),
            peak_at_s: Some(self.seconds(peak_ns)),
            exact: self.sight.changes && seen && !self.peaks_doubtful() && (self.cut.is_none() || ended),
            clipped: false,
            percent_of_limit: None,
        }
    }

    fn address_space(&self, host: Host) -> Option<&MmState> {
        let of = |start_ns| ProcessId { tgid: host.tgid, start_ns };
        let mut all = self.processes.range(of(0)..=of(u64::MAX)).flat_map(|(_, process)| &process.mms);
        all.find(|mm| mm.generation == host.generation)
    }

    /// Somebody who lives in an address space of this process was refused a call there at vm.max_map_count.
    pub(super) fn lodger_stopped(&self, process: &Process) -> bool {
        process.own().filter_map(|mm| Some((mm.generation, self.lodgers.0.get(&mm.generation)?))).any(
            |(generation, lodged)| {
                lodged.stopped
                    || lodged.lodgers.iter().any(|id| {
                        let lodger = self.processes.get(id);
                        lodger.is_some_and(|lodger| self.stopped_in(generation, *id, lodger))
                    })
            },
        )
    }

    fn stopped_in(&self, generation: u64, id: ProcessId, lodger: &Process) -> bool {
        let there = |mm: &MmState| mm.host.is_some_and(|host| host.generation == generation);
        lodger.mms.iter().any(there)
            && self.failures_of(id, lodger).iter().any(|group| {
                group.outcome != Outcome::Ordinary
                    && group.failure.cause == Cause::MaxMapCount
                    && group.failure.address_space_of.is_some()
            })
    }
}
