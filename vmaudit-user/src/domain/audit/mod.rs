//! What is known so far: takes events, holds state, makes the report. No I/O, no clock: time comes from events.

mod bounds;
mod ends;
mod failures;
mod folded;
mod frames;
mod gaps;
mod group;
mod images;
mod layouts;
mod ledger;
mod limit;
mod lodgers;
mod makers;
mod marks;
mod minutes;
mod now;
mod rows;
mod series;
mod size;
mod standing;
mod task_names;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::domain::audit::folded::Folded;
pub use crate::domain::audit::layouts::Last;
use crate::domain::audit::limit::LimitSoFar;
use crate::domain::audit::lodgers::Lodgers;
use crate::domain::audit::makers::Piles;
pub use crate::domain::audit::marks::{MARKS, OPEN as OPEN_MARKS};
use crate::domain::audit::minutes::Minutes;
pub use crate::domain::audit::now::Now;
pub use crate::domain::audit::rows::Rows;
pub use crate::domain::audit::standing::{SeenSoFar, Standing};
use crate::domain::series::Series;
use crate::model::end::{Ended, OomCgroups};
use crate::model::event::{
    Cut, End, Event, FollowedStack, Losses, MemoryCgroup, MmState, ProcessId, RefusalGroup, Refused, Sample,
    Within,
};
use crate::model::report::{Condition, Frame, Holders, Hook, Limits, Rlimits};
use crate::model::session::{Header, KernelRules, Sight};
use crate::text::total;

/// Rows of processes in a report; of more, the less remarkable are added up by name.
pub const ROWS: usize = 1000;
/// The same when every process is to have a row.
pub const ALL_ROWS: usize = 100_000;
/// How many processes beyond the number of rows are waited for before some are added up, so that each costs a constant.
const SURPLUS: usize = 1000;
/// Details of refused calls kept per process and kind, for each row; and in all.
const EXAMPLES: (usize, usize) = (8, 20_000);
/// Details that keep the whole stack, and frames of the others.
const WHOLE_STACKS: (usize, usize) = (200, 32);
/// Address spaces that were the first to be refused a call: their processes stay, because vmaudit looks at these.
const FIRST_REFUSED: usize = 64;
/// Images of one process kept one by one; of more, the oldest become one.
const MAX_IMAGES: usize = 64;
/// In a crowd of more processes than the first, so many images as the second.
const CROWD: (usize, usize) = (100, 4);
/// Kinds of refusal kept of images that have become one.
const MAX_KINDS: usize = 64;
/// Bytes that the rows of a report take at most, as JSON.
const MOST_ROW_BYTES: usize = 6_000_000;
/// Sentences kept about what could not be seen.
const MAX_NOTES: usize = 1000;
/// Users whose names are kept.
const USERS: usize = 1000;

/// One refused call of each kind and place.
type Examples = HashMap<group::Place, Refused>;

/// State of one session.
pub struct Audit {
    start_ns: u64,
    /// When what runs already was attached to, CLOCK_BOOTTIME ns; `None` where nothing was.
    attached_ns: Option<u64>,
    /// From here on, CLOCK_MONOTONIC ns, there is a time line; `None`: all along.
    stretch_ns: Option<u64>,
    sight: Sight,
    rules: KernelRules,
    processes: BTreeMap<ProcessId, Box<Process>>,
    /// Details of refused calls, the first one of each kind.
    examples: Examples,
    /// Stacks resolved by the session, by generation and address.
    frames: HashMap<(u64, u64), (Frame, Vec<Frame>)>,
    /// Stacks followed by the session, with sentences about them, by generation, task and time of the call.
    stacks: HashMap<(u64, u32, u64), FollowedStack>,
    /// Who is credited with what address spaces have.
    makers: Piles,
    /// Words on stacks that are no return address, likewise.
    ends: HashSet<(u64, u64)>,
    /// What the VMAs of address spaces at the limit are.
    holders: HashMap<u64, Holders>,
    layouts: layouts::Layouts,
    /// Memory cgroups that ran out of memory, by generation.
    cgroups: HashMap<u64, MemoryCgroup>,
    limits: Limits,
    /// Limits that the command began with.
    rlimits: Option<Rlimits>,
    limit: LimitSoFar,
    losses: Losses,
    gaps: gaps::Gaps,
    folded: Folded,
    /// Rows of the report at most.
    rows: usize,
    /// Number of processes at which the next adding up is due.
    fold_at: usize,
    /// The process that was born first: the command.
    root: Option<ProcessId>,
    /// See [`FIRST_REFUSED`].
    first_refused: HashSet<u64>,
    /// Processes without an address space of their own.
    lodgers: Lodgers,
    /// How counts went, by generation; some may not be known otherwise yet.
    series: HashMap<u64, Box<Series>>,
    /// The same by minutes.
    minutes: HashMap<u64, Minutes>,
    /// How long intervals are meant to be, ns; 0: none was told.
    every_ns: u64,
    /// Stretches that somebody named.
    marks: marks::Marks,
    /// Kinds of refusal that found [`EXAMPLES`] reached.
    examples_full: u64,
    /// Of those that have no row any more.
    tests_unknown: u64,
    hooks: Vec<Hook>,
    conditions: Vec<Condition>,
    notes: Vec<String>,
    /// No figure comes any more.
    settled: bool,
    end: Option<End>,
    cut: Option<Cut>,
    vma_bytes: Option<f64>,
    /// Names of users by number.
    users: BTreeMap<u32, String>,
    /// Processes whose addresses are not the caller's to know.
    hidden: HashSet<u32>,
    /// The latest time that an event bore.
    seen_ns: u64,
    /// Address spaces of which details are kept, and which were no process's at the last [`Audit::forget_details`].
    strange: HashSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Process {
    ppid: Option<u32>,
    uid: Option<u32>,
    comm: String,
    /// A crowd of children shares that of one parent.
    exe: Option<Arc<str>>,
    arguments: Option<Vec<String>>,
    test: Option<String>,
    /// Somebody asked for its test in vain.
    test_unknown: bool,
    cgroup: Option<String>,
    within: Within,
    started_ns: u64,
    ended_ns: Option<u64>,
    /// In the order of their generations.
    mms: Vec<MmState>,
    /// Images that the first of `mms` stands for beside itself.
    images_folded: u64,
    /// Bytes that were not unmapped by refused calls of kinds beyond [`MAX_KINDS`].
    kept_bytes: u64,
    samples: Option<Sampled>,
    /// The samples over time.
    looks: Option<Box<Series>>,
    ended: Option<Box<Ended>>,
    /// Its memory cgroups when the OOM killer chose it.
    oom: Option<Box<OomCgroups>>,
}

#[derive(Clone, Copy, Debug)]
struct Sampled {
    first: u32,
    last: u32,
    peak: u32,
    peak_ns: u64,
}

impl Audit {
    /// The audit of a session with this header, before its first event.
    pub fn of(header: &Header) -> Self {
        let rows = if header.all_rows { ALL_ROWS } else { ROWS };
        let audit = Self::new(header.start_ns, header.sight, header.rules.clone(), rows);
        let from_ns = header.stretch.as_ref().map(|it| it.from_ns).filter(|from| *from > header.start_ns);
        let makers = Piles::new(header.stretch.is_some());
        Self { attached_ns: header.attached_ns, stretch_ns: from_ns, makers, ..audit }
    }

    /// `start_ns`: the session's start, CLOCK_MONOTONIC.
    /// `rows`: processes with a row of their own, at most.
    pub fn new(start_ns: u64, sight: Sight, rules: KernelRules, rows: usize) -> Self {
        Self {
            start_ns,
            attached_ns: None,
            stretch_ns: None,
            sight,
            rules,
            processes: BTreeMap::new(),
            examples: HashMap::new(),
            frames: HashMap::new(),
            stacks: HashMap::new(),
            makers: Piles::default(),
            ends: HashSet::new(),
            holders: HashMap::new(),
            layouts: layouts::Layouts::default(),
            cgroups: HashMap::new(),
            limits: Limits::default(),
            rlimits: None,
            limit: LimitSoFar::default(),
            losses: Losses::default(),
            gaps: gaps::Gaps::default(),
            folded: Folded::default(),
            rows,
            fold_at: rows + SURPLUS,
            root: None,
            first_refused: HashSet::new(),
            lodgers: Lodgers::default(),
            series: HashMap::new(),
            minutes: HashMap::new(),
            every_ns: 0,
            marks: marks::Marks::default(),
            examples_full: 0,
            tests_unknown: 0,
            hooks: Vec::new(),
            conditions: Vec::new(),
            notes: Vec::new(),
            settled: false,
            end: None,
            cut: None,
            vma_bytes: None,
            users: BTreeMap::new(),
            hidden: HashSet::new(),
            seen_ns: start_ns,
            strange: HashSet::new(),
        }
    }

    /// Takes one event.
    pub fn apply(&mut self, mut event: Event) {
        bounds::bound(&mut event);
        self.seen_ns = self.seen_ns.max(event.at_ns().unwrap_or(0));
        match event {
            Event::Mm(state) => self.mm(*state),
            Event::Interval(interval) => self.interval(&interval),
            Event::Sample(sample) => self.sample(&sample),
            Event::Change(_) | Event::Mapped(_) | Event::StackPiece(_) => {}
            Event::Refused(refused) => self.refused(*refused),
            Event::Credit(credit) => self.makers.credit(&credit),
            Event::Place(place) => self.makers.place(*place),
            Event::Process(named) => {
                let process = self.processes.entry(named.process).or_default();
                process.exe = named.exe.map(Arc::from).or(process.exe.take());
                if let Some(cgroup) = named.cgroup {
                    process.cgroup = Some(cgroup);
                    process.within = named.within;
                }
            }
            Event::CommandLine(line) => {
                if let Some(process) = self.processes.get_mut(&line.process) {
                    process.arguments = Some(line.arguments);
                }
            }
            Event::Test(it) => self.took_test(*it),
            Event::User(user) => {
                if self.users.len() < USERS {
                    self.users.insert(user.uid, user.name);
                }
            }
            Event::Limits(limits) => {
                self.limit.read(limits.max_map_count, self.seen_ns);
                self.limits = limits;
            }
            Event::Rlimits(rlimits) => self.rlimits = Some(rlimits),
            Event::LimitSeen(seen) => self.limit.looked(seen),
            Event::Mark(set) => self.mark(*set),
            Event::Lost(losses) => self.took_losses(losses),
            Event::Owners(owners) => {
                self.holders.insert(owners.generation, owners.holders);
            }
            Event::Laid(it) => self.layouts.take(*it),
            Event::CgroupExhausted(it) => {
                self.cgroups.insert(it.generation, it.cgroup);
            }
            Event::Ended(ended) => self.took_end(*ended),
            Event::OomVictim(_) => {}
            Event::OomCgroups(cgroups) => self.oom_cgroups(*cgroups),
            Event::Frame(named) => {
                self.frames.insert((named.generation, named.ip), (named.frame, named.inlined));
            }
            Event::Stack(it) => match it.place {
                Some(place) => self.makers.followed(place, *it),
                None => drop(self.stacks.insert((it.generation, it.tid, it.at_ns), *it)),
            },
            Event::StackEnds(word) => {
                self.ends.insert((word.generation, word.ip));
            }
            Event::Hooks(hooks) => self.hooks = hooks,
            Event::Conditions(conditions) => self.conditions = conditions,
            Event::Note(note) => {
                if self.notes.len() < MAX_NOTES {
                    self.notes.push(note);
                }
            }
            // Each costs a look at all processes: a session tells of it in a crowd, a file could a million times.
            Event::Gone(over) if self.crowded() => self.fold(&over.into_iter().collect()),
            Event::Gone(_) => {}
            Event::VmaBytes(bytes) => self.vma_bytes = Some(bytes),
            Event::AddressesHidden(tgid) => {
                self.hidden.insert(tgid);
            }
            Event::FiguresEnd => self.settle(),
            Event::End(end) => self.took_session_end(end),
            Event::Cut(cut) => self.took_cut(cut),
        }
    }

    fn mm(&mut self, state: MmState) {
        self.seen(state.process);
        self.lodgers.saw(&state);
        if state.dead_ns.is_some() {
            self.makers.ended(&state);
        }
        self.joined(&state);
        let (crowd, few) = CROWD;
        let most = if self.processes.len() > crowd { few } else { MAX_IMAGES };
        let id = state.process;
        let process = self.processes.entry(state.process).or_default();
        process.ppid.get_or_insert(state.ppid);
        process.uid = Some(state.uid);
        if process.mms.last().is_none_or(|newest| newest.generation <= state.generation) {
            process.comm.clone_from(&state.comm);
            process.ended_ns = state.dead_ns;
        }
        if process.started_ns == 0 || state.born_ns < process.started_ns {
            process.started_ns = state.born_ns;
        }
        match process.mms.binary_search_by_key(&state.generation, |mm| mm.generation) {
            Ok(known) => drop(process.mms.get_mut(known).map(|mm| *mm = state)),
            Err(new) => {
                // Nearly all processes have one.
                process.mms.reserve_exact(1);
                process.mms.insert(new, state);
            }
        }
        self.fold_images(id, most);
    }

    fn seen(&mut self, id: ProcessId) {
        if self.root.is_none_or(|root| id.start_ns < root.start_ns) {
            self.root = Some(id);
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.seen(sample.process);
        let process = self.processes.entry(sample.process).or_default();
        let Some(count) = sample.map_count else {
            process.ended_ns = Some(sample.at_ns);
            return;
        };
        process.ppid.get_or_insert(sample.ppid);
        process.comm.clone_from(&sample.comm);
        if process.started_ns == 0 {
            process.started_ns = sample.at_ns;
        }
        process.looked(sample, count);
        let seen = process.samples.get_or_insert(Sampled {
            first: count,
            last: count,
            peak: count,
            peak_ns: sample.at_ns,
        });
        seen.last = count;
        if count > seen.peak {
            seen.peak = count;
            seen.peak_ns = sample.at_ns;
        }
    }

    /// Frames of a stack that there is room for.
    pub fn frames_wanted(&self) -> usize {
        let (whole, frames) = WHOLE_STACKS;
        if self.examples.len() < whole { usize::MAX } else { frames }
    }

    fn refused(&mut self, refused: Refused) {
        if self.first_refused.len() < FIRST_REFUSED {
            self.first_refused.insert(refused.generation);
        }
        let key = (refused.generation, refused.call, refused.errno, refused.class, refused.site);
        if self.examples.len() < (self.rows * EXAMPLES.0).min(EXAMPLES.1) {
            self.examples.entry(key).or_insert(refused);
        } else if !self.examples.contains_key(&key) {
            self.examples_full += 1;
        }
    }

    /// Processes of whom a report may show addresses, each with its owner: a call was refused,
    /// they died of a fault, or it says who made their VMAs.
    pub fn refused_processes(&self) -> impl Iterator<Item = (u32, Option<u32>)> {
        let named = self.makers.named();
        self.processes
            .iter()
            .filter(move |(id, process)| {
                process.refused() > 0 || process.faulted() || named.contains(&id.tgid)
            })
            .map(|(id, process)| (id.tgid, process.uid))
    }

    /// Where the recording was cut, if it was one and was.
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Owners of processes with a row, each once.
    pub fn owners(&self) -> BTreeSet<u32> {
        self.processes.values().filter_map(|process| process.uid).take(USERS).collect()
    }

    /// What was not seen so far.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Addresses of this process are not the caller's to know.
    pub fn hides_addresses(&self, pid: u32) -> bool {
        self.hidden.contains(&pid)
    }

    /// vm.overcommit_memory as last read.
    pub fn overcommit_memory(&self) -> Option<u64> {
        self.limits.overcommit_memory
    }

    /// The cgroup that the youngest process of this number was last seen in.
    pub fn cgroup_of(&self, tgid: u32) -> Option<&str> {
        self.youngest(tgid)?.cgroup.as_deref()
    }

    /// Name of the youngest process of this number, as last seen.
    pub fn name_of(&self, tgid: u32) -> Option<&str> {
        self.youngest(tgid).map(|process| process.comm.as_str()).filter(|comm| !comm.is_empty())
    }

    fn youngest(&self, tgid: u32) -> Option<&Process> {
        let all = ProcessId { tgid, start_ns: 0 }..=ProcessId { tgid, start_ns: u64::MAX };
        self.processes.range(all).next_back().map(|(_, process)| &**process)
    }

    fn seconds(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }
}

/// Where examples of a kind may be: the most frequent place first.
fn places(generation: u64, kind: &RefusalGroup) -> impl Iterator<Item = group::Place> {
    let (call, errno, class) = (kind.call, kind.errno, kind.class);
    let mut sites: Vec<_> = kind.sites.iter().map(|site| (site.count, site.last_ns, site.site)).collect();
    sites.sort_unstable_by_key(|site| std::cmp::Reverse(*site));
    let sites = sites.into_iter().map(|(_, _, site)| site).chain([0]);
    sites.map(move |site| (generation, call, errno, class, site))
}

impl Process {
    fn faulted(&self) -> bool {
        self.ended
            .as_ref()
            .and_then(|ended| ended.signal.as_ref())
            .is_some_and(|signal| signal.fault.is_some())
    }

    /// It died of a signal.
    fn killed(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.signal().is_some())
    }

    fn peak(&self) -> Option<u64> {
        let exact = self.mms.iter().map(|mm| u64::from(mm.peak)).max();
        exact.max(self.samples.map(|s| s.peak.into()))
    }

    /// Images that became one before they were told.
    fn joined(&self) -> u64 {
        total(self.mms.iter().filter_map(|mm| mm.joined.as_ref()).map(|it| it.images))
    }

    /// Calls refused in it.
    fn refused(&self) -> u64 {
        total(self.mms.iter().flat_map(|mm| &mm.calls).map(|(_, stat)| stat.failed))
    }
}

#[cfg(test)]
mod tests;
