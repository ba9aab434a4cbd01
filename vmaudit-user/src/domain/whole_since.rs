//! Since when nothing is missing: of a session of months one skipped event must not make all that came after it doubtful.

use crate::domain::audit::SeenSoFar;
use crate::model::loss::LossReason::{
    self, AnswersLost, BirthMissed, ChangesMissed, DeathMissed, GroupsFull, ProgramSkipped, ReadFailed,
    SkipsUnreadable, TableFull, TreeFull,
};

/// A count of one of these that grows may have kept a change from a peak. More than what makes a report doubtful: once that
/// is so, it cannot tell the next time, and a skipped event can.
const OF_PEAKS: [LossReason; 7] =
    [BirthMissed, ChangesMissed, DeathMissed, ProgramSkipped, ReadFailed, TableFull, TreeFull];
/// Likewise a refused call.
const OF_REFUSALS: [LossReason; 9] = [
    AnswersLost,
    BirthMissed,
    ChangesMissed,
    DeathMissed,
    GroupsFull,
    ProgramSkipped,
    ReadFailed,
    TableFull,
    TreeFull,
];

/// One kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since {
    /// Seconds since 1970.
    s: i64,
    lost: u64,
    whole: bool,
}

impl Since {
    fn look(&mut self, reasons: &[LossReason], seen: &SeenSoFar, whole: bool, now_s: i64) {
        let lost = reasons
            .iter()
            .filter_map(|reason| seen.lost.get(reason))
            .fold(0, |sum: u64, count| sum.saturating_add(*count));
        // Also from 0 to what came in the first look: nobody knows when it came.
        if !whole && (self.whole || lost > self.lost) {
            self.s = now_s;
        }
        (self.lost, self.whole) = (lost, whole);
    }
}

/// Since when peaks are all there and exact, and refusals by vm.max_map_count.
#[derive(Clone, Copy, Debug)]
pub struct WholeSince {
    peaks: Since,
    refusals: Since,
    /// Of the last look: what can be said at all.
    sees: [bool; 2],
}

impl WholeSince {
    /// A session that began at `started_s`, seconds since 1970.
    pub fn new(started_s: i64) -> Self {
        let since = Since { s: started_s, lost: 0, whole: true };
        Self { peaks: since, refusals: since, sees: [false; 2] }
    }

    /// Looks at what was lost, at `now_s` (seconds since 1970). `newly_doubtful`: so is the peak of a process that was not
    /// at the last look.
    pub fn look(&mut self, seen: &SeenSoFar, newly_doubtful: bool, now_s: i64) {
        self.peaks.look(&OF_PEAKS, seen, seen.exact_peaks, now_s);
        if newly_doubtful {
            self.peaks.s = now_s;
        }
        self.refusals.look(&OF_REFUSALS, seen, seen.exact_limit_calls, now_s);
        // Where the kernel does not say what it skipped, nobody knows when it did last.
        let told = seen.lost.get(&SkipsUnreadable).is_none_or(|count| *count == 0);
        self.sees = [
            seen.sight.changes && (told || seen.exact_peaks),
            seen.sight.calls() && (told || seen.exact_limit_calls),
        ];
    }

    /// Peaks that were reached since then are exact, and nobody's is missing; seconds since 1970. `None`: never.
    pub fn peaks_s(&self) -> Option<i64> {
        self.sees[0].then_some(self.peaks.s)
    }

    /// Every call that vm.max_map_count has refused since then was seen.
    pub fn refusals_s(&self) -> Option<i64> {
        self.sees[1].then_some(self.refusals.s)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::session::Sight;

    fn seen(lost: &[(LossReason, u64)], exact: bool) -> SeenSoFar {
        SeenSoFar {
            sight: Sight { changes: true, exits: true, locking: false, ends: true },
            limit: None,
            exact_peaks: exact,
            all_peaks_doubtful: false,
            exact_limit_calls: exact,
            lost: lost.iter().copied().collect::<BTreeMap<_, _>>(),
        }
    }

    fn after(looks: &[(SeenSoFar, bool)]) -> (Option<i64>, Option<i64>) {
        let mut since = WholeSince::new(100);
        for (n, (seen, doubtful)) in looks.iter().enumerate() {
            since.look(seen, *doubtful, 101 + n as i64);
        }
        (since.peaks_s(), since.refusals_s())
    }

    #[test]
    fn what_was_lost_once_does_not_make_all_doubtful_that_came_after_it() {
        let whole = || (seen(&[], true), false);
        let lost = |count| (seen(&[(TableFull, count)], false), false);
        assert_eq!(after(&[whole(), whole()]), (Some(100), Some(100)));
        assert_eq!(after(&[whole(), lost(1), lost(1), lost(1)]), (Some(102), Some(102)));
        assert_eq!(after(&[lost(1), lost(1), lost(2), lost(2)]), (Some(103), Some(103)));
        // A second skipped event shows in the count alone.
        let skipped = |count| (seen(&[(ProgramSkipped, count)], false), false);
        assert_eq!(after(&[skipped(1), skipped(2), skipped(2)]), (Some(102), Some(102)));
        // One that touched nothing does not count.
        assert_eq!(after(&[(seen(&[(ProgramSkipped, 3)], true), false)]), (Some(100), Some(100)));
        assert_eq!(after(&[(seen(&[(GroupsFull, 1)], false), false)]).1, Some(101));
        // One process alone.
        assert_eq!(after(&[whole(), (seen(&[], true), true), whole()]), (Some(102), Some(100)));
    }

    #[test]
    fn never_where_nobody_can_tell() {
        let blind = (seen(&[(SkipsUnreadable, 1)], false), false);
        assert_eq!(after(&[blind]), (None, None));
        let mut samples = seen(&[], false);
        samples.sight = Sight { changes: false, exits: false, locking: false, ends: false };
        assert_eq!(after(&[(samples, false)]), (None, None));
    }
}
