//! Changes of one address space that repeat: one call over and over, or a short cycle of calls, as of a loop that maps and
//! unmaps.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::time::Instant;

use super::{Line, THREADS};
use crate::model::event::Change;

/// Changes of the longest cycle.
const CYCLE: usize = 8;

/// What changes of a cycle have in common: the call, and by how much it changed the count.
type Shape = (u8, i64);

fn shape(change: &Change) -> Shape {
    (change.call, i64::from(change.after) - i64::from(change.before))
}

/// Changes that go on like those before them.
#[derive(Debug)]
struct Held {
    first: Change,
    last: Change,
    times: u64,
    threads: BTreeSet<u32>,
    /// Each call, and how often it was made.
    calls: Vec<(u8, u64)>,
    most: u32,
    /// All of them, as long as they are fewer than a cycle.
    each: Vec<Change>,
}

/// The changes of one address space, in their order.
#[derive(Debug)]
pub(super) struct Chain {
    /// What the last ones were like, written or not.
    recent: VecDeque<Shape>,
    /// Of the cycle that goes on.
    period: usize,
    held: Option<Held>,
    /// The last one, written or not.
    seen: Change,
    /// Since when something is held.
    pub(super) since: Instant,
}

impl Chain {
    pub(super) fn new(seen: Change, since: Instant) -> Self {
        Self { recent: VecDeque::from([shape(&seen)]), period: 0, held: None, seen, since }
    }

    /// Holds it back if it goes on as before, and returns `true`. Else it is for the caller to write, behind what
    /// [`Chain::take`] gives.
    pub(super) fn goes_on(&mut self, change: &Change, now: Instant) -> bool {
        let like = shape(change);
        let in_a_row = self.seen.after == change.before;
        let on = in_a_row && self.period > 0 && self.repeats(like, change.tid);
        if on {
            self.hold(change.clone(), now);
            self.remember(change);
        }
        on
    }

    /// A change that did not go on as before: it may be the first of a cycle's second round, and is held then.
    pub(super) fn begins_again(&mut self, change: &Change, now: Instant) -> bool {
        if self.seen.after != change.before {
            self.recent.clear();
            self.period = 0;
        }
        self.remember(change);
        self.period = self.best_period();
        let again = self.period > 0;
        if again {
            self.hold(change.clone(), now);
        }
        again
    }

    /// Of the cycle that the last changes fit best, the shortest of equals; 0: of none.
    fn best_period(&self) -> usize {
        let fits = |period: usize| {
            let (back, before) = (self.recent.iter().rev(), self.recent.iter().rev().skip(period));
            back.zip(before).take(CYCLE).take_while(|(one, other)| one == other).count()
        };
        let best = (1..=CYCLE).rev().max_by_key(|period| fits(*period));
        best.filter(|period| fits(*period) > 0).unwrap_or(0)
    }

    /// The next of the cycle; where threads do it side by side, their order is chance: one of the cycle.
    fn repeats(&self, like: Shape, tid: u32) -> bool {
        let cycle = || self.recent.iter().rev().take(self.period);
        let several = self.held.as_ref().is_some_and(|held| held.threads.iter().any(|known| *known != tid));
        cycle().next_back() == Some(&like) || several && cycle().any(|known| *known == like)
    }

    fn remember(&mut self, change: &Change) {
        if self.recent.len() == 2 * CYCLE {
            self.recent.pop_front();
        }
        self.recent.push_back(shape(change));
        self.seen = change.clone();
    }

    fn hold(&mut self, change: Change, now: Instant) {
        let period = self.period;
        let held = self.held.get_or_insert_with(|| {
            self.since = now;
            Held {
                first: change.clone(),
                last: change.clone(),
                times: 0,
                threads: BTreeSet::new(),
                calls: Vec::new(),
                most: 0,
                each: Vec::new(),
            }
        });
        held.times += 1;
        held.most = held.most.max(change.after);
        match held.calls.iter_mut().find(|(call, _)| *call == change.call) {
            Some((_, times)) => *times += 1,
            None => held.calls.push((change.call, 1)),
        }
        if held.threads.len() <= THREADS {
            held.threads.insert(change.tid);
        }
        if held.each.len() <= period {
            held.each.push(change.clone());
        }
        held.last = change;
    }

    /// Takes what is held: one line, or those of a cycle that has not come round once.
    pub(super) fn take(&mut self, out: &mut Vec<Line>) {
        let Some(Held { first, last, times, threads, calls, most, each }) = mem::take(&mut self.held) else {
            return;
        };
        if each.len() as u64 == times && (times == 1 || each.len() <= self.period) {
            out.extend(each.into_iter().map(Line::Change));
        } else {
            out.push(Line::Changes { first, last, times, threads: threads.len(), calls, most });
        }
    }

    /// Something is held.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }
}
