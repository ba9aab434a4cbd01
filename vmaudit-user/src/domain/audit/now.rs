//! The state of a session at work, in four figures.

use super::Audit;

/// As of the last event; what lives was last told by a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now<'a> {
    /// Processes that have not ended.
    pub living: u64,
    /// Of them the one with most VMAs, and how many.
    pub largest: Option<(&'a str, u64)>,
    /// vm.max_map_count.
    pub limit: Option<u64>,
    /// Calls refused so far, harmless ones included; `None` where the source does not see them.
    pub refused: Option<u64>,
}

impl Audit {
    /// Costs a walk over all processes.
    pub fn now(&self) -> Now<'_> {
        let living = || self.processes.values().filter(|process| process.ended_ns.is_none());
        let counted = living().filter_map(|process| {
            let seen = process.samples.map(|seen| seen.last);
            let vmas = process.mms.last().map(|mm| mm.last).or(seen)?;
            Some((process.comm.as_str(), u64::from(vmas)))
        });
        let rows = self.processes.values().map(|process| process.refused());
        let folded = self.folded.names().into_iter().filter_map(|sum| sum.row.failed);
        Now {
            living: living().count() as u64,
            largest: counted.max_by_key(|(_, vmas)| *vmas),
            limit: self.limits.max_map_count,
            refused: self.sight.calls().then(|| rows.chain(folded).fold(0, u64::saturating_add)),
        }
    }

    /// Whether what a higher limit would cost may be told: a call was refused, a process has come above a tenth of the
    /// limit, or the limit is not known.
    pub fn may_need_a_price(&self) -> bool {
        let Some(limit) = self.limits.max_map_count else { return true };
        let near =
            |process: &super::Process| process.peak().is_none_or(|peak| peak.saturating_mul(10) > limit);
        self.processes.values().any(|process| process.refused() > 0 || near(process))
            || !self.folded.names().is_empty()
    }
}
