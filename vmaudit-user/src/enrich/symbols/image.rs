//! What is remembered of the code of one address space.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use super::Waiting;
use super::stack_copy::StackCopy;

/// Words of one stack that are looked up.
const WORDS: usize = 1024;
/// No program is mapped below but by those who lowered vm.mmap_min_addr.
const LOWEST: u64 = 4096;

/// An executable mapping.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Of `start` in the file.
    pub(super) offset: u64,
    /// As the kernel names it; empty for anonymous memory.
    pub(super) name: String,
    pub(super) module: Option<usize>,
}

/// What is remembered of one address space.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) areas: Vec<Area>,
    /// Addresses that were asked for and are not executable.
    pub(super) holes: HashSet<u64>,
    pub(super) stacks: Vec<Vec<u64>>,
    /// So many of them have been named.
    pub(super) named: usize,
    pub(super) looks: u32,
    /// The same for credited calls.
    pub(super) code_looks: u32,
    /// All code that it had at some time is among `areas`.
    pub(super) whole: bool,
    /// Its mappings were too many to be read to the end, at the last look: when that was.
    pub(super) unread: Option<Instant>,
    /// Root directory and process id as the process sees it, for its perf map.
    pub(super) root: Option<(Rc<OwnedFd>, u32)>,
}

impl Image {
    pub(super) fn area(&self, at: u64) -> Option<&Area> {
        // The newest: a later look tells more of an address than an earlier one.
        self.areas.iter().rev().find(|area| (area.start..area.end).contains(&at))
    }

    /// Words of a stack that may be return addresses into code that is not known yet, from the inside on.
    pub(super) fn unknown_words(&self, copy: &StackCopy) -> Vec<u64> {
        // Addresses of arm64 may be signed, above one of these bits.
        let bits: &[u32] = if cfg!(target_arch = "aarch64") { &[48, 39] } else { &[47] };
        let own = copy.sp..copy.end();
        let mut seen = HashSet::new();
        copy.words()
            .flat_map(|word| bits.iter().map(move |bits| word & ((1 << bits) - 1)))
            .filter(|word| *word > LOWEST && !own.contains(word))
            .map(inside)
            .filter(|&at| self.area(at).is_none() && seen.insert(at))
            .take(WORDS)
            .collect()
    }

    /// Addresses of a stack and its caller that are not known yet.
    pub(super) fn unknown(&self, waiting: &Waiting) -> Vec<u64> {
        let addresses = waiting.stack.iter().chain(&waiting.caller).map(|&ip| inside(ip));
        addresses.filter(|&at| !self.knows(at)).collect()
    }

    pub(super) fn knows(&self, at: u64) -> bool {
        self.area(at).is_some() || self.holes.contains(&at)
    }
}

/// An address inside the instruction that `ip` follows: a call, or at the top of the stack the system call.
pub(super) fn inside(ip: u64) -> u64 {
    ip.saturating_sub(1)
}
