//! Who holds the VMAs of a process that has just been refused one: the same classes as `vmaudit explain`, from one look at
//! /proc/PID/maps while the process lives.
//!
//! Bounds: one look for each address space, [`LOOKS`] in a session, one in [`BETWEEN`]; of each at most [`MOST_VMAS`]
//! mappings and [`MOST_TIME`] of reading.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use vmaudit_common::call::Call;
use vmaudit_common::{CLASS_MC0_MASK, CLASS_SECTION};

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::{analysis, verdict};
use crate::model::event::Refused;
use crate::model::report::Holders;
use crate::os::{procfs, rights};

/// Looks in one session.
const LOOKS: usize = 20;
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(500);
/// VMAs read in one look.
const MOST_VMAS: u64 = 300_000;
/// Time spent on reading in one look.
const MOST_TIME: Duration = Duration::from_millis(200);

/// The class of a count so near the limit that a call may be refused for it, see `vmaudit_common::relative_to_max`.
const NEAR: u32 = 1;

/// Looks at processes that are at the limit.
#[derive(Debug)]
pub struct Looks {
    anonymizer: Anonymizer,
    start_ns: u64,
    noticed: HashSet<u64>,
    queue: VecDeque<Waiting>,
    last: Option<Instant>,
    found: HashMap<u64, Holders>,
}

#[derive(Debug)]
struct Waiting {
    generation: u64,
    tgid: u32,
    at_ns: u64,
    call: Call,
    /// VMAs when the call was refused.
    count: Option<u64>,
}

impl Looks {
    /// Names of users in paths are replaced by `anonymizer`. `start_ns`: the session's start, CLOCK_MONOTONIC.
    pub fn new(anonymizer: Anonymizer, start_ns: u64) -> Self {
        Self {
            anonymizer,
            start_ns,
            noticed: HashSet::new(),
            queue: VecDeque::new(),
            last: None,
            found: HashMap::new(),
        }
    }

    /// Takes note of an address space in which a call was refused near the limit, the first time.
    pub fn notice(&mut self, refused: &Refused) {
        let near = refused.class & CLASS_SECTION != 0 && refused.class & CLASS_MC0_MASK >= NEAR;
        if near && self.noticed.len() < LOOKS && self.noticed.insert(refused.generation) {
            let Refused { generation, tgid, at_ns, call, .. } = *refused;
            let count = refused.section.map(|section| section.mc1.into());
            self.queue.push_back(Waiting { generation, tgid, at_ns, call, count });
        }
    }

    /// Takes a look if one is due. `now_ns`: CLOCK_MONOTONIC; `lives`: this address space has not ended.
    pub fn look(&mut self, now_ns: impl Fn() -> u64, lives: impl Fn(u64) -> bool) {
        if self.queue.is_empty() || self.last.is_some_and(|last| last.elapsed() < BETWEEN) {
            return;
        }
        let Some(waiting) = self.queue.pop_front() else { return };
        self.last = Some(Instant::now());
        let hidden = !rights::may_know_addresses(waiting.tgid, None);
        let rights = rights::raised(&rights::PROCESSES);
        let Ok(file) = File::open(format!("/proc/{}/maps", waiting.tgid)) else { return };
        drop(rights);
        let at_ns = now_ns();
        let mut notes = Vec::new();
        let reader =
            BufReader::with_capacity(256 << 10, Timed { inner: &file, until: Instant::now() + MOST_TIME });
        let read = analysis::stream(reader, MOST_VMAS, HashMap::new(), &self.anonymizer, &mut notes);
        // Only what was read before its end, or before its next exec, is of this address space.
        if let Ok(mut explanation) = read
            && explanation.vmas > 0
            && lives(waiting.generation)
        {
            let ended = !procfs::still_there(&file);
            explanation.complete &= notes.is_empty() && !ended;
            if hidden {
                explanation.hide_addresses();
            }
            self.found.insert(
                waiting.generation,
                Holders {
                    vmas_read: explanation.vmas,
                    complete: explanation.complete,
                    vmas_expected: waiting.count,
                    ended,
                    at_s: at_ns.saturating_sub(self.start_ns) as f64 / 1e9,
                    syscall: crate::model::cause::name_of(waiting.call).into(),
                    after_ms: at_ns.saturating_sub(waiting.at_ns) / 1_000_000,
                    sentence: verdict::verdict(&explanation).into_iter().next().unwrap_or_default(),
                },
            );
        }
    }

    /// What was found, by generation.
    pub fn take(&mut self) -> HashMap<u64, Holders> {
        std::mem::take(&mut self.found)
    }
}

/// Ends with an error at a deadline, so that what was read stands and is called incomplete.
struct Timed<'a> {
    inner: &'a File,
    until: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Refused;

    fn refused(generation: u64, class: u32) -> Refused {
        Refused {
            at_ns: 0,
            generation,
            tgid: std::process::id(),
            call: vmaudit_common::call::MMAP,
            class,
            ..Refused::example()
        }
    }

    #[test]
    fn one_look_for_each_address_space_near_the_limit_and_only_while_it_lives() {
        let mut looks = Looks::new(Anonymizer::off(), 0);
        looks.notice(&refused(1, CLASS_SECTION));
        looks.look(|| 5_000_000, |_| true);
        assert!(looks.take().is_empty(), "far from the limit nothing is read");
        for _ in 0..3 {
            looks.notice(&refused(2, CLASS_SECTION | 7));
        }
        looks.look(|| 5_000_000, |_| true);
        let found = looks.take();
        assert_eq!(found.len(), 1);
        let holders = &found[&2];
        assert!(holders.vmas_read > 5 && holders.complete, "{holders:?}");
        assert!(!holders.ended, "{holders:?}");
        assert_eq!((holders.after_ms, holders.at_s, holders.syscall.as_str()), (5, 0.005, "mmap"));
        looks.notice(&refused(3, CLASS_SECTION | 7));
        looks.last = None;
        looks.look(|| 0, |_| false);
        assert!(looks.take().is_empty(), "what was read after the end is not of this address space");
        for generation in 10..100 {
            looks.notice(&refused(generation, CLASS_SECTION | 7));
        }
        assert!(looks.queue.len() <= LOOKS);
    }
}
