//! How the programs get into the kernel: the object is loaded, its settings are frozen, its programs attached.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::anyhow;
use aya::{EbpfLoader, maps::HashMap as BpfHashMap};
use vmaudit_common::{ABSENT, Config, PLACES, call};

use crate::model::hook;
use crate::model::report::{Hook, HookState};
use crate::model::session::KernelRules;
use crate::os::kernel::Facts;
use crate::os::procfs::Proc;
use crate::os::{kernel_symbol, own_threads, rights};
use crate::source::ebpf::attach::{Stop, wants};
use crate::source::ebpf::environments::{self, Environments};
use crate::source::ebpf::hooks::{Extent, Form, HOOKS, Need};
use crate::source::ebpf::left_ranges::LeftRanges;
use crate::source::ebpf::placed::{self, Page, Slots, Works};
use crate::source::ebpf::refusal::refusal;
use crate::source::ebpf::ring::Ring;
use crate::source::ebpf::shared_memory::keep_from_children;
use crate::source::ebpf::{
    Counted, Live, Names, Options, Shared, Unavailable, hooks, ledger, page_size, substitutes,
};
use crate::text::MESSAGES;

/// Why a row of the hook table that settles causes only is not there beside the substitutes.
const NO_SUBSTITUTE: &str = "it works with the lock events only: beside the programs that count at the exits of calls \
                             nothing knows the call that a task is in";
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
        match Self::with_forms(facts, options, asks, Extent::First) {
            Err(Stop::Again) => Self::with_forms(facts, options, asks, Extent::All),
            other => other,
        }
        .map_err(|stop| match stop {
            Stop::Unavailable(why) => Unavailable(why),
            Stop::Again => Unavailable("no way to attach is left".into()),
        })
    }

    fn with_forms(facts: &Facts, options: &Options, asks: bool, extent: Extent) -> Result<Self, Stop> {
        let forms_of = |row| hooks::choose(row, facts, asks).to_try(extent);
        let rows = || HOOKS.iter().filter(|row| wants(row, options));
        let forms: Vec<&Form> = rows().flat_map(forms_of).collect();
        let mut live =
            Self::load(facts, options, asks, &forms).map_err(|Unavailable(why)| Stop::Unavailable(why))?;
        let at_once = rows().filter(|row| !live.is_spare(row)).flat_map(forms_of);
        let mut refused = live.preload(at_once.chain(environments::wanted(options)).collect());
        live.open_ledger(&ledger::wanted(&forms, options));
        for row in HOOKS {
            live.attach_row(row, facts, options, (extent, &mut refused))?;
        }
        Ok(live)
    }

    /// The second set of programs (vmaudit-ebpf/src/hooks/sampled.rs). `why` the first cannot be used.
    fn with_substitutes(facts: &Facts, options: &Options, why: &str) -> Result<Self, Unavailable> {
        let forms: Vec<&Form> =
            substitutes::SUBSTITUTES.iter().filter_map(|other| other.form.as_ref()).collect();
        let mut live = Self::load(facts, options, false, &forms)?;
        live.preload(environments::wanted(options).into_iter().collect());
        for row in HOOKS {
            let wanted = wants(row, options);
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
                Some(form) => Some(
                    live.attach(form, facts).map(|fd| vec![Counted::new(fd, hooks::skips_programs(facts))]),
                ),
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
        live.without_ledger("it needs the lock events");
        live.numbered = false;
        Ok(live)
    }

    /// The object with the programs of these forms, and its shared memory; nothing is attached yet.
    fn load(facts: &Facts, options: &Options, asks: bool, forms: &[&Form]) -> Result<Self, Unavailable> {
        let layout = facts
            .layout
            .clone()
            .map_err(|e| Unavailable(format!("{e}; a kernel with CONFIG_DEBUG_INFO_BTF is needed")))?;
        raise_memlock();
        let works = match facts.task_work.filter(|_| asks) {
            Some(functions) => {
                let works = Works::new(PLACES).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
                Some((functions, works))
            }
            None => None,
        };
        let page = Page::new().map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let asking = works.as_ref().map(|(functions, works)| (*functions, works));
        let of_ledger = ledger::wanted(forms, options).into_iter().map(|next| next.program);
        let wanted: HashSet<&str> = forms
            .iter()
            .flat_map(|form| form.programs())
            .chain(environments::wanted(options).map(|form| form.program))
            .chain(of_ledger)
            .collect();
        let slots = Slots::announce(&page).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let mut object = placed::patched(OBJECT, &page, &slots, asking);
        placed::leave_out(&mut object, |program| !wanted.contains(program));
        if !options.debug {
            placed::leave_out_lines(&mut object);
        }
        let config = config(facts, options, asks);
        let mut loader = loader(&layout, &config, options);
        let (loaded, made) =
            own_threads::beside("vmaudit-load", || loader.load(&object), || slots.make(options.slots));
        let mut ebpf = loaded.map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        made.map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        // Before anything is mapped, so that what is resident at one time is the one or the other.
        drop(object);
        give_back_memory();
        let slots =
            Shared::placed(slots.into_fd(), options.slots as usize).map_err(|e| Unavailable(refusal(&e)))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| Unavailable(format!("the eBPF object has no map {name}")))
        };
        let control = Shared::placed(page.into_fd(), 1).map_err(|e| Unavailable(refusal(&e)))?;
        let shares = Shared::of_object(take("USER_SHARES")?, vmaudit_common::SHARES as usize)
            .map_err(|e| Unavailable(refusal(&e)))?;
        let sites = Shared::of_object(take("SITE_TABLE")?, vmaudit_common::SITES as usize)
            .map_err(|e| Unavailable(refusal(&e)))?;
        let task_names = Shared::of_object(take("TASK_NAME_TABLE")?, vmaudit_common::TASK_NAMES as usize)
            .map_err(|e| Unavailable(refusal(&e)))?;
        // Where it is not asked for it stays with the object: programs name it when they are loaded.
        let ledger = match options.ledger {
            true => {
                let entries = vmaudit_common::LEDGER_ENTRIES as usize;
                Some(Shared::of_object(take("LEDGER")?, entries).map_err(|e| Unavailable(refusal(&e)))?)
            }
            false => None,
        };
        let ring = Ring::of_object(take("RECORDS")?).map_err(|e| Unavailable(refusal(&e)))?;
        let followed =
            BpfHashMap::try_from(take("FOLLOWED")?).map_err(|e| Unavailable(refusal(&anyhow!(e))))?;
        let logger =
            options.debug.then(|| aya_log::EbpfLogger::init_with_logger(&mut ebpf, DebugLog).ok()).flatten();
        let intervals = super::Intervals::begin(&control, options.interval);
        let live = Self {
            intervals,
            left: LeftRanges::default(),
            waited_for: HashSet::new(),
            told_ring_full: 0,
            ebpf: Arc::new(Mutex::new(ebpf)),
            slots,
            control,
            shares,
            sites,
            task_names,
            ledger,
            no_ledger: None,
            ring,
            followed,
            hooks: Vec::new(),
            at_work: Vec::new(),
            numbered: layout.mm_lock_seq != ABSENT,
            events: Vec::new(),
            iterator: None,
            walked_ns: 0,
            last_walk: None,
            told: Vec::new(),
            whose: std::cell::RefCell::default(),
            starts: Some(Instant::now()),
            numbers: options.namespace.map(|_| super::Numbers::default()),
            sampled: false,
            works: works.map(|(_, works)| works),
            spare: super::Spare::default(),
            // Anybody can name a program like a runner: the buffer that all share has no room for all environments.
            environments: match environments::wanted(options) {
                Some(_) => Environments::default(),
                None => Environments::Settled,
            },
            counts_classic_skips: hooks::counts_classic_skips(facts),
            logger,
            names: Names { proc: Proc::new("/proc"), second: Instant::now(), looks: 0 },
        };
        live.refresh_limit();
        // The messages'. Where /proc is closed to its own processes, a child that is left behind costs this memory.
        let _ = options.debug.then(keep_from_children);
        Ok(live)
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

/// What reading the object took, several times its size, goes back to the system.
pub fn give_back_memory() {
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
fn loader<'a>(layout: &'a vmaudit_common::Layout, config: &'a Config, options: &Options) -> EbpfLoader<'a> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    if let Ok((_, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, 0, hard);
    }
    let mut loader = EbpfLoader::new();
    if let Ok((soft, hard)) = limit {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
    loader
        .btf(None)
        .override_global("LAYOUT", bytemuck::bytes_of(layout), true)
        .override_global("CONFIG", bytemuck::bytes_of(config), true)
        .override_global("AYA_LOG_LEVEL", if options.debug { &4u8 } else { &0u8 }, false)
        .map_max_entries("SLOT_OF_MM", options.slots * 2)
        .map_max_entries("RECORDS", options.ring_bytes)
        .map_max_entries("LEDGER", if options.ledger { vmaudit_common::LEDGER_ENTRIES } else { 1 });
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
        task_size: Proc::usual_address_end(),
        address_end: proc.address_end().unwrap_or(0),
        ram_and_swap_pages: proc.ram_and_swap_bytes().map_or(0, |bytes| bytes / page_size()),
        watch_all: options.watch_all.into(),
        follow_children: options.follow_children.into(),
        stream_changes: options.stream_changes.into(),
        stream_failures: options.stream_failures.into(),
        slots: options.slots,
        failure_stacks: options.stacks.into(),
        page_shift: page_size().trailing_zeros(),
        self_tgid: options.namespace.map_or_else(std::process::id, |it| it.own),
        pid_ns_at: options.namespace.map_or(0, |it| it.at),
        pid_ns_level: options.namespace.map_or(0, |it| it.level),
        makers: (options.makers && !hooks::left_out("makers")).into(),
        ledger: if options.ledger { vmaudit_common::LEDGER_ENTRIES } else { 0 },
        reserved: 0,
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
