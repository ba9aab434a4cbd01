//! Peaks of intervals: one store begins a new one for all address spaces; what the last but one has left in their slots is
//! then told.
//!
//! A slot keeps [`CELLS`] intervals, and none is overwritten before it was told, however late user space comes: it is
//! user space that begins them. The one that has just ended is told an interval later, so that a program which was in the
//! middle of a change has long written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmaudit_common::{CELLS, Control, MmSlot, SLOT_DEAD, SLOT_LIVE};

use super::{Live, Shared};
use crate::model::event::{Event, INTERVAL_NS, Interval, ProcessId, Reached, Untold};
use crate::os::clock::now_ns;

/// How long an interval is unless something else is asked for.
pub const INTERVAL: Duration = Duration::from_nanos(INTERVAL_NS);
/// Address spaces told in one event.
const TOGETHER: usize = 8192;

/// Which interval runs, and when those began of which slots may know.
#[derive(Debug)]
pub struct Intervals {
    length: Duration,
    number: u64,
    /// Of the interval with the number `n` in `n % CELLS`, CLOCK_MONOTONIC ns.
    began_ns: [u64; CELLS],
}

impl Intervals {
    /// Begins the first one. To be called before the programs are at work.
    pub fn begin(control: &Shared<Control>, length: Duration) -> Self {
        let mut intervals = Self { length, number: 0, began_ns: [now_ns(); CELLS] };
        intervals.next(control);
        intervals
    }

    /// How long they are meant to be.
    pub fn length(&self) -> Duration {
        self.length
    }

    fn next(&mut self, control: &Shared<Control>) {
        self.number += 1;
        let now = now_ns();
        // SAFETY: the page, mapped as long as `control`; the word is written by us alone.
        unsafe { AtomicU64::from_ptr(&raw mut (*control.at(0)).interval) }
            .store(self.number, Ordering::Release);
        if let Some(began) = self.began_ns.get_mut(self.number as usize % CELLS) {
            *began = now;
        }
    }

    fn began(&self, number: u64) -> u64 {
        self.began_ns.get(number as usize % CELLS).copied().unwrap_or(0)
    }

    /// The time for the next one has come.
    fn due(&self) -> bool {
        let due = self.began(self.number) + self.length.as_nanos() as u64;
        // A clock that wakes a moment early would else make every second one twice as long.
        now_ns() + (self.length / 16).as_nanos() as u64 >= due
    }

    /// What this slot knows of the interval that runs, and of the one before it, if that is worth telling apart.
    pub fn untold(&self, slot: &MmSlot) -> Vec<Untold> {
        let end = if slot.dead_ns != 0 { slot.dead_ns } else { now_ns() };
        let known = [self.number.saturating_sub(1), self.number].into_iter().filter_map(|number| {
            let (peak, last) = slot.cells.get(number as usize % CELLS)?.of(number)?;
            let from_ns = self.began(number);
            let to_ns = if number < self.number { self.began(number + 1).min(end) } else { end };
            Some(Untold { from_ns, to_ns: to_ns.max(from_ns), peak, last })
        });
        let known: Vec<Untold> = known.collect();
        match known.as_slice() {
            // Nearly all processes live no longer: their figures say it all.
            [only] if slot.born_ns >= only.from_ns && (only.peak, only.last) == (slot.peak, slot.last) => {
                Vec::new()
            }
            _ => known,
        }
    }
}

impl Live {
    /// Begins a new interval if it is time, and tells what the last but one has seen.
    pub(super) fn next_interval(&mut self, sink: &mut dyn FnMut(Event)) {
        if self.intervals.due() {
            self.begin_interval(sink);
        }
    }

    /// The same whether or not it is time; when the new one began, CLOCK_MONOTONIC ns.
    pub(super) fn begin_interval(&mut self, sink: &mut dyn FnMut(Event)) -> u64 {
        let number = self.intervals.number - 1;
        let cell = number as usize % CELLS;
        let reached = |index: usize| {
            if ![SLOT_LIVE, SLOT_DEAD].contains(&self.state(index)) {
                return None;
            }
            let slot = self.slots.at(index);
            // SAFETY: `index` is in bounds and `cell` below CELLS; the words are written by the kernel side, by now for the
            // last time in this interval.
            let (cell, generation) = unsafe {
                let cell = (&raw const (*slot).cells).cast::<vmaudit_common::Cell>().add(cell);
                (cell.read_volatile(), (&raw const (*slot).generation).read_volatile())
            };
            let (peak, last) = cell.of(number)?;
            Some((Reached(generation, peak, last), self.process_in(index)))
        };
        let all: Vec<(Reached, ProcessId)> =
            if number == 0 { Vec::new() } else { (0..self.used()).filter_map(reached).collect() };
        let (from_ns, to_ns) = (self.intervals.began(number), self.intervals.began(number + 1));
        let every_ns = self.intervals.length.as_nanos() as u64;
        self.intervals.next(&self.control);
        for some in all.chunks(TOGETHER) {
            let (of, by) = some.iter().copied().unzip();
            sink(Event::Interval(Box::new(Interval { every_ns, from_ns, to_ns, of, by })));
        }
        self.intervals.began(self.intervals.number)
    }
}

#[cfg(test)]
mod tests {
    use vmaudit_common::Cell;

    use super::*;

    fn slot(cells: &[(u64, u32, u32)], (first, peak, last): (u32, u32, u32)) -> MmSlot {
        let mut slot: MmSlot = bytemuck::Zeroable::zeroed();
        (slot.first, slot.peak, slot.last, slot.born_ns) = (first, peak, last, 450);
        for &(number, peak, last) in cells {
            slot.cells[number as usize % CELLS] =
                Cell { highest: number << 32 | u64::from(peak), last: last.into() };
        }
        slot
    }

    #[test]
    fn what_was_not_told_is_what_the_last_two_intervals_have_seen() {
        let intervals = Intervals { length: INTERVAL, number: 5, began_ns: [400, 500, 200, 300] };
        let mut seen = slot(&[(2, 9, 9), (3, 8, 7), (4, 30, 20), (5, 21, 21)], (9, 30, 21));
        seen.dead_ns = 510;
        assert_eq!(
            intervals.untold(&seen),
            [
                Untold { from_ns: 400, to_ns: 500, peak: 30, last: 20 },
                Untold { from_ns: 500, to_ns: 510, peak: 21, last: 21 }
            ]
        );
        assert!(intervals.untold(&slot(&[(2, 9, 9)], (9, 9, 9))).is_empty(), "an old one was told");
        seen = slot(&[(4, 30, 20)], (9, 30, 20));
        assert!(intervals.untold(&seen).is_empty(), "all of its life lies in it");
        seen.born_ns = 390;
        assert_eq!(intervals.untold(&seen).len(), 1);
    }
}
