//! Which lines are asked for.

use std::collections::HashMap;

use vmaudit_user::domain::process_filter::{NamePattern, ProcessFilter};
use vmaudit_user::model::cause::name_of;
use vmaudit_user::model::event::Event;
use vmaudit_user::model::report::Process;
use vmaudit_user::os::procfs::Proc;

/// Processes whose owner and name are kept; beyond that they are asked for anew.
const KEPT: usize = 4096;

/// What a line must be of.
pub struct Shown {
    calls: Vec<String>,
    filter: ProcessFilter,
    proc: Proc,
    known: HashMap<u32, Who>,
    /// Lines, and processes, left out because the process was gone before it could be asked.
    unknown: u64,
}

/// What /proc told of a process; empty when it was gone.
#[derive(Clone, Debug, Default)]
struct Who {
    uid: Option<u32>,
    comm: Option<String>,
    cgroup: Option<String>,
}

impl Shown {
    /// `uid`: owner of the processes; `comm`: patterns of the name of process or thread; `cgroup`: part of its path.
    pub fn new(calls: &[String], uid: Option<u32>, comm: &[String], cgroup: Option<&str>) -> Self {
        let comm = comm.iter().map(|name| NamePattern::new(name)).collect();
        Self {
            calls: calls.to_vec(),
            filter: ProcessFilter {
                uid,
                comm,
                cgroup: cgroup.map(str::to_owned),
                ..ProcessFilter::default()
            },
            proc: Proc::default(),
            known: HashMap::new(),
            unknown: 0,
        }
    }

    /// Forgets what has changed.
    pub fn heed(&mut self, event: &Event) {
        match event {
            Event::Process(it) => drop(self.known.remove(&it.process.tgid)),
            Event::Mm(state) if state.dead_ns.is_some() => drop(self.known.remove(&state.process.tgid)),
            _ => {}
        }
    }

    /// A line of this call of the thread `comm` is asked for.
    pub fn wanted(&mut self, call: u8, tgid: u32, comm: &str) -> bool {
        if !self.call(name_of(call)) {
            return false;
        }
        let by_thread = self.filter.name(comm);
        let (owner, group) = (self.filter.uid.is_some(), self.filter.cgroup.is_some());
        if by_thread && !owner && !group {
            return true;
        }
        let Who { uid, comm, cgroup } = self.who(tgid);
        if owner && uid.is_none() || group && cgroup.is_none() {
            self.unknown += 1;
            return false;
        }
        uid.is_none_or(|uid| self.filter.owner(uid))
            && self.filter.group(cgroup.as_deref())
            && (by_thread || comm.is_some_and(|comm| self.filter.name(&comm)))
    }

    /// Lines of this call are asked for, whoever made it.
    pub fn call(&self, name: &str) -> bool {
        self.calls.is_empty() || self.calls.iter().any(|wanted| wanted == name)
    }

    /// Calls that are asked for; none: all.
    pub fn calls(&self) -> &[String] {
        &self.calls
    }

    /// Whose lines are asked for is decided by the process, not by the thread.
    pub fn by_process(&self) -> bool {
        self.filter.comm.is_empty()
    }

    /// Every process is asked for.
    pub fn all_processes(&self) -> bool {
        !self.filter.asks()
    }

    /// A process that the report has a row of is asked for, see [`Shown::by_process`].
    pub fn keeps(&mut self, process: &Process) -> bool {
        let (owner, group) = (self.filter.uid.is_some(), self.filter.cgroup.is_some());
        // The kernel tells the owner, and the cgroup where it could be read in time.
        let (mut uid, mut cgroup) = (process.uid, process.cgroup.clone());
        if owner && uid.is_none() || group && cgroup.is_none() {
            let who = self.who(process.pid);
            uid = uid.or(who.uid);
            cgroup = cgroup.or(who.cgroup);
        }
        if owner && uid.is_none() || group && cgroup.is_none() {
            self.unknown += 1;
            return false;
        }
        uid.is_none_or(|uid| self.filter.owner(uid)) && self.filter.group(cgroup.as_deref())
    }

    /// Name of the process; `None` when it is gone.
    pub fn name(&mut self, tgid: u32) -> Option<String> {
        self.who(tgid).comm
    }

    /// Lines whose owner or cgroup nobody could tell.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    fn who(&mut self, tgid: u32) -> Who {
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        let proc = &self.proc;
        let ask = || {
            let handle = proc.open(tgid).ok();
            Who {
                uid: handle.as_ref().map(|handle| handle.uid),
                cgroup: handle.as_ref().and_then(|handle| handle.cgroup()),
                comm: handle.and_then(|handle| handle.stat().ok()).map(|stat| stat.comm),
            }
        };
        self.known.entry(tgid).or_insert_with(ask).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_thread_or_process_and_owners_are_asked_for() {
        let own = std::process::id();
        let uid = nix::unistd::geteuid().as_raw();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        let mut all = Shown::new(&[], None, &[], None);
        assert!(all.wanted(3, own, "anything") && all.known.is_empty());
        let mut named = Shown::new(&[], None, &["thread*".into(), comm], None);
        assert!(named.wanted(3, own, "thread 1") && named.wanted(3, own, "other"));
        assert!(!named.wanted(3, 1, "other"));
        let mut owned = Shown::new(&[], Some(uid), &[], None);
        assert!(owned.wanted(3, own, "x") && !owned.wanted(3, u32::MAX / 2, "x"));
        assert_eq!(owned.unknown(), 1);
        assert!(!Shown::new(&[], Some(uid + 1), &[], None).wanted(3, own, "x"));
        assert!(!Shown::new(&["brk".into()], None, &[], None).wanted(3, own, "x"));
    }

    #[test]
    fn a_cgroup_is_asked_for_by_a_part_of_its_path() {
        let own = std::process::id();
        let mut all = Shown::new(&[], None, &[], Some("/"));
        assert!(all.wanted(3, own, "x") && !all.wanted(3, u32::MAX / 2, "x"));
        assert_eq!(all.unknown(), 1);
        assert!(!Shown::new(&[], None, &[], Some("no such group")).wanted(3, own, "x"));
        assert_eq!(all.name(u32::MAX / 2), None);
        assert!(all.name(own).is_some());
    }
}
