//! Which lines are asked for.

use std::collections::HashMap;

use vmaudit_user::domain::process_filter::NamePattern;
use vmaudit_user::model::cause::name_of;
use vmaudit_user::model::event::Event;
use vmaudit_user::os::procfs::Proc;

/// Processes whose name is kept; beyond that they are asked for anew.
const KEPT: usize = 4096;

/// What a line must be of.
pub struct Shown {
    calls: Vec<String>,
    /// Of process or thread; empty = any.
    comm: Vec<NamePattern>,
    proc: Proc,
    /// Names of processes; `None`: it was gone.
    known: HashMap<u32, Option<String>>,
}

impl Shown {
    /// `comm`: patterns of the name of process or thread.
    pub fn new(calls: &[String], comm: &[String]) -> Self {
        Self {
            calls: calls.to_vec(),
            comm: comm.iter().map(|name| NamePattern::new(name)).collect(),
            proc: Proc::default(),
            known: HashMap::new(),
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
        self.call(name_of(call)) && (self.fits(comm) || self.name(tgid).is_some_and(|comm| self.fits(&comm)))
    }

    fn fits(&self, comm: &str) -> bool {
        self.comm.is_empty() || self.comm.iter().any(|pattern| pattern.fits(comm))
    }

    /// Lines of this call are asked for, whoever made it.
    pub fn call(&self, name: &str) -> bool {
        self.calls.is_empty() || self.calls.iter().any(|wanted| wanted == name)
    }

    /// Whose lines are asked for is decided by the process, not by the thread.
    pub fn by_process(&self) -> bool {
        self.comm.is_empty()
    }

    /// Name of the process; `None` when it is gone.
    pub fn name(&mut self, tgid: u32) -> Option<String> {
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        let proc = &self.proc;
        let ask = || Some(proc.open(tgid).ok()?.stat().ok()?.comm);
        self.known.entry(tgid).or_insert_with(ask).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_thread_or_process_are_asked_for() {
        let own = std::process::id();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
        let mut all = Shown::new(&[], &[]);
        assert!(all.wanted(3, own, "anything") && all.known.is_empty());
        let mut named = Shown::new(&[], &["thread*".into(), comm]);
        assert!(named.wanted(3, own, "thread 1") && named.wanted(3, own, "other"));
        assert!(!named.wanted(3, 1, "other") && !named.wanted(3, u32::MAX / 2, "other"));
        assert!(!Shown::new(&["brk".into()], &[]).wanted(3, own, "x"));
        assert_eq!((named.name(u32::MAX / 2), named.name(own).is_some()), (None, true));
    }
}
