//! The live source: loads and attaches the programs, reads their shared memory and their ring buffer.
//!
//! After the start it makes no bpf() map calls (they would switch classic tracepoint programs off on a CPU): slots and
//! counters are read and freed through mmap, details come through the ring buffer.

use std::{
    fs,
    io::Read as _,
    mem::{offset_of, size_of},
    os::fd::{AsFd as _, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap as BpfHashMap, Map, MapData, RingBuf},
    programs::Program,
};
use bytemuck::{Pod, Zeroable as _};
use vmaudit_common::{
    ABSENT, AREA_EXECUTABLE, AREA_FILE, AREA_WHOLE_PATH, AreaRecord, CLASS_GAP, CLASS_SEARCHED,
    CLASS_SECTION, ChangeRecord, Config, Control, DeadRecord, FOLLOW_AFTER_EXEC, FOLLOW_FROM_BIRTH,
    FailureRecord, Followed, GroupKey, MM_FROM_BIRTH, MM_FROM_EXEC, MM_FROM_SNAPSHOT, MM_SHARED, MmSlot,
    RECORD_AREA, RECORD_CHANGE, RECORD_DEAD, RECORD_EXEC, RECORD_EXIT, RECORD_FAILURE, RECORD_FORK,
    RecordHeader, SLOT_DEAD, SLOT_LIVE, TaskRecord, call,
};

use super::{
    CallStat, Change, Event, Mapped, MappedFile, MmState, Named, ProcessId, RefusalGroup, Refused, Section,
    Task, address,
    hooks::{self, Form, HOOKS, Need, Row, Via},
    kernel::Facts,
    proc::Proc,
};
use crate::report::{Hook, HookState};

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
    /// See [`hooks::CALL_EXIT`]; without it peaks only, at no cost for calls that are not watched.
    pub calls: bool,
    /// Examples of failures carry their user stack.
    pub stacks: bool,
    /// Size of the ring buffer, bytes; a power of two, at least a page.
    pub ring_bytes: u32,
    /// Address spaces followed at one time; a power of two.
    pub slots: u32,
    /// The programs' own messages.
    pub debug: bool,
}

/// The eBPF source is not to be had: what is missing and how to get it, in one sentence.
#[derive(Debug)]
pub struct Unavailable(pub String);

/// Why a row of the hook table that settles causes only is not there beside the substitutes.
const NO_SUBSTITUTE: &str = "it needs to know the call that a task is in, which kernels tell programs from 5.15 on; \
                             nothing does that beside the programs that count at the exits of calls";

/// The source at work.
pub struct Live {
    ebpf: Ebpf,
    slots: Shared<MmSlot>,
    control: Shared<Control>,
    ring: RingBuf<MapData>,
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
    /// The substitutes are at work.
    sampled: bool,
    /// The kernel counts how often it skips a classic tracepoint's program.
    counts_classic_skips: bool,
    logger: Option<aya_log::EbpfLogger<DebugLog>>,
    names: Names,
}

/// A program at work.
struct Counted {
    program: RawFd,
    /// What its miss counter said before anybody was followed; `None` when it could not be read.
    at_start: Option<u64>,
}

impl Counted {
    fn new(program: RawFd) -> Self {
        Self { program, at_start: Some(0) }
    }

    /// Events that the kernel did not show to the program; `None` when the counter cannot be read.
    fn skipped(&self) -> Option<u64> {
        Some(recursion_misses(self.program)?.saturating_sub(self.at_start?))
    }
}

/// Looks into /proc for what the programs cannot tell, at most so many in a second.
struct Names {
    proc: Proc,
    second: Instant,
    looks: u32,
}

impl Names {
    const LOOKS_PER_SECOND: u32 = 100;

    fn cgroup(&mut self, pid: u32) -> Option<String> {
        if self.second.elapsed().as_secs() > 0 {
            self.second = Instant::now();
            self.looks = 0;
        }
        self.looks += 1;
        if self.looks > Self::LOOKS_PER_SECOND {
            return None;
        }
        self.proc.open(pid).ok()?.cgroup()
    }
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/vmaudit.bpf.o"));

impl Live {
    /// Loads and attaches everything that `options` ask for. Whoever is to be followed from its first instruction must
    /// wait until this and [`Live::follow`] have returned.
    pub fn open(facts: &Facts, options: &Options) -> Result<Self, Unavailable> {
        Self::with_lock_events(facts, options).or_else(|Unavailable(why)| {
            Self::with_substitutes(facts, options, &why).map_err(|Unavailable(other)| {
                Unavailable(if other == why { why } else { format!("{why}; in its place: {other}") })
            })
        })
    }

    fn with_lock_events(facts: &Facts, options: &Options) -> Result<Self, Unavailable> {
        let released = HOOKS.iter().find(|row| row.name == hooks::LOCK_RELEASED);
        if let Some(row) = released {
            let choice = hooks::choose(row, facts);
            if choice.forms.is_empty() && facts.layout.is_ok() {
                return Err(Unavailable(choice.reasons.join("; ")));
            }
        }
        let mut live = Self::load(facts, options)?;
        for row in HOOKS {
            live.attach_row(row, facts, options)?;
        }
        Ok(live)
    }

    /// The second set of programs (vmaudit-ebpf/src/fallback.rs). `why` the first cannot be used.
    fn with_substitutes(facts: &Facts, options: &Options, why: &str) -> Result<Self, Unavailable> {
        let mut live = Self::load(facts, options)?;
        for row in HOOKS {
            let wanted = live.wants(row, options);
            let mut hook = Hook::unused(row.name);
            let Some(substitute) = hooks::SUBSTITUTES.iter().find(|other| other.row == row.name) else {
                if wanted {
                    hook.state = HookState::Missing;
                    hook.loses = Some(row.loses.into());
                    hook.reason = Some(NO_SUBSTITUTE.into());
                }
                live.hooks.push(hook);
                continue;
            };
            let attached = match &substitute.form {
                _ if !wanted => None,
                Some(form) => Some(live.attach(form, facts).map(|fd| vec![Counted::new(fd)])),
                None => Some(Ok(Vec::new())),
            };
            match attached {
                None => {}
                Some(Ok(programs)) => {
                    hook.state =
                        if substitute.loses.is_none() { HookState::Attached } else { HookState::Missing };
                    hook.via = Some(substitute.via.into());
                    hook.loses = substitute.loses.map(Into::into);
                    hook.reason = substitute.loses.map(|_| why.into());
                    live.at_work.push((row.name, programs));
                }
                Some(Err(e)) if row.need == Need::Required => {
                    return Err(Unavailable(format!("{}: {}", row.name, refusal(&e))));
                }
                Some(Err(e)) => {
                    hook.state = HookState::Missing;
                    hook.loses = Some(row.loses.into());
                    hook.reason = Some(refusal(&e));
                }
            }
            live.hooks.push(hook);
        }
        live.sampled = true;
        live.numbered = false;
        Ok(live)
    }

    /// The object and its shared memory; nothing is attached yet.
    fn load(facts: &Facts, options: &Options) -> Result<Self, Unavailable> {
        let layout = facts
            .layout
            .clone()
            .map_err(|e| Unavailable(format!("{e}; a kernel with CONFIG_DEBUG_INFO_BTF is needed")))?;
        let mut ebpf =
            load(&layout, &config(facts, options), options).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| Unavailable(format!("the eBPF object has no map {name}")))
        };
        let slots =
            Shared::new(take("SLOTS")?, options.slots as usize).map_err(|e| Unavailable(refusal(&e)))?;
        let control = Shared::new(take("CONTROL")?, 1).map_err(|e| Unavailable(refusal(&e)))?;
        let ring = RingBuf::try_from(take("RECORDS")?).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let followed =
            BpfHashMap::try_from(take("FOLLOWED")?).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let mut live = Self {
            ebpf,
            slots,
            control,
            ring,
            followed,
            hooks: Vec::new(),
            at_work: Vec::new(),
            numbered: layout.mm_lock_seq != ABSENT,
            events: Vec::new(),
            iterator: None,
            sampled: false,
            counts_classic_skips: hooks::counts_classic_skips(facts),
            logger: None,
            names: Names { proc: Proc::new("/proc"), second: Instant::now(), looks: 0 },
        };
        if options.debug {
            live.logger = aya_log::EbpfLogger::init_with_logger(&mut live.ebpf, DebugLog).ok();
        }
        live.refresh_limit();
        Ok(live)
    }

    /// This session has a use for the row.
    fn wants(&self, row: &Row, options: &Options) -> bool {
        match row.need {
            Need::Attach => options.attach,
            Need::Required => true,
            Need::Optional => options.calls,
            Need::StrictOvercommit => options.calls && self.names.proc.limits().overcommit_memory == Some(2),
        }
    }

    fn attach_row(&mut self, row: &'static Row, facts: &Facts, options: &Options) -> Result<(), Unavailable> {
        let mut hook = Hook::unused(row.name);
        if !self.wants(row, options) {
            self.hooks.push(hook);
            return Ok(());
        }
        let choice = hooks::choose(row, facts);
        let mut reasons = choice.reasons;
        let mut vias: Vec<Via> = Vec::new();
        let mut programs = Vec::new();
        for form in choice.forms {
            match self.attach(form, facts) {
                Ok(fd) => {
                    vias.push(form.via);
                    programs.push(Counted::new(fd));
                    if !choice.all {
                        break;
                    }
                }
                Err(e) => {
                    if options.debug {
                        say_why(form, &e);
                    }
                    reasons.push(refusal(&e));
                }
            }
        }
        if programs.is_empty() {
            let reason = reasons.join("; ");
            if row.need == Need::Required {
                return Err(Unavailable(format!("the hook {} cannot be attached: {reason}", row.name)));
            }
            hook.state = HookState::Missing;
            hook.loses = Some(row.loses.into());
            hook.reason = Some(reason);
        } else {
            hook.state = HookState::Attached;
            hook.via = Some(vias.iter().map(|via| via.name()).collect::<Vec<_>>().join("+"));
            // Why not in another way too, or instead.
            hook.reason = Some(reasons.join("; ")).filter(|reason| !reason.is_empty());
            hook.loses = hooks::blind_spot(row, facts, &vias).map(Into::into);
            self.at_work.push((row.name, programs));
        }
        self.hooks.push(hook);
        Ok(())
    }

    fn attach(&mut self, form: &Form, facts: &Facts) -> anyhow::Result<RawFd> {
        if hooks::left_out(form.program) {
            return Err(anyhow!("left out on request"));
        }
        let program = self
            .ebpf
            .program_mut(form.program)
            .with_context(|| format!("the eBPF object has no program {}", form.program))?;
        match (program, form.via) {
            (Program::RawTracePoint(p), Via::Raw(event)) => {
                p.load()?;
                p.attach(event)?;
                Ok(p.fd()?.as_fd().as_raw_fd())
            }
            (Program::TracePoint(p), Via::Classic(category, name)) => {
                let tracefs = facts.tracefs.as_ref().map_err(|e| anyhow!("{e}"))?;
                let id = tracefs.event_id(category, name).map_err(|e| anyhow!(e))?;
                p.load()?;
                let fd = p.fd()?.as_fd().as_raw_fd();
                let event = attach_to_event(id, fd).with_context(|| format!("{category}:{name}"))?;
                self.events.push(event);
                Ok(fd)
            }
            (Program::Iter(p), Via::Iter(kind)) => {
                let btf = aya::Btf::from_sys_fs()?;
                p.load(kind, &btf)?;
                let fd = p.fd()?.as_fd().as_raw_fd();
                let id = p.attach()?;
                self.iterator = Some(p.take_link(id)?.into_file()?);
                Ok(fd)
            }
            (Program::FExit(p), Via::FExit(function)) => {
                p.load(function, &aya::Btf::from_sys_fs()?)?;
                p.attach()?;
                Ok(p.fd()?.as_fd().as_raw_fd())
            }
            (Program::KProbe(p), Via::KProbe(function) | Via::KRetProbe(function)) => {
                if !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
                    return Err(anyhow!("this kernel has no kprobes"));
                }
                p.load()?;
                p.attach(function, 0)?;
                Ok(p.fd()?.as_fd().as_raw_fd())
            }
            _ => Err(anyhow!("program {} is of another kind than the hook table says", form.program)),
        }
    }

    /// Follows a process from now on. `after_exec`: it is our own child, and what it does before its exec is ours.
    pub fn follow(&mut self, tgid: u32, after_exec: bool) -> anyhow::Result<()> {
        let flags = if after_exec { FOLLOW_FROM_BIRTH | FOLLOW_AFTER_EXEC } else { 0 };
        let value: u64 = bytemuck::cast(Followed { flags, reserved: 0 });
        self.followed.insert(tgid, value, 0).context("cannot tell the programs whom to follow")
    }

    /// From here on a skipped program is a loss: what was skipped before was nobody's who is followed. Telling the
    /// programs whom to follow takes bpf() map calls, which themselves switch classic programs off for a moment.
    pub fn begin(&mut self) {
        for (_, programs) in &mut self.at_work {
            for counted in programs {
                counted.at_start = recursion_misses(counted.program);
            }
        }
    }

    /// Opens a slot for each followed process that already runs. Works once.
    pub fn snapshot(&mut self) -> anyhow::Result<()> {
        if let Some(mut file) = self.iterator.take() {
            file.read_to_end(&mut Vec::new()).context("the walk over running tasks failed")?;
        }
        Ok(())
    }

    /// What became of each hook.
    pub fn hooks(&self) -> Vec<Hook> {
        let mut hooks = self.hooks.clone();
        for hook in &mut hooks {
            hook.skipped =
                self.at_work.iter().find(|(name, _)| *name == hook.name).and_then(|row| self.skipped(row).0);
        }
        hooks
    }

    /// This row of the hook table is at work, itself or by a substitute.
    pub fn has(&self, row: &str) -> bool {
        self.at_work.iter().any(|(name, _)| *name == row)
    }

    /// Substitutes are at work in place of the lock events.
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// Readable when the ring buffer has records.
    pub fn wake_fd(&self) -> std::io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }

    /// Tells the programs vm.max_map_count as it is now; returns it.
    pub fn refresh_limit(&self) -> Option<u32> {
        let limit = super::proc_max_map_count()?;
        // SAFETY: the only value of CONTROL, mapped for the life of `self`; the word is written by us alone.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.control.at(0)).max_map_count) }
            .store(limit, Ordering::Relaxed);
        Some(limit)
    }

    /// Takes what has arrived, at most `most` records; returns whether more may be waiting.
    pub fn drain(&mut self, most: usize, sink: &mut impl FnMut(Event)) -> bool {
        for _ in 0..most {
            let Some(item) = self.ring.next() else { return false };
            let decoded = decode(&item);
            drop(item);
            match decoded {
                Some(Decoded::Event(Event::Named(mut named))) => {
                    named.cgroup = self.names.cgroup(named.process.tgid);
                    sink(Event::Named(named));
                }
                Some(Decoded::Event(event)) => sink(event),
                Some(Decoded::Dead(index)) => self.take_dead(index, sink),
                None => {}
            }
        }
        true
    }

    fn take_dead(&mut self, index: u64, sink: &mut impl FnMut(Event)) {
        if index < self.slots.len() as u64 && self.state(index as usize) == SLOT_DEAD {
            sink(Event::Mm(Box::new(mm_state(&self.slots.read(index as usize), self.numbered))));
            self.free(index as usize);
        }
    }

    fn state(&self, index: usize) -> u32 {
        // SAFETY: `index` is in bounds; the word is shared with the kernel, hence atomic.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.slots.at(index)).state) }.load(Ordering::Acquire)
    }

    /// Hands a dead slot back, zeroed as the kernel side expects it.
    fn free(&mut self, index: usize) {
        let slot = self.slots.at(index);
        // SAFETY: the slot is dead: the kernel side does not touch it until its first word is 0.
        unsafe {
            let rest = slot.cast::<u8>().add(8);
            ptr::write_bytes(rest, 0, size_of::<MmSlot>() - 8);
            fence(Ordering::Release);
            AtomicU64::from_ptr(slot.cast()).store(0, Ordering::Release);
        }
    }

    /// Slots that were ever in use.
    fn used(&self) -> usize {
        // SAFETY: the only value of CONTROL.
        let cursor =
            unsafe { AtomicU64::from_ptr(&raw mut (*self.control.at(0)).cursor) }.load(Ordering::Acquire);
        // Without fetch-and-add, one CPU's last attempt can set the cursor back before another's.
        let margin = if self.sampled { 1024 } else { 0 };
        (cursor + margin).min(self.slots.len() as u64) as usize
    }

    /// Looks through all slots for dead ones: a full ring buffer may have swallowed the hint.
    pub fn sweep(&mut self, sink: &mut impl FnMut(Event)) {
        for index in 0..self.used() {
            if self.state(index) == SLOT_DEAD {
                self.take_dead(index as u64, sink);
            }
        }
    }

    /// This address space has not ended.
    pub fn lives(&self, generation: u64) -> bool {
        (0..self.used()).any(|i| {
            // SAFETY: `i` is in bounds; the word is written by the kernel side when the slot is taken.
            let of_slot = unsafe { ptr::read_volatile(&raw const (*self.slots.at(i)).generation) };
            of_slot == generation && self.state(i) == SLOT_LIVE
        })
    }

    /// Address spaces that are still alive.
    pub fn living(&self) -> usize {
        (0..self.used()).filter(|&i| self.state(i) == SLOT_LIVE).count()
    }

    /// The figures of every living address space, as of now.
    pub fn report_living(&self, sink: &mut impl FnMut(Event)) {
        for index in 0..self.used() {
            if self.state(index) == SLOT_LIVE {
                sink(Event::Mm(Box::new(mm_state(&self.slots.read(index), self.numbered))));
            }
        }
    }

    /// Records that found the ring buffer full, so far.
    pub fn ring_full(&self) -> u64 {
        self.control.read(0).lost.ring_full
    }

    /// Loss counters by name, totals so far.
    pub fn lost(&self) -> Vec<(String, u64)> {
        let lost = self.control.read(0).lost;
        let mut counters: Vec<(String, u64)> = [
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
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .into();
        // Where two programs listen to the same event, an event is lost only if both were skipped.
        // What is lost with the hooks that only settle causes is certainty, which then is not claimed.
        let figures = self.at_work.iter().filter(|(name, _)| !hooks::SETTLING.contains(name));
        let (mut skipped, mut unreadable) = (0, 0);
        for row in figures {
            let (count, readable) = self.skipped(row);
            // Where write sections are numbered, a gap shows which of these events were a followed process's changes.
            // Only the last change of an address space that still lives cannot be checked.
            let proven = row.0 == hooks::LOCK_RELEASED && self.numbered && self.living() == 0;
            if !proven {
                skipped += count.unwrap_or(0);
                unreadable += u64::from(!readable);
            }
        }
        skipped += lost.changes_missed;
        counters.push(("program_skipped".into(), skipped));
        counters.push(("skips_unreadable".into(), unreadable));
        counters
    }

    /// Events of a row that none of its programs may have seen, if any program's counter can be read; and whether all
    /// can.
    fn skipped(&self, (name, programs): &(&'static str, Vec<Counted>)) -> (Option<u64>, bool) {
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

    /// Passes on the programs' own messages; nothing to do unless [`Options::debug`] was set.
    pub fn flush_debug(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

/// Where the programs' own messages go.
struct DebugLog;

impl log::Log for DebugLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        crate::output::say(&format!("[bpf] {}", record.args()));
    }

    fn flush(&self) {}
}

/// What the verifier said last about a program that it refused.
fn say_why(form: &Form, error: &anyhow::Error) {
    const LINES: usize = 40;
    let text = format!("{error:?}");
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        crate::output::say(&format!("[bpf] {}: {line}", form.program));
    }
}

/// Loads the object with its maps; no program yet.
fn load(layout: &vmaudit_common::Layout, config: &Config, options: &Options) -> Result<Ebpf, aya::EbpfError> {
    raise_memlock();
    loader()
        .override_global("LAYOUT", bytemuck::bytes_of(layout), true)
        .override_global("CONFIG", bytemuck::bytes_of(config), true)
        .override_global("AYA_LOG_LEVEL", if options.debug { &4u8 } else { &0u8 }, false)
        .map_max_entries("SLOTS", options.slots)
        .map_max_entries("SLOT_OF_MM", options.slots * 2)
        .map_max_entries("RECORDS", options.ring_bytes)
        .load(OBJECT)
}

/// An array map with BPF_F_MMAPABLE, mapped for reading and writing. Elements lie `size_of::<T>()` apart, which is a
/// multiple of 8 as the kernel requires.
struct Shared<T> {
    base: *mut T,
    len: usize,
    bytes: usize,
    _map: Map,
}

impl<T: Pod> Shared<T> {
    fn new(map: Map, len: usize) -> anyhow::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let Map::Array(data) = &map else { return Err(anyhow!("a shared map is no array")) };
        let page = page_size() as usize;
        let bytes = (size_of::<T>() * len).div_ceil(page) * page;
        // SAFETY: a fresh mapping of a map's memory; the kernel checks length and rights.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("cannot map the programs' memory");
        }
        Ok(Self { base: base.cast(), len, bytes, _map: map })
    }

    fn len(&self) -> usize {
        self.len
    }

    /// Callers stay below [`Shared::len`].
    fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.len);
        self.base.wrapping_add(index.min(self.len - 1))
    }

    /// A copy. Words may be from slightly different moments while the kernel side writes; each is whole by itself.
    fn read(&self, index: usize) -> T {
        fence(Ordering::Acquire);
        // SAFETY: in bounds by `at`; any bytes are a valid `T` (Pod); volatile because the kernel writes too.
        unsafe { ptr::read_volatile(self.at(index)) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used after this.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// Bytes per page.
pub fn page_size() -> u64 {
    // SAFETY: no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A loader without the kernel's BTF, which the programs do not need (offsets come from [`super::btf`]).
///
/// `EbpfLoader::new` reads and parses all of it before one can say so: half of the start-up time and 20 MB. It takes
/// "no such file" for "no BTF", so it is given no descriptor to open it with.
fn loader() -> EbpfLoader<'static> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    if let Ok((_, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, 0, hard);
    }
    let mut loader = EbpfLoader::new();
    if let Ok((soft, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
    loader.btf(None);
    loader
}

fn config(facts: &Facts, options: &Options) -> Config {
    let number =
        if facts.arch == "aarch64" { |c: &call::CallInfo| c.aarch64 } else { |c: &call::CallInfo| c.x86_64 };
    let offset = |event, field| {
        facts.tracefs.as_ref().ok().and_then(|t| t.field_offset("sched", event, field)).unwrap_or(0)
    };
    Config {
        max_map_count_at: options
            .calls
            .then(|| address::of_variable("sysctl_max_map_count"))
            .flatten()
            .unwrap_or(0),
        watch_all: options.watch_all.into(),
        follow_children: options.follow_children.into(),
        stream_changes: options.stream_changes.into(),
        stream_failures: options.stream_failures.into(),
        slots: options.slots,
        failure_stacks: options.stacks.into(),
        page_shift: page_size().trailing_zeros(),
        self_tgid: std::process::id(),
        fork_child_pid_offset: offset("sched_process_fork", "child_pid"),
        debug: options.debug.into(),
        calls: options.calls.into(),
        exec_old_pid_offset: offset("sched_process_exec", "old_pid"),
        call_by_number: call::by_number(number),
    }
}

/// Kernels before 5.11 charge BPF memory to RLIMIT_MEMLOCK; later ones do not care, so a refusal is no matter.
fn raise_memlock() {
    let _ = nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_MEMLOCK,
        nix::sys::resource::RLIM_INFINITY,
        nix::sys::resource::RLIM_INFINITY,
    );
}

/// Opens a classic tracepoint event and puts the program on it. The program then runs for that event on every CPU and
/// for every task, whatever the descriptor's own scope (kernel/events/core.c:perf_event_set_bpf_prog).
fn attach_to_event(id: u64, program: RawFd) -> std::io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u64 = 2;
    const PERF_ATTR_SIZE_VER0: u64 = 64;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    // struct perf_event_attr: type and size, config, sample_period, sample_type, read_format, flags, wakeupevents.
    let attr = [PERF_TYPE_TRACEPOINT | PERF_ATTR_SIZE_VER0 << 32, id, 1, 0, 0, 0, 1, 0];
    // SAFETY: `attr` has the size it states.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, PERF_FLAG_FD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    for (request, argument) in
        [(PERF_EVENT_IOC_SET_BPF, program as libc::c_ulong), (PERF_EVENT_IOC_ENABLE, 0)]
    {
        // SAFETY: both requests take an integer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(event)
}

/// How often the kernel skipped a program; 0 where it does not count (before 5.12), `None` when /proc does not say.
fn recursion_misses(program: RawFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{program}")).ok()?;
    let misses = text.lines().find_map(|l| l.strip_prefix("recursion_misses:"));
    Some(misses.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
}

/// Turns a loader's or the kernel's refusal into what is missing and how to get it.
fn refusal(error: &anyhow::Error) -> String {
    let errno =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).and_then(|e| e.raw_os_error());
    let first = error.chain().last().map(ToString::to_string).unwrap_or_default();
    let first = first.lines().next().unwrap_or_default().to_owned();
    match errno {
        Some(libc::EPERM | libc::EACCES) if crate::rights::missing().is_some() => {
            "eBPF needs root, or CAP_BPF and CAP_PERFMON: run it with sudo".into()
        }
        Some(libc::EPERM) => {
            format!(
                "the kernel refuses eBPF even to root here ({first}); lockdown or a container's policy does that"
            )
        }
        _ => first,
    }
}

enum Decoded {
    Event(Event),
    Dead(u64),
}

/// Reads one record; `None` for one that is too short or of an unknown kind (the kernel side of the same build never
/// writes such).
fn decode(bytes: &[u8]) -> Option<Decoded> {
    let head: RecordHeader = read_record(bytes)?;
    Some(match head.kind {
        RECORD_CHANGE => {
            let r: ChangeRecord = read_record(bytes)?;
            Decoded::Event(Event::Change(Change {
                at_ns: head.at_ns,
                generation: head.generation,
                tgid: head.tgid,
                tid: head.tid,
                comm: text(&r.comm),
                before: r.before,
                after: r.after,
                call: r.call as u8,
            }))
        }
        RECORD_FAILURE => Decoded::Event(Event::Refused(Box::new(refused(&read_record(bytes)?)))),
        RECORD_AREA => Decoded::Event(Event::Mapped(Box::new(mapped(bytes)?))),
        RECORD_FORK | RECORD_EXIT => {
            let r: TaskRecord = read_record(bytes)?;
            Decoded::Event(Event::Task(Task {
                at_ns: head.at_ns,
                process: ProcessId { tgid: head.tgid, start_ns: r.start_boottime_ns },
                ppid: r.ppid,
                comm: text(&r.comm),
                exit: (head.kind == RECORD_EXIT).then_some(r.exit_code as i32),
            }))
        }
        RECORD_EXEC => {
            let r: TaskRecord = read_record(bytes)?;
            Decoded::Event(Event::Named(Named {
                process: ProcessId { tgid: head.tgid, start_ns: r.start_boottime_ns },
                at_ns: head.at_ns,
                exe: Some(text(&r.filename)).filter(|path| path.starts_with('/')),
                cgroup: None,
            }))
        }
        RECORD_DEAD => Decoded::Dead(read_record::<DeadRecord>(bytes)?.slot),
        _ => return None,
    })
}

fn read_record<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// A `\0`-terminated name; bytes that are no UTF-8 become U+FFFD.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn refused(r: &FailureRecord) -> Refused {
    let frames = usize::try_from(r.stack_bytes).unwrap_or(0) / 8;
    Refused {
        at_ns: r.head.at_ns,
        generation: r.head.generation,
        tgid: r.head.tgid,
        tid: r.head.tid,
        comm: text(&r.comm),
        call: r.call as u8,
        errno: r.errno as u8,
        class: r.class,
        ret: r.ret,
        args: r.args,
        section: (r.class & CLASS_SECTION != 0).then_some(Section {
            mc0: r.section.mc0,
            mc1: r.section.mc1,
            total_vm: r.section.total_vm,
            locked_vm: r.section.locked_vm,
            data_vm: r.section.data_vm,
            searched: (r.class & CLASS_SEARCHED != 0).then_some(r.section.searched as i64),
        }),
        max_map_count: r.max_map_count,
        rlimits: r.rlimits,
        start_brk: r.start_brk,
        hole: (r.class & CLASS_GAP != 0).then_some(r.hole),
        caller: Some(r.caller).filter(|&ip| ip != 0),
        stack: r.stack.iter().take(frames).copied().filter(|&ip| ip != 0).collect(),
    }
}

fn mapped(bytes: &[u8]) -> Option<Mapped> {
    // The record ends behind its path.
    let mut whole = AreaRecord::zeroed();
    let room = bytemuck::bytes_of_mut(&mut whole);
    let length = bytes.len().min(room.len());
    if length < offset_of!(AreaRecord, path) {
        return None;
    }
    room.get_mut(..length)?.copy_from_slice(bytes.get(..length)?);
    let r = whole;
    let path = r.path.get(..r.path_bytes as usize)?;
    Some(Mapped {
        generation: r.head.generation,
        start: r.start,
        end: r.end,
        offset: r.offset,
        executable: r.flags & AREA_EXECUTABLE != 0,
        file: (r.flags & AREA_FILE != 0).then(|| MappedFile {
            path: path_from(path, r.flags & AREA_WHOLE_PATH != 0),
            inode: r.inode,
            changed: (r.changed_s, r.changed_ns & ((1 << 30) - 1)),
        }),
    })
}

/// Names from the file's upwards, each with its `\0`, as a path.
fn path_from(names: &[u8], whole: bool) -> String {
    let mut names: Vec<&[u8]> = names.strip_suffix(b"\0").unwrap_or(names).split(|&b| b == 0).collect();
    if !whole {
        names.push(b"...");
    }
    let path = names.iter().rev().fold(Vec::new(), |path, name| [&path, &b"/"[..], name].concat());
    let path = String::from_utf8_lossy(&path);
    if whole { path.into_owned() } else { path.trim_start_matches('/').to_owned() }
}

fn mm_state(slot: &MmSlot, numbered: bool) -> MmState {
    MmState {
        generation: slot.generation,
        process: ProcessId { tgid: slot.tgid, start_ns: slot.start_boottime_ns },
        ppid: slot.ppid,
        uid: slot.uid,
        comm: text(&slot.comm),
        first: slot.first,
        last: slot.last,
        peak: slot.peak,
        born_ns: slot.born_ns,
        peak_ns: slot.peak_ns,
        dead_ns: (slot.dead_ns != 0).then_some(slot.dead_ns),
        from_birth: slot.flags & MM_FROM_BIRTH != 0,
        from_snapshot: slot.flags & MM_FROM_SNAPSHOT != 0,
        from_exec: slot.flags & MM_FROM_EXEC != 0,
        shared: slot.flags & MM_SHARED != 0,
        gaps: numbered.then_some(slot.gaps),
        calls: slot
            .calls
            .iter()
            .enumerate()
            .filter(|(_, stat)| **stat != vmaudit_common::CallStat::default())
            .map(|(id, s)| {
                (id as u8, CallStat { calls: s.calls, added: s.added, removed: s.removed, failed: s.failed })
            })
            .collect(),
        refusals: slot
            .failures
            .iter()
            .filter_map(|group| {
                let key = GroupKey::unpack(group.key)?;
                Some(RefusalGroup {
                    call: key.call,
                    errno: key.errno,
                    class: key.class,
                    count: group.count,
                    first_ns: group.first_ns,
                    last_ns: group.last_ns,
                    kept_bytes: group.kept_bytes,
                })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_unknown_records_are_dropped_not_trusted() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[1, 0, 0, 0]).is_none());
        let mut head = [0u8; size_of::<RecordHeader>()];
        for kind in 0..=255 {
            head[0] = kind;
            assert!(decode(&head).is_none(), "kind {kind} has a body");
        }
    }

    #[test]
    fn a_failure_record_keeps_its_figures() {
        let mut r: FailureRecord = bytemuck::Zeroable::zeroed();
        r.head.kind = RECORD_FAILURE;
        r.head.tgid = 7;
        r.call = call::MUNMAP.into();
        r.errno = 12;
        r.class = CLASS_SECTION | 7;
        r.section.mc0 = 65530;
        r.stack[0] = 0x1234;
        r.stack_bytes = 8;
        let Some(Decoded::Event(Event::Refused(refused))) = decode(bytemuck::bytes_of(&r)) else { panic!() };
        assert_eq!((refused.tgid, refused.call, refused.section.unwrap().mc0), (7, call::MUNMAP, 65530));
        assert_eq!(refused.stack, [0x1234]);
    }

    #[test]
    fn the_path_of_a_mapped_file_is_put_together_from_its_names() {
        let mut r: AreaRecord = bytemuck::Zeroable::zeroed();
        r.head.kind = RECORD_AREA;
        (r.start, r.end, r.offset, r.inode, r.changed_s) = (0x1000, 0x3000, 0x2000, 7, 5);
        r.changed_ns = 9 | 1 << 31;
        r.flags = AREA_EXECUTABLE | AREA_FILE | AREA_WHOLE_PATH;
        let names = b"libc.so.6\0lib\0usr\0";
        r.path[..names.len()].copy_from_slice(names);
        r.path_bytes = names.len() as u32;
        let bytes = &bytemuck::bytes_of(&r)[..offset_of!(AreaRecord, path) + names.len()];
        let Some(Decoded::Event(Event::Mapped(mapped))) = decode(bytes) else { panic!() };
        assert_eq!(
            (mapped.start, mapped.end, mapped.offset, mapped.executable),
            (0x1000, 0x3000, 0x2000, true)
        );
        let file = mapped.file.unwrap();
        assert_eq!((file.path.as_str(), file.inode, file.changed), ("/usr/lib/libc.so.6", 7, (5, 9)));
        for cut in 0..offset_of!(AreaRecord, path) {
            assert!(decode(&bytes[..cut]).is_none(), "{cut}");
        }
        r.path_bytes = u32::MAX;
        assert!(decode(bytemuck::bytes_of(&r)).is_none());
    }

    #[test]
    fn a_path_that_is_not_whole_says_so() {
        assert_eq!(path_from(b"b\0a\0", true), "/a/b");
        assert_eq!(path_from(b"b\0a\0", false), ".../a/b");
        assert_eq!(path_from(b"memfd:x\0", true), "/memfd:x");
        assert_eq!(path_from(b"\xff\0", true), "/\u{fffd}");
        assert_eq!(path_from(b"", true), "/");
    }

    #[test]
    fn names_end_at_their_zero_and_bad_bytes_are_marked() {
        assert_eq!(text(b"abc\0def"), "abc");
        assert_eq!(text(b"\xff\0"), "\u{fffd}");
    }
}
