//! What is known so far: takes events, holds state, makes the report. No I/O, no clock: time comes from events.

mod failures;
mod rows;

use std::collections::{BTreeMap, HashMap, HashSet};

use vmaudit_common::call::{CALLS, Call};

pub use self::rows::Rows;
use crate::{
    diagnosis::KernelRules,
    report::{Frame, Holders, Limits},
    source::{
        Event, LimitSeen, Losses, MmState, ProcessId, RefusalGroup, Refused, Sample,
        memory_cgroup::MemoryCgroup,
    },
};

/// Processes kept one by one. Beyond this, ended ones are only counted, those with small peaks and no failures first,
/// so that a session of days does not eat the machine.
const MAX_PROCESSES: usize = 50_000;
/// How many are folded at a time, and how many must be new before the next time: so folding costs each process a
/// constant, whatever the number of those that cannot be folded.
const FOLD: usize = 10_000;
/// Details of refused calls kept per process and kind.
const MAX_EXAMPLES: usize = 20_000;
/// Images of one process kept one by one; of more, the oldest become one.
const MAX_IMAGES: usize = 64;
/// Kinds of refusal kept of images that have become one.
const MAX_KINDS: usize = 256;
/// Changes of vm.max_map_count kept apart.
const MAX_LIMIT_CHANGES: usize = 100;

/// What the source can see at all; what it cannot is null in the report, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Every change of map_count.
    pub changes: bool,
    /// Every exit of a watched call.
    pub exits: bool,
}

/// One refused call of each kind: by address space, call, errno and class.
type Examples = HashMap<(u64, Call, u8, u32), Refused>;

/// State of one session.
pub struct Audit {
    start_ns: u64,
    sight: Sight,
    rules: KernelRules,
    processes: BTreeMap<ProcessId, Process>,
    /// Details of refused calls, the first one of each kind.
    examples: Examples,
    /// Stacks resolved by the session, by generation and address.
    frames: HashMap<(u64, u64), Frame>,
    /// Words on stacks that are no return address, likewise.
    ends: HashSet<(u64, u64)>,
    /// What the VMAs of address spaces at the limit are.
    holders: HashMap<u64, Holders>,
    /// Memory cgroups that ran out of memory, by generation.
    cgroups: HashMap<u64, MemoryCgroup>,
    limits: Limits,
    /// The least vm.max_map_count of the session.
    least_limit: Option<u64>,
    limit_seen: Option<LimitSeen>,
    /// Between these two times (CLOCK_MONOTONIC ns) vm.max_map_count changed.
    limit_changes: Vec<(u64, u64)>,
    losses: Losses,
    folded: Folded,
    /// Number of processes at which the next folding is due.
    fold_at: usize,
    /// Kinds of refusal that found [`MAX_EXAMPLES`] reached.
    examples_full: u64,
}

/// What is kept of processes that are only counted.
#[derive(Clone, Copy, Debug, Default)]
struct Folded {
    processes: u64,
    /// Largest peak of them.
    peak: u64,
    /// Calls refused in them.
    failed: u64,
}

#[derive(Clone, Debug, Default)]
struct Process {
    ppid: Option<u32>,
    uid: Option<u32>,
    comm: String,
    exe: Option<String>,
    cgroup: Option<String>,
    started_ns: u64,
    ended_ns: Option<u64>,
    /// By generation.
    mms: BTreeMap<u64, MmState>,
    /// Images that the first of `mms` stands for beside itself.
    images_folded: u64,
    /// Bytes that were not unmapped by refused calls of kinds beyond [`MAX_KINDS`].
    kept_bytes: u64,
    samples: Option<Sampled>,
}

#[derive(Clone, Copy, Debug)]
struct Sampled {
    first: u32,
    last: u32,
    peak: u32,
    peak_ns: u64,
}

impl Audit {
    /// `start_ns`: the session's start, CLOCK_MONOTONIC.
    pub fn new(start_ns: u64, sight: Sight, rules: KernelRules) -> Self {
        Self {
            start_ns,
            sight,
            rules,
            processes: BTreeMap::new(),
            examples: HashMap::new(),
            frames: HashMap::new(),
            ends: HashSet::new(),
            holders: HashMap::new(),
            cgroups: HashMap::new(),
            limits: Limits::default(),
            least_limit: None,
            limit_seen: None,
            limit_changes: Vec::new(),
            losses: Losses::default(),
            folded: Folded::default(),
            fold_at: MAX_PROCESSES,
            examples_full: 0,
        }
    }

    /// Takes one event.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Mm(state) => self.mm(*state),
            Event::Sample(sample) => self.sample(&sample),
            Event::Change(_) | Event::Mapped(_) => {}
            Event::Refused(refused) => self.refused(*refused),
            Event::Named(named) => {
                let process = self.processes.entry(named.process).or_default();
                process.exe = named.exe.or(process.exe.take());
                process.cgroup = named.cgroup.or(process.cgroup.take());
            }
            Event::Limits(limits) => {
                self.limit_was(limits.max_map_count);
                self.limits = limits;
            }
            Event::LimitSeen(seen) => self.limit_seen(seen),
            Event::Lost(losses) => self.losses = losses,
        }
        if self.processes.len() > self.fold_at {
            self.fold();
            self.fold_at = MAX_PROCESSES.max(self.processes.len() + FOLD);
        }
    }

    fn mm(&mut self, state: MmState) {
        let process = self.processes.entry(state.process).or_default();
        process.ppid.get_or_insert(state.ppid);
        process.uid = Some(state.uid);
        if process.mms.last_key_value().is_none_or(|(newest, _)| *newest <= state.generation) {
            process.comm.clone_from(&state.comm);
            process.ended_ns = state.dead_ns;
        }
        if process.started_ns == 0 || state.born_ns < process.started_ns {
            process.started_ns = state.born_ns;
        }
        process.mms.insert(state.generation, state);
        if process.mms.len() > MAX_IMAGES {
            process.fold_oldest(&mut self.examples);
        }
    }

    fn sample(&mut self, sample: &Sample) {
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

    fn refused(&mut self, refused: Refused) {
        let key = (refused.generation, refused.call, refused.errno, refused.class);
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.entry(key).or_insert(refused);
        } else if !self.examples.contains_key(&key) {
            self.examples_full += 1;
        }
    }

    fn limit_was(&mut self, limit: Option<u64>) {
        self.least_limit = self.least_limit.into_iter().chain(limit).min();
    }

    fn limit_seen(&mut self, seen: LimitSeen) {
        self.limit_was(Some(seen.max_map_count.into()));
        let before = self.limit_seen.replace(seen);
        // The programs know the limit as it was at the last look, or at the session's start.
        if let Some(before) = before
            && before.max_map_count != seen.max_map_count
        {
            // Somebody who changes it all day gets one long time of doubt.
            let full = self.limit_changes.len() >= MAX_LIMIT_CHANGES;
            match self.limit_changes.last_mut() {
                Some(last) if full => last.1 = seen.at_ns,
                _ => self.limit_changes.push((before.at_ns, seen.at_ns)),
            }
        }
    }
    /// Stores a resolved frame for the report.
    pub fn resolved(&mut self, generation: u64, ip: u64, frame: Frame) {
        self.frames.insert((generation, ip), frame);
    }

    /// A word that a stack walk took for a return address and that is none: stacks end before it.
    pub fn stack_ends_before(&mut self, generation: u64, ip: u64) {
        self.ends.insert((generation, ip));
    }

    /// Stores what the VMAs of address spaces are, by generation.
    pub fn held(&mut self, holders: HashMap<u64, Holders>) {
        self.holders.extend(holders);
    }

    /// The cgroup that the youngest process of this number was last seen in.
    pub fn cgroup_of(&self, tgid: u32) -> Option<&str> {
        let all = ProcessId { tgid, start_ns: 0 }..=ProcessId { tgid, start_ns: u64::MAX };
        self.processes.range(all).next_back()?.1.cgroup.as_deref()
    }

    /// Stores the memory cgroups that ran out of memory, by generation of the address spaces in them.
    pub fn ran_out(&mut self, cgroups: HashMap<u64, MemoryCgroup>) {
        self.cgroups.extend(cgroups);
    }

    fn seconds(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    fn fold(&mut self) {
        // Without refusals first, then by peak. Those that were only mentioned have no row at all.
        let mut ended: Vec<(bool, u64, ProcessId)> = self
            .processes
            .iter()
            .filter(|(_, p)| p.ended_ns.is_some() || p.mms.is_empty() && p.samples.is_none())
            .map(|(id, p)| (p.refused() > 0, p.peak().unwrap_or(0), *id))
            .collect();
        ended.sort_unstable();
        // The largest peak of all stays, whatever else happened in its process.
        let largest = ended.iter().max_by_key(|(_, peak, _)| *peak).map(|(.., id)| *id);
        for (_, peak, id) in ended.into_iter().filter(|(.., id)| Some(*id) != largest).take(FOLD) {
            let Some(process) = self.processes.remove(&id) else { continue };
            if process.mms.is_empty() && process.samples.is_none() {
                continue;
            }
            self.folded.processes += 1;
            self.folded.peak = self.folded.peak.max(peak);
            self.folded.failed += process.refused();
            for mm in process.mms.values() {
                for kind in &mm.refusals {
                    self.examples.remove(&(mm.generation, kind.call, kind.errno, kind.class));
                }
            }
        }
    }
}

impl Process {
    /// Makes one of the two oldest images: the older one, with the sums of both and the larger peak.
    fn fold_oldest(&mut self, examples: &mut Examples) {
        let (Some((_, mut older)), Some((_, newer))) = (self.mms.pop_first(), self.mms.pop_first()) else {
            return;
        };
        self.images_folded += 1;
        if newer.peak > older.peak {
            (older.peak, older.peak_ns, older.comm) = (newer.peak, newer.peak_ns, newer.comm);
        }
        older.last = newer.last;
        older.dead_ns = newer.dead_ns;
        older.from_exec |= newer.from_exec;
        older.shared |= newer.shared;
        older.open_end |= newer.open_end;
        older.gaps = older.gaps.into_iter().chain(newer.gaps).reduce(u64::saturating_add);
        for (call, stat) in newer.calls {
            match older.calls.iter_mut().find(|(known, _)| *known == call) {
                Some((_, sum)) => {
                    sum.calls += stat.calls;
                    sum.added += stat.added;
                    sum.removed += stat.removed;
                    sum.failed += stat.failed;
                }
                None => older.calls.push((call, stat)),
            }
        }
        for kind in newer.refusals {
            let example = examples.remove(&(newer.generation, kind.call, kind.errno, kind.class));
            let of = |kind: &RefusalGroup| (kind.call, kind.errno, kind.class);
            let full = older.refusals.len() >= MAX_KINDS;
            match older.refusals.iter_mut().find(|known| of(known) == of(&kind)) {
                Some(sum) => {
                    sum.count += kind.count;
                    sum.first_ns = sum.first_ns.min(kind.first_ns);
                    sum.last_ns = sum.last_ns.max(kind.last_ns);
                    sum.kept_bytes = sum.kept_bytes.saturating_add(kind.kept_bytes);
                }
                None if !full => older.refusals.push(kind),
                // The sums above have its calls; they become a row without a cause.
                None => {
                    self.kept_bytes = self.kept_bytes.saturating_add(kind.kept_bytes);
                    continue;
                }
            }
            if let Some(example) = example {
                examples.entry((older.generation, kind.call, kind.errno, kind.class)).or_insert(example);
            }
        }
        self.mms.insert(older.generation, older);
    }

    fn peak(&self) -> Option<u64> {
        let exact = self.mms.values().map(|mm| u64::from(mm.peak)).max();
        exact.max(self.samples.map(|s| s.peak.into()))
    }

    /// Calls refused in it.
    fn refused(&self) -> u64 {
        self.mms.values().flat_map(|mm| &mm.calls).map(|(_, stat)| stat.failed).sum()
    }
}

/// The kernel's name of a call.
pub fn name_of(call: Call) -> &'static str {
    CALLS.get(usize::from(call)).map_or("[unknown]", |info| info.name)
}
#[cfg(test)]
mod tests;
