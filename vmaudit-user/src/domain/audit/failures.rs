//! Refused calls of a process as rows of the report: grouped, each with its cause.

use std::collections::BTreeMap;

use vmaudit_common::{CLASS_LIMIT_POLLED, call::Call};

use crate::domain::audit::folded::{Alike, shorten};
use crate::domain::audit::group::{Group, Place};
use crate::domain::audit::{Audit, Process};
use crate::domain::diagnosis::{Question, Verdict};
use crate::domain::{arguments, diagnosis};
use crate::model::cause::name_of;
use crate::model::event::{MmState, ProcessId, RefusalGroup, Refused};
use crate::model::report::{Cause, Example, Failure, Frame};
use crate::text::total;

const LIMIT_DOUBTFUL: &str = " vm.max_map_count changed about that time, and this kernel does not let vmaudit read it \
                              at the moment of a failure.";
const PARTLY_SEEN: &str = " The kernel skipped programs of vmaudit (program_skipped), so what this call did may have \
                           been seen only in part.";

/// What the refused calls of one row have in common: call, errno, cause, ordinary or not.
type Key = (Call, u8, Cause, bool);

impl Audit {
    /// The limit that these refusals were judged by may not be the one they met.
    fn limit_doubtful(&self, refusals: &RefusalGroup) -> bool {
        refusals.class & CLASS_LIMIT_POLLED != 0
            && self
                .limit_changes
                .iter()
                .any(|(from, to)| *from <= refusals.last_ns && refusals.first_ns <= *to)
    }
    /// Failures of one process, grouped by (call, errno, cause, ordinary or not).
    pub(super) fn failures_of(&self, id: ProcessId, process: &Process) -> Vec<Group> {
        let started_s = Some(self.seconds(process.started_ns));
        // What a row says, it says of all its kinds: so their sums come first.
        let mut kinds: BTreeMap<Key, Vec<(&MmState, &RefusalGroup)>> = BTreeMap::new();
        for mm in &process.mms {
            for refusals in &mm.refusals {
                let verdict = self.verdict(mm, refusals, (refusals.count, refusals.kept_bytes));
                let key = (refusals.call, refusals.errno, verdict.cause, verdict.ordinary);
                kinds.entry(key).or_default().push((mm, refusals));
            }
        }
        let mut groups: BTreeMap<Key, Group> = kinds
            .into_iter()
            .filter_map(|(key, alike)| Some((key, self.group((id, process), key, &alike)?)))
            .collect();
        for mm in &process.mms {
            // Kinds that found no place in the kernel's table are known by number only.
            for (call, stat) in &mm.calls {
                let explained = total(mm.refusals.iter().filter(|r| r.call == *call).map(|r| r.count));
                let unexplained = stat.failed.saturating_sub(explained);
                if unexplained > 0 {
                    let key = (*call, 0, Cause::Unknown, false);
                    let group =
                        groups.entry(key).or_insert_with(|| unexplained_group(id, started_s, mm, *call));
                    group.failure.count = group.failure.count.saturating_add(unexplained);
                }
            }
        }
        groups.into_values().collect()
    }

    /// Failures of processes without a row of their own, as far as the end of the session lets them be told.
    pub(super) fn alike(&self, alike: &Alike) -> Group {
        let mut group = alike.group.clone();
        group.failure.example = alike.refused.as_ref().map(|refused| self.example(refused));
        shorten(&mut group.failure);
        if self.losses.doubt.causes {
            group.limit_excluded = false;
            if std::mem::replace(&mut group.failure.certain, false) {
                group.failure.sentence.push_str(PARTLY_SEEN);
            }
        }
        group
    }

    fn example_of(&self, mm: &MmState, refusals: &RefusalGroup) -> Option<(Place, &Refused)> {
        let place = (mm.generation, refusals.call, refusals.errno, refusals.class);
        self.examples.get(&place).map(|example| (place, example))
    }

    /// The address space that the kind's example is of: images that were put together have examples of all of them.
    fn generation_of(&self, mm: &MmState, refusals: &RefusalGroup) -> u64 {
        self.example_of(mm, refusals).map_or(mm.generation, |(_, example)| example.generation)
    }

    /// Why the refusals of a kind were; `(count, kept_bytes)` are those that the sentence speaks of.
    fn verdict(&self, mm: &MmState, refusals: &RefusalGroup, (count, kept_bytes): (u64, u64)) -> Verdict {
        let question = Question {
            call: refusals.call,
            errno: refusals.errno,
            class: refusals.class,
            count,
            kept_bytes,
            example: self.example_of(mm, refusals).map(|(_, example)| example),
            cgroup: self.cgroups.get(&self.generation_of(mm, refusals)),
            limits: &self.limits,
            kernel: &self.rules,
        };
        self.judge(&question, refusals)
    }

    /// Why this call was refused, by what is known so far: the same as a report would say now.
    pub fn verdict_of(&self, refused: &Refused) -> Verdict {
        let question = Question {
            call: refused.call,
            errno: refused.errno,
            class: refused.class,
            count: 1,
            kept_bytes: 0,
            example: Some(refused),
            cgroup: self.cgroups.get(&refused.generation),
            limits: &self.limits,
            kernel: &self.rules,
        };
        let alone = RefusalGroup {
            call: refused.call,
            errno: refused.errno,
            class: refused.class,
            count: 1,
            first_ns: refused.at_ns,
            last_ns: refused.at_ns,
            kept_bytes: 0,
        };
        self.judge(&question, &alone)
    }

    /// The one place where what was not seen takes certainty from a verdict.
    fn judge(&self, question: &Question<'_>, refusals: &RefusalGroup) -> Verdict {
        let mut verdict = diagnosis::why(question);
        if self.losses.doubt.causes {
            verdict.limit_excluded = false;
            if std::mem::replace(&mut verdict.certain, false) {
                verdict.sentence.push_str(PARTLY_SEEN);
            }
        }
        if self.limit_doubtful(refusals) {
            verdict.certain = false;
            verdict.limit_excluded = false;
            verdict.sentence.push_str(LIMIT_DOUBTFUL);
        }
        verdict
    }

    /// One row of kinds that have their key in common.
    fn group(
        &self,
        (id, process): (ProcessId, &Process),
        key: Key,
        alike: &[(&MmState, &RefusalGroup)],
    ) -> Option<Group> {
        let (call, errno, cause, ordinary) = key;
        let count = total(alike.iter().map(|(_, refusals)| refusals.count));
        let kept_bytes =
            alike.iter().fold(0u64, |sum, (_, refusals)| sum.saturating_add(refusals.kept_bytes));
        let verdicts: Vec<Verdict> =
            alike.iter().map(|(mm, refusals)| self.verdict(mm, refusals, (count, kept_bytes))).collect();
        let limit_excluded = verdicts.iter().all(|verdict| verdict.limit_excluded);
        let examples = || alike.iter().map(|(mm, refusals)| self.example_of(mm, refusals));
        // The least certain speaks for all, because it names the other causes; of several one with an example.
        let (example, verdict) =
            examples().zip(verdicts).min_by_key(|(example, verdict)| (verdict.certain, example.is_none()))?;
        let example = example.or_else(|| examples().flatten().next());
        let holders =
            || alike.iter().find_map(|(mm, refusals)| self.holders.get(&self.generation_of(mm, refusals)));
        let failure = Failure {
            pid: id.tgid,
            started_s: Some(self.seconds(process.started_ns)),
            comm: alike.first()?.0.comm.clone(),
            syscall: name_of(call).into(),
            errno: errno_name(errno),
            cause,
            certain: verdict.certain,
            count,
            processes: 1,
            various: false,
            first_at_s: alike.iter().map(|(_, refusals)| refusals.first_ns).min().map(|ns| self.seconds(ns)),
            last_at_s: alike.iter().map(|(_, refusals)| refusals.last_ns).max().map(|ns| self.seconds(ns)),
            example: example.map(|(_, example)| self.example(example)),
            evidence: verdict.evidence,
            sentence: verdict.sentence,
            cure: verdict.cure,
            holders: holders().filter(|_| cause == Cause::MaxMapCount).cloned(),
        };
        Some(Group { call, example: example.map(|(place, _)| place), ordinary, limit_excluded, failure })
    }

    /// Addresses of the stack that the kernel followed by frame pointers, as far as they are callers.
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
        let followed = self.stacks.get(&(refused.generation, refused.tid, refused.at_ns));
        let addresses: Vec<u64> = match followed {
            Some(it) if !it.addresses.is_empty() => it.addresses.clone(),
            _ => self.stack(refused).copied().collect(),
        };
        Example {
            tid: refused.tid,
            args: arguments::by_name(refused.call, &refused.args),
            stack: addresses.iter().flat_map(|&ip| self.frames_at(refused.generation, ip)).collect(),
            stack_notes: followed.map(|it| it.notes.clone()).unwrap_or_default(),
        }
    }

    /// The functions at an address of a stack, innermost first.
    fn frames_at(&self, generation: u64, ip: u64) -> Vec<Frame> {
        match self.frames.get(&(generation, ip)) {
            Some((frame, inlined)) => inlined.iter().chain([frame]).cloned().collect(),
            None => vec![Frame::bare(ip)],
        }
    }
}

fn unexplained_group(id: ProcessId, started_s: Option<f64>, mm: &MmState, call: Call) -> Group {
    let failure = Failure {
        pid: id.tgid,
        started_s,
        comm: mm.comm.clone(),
        syscall: name_of(call).into(),
        errno: "ENOMEM".into(),
        cause: Cause::Unknown,
        certain: false,
        count: 0,
        processes: 1,
        various: false,
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
    Group { call, example: None, ordinary: false, limit_excluded: false, failure }
}
/// Symbolic name of the errnos that count as failures.
fn errno_name(errno: u8) -> String {
    match i32::from(errno) {
        libc::ENOMEM => "ENOMEM".into(),
        libc::EAGAIN => "EAGAIN".into(),
        other => format!("errno {other}"),
    }
}
