//! How the programs get into the kernel: the object is loaded, its settings are frozen, its programs attached.

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap as BpfHashMap, RingBuf},
    programs::Program,
};
use vmaudit_common::{ABSENT, Config, PLACES, call};

use crate::model::hook;
use crate::model::report::{Hook, HookState};
use crate::model::session::KernelRules;
use crate::os::kernel::Facts;
use crate::os::procfs::Proc;
use crate::os::{kernel_symbol, rights};
use crate::source::ebpf::hooks::{Form, HOOKS, Need, Row, Via};
use crate::source::ebpf::left_ranges::LeftRanges;
use crate::source::ebpf::placed::{self, Works};
use crate::source::ebpf::shared_memory::keep_from_children;
use crate::source::ebpf::{
    Counted, Live, Names, Options, Shared, Unavailable, hooks, page_size, substitutes,
};
use crate::text::MESSAGES;

/// Why a row of the hook table that settles causes only is not there beside the substitutes.
const NO_SUBSTITUTE: &str = "it works with the lock events only: beside the programs that count at the exits of calls \
                             nothing knows the call that a task is in";
/// How the exits of calls are watched where answers are asked for, in reports.
pub const ASKED: &str = "task_work";
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/vmaudit.bpf.o"));

impl Live {
    /// Loads and attaches everything that `options` ask for. Whoever is to be followed from its first instruction must
    /// wait until this and [`Live::follow`] have returned.
    pub fn open(facts: &Facts, options: &Options) -> Result<Self, Unavailable> {
        let _rights = rights::raised(&rights::EBPF);
        if options.calls && !options.exits && hooks::can_ask(facts) {
            // Whatever is in the way of it: the complete arrangement works in more places.
            match Self::with_lock_events(facts, options, true) {
                Ok(live) => return Ok(live),
                Err(Unavailable(why)) if options.debug => {
                    log::info!(target: MESSAGES, "[bpf] no answers: {why}");
                }
                Err(_) => {}
            }
        }
        Self::with_lock_events(facts, options, false).or_else(|Unavailable(why)| {
            Self::with_substitutes(facts, options, &why).map_err(|Unavailable(other)| {
                Unavailable(if other == why { why } else { format!("{why}; in its place: {other}") })
            })
        })
    }

    fn with_lock_events(facts: &Facts, options: &Options, asks: bool) -> Result<Self, Unavailable> {
        let released = HOOKS.iter().find(|row| row.name == hook::LOCK_RELEASED);
        if let Some(row) = released {
            let choice = hooks::choose(row, facts, false);
            if choice.forms.is_empty() && facts.layout.is_ok() {
                return Err(Unavailable(choice.reasons.join("; ")));
            }
        }
        let mut live = Self::load(facts, options, asks)?;
        for row in HOOKS {
            live.attach_row(row, facts, options)?;
        }
        Ok(live)
    }

    /// The second set of programs (vmaudit-ebpf/src/hooks/sampled.rs). `why` the first cannot be used.
    fn with_substitutes(facts: &Facts, options: &Options, why: &str) -> Result<Self, Unavailable> {
        let mut live = Self::load(facts, options, false)?;
        for row in HOOKS {
            let wanted = live.wants(row, options);
            let mut hook = Hook::unused(row.name);
            let Some(substitute) = substitutes::SUBSTITUTES.iter().find(|other| other.row == row.name) else {
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
                Some(form) => Some(live.attach(form, facts).map(|fd| vec![Counted::new(fd, facts)])),
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
    fn load(facts: &Facts, options: &Options, asks: bool) -> Result<Self, Unavailable> {
        let layout = facts
            .layout
            .clone()
            .map_err(|e| Unavailable(format!("{e}; a kernel with CONFIG_DEBUG_INFO_BTF is needed")))?;
        let works = match facts.task_work.filter(|_| asks) {
            Some(functions) => {
                let works = Works::new(PLACES).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
                Some((functions, works))
            }
            None => None,
        };
        let object = match &works {
            Some((functions, works)) => Cow::from(placed::patched(OBJECT, *functions, works)),
            None => Cow::from(OBJECT),
        };
        let mut ebpf = load(&object, &layout, &config(facts, options, asks), options)
            .map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| Unavailable(format!("the eBPF object has no map {name}")))
        };
        let slots =
            Shared::new(take("SLOTS")?, options.slots as usize).map_err(|e| Unavailable(refusal(&e)))?;
        let control = Shared::new(take("CONTROL")?, 1).map_err(|e| Unavailable(refusal(&e)))?;
        let shares = Shared::new(take("USER_SHARES")?, vmaudit_common::SHARES as usize)
            .map_err(|e| Unavailable(refusal(&e)))?;
        let sites = Shared::new(take("SITE_TABLE")?, vmaudit_common::SITES as usize)
            .map_err(|e| Unavailable(refusal(&e)))?;
        let task_names = Shared::new(take("TASK_NAME_TABLE")?, vmaudit_common::TASK_NAMES as usize)
            .map_err(|e| Unavailable(refusal(&e)))?;
        let ring = RingBuf::try_from(take("RECORDS")?).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let followed =
            BpfHashMap::try_from(take("FOLLOWED")?).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let mut live = Self {
            left: LeftRanges::default(),
            waited_for: HashSet::new(),
            told_ring_full: 0,
            ebpf,
            slots,
            control,
            shares,
            sites,
            task_names,
            ring,
            followed,
            hooks: Vec::new(),
            at_work: Vec::new(),
            numbered: layout.mm_lock_seq != ABSENT,
            events: Vec::new(),
            iterator: None,
            walked_ns: 0,
            sampled: false,
            works: works.map(|(_, works)| works),
            spare: None,
            counts_classic_skips: hooks::counts_classic_skips(facts),
            logger: None,
            names: Names { proc: Proc::new("/proc"), second: Instant::now(), looks: 0 },
        };
        if options.debug {
            live.logger = aya_log::EbpfLogger::init_with_logger(&mut live.ebpf, DebugLog).ok();
        }
        live.refresh_limit();
        give_back_memory();
        // Where /proc is closed to its own processes, a child that is left behind costs this memory.
        let _ = keep_from_children();
        Ok(live)
    }

    /// This session has a use for the row.
    fn wants(&self, row: &Row, options: &Options) -> bool {
        match row.need {
            Need::Attach => options.attach,
            Need::Required | Need::Rare => true,
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
        let choice = hooks::choose(row, facts, self.asks());
        if row.name == hook::CALL_EXIT && self.asks() {
            // The program on the releases does its work; another waits until a limit is near.
            self.keep_spare(&choice, facts).map_err(|e| Unavailable(refusal(&e)))?;
            hook.state = HookState::Attached;
            hook.via = Some(ASKED.into());
            hook.loses = Some(hooks::UNWATCHED.into());
            self.at_work.push((row.name, Vec::new()));
            self.hooks.push(hook);
            return Ok(());
        }
        let mut reasons = choice.reasons;
        let mut vias: Vec<Via> = Vec::new();
        let mut programs = Vec::new();
        for form in choice.forms {
            match self.attach(form, facts) {
                Ok(fd) => {
                    vias.push(form.via);
                    programs.push(Counted::new(fd, facts));
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
            hook.loses = hooks::blind_spot(row, facts, &vias);
            self.at_work.push((row.name, programs));
        }
        self.hooks.push(hook);
        Ok(())
    }

    /// The program of this form.
    pub(super) fn program(&mut self, form: &Form) -> anyhow::Result<&mut Program> {
        if hooks::left_out(form.program) {
            return Err(anyhow!("left out on request"));
        }
        self.ebpf
            .program_mut(form.program)
            .with_context(|| format!("the eBPF object has no program {}", form.program))
    }

    fn attach(&mut self, form: &Form, facts: &Facts) -> anyhow::Result<RawFd> {
        match (self.program(form)?, form.via) {
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
}

/// Where the programs' own messages go.
pub struct DebugLog;

impl log::Log for DebugLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        log::info!(target: MESSAGES, "[bpf] {}", record.args());
    }

    fn flush(&self) {}
}

/// What the verifier said last about a program that it refused.
fn say_why(form: &Form, error: &anyhow::Error) {
    const LINES: usize = 40;
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        log::info!(target: MESSAGES, "[bpf] {}: {line}", form.program);
    }
}

/// Loads the object with its maps; no program yet.
fn load(
    object: &[u8],
    layout: &vmaudit_common::Layout,
    config: &Config,
    options: &Options,
) -> Result<Ebpf, aya::EbpfError> {
    raise_memlock();
    loader()
        .override_global("LAYOUT", bytemuck::bytes_of(layout), true)
        .override_global("CONFIG", bytemuck::bytes_of(config), true)
        .override_global("AYA_LOG_LEVEL", if options.debug { &4u8 } else { &0u8 }, false)
        .map_max_entries("SLOTS", options.slots)
        .map_max_entries("SLOT_OF_MM", options.slots * 2)
        .map_max_entries("RECORDS", options.ring_bytes)
        .load(object)
}

/// What reading the object took, several times its size, goes back to the system.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A loader without the kernel's BTF, which the programs do not need (offsets come from [`crate::os::btf`]).
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

fn config(facts: &Facts, options: &Options, asks: bool) -> Config {
    let proc = Proc::new("/proc");
    let number =
        if facts.arch == "aarch64" { |c: &call::CallInfo| c.aarch64 } else { |c: &call::CallInfo| c.x86_64 };
    let offset = |event, field| {
        facts.tracefs.as_ref().ok().and_then(|t| t.field_offset("sched", event, field)).unwrap_or(0)
    };
    let variable =
        |name, wanted: bool| if wanted { kernel_symbol::of_variable(name).unwrap_or(0) } else { 0 };
    let max_map_count_at = variable("sysctl_max_map_count", options.calls);
    Config {
        max_map_count_at,
        // A kernel that does not name the one does not name the other.
        threads_at: variable("nr_threads", max_map_count_at != 0),
        table_key: RandomState::new().hash_one(()),
        task_size: KernelRules::for_release(&facts.release).task_size,
        address_end: proc.address_end().unwrap_or(0),
        ram_and_swap_pages: proc.ram_and_swap_bytes().map_or(0, |bytes| bytes / page_size()),
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
        asks: asks.into(),
        mremap_unlocked: (asks
            && KernelRules::for_release(&facts.release).mremap_checks_unlocked != Some(false))
        .into(),
        call_by_number: call::by_number(number, call::OTHER),
        compat_call_by_number: compat_calls(facts),
    }
}

/// System call numbers of the 32-bit entry.
fn compat_calls(facts: &Facts) -> [u8; call::NUMBERS] {
    /// The older mmap, which takes its arguments in memory, and ipc, which may be shmget or shmat.
    const UNREADABLE: [usize; 2] = [90, 117];
    if facts.arch != "x86_64" {
        return [call::COMPAT; call::NUMBERS];
    }
    let mut table = call::by_number(|call| call.i386, call::OTHER);
    for number in UNREADABLE {
        if let Some(entry) = table.get_mut(number) {
            *entry = call::COMPAT;
        }
    }
    table
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
pub(super) fn attach_to_event(id: u64, program: RawFd) -> std::io::Result<OwnedFd> {
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
/// Turns a loader's or the kernel's refusal into what is missing and how to get it.
pub(super) fn refusal(error: &anyhow::Error) -> String {
    let errno =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).and_then(|e| e.raw_os_error());
    let first = error.chain().last().map(ToString::to_string).unwrap_or_default();
    let first = first.lines().next().unwrap_or_default().to_owned();
    match errno {
        Some(libc::EPERM | libc::EACCES) if rights::missing().is_some() => {
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
