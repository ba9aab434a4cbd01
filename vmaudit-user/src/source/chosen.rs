//! A source of which only some processes are wanted.
//!
//! The source below follows more, and whether a process is wanted is decided when it is first met (it ran already, it was
//! born, it made itself heard) and, as long as it is not, anew at each exec and every now and then: its name, its
//! executable, its owner and its cgroups can change. Children of a wanted process are wanted, whatever they become. Figures
//! are complete either way: the kernel keeps them for all.

mod intervals;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::domain::cgroup::Groups;
use crate::domain::process_filter::ProcessFilter;
use crate::model::event::{Event, Interval, ProcessFacts, ProcessId};
use crate::os::clock::same_start;
use crate::os::procfs::Proc;
use crate::os::rights;
use crate::source::Source;
use crate::text;
use intervals::Unwanted;

/// Between two looks at those that live and are not wanted.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Between two counts of who lives.
const COUNT_AGAIN: Duration = Duration::from_millis(20);
/// Steps from child to parent.
const ANCESTORS: usize = 32;
/// Details kept of refused calls of a process that is not decided on yet, and of stacks before their call.
const HELD: usize = 256;
/// Decisions kept about processes that have ended.
const ENDED: usize = 65_536;

/// The source, and what is wanted of it.
pub struct Chosen {
    inner: Box<dyn Source>,
    choice: Choice,
    /// Mappings and pieces of stacks, whose refused call comes next.
    before: Vec<(u64, Event)>,
    living: (Instant, usize),
    looked: Instant,
    /// Nobody wanted was met, and one is waited for.
    waits: bool,
}

/// Who is wanted, and who is known to be.
struct Choice {
    filter: ProcessFilter,
    /// With their children.
    children: bool,
    proc: Proc,
    known: HashMap<u32, Known>,
    /// Somebody who is wanted was met.
    met: bool,
    /// Entries of [`Choice::known`] of processes that have ended.
    ended: usize,
    /// Processes that were gone before all could be read that the filter asks for.
    untold: u64,
    /// How the counts of all others went.
    unwanted: Unwanted,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// CLOCK_BOOTTIME ns; 0 where nobody has told.
    start_ns: u64,
    wanted: bool,
    ended: bool,
}

/// What an event tells of a process.
#[derive(Clone, Copy, Default)]
struct Told<'a> {
    start_ns: u64,
    ppid: Option<u32>,
    uid: Option<u32>,
    comm: Option<&'a str>,
    facts: Option<&'a ProcessFacts>,
    /// Born by a fork and never exec'd: executable and cgroups are its parent's.
    forked: bool,
}

/// Numbers and names of all processes that fit and are no kernel threads, vmaudit itself left out; their children are not
/// among them unless they fit too.
pub(crate) fn matching(filter: &ProcessFilter) -> Vec<u32> {
    let mut choice = Choice::new(filter.clone(), false);
    let own = std::process::id();
    let pids = choice.proc.pids().unwrap_or_default();
    pids.into_iter().filter(|&pid| pid != own && choice.wanted(pid, &Told::default())).collect()
}

impl Chosen {
    /// Of `inner` those that fit `filter`, and with `children` whoever descends from them. `waits`: the session goes on until
    /// the first one comes.
    pub(crate) fn new(inner: Box<dyn Source>, filter: ProcessFilter, children: bool, waits: bool) -> Self {
        let now = Instant::now();
        let living = (now.checked_sub(COUNT_AGAIN).unwrap_or(now), 0);
        Self { inner, choice: Choice::new(filter, children), before: Vec::new(), living, looked: now, waits }
    }

    /// Those that live and were not wanted may have become so.
    fn look_again(&mut self, sink: &mut dyn FnMut(Event)) {
        if self.looked.elapsed() < LOOK_AGAIN {
            return;
        }
        self.looked = Instant::now();
        let living = self.inner.living_processes();
        self.choice.unwanted.keep(&living);
        for process in &living {
            let known = self.choice.known.get(&process.tgid);
            if known.is_some_and(|known| !known.wanted && known.start_ns == process.start_ns) {
                self.choice.known.remove(&process.tgid);
                self.choice.wanted(process.tgid, &Told { start_ns: process.start_ns, ..Told::default() });
            }
        }
        let _ = sink;
    }
}

impl Choice {
    fn new(filter: ProcessFilter, children: bool) -> Self {
        Self {
            filter,
            children,
            proc: Proc::default(),
            known: HashMap::new(),
            met: false,
            ended: 0,
            untold: 0,
            unwanted: Unwanted::default(),
        }
    }

    /// What of an event is passed on; `before`: what waits for its call.
    fn pass(&mut self, mut event: Event, before: &mut Vec<(u64, Event)>, sink: &mut dyn FnMut(Event)) {
        let wanted = match &mut event {
            Event::Mm(state) => {
                let told = Told {
                    start_ns: state.process.start_ns,
                    ppid: Some(state.ppid),
                    uid: Some(state.uid),
                    comm: Some(&state.comm),
                    facts: None,
                    forked: state.from_birth && !state.from_exec,
                };
                let wanted = self.wanted(state.process.tgid, &told);
                match wanted {
                    true => self.unwanted.tell(state.generation, sink),
                    false if state.dead_ns.is_some() => self.unwanted.forget(state.generation),
                    false => {}
                }
                for (_, held) in before.extract_if(.., |(of, _)| *of == state.generation) {
                    if wanted {
                        sink(held);
                    }
                }
                wanted
            }
            Event::Sample(it) => {
                let ppid = it.map_count.map(|_| it.ppid);
                self.wanted(it.process.tgid, &Told { start_ns: it.process.start_ns, ppid, ..Told::default() })
            }
            Event::Process(facts) => {
                if self.known.get(&facts.process.tgid).is_some_and(|known| !known.wanted) {
                    self.known.remove(&facts.process.tgid);
                }
                let told = Told { start_ns: facts.process.start_ns, facts: Some(facts), ..Told::default() };
                self.wanted(facts.process.tgid, &told)
            }
            Event::Ended(it) => {
                let (start_ns, ppid, comm) = (it.process.start_ns, Some(it.ppid), Some(it.comm.as_str()));
                let wanted = self.wanted(it.process.tgid, &Told { start_ns, ppid, comm, ..Told::default() });
                self.is_over(it.process.tgid);
                wanted
            }
            Event::OomVictim(it) => {
                let start_ns = it.process.start_ns;
                self.wanted(it.process.tgid, &Told { start_ns, ..Told::default() })
            }
            Event::Test(it) => {
                let start_ns = it.process.start_ns;
                self.wanted(it.process.tgid, &Told { start_ns, ..Told::default() })
            }
            Event::Change(it) => self.wanted(it.tgid, &Told::default()),
            Event::Refused(it) => self.wanted_with(before, (it.tgid, it.generation), sink),
            // Whose child a process was that is gone by now, its last figures tell.
            Event::Credit(it) if self.is_strange(it.tgid) => return hold(before, it.generation, event),
            Event::Credit(it) => self.wanted_with(before, (it.tgid, it.generation), sink),
            Event::Interval(it) => return self.pass_interval(std::mem::take(it), sink),
            Event::Mapped(it) => return hold(before, it.generation, event),
            Event::StackPiece(it) => return hold(before, it.generation, event),
            _ => true,
        };
        if wanted {
            sink(event);
        }
    }

    /// Of those that are wanted alone: neither report nor recording is to hold the counts of others.
    fn pass_interval(&mut self, interval: Interval, sink: &mut dyn FnMut(Event)) {
        let mut unwanted = std::mem::take(&mut self.unwanted);
        unwanted.pass(interval, &mut |process| self.wanted_now(process), sink);
        self.unwanted = unwanted;
    }

    /// Whether this process is wanted, by what can be read of it now.
    fn wanted_now(&mut self, process: ProcessId) -> bool {
        match self.known.get(&process.tgid) {
            Some(known) if known.start_ns == process.start_ns || known.start_ns == 0 => return known.wanted,
            Some(known) if known.start_ns > process.start_ns => return false,
            // Another one has the number now.
            Some(known) => {
                self.ended -= usize::from(known.ended);
                self.known.remove(&process.tgid);
            }
            None => {}
        }
        // Of who is gone its last figures will tell more.
        self.wanted(process.tgid, &Told::default())
    }

    /// Nothing is known of it, and it is gone.
    fn is_strange(&self, tgid: u32) -> bool {
        !self.known.contains_key(&tgid) && self.proc.open(tgid).is_err()
    }

    /// Whether a call of this process, in this address space, is wanted; what waits for it goes before it, or with it.
    fn wanted_with(
        &mut self,
        before: &mut Vec<(u64, Event)>,
        (tgid, generation): (u32, u64),
        sink: &mut dyn FnMut(Event),
    ) -> bool {
        let wanted = self.wanted(tgid, &Told::default());
        for (of, event) in std::mem::take(before) {
            match of == generation {
                true if wanted => sink(event),
                true => {}
                false => before.push((of, event)),
            }
        }
        wanted
    }

    /// Whether this process is wanted.
    fn wanted(&mut self, tgid: u32, told: &Told<'_>) -> bool {
        let _rights = rights::raised(&rights::PROCESSES);
        self.decide(tgid, told, 0)
    }

    fn decide(&mut self, tgid: u32, told: &Told<'_>, depth: usize) -> bool {
        if let Some(known) = self.known.get_mut(&tgid) {
            if told.start_ns == 0 || known.start_ns == told.start_ns {
                return known.wanted;
            }
            if known.start_ns == 0 {
                known.start_ns = told.start_ns;
                return known.wanted;
            }
            // Another one has the number now.
            self.ended -= usize::from(known.ended);
            self.known.remove(&tgid);
        }
        let (fits, parent, complete) = self.look(tgid, told);
        let parent = parent.filter(|&parent| self.children && parent != 0 && parent != tgid);
        let wanted = fits
            || depth < ANCESTORS
                && parent.is_some_and(|parent| self.decide(parent, &Told::default(), depth + 1));
        // Gone before anything could be read, by an event that tells nothing of it: a later one may.
        if !wanted && !complete && told.start_ns == 0 {
            return false;
        }
        self.untold += u64::from(!wanted && !complete);
        self.met |= wanted;
        self.known.insert(tgid, Known { start_ns: told.start_ns, wanted, ended: false });
        wanted
    }

    /// Whether it fits by itself, its parent, and whether all could be read that the filter asks for.
    fn look(&self, tgid: u32, told: &Told<'_>) -> (bool, Option<u32>, bool) {
        let handle = self.proc.open(tgid).ok();
        let stat = handle.as_ref().and_then(|handle| handle.stat().ok());
        // The number may be another process's by now.
        let handle = handle.filter(|_| {
            stat.as_ref()
                .is_some_and(|stat| told.start_ns == 0 || same_start(stat.start_ticks, told.start_ns))
        });
        let stat = stat.filter(|_| handle.is_some());
        let filter = &self.filter;
        let uid = handle.as_ref().map(|handle| handle.uid).or(told.uid);
        let comm = stat.as_ref().map(|stat| stat.comm.as_str()).or(told.comm);
        let parent = told.ppid.or(stat.as_ref().map(|stat| stat.ppid));
        if stat.as_ref().is_some_and(|stat| stat.kernel_thread) {
            return (false, None, true);
        }
        let told_exe = told.facts.and_then(|facts| facts.exe.clone());
        let exe = match filter.asks_for_file() {
            true => handle.as_ref().and_then(|handle| handle.exe()).or(told_exe),
            false => None,
        };
        let groups = match filter.asks_for_group() {
            true => handle
                .as_ref()
                .and_then(|handle| handle.cgroups())
                .map(|text| Groups::parse(&text))
                .or_else(|| told.facts?.cgroup.as_ref().map(|path| Groups::parse(&format!("0::{path}")))),
            false => None,
        };
        let complete = (uid.is_some() || filter.uids.is_empty())
            && (comm.is_some() || filter.comm.is_empty() && filter.called.is_empty())
            && (exe.is_some() || told.forked || !filter.asks_for_file())
            && (groups.is_some() || told.forked || !filter.asks_for_group());
        let named = filter.comm.is_empty()
            || comm.is_some_and(|comm| filter.name(comm))
            || handle.as_ref().is_some_and(|handle| handle.thread_named(|name| filter.name(name)));
        let fits = named
            && filter.one_of(tgid, comm.unwrap_or_default(), exe.as_deref())
            && (filter.uids.is_empty() || uid.is_some_and(|uid| filter.owner(uid)))
            && filter.file(exe.as_deref())
            && filter.group(groups.as_ref());
        (fits, parent, complete)
    }

    /// It has ended; its children may still ask for it.
    fn is_over(&mut self, tgid: u32) {
        if let Some(known) = self.known.get_mut(&tgid)
            && !known.ended
        {
            known.ended = true;
            self.ended += 1;
        }
        if self.ended > ENDED {
            self.known.retain(|_, known| !known.ended);
            self.ended = 0;
        }
    }
}

fn hold(before: &mut Vec<(u64, Event)>, generation: u64, event: Event) {
    if before.len() >= HELD {
        before.remove(0);
    }
    before.push((generation, event));
}

impl Source for Chosen {
    fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
        self.inner.wake_fd()
    }

    fn begin(&mut self, sink: &mut dyn FnMut(Event)) {
        let Self { inner, choice, before, .. } = self;
        inner.begin(&mut |event| choice.pass(event, before, sink));
        // What was there already is no loss.
        choice.untold = 0;
    }

    fn drain(&mut self, most: usize, sink: &mut dyn FnMut(Event)) -> bool {
        let Self { inner, choice, before, .. } = self;
        inner.drain(most, &mut |event| choice.pass(event, before, sink))
    }

    fn tick(&mut self, sink: &mut dyn FnMut(Event)) -> Duration {
        self.look_again(sink);
        let Self { inner, choice, before, .. } = self;
        inner.tick(&mut |event| choice.pass(event, before, sink))
    }

    fn child_changed(&mut self) {
        self.inner.child_changed();
    }

    fn living(&mut self) -> usize {
        if self.living.0.elapsed() >= COUNT_AGAIN {
            self.living = (Instant::now(), self.living_processes().len());
        }
        self.living.1
    }

    fn waits(&mut self) -> bool {
        self.waits &= !self.choice.met;
        self.waits
    }

    fn living_processes(&mut self) -> HashSet<ProcessId> {
        let choice = &mut self.choice;
        let all = self.inner.living_processes().into_iter();
        all.filter(|process| {
            choice.wanted(process.tgid, &Told { start_ns: process.start_ns, ..Told::default() })
        })
        .collect()
    }

    fn lives(&self, generation: u64) -> bool {
        self.inner.lives(generation)
    }

    fn awaited(&mut self, sink: &mut dyn FnMut(Event)) -> HashSet<ProcessId> {
        let Self { inner, choice, before, .. } = self;
        inner.awaited(&mut |event| choice.pass(event, before, sink))
    }

    fn checkpoint(&mut self, sink: &mut dyn FnMut(Event)) {
        let Self { inner, choice, before, .. } = self;
        inner.checkpoint(&mut |event| choice.pass(event, before, sink));
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) -> u64 {
        let living = self.living_processes().len() as u64;
        let Self { inner, choice, before, .. } = self;
        inner.finish(&mut |event| choice.pass(event, before, sink));
        if choice.untold > 0 {
            let ended = text::count(choice.untold, "process", "processes");
            sink(Event::Note(format!(
                "{ended} ended before vmaudit could read what the filter asks for; none descends from one that fits, so \
                 they are left out"
            )));
        }
        living
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Reached;

    /// Has nobody.
    struct Nobody;

    impl Source for Nobody {
        fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
            Ok(None)
        }
        fn drain(&mut self, _: usize, _: &mut dyn FnMut(Event)) -> bool {
            false
        }
        fn tick(&mut self, _: &mut dyn FnMut(Event)) -> Duration {
            Duration::MAX
        }
        fn living(&mut self) -> usize {
            0
        }
        fn living_processes(&mut self) -> HashSet<ProcessId> {
            HashSet::new()
        }
        fn lives(&self, _: u64) -> bool {
            false
        }
        fn awaited(&mut self, _: &mut dyn FnMut(Event)) -> HashSet<ProcessId> {
            HashSet::new()
        }
        fn finish(&mut self, _: &mut dyn FnMut(Event)) -> u64 {
            0
        }
    }

    #[test]
    fn who_is_waited_for_does_not_live() {
        for waits in [true, false] {
            let mut chosen = Chosen::new(Box::new(Nobody), ProcessFilter::default(), false, waits);
            assert_eq!((chosen.living(), chosen.still_running(), chosen.waits()), (0, 0, waits));
        }
    }

    /// In every frame of every session: a report and a recording of one process are of nobody else.
    #[test]
    fn intervals_are_of_those_that_are_wanted() {
        let own = std::process::id();
        let mut choice = Choice::new(ProcessFilter { pids: vec![own], ..ProcessFilter::default() }, false);
        let by = [own, 1, u32::MAX].map(|tgid| ProcessId { tgid, start_ns: 7 }).to_vec();
        let of = vec![Reached(70, 5, 5), Reached(1, 9, 9), Reached(2, 8, 8)];
        let all = Interval { every_ns: 10, from_ns: 0, to_ns: 10, of, by };
        let mut passed = Vec::new();
        choice.pass(Event::Interval(Box::new(all.clone())), &mut Vec::new(), &mut |event| passed.push(event));
        let [Event::Interval(it)] = passed.as_slice() else { panic!("{passed:?}") };
        assert_eq!((it.of.as_slice(), it.by.len(), it.to_ns), (&[Reached(70, 5, 5)][..], 1, 10));
        // Another process has the number of a stranger that is gone.
        choice.known.insert(own, Known { start_ns: 3, wanted: false, ended: true });
        choice.ended = 1;
        passed.clear();
        choice.pass(Event::Interval(Box::new(all)), &mut Vec::new(), &mut |event| passed.push(event));
        let [Event::Interval(it)] = passed.as_slice() else { panic!("{passed:?}") };
        assert_eq!((it.of.len(), choice.ended), (1, 0));
    }
}
