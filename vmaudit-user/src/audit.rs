//! What is known so far: takes events, holds state, makes the report. No I/O, no clock: time comes from events.

use std::collections::{BTreeMap, HashMap, HashSet};

use vmaudit_common::{
    CLASS_LIMIT_POLLED,
    call::{CALLS, Call},
};

use crate::{
    arguments,
    diagnosis::{self, KernelRules, Question},
    recommend::Failed,
    report::{self, CallFigures, Cause, Example, Failure, Frame, Holders, Image, Limits, MapCount},
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
/// Changes of vm.max_map_count kept apart.
const MAX_LIMIT_CHANGES: usize = 100;

const LIMIT_DOUBTFUL: &str = " vm.max_map_count changed about that time, and this kernel does not let vmaudit read it \
                              at the moment of a failure.";

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

    /// The limit that these refusals were judged by may not be the one they met.
    fn limit_doubtful(&self, refusals: &RefusalGroup) -> bool {
        refusals.class & CLASS_LIMIT_POLLED != 0
            && self
                .limit_changes
                .iter()
                .any(|(from, to)| *from <= refusals.last_ns && refusals.first_ns <= *to)
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

    fn lost(&self, reasons: &[&str]) -> bool {
        reasons.iter().any(|reason| self.losses.counters.get(*reason).is_some_and(|count| *count > 0))
    }

    /// Every peak is doubtful: something was lost, and which address space it belongs to is not known.
    fn peaks_doubtful(&self) -> bool {
        self.losses.doubt.peaks || self.lost(&["table_full", "tree_full", "read_failed"])
    }

    fn seconds(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    /// Rows of the report, largest peak first, and the failures.
    pub fn rows(&self) -> Rows {
        let mut failures = Vec::new();
        let mut ordinary = Vec::new();
        let mut kinds = Vec::new();
        let mut processes: Vec<report::Process> = Vec::new();
        for (id, process) in &self.processes {
            // Only mentioned (an exec whose slot was not to be had): nothing is known of its counts.
            if process.mms.is_empty() && process.samples.is_none() {
                continue;
            }
            let groups = self.failures_of(*id, process);
            let clipped = groups.iter().any(|g| !g.ordinary && g.failure.cause == Cause::MaxMapCount);
            processes.push(self.row(*id, process, clipped));
            for group in groups {
                if group.ordinary {
                    ordinary.push(group.failure);
                    continue;
                }
                let Failure { cause, count, .. } = group.failure;
                kinds.push(Failed { cause, count, limit_excluded: group.limit_excluded });
                failures.push(group.failure);
            }
        }
        processes.sort_by(|a, b| (b.map_count.peak, a.pid).cmp(&(a.map_count.peak, b.pid)));
        let by_count = |a: &Failure, b: &Failure| (b.count, a.pid).cmp(&(a.count, b.pid));
        failures.sort_by(by_count);
        ordinary.sort_by(by_count);
        let mut notes = Vec::new();
        let Folded { processes: folded, peak, failed } = self.folded;
        if folded > 0 {
            let failures = match failed {
                0 => "without a failure".to_owned(),
                n => format!("after {n} failed calls in all"),
            };
            notes.push(format!(
                "{folded} more processes ended {failures} and with at most {peak} VMAs; they are only counted here"
            ));
        }
        let mut lost = self.losses.counters.clone();
        lost.insert("rows_folded".into(), folded);
        lost.insert("failed_folded".into(), failed);
        lost.insert("examples_full".into(), self.examples_full);
        // Whose end was missed may have kept a later one from its own row.
        let complete =
            !self.losses.doubt.processes && !self.lost(&["table_full", "tree_full", "death_missed"]);
        Rows {
            complete,
            // A counter that says more than "details are gone" may stand for calls.
            exact_calls: complete
                && self.sight.exits
                && !self.losses.doubt.calls
                && !self.lost(&[
                    "groups_full",
                    "read_failed",
                    "death_missed",
                    "birth_missed",
                    "changes_missed",
                ]),
            processes,
            failures,
            ordinary,
            kinds,
            notes,
            lost,
            limits: self.limits.clone(),
        }
    }

    fn row(&self, id: ProcessId, process: &Process, clipped: bool) -> report::Process {
        let first = process.mms.values().next();
        let last = process.mms.values().next_back();
        let top =
            process.mms.values().max_by(|a, b| a.peak.cmp(&b.peak).then(b.generation.cmp(&a.generation)));
        let seen_from_start = first.is_some_and(|mm| mm.from_birth || mm.from_snapshot);
        let count = match (first, last, top, process.samples) {
            (Some(first), Some(last), Some(top), _) => MapCount {
                first: Some(first.first.into()),
                last: Some(last.last.into()),
                peak: Some(top.peak.into()),
                peak_at_s: Some(self.seconds(top.peak_ns)),
                exact: self.sight.changes
                    && seen_from_start
                    && !process.mms.values().any(MmState::partly_seen)
                    && !self.peaks_doubtful(),
                clipped,
                percent_of_limit: None,
            },
            (.., Some(seen)) => MapCount {
                first: Some(seen.first.into()),
                last: Some(seen.last.into()),
                peak: Some(seen.peak.into()),
                peak_at_s: Some(self.seconds(seen.peak_ns)),
                exact: false,
                clipped: false,
                percent_of_limit: None,
            },
            _ => MapCount::default(),
        };
        let percent = count.peak.zip(self.limits.max_map_count).map(|(peak, max)| {
            // One decimal is what people read; the exact ratio is in peak and limit.
            (peak as f64 * 1000.0 / max.max(1) as f64).round() / 10.0
        });
        let mut calls: BTreeMap<String, CallFigures> = BTreeMap::new();
        for (call, stat) in process.mms.values().flat_map(|mm| &mm.calls) {
            let figures = calls.entry(name_of(*call).to_owned()).or_default();
            figures.added += stat.added;
            figures.removed += stat.removed;
            if self.sight.exits {
                figures.calls = Some(figures.calls.unwrap_or(0) + stat.calls);
                figures.failed = Some(figures.failed.unwrap_or(0) + stat.failed);
            }
        }
        let exe = process.exe.clone().or_else(|| self.parents_exe(process));
        report::Process {
            pid: id.tgid,
            ppid: process.ppid,
            comm: process.comm.clone(),
            app: exe.as_deref().and_then(|exe| exe.rsplit('/').next()).map(str::to_owned),
            exe,
            cgroup: process.cgroup.clone(),
            uid: process.uid,
            started_s: Some(self.seconds(process.started_ns)),
            ended_s: process.ended_ns.map(|ns| self.seconds(ns)),
            map_count: MapCount { percent_of_limit: percent, ..count },
            images: process
                .mms
                .values()
                .map(|mm| Image { comm: mm.comm.clone(), peak: mm.peak.into() })
                .collect(),
            calls,
            unmap_leaked_bytes: (self.sight.exits && !process.mms.is_empty()).then(|| {
                let refusals = process.mms.values().flat_map(|mm| &mm.refusals);
                refusals.fold(0, |sum, group| group.kept_bytes.saturating_add(sum))
            }),
            unreadable: None,
        }
    }

    /// A forked child that never called exec runs its parent's file.
    fn parents_exe(&self, process: &Process) -> Option<String> {
        if process.mms.values().any(|mm| mm.from_exec) {
            return None;
        }
        let parent = process.ppid?;
        let of = |start_ns| ProcessId { tgid: parent, start_ns };
        self.processes.range(of(0)..=of(u64::MAX)).find_map(|(_, p)| p.exe.clone())
    }

    /// Failures of one process, grouped by (call, errno, cause, ordinary or not).
    fn failures_of(&self, id: ProcessId, process: &Process) -> Vec<Group> {
        let mut groups: BTreeMap<(Call, u8, Cause, bool), Group> = BTreeMap::new();
        for mm in process.mms.values() {
            for refusals in &mm.refusals {
                let example =
                    self.examples.get(&(mm.generation, refusals.call, refusals.errno, refusals.class));
                let mut verdict = diagnosis::why(&Question {
                    call: refusals.call,
                    errno: refusals.errno,
                    class: refusals.class,
                    count: refusals.count,
                    kept_bytes: refusals.kept_bytes,
                    example,
                    cgroup: self.cgroups.get(&mm.generation),
                    limits: &self.limits,
                    kernel: &self.rules,
                });
                if self.limit_doubtful(refusals) {
                    verdict.certain = false;
                    verdict.limit_excluded = false;
                    verdict.sentence.push_str(LIMIT_DOUBTFUL);
                }
                let key = (refusals.call, refusals.errno, verdict.cause, verdict.ordinary);
                let (first, last) = (self.seconds(refusals.first_ns), self.seconds(refusals.last_ns));
                match groups.get_mut(&key) {
                    Some(group) => {
                        group.limit_excluded &= verdict.limit_excluded;
                        let failure = &mut group.failure;
                        failure.count += refusals.count;
                        failure.certain &= verdict.certain;
                        if failure.holders.is_none() && verdict.cause == Cause::MaxMapCount {
                            failure.holders = self.holders.get(&mm.generation).cloned();
                        }
                        failure.first_at_s = failure.first_at_s.map(|s| s.min(first));
                        failure.last_at_s = failure.last_at_s.map(|s| s.max(last));
                        if failure.example.is_none() && example.is_some() {
                            failure.example = example.map(|e| self.example(e));
                            failure.evidence = verdict.evidence;
                            failure.sentence = verdict.sentence;
                        }
                    }
                    None => {
                        let failure = Failure {
                            pid: id.tgid,
                            comm: mm.comm.clone(),
                            syscall: name_of(refusals.call).into(),
                            errno: errno_name(refusals.errno),
                            cause: verdict.cause,
                            certain: verdict.certain,
                            count: refusals.count,
                            first_at_s: Some(first),
                            last_at_s: Some(last),
                            example: example.map(|e| self.example(e)),
                            evidence: verdict.evidence,
                            sentence: verdict.sentence,
                            cure: verdict.cure,
                            holders: self
                                .holders
                                .get(&mm.generation)
                                .filter(|_| verdict.cause == Cause::MaxMapCount)
                                .cloned(),
                        };
                        let limit_excluded = verdict.limit_excluded;
                        groups.insert(key, Group { ordinary: verdict.ordinary, limit_excluded, failure });
                    }
                }
            }
            // Kinds that found no place in the kernel's table are known by number only.
            for (call, stat) in &mm.calls {
                let explained: u64 = mm.refusals.iter().filter(|r| r.call == *call).map(|r| r.count).sum();
                let unexplained = stat.failed.saturating_sub(explained);
                if unexplained > 0 {
                    let key = (*call, 0, Cause::Unknown, false);
                    let group = groups.entry(key).or_insert_with(|| unexplained_group(id, mm, *call));
                    group.failure.count += unexplained;
                }
            }
        }
        groups.into_values().collect()
    }

    /// Addresses of the stack as far as they are callers.
    fn stack<'a>(&self, refused: &'a Refused) -> impl Iterator<Item = &'a u64> {
        let generation = refused.generation;
        let mut walked = refused.stack.iter().take_while(move |ip| !self.ends.contains(&(generation, **ip)));
        let innermost = walked.next();
        let caller = refused.caller.iter().filter(move |ip| {
            self.frames.contains_key(&(generation, **ip)) && refused.stack.get(1) != Some(*ip)
        });
        innermost.into_iter().chain(caller).chain(walked)
    }

    fn example(&self, refused: &Refused) -> Example {
        Example {
            tid: refused.tid,
            args: arguments::by_name(refused.call, &refused.args),
            stack: self
                .stack(refused)
                .map(|ip| {
                    self.frames.get(&(refused.generation, *ip)).cloned().unwrap_or_else(|| Frame {
                        ip: format!("{ip:#x}"),
                        symbol: None,
                        module: None,
                        offset: None,
                        file: None,
                        line: None,
                    })
                })
                .collect(),
        }
    }
}

/// Refused calls of one process that are alike.
struct Group {
    /// A normal answer, no incident.
    ordinary: bool,
    /// vm.max_map_count had no part.
    limit_excluded: bool,
    failure: Failure,
}

fn unexplained_group(id: ProcessId, mm: &MmState, call: Call) -> Group {
    let failure = Failure {
        pid: id.tgid,
        comm: mm.comm.clone(),
        syscall: name_of(call).into(),
        errno: "ENOMEM".into(),
        cause: Cause::Unknown,
        certain: false,
        count: 0,
        first_at_s: None,
        last_at_s: None,
        example: None,
        evidence: BTreeMap::new(),
        sentence: "More kinds of failure occurred in this process than are kept apart; these are counted, their cause \
                   is unknown."
            .into(),
        cure: None,
        holders: None,
    };
    Group { ordinary: false, limit_excluded: false, failure }
}

/// What [`Audit::rows`] found.
pub struct Rows {
    /// Largest peak first.
    pub processes: Vec<report::Process>,
    /// Most frequent first.
    pub failures: Vec<Failure>,
    /// See [`report::Report::ordinary_answers`].
    pub ordinary: Vec<Failure>,
    /// The failures as advice needs them.
    pub kinds: Vec<Failed>,
    /// No process that should have been followed can be missing.
    pub complete: bool,
    /// See [`report::Coverage::exact_calls`].
    pub exact_calls: bool,
    /// For [`report::Coverage::notes`].
    pub notes: Vec<String>,
    /// Totals by reason.
    pub lost: BTreeMap<String, u64>,
    /// As last read.
    pub limits: Limits,
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

/// Symbolic name of the errnos that count as failures.
fn errno_name(errno: u8) -> String {
    match i32::from(errno) {
        libc::ENOMEM => "ENOMEM".into(),
        libc::EAGAIN => "EAGAIN".into(),
        other => format!("errno {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{CallStat, Named, RefusalGroup};
    use vmaudit_common::call::MUNMAP;

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
            audit.apply(Event::Refused(Box::new(Refused {
                at_ns: 1,
                generation: n.into(),
                tgid: n,
                tid: n,
                comm: "x".into(),
                call: MUNMAP,
                errno: libc::ENOMEM as u8,
                class: 0,
                ret: -12,
                args: [0; 6],
                section: None,
                max_map_count: 65530,
                rlimits: [u64::MAX; 4],
                start_brk: 0,
                hole: None,
                caller: None,
                stack: Vec::new(),
            })));
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
