//! Alike lines become one with their number: a loop writes a line a second, not a hundred thousand. Pure: time comes from
//! the caller.
//!
//! Refused calls are alike when process, call, errno and cause are, whatever comes between. Changes are alike when process,
//! call and difference are, and each starts where the one before it ended; the first and last count then tell all of them.
//! A pool of threads that does the same is one line: how many threads it stands for is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    time::{Duration, Instant},
};

use crate::model::event::{Change, Refused};
use crate::model::report::Cause;

/// Longest time that a line is held back.
const HELD: Duration = Duration::from_secs(1);
/// Loops watched at a time, of either kind; with more, all are written out.
const LOOPS: usize = 1024;
/// Threads of a line that are told apart; of more it is said that there are more.
pub const THREADS: usize = 64;

/// What there is to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// One change.
    Change(Change),
    /// One refused call.
    Refused(Box<Refused>),
    /// Several changes: from the first's `before` to the last's `after`.
    Changes {
        /// The first of them.
        first: Change,
        /// The last.
        last: Change,
        /// How many.
        times: u64,
        /// By how many threads, up to [`THREADS`] and one more.
        threads: usize,
    },
    /// Several refused calls.
    RefusedAgain {
        /// When the first was refused.
        first_ns: u64,
        /// The last.
        last: Box<Refused>,
        /// How many.
        times: u64,
        /// By how many threads, up to [`THREADS`] and one more.
        threads: usize,
        /// Their cause, and whether it is certain.
        why: (Cause, bool),
    },
}

/// Refused calls that are alike: call, errno, cause and whether it is certain, of an address space.
type Key = (u64, u8, u8, (Cause, bool));

/// What a task did.
trait ByTask {
    fn tid(&self) -> u32;
}

impl ByTask for Change {
    fn tid(&self) -> u32 {
        self.tid
    }
}

impl ByTask for Box<Refused> {
    fn tid(&self) -> u32 {
        self.tid
    }
}

/// Several that are alike.
struct Alike<T> {
    first: T,
    last: T,
    times: u64,
    threads: usize,
}

/// A loop that goes on.
#[derive(Debug)]
struct Run<T> {
    /// The first one since something was written, and the last.
    ends: Option<(T, T)>,
    times: u64,
    threads: BTreeSet<u32>,
    since: Instant,
    /// The last one seen, written or not.
    seen: T,
}

impl<T: Clone + ByTask> Run<T> {
    fn new(seen: T, since: Instant) -> Self {
        Self { ends: None, times: 0, threads: BTreeSet::new(), since, seen }
    }

    fn more(&mut self, one: T, now: Instant) {
        match &mut self.ends {
            Some((_, last)) => *last = one.clone(),
            None => {
                self.since = now;
                self.ends = Some((one.clone(), one.clone()));
            }
        }
        self.times += 1;
        if self.threads.len() <= THREADS {
            self.threads.insert(one.tid());
        }
        self.seen = one;
    }

    /// Takes what is held.
    fn take(&mut self) -> Option<Alike<T>> {
        let (first, last) = self.ends.take()?;
        let threads = mem::take(&mut self.threads).len();
        Some(Alike { first, last, times: mem::take(&mut self.times), threads })
    }
}

/// What is held back.
#[derive(Debug, Default)]
pub struct Folding {
    /// By address space.
    changes: HashMap<u64, Run<Change>>,
    refused: BTreeMap<Key, Run<Box<Refused>>>,
}

impl Folding {
    /// Takes a change; what is to be written now goes to `out`, in order.
    pub fn change(&mut self, change: Change, now: Instant, out: &mut Vec<Line>) {
        if let Some(run) = self.changes.get_mut(&change.generation) {
            if goes_on(&run.seen, &change) {
                run.more(change, now);
                return;
            }
            out.extend(run.take().map(changes));
        }
        if self.changes.len() >= LOOPS {
            self.all(out);
        }
        self.changes.insert(change.generation, Run::new(change.clone(), now));
        out.push(Line::Change(change));
    }

    /// Takes a refused call with its cause, and whether that is certain.
    pub fn refused(&mut self, refused: Box<Refused>, why: (Cause, bool), now: Instant, out: &mut Vec<Line>) {
        let key = (refused.generation, refused.call, refused.errno, why);
        if let Some(run) = self.refused.get_mut(&key) {
            run.more(refused, now);
            return;
        }
        if let Some(run) = self.changes.get_mut(&refused.generation) {
            out.extend(run.take().map(changes));
        }
        if self.refused.len() >= LOOPS {
            self.all(out);
        }
        self.refused.insert(key, Run::new(refused.clone(), now));
        out.push(Line::Refused(refused));
    }

    /// What was held for long enough; forgets loops that have ended.
    pub fn due(&mut self, now: Instant, out: &mut Vec<Line>) {
        let due = |since: Instant| now.saturating_duration_since(since) >= HELD;
        let before = out.len();
        self.changes.retain(|_, run| {
            let due = due(run.since);
            if due {
                out.extend(run.take().map(|ends| {
                    run.since = now;
                    changes(ends)
                }));
            }
            !due || run.since == now
        });
        self.refused.retain(|key, run| {
            let due = due(run.since);
            if due {
                out.extend(run.take().map(|ends| {
                    run.since = now;
                    refused_again(ends, key.3)
                }));
            }
            !due || run.since == now
        });
        in_order(out, before);
    }

    /// All that is held.
    pub fn all(&mut self, out: &mut Vec<Line>) {
        let before = out.len();
        out.extend(self.changes.drain().filter_map(|(_, mut run)| run.take().map(changes)));
        let refused = mem::take(&mut self.refused).into_iter();
        out.extend(refused.filter_map(|(key, mut run)| Some(refused_again(run.take()?, key.3))));
        in_order(out, before);
    }
}

fn in_order(out: &mut [Line], from: usize) {
    let at = |line: &Line| match line {
        Line::Change(it) => it.at_ns,
        Line::Refused(it) => it.at_ns,
        Line::Changes { last, .. } => last.at_ns,
        Line::RefusedAgain { last, .. } => last.at_ns,
    };
    if let Some(new) = out.get_mut(from..) {
        new.sort_by_key(at);
    }
}

fn goes_on(before: &Change, next: &Change) -> bool {
    let difference = |it: &Change| i64::from(it.after) - i64::from(it.before);
    (before.call, before.after, difference(before)) == (next.call, next.before, difference(next))
}

fn changes(Alike { first, last, times, threads }: Alike<Change>) -> Line {
    if times == 1 { Line::Change(last) } else { Line::Changes { first, last, times, threads } }
}

fn refused_again(alike: Alike<Box<Refused>>, why: (Cause, bool)) -> Line {
    let Alike { first, last, times, threads } = alike;
    if times == 1 {
        Line::Refused(last)
    } else {
        Line::RefusedAgain { first_ns: first.at_ns, last, times, threads, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmaudit_common::call::{MMAP, MUNMAP};

    fn change(tid: u32, call: u8, (before, after): (u32, u32)) -> Change {
        Change { at_ns: 1, generation: tid.into(), tgid: tid, tid, comm: "x".into(), before, after, call }
    }

    fn refused(tid: u32, at_ns: u64) -> Box<Refused> {
        Box::new(Refused { tid, generation: tid.into(), at_ns, call: MUNMAP, ..Refused::example() })
    }

    const WHY: (Cause, bool) = (Cause::MaxMapCount, true);

    #[test]
    fn a_loop_is_a_line_a_second_whatever_comes_between() {
        let (mut folding, start) = (Folding::default(), Instant::now());
        let mut out = Vec::new();
        let mut times = 0;
        for n in 0..50_000u32 {
            let now = start + Duration::from_micros(100) * n;
            folding.refused(refused(1, n.into()), WHY, now, &mut out);
            folding.refused(refused(2, n.into()), (Cause::Unknown, false), now, &mut out);
            folding.due(now, &mut out);
        }
        folding.all(&mut out);
        for line in &out {
            times += match line {
                Line::Refused(_) => 1,
                Line::RefusedAgain { times, .. } => *times,
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(times, 100_000, "every call is counted");
        assert!((8..=16).contains(&out.len()), "{} lines in 5 s", out.len());
    }

    #[test]
    fn nothing_is_held_for_more_than_a_second_and_a_pair_is_two_lines() {
        let (mut folding, start) = (Folding::default(), Instant::now());
        let mut out = Vec::new();
        folding.refused(refused(1, 1), WHY, start, &mut out);
        folding.refused(refused(1, 2), WHY, start, &mut out);
        assert_eq!(out, [Line::Refused(refused(1, 1))]);
        folding.due(start + HELD - Duration::from_millis(1), &mut out);
        assert_eq!(out.len(), 1);
        folding.due(start + HELD, &mut out);
        assert_eq!(out[1], Line::Refused(refused(1, 2)));
        folding.due(start + 2 * HELD, &mut out);
        assert!(folding.refused.is_empty(), "the loop has ended");
        folding.refused(refused(1, 3), WHY, start + 2 * HELD, &mut out);
        assert_eq!(out.len(), 3, "what comes later is news");
    }

    #[test]
    fn changes_are_folded_only_in_a_row_and_lose_no_count() {
        let (mut folding, now) = (Folding::default(), Instant::now());
        let mut out = Vec::new();
        let mut chain = vec![(MMAP, (10, 11)), (MMAP, (11, 12)), (MMAP, (12, 13)), (MUNMAP, (13, 12))];
        chain.extend([(MMAP, (12, 13)), (MMAP, (20, 21)), (MMAP, (21, 22))]);
        for (call, counts) in chain {
            folding.change(change(1, call, counts), now, &mut out);
        }
        folding.all(&mut out);
        let counts: Vec<_> = out
            .iter()
            .map(|line| match line {
                Line::Change(it) => (it.before, it.after, 1),
                Line::Changes { first, last, times, .. } => (first.before, last.after, *times),
                other => panic!("{other:?}"),
            })
            .collect();
        // From 13 to 20 something was missed: that is no row.
        assert_eq!(counts, [(10, 11, 1), (11, 13, 2), (13, 12, 1), (12, 13, 1), (20, 21, 1), (21, 22, 1)]);
    }

    #[test]
    fn threads_of_a_process_that_do_the_same_are_one_line_and_counted() {
        let (mut folding, now) = (Folding::default(), Instant::now());
        let mut out = Vec::new();
        for n in 0..900u32 {
            let of = |one: u32| 1 + n % one;
            let one = Box::new(Refused { generation: 1, ..*refused(of(3), n.into()) });
            folding.refused(one, WHY, now, &mut out);
            let one = Change { generation: 1, ..change(of(300), MMAP, (n, n + 1)) };
            folding.change(one, now, &mut out);
        }
        folding.all(&mut out);
        let mut told: Vec<_> = out
            .iter()
            .filter_map(|line| match line {
                Line::Changes { times, threads, .. } | Line::RefusedAgain { times, threads, .. } => {
                    Some((*times, *threads))
                }
                _ => None,
            })
            .collect();
        told.sort_unstable();
        assert_eq!(told, [(899, 3), (899, THREADS + 1)], "{out:?}");
    }

    #[test]
    fn a_refusal_comes_after_the_changes_before_it() {
        let (mut folding, now) = (Folding::default(), Instant::now());
        let mut out = Vec::new();
        for n in 0..5 {
            folding.change(change(1, MMAP, (n, n + 1)), now, &mut out);
        }
        folding.refused(refused(1, 1), WHY, now, &mut out);
        assert!(matches!(out[1], Line::Changes { times: 4, .. }), "{out:?}");
        assert!(matches!(out[2], Line::Refused(_)));
    }

    #[test]
    fn tasks_without_end_take_bounded_memory() {
        let (mut folding, now) = (Folding::default(), Instant::now());
        let mut out = Vec::new();
        for tid in 0..10_000 {
            for n in 0..3 {
                folding.change(change(tid, MMAP, (n, n + 1)), now, &mut out);
                folding.refused(refused(tid, 1), WHY, now, &mut out);
            }
            assert!(folding.changes.len() <= LOOPS && folding.refused.len() <= LOOPS);
        }
        folding.all(&mut out);
        let count = |line: &Line| match line {
            Line::Changes { times, .. } | Line::RefusedAgain { times, .. } => *times,
            _ => 1,
        };
        assert_eq!(out.iter().map(count).sum::<u64>(), 60_000);
    }
}
