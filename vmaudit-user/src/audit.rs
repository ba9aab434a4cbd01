//! What is known so far: takes events, holds state, makes the report. No I/O, no clock: time comes from events.

mod failures;
mod rows;

use std::collections::{BTreeMap, HashMap, HashSet};

use vmaudit_common::call::{CALLS, Call};

pub use self::rows::Rows;
use crate::{
    diagnosis::KernelRules,
    report::{Frame, Holders, Limits},
    source::{Event, LimitSeen, Losses, MmState, ProcessId, Refused, Sample, memory_cgroup::MemoryCgroup},
};

/// Processes kept one by one. Beyond this, ended ones are only counted, those with small peaks and no failures first,
/// so that a session of days does not eat the machine.
const MAX_PROCESSES: usize = 50_000;
/// How many are folded at a time, and how many must be new before the next time: so folding costs each process a
/// constant, whatever the number of those that cannot be folded.
const FOLD: usize = 10_000;
/// Details of refused calls kept per process and kind.
const MAX_EXAMPLES: usize = 20_000;
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

/// State of one session.
pub struct Audit {
    start_ns: u64,
    sight: Sight,
    rules: KernelRules,
    processes: BTreeMap<ProcessId, Process>,
    /// Details of refused calls: by address space, call, errno and class; the first one of each.
    examples: HashMap<(u64, Call, u8, u32), Refused>,
    /// Stacks resolved by the session, by generation and address.
    frames: HashMap<(u64, u64), Frame>,
    /// Words on stacks that are no return address, likewise.
    ends: HashSet<(u64, u64)>,
    /// What the VMAs of address spaces at the limit are.
    holders: HashMap<u64, Holders>,
    /// Memory cgroups that ran out of memory, by generation.
    cgroups: HashMap<u64, MemoryCgroup>,
    limits: Limits,
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
    mms: BTreeMap<u64, MmState>,
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
            Event::Task(task) => {
                let process = self.processes.entry(task.process).or_default();
                process.ppid.get_or_insert(task.ppid);
                if task.exit.is_some() {
                    process.ended_ns = Some(task.at_ns);
                }
            }
            Event::Limits(limits) => self.limits = limits,
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

    fn limit_seen(&mut self, seen: LimitSeen) {
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
mod tests {
    use super::*;
    use crate::source::{CallStat, Doubt, Named, RefusalGroup, Section};
    use vmaudit_common::{CLASS_MC1_SHIFT, CLASS_SECTION, call::MUNMAP};

    fn audit() -> Audit {
        Audit::new(0, Sight { changes: true, exits: true }, KernelRules::for_release("6.18"))
    }

    /// A process with one address space; `failed` refused calls, one example.
    fn process(audit: &mut Audit, n: u32, peak: u32, failed: u64, ended: bool) {
        let kind = RefusalGroup {
            call: MUNMAP,
            errno: libc::ENOMEM as u8,
            class: 0,
            count: failed,
            first_ns: 1,
            last_ns: 2,
            kept_bytes: 0,
        };
        if failed > 0 {
            let refused =
                Refused { generation: n.into(), tgid: n, tid: n, call: MUNMAP, ..Refused::example() };
            audit.apply(Event::Refused(Box::new(refused)));
        }
        audit.apply(Event::Mm(Box::new(MmState {
            generation: n.into(),
            process: ProcessId { tgid: n, start_ns: n.into() },
            ppid: 1,
            uid: 0,
            comm: "x".into(),
            first: 1,
            last: 1,
            peak,
            born_ns: n.into(),
            peak_ns: n.into(),
            dead_ns: ended.then_some(u64::from(n) + 1),
            from_birth: true,
            from_snapshot: false,
            from_exec: false,
            shared: false,
            gaps: Some(0),
            open_end: false,
            calls: vec![(MUNMAP, CallStat { calls: failed + 1, added: 0, removed: 0, failed })],
            refusals: if failed > 0 { vec![kind] } else { Vec::new() },
        })));
    }

    #[test]
    fn nothing_is_certain_where_programs_were_skipped() {
        let mut audit = audit();
        let refused = Refused {
            call: MUNMAP,
            class: CLASS_SECTION | 7 | 7 << CLASS_MC1_SHIFT,
            section: Some(Section { mc0: 65530, mc1: 65530, ..Section::default() }),
            ..Refused::example()
        };
        process(&mut audit, 1, 65530, 1, true);
        let mm = audit.processes.values_mut().next().unwrap().mms.values_mut().next().unwrap();
        mm.refusals[0].class = refused.class;
        audit.apply(Event::Refused(Box::new(refused)));
        let certain = |audit: &Audit| audit.rows().failures[0].certain;
        assert!(certain(&audit));
        let doubt = Doubt { causes: true, ..Doubt::default() };
        audit.apply(Event::Lost(Losses { doubt, ..Losses::default() }));
        assert!(!certain(&audit));
        assert!(audit.rows().failures[0].sentence.contains("program_skipped"));
    }

    #[test]
    fn each_doubt_costs_what_it_concerns() {
        let mut audit = audit();
        process(&mut audit, 1, 20, 0, true);
        let mut seen = |doubt| {
            audit.apply(Event::Lost(Losses { doubt, ..Losses::default() }));
            let rows = audit.rows();
            (rows.processes[0].map_count.exact, rows.complete, rows.exact_calls)
        };
        let none = Doubt::default();
        assert_eq!(seen(none), (true, true, true));
        assert_eq!(seen(Doubt { peaks: true, ..none }), (false, true, true));
        assert_eq!(seen(Doubt { processes: true, ..none }), (true, false, false));
        assert_eq!(seen(Doubt { calls: true, ..none }), (true, true, false));
    }

    #[test]
    fn processes_with_refusals_are_bounded_too_and_stay_counted() {
        let mut audit = audit();
        let n = 3 * MAX_PROCESSES as u32;
        for pid in 1..=n {
            process(&mut audit, pid, if pid == 77 { 5000 } else { 20 }, 2, true);
        }
        assert!(audit.processes.len() <= MAX_PROCESSES + FOLD);
        assert!(audit.examples.len() <= MAX_EXAMPLES);
        let rows = audit.rows();
        assert_eq!(rows.processes[0].map_count.peak, Some(5000), "the largest stays");
        let shown: u64 = rows.failures.iter().map(|f| f.count).sum();
        assert_eq!(shown + rows.lost["failed_folded"], 2 * u64::from(n));
        assert_eq!(rows.processes.len() as u64 + rows.lost["rows_folded"], u64::from(n));
        assert!(rows.lost["examples_full"] > 0);
        assert!(rows.notes[0].contains("failed calls in all"), "{:?}", rows.notes);
    }

    #[test]
    fn those_without_refusals_go_first() {
        let mut audit = audit();
        for pid in 1..=MAX_PROCESSES as u32 + 1 {
            process(&mut audit, pid, 20, u64::from(pid <= 40_000), true);
        }
        assert_eq!(audit.rows().lost["failed_folded"], 0);
        assert_eq!(audit.rows().lost["rows_folded"], FOLD as u64);
    }

    /// What cannot be folded must not be looked through for each event.
    #[test]
    fn living_processes_are_kept_and_looked_through_rarely() {
        let mut audit = audit();
        for pid in 1..=MAX_PROCESSES as u32 + 2 * FOLD as u32 {
            process(&mut audit, pid, 20, 0, false);
        }
        assert_eq!(audit.rows().lost["rows_folded"], 0);
        assert!(audit.fold_at > MAX_PROCESSES + 2 * FOLD, "the next folding waits: {}", audit.fold_at);
    }

    #[test]
    fn processes_that_were_only_mentioned_are_forgotten() {
        let mut audit = audit();
        for tgid in 1..=MAX_PROCESSES as u32 + 1 {
            let process = ProcessId { tgid, start_ns: 1 };
            audit.apply(Event::Named(Named { process, at_ns: 1, exe: None, cgroup: None }));
        }
        assert!(audit.processes.len() <= MAX_PROCESSES);
        assert_eq!(audit.rows().lost["rows_folded"], 0, "they had no row");
    }
}
