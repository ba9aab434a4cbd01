//! What the programs did not see: their own loss counters, and the events that the kernel did not show them.

use std::{fs, os::fd::RawFd};

use vmaudit_common::{LIMIT_ON_TASKS_MET, LIMIT_ON_VMAS_MET};

use crate::model::event::{Doubt, Losses};
use crate::model::hook;
use crate::model::loss::LossReason;
use crate::os::clock::now_ns;
use crate::source::ebpf::Live;
use crate::source::ebpf::shared_memory::Shared;

/// A program at work.
pub struct Counted {
    /// `None` where the kernel never skips one.
    counter: Option<RawFd>,
    /// What its miss counter said before anybody was followed; `None` when it could not be read.
    at_start: Option<u64>,
}

impl Counted {
    /// A program at work from now on. `counts`: see [`crate::source::ebpf::hooks::skips_programs`].
    pub fn new(program: RawFd, counts: bool) -> Self {
        Self { counter: counts.then_some(program), at_start: Some(0) }
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

/// How often the kernel skipped a program; `None` when nobody says.
fn recursion_misses(program: RawFd) -> Option<u64> {
    misses_by_call(program).or_else(|| {
        // Until 5.18 the call is for CAP_BPF where unprivileged_bpf_disabled is set (kernel/bpf/syscall.c:__sys_bpf), and
        // that was given up. This file is then readable, from 5.14 on also by a process that may not be dumped.
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{program}")).ok()?;
        let misses = text.lines().find_map(|l| l.strip_prefix("recursion_misses:"));
        misses?.trim().parse().ok()
    })
}

/// The same from bpf_prog_info (5.12 and later), which needs no /proc.
fn misses_by_call(program: RawFd) -> Option<u64> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    /// struct bpf_prog_info up to `recursion_misses` (include/uapi/linux/bpf.h, 5.12).
    const WORDS: usize = 27;
    let mut info = [0u64; WORDS];
    // union bpf_attr: descriptor, length of the answer, its address.
    let mut attr = [u64::from(program as u32) | (size_of_val(&info) as u64) << 32, info.as_mut_ptr() as u64];
    // SAFETY: `attr` has the size it is said to have, and points at `info`, which has the length that it says.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, attr.as_mut_ptr(), size_of_val(&attr))
    };
    // The kernel writes back how much it filled in.
    let filled = (attr[0] >> 32) as usize;
    (answer == 0 && filled >= size_of_val(&info)).then_some(info[WORDS - 1])
}

impl Live {
    /// What was not seen so far.
    ///
    /// Where two programs listen to the same event, an event is lost only if both were skipped. What is lost with the
    /// hooks that only settle causes is certainty.
    pub fn losses(&self) -> Losses {
        // Before the totals: they grow meanwhile, and a part is no more than its whole.
        let shares = self.used_shares();
        let lost = self.control.read(0).lost;
        // A missed end is known by address space where sections are numbered.
        let mut doubt = Doubt { peaks: lost.death_missed > 0 && !self.numbered, ..Doubt::default() };
        // Refused calls may be missing.
        doubt.calls = self.spare.unwatched() || self.limits_met() & LIMIT_ON_TASKS_MET != 0;
        doubt.at_limit = self.limits_met() & LIMIT_ON_VMAS_MET != 0;
        let (mut skipped, mut unreadable) = (lost.changes_missed, 0);
        for row in &self.at_work {
            let (count, readable) = self.skipped(row);
            if count.is_some_and(|count| count > 0) || !readable {
                doubt = doubt.or(self.doubt_about(row.0));
            }
            // Numbered sections tell which of these events were a followed process's changes, except for the last
            // change of an address space that still lives, and for refused calls, which change nothing.
            let known =
                row.0 == hook::LOCK_RELEASED && self.numbered && !self.anybody_lives() && !self.asks();
            if !known && !hook::SETTLING.contains(&row.0) {
                skipped += count.unwrap_or(0);
                unreadable += u64::from(!readable);
            }
        }
        // What lies there reads as nothing, and is never free again.
        let ledger_torn = self.ledger.as_ref().is_some_and(Shared::torn);
        let counters = [
            (LossReason::RingFull, lost.ring_full),
            (LossReason::TableFull, lost.table_full + u64::from(self.slots.torn() || self.sites.torn())),
            (LossReason::GroupsFull, lost.groups_full),
            (LossReason::ReadFailed, lost.read_failed),
            (LossReason::SectionLost, lost.section_lost),
            (LossReason::StackMissing, lost.stack_missing),
            (LossReason::StackCopyMissing, lost.stack_copy_missing),
            (LossReason::TreeFull, lost.tree_full),
            (LossReason::DeathMissed, lost.death_missed),
            (LossReason::BirthMissed, lost.birth_missed),
            (LossReason::ChangesMissed, lost.changes_missed),
            (LossReason::AnswersLost, lost.answers_lost),
            (LossReason::SignalsFull, lost.signals_full),
            (LossReason::CreditsLost, lost.credits_lost),
            (LossReason::LedgerDisturbed, lost.ledger_disturbed),
            (LossReason::LedgerFull, lost.ledger_full + u64::from(ledger_torn)),
            (LossReason::ProgramSkipped, skipped),
            (LossReason::SkipsUnreadable, unreadable),
        ]
        .into();
        Losses { at_ns: now_ns(), counters, doubt, shares }
    }

    /// What an event of this row that nobody saw can have changed. Where write sections are numbered, no count: the
    /// programs check each (vmaudit-ebpf/src/lock_sequence.rs).
    fn doubt_about(&self, row: &str) -> Doubt {
        let counting = [hook::LOCK_RELEASED, hook::EXIT_MMAP, hook::SNAPSHOT].contains(&row);
        Doubt {
            at_limit: false,
            peaks: self.sampled || counting && !self.numbered,
            processes: [hook::FORK, hook::EXEC, hook::EXIT].contains(&row),
            calls: row == hook::CALL_EXIT || (self.sampled || self.asks()) && row == hook::LOCK_RELEASED,
            // The two others only ever add to what is known (vmaudit-ebpf/src/hooks/probes.rs).
            causes: [hook::LOCK_RELEASED, hook::CALL_EXIT, hook::ADDRESS_SEARCH].contains(&row),
        }
    }

    /// A release that was shown to none of the programs may have been the last of an address space that lives.
    pub(super) fn open_end(&self) -> bool {
        let releases = self.at_work.iter().find(|(name, _)| *name == hook::LOCK_RELEASED);
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
        let own = if *name == hook::LOCK_RELEASED { self.own_releases() } else { 0 };
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
        if self.classic_alone(hook::LOCK_RELEASED) && self.classic_alone(hook::CALL_EXIT) {
            self.control.read(0).looks
        } else {
            0
        }
    }
}
