//! Which lines are asked for.

use std::collections::HashMap;

use vmaudit_user::domain::process_filter::{NamePattern, ProcessFilter};
use vmaudit_user::model::cause::name_of;
use vmaudit_user::model::event::Event;
use vmaudit_user::os::procfs::Proc;

/// Processes whose owner and name are kept; beyond that they are asked for anew.
const KEPT: usize = 4096;

/// What a line must be of.
pub struct Shown {
    calls: Vec<String>,
    filter: ProcessFilter,
    proc: Proc,
    known: HashMap<u32, Who>,
    /// Lines left out because their process was gone before it could be asked.
    unknown: u64,
}

/// What /proc told of a process; empty when it was gone.
#[derive(Clone, Debug, Default)]
struct Who {
    uid: Option<u32>,
    comm: Option<String>,
}

impl Shown {
    /// `uid`: owner of the processes; `comm`: patterns of the name of process or thread.
    pub fn new(calls: &[String], uid: Option<u32>, comm: &[String]) -> Self {
        let comm = comm.iter().map(|name| NamePattern::new(name)).collect();
        Self {
            calls: calls.to_vec(),
            filter: ProcessFilter { uid, comm, ..ProcessFilter::default() },
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
        if !self.calls.is_empty() && !self.calls.iter().any(|name| name == name_of(call)) {
            return false;
        }
        let by_thread = self.filter.name(comm);
        if by_thread && self.filter.uid.is_none() {
            return true;
        }
        let Who { uid, comm } = self.who(tgid);
        if self.filter.uid.is_some() && uid.is_none() {
            self.unknown += 1;
            return false;
        }
        uid.is_none_or(|uid| self.filter.owner(uid))
            && (by_thread || comm.is_some_and(|comm| self.filter.name(&comm)))
    }

    /// Lines whose owner nobody could tell.
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
        let mut all = Shown::new(&[], None, &[]);
        assert!(all.wanted(3, own, "anything") && all.known.is_empty());
        let mut named = Shown::new(&[], None, &["thread*".into(), comm]);
        assert!(named.wanted(3, own, "thread 1") && named.wanted(3, own, "other"));
        assert!(!named.wanted(3, 1, "other"));
        let mut owned = Shown::new(&[], Some(uid), &[]);
        assert!(owned.wanted(3, own, "x") && !owned.wanted(3, u32::MAX / 2, "x"));
        assert_eq!(owned.unknown(), 1);
        assert!(!Shown::new(&[], Some(uid + 1), &[]).wanted(3, own, "x"));
        assert!(!Shown::new(&["brk".into()], None, &[]).wanted(3, own, "x"));
    }
}
