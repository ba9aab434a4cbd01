//! What the programs did not see: their own loss counters, and the events that the kernel did not show them.

use std::{fs, os::fd::RawFd};

use super::Live;
use crate::source::{Doubt, Losses, hooks, kernel::Facts};

/// A program at work.
pub struct Counted {
    /// `None` where the kernel never skips one.
    counter: Option<RawFd>,
    /// What its miss counter said before anybody was followed; `None` when it could not be read.
    at_start: Option<u64>,
}

impl Counted {
    /// A program at work from now on.
    pub fn new(program: RawFd, facts: &Facts) -> Self {
        Self { counter: hooks::skips_programs(facts).then_some(program), at_start: Some(0) }
    }

    /// From here on a skip counts.
    pub fn restart(&mut self) {
        self.at_start = self.misses();
    }

    /// Events that the kernel did not show to the program; `None` when the counter cannot be read.
    pub fn skipped(&self) -> Option<u64> {
        Some(self.misses()?.saturating_sub(self.at_start?))
    }

    fn misses(&self) -> Option<u64> {
        self.counter.map_or(Some(0), recursion_misses)
    }
}

/// How often the kernel skipped a program; `None` when /proc does not say.
fn recursion_misses(program: RawFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{program}")).ok()?;
    let misses = text.lines().find_map(|l| l.strip_prefix("recursion_misses:"));
    misses?.trim().parse().ok()
}

impl Live {
    /// What was not seen so far.
    ///
    /// Where two programs listen to the same event, an event is lost only if both were skipped. What is lost with the
    /// hooks that only settle causes is certainty.
    pub fn losses(&self) -> Losses {
        let lost = self.control.read(0).lost;
        // A missed end is known by address space where sections are numbered.
        let mut doubt = Doubt { peaks: lost.death_missed > 0 && !self.numbered, ..Doubt::default() };
        let (mut skipped, mut unreadable) = (lost.changes_missed, 0);
        for row in &self.at_work {
            let (count, readable) = self.skipped(row);
            if count.is_some_and(|count| count > 0) || !readable {
                doubt = doubt.or(self.doubt_about(row.0));
            }
            // Numbered sections tell which of these events were a followed process's changes, except for the last
            // change of an address space that still lives.
            let known = row.0 == hooks::LOCK_RELEASED && self.numbered && self.living() == 0;
            if !known && !hooks::SETTLING.contains(&row.0) {
                skipped += count.unwrap_or(0);
                unreadable += u64::from(!readable);
            }
        }
        let counters = [
            ("ring_full", lost.ring_full),
            ("table_full", lost.table_full),
            ("groups_full", lost.groups_full),
            ("read_failed", lost.read_failed),
            ("section_lost", lost.section_lost),
            ("stack_missing", lost.stack_missing),
            ("tree_full", lost.tree_full),
            ("death_missed", lost.death_missed),
            ("birth_missed", lost.birth_missed),
            ("changes_missed", lost.changes_missed),
            ("program_skipped", skipped),
            ("skips_unreadable", unreadable),
        ];
        let counters = counters.map(|(name, n)| (name.to_owned(), n)).into();
        Losses { counters, doubt, shares: self.used_shares() }
    }

    /// What an event of this row that nobody saw can have changed. Where write sections are numbered, no count: the
    /// programs check each (vmaudit-ebpf/src/lock_sequence.rs).
    fn doubt_about(&self, row: &str) -> Doubt {
        let counting = [hooks::LOCK_RELEASED, hooks::EXIT_MMAP, hooks::SNAPSHOT].contains(&row);
        Doubt {
            peaks: self.sampled || counting && !self.numbered,
            processes: [hooks::FORK, hooks::EXEC, hooks::EXIT].contains(&row),
            calls: row == hooks::CALL_EXIT || self.sampled && row == hooks::LOCK_RELEASED,
            // The two others only ever add to what is known (vmaudit-ebpf/src/hooks/probes.rs).
            causes: [hooks::LOCK_RELEASED, hooks::CALL_EXIT, hooks::ADDRESS_SEARCH].contains(&row),
        }
    }

    /// A release that was shown to none of the programs may have been the last of an address space that lives.
    pub(super) fn open_end(&self) -> bool {
        let releases = self.at_work.iter().find(|(name, _)| *name == hooks::LOCK_RELEASED);
        self.numbered
            && releases.is_some_and(|row| {
                let (count, readable) = self.skipped(row);
                count.is_some_and(|count| count > 0) || !readable
            })
    }

    /// Events of a row that none of its programs may have seen, if any program's counter can be read; and whether all
    /// can.
    pub(super) fn skipped(&self, (name, programs): &(&'static str, Vec<Counted>)) -> (Option<u64>, bool) {
        let counts: Vec<Option<u64>> = programs.iter().map(Counted::skipped).collect();
        let own = if *name == hooks::LOCK_RELEASED { self.own_releases() } else { 0 };
        let least = counts.iter().flatten().min().map(|count| count.saturating_sub(own));
        let uncounted = !self.counts_classic_skips && self.classic_alone(name);
        (least, !uncounted && !counts.contains(&None))
    }

    /// Only a classic tracepoint's program listens.
    fn classic_alone(&self, name: &str) -> bool {
        let via = self.hooks.iter().find(|hook| hook.name == name).and_then(|hook| hook.via.as_deref());
        via == Some("tracepoint")
    }

    /// Releases of an mmap lock that the program on them was skipped for, because another program made them: a classic
    /// tracepoint program is not entered from within another (kernel/trace/bpf_trace.c:trace_call_bpf). That program
    /// only reads, so nothing is lost.
    fn own_releases(&self) -> u64 {
        if self.classic_alone(hooks::LOCK_RELEASED) && self.classic_alone(hooks::CALL_EXIT) {
            self.control.read(0).looks
        } else {
            0
        }
    }
}
