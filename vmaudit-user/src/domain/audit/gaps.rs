//! When something was lost: looks at the counters say between which times.

use crate::domain::audit::Audit;
use crate::model::event::Losses;
use crate::model::report::Gap;
use crate::text::total;

/// Kept apart; of more, those at the end become one.
const MOST: usize = 100;

/// Times in which counters of losses rose, CLOCK_MONOTONIC ns.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    all: Vec<(u64, u64, u64)>,
    /// The last look, and what was lost by then.
    last: Option<(u64, u64)>,
}

impl Gaps {
    /// A look; `from_ns`: where a session begins whose first look it is.
    fn look(&mut self, losses: &Losses, from_ns: u64) {
        if losses.at_ns == 0 {
            return;
        }
        let lost = total(losses.counters.values().copied());
        let (before_ns, before) = self.last.unwrap_or((from_ns, 0));
        self.last = Some((losses.at_ns, lost));
        let more = lost.saturating_sub(before);
        if more == 0 {
            return;
        }
        let full = self.all.len() >= MOST;
        match self.all.last_mut() {
            Some((_, to_ns, of_it)) if *to_ns >= before_ns || full => {
                (*to_ns, *of_it) = (losses.at_ns, of_it.saturating_add(more));
            }
            _ => self.all.push((before_ns, losses.at_ns, more)),
        }
    }
}

impl Audit {
    pub(super) fn took_losses(&mut self, losses: Losses) {
        // What was lost before a stretch is no gap in it.
        if self.stretch_ns.is_some() && self.gaps.last.is_none() {
            self.gaps.last = Some((losses.at_ns, total(losses.counters.values().copied())));
        }
        self.gaps.look(&losses, self.start_ns);
        self.losses = losses;
    }

    /// The same for the report.
    pub fn gaps(&self) -> Vec<Gap> {
        let gap = |&(from_ns, to_ns, lost): &(u64, u64, u64)| Gap {
            from_s: self.seconds(from_ns),
            to_s: self.seconds(to_ns),
            lost,
        };
        self.gaps.all.iter().map(gap).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::loss::LossReason;

    fn look(gaps: &mut Gaps, at_ns: u64, lost: u64) {
        let counters = [(LossReason::RingFull, lost)].into();
        gaps.look(&Losses { at_ns, counters, ..Losses::default() }, 5);
    }

    #[test]
    fn what_rises_is_a_gap_and_what_rises_on_is_the_same() {
        let mut gaps = Gaps::default();
        for (at_ns, lost) in [(10, 0), (20, 3), (30, 4), (40, 4), (50, 9)] {
            look(&mut gaps, at_ns, lost);
        }
        assert_eq!(gaps.all, [(10, 30, 4), (40, 50, 5)]);
        let mut first = Gaps::default();
        look(&mut first, 10, 1);
        look(&mut first, 0, 7);
        assert_eq!(first.all, [(5, 10, 1)], "from the start; nobody knows when the other was");
    }

    #[test]
    fn their_number_is_bounded_and_none_is_lost() {
        let mut gaps = Gaps::default();
        for n in 1..10_000 {
            look(&mut gaps, n * 10, n / 2);
        }
        assert!(gaps.all.len() <= MOST);
        assert_eq!(gaps.all.iter().map(|(.., lost)| lost).sum::<u64>(), 9_999 / 2);
    }
}
