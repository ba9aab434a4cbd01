//! The live source: loads and attaches the programs, reads their shared memory and their ring buffer.
//!
//! After the start it makes no bpf() map calls (they would switch classic tracepoint programs off on a CPU): slots and
//! counters are read and freed through mmap, details come through the ring buffer.

mod attach;
mod bpf_call;
pub(crate) mod decode;
mod descendants;
mod environments;
mod facts;
pub(crate) mod hooks;
mod intervals;
mod ledger;
mod left_ranges;
mod living;
mod load;
mod losses;
mod namespace;
mod placed;
mod preload;
mod refusal;
mod ring;
mod shared_memory;
mod source;
mod spare;
mod substitutes;
pub(crate) mod task_iter;
mod task_names;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    fs,
    io::Read as _,
    mem::size_of,
    os::fd::{AsFd as _, OwnedFd},
    ptr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData, MapError},
};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use vmaudit_common::{
    Control, FOLLOW_AFTER_EXEC, FOLLOW_FROM_BIRTH, Followed, LedgerEntry, MmSlot, SLOT_DEAD, SLOT_LIVE,
    Share, Site, TaskName,
};

pub(crate) use attach::ASKED;
pub use intervals::INTERVAL;

use crate::model::event::{Event, Kept, MmState, ProcessId, UsedShare};
use crate::model::report::Hook;
use crate::os::clock::now_ns;
use crate::os::rights;
use crate::source::ebpf::decode::{Beside, Decoded, decode, mm_state};
use crate::source::ebpf::environments::Environments;
use crate::source::ebpf::facts::Names;
use crate::source::ebpf::intervals::Intervals;
use crate::source::ebpf::left_ranges::LeftRanges;
use crate::source::ebpf::living::Whose;
use crate::source::ebpf::load::DebugLog;
use crate::source::ebpf::losses::Counted;
use crate::source::ebpf::namespace::Numbers;
pub use crate::source::ebpf::namespace::PidNamespace;
use crate::source::ebpf::placed::Works;
use crate::source::ebpf::ring::Ring;
use crate::source::ebpf::shared_memory::Shared;
use crate::source::ebpf::spare::Spare;

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Follow every process.
    pub watch_all: bool,
    /// Follow children of followed processes.
    pub follow_children: bool,
    /// Every change as an event.
    pub stream_changes: bool,
    /// Every failure as an event, not only the first few of a kind.
    pub stream_failures: bool,
    /// Processes that already run will be followed.
    pub attach: bool,
    /// See [`crate::model::hook::CALL_EXIT`]; without it peaks only, at no cost for calls that are not watched.
    pub calls: bool,
    /// The exits of calls are watched where answers could be asked for as well: every watched call is seen, at a price
    /// for every call of the machine.
    pub exits: bool,
    /// Examples of failures carry their user stack.
    pub stacks: bool,
    /// Who raises the count is told.
    pub makers: bool,
    /// Every change of the count is put down with its place.
    pub ledger: bool,
    /// Size of the ring buffer, bytes; a power of two, at least a page.
    pub ring_bytes: u32,
    /// Address spaces followed at one time; a power of two.
    pub slots: u32,
    /// The programs' own messages.
    pub debug: bool,
    /// How long intervals are whose peaks are told.
    pub interval: Duration,
    /// The pid namespace that vmaudit runs in, if it is not the machine's first one.
    pub namespace: Option<PidNamespace>,
}

/// The eBPF source is not to be had: what is missing and how to get it, in one sentence.
#[derive(Debug)]
pub struct Unavailable(pub String);

/// The source at work.
pub struct Live {
    /// Of a thread's while that loads the spare.
    ebpf: Arc<Mutex<Ebpf>>,
    slots: Shared<MmSlot>,
    control: Shared<Control>,
    shares: Shared<Share>,
    sites: Shared<Site>,
    task_names: Shared<TaskName>,
    ledger: Option<Shared<LedgerEntry>>,
    no_ledger: Option<String>,
    ring: Ring,
    followed: BpfHashMap<MapData, u32, u64>,
    hooks: Vec<Hook>,
    /// Programs at work by row, for their miss counters.
    at_work: Vec<(&'static str, Vec<Counted>)>,
    /// The kernel numbers the write sections of each address space, and the programs look for gaps.
    numbered: bool,
    /// Descriptors whose closing detaches.
    events: Vec<OwnedFd>,
    /// Reading it walks all tasks once.
    iterator: Option<fs::File>,
    /// When that was done, CLOCK_MONOTONIC ns; 0: it was not.
    walked_ns: u64,
    /// The same for the session's end.
    last_walk: Option<fs::File>,
    /// What [`Live::report_changed`] told last of each slot.
    told: Vec<u64>,
    whose: RefCell<Whose>,
    /// When it began, until what only the start needed was let go.
    starts: Option<Instant>,
    /// Process numbers as vmaudit's pid namespace has them, where it is not the machine's first one.
    numbers: Option<Numbers>,
    /// The substitutes are at work.
    sampled: bool,
    /// What answers are asked with; else the exits of calls are watched, or nothing of calls is.
    works: Option<Works>,
    spare: Spare,
    /// Of processes that begin.
    environments: Environments,
    /// The kernel counts how often it skips a classic tracepoint's program.
    counts_classic_skips: bool,
    logger: Option<aya_log::EbpfLogger<DebugLog>>,
    names: Names,
    /// Peaks by time.
    intervals: Intervals,
    /// What refused calls have left mapped.
    left: LeftRanges,
    /// Dead address spaces whose last records about that were waited for.
    waited_for: HashSet<u64>,
    /// Records known to be dropped, as last told.
    told_ring_full: u64,
}

impl Live {
    /// Follows a process from now on. `after_exec`: it is our own child, and what it does before its exec is ours.
    pub fn follow(&mut self, tgid: u32, after_exec: bool) -> anyhow::Result<()> {
        let flags = if after_exec { FOLLOW_FROM_BIRTH | FOLLOW_AFTER_EXEC } else { 0 };
        let tgid = self.kernels_number(tgid)?;
        self.tell(tgid, Followed { flags, reserved: 0 }, 0).context("cannot tell the programs whom to follow")
    }

    /// Writes a row of their table. `how`: as bpf(2) has it.
    fn tell(&mut self, tgid: u32, whom: Followed, how: u64) -> Result<(), MapError> {
        let _rights = rights::raised(&rights::EBPF);
        self.followed.insert(tgid, bytemuck::cast::<_, u64>(whom), how)
    }

    /// From here on a skipped program is a loss: what was skipped before was nobody's who is followed. Telling the
    /// programs whom to follow takes bpf() map calls, which themselves switch classic programs off for a moment.
    pub fn begin(&mut self) {
        let _rights = rights::raised(&rights::EBPF);
        for (_, programs) in &mut self.at_work {
            for counted in programs {
                counted.restart();
            }
        }
        self.load_spare();
    }

    /// Opens a slot for each followed process that already runs. Works once.
    pub fn snapshot(&mut self) -> anyhow::Result<()> {
        if let Some(mut file) = self.iterator.take() {
            let _rights = rights::raised(&rights::EBPF);
            file.read_to_end(&mut Vec::new()).context("the walk over running tasks failed")?;
            self.walked_ns = now_ns();
        }
        Ok(())
    }

    /// What became of each hook.
    pub fn hooks(&self) -> Vec<Hook> {
        let mut rows = self.hooks.clone();
        for hook in &mut rows {
            hook.skipped =
                self.at_work.iter().find(|(name, _)| *name == hook.name).and_then(|row| self.skipped(row).0);
            if hook.name == crate::model::hook::CALL_EXIT
                && let Some(loses) = &mut hook.loses
                && let Some(more) = hooks::met_unwatched(self.limits_met())
            {
                loses.push_str("; ");
                loses.push_str(more);
            }
        }
        rows
    }

    /// This row of the hook table is at work, itself or by a substitute.
    pub fn has(&self, row: &str) -> bool {
        self.at_work.iter().any(|(name, _)| *name == row)
    }

    /// `LIMIT_*` bits.
    fn limits_met(&self) -> u32 {
        self.control.read(0).limits_met
    }

    /// Answers of calls are asked for; no program sees the exits of calls.
    pub fn asks(&self) -> bool {
        self.works.is_some()
    }

    /// Substitutes are at work in place of the lock events.
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// Readable when the ring buffer has records.
    pub fn wake_fd(&self) -> std::io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }

    /// Tells the programs vm.max_map_count, kernel.threads-max and kernel.pid_max as they are now; returns the first.
    pub fn refresh_limit(&self) -> Option<u32> {
        let [max_threads, pid_max] = ["threads-max", "pid_max"].map(super::proc_kernel_number);
        let control = self.control.at(0);
        for (word, value) in [
            // SAFETY: the page, mapped for the life of `self`.
            (unsafe { &raw mut (*control).max_threads }, max_threads),
            // SAFETY: as above.
            (unsafe { &raw mut (*control).pid_max }, pid_max),
        ] {
            // SAFETY: as above; the words are written by us alone.
            unsafe { AtomicU32::from_ptr(word) }.store(value.unwrap_or(0), Ordering::Relaxed);
        }
        let limit = super::proc_max_map_count()?;
        // SAFETY: the page, mapped for the life of `self`; the word is written by us alone.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.control.at(0)).max_map_count) }
            .store(limit, Ordering::Relaxed);
        Some(limit)
    }

    /// Takes what has arrived, at most `most` records; returns whether more may be waiting.
    pub fn drain(&mut self, most: usize, sink: &mut dyn FnMut(Event)) -> bool {
        self.want_environments();
        for _ in 0..most {
            let Some(item) = self.ring.next() else { return false };
            let mut decoded = decode(&item);
            let head = namespace::head(&item);
            drop(item);
            if let Some(decoded) = &mut decoded {
                self.number(decoded, head);
            }
            match decoded {
                Some(Decoded::Event(Event::Process(mut named))) => {
                    self.names.complete(&mut named, false);
                    self.may_run_tests(&named);
                    sink(Event::Process(named));
                }
                Some(Decoded::PartOfPath(mut named)) => {
                    self.names.complete(&mut named, true);
                    self.may_run_tests(&named);
                    sink(Event::Process(named));
                }
                Some(Decoded::Event(event)) => sink(event),
                Some(Decoded::Dead(index)) => self.take_dead(index, sink),
                Some(Decoded::LimitNear) => self.watch_exits(),
                Some(Decoded::Left(record)) => self.left.take(&record),
                None => {}
            }
        }
        true
    }

    fn take_dead(&mut self, index: u64, sink: &mut dyn FnMut(Event)) {
        if index < self.slots.len() as u64 && self.state(index as usize) == SLOT_DEAD {
            sink(Event::Mm(Box::new(self.mm(index as usize))));
            self.free(index as usize);
        }
    }

    fn mm(&self, index: usize) -> MmState {
        let ledger = self.ledger.as_ref().map(|table| ledger::entries_of(table, &self.slots, index));
        let slot = self.slots.read(index);
        let sites = if slot.failures.iter().any(|group| group.sites > 0) {
            self.sites_of(slot.generation)
        } else {
            Vec::new()
        };
        let beside = Beside {
            ledger: ledger.as_deref(),
            sites: &sites,
            names: &task_names::entries_of(&self.task_names, &slot),
            numbered: self.numbered,
            all_seen: !self.sampled,
            left: &self.left,
            intervals: &self.intervals,
        };
        let mut state = mm_state(&slot, &beside);
        // Its first release while the walk was on its way began it: from then on all is known, as of those that the walk met.
        state.from_snapshot |= !state.from_birth && state.born_ns <= self.walked_ns;
        self.number_state(&mut state, &slot);
        state
    }

    /// Places at which calls of this address space were refused.
    fn sites_of(&self, generation: u64) -> Vec<Site> {
        (0..self.sites.len())
            .filter(|&index| self.generation_of_site(index) == generation)
            .map(|index| self.sites.read(index))
            .filter(|site| site.key != 0 && site.generation == generation)
            .collect()
    }

    fn generation_of_site(&self, index: usize) -> u64 {
        // SAFETY: `index` is in bounds; the word is written by the kernel side when the entry is taken.
        unsafe { ptr::read_volatile(&raw const (*self.sites.at(index)).generation) }
    }

    /// Hands back the entries of an address space that is gone.
    fn free_sites(&mut self, generation: u64) {
        for index in 0..self.sites.len() {
            if self.generation_of_site(index) == generation {
                let site = self.sites.at(index);
                // SAFETY: in bounds; nobody counts in it any more: its address space has ended. The key comes last.
                unsafe {
                    let rest = site.cast::<u8>().add(size_of::<u64>());
                    ptr::write_bytes(rest, 0, size_of::<Site>() - size_of::<u64>());
                    AtomicU64::from_ptr(site.cast()).store(0, Ordering::Release);
                }
            }
        }
    }

    fn state(&self, index: usize) -> u32 {
        // SAFETY: `index` is in bounds; the word is shared with the kernel, hence atomic.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.slots.at(index)).state) }.load(Ordering::Acquire)
    }

    /// Hands a dead slot back, zeroed as the kernel side expects it, and takes it out of its user's share.
    fn free(&mut self, index: usize) {
        let slot = self.slots.at(index);
        let read = self.slots.read(index);
        if read.failures.iter().any(|group| group.sites > 0) {
            self.free_sites(read.generation);
        }
        task_names::free(&self.task_names, &read);
        self.ledger.iter().for_each(|table| ledger::free(table, &read));
        self.left.forget(read.generation);
        self.whose.get_mut().ended(read.generation);
        self.waited_for.remove(&read.generation);
        // SAFETY: the slot is dead: the kernel side does not touch it until its first word is 0.
        let share = unsafe {
            let share = (*slot).share;
            let rest = slot.cast::<u8>().add(8);
            ptr::write_bytes(rest, 0, size_of::<MmSlot>() - 8);
            fence(Ordering::Release);
            AtomicU64::from_ptr(slot.cast()).store(0, Ordering::Release);
            share
        };
        let control = self.control.at(0);
        // SAFETY: the page, whose counters both sides change atomically.
        unsafe {
            AtomicU64::from_ptr(&raw mut (*control).slots_in_use).fetch_sub(1, Ordering::Relaxed);
            AtomicU64::from_ptr(&raw mut (*control).slots_dead).fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(index) = share.checked_sub(1).filter(|&index| (index as usize) < self.shares.len()) {
            // SAFETY: in bounds; as above.
            unsafe { AtomicU64::from_ptr(&raw mut (*self.shares.at(index as usize)).slots) }
                .fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Users of whom something was left out because they had their share of what all share.
    fn used_shares(&self) -> Vec<UsedShare> {
        (0..self.shares.len())
            .map(|index| self.shares.read(index))
            .filter(|share| share.slots_denied > 0 || share.records_denied > 0)
            .map(|share| UsedShare {
                uid: share.user.checked_sub(1).and_then(|uid| u32::try_from(uid).ok()),
                address_spaces: share.slots_denied,
                records: share.records_denied,
            })
            .collect()
    }

    /// Where the next slot is looked for.
    fn cursor(&self) -> u64 {
        // SAFETY: the page.
        let cursor =
            unsafe { AtomicU64::from_ptr(&raw mut (*self.control.at(0)).cursor) }.load(Ordering::Acquire);
        // Without fetch-and-add, one CPU's last attempt can set the cursor back before another's.
        cursor + if self.sampled { 1024 } else { 0 }
    }

    /// Slots that were ever in use.
    fn used(&self) -> usize {
        self.cursor().min(self.slots.len() as u64) as usize
    }

    /// Looks through all slots for dead ones: a full ring buffer may have swallowed the hint. `last`: no record is left in
    /// it.
    pub fn sweep(&mut self, last: bool, sink: &mut dyn FnMut(Event)) {
        // Most records wake nobody. What they tell of a process comes before its figures: whose it is may depend on it.
        const MOST: usize = 1 << 16;
        self.drain(MOST, sink);
        // Most of the time there is none. Each is counted before it can be seen (vmaudit-ebpf/src/slots.rs).
        if !last && self.control.read(0).slots_dead == 0 {
            return;
        }
        for index in 0..self.used() {
            if self.state(index) == SLOT_DEAD && (last || !self.records_may_come(index)) {
                self.take_dead(index as u64, sink);
            }
        }
    }

    /// Records about what this dead address space has left mapped may still be in the ring buffer: they are waited for
    /// once.
    fn records_may_come(&mut self, index: usize) -> bool {
        let slot = self.slots.read(index);
        self.left.of(&slot) != Kept::default() && self.waited_for.insert(slot.generation)
    }

    /// Processes with an address space in one of these states: with [`SLOT_DEAD`], whose end was not taken yet.
    pub fn in_slots(&self, states: &[u32]) -> HashSet<ProcessId> {
        let taken = (0..self.used()).filter(|&index| states.contains(&self.state(index)));
        taken.map(|index| self.process_in(index)).collect()
    }

    /// Whose slot it is.
    fn process_in(&self, index: usize) -> ProcessId {
        let slot = self.slots.at(index);
        // SAFETY: `index` is in bounds; the words are written by the kernel side when the slot is taken.
        unsafe {
            let inside = self.numbers.is_some();
            let tgid = if inside { &raw const (*slot).shown_tgid } else { &raw const (*slot).tgid };
            ProcessId {
                tgid: ptr::read_volatile(tgid),
                start_ns: ptr::read_volatile(&raw const (*slot).start_boottime_ns),
            }
        }
    }

    /// Processes that still exist and whose address space is not known to have ended: an end can be missed.
    pub fn living_processes(&self) -> BTreeSet<u32> {
        let exists = |pid: &u32| kill(Pid::from_raw(*pid as i32), None) != Err(Errno::ESRCH);
        self.in_slots(&[SLOT_LIVE]).into_iter().map(|process| process.tgid).filter(exists).collect()
    }

    /// Records that found the ring buffer full, so far.
    pub fn ring_full(&self) -> u64 {
        self.control.read(0).lost.ring_full
    }

    /// Passes on the programs' own messages; nothing to do unless [`Options::debug`] was set.
    pub fn flush_debug(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// Bytes per page.
pub fn page_size() -> u64 {
    // SAFETY: no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
