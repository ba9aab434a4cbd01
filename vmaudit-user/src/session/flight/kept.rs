//! What has to be known besides the frames of a stretch: names and figures of whoever lives or ended in it, and what the
//! frames that were dropped said about what still counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::model::event::{
    Change, Credit, Event, Interval, LimitSeen, MmState, ProcessId, Reached, Refused, Sample,
};

/// Processes that ended in the stretch and are kept.
const DEAD: usize = 10_000;
/// Images kept of a process: the newest, and of the others those with the largest peaks.
const IMAGES: usize = 64;
/// Examples of refused calls kept of the time before.
const EXAMPLES: usize = 2_000;
/// Names of addresses, stacks and places, together, of one address space.
const NAMES: usize = 5_000;
/// Sentences.
const NOTES: usize = 200;
/// Values of vm.max_map_count.
const LIMITS: usize = 100;

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
    examples: BTreeMap<(u64, u8, u8, u64, u64), Event>,
    /// Of addresses that are not the caller's to know.
    hidden: BTreeSet<u32>,
    users: BTreeMap<u32, Event>,
    /// Processes that found no room.
    left_out: u64,
}

#[derive(Default)]
struct Process {
    mms: BTreeMap<u64, Event>,
    /// When its last address space ended; `None`: one lives.
    dead_ns: Option<u64>,
    facts: BTreeMap<&'static str, Event>,
    /// Looks before the stretch: the first, the largest and the last.
    looks: Vec<Sample>,
    gone_ns: Option<u64>,
}

#[derive(Default)]
struct Space {
    /// The last interval before the stretch in which it changed.
    level: Option<Interval>,
    /// Who was credited with what it had then: see `domain::audit::makers`.
    credits: Vec<Credit>,
    /// Names, by what they are and where.
    names: BTreeMap<(&'static str, u64, u64), Event>,
}

impl Space {
    fn name(&mut self, kind: &'static str, at: u64, more: u64, event: &Event) {
        if self.names.len() < NAMES || self.names.contains_key(&(kind, at, more)) {
            self.names.insert((kind, at, more), event.clone());
        }
    }

    fn credit(&mut self, credit: Credit) {
        while let Some(mut top) = self.credits.pop_if(|top| top.level > credit.base) {
            if top.base < credit.base {
                top.level = credit.base;
                self.credits.push(top);
                break;
            }
        }
        self.credits.push(credit);
    }
}

fn peak(event: &Event) -> u32 {
    match event {
        Event::Mm(state) => state.peak,
        _ => 0,
    }
}

impl Kept {
    /// Takes an event that tells a state; `false`: it belongs to the time line.
    pub fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Mm(state) => self.mm(state),
            Event::Process(it) => self.fact(it.process, "1 process", event),
            Event::CommandLine(it) => self.fact(it.process, "2 command", event),
            Event::Test(it) => self.fact(it.process, "2 test", event),
            Event::OomCgroups(it) => self.fact(it.process, "3 cgroups", event),
            Event::Limits(_) => {
                self.first_limits.get_or_insert_with(|| event.clone());
                self.session.insert("limits", event.clone());
            }
            Event::Rlimits(_) => drop(self.session.insert("rlimits", event.clone())),
            Event::Hooks(_) => drop(self.session.insert("hooks", event.clone())),
            Event::Conditions(_) => drop(self.session.insert("conditions", event.clone())),
            Event::Lost(_) => drop(self.session.insert("lost", event.clone())),
            Event::VmaBytes(_) => drop(self.session.insert("vma_bytes", event.clone())),
            Event::User(it) => {
                if self.users.len() < DEAD {
                    self.users.insert(it.uid, event.clone());
                }
            }
            Event::Note(_) => {
                self.notes.push_back(event.clone());
                if self.notes.len() > NOTES {
                    self.notes.pop_front();
                }
            }
            Event::AddressesHidden(tgid) => {
                if self.hidden.len() < DEAD {
                    self.hidden.insert(*tgid);
                }
            }
            Event::Owners(it) => self.space(it.generation).name("owners", 0, 0, event),
            Event::CgroupExhausted(it) => self.space(it.generation).name("cgroup", 0, 0, event),
            Event::Place(it) => self.space(it.generation).name("a place", it.place.into(), 0, event),
            Event::Frame(it) => self.space(it.generation).name("frame", it.ip, 0, event),
            Event::Stack(it) => self.space(it.generation).name("stack", it.at_ns, it.tid.into(), event),
            Event::StackEnds(it) => self.space(it.generation).name("ends", it.ip, 0, event),
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
            | Event::Mark(_)
            | Event::Ended(_)
            | Event::OomVictim(_) => return false,
        }
        true
    }

    fn space(&mut self, generation: u64) -> &mut Space {
        self.spaces.entry(generation).or_default()
    }

    fn fact(&mut self, process: ProcessId, what: &'static str, event: &Event) {
        self.processes.entry(process).or_default().facts.insert(what, event.clone());
    }

    fn mm(&mut self, state: &MmState) {
        let process = self.processes.entry(state.process).or_default();
        process.mms.insert(state.generation, Event::Mm(Box::new(state.clone())));
        let dead = |event: &Event| match event {
            Event::Mm(state) => state.dead_ns,
            _ => None,
        };
        process.dead_ns = match process.mms.values().all(|event| dead(event).is_some()) {
            true => process.mms.values().filter_map(dead).max(),
            false => None,
        };
        while process.mms.len() > IMAGES {
            // Of the older ones, the least remarkable.
            let older = process.mms.iter().rev().skip(1);
            let Some(least) = older.min_by_key(|(_, event)| peak(event)).map(|(generation, _)| *generation)
            else {
                return;
            };
            process.mms.remove(&least);
            self.spaces.remove(&least);
        }
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
            Event::Credit(it) => self.space(it.generation).credit(*it),
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
                }
            }
            Event::Refused(it) => {
                let Refused { generation, call, errno, class, site, .. } = *it;
                if self.examples.len() < EXAMPLES {
                    let key = (generation, call, errno, class, site);
                    self.examples.entry(key).or_insert(Event::Refused(it));
                }
            }
            Event::Ended(ref it) => {
                let (process, at_ns) = (it.process, it.at_ns);
                self.fact(process, "4 ended", &event);
                self.processes.entry(process).or_default().gone_ns = Some(at_ns);
            }
            Event::OomVictim(ref it) => self.fact(it.process, "5 chosen", &event),
            Event::Sample(sample) => self.look(sample),
            _ => {}
        }
    }

    fn look(&mut self, sample: Sample) {
        let process = self.processes.entry(sample.process).or_default();
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
        let before = |at_ns: Option<u64>| at_ns.is_some_and(|at_ns| at_ns < from_ns);
        self.processes.retain(|_, it| !(before(it.dead_ns) || it.mms.is_empty() && before(it.gone_ns)));
        let mut dead: Vec<(u64, ProcessId)> =
            self.processes.iter().filter_map(|(id, it)| Some((it.dead_ns.or(it.gone_ns)?, *id))).collect();
        if dead.len() > DEAD {
            dead.sort_unstable();
            let surplus = dead.len() - DEAD;
            self.left_out += surplus as u64;
            for (_, id) in dead.into_iter().take(surplus) {
                self.processes.remove(&id);
            }
        }
        let living: BTreeSet<u64> = self.processes.values().flat_map(|it| it.mms.keys().copied()).collect();
        // What was told of an address space may come before its figures.
        self.spaces.retain(|generation, it| {
            living.contains(generation) || it.level.as_ref().is_some_and(|level| level.to_ns >= from_ns)
        });
        self.examples.retain(|(generation, ..), _| living.contains(generation));
    }

    /// What comes before the frames of a stretch.
    pub fn first(&self) -> impl Iterator<Item = &Event> {
        let session =
            ["hooks", "conditions", "rlimits"].into_iter().filter_map(|what| self.session.get(what));
        let facts = self.processes.values().flat_map(|it| it.facts.values());
        let names = self.sorted().into_iter().flat_map(|space| space.names.values());
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
        looks.chain(limits).chain(intervals).chain(credits).collect()
    }

    fn sorted(&self) -> Vec<&Space> {
        let mut all: Vec<(&u64, &Space)> = self.spaces.iter().collect();
        all.sort_unstable_by_key(|(generation, _)| **generation);
        all.into_iter().map(|(_, space)| space).collect()
    }

    /// What comes behind them: figures as they are now.
    pub fn latest(&self) -> impl Iterator<Item = &Event> {
        let mms = self.processes.values().flat_map(|it| it.mms.values());
        let session = ["limits", "lost", "vma_bytes"].into_iter().filter_map(|what| self.session.get(what));
        mms.chain(session).chain(self.notes.iter()).chain(self.users.values())
    }

    /// Processes that ended in a stretch and found no room, and what else is said of the whole.
    pub fn remarks(&self) -> Vec<Event> {
        let hidden = self.hidden.iter().map(|tgid| Event::AddressesHidden(*tgid));
        let left_out = (self.left_out > 0).then(|| {
            Event::Note(format!(
                "The flight recorder had no room for {} that ended: they have no rows",
                crate::text::count(self.left_out, "process", "processes")
            ))
        });
        hidden.chain(left_out).collect()
    }

    /// The end of the session, where it has come.
    pub fn end(&self) -> Option<&Event> {
        self.session.get("z end")
    }
}
