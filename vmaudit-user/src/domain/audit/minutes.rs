//! Peaks in fixed stretches of time, for who asks now and then: whoever asks in the same minute is told the same, and nobody
//! takes a peak from anybody else.

use crate::domain::audit::{Audit, Process};
use crate::model::event::MmState;

/// How long one is, ns of CLOCK_MONOTONIC.
const MINUTE_NS: u64 = 60_000_000_000;

/// The number of the minute that an interval with this end counts to.
fn minute_of(end_ns: u64) -> u64 {
    end_ns.saturating_sub(1) / MINUTE_NS
}

/// What was told of an address space, in the last minute in which it changed, and in the one before.
#[derive(Clone, Copy, Debug)]
pub struct Minutes {
    number: u64,
    now: u32,
    /// `None`: nothing was told of it.
    before: Option<u32>,
    last: u32,
}

impl Minutes {
    /// After its first interval.
    pub fn new(end_ns: u64, peak: u32, last: u32) -> Self {
        Self { number: minute_of(end_ns), now: peak, before: None, last }
    }

    /// After a further one.
    pub fn add(&mut self, end_ns: u64, peak: u32, last: u32) {
        let number = minute_of(end_ns);
        match number.saturating_sub(self.number) {
            0 => self.now = self.now.max(peak),
            1 => (self.before, self.now) = (Some(self.now), peak),
            _ => (self.before, self.now) = (Some(self.last), peak),
        }
        (self.number, self.last) = (self.number.max(number), last);
    }

    /// The same of an image before this one.
    pub fn join(&mut self, older: &Self) {
        if let Some(peak) = older.of(self.number) {
            self.now = self.now.max(peak);
        }
        let before = self.number.checked_sub(1).and_then(|number| older.of(number));
        self.before = self.before.max(before);
    }

    fn of(&self, number: u64) -> Option<u32> {
        match number.checked_sub(self.number) {
            Some(0) => Some(self.now),
            Some(_) => Some(self.last),
            None if number + 1 == self.number => self.before,
            None => None,
        }
    }
}

impl Audit {
    /// The number of the minute that runs.
    pub fn minute(&self) -> u64 {
        minute_of(self.seen_ns)
    }

    /// The peak of a process in the minute with this number; `None`: it had no address space of its own then.
    pub(super) fn peak_in_minute(&self, process: &Process, number: u64) -> Option<u64> {
        process.own().filter_map(|mm| self.of_image(mm, number)).max().map(u64::from)
    }

    fn of_image(&self, mm: &MmState, number: u64) -> Option<u32> {
        let (begin, end) = (number.saturating_mul(MINUTE_NS), (number + 1).saturating_mul(MINUTE_NS));
        if mm.born_ns >= end || mm.dead_ns.is_some_and(|dead| dead <= begin) {
            return None;
        }
        let mut peak = match self.minutes.get(&mm.generation) {
            Some(told) => told.of(number).unwrap_or(mm.first),
            None if mm.untold.is_empty() => mm.peak,
            None => mm.first,
        };
        for untold in &mm.untold {
            if untold.to_ns <= begin {
                peak = untold.last;
            } else if untold.from_ns < end {
                peak = peak.max(untold.peak);
            }
        }
        Some(peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> u64 {
        second * 1_000_000_000
    }

    #[test]
    fn a_minute_keeps_its_peak_until_the_next_is_over() {
        let mut minutes = Minutes::new(at(70), 100, 20);
        minutes.add(at(110), 50, 30);
        assert_eq!((minutes.of(1), minutes.of(0), minutes.of(2)), (Some(100), None, Some(30)));
        minutes.add(at(121), 30, 5);
        assert_eq!((minutes.of(1), minutes.of(2), minutes.of(9)), (Some(100), Some(30), Some(5)));
        minutes.add(at(400), 70, 6);
        assert_eq!((minutes.of(5), minutes.of(6)), (Some(5), Some(70)), "it stood still");
    }

    #[test]
    fn images_of_a_process_are_one() {
        let mut newer = Minutes::new(at(130), 10, 10);
        newer.join(&Minutes::new(at(110), 900, 40));
        assert_eq!((newer.of(1), newer.of(2)), (Some(900), Some(40)));
    }
}
