//! What is looked up about a process or a refused call while a session runs; each look is bounded, and what it finds
//! is given back as events.

pub(crate) mod command_lines;
pub(crate) mod commit;
mod exec_looks;
pub(crate) mod memory_cgroup;
mod oom_cgroups;
pub(crate) mod pids_cgroup;
pub(crate) mod symbols;
mod test_names;
pub(crate) mod vma_owners;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use vmaudit_common::MAKERS_COPIES;

use crate::domain::application::Anonymizer;
use crate::domain::audit::{Audit, Last};
use crate::model::event::{CgroupExhausted, CommandLine, Event, ProcessId, StackEnds};
use crate::os::apart::Patience;
use crate::os::clock::now_ns;
use crate::os::rights;
use oom_cgroups::OomLooks;
use symbols::{Resolved, Symbols};
use vma_owners::Looks;

/// Between two glances at a look that is under way.
const GLANCE: Duration = Duration::from_millis(5);
/// Stacks whose mappings are looked up between two batches of records, and when there are no more records.
const STACKS: (usize, usize) = (1, 16);

/// What is looked up when calls are refused.
pub struct Enrichment {
    symbols: Symbols,
    owners: Option<Looks>,
    /// Where the caller asked for them.
    command_lines: Option<command_lines::Looks>,
    tests: Option<test_names::Looks>,
    cgroups: memory_cgroup::Looks,
    oom: OomLooks,
    task_cgroups: pids_cgroup::Looks,
    commits: commit::Looks,
}

impl Enrichment {
    /// Without `symbols`, stacks stay as addresses. `anonymizer`: for what is said of files. `start_ns`: the session's
    /// start, CLOCK_MONOTONIC.
    pub fn new(symbols: bool, anonymizer: Anonymizer, start_ns: u64, patience: &Patience) -> Self {
        Self {
            symbols: Symbols::new(!symbols, patience),
            owners: Some(Looks::new(anonymizer, start_ns, patience)),
            command_lines: None,
            tests: Some(test_names::Looks::new(patience)),
            cgroups: memory_cgroup::Looks::default(),
            oom: OomLooks::default(),
            task_cgroups: pids_cgroup::Looks::default(),
            commits: commit::Looks::default(),
        }
    }

    /// The same, with the command lines of processes.
    pub fn with_command_lines(self, patience: &Patience) -> Self {
        Self { command_lines: Some(command_lines::looks(patience)), ..self }
    }

    /// The same, without names of tests: for a session that goes on for months and keeps its last stretch.
    pub fn for_flight(anonymizer: Anonymizer, start_ns: u64, patience: &Patience) -> Self {
        Self { tests: None, ..Self::new(true, anonymizer, start_ns, patience) }
    }

    /// Looks only at what verdicts need.
    pub fn for_verdicts(patience: &Patience) -> Self {
        Self::for_a_screen(false, patience)
    }

    /// The same, and with `symbols` at what [`Enrichment::name_places`] needs.
    pub fn for_a_screen(symbols: bool, patience: &Patience) -> Self {
        Self {
            symbols: Symbols::new(!symbols, patience),
            owners: None,
            command_lines: None,
            tests: None,
            cgroups: memory_cgroup::Looks::default(),
            oom: OomLooks::default(),
            task_cgroups: pids_cgroup::Looks::default(),
            commits: commit::Looks::default(),
        }
    }

    /// Takes note of an event before anybody else does, and tells `sink` what has to be known before it.
    pub fn notice(&mut self, event: &mut Event, audit: &Audit, sink: &mut dyn FnMut(Event)) {
        match event {
            Event::Refused(refused) => {
                refused.stack.truncate(audit.frames_wanted());
                if rights::hides_addresses(refused.tgid) {
                    sink(Event::AddressesHidden(refused.tgid));
                }
                self.symbols.notice(refused);
                if let Some(owners) = &mut self.owners {
                    owners.notice(refused);
                }
                self.commits.notice(refused, audit.overcommit_memory());
                if let Some(tasks) = &mut refused.tasks {
                    self.task_cgroups.notice(refused.tgid, tasks);
                }
                self.cgroups.notice(refused, audit.cgroup_of(refused.tgid));
                for (generation, cgroup) in self.cgroups.take() {
                    sink(Event::CgroupExhausted(CgroupExhausted { generation, cgroup }));
                }
            }
            Event::Credit(credit) => {
                if let Some(place) = self.symbols.credited(credit) {
                    if place.place == 1 && rights::hides_addresses(credit.tgid) {
                        sink(Event::AddressesHidden(credit.tgid));
                    }
                    sink(Event::Place(Box::new(place)));
                }
            }
            // Its stacks are not shown.
            Event::Mm(state)
                if state.dead_ns.is_some() && state.peak < MAKERS_COPIES && state.ledger.is_none() =>
            {
                self.symbols.without_places(state.generation);
            }
            Event::Process(facts) => {
                if let Some(path) = &facts.cgroup {
                    self.oom.meet(path);
                }
                if let Some(it) = &mut self.command_lines {
                    it.notice(facts.process);
                }
                if let Some(it) = &mut self.tests {
                    it.notice(facts);
                }
            }
            Event::Test(it) => self.tests.iter_mut().for_each(|tests| tests.told(it.process)),
            Event::OomVictim(victim) => {
                let found = self.oom.look(victim, audit.cgroup_of(victim.process.tgid));
                found.into_iter().for_each(|cgroups| sink(Event::OomCgroups(Box::new(cgroups))));
            }
            Event::Mapped(mapped) => self.symbols.told(mapped),
            Event::StackPiece(piece) => self.symbols.piece(piece),
            _ => {}
        }
    }

    /// What was found of processes since the last time.
    pub fn found(&mut self, sink: &mut dyn FnMut(Event)) {
        for (process, arguments) in self.command_lines.iter_mut().flat_map(command_lines::Looks::take) {
            if let Some(arguments) = arguments {
                sink(Event::CommandLine(Box::new(CommandLine { process, arguments })));
            }
        }
        for test in self.tests.iter_mut().flat_map(test_names::Looks::take) {
            sink(Event::Test(Box::new(test)));
        }
    }

    /// Goes on with looks: a few between two batches of records (`more` are waiting), else as many as may be.
    pub fn look(&mut self, more: bool, lives: &dyn Fn(u64) -> bool) {
        self.symbols.remember(if more { STACKS.0 } else { STACKS.1 }, lives);
        if let Some(owners) = self.owners.as_mut().filter(|_| !more) {
            owners.look(now_ns, lives);
        }
        if let Some(it) = self.command_lines.as_mut().filter(|_| !more) {
            it.look();
        }
        // A test is over in a moment.
        if let Some(it) = &mut self.tests {
            it.look();
        }
    }

    /// When it has to be asked to look again at the latest: sooner than `next` while a look is under way.
    pub fn wake(&self, next: Instant) -> Instant {
        let busy = self.symbols.busy()
            || self.owners.as_ref().is_some_and(Looks::busy)
            || self.command_lines.as_ref().is_some_and(command_lines::Looks::busy)
            || self.tests.as_ref().is_some_and(test_names::Looks::busy);
        if busy { next.min(Instant::now() + GLANCE) } else { next }
    }

    /// Bounds that are for a session begin anew, in one that goes on for months; tells what was found of holders.
    pub fn renew(&mut self, sink: &mut dyn FnMut(Event)) {
        self.told(sink);
        self.owners.iter_mut().for_each(Looks::renew);
        self.oom.renew();
        self.symbols.renew();
        self.task_cgroups = pids_cgroup::Looks::default();
        self.commits = commit::Looks::default();
    }

    /// Forgets the stacks of address spaces whose examples the audit no longer keeps.
    pub fn keep(&mut self, wanted: &HashSet<u64>) {
        self.symbols.keep(wanted);
    }

    /// Names of the places that VMAs of this address space came from, while it goes on. Reads the files of symbols: somebody
    /// waits up to a second.
    pub fn name_places(&mut self, generation: u64, sink: &mut dyn FnMut(Event)) {
        tell(self.symbols.resolve_now(generation), sink);
    }

    /// Ends the looks that are under way, while the source still knows who lives.
    pub fn settle(&mut self, lives: &dyn Fn(u64) -> bool) {
        self.symbols.settle(lives);
        if let Some(owners) = &mut self.owners {
            owners.settle(lives);
        }
        if let Some(it) = &mut self.command_lines {
            it.settle();
        }
        if let Some(it) = &mut self.tests {
            it.settle();
        }
    }

    /// Looks at these, when nothing else will come and the source still knows who lives.
    pub fn look_last(&mut self, living: Vec<Last>, lives: &dyn Fn(u64) -> bool) {
        if let Some(owners) = &mut self.owners {
            owners.look_last(living, now_ns, lives);
        }
    }

    /// Tells of the tests of all processes: nothing more will come of them.
    pub fn finish_tests(&mut self, sink: &mut dyn FnMut(Event)) {
        // The last records came after the last look.
        if let Some(it) = &mut self.tests {
            it.settle();
            it.end();
        }
        self.found(sink);
    }

    /// Processes whose tests may still be told.
    pub fn awaits_tests_of(&self) -> HashSet<ProcessId> {
        self.tests.iter().flat_map(test_names::Looks::awaited).collect()
    }

    /// What was found, always in the same order, and sentences about what was not. Reads the files of symbols.
    pub fn finish(mut self, sink: &mut dyn FnMut(Event)) {
        self.told(sink);
        tell(self.symbols.resolve(), sink);
        self.symbols
            .notes()
            .into_iter()
            .chain(self.owners.and_then(|it| it.notes()))
            .for_each(|note| sink(Event::Note(note)));
    }

    /// What was found since the last time, while the session goes on. Reads the files of symbols for half a second at most.
    pub fn so_far(&mut self, sink: &mut dyn FnMut(Event)) {
        self.told(sink);
        tell(self.symbols.resolve_new(), sink);
    }

    fn told(&mut self, sink: &mut dyn FnMut(Event)) {
        self.found(sink);
        for (owners, laid) in self.owners.as_mut().map(Looks::take).into_iter().flatten() {
            owners.into_iter().for_each(|owners| sink(Event::Owners(Box::new(owners))));
            sink(Event::Laid(Box::new(laid)));
        }
    }
}

/// Names as events, always in the same order.
fn tell(mut resolved: Resolved, sink: &mut dyn FnMut(Event)) {
    resolved.frames.sort_by_key(|it| (it.generation, it.ip));
    for named in resolved.frames {
        sink(Event::Frame(Box::new(named)));
    }
    for stack in resolved.stacks {
        sink(Event::Stack(Box::new(stack)));
    }
    resolved.ends.sort_unstable();
    for (generation, ip) in resolved.ends {
        sink(Event::StackEnds(StackEnds { generation, ip }));
    }
}
