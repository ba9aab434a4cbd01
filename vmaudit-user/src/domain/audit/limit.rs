//! vm.max_map_count over the session: somebody may change it while it runs.

use crate::model::event::LimitSeen;

/// Changes kept apart.
const MOST_CHANGES: usize = 100;

/// What is known of it so far.
#[derive(Default)]
pub(super) struct LimitSoFar {
    /// Its least value.
    pub least: Option<u64>,
    /// The last look.
    pub seen: Option<LimitSeen>,
    /// In order; the first begins before everything.
    steps: Vec<Step>,
}

/// A value, and when it came into force: between these two times (CLOCK_MONOTONIC ns), the looks before and after.
struct Step {
    after_ns: u64,
    by_ns: u64,
    limit: u64,
}

impl LimitSoFar {
    /// It was read, at some time until this one.
    pub fn read(&mut self, limit: Option<u64>, seen_ns: u64) {
        if let Some(limit) = limit {
            self.is(limit, self.looked_ns(), seen_ns);
        }
    }

    /// It was looked at, as the programs know it from then on.
    pub fn looked(&mut self, seen: LimitSeen) {
        let before_ns = self.looked_ns();
        self.seen = Some(seen);
        self.is(seen.max_map_count.into(), before_ns, seen.at_ns);
    }

    /// Until then it was as it is known.
    fn looked_ns(&self) -> u64 {
        self.seen.map(|seen| seen.at_ns).or(self.steps.last().map(|step| step.by_ns)).unwrap_or(0)
    }

    fn is(&mut self, limit: u64, after_ns: u64, by_ns: u64) {
        self.least = self.least.into_iter().chain([limit]).min();
        // Somebody who changes it all day gets one long time of doubt.
        let full = self.steps.len() > MOST_CHANGES;
        match self.steps.last_mut() {
            Some(last) if last.limit == limit => {}
            Some(last) if full => (last.by_ns, last.limit) = (by_ns, limit),
            _ => self.steps.push(Step { after_ns, by_ns, limit }),
        }
    }

    /// It may have changed between these two times, both included.
    pub fn changed_within(&self, from_ns: u64, to_ns: u64) -> bool {
        self.steps.iter().skip(1).any(|step| step.after_ns <= to_ns && from_ns <= step.by_ns)
    }

    /// The limit in force at a time; where it may have been one of two, the larger.
    pub fn at(&self, at_ns: u64) -> Option<u64> {
        let in_force = self.steps.iter().rev().find(|step| step.by_ns <= at_ns).or(self.steps.first())?;
        let coming = self.steps.iter().filter(|step| step.after_ns < at_ns && at_ns < step.by_ns);
        coming.map(|step| step.limit).chain([in_force.limit]).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(limit: &mut LimitSoFar, at_ns: u64, max_map_count: u32) {
        limit.looked(LimitSeen { at_ns, max_map_count });
    }

    #[test]
    fn each_time_has_the_limit_that_was_in_force() {
        let mut limit = LimitSoFar::default();
        assert_eq!(limit.at(5), None);
        limit.read(Some(65_530), 5);
        for at_ns in [10, 20, 30] {
            look(&mut limit, at_ns, 65_530);
        }
        assert!(!limit.changed_within(0, 100));
        look(&mut limit, 40, 262_144);
        look(&mut limit, 50, 262_144);
        look(&mut limit, 60, 1_000);
        let at = [0, 30, 31, 40, 50, 55, 60, u64::MAX].map(|at_ns| limit.at(at_ns).unwrap());
        assert_eq!(at, [65_530, 65_530, 262_144, 262_144, 262_144, 262_144, 1_000, 1_000]);
        assert_eq!(limit.least, Some(1_000));
        assert!(limit.changed_within(35, 35) && limit.changed_within(0, 30) && !limit.changed_within(41, 49));
        limit.read(Some(9_000), 70);
        assert_eq!((limit.at(59), limit.at(u64::MAX)), (Some(262_144), Some(9_000)));
    }

    #[test]
    fn who_changes_it_all_day_leaves_one_long_time_of_doubt_and_the_last_value() {
        let mut limit = LimitSoFar::default();
        for n in 0..10_000 {
            look(&mut limit, n, 1_000 + n as u32);
        }
        assert!(limit.steps.len() <= MOST_CHANGES + 1 && limit.changed_within(5_000, 5_000));
        assert_eq!(limit.at(u64::MAX), Some(10_999));
    }
}
