//! How processes ended, as rows of the report.

use crate::domain::audit::group::Group;
use crate::domain::audit::{Audit, Process};
use crate::domain::end::{self, LINKED_NS};
use crate::model::cause::reason;
use crate::model::end::{Ended, OomCgroups, ProcessEnd};
use crate::model::event::ProcessId;
use crate::model::report::{CommandEnd, Exit, Outcome};

/// How long after the end of its memory the end of a process is waited for: it comes a moment later, or was lost.
const LATEST_NS: u64 = 1_000_000_000;
/// Longest name of a task, bytes (include/linux/sched.h:TASK_COMM_LEN).
const COMM: usize = 15;

impl Audit {
    pub(super) fn took_end(&mut self, ended: Ended) {
        let process = self.processes.entry(ended.process).or_default();
        if process.mms.is_empty() && process.samples.is_none() {
            process.comm.clone_from(&ended.comm);
            process.ppid.get_or_insert(ended.ppid);
        }
        // Where two programs tell of it, only one of them knows the signal.
        if process.ended.as_ref().is_none_or(|known| known.signal.is_none()) {
            process.ended = Some(Box::new(ended));
        }
    }

    pub(super) fn oom_cgroups(&mut self, cgroups: OomCgroups) {
        let mut id = cgroups.process;
        if id.start_ns == 0 {
            // The event did not tell which of them: the youngest.
            let all =
                ProcessId { tgid: id.tgid, start_ns: 0 }..=ProcessId { tgid: id.tgid, start_ns: u64::MAX };
            id = self.processes.range(all).next_back().map_or(id, |(id, _)| *id);
        }
        self.processes.entry(id).or_default().oom = Some(Box::new(cgroups));
    }

    /// Nothing more will come about how it ended.
    pub(super) fn end_is_told(&self, process: &Process) -> bool {
        !self.sight.ends
            || process.ended.is_some()
            || process.ended_ns.is_some_and(|at| at.saturating_add(LATEST_NS) < self.seen_ns)
    }

    /// How this process ended; `groups`: its refused calls.
    pub(super) fn end_of(&self, id: ProcessId, process: &Process, groups: &[Group]) -> Option<ProcessEnd> {
        let told = self.end.and_then(|end| end.exit).filter(|_| self.root == Some(id));
        let of_exit = |Exit { code, signal }: Exit| Ended {
            process: id,
            at_ns: process.ended_ns.unwrap_or(self.seen_ns),
            ppid: process.ppid.unwrap_or(0),
            comm: process.comm.clone(),
            status: signal.map_or(code.unwrap_or(0) << 8, |signal| signal) as u32,
            signal: None,
        };
        let own;
        let ended = match (&process.ended, told) {
            (Some(ended), _) => ended,
            (None, Some(exit)) if self.sight.ends => {
                own = Box::new(of_exit(exit));
                &own
            }
            (None, Some(exit)) => return Some(end::of_status(exit.code, exit.signal)),
            (None, None) => return None,
        };
        let at_ns = ended.signal.as_ref().map_or(ended.at_ns, |signal| signal.at_ns);
        Some(end::explain(&end::Facts {
            ended,
            cgroups: process.oom.as_deref(),
            before: self.before(at_ns, ended, groups),
            page_size: self.rules.page_size,
            start_ns: self.start_ns,
            hidden: self.hidden.contains(&id.tgid),
        }))
    }

    /// The refused call that came just before an end that is none of the good ones.
    fn before(&self, at_ns: u64, ended: &Ended, groups: &[Group]) -> Option<String> {
        if ended.status == 0 {
            return None;
        }
        let at_s = self.seconds(at_ns);
        let last = |group: &&Group| {
            group.outcome == Outcome::Unrecovered && group.failure.last_at_s.is_some_and(|at| at <= at_s)
        };
        let time = |group: &&Group| (group.failure.last_at_s.unwrap_or(0.0) * 1e9) as u64;
        let failure = &groups.iter().filter(last).max_by_key(time)?.failure;
        let apart_s = at_s - failure.last_at_s?;
        (apart_s * 1e9 <= LINKED_NS as f64).then(|| {
            let probably = if failure.certain { "" } else { "probably " };
            format!(
                "{:.1} ms before, {} failed with {} ({probably}{})",
                apart_s * 1e3,
                failure.syscall,
                failure.errno,
                reason(failure)
            )
        })
    }

    /// How the command ended, by the name that it had then. `command`: its words as they were given, if they are shown.
    pub fn command_end(&self, command: Option<&str>) -> Option<CommandEnd> {
        let exit = self.end?.exit?;
        let row = self.root.and_then(|id| Some((id, self.processes.get(&id)?)));
        let sentence = row.and_then(|(id, process)| {
            let groups = self.failures_of(id, process);
            self.end_of(id, process, &groups)
        });
        let sentence = sentence.unwrap_or_else(|| end::of_status(exit.code, exit.signal)).sentence;
        let comm = row.map(|(_, process)| process.comm.as_str()).filter(|comm| !comm.is_empty());
        let first = row.and_then(|(_, process)| process.mms.first()).map(|mm| mm.comm.as_str());
        let started = command.or(first).unwrap_or("the command");
        let name = match comm {
            Some(comm) if !same_name(comm, started) => format!("{comm} (started as {started})"),
            _ => started.to_owned(),
        };
        Some(CommandEnd { pid: row.map(|(id, _)| id.tgid), name, sentence })
    }
}

/// A task's name is the last part of a path, cut.
fn same_name(comm: &str, started: &str) -> bool {
    let name = started.rsplit('/').next().unwrap_or(started);
    let cut = name.bytes().take(COMM);
    comm == name || comm.bytes().eq(cut)
}

#[cfg(test)]
mod tests {
    use super::same_name;

    #[test]
    fn a_tasks_name_is_cut() {
        assert!(same_name("bash", "/bin/bash"));
        assert!(same_name("a-very-long-nam", "./a-very-long-name"));
        assert!(!same_name("perl", "bash"));
        assert!(!same_name("", "bash"));
    }
}
