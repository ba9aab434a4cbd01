//! Who holds the VMAs of a process that has just been refused one, and where they lie: the same classes as `vmaudit explain`,
//! from one look at /proc/PID/maps while the process lives, taken [apart](crate::os::apart): a session never waits for it. When
//! it is over, some that live with many VMAs are looked at, too.
//!
//! Bounds: one look for each address space, [`LOOKS`] in a session, one in [`BETWEEN`]; of each at most [`MOST_VMAS`]
//! mappings and [`MOST_TIME`] of reading.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vmaudit_common::call::{Call, FOREIGN};
use vmaudit_common::{CLASS_LOW, CLASS_MC0_MASK, CLASS_NO_HOLE, CLASS_SECTION};

use crate::domain::application::Anonymizer;
use crate::domain::audit::Last;
use crate::domain::vma_layout::analysis::{self, Beside};
use crate::domain::vma_layout::by_size::Sizes;
use crate::domain::vma_layout::verdict;
use crate::model::event::{Laid, Owners, Refused};
use crate::model::report::{Holders, Layout, Moment};
use crate::model::unreadable::Unreadable;
use crate::model::vma_layout::Cluster;
use crate::os::apart::desk::{Desk, MOMENT, Turn};
use crate::os::apart::{Patience, Unanswered};
use crate::os::procfs::Proc;
use crate::os::{procfs, rights};
use crate::text::count;

/// Looks in one session.
const LOOKS: usize = 20;
/// Address spaces that are remembered in one that goes on for months.
const REMEMBERED: usize = 10_000;
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(500);
/// VMAs read in one look.
const MOST_VMAS: u64 = 300_000;
/// Time spent on reading in one look.
const MOST_TIME: Duration = Duration::from_millis(200);

/// The class of a count so near the limit that a call may be refused for it, see `vmaudit_common::relative_to_max`.
const NEAR: u64 = 1;

/// Looks at processes that are at the limit.
#[derive(Debug)]
pub struct Looks {
    /// A process, whether its addresses are hidden, and whether sizes are asked for.
    desk: Desk<(u32, bool, bool), Option<Seen>>,
    /// What is looked for, and since when, CLOCK_MONOTONIC ns.
    under_way: Option<(Waiting, u64)>,
    start_ns: u64,
    noticed: HashSet<u64>,
    /// Of them, those since the last [`Looks::renew`].
    looks: usize,
    queue: VecDeque<Waiting>,
    last: Option<Instant>,
    found: Vec<(Option<Owners>, Laid)>,
    /// Processes that did not answer: how many, and the first.
    silent: Option<(u64, Unanswered, String, u32)>,
}

/// What one look gave.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    vmas: u64,
    complete: bool,
    ended: bool,
    sentence: String,
    rows: Vec<Cluster>,
}

#[derive(Debug)]
struct Waiting {
    generation: u64,
    tgid: u32,
    at_ns: u64,
    comm: String,
    call: Call,
    /// VMAs when the call was refused.
    count: Option<u64>,
    /// No free range was found: who holds the addresses is asked, not the VMAs.
    by_size: bool,
    moment: Moment,
}

impl Looks {
    /// Names of users in paths are replaced by `anonymizer`. `start_ns`: the session's start, CLOCK_MONOTONIC.
    pub fn new(anonymizer: Anonymizer, start_ns: u64, patience: &Patience) -> Self {
        Self {
            desk: Desk::new(patience, move |(tgid, hidden, by_size): (u32, bool, bool), beat| {
                beat.begin(tgid.into());
                let seen = if by_size { see_sizes(tgid, hidden) } else { see(tgid, hidden, &anonymizer) };
                (seen, Vec::new())
            }),
            under_way: None,
            start_ns,
            noticed: HashSet::new(),
            looks: 0,
            queue: VecDeque::new(),
            last: None,
            found: Vec::new(),
            silent: None,
        }
    }

    /// Takes note of an address space in which a call was refused near the limit, or for want of addresses, the first
    /// time.
    pub fn notice(&mut self, refused: &Refused) {
        let near = refused.class & CLASS_SECTION != 0 && refused.class & CLASS_MC0_MASK >= NEAR;
        // Below 4 GiB other mappings are in the way than those that hold most.
        let by_size = !near && refused.class & (CLASS_NO_HOLE | CLASS_LOW) == CLASS_NO_HOLE;
        if (near || by_size) && self.looks < LOOKS && self.noticed.insert(refused.generation) {
            self.looks += 1;
            let Refused { generation, tgid, at_ns, call, ref comm, .. } = *refused;
            let count = refused.section.map(|section| section.mc1.into());
            self.queue.push_back(Waiting {
                generation,
                tgid,
                at_ns,
                comm: comm.clone(),
                call,
                count,
                by_size,
                moment: Moment::Refusal,
            });
        }
    }

    /// Looks may be spent anew, in a session that goes on for months. Who was looked at is not looked at
    /// again, as long as all of them can be remembered.
    pub fn renew(&mut self) {
        self.looks = 0;
        if self.noticed.len() >= REMEMBERED {
            self.noticed.clear();
        }
    }

    /// Takes a look if one is due, and what has come of the one before. `now_ns`: CLOCK_MONOTONIC; `lives`: this address
    /// space has not ended. Waits for [`MOMENT`] at most.
    pub fn look(&mut self, now_ns: impl Fn() -> u64, lives: &dyn Fn(u64) -> bool) {
        self.turn(Duration::ZERO, lives);
        if self.busy() || self.queue.is_empty() || self.last.is_some_and(|last| last.elapsed() < BETWEEN) {
            return;
        }
        let Some(waiting) = self.queue.pop_front() else { return };
        self.begin(waiting, now_ns, lives);
    }

    /// Looks at those who live with many VMAs at the end of a session, and waits for it as [`Looks::settle`] does.
    pub fn look_last(&mut self, living: Vec<Last>, now_ns: impl Fn() -> u64, lives: &dyn Fn(u64) -> bool) {
        for Last { generation, tgid, comm, vmas } in living {
            self.settle(lives);
            let waiting = Waiting {
                generation,
                tgid,
                at_ns: now_ns(),
                comm,
                call: FOREIGN,
                count: Some(vmas.into()),
                by_size: false,
                moment: Moment::SessionEnd,
            };
            self.begin(waiting, &now_ns, lives);
        }
        self.settle(lives);
    }

    fn begin(&mut self, waiting: Waiting, now_ns: impl Fn() -> u64, lives: &dyn Fn(u64) -> bool) {
        self.last = Some(Instant::now());
        let hidden = !rights::may_know_addresses(waiting.tgid, None);
        match self.desk.ask(&(waiting.tgid, hidden, waiting.by_size)) {
            Ok(()) => {
                self.under_way = Some((waiting, now_ns()));
                self.turn(MOMENT, lives);
            }
            Err(why) => self.unanswered(&waiting, why),
        }
    }

    /// A look is under way.
    pub fn busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Waits for the look that is under way: for as long as a process may be silent.
    pub fn settle(&mut self, lives: &dyn Fn(u64) -> bool) {
        while self.busy() {
            self.turn(MOMENT, &lives);
        }
    }

    fn turn(&mut self, most: Duration, lives: &dyn Fn(u64) -> bool) {
        let turn = self.desk.turn(most);
        if matches!(turn, Turn::Waiting) {
            return;
        }
        let Some((waiting, at_ns)) = self.under_way.take() else { return };
        match turn {
            // Only what was read before its end, or before its next exec, is of this address space.
            Turn::Answer(Some(seen), _) if lives(waiting.generation) => {
                self.keep(&waiting, seen, at_ns);
            }
            Turn::Unanswered(why, _) => self.unanswered(&waiting, why),
            Turn::Answer(..) | Turn::Waiting => {}
        }
    }

    fn keep(&mut self, waiting: &Waiting, seen: Seen, at_ns: u64) {
        let &Waiting { generation, call, count, by_size, moment, .. } = waiting;
        let at_s = at_ns.saturating_sub(self.start_ns) as f64 / 1e9;
        let holders = Holders {
            vmas_read: seen.vmas,
            complete: seen.complete,
            vmas_expected: count,
            ended: seen.ended,
            at_s,
            syscall: crate::model::cause::name_of(call).into(),
            after_ms: at_ns.saturating_sub(waiting.at_ns) / 1_000_000,
            sentence: seen.sentence,
            by_size,
        };
        let layout = Layout { at_s, moment, vmas_read: seen.vmas, complete: seen.complete, rows: seen.rows };
        let owners = (moment == Moment::Refusal).then_some(Owners { generation, holders });
        self.found.push((owners, Laid { generation, layout }));
    }

    fn unanswered(&mut self, Waiting { comm, tgid, .. }: &Waiting, why: Unanswered) {
        self.silent.get_or_insert_with(|| (0, why, comm.clone(), *tgid)).0 += 1;
    }

    /// Sentences for the report about what was left out.
    pub fn notes(&self) -> Option<String> {
        let (processes, why, comm, pid) = self.silent.as_ref()?;
        let who = count(*processes, "process", "processes");
        let first = if *processes > 1 { ", the first," } else { "" };
        let why = Unreadable::from(*why).sentence();
        Some(format!(
            "Who holds the VMAs of {who} at the limit is not known: {comm} (pid {pid}){first} {why}"
        ))
    }

    /// What was found, in the order of generations: who holds the VMAs at a refusal, and where they lie.
    pub fn take(&mut self) -> Vec<(Option<Owners>, Laid)> {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|(_, laid)| laid.generation);
        found
    }
}

/// In the child: what /proc/PID/maps says of the holders.
fn see(tgid: u32, hidden: bool, anonymizer: &Anonymizer) -> Option<Seen> {
    let file = File::open(format!("/proc/{tgid}/maps")).ok()?;
    let mut notes = Vec::new();
    let until = Instant::now() + MOST_TIME;
    let reader = BufReader::with_capacity(256 << 10, Timed { inner: &file, until });
    let beside = Beside { max_vmas: MOST_VMAS, policies: HashMap::new(), anonymizer: anonymizer.clone() };
    let threads = Proc::new("/proc").open(tgid).and_then(|handle| handle.stat()).map(|stat| stat.threads);
    let read = analysis::read(reader, beside, threads.ok(), &mut notes);
    let mut explanation = read.ok().filter(|explanation| explanation.vmas > 0)?;
    let ended = !procfs::still_there(&file);
    if hidden {
        explanation.hide_addresses();
    }
    // Of what was not read to the end no share of the whole is said.
    explanation.complete &= notes.is_empty() && !ended;
    verdict::conclude(&mut explanation);
    Some(Seen {
        vmas: explanation.vmas,
        complete: explanation.complete,
        ended,
        sentence: explanation.verdict.into_iter().next().unwrap_or_default(),
        rows: explanation.picture,
    })
}

/// In the child: what it says of who holds the addresses.
fn see_sizes(tgid: u32, hidden: bool) -> Option<Seen> {
    let file = File::open(format!("/proc/{tgid}/maps")).ok()?;
    let until = Instant::now() + MOST_TIME;
    let mut sizes = Sizes::default();
    let whole =
        sizes.read(BufReader::with_capacity(256 << 10, Timed { inner: &file, until }), MOST_VMAS).is_ok();
    let ended = !procfs::still_there(&file);
    let sentence = sizes.sentence()?;
    let mut rows = sizes.picture.finish();
    rows.iter_mut().filter(|_| hidden).for_each(Cluster::hide_addresses);
    Some(Seen { vmas: sizes.vmas, complete: whole && !ended, ended, sentence, rows })
}

/// Ends with an error at a deadline, so that what was read stands and is called incomplete.
struct Timed<'a> {
    inner: &'a File,
    until: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Refused;

    fn refused(generation: u64, class: u64) -> Refused {
        Refused {
            at_ns: 0,
            generation,
            tgid: std::process::id(),
            call: vmaudit_common::call::MMAP,
            class,
            ..Refused::example()
        }
    }

    #[test]
    fn one_look_for_each_address_space_near_the_limit_and_only_while_it_lives() {
        let mut looks = Looks::new(Anonymizer::off(), 0, &Patience::default());
        looks.notice(&refused(1, CLASS_SECTION));
        looks.look(|| 5_000_000, &|_| true);
        assert!(looks.take().is_empty(), "far from the limit nothing is read");
        for _ in 0..3 {
            looks.notice(&refused(2, CLASS_SECTION | 7));
        }
        looks.look(|| 5_000_000, &|_| true);
        looks.settle(&|_| true);
        let found = looks.take();
        assert_eq!(found.len(), 1);
        let (Some(Owners { generation: 2, holders }), laid) = &found[0] else { panic!("{found:?}") };
        assert_eq!((laid.generation, laid.layout.moment), (2, Moment::Refusal));
        assert_eq!(laid.layout.rows.iter().map(|row| row.vmas).sum::<u64>(), holders.vmas_read);
        assert!(holders.vmas_read > 5 && holders.complete, "{holders:?}");
        assert!(!holders.ended, "{holders:?}");
        assert_eq!((holders.after_ms, holders.at_s, holders.syscall.as_str()), (5, 0.005, "mmap"));
        looks.notice(&refused(3, CLASS_SECTION | 7));
        looks.last = None;
        looks.look(|| 0, &|_| false);
        looks.settle(&|_| false);
        assert!(looks.take().is_empty(), "what was read after the end is not of this address space");
        let me = |generation| Last { generation, tgid: std::process::id(), comm: "x".into(), vmas: 1 };
        looks.look_last(vec![me(5), me(4)], || 7_000_000, &|generation| generation != 3);
        let found = looks.take();
        assert!(found.iter().all(|(owners, _)| owners.is_none()), "of a refusal alone: {found:?}");
        let seen: Vec<_> =
            found.iter().map(|(_, it)| (it.generation, it.layout.moment, it.layout.at_s)).collect();
        assert_eq!(seen, [4, 5].map(|n| (n, Moment::SessionEnd, 0.007)));
        for generation in 10..100 {
            looks.notice(&refused(generation, CLASS_SECTION | 7));
        }
        assert!(looks.queue.len() <= LOOKS);
        looks.queue.clear();
        looks.renew();
        for generation in (10..15).chain(1_000..2_000) {
            looks.notice(&refused(generation, CLASS_SECTION | 7));
        }
        assert_eq!(looks.queue.len(), LOOKS);
        assert!(looks.queue.iter().all(|it| it.generation >= 1_000), "nobody twice");
    }
}
