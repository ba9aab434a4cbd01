//! Refused calls of a process as rows of the report: grouped, each with its cause.

use std::collections::BTreeMap;

use vmaudit_common::{CLASS_LIMIT_POLLED, call::Call};

use super::{Audit, Process, name_of};
use crate::{
    arguments,
    diagnosis::{self, Question},
    report::{Cause, Example, Failure, Frame},
    source::{MmState, ProcessId, RefusalGroup, Refused},
};

const LIMIT_DOUBTFUL: &str = " vm.max_map_count changed about that time, and this kernel does not let vmaudit read it \
                              at the moment of a failure.";
const PARTLY_SEEN: &str = " The kernel skipped programs of vmaudit (program_skipped), so what this call did may have \
                           been seen only in part.";

/// Refused calls of one process that are alike.
pub struct Group {
    /// A normal answer, no incident.
    pub ordinary: bool,
    /// vm.max_map_count had no part.
    pub limit_excluded: bool,
    pub failure: Failure,
}
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
/// Symbolic name of the errnos that count as failures.
fn errno_name(errno: u8) -> String {
    match i32::from(errno) {
        libc::ENOMEM => "ENOMEM".into(),
        libc::EAGAIN => "EAGAIN".into(),
        other => format!("errno {other}"),
    }
}
