//! Alike lines become one with their number: a loop writes a line a second, not a hundred thousand. Pure: time comes from
//! the caller.
//!
//! Refused calls are alike when process, call, errno and cause are, whatever comes between. Changes are alike when they are one
//! call over and over or a short cycle of calls, each starting where the one before it ended; first, last and largest count
//! then tell all of them. A pool of threads that does the same is one line: how many threads it stands for is counted.

mod changes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    time::{Duration, Instant},
};

use self::changes::Chain;

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
        /// Each call, and how often it was made.
        calls: Vec<(u8, u64)>,
        /// Largest count that they left behind.
        most: u32,
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

/// Refused calls that go on.
#[derive(Debug)]
struct Run {
    /// When the first one since something was written was refused, and the last one.
    ends: Option<(u64, Box<Refused>)>,
    times: u64,
    threads: BTreeSet<u32>,
    since: Instant,
}

impl Run {
    fn new(since: Instant) -> Self {
        Self { ends: None, times: 0, threads: BTreeSet::new(), since }
    }

    fn more(&mut self, one: Box<Refused>, now: Instant) {
        self.times += 1;
        if self.threads.len() <= THREADS {
            self.threads.insert(one.tid);
        }
        match &mut self.ends {
            Some((_, last)) => *last = one,
            None => {
                self.since = now;
                self.ends = Some((one.at_ns, one));
            }
        }
    }

    /// Takes what is held.
    fn take(&mut self, why: (Cause, bool)) -> Option<Line> {
        let (first_ns, last) = self.ends.take()?;
        let (threads, times) = (mem::take(&mut self.threads).len(), mem::take(&mut self.times));
        Some(match times {
            1 => Line::Refused(last),
            _ => Line::RefusedAgain { first_ns, last, times, threads, why },
        })
    }
}

/// What is held back.
#[derive(Debug, Default)]
pub struct Folding {
    /// By address space.
    changes: HashMap<u64, Chain>,
    refused: BTreeMap<Key, Run>,
}

impl Folding {
    /// Takes a change; what is to be written now goes to `out`, in order.
    pub fn change(&mut self, change: Change, now: Instant, out: &mut Vec<Line>) {
        if let Some(chain) = self.changes.get_mut(&change.generation) {
            if chain.goes_on(&change, now) {
                return;
            }
            chain.take(out);
            if !chain.begins_again(&change, now) {
                out.push(Line::Change(change));
            }
            return;
        }
        if self.changes.len() >= LOOPS {
            self.all(out);
        }
        self.changes.insert(change.generation, Chain::new(change.clone(), now));
        out.push(Line::Change(change));
    }

    /// Takes a refused call with its cause, and whether that is certain.
    pub fn refused(&mut self, refused: Box<Refused>, why: (Cause, bool), now: Instant, out: &mut Vec<Line>) {
        let key = (refused.generation, refused.call, refused.errno, why);
        if let Some(run) = self.refused.get_mut(&key) {
            run.more(refused, now);
            return;
        }
        if let Some(chain) = self.changes.get_mut(&refused.generation) {
            chain.take(out);
        }
        if self.refused.len() >= LOOPS {
            self.all(out);
        }
        self.refused.insert(key, Run::new(now));
        out.push(Line::Refused(refused));
    }

    /// What was held for long enough; forgets loops that have ended.
    pub fn due(&mut self, now: Instant, out: &mut Vec<Line>) {
        let due = |since: Instant| now.saturating_duration_since(since) >= HELD;
        let before = out.len();
        self.changes.retain(|_, chain| {
            if !due(chain.since) {
                return true;
            }
            let held = chain.holds();
            chain.take(out);
            chain.since = now;
            held
        });
        self.refused.retain(|key, run| {
            if !due(run.since) {
                return true;
            }
            let line = run.take(key.3);
            let held = line.is_some();
            out.extend(line);
            run.since = now;
            held
        });
        in_order(out, before);
    }

    /// All that is held.
    pub fn all(&mut self, out: &mut Vec<Line>) {
        let before = out.len();
        self.changes.drain().for_each(|(_, mut chain)| chain.take(out));
        let refused = mem::take(&mut self.refused).into_iter();
        out.extend(refused.filter_map(|(key, mut run)| run.take(key.3)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use vmaudit_common::call::{MMAP, MPROTECT, MUNMAP};

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

    /// Sums of what the lines say: how many changes, and where each line begins and ends.
    fn told(out: &[Line]) -> Vec<(u32, u32, u64)> {
        let of = |line: &Line| match line {
            Line::Change(it) => (it.before, it.after, 1),
            Line::Changes { first, last, times, calls, .. } => {
                assert_eq!(calls.iter().map(|(_, times)| times).sum::<u64>(), *times);
                (first.before, last.after, *times)
            }
            other => panic!("{other:?}"),
        };
        out.iter().map(of).collect()
    }

    /// These calls over and over, each as (call, difference); returns the lines.
    fn over_and_over(cycle: &[(u8, i64)], times: usize, threads: u32) -> Vec<Line> {
        let (mut folding, now) = (Folding::default(), Instant::now());
        let (mut out, mut count) = (Vec::new(), 1000_i64);
        for (n, (call, difference)) in cycle.iter().cycle().take(cycle.len() * times).enumerate() {
            let after = count + difference;
            let one = change(n as u32 % threads, *call, (count as u32, after as u32));
            folding.change(Change { generation: 1, ..one }, now, &mut out);
            count = after;
        }
        folding.all(&mut out);
        let sum: u64 = told(&out).iter().map(|(.., times)| times).sum();
        assert_eq!(sum, (cycle.len() * times) as u64, "{out:?}");
        assert!(told(&out).windows(2).all(|pair| pair[0].1 == pair[1].0), "no count is lost: {out:?}");
        out
    }

    #[test]
    fn a_loop_that_maps_and_unmaps_is_a_line_whatever_its_cycle() {
        let pair = over_and_over(&[(MMAP, 1), (MUNMAP, -1)], 5000, 1);
        assert_eq!(told(&pair), [(1000, 1001, 1), (1001, 1000, 1), (1000, 1000, 9998)]);
        let Some(Line::Changes { calls, most, .. }) = pair.last() else { panic!("{pair:?}") };
        assert_eq!((calls.as_slice(), *most), (&[(MMAP, 4999), (MUNMAP, 4999)][..], 1001));
        for cycle in [
            // A guard page, then both go.
            &[(MMAP, 1), (MPROTECT, 1), (MUNMAP, -2)][..],
            &[(MMAP, 1), (MMAP, 1), (MUNMAP, -1), (MUNMAP, -1)],
            // It leaks one each time.
            &[(MMAP, 1), (MMAP, 1), (MUNMAP, -1)],
            &[(MMAP, 2), (MMAP, 1), (MPROTECT, 2), (MPROTECT, 1), (MUNMAP, -1), (MUNMAP, -5)],
        ] {
            let out = over_and_over(cycle, 5000, 1);
            assert!(out.len() <= 4 * cycle.len(), "{} lines of {cycle:?}", out.len());
        }
    }

    /// Threads that do the same come in any order.
    #[test]
    fn threads_that_map_and_unmap_side_by_side_are_few_lines() {
        let (mut folding, now) = (Folding::default(), Instant::now());
        let (mut out, mut count, mut random) = (Vec::new(), 100_u32, 1_u64);
        let mut mapped = [false; 4];
        for _ in 0..10_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let who = (random >> 60) as usize % mapped.len();
            mapped[who] = !mapped[who];
            let (call, after) = if mapped[who] { (MMAP, count + 1) } else { (MUNMAP, count - 1) };
            let one = Change { generation: 1, ..change(who as u32, call, (count, after)) };
            folding.change(one, now, &mut out);
            count = after;
        }
        folding.all(&mut out);
        assert_eq!(told(&out).iter().map(|(.., times)| times).sum::<u64>(), 10_000);
        assert!(out.len() < 40, "{} lines", out.len());
    }

    #[test]
    fn what_is_no_loop_is_written_line_by_line() {
        let shapes = [(MMAP, 1), (MUNMAP, -1), (MMAP, 1), (MPROTECT, 2), (MUNMAP, -1), (MMAP, 3)];
        let out = over_and_over(&shapes, 1, 1);
        assert_eq!(out.len(), shapes.len(), "{out:?}");
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
