//! What has to be known besides the frames of a stretch: names and figures of whoever lives or ended in it, and what the
//! frames that were dropped said about what still counts. All of it is bounded; what is dropped is said.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::gone::Ended;
use super::lives::{Folded, Process, Space};
use super::remarks::Dropped;
use crate::model::event::{
    Change, Credit, Event, Interval, LimitSeen, MmState, ProcessId, Reached, Refused, Sample,
};
use crate::model::session::Gone;
use crate::model::test::{TestOf, WithoutTest};
use crate::os::clock::now_ns;

/// Processes that ended in the stretch and are kept, and their images.
const DEAD: (usize, usize) = (10_000, 20_000);
/// Processes, or address spaces, of which nobody knows yet whether they live.
const UNKNOWN: usize = 10_000;
/// So long it may take until that is known, ns: figures of the living are told every second.
const SOON: u64 = 60_000_000_000;
/// Images kept apart of a process: the newest, and of the others those with the largest peaks; the rest are added to these.
const IMAGES: usize = 64;
/// Examples of refused calls kept of the time before.
const EXAMPLES: usize = 2_000;
/// Names of addresses and stacks, together, and of places, of one address space.
const NAMES: (usize, usize) = (5_000, 5_000);
/// Names of all address spaces.
const ALL_NAMES: usize = 200_000;
/// Credits that count, of all address spaces.
const CREDITS: usize = 500_000;
/// Users, and processes whose addresses are hidden.
const NUMBERS: usize = 10_000;
/// Sentences.
const NOTES: usize = 200;
/// Values of vm.max_map_count.
const LIMITS: usize = 100;
/// What a stretch lacks of a session with ledgers.
const LEDGERS: &str = "Who changed the count (--stacks) is told of whole sessions: it is in the session's own report, and \
                       not in a stretch";

/// See the module.
#[derive(Default)]
pub struct Kept {
    /// Of the session: the newest of each kind.
    session: BTreeMap<&'static str, Event>,
    first_limits: Option<Event>,
    notes: VecDeque<Event>,
    processes: BTreeMap<ProcessId, Process>,
    spaces: HashMap<u64, Space>,
    /// Looks at the limit before the stretch that found another one, and the last.
    limits: VecDeque<LimitSeen>,
    /// What was lost by the beginning of the stretch.
    lost: Option<Event>,
    examples: BTreeMap<(u64, u8, u8, u64, u64), Event>,
    /// Of addresses that are not the caller's to know; `true`: the process was met.
    hidden: BTreeMap<u32, bool>,
    users: BTreeMap<u32, Event>,
    ended: Ended,
    /// Names, and credits, now.
    names: usize,
    credits: usize,
    /// The session keeps a ledger of each address space.
    ledgers: bool,
    dropped: Dropped,
}

impl Kept {
    /// Takes an event that tells a state; `false`: it belongs to the time line.
    pub fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Mm(state) => self.mm(state),
            Event::Process(it) => self.fact(it.process, "1 process", event),
            Event::CommandLine(it) => self.fact(it.process, "2 command", event),
            Event::Test(it) => self.test(it, event),
            Event::OomCgroups(it) => self.fact(it.process, "3 cgroups", event),
            Event::Limits(_) => {
                self.first_limits.get_or_insert_with(|| event.clone());
                self.session.insert("limits", event.clone());
            }
            Event::Rlimits(_) => drop(self.session.insert("rlimits", event.clone())),
            Event::Hooks(_) => drop(self.session.insert("hooks", event.clone())),
            Event::Conditions(_) => drop(self.session.insert("conditions", event.clone())),
            Event::VmaBytes(_) => drop(self.session.insert("vma_bytes", event.clone())),
            Event::User(it) => {
                if self.users.len() < NUMBERS || self.users.contains_key(&it.uid) {
                    self.users.insert(it.uid, event.clone());
                } else {
                    self.dropped.users += 1;
                }
            }
            Event::Note(_) => {
                self.notes.push_back(event.clone());
                if self.notes.len() > NOTES {
                    self.notes.pop_front();
                    self.dropped.notes += 1;
                }
            }
            Event::AddressesHidden(tgid) => {
                if self.hidden.len() < NUMBERS || self.hidden.contains_key(tgid) {
                    self.hidden.entry(*tgid).or_insert(false);
                } else {
                    self.dropped.hidden = true;
                }
            }
            Event::Owners(it) => self.space_fact(it.generation, "owners", event),
            Event::Laid(it) => self.space_fact(it.generation, "laid", event),
            Event::CgroupExhausted(it) => self.space_fact(it.generation, "cgroup", event),
            Event::Place(it) => self.place(it.generation, it.place, event),
            Event::Frame(it) => self.name(it.generation, ("frame", it.ip, 0), event),
            Event::Stack(it) => self.name(it.generation, ("stack", it.at_ns, it.tid.into()), event),
            Event::StackEnds(it) => self.name(it.generation, ("ends", it.ip, 0), event),
            // The sums of a ledger are of the whole session, so no stretch shows them.
            Event::Credit(it) if it.key != 0 => self.ledgers = true,
            // Nobody looks at these, or they are said anew.
            Event::Mapped(_) | Event::StackPiece(_) | Event::Gone(_) | Event::FiguresEnd => {}
            Event::End(_) => drop(self.session.insert("z end", event.clone())),
            Event::Cut(_)
            | Event::Interval(_)
            | Event::Sample(_)
            | Event::Change(Change { .. })
            | Event::Refused(_)
            | Event::Credit(_)
            | Event::LimitSeen(_)
            | Event::Lost(_)
            | Event::Mark(_)
            | Event::Ended(_)
            | Event::OomVictim(_) => return false,
        }
        true
    }

    fn space(&mut self, generation: u64) -> &mut Space {
        self.spaces.entry(generation).or_insert_with(Space::met_now)
    }

    fn space_fact(&mut self, generation: u64, what: &'static str, event: &Event) {
        self.space(generation).facts.insert(what, event.clone());
    }

    fn name(&mut self, generation: u64, key: (&'static str, u64, u64), event: &Event) {
        let space = self.space(generation);
        let before = space.names.len();
        let dropped = space.names.put(key, event, NAMES.0);
        let more = space.names.len() - before;
        self.named(more, dropped);
    }

    fn place(&mut self, generation: u64, place: u32, event: &Event) {
        let space = self.space(generation);
        let before = space.places.len();
        let dropped = space.places.put(("place", place.into(), 0), event, NAMES.1);
        let more = space.places.len() - before;
        self.named(more, dropped);
    }

    /// Beyond the bound of all, those who have the most give some.
    fn named(&mut self, more: usize, dropped: usize) {
        self.names += more;
        self.dropped.names += dropped as u64;
        if self.names > ALL_NAMES
            && let Some(most) = self.spaces.values_mut().max_by_key(|space| space.all_names())
        {
            let part = (ALL_NAMES / 20).max(most.all_names() / 4);
            let left = most.all_names().saturating_sub(part);
            let mut dropped = most.names.drop_to(left.saturating_sub(most.places.len()));
            dropped += most.places.drop_to(left);
            self.names -= dropped;
            self.dropped.names += dropped as u64;
        }
    }

    fn credit(&mut self, credit: Credit) {
        let space = self.space(credit.generation);
        let before = space.credits.len();
        space.credit(credit);
        let after = space.credits.len();
        self.credits = (self.credits + after).saturating_sub(before);
        if self.credits > CREDITS
            && let Some(most) = self.spaces.values_mut().max_by_key(|space| space.credits.len())
        {
            // The lowest: a report says of these levels that they were not sampled.
            let dropped = most.credits.drain(..most.credits.len().div_ceil(4)).count();
            self.credits -= dropped.min(self.credits);
            self.dropped.credits += dropped as u64;
        }
    }

    fn fact(&mut self, process: ProcessId, what: &'static str, event: &Event) {
        let process = self.processes.entry(process).or_insert_with(Process::met_now);
        process.facts.insert(what, event.clone());
    }

    /// As the audit has it: a name stays, and one that was asked in vain stays so until there is one.
    fn test(&mut self, it: &TestOf, event: &Event) {
        let weight = |it: &TestOf| match it.without {
            Some(WithoutTest::None) => 0,
            Some(WithoutTest::Unknown) => 1,
            None => 2,
        };
        const TEST: &str = "2 test";
        let known = self.processes.get(&it.process).and_then(|process| process.facts.get(TEST));
        if !matches!(known, Some(Event::Test(known)) if weight(known) > weight(it)) {
            self.fact(it.process, TEST, event);
        }
    }

    /// One that has been forgotten stays so.
    fn late_fact(&mut self, process: ProcessId, what: &'static str, event: &Event) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.facts.insert(what, event.clone());
        }
    }

    fn mm(&mut self, state: &MmState) {
        self.space(state.generation).known = true;
        let process = self.processes.entry(state.process).or_insert_with(Process::met_now);
        let ledger = None;
        process.mms.insert(state.generation, Event::Mm(Box::new(MmState { ledger, ..state.clone() })));
        let dead = |event: &Event| match event {
            Event::Mm(state) => state.dead_ns,
            _ => None,
        };
        process.dead_ns = match process.mms.values().all(|event| dead(event).is_some()) {
            true => process.mms.values().filter_map(dead).max(),
            false => None,
        };
        let Folded { forgotten, outgrown } = process.fold(IMAGES);
        for generation in forgotten {
            let examples = (generation, 0, 0, 0, 0)..(generation.saturating_add(1), 0, 0, 0, 0);
            self.dropped.examples += self.examples.range(examples).count() as u64;
            self.forget_space(generation);
        }
        outgrown.into_iter().for_each(|generation| self.forget_makers(generation));
    }

    /// Takes an event of the time line that is no part of the stretch any more.
    pub fn before(&mut self, event: Event) {
        match event {
            Event::Interval(it) => {
                let Interval { every_ns, from_ns, to_ns, of, .. } = *it;
                for reached in of {
                    let Reached(generation, ..) = reached;
                    let level = Interval { every_ns, from_ns, to_ns, of: vec![reached], by: Vec::new() };
                    self.space(generation).level = Some(level);
                }
            }
            Event::Credit(it) => self.credit(*it),
            Event::Lost(_) => self.lost = Some(event),
            Event::LimitSeen(seen) => {
                let value = |at: usize| self.limits.get(at).map(|seen| seen.max_map_count);
                let last = self.limits.len().wrapping_sub(1);
                // Of looks that found the same, the first and the last say all.
                if value(last) == Some(seen.max_map_count)
                    && value(last.wrapping_sub(1)) == Some(seen.max_map_count)
                {
                    self.limits.pop_back();
                }
                self.limits.push_back(seen);
                if self.limits.len() > LIMITS {
                    self.limits.pop_front();
                    self.dropped.limits += 1;
                }
            }
            Event::Refused(it) => {
                let Refused { generation, call, errno, class, site, .. } = *it;
                let key = (generation, call, errno, class, site);
                if self.examples.len() < EXAMPLES {
                    self.examples.entry(key).or_insert(Event::Refused(it));
                } else if !self.examples.contains_key(&key) {
                    self.dropped.examples += 1;
                }
            }
            Event::Ended(ref it) => {
                let (process, at_ns) = (it.process, it.at_ns);
                self.late_fact(process, "4 ended", &event);
                if let Some(process) = self.processes.get_mut(&process) {
                    process.gone_ns = Some(at_ns);
                }
            }
            Event::OomVictim(ref it) => self.late_fact(it.process, "5 chosen", &event),
            Event::Sample(sample) => self.look(sample),
            _ => {}
        }
    }

    fn look(&mut self, sample: Sample) {
        if sample.map_count.is_none() && !self.processes.contains_key(&sample.process) {
            return;
        }
        let process = self.processes.entry(sample.process).or_insert_with(Process::met_now);
        if sample.map_count.is_none() {
            process.gone_ns = Some(sample.at_ns);
        }
        match process.looks.as_mut_slice() {
            [_, largest, last] => {
                if last.map_count > largest.map_count {
                    *largest = last.clone();
                }
                *last = sample;
            }
            _ => process.looks.push(sample),
        }
    }

    /// Forgets who ended before the stretch began.
    pub fn clear(&mut self, from_ns: u64) {
        self.ended.begins(from_ns);
        self.meet_hidden();
        // Who was met long ago, and nobody knows more: its figures would have come.
        let long_ago = from_ns.min(now_ns().saturating_sub(SOON));
        let ended = &mut self.ended;
        self.processes.retain(|_, it| {
            if it.is_unknown() {
                return it.met_ns >= long_ago;
            }
            let before = it.ended_ns().is_some_and(|at_ns| at_ns < from_ns);
            if before {
                ended.before(it.refused());
            }
            !before
        });
        self.drop_surplus();
        let living: BTreeSet<u64> = self.processes.values().flat_map(Process::generations).collect();
        // What was told of an address space may come before its figures.
        let mut unknown: Vec<(u64, u64)> = Vec::new();
        self.spaces.retain(|generation, it| {
            let waits = !it.known && it.met_ns >= long_ago;
            if waits {
                unknown.push((it.met_ns, *generation));
            }
            waits
                || living.contains(generation)
                || it.level.as_ref().is_some_and(|level| level.to_ns >= from_ns)
        });
        unknown.sort_unstable();
        let surplus = unknown.len().saturating_sub(UNKNOWN);
        unknown.into_iter().take(surplus).for_each(|(_, generation)| self.forget_space(generation));
        self.names = self.spaces.values().map(Space::all_names).sum();
        self.credits = self.spaces.values().map(|space| space.credits.len()).sum();
        self.examples.retain(|(generation, ..), _| living.contains(generation));
    }

    /// Of those that ended in the stretch, the ones that ended first, and of those that nobody knows more of, the ones that
    /// were met first.
    fn drop_surplus(&mut self) {
        let mut dead: Vec<(u64, ProcessId, usize)> = Vec::new();
        let mut unknown: Vec<(u64, ProcessId)> = Vec::new();
        for (id, it) in &self.processes {
            if it.is_unknown() {
                unknown.push((it.met_ns, *id));
            } else if let Some(at_ns) = it.ended_ns() {
                dead.push((at_ns, *id, it.mms.len()));
            }
        }
        unknown.sort_unstable();
        for (_, id) in unknown.iter().take(unknown.len().saturating_sub(UNKNOWN)) {
            self.processes.remove(id);
        }
        dead.sort_unstable();
        let (mut left, mut images) = (dead.len(), dead.iter().map(|(.., images)| images).sum::<usize>());
        for (at_ns, id, of_it) in dead {
            if left <= DEAD.0 && images <= DEAD.1 {
                break;
            }
            (left, images) = (left - 1, images - of_it);
            if let Some(process) = self.processes.remove(&id) {
                self.ended.without_room(at_ns, process.refused());
            }
        }
    }

    /// A process's number is another's when it has ended.
    fn meet_hidden(&mut self) {
        let there: BTreeSet<u32> = self.processes.keys().map(|process| process.tgid).collect();
        self.hidden.retain(|tgid, met| {
            let lives = there.contains(tgid);
            *met |= lives;
            lives || !*met
        });
    }

    /// Credits and their places.
    fn forget_makers(&mut self, generation: u64) {
        if let Some(space) = self.spaces.get_mut(&generation) {
            let credits = std::mem::take(&mut space.credits).len();
            let places = std::mem::take(&mut space.places).len();
            self.credits -= credits.min(self.credits);
            self.names -= places.min(self.names);
        }
    }

    fn forget_space(&mut self, generation: u64) {
        if let Some(space) = self.spaces.remove(&generation) {
            self.names -= space.all_names().min(self.names);
            self.credits -= space.credits.len().min(self.credits);
        }
    }

    /// Processes that ended before the stretch.
    pub fn gone(&self) -> Gone {
        self.ended.before_it()
    }

    /// What comes before the frames of a stretch.
    pub fn first(&self) -> impl Iterator<Item = &Event> {
        let session =
            ["hooks", "conditions", "rlimits"].into_iter().filter_map(|what| self.session.get(what));
        let facts = self.processes.values().flat_map(|it| it.facts.values());
        let names = self.sorted().into_iter();
        let names = names.flat_map(|it| it.facts.values().chain(it.places.all()).chain(it.names.all()));
        session.chain(&self.first_limits).chain(facts).chain(names).chain(self.examples.values())
    }

    /// What came before it and still counts, as events of the time line.
    pub fn carried(&self) -> Vec<Event> {
        let mut intervals: Vec<&Interval> = self.spaces.values().filter_map(|it| it.level.as_ref()).collect();
        intervals.sort_by_key(|it| (it.to_ns, it.of.first().map(|Reached(generation, ..)| *generation)));
        let looks = self.processes.values().flat_map(|it| it.looks.iter().cloned().map(Event::Sample));
        let limits = self.limits.iter().copied().map(Event::LimitSeen);
        let intervals = intervals.into_iter().cloned().map(|it| Event::Interval(Box::new(it)));
        let credits = self.sorted().into_iter().flat_map(|it| it.credits.iter().cloned());
        let credits = credits.map(|it| Event::Credit(Box::new(it)));
        let lost = self.lost.iter().cloned();
        lost.chain(looks).chain(limits).chain(intervals).chain(credits).collect()
    }

    fn sorted(&self) -> Vec<&Space> {
        let mut all: Vec<(&u64, &Space)> = self.spaces.iter().collect();
        all.sort_unstable_by_key(|(generation, _)| **generation);
        all.into_iter().map(|(_, space)| space).collect()
    }

    /// What comes behind them: figures as they are now.
    pub fn latest(&self) -> impl Iterator<Item = &Event> {
        let mms = self.processes.values().flat_map(|it| it.mms.values());
        let session = ["limits", "vma_bytes"].into_iter().filter_map(|what| self.session.get(what));
        mms.chain(session).chain(self.notes.iter()).chain(self.users.values())
    }

    /// What found no room, and what else is said of the whole.
    pub fn remarks(&self) -> Vec<Event> {
        let hidden = self.hidden.keys().map(|tgid| Event::AddressesHidden(*tgid));
        let ledgers = self.ledgers.then(|| LEDGERS.to_owned());
        let dropped = self.dropped.remarks(self.ended.no_room());
        hidden.chain(dropped.chain(ledgers).map(Event::Note)).collect()
    }

    /// The end of the session, where it has come.
    pub fn end(&self) -> Option<&Event> {
        self.session.get("z end")
    }
}
