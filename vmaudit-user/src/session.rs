//! Wires one session: child, source, audit, report. The only place with a clock, a runtime and signals.

use std::{
    collections::{BTreeMap, HashSet},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        time::TimeValLike as _,
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use tokio::io::unix::AsyncFd;

use crate::cli::{self, ReportFormat, RunArgs};
use crate::domain::application::Anonymizer;
use crate::domain::audit::Audit;
use crate::domain::recommend::Margin;
use crate::domain::{report, vma_cost};
use crate::enrich::memory_cgroup;
use crate::enrich::symbols::Symbols;
use crate::enrich::vma_owners::Looks;
use crate::launch::child;
use crate::launch::child::{Child, Look, User};
use crate::model::event::{CgroupExhausted, End, Event, LimitSeen, Owners, ProcessId, StackEnds, StackName};
use crate::model::hook;
use crate::model::report::{Coverage, Exit, SourceKind};
use crate::model::session::{Budget, Header, KernelRules, MarginAsked, Sight};
use crate::os::apart::Patience;
use crate::os::kernel::Facts;
use crate::os::procfs::Proc;
use crate::os::{kernel, procfs, rights};
use crate::output::destination::open_each;
use crate::output::form::Form;
use crate::output::{self, Destination, Format};
use crate::source::ebpf::{Live, Unavailable, hooks};
use crate::source::procfs_sampler::{Sampling, Uncounted};
use crate::source::{ebpf, environment};
use crate::text::time::rfc3339;
use crate::{scan, text};
use std::time::SystemTime;

/// Between two looks at the sysctl, at slots whose hint got lost and at the programs' messages.
const TICK: Duration = Duration::from_millis(100);
/// For so long no followed address space must be seen before all count as ended.
const SETTLED: Duration = Duration::from_millis(5);
/// Between two glances at a look that is under way.
const GLANCE: Duration = Duration::from_millis(5);
/// Records taken before other work gets its turn.
const BATCH: usize = 4096;

/// Stacks whose mappings are looked up between two batches of records, and when there are no more records.
const LOOKS: (usize, usize) = (1, 16);

/// CLOCK_MONOTONIC, ns.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| u64::try_from(t.num_nanoseconds()).unwrap_or(0))
}

/// A runtime without threads: nothing of vmaudit's competes with the workload but this one.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

/// The signals that a session answers, readable as a descriptor. They are blocked from here on, so the command must
/// have been forked before.
pub struct Signals(AsyncFd<SignalFd>);

/// What a signal asks of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A child changed its state.
    Child,
    /// Somebody sent this signal to vmaudit; it is meant for the command.
    PassOn(i32),
    /// The terminal sent it to the whole foreground group; the command has it already.
    Terminal(i32),
}

impl Signals {
    /// Must be called inside the runtime.
    pub fn take() -> anyhow::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
        set.thread_block().context("cannot block signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot listen to signals")?;
        // SAFETY: the descriptor is owned by what is registered and closed only with it.
        Ok(Self(unsafe { AsyncFd::register(fd) }.context("cannot wait for signals")?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> anyhow::Result<Asked> {
        loop {
            let mut guard = self.0.readable_mut().await.context("cannot wait for signals")?;
            match guard.get_inner_mut().read_signal() {
                Ok(Some(info)) => {
                    let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                    return Ok(match number {
                        libc::SIGCHLD => Asked::Child,
                        // SI_USER and below come from a process, positive codes from the kernel.
                        _ if info.ssi_code > 0 => Asked::Terminal(number),
                        _ => Asked::PassOn(number),
                    });
                }
                Ok(None) => guard.clear_ready(),
                Err(e) => return Err(anyhow!(e)).context("cannot read a signal"),
            }
        }
    }
}

/// Readiness of the ring buffer.
pub struct Ring(AsyncFd<OwnedFd>);

impl Ring {
    /// Ready whenever the programs have sent something.
    pub fn new(live: &Live) -> anyhow::Result<Self> {
        let fd = live.wake_fd().context("cannot wait for records")?;
        // SAFETY: as above.
        let registered = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
        registered.map(Self).context("cannot wait for records")
    }

    /// Waits until there may be records.
    pub async fn ready(&self) {
        match self.0.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // Without readiness the tick alone drains; nothing is lost but time.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The source of a `run`.
enum Source {
    Live(Box<Live>),
    Proc(Box<Sampling>),
}

/// `vmaudit run`. Returns vmaudit's exit status; does not return when the command died of a signal.
pub fn run(args: RunArgs) -> anyhow::Result<i32> {
    let margin = Margin::new(args.headroom, args.round).map_err(|e| anyhow!("{e}"))?;
    let mut outputs = open_outputs(&args)?;
    let for_outputs: Vec<_> = outputs.iter().flat_map(|(_, it, _)| it.rights()).copied().collect();
    let user = args.user.as_deref().map(User::find).transpose()?;
    let mut child = Child::prepare(&args.command, user.as_ref(), args.keep_caps)?;
    let facts = Facts::gather();
    let options = ebpf::Options {
        watch_all: false,
        follow_children: !args.no_follow,
        stream_changes: false,
        stream_failures: false,
        attach: false,
        calls: !args.peaks_only,
        stacks: true,
        ring_bytes: args.common.ring_bytes.unwrap_or(1 << 20),
        slots: args.common.slots,
        debug: args.common.debug_bpf,
    };
    let pid = child.pid.as_raw() as u32;
    let patience = Patience::default();
    let (mut source, mut coverage) = open_source(&args, &facts, &options, pid, &patience)?;
    coverage.notes.extend(give_up_rights(Some(&child), &for_outputs));
    let start_ns = now_ns();
    let sight = match &source {
        Source::Live(live) => Sight { changes: true, exits: live.has(hook::CALL_EXIT) },
        Source::Proc(_) => Sight { changes: false, exits: false },
    };
    let live = if let Source::Live(live) = &source { Some(live.as_ref()) } else { None };
    let mut header = Header {
        vmaudit: env!("CARGO_PKG_VERSION").into(),
        host: procfs::host(),
        source: if live.is_some() { SourceKind::Ebpf } else { SourceKind::Proc },
        sight,
        rules: rules(&facts, live),
        started: rfc3339(SystemTime::now()),
        start_ns,
        command: shown_command(&args),
        vma_bytes: vma_price(),
        margin: MarginAsked { headroom: margin.headroom(), round: margin.round() },
        budget: Budget {
            max_peak: args.max_peak,
            max_percent: args.max_percent,
            fail_on: args.fail_on.iter().map(|asked| (*asked).into()).collect(),
        },
        all_rows: args.all_rows,
    };
    let mut audit = Audit::of(&header);
    let anonymizer =
        || if args.no_anonymize { Anonymizer::off() } else { Anonymizer::new(scan::own_names()) };
    let mut watch = Watch {
        symbols: Symbols::new(args.no_symbols, &patience),
        looks: Looks::new(anonymizer(), start_ns, &patience),
        cgroups: memory_cgroup::Looks::default(),
        anonymizer: anonymizer(),
    };
    watch.anonymizer.texts(&mut header.command);
    audit.apply(Event::Limits(Proc::new("/proc").limits()));
    // A command that cannot be run has nothing to report: its message and status are the answer.
    let runtime = runtime()?;
    let exit = runtime.block_on(async {
        let signals = Signals::take()?;
        // All that can fail comes before the command runs: afterwards nobody would wait for it.
        let ring = match &source {
            Source::Live(live) => Some(Ring::new(live)?),
            Source::Proc(_) => None,
        };
        if let Err((status, why)) = child.go() {
            let name = args.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
            output::say(&format!("cannot run {name}: {why}"));
            return Ok(Err(status));
        }
        let mut waits = Waits { signals, ring, linger: args.linger };
        follow(&mut child, &mut source, &mut audit, &mut watch, &mut waits).await.map(Ok::<Exit, i32>)
    });
    let exit = match exit? {
        Ok(exit) => exit,
        Err(status) => return Ok(status),
    };
    let mut last = Vec::new();
    let still_running = settle(&mut source, &mut coverage, &mut watch, &mut |event| last.push(event));
    let end = End { at_ns: now_ns(), exit: Some(exit), still_running };
    drop(child);
    // Detach before names are looked up and the report is written: these may take long, the machine need not wait.
    drop(source);
    last.push(Event::FiguresEnd);
    last.into_iter().for_each(|event| take(event, &mut audit, &mut watch));
    watch.symbols.keep(&audit.examples_of());
    let mut last = watch.found();
    last.extend(
        audit
            .refused_processes()
            .filter(|(pid, uid)| !rights::may_know_addresses(*pid, *uid))
            .map(|(pid, _)| Event::AddressesHidden(pid)),
    );
    last.push(Event::Hooks(coverage.hooks));
    last.push(Event::Conditions(coverage.conditions));
    let mut notes = coverage.notes;
    notes.extend(watch.symbols.notes());
    notes.extend(watch.looks.notes());
    let left = patience.left_behind();
    notes.extend((left > 0).then(|| left_behind(left)));
    last.extend(notes.into_iter().map(Event::Note));
    last.push(Event::End(end));
    last.into_iter().for_each(|event| take(event, &mut audit, &mut watch));
    // Not at the end of this function, which may end by the command's signal.
    drop(watch);
    drop(patience);
    // Nothing of others is read any more; what was read is rendered without rights.
    rights::finish(&for_outputs);
    let report = report::report(&header, &audit)?;
    let mut report_lost = false;
    for (format, destination, shown_when_quiet) in &mut outputs {
        if !args.quiet || *shown_when_quiet || report.session.breach.is_some() {
            let style = output::text::page::Style {
                colour: destination.colour(),
                width: destination.columns().unwrap_or(100),
                top: args.top,
            };
            if let Err(e) = output::write(&report, *format, &style, destination) {
                output::say(&format!("the report could not be written: {e}"));
                // A reader that has seen enough (`| head`) is no failure.
                report_lost |= e.kind() != std::io::ErrorKind::BrokenPipe;
            }
        }
    }
    let succeeded = exit.code == Some(0);
    if succeeded && report.session.breach.is_some() {
        return Ok(args.breach_exit_code.into());
    }
    // Never instead of the command's own failure.
    if succeeded && report_lost {
        return Ok(child::EXIT_OWN_FAILURE);
    }
    Ok(child::end_like(exit))
}

/// Takes the last figures; returns how many followed processes are still alive.
fn settle(
    source: &mut Source,
    coverage: &mut Coverage,
    watch: &mut Watch,
    sink: &mut dyn FnMut(Event),
) -> u64 {
    let living = match source {
        Source::Live(live) => {
            watch.symbols.settle(|generation| live.lives(generation));
            watch.looks.settle(|generation| live.lives(generation));
            // In this order: one that dies in between is then seen twice, not missed.
            live.report_living(sink);
            live.sweep(sink);
            sink(Event::Lost(live.losses()));
            coverage.hooks = live.hooks();
            live.living_processes().len()
        }
        Source::Proc(sampling) => {
            sampling.settle(now_ns(), sink);
            coverage.notes.extend(sampling.uncounted().map(|it| uncounted(it, &watch.anonymizer)));
            sampling.living()
        }
    };
    sink(Event::Limits(Proc::new("/proc").limits()));
    living as u64
}

fn uncounted(Uncounted { processes, comm, pid, why }: &Uncounted, anonymizer: &Anonymizer) -> String {
    let comm = anonymizer.apply(comm);
    let (who, why) = (text::count(*processes, "process", "processes"), why.sentence());
    let first = if *processes == 1 { "" } else { "the first, " };
    format!("{who} could not be counted for all or a part of the time: {first}{comm} (pid {pid}), {why}")
}

/// Opens every destination before anything runs, so that a bad path costs nothing. The flag: written even when quiet.
/// Formats and files are paired as `scan` pairs them, with stderr in stdout's place.
fn open_outputs(args: &RunArgs) -> anyhow::Result<Vec<(Format, Destination, bool)>> {
    let format = |format: &ReportFormat| match format {
        ReportFormat::Json => Format::Json,
        ReportFormat::Text => Format::Text,
    };
    let formats: Vec<Format> = args.format.iter().map(format).collect();
    let of_name = |file: Option<&Path>| match file.map(Form::of) {
        Some(Form::Json) => Format::Json,
        _ => Format::Text,
    };
    open_each(&formats, &args.output, of_name, || Destination::Stderr)
}

/// eBPF if it is to be had, else /proc with one line that says what that costs, unless quiet.
fn open_source(
    args: &RunArgs,
    facts: &Facts,
    options: &ebpf::Options,
    pid: u32,
    patience: &Patience,
) -> anyhow::Result<(Source, Coverage)> {
    let why = match args.common.source {
        cli::Source::Proc => "asked for by --source proc".to_owned(),
        _ => match open_live(facts, options, &[(pid, true)]) {
            Ok(live) => {
                let conditions = environment::look(facts, Some(&live.hooks()));
                let coverage = Coverage { conditions, ..Coverage::default() };
                return Ok((Source::Live(Box::new(live)), coverage));
            }
            Err(Unavailable(why)) if args.common.source == cli::Source::Ebpf => {
                return Err(anyhow!("eBPF is not available: {why}"));
            }
            Err(Unavailable(why)) => why,
        },
    };
    // No error, and the report's coverage says it too.
    if !args.quiet {
        output::say(&format!(
            "looking at /proc instead of eBPF ({why}); counts are samples, bursts between looks and failed calls are missed"
        ));
    }
    let coverage = Coverage {
        exact_peaks: false,
        exact_calls: false,
        hooks: hooks::all_missing(&why),
        conditions: environment::look(facts, None),
        lost: BTreeMap::new(),
        notes: vec![
            "Counts are samples from /proc: bursts between two looks and failed calls are missed".into(),
        ],
    };
    let sampling = Sampling::new(Proc::new("/proc"), [pid], !args.no_follow, patience);
    Ok((Source::Proc(Box::new(sampling)), coverage))
}

/// What the verdicts must know about this kernel and about what the programs capture.
pub fn rules(facts: &Facts, live: Option<&Live>) -> KernelRules {
    let proc = Proc::new("/proc");
    let page_size = ebpf::page_size();
    KernelRules {
        page_size,
        address_end: proc.address_end(),
        ram_and_swap_pages: proc.ram_and_swap_bytes().map(|bytes| bytes / page_size),
        ignore_rlimit_data: std::fs::read_to_string("/sys/module/kernel/parameters/ignore_rlimit_data")
            .is_ok_and(|value| value.trim() == "Y"),
        vm_counters_captured: true,
        sections_seen: live.is_some_and(|live| live.has(hook::LOCK_RELEASED) && !live.sampled()),
        searches_seen: live.is_some_and(|live| live.has(hook::ADDRESS_SEARCH)),
        memlock_bit_knows_capability: true,
        ..KernelRules::for_release(&facts.release)
    }
}

/// Loads the programs and tells them whom to follow. `follow`: each process, and whether it is our own child that has
/// not exec'd yet. All of them must be given here: numbers mean something only in the kernel's own pid namespace, and
/// none may be added after [`Live::begin`].
pub fn open_live(
    facts: &Facts,
    options: &ebpf::Options,
    follow: &[(u32, bool)],
) -> Result<Live, Unavailable> {
    if !follow.is_empty() && !kernel::in_first_pid_namespace() {
        return Err(Unavailable(
            environment::blocking(facts).unwrap_or_else(|| {
                "vmaudit runs inside a pid namespace (a container), where process numbers are not the kernel's; run \
                 it on the host"
                    .into()
            }),
        ));
    }
    let mut live = Live::open(facts, options)
        .map_err(|Unavailable(why)| Unavailable(environment::blocking(facts).unwrap_or(why)))?;
    for (pid, after_exec) in follow {
        live.follow(*pid, *after_exec).map_err(|e| Unavailable(format!("{e:#}")))?;
    }
    live.begin();
    Ok(live)
}

/// Keeps only the rights that a session at work needs. Notes for the coverage: what the command did not get, or why
/// nothing could be given up.
/// `for_outputs`: see [`Destination::rights`].
pub fn give_up_rights(child: Option<&Child>, for_outputs: &[caps::Capability]) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(child) = child.filter(|child| !child.withheld.is_empty()) {
        let names: Vec<String> = child.withheld.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "The command was started without {}, which vmaudit uses itself; --keep-caps leaves them to it",
            names.join(", ")
        ));
    }
    notes.extend(child.and_then(|child| child.terminal.note()).map(Into::into));
    if let Err(e) = rights::keep(&rights::of_a_session(), for_outputs) {
        notes.push(format!("Rights that were not needed any more could not be given up: {e}"));
    }
    notes
}

/// What [`follow`] waits for.
struct Waits {
    signals: Signals,
    /// `None`: /proc tells nobody when it changes.
    ring: Option<Ring>,
    linger: Duration,
}

/// Follows the command to its end, and its descendants for a while longer.
async fn follow(
    child: &mut Child,
    source: &mut Source,
    audit: &mut Audit,
    watch: &mut Watch,
    waits: &mut Waits,
) -> anyhow::Result<Exit> {
    let Waits { signals, ring, linger } = waits;
    let ring = ring.as_ref();
    let ready = async || match ring {
        Some(ring) => ring.ready().await,
        None => std::future::pending().await,
    };
    let mut exit: Option<Exit> = None;
    let mut deadline: Option<Instant> = None;
    let mut next = Instant::now();
    let mut empty_since: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            asked = signals.next() => match asked? {
                Asked::Child => {}
                Asked::PassOn(number) if exit.is_none() => child.pass_on(number),
                Asked::Terminal(_) if exit.is_none() => {}
                // The command is gone and somebody wants us to end too: stop waiting for its descendants.
                Asked::PassOn(_) | Asked::Terminal(_) => deadline = Some(Instant::now()),
            },
            () = ready() => {}
            () = tokio::time::sleep_until(watch.wake(next).into()) => {}
        }
        // Not in the branch above: a busy ring buffer would always be faster than the clock.
        if Instant::now() >= next {
            next = Instant::now() + look_around(source, audit, watch);
            let live = if let Source::Live(live) = source { Some(live.as_mut()) } else { None };
            thin_out(live, audit, watch);
        }
        if let Source::Live(live) = source {
            while live.drain(BATCH, &mut |event| take(event, audit, watch)) && exit.is_none() {
                watch.symbols.remember(LOOKS.0, |generation| live.lives(generation));
                thin_out(Some(live), audit, watch);
                tokio::task::yield_now().await;
            }
            watch.symbols.remember(LOOKS.1, |generation| live.lives(generation));
            watch.looks.look(now_ns, |generation| live.lives(generation));
        }
        if exit.is_none() {
            match child.look() {
                Look::Running => {}
                // Stop as the command did, so that the shell sees a stopped job. SIGTSTP, because the kernel ignores
                // it where no shell is there to continue us.
                Look::Stopped => {
                    let _ = nix::sys::signal::raise(Signal::SIGTSTP);
                    child.signal(libc::SIGCONT);
                }
                Look::Ended(end) => {
                    exit = Some(end);
                    deadline = Some(Instant::now() + *linger);
                }
            }
        }
        if let Some(end) = exit {
            look_around(source, audit, watch);
            let living = match source {
                Source::Live(live) => live.living(),
                Source::Proc(sampling) => sampling.living(),
            };
            // In the middle of an exec a process has no address space that is followed: none must be seen for a while.
            let empty = match (living, empty_since) {
                (0, Some(since)) => since.elapsed() >= SETTLED,
                (0, None) => {
                    empty_since = Some(Instant::now());
                    false
                }
                _ => {
                    empty_since = None;
                    false
                }
            };
            if empty || deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(end);
            }
            next = next.min(Instant::now() + Duration::from_millis(2));
        }
    }
}

/// What is looked up in /proc when calls are refused.
struct Watch {
    symbols: Symbols,
    looks: Looks,
    cgroups: memory_cgroup::Looks,
    anonymizer: Anonymizer,
}

impl Watch {
    /// When the loop has to look again at the latest: sooner than `next` while a look is under way.
    fn wake(&self, next: Instant) -> Instant {
        let busy = self.symbols.busy() || self.looks.busy();
        if busy { next.min(Instant::now() + GLANCE) } else { next }
    }

    /// What was found, as events; always in the same order.
    fn found(&mut self) -> Vec<Event> {
        let mut owners: Vec<_> = self.looks.take().into_iter().collect();
        owners.sort_by_key(|(generation, _)| *generation);
        let mut cgroups: Vec<_> = self.cgroups.take().into_iter().collect();
        cgroups.sort_by_key(|(generation, _)| *generation);
        let resolved = self.symbols.resolve();
        let owners = owners
            .into_iter()
            .map(|(generation, holders)| Event::Owners(Box::new(Owners { generation, holders })));
        let cgroups = cgroups
            .into_iter()
            .map(|(generation, cgroup)| Event::CgroupExhausted(CgroupExhausted { generation, cgroup }));
        let frames = resolved
            .frames
            .into_iter()
            .map(|(generation, ip, frame)| Event::Frame(Box::new(StackName { generation, ip, frame })));
        let ends =
            resolved.ends.into_iter().map(|(generation, ip)| Event::StackEnds(StackEnds { generation, ip }));
        owners.chain(cgroups).chain(frames).chain(ends).collect()
    }
}

/// Readers that could not be killed.
fn left_behind(children: usize) -> String {
    format!(
        "{} of vmaudit's own, stuck over a process that does not answer, could not be ended and was left behind: it ends \
         when that process does",
        text::count(children as u64, "helper", "helpers")
    )
}

fn take(mut event: Event, audit: &mut Audit, watch: &mut Watch) {
    match &mut event {
        Event::Refused(refused) => {
            refused.stack.truncate(audit.frames_wanted());
            if rights::hides_addresses(refused.tgid) {
                audit.apply(Event::AddressesHidden(refused.tgid));
            }
            watch.symbols.notice(refused);
            watch.looks.notice(refused);
            watch.cgroups.notice(refused, audit.cgroup_of(refused.tgid));
        }
        Event::Mapped(mapped) => watch.symbols.told(mapped),
        _ => {}
    }
    watch.anonymizer.event(&mut event);
    audit.apply(event);
}

/// The work of a tick; returns the time until the next.
fn look_around(source: &mut Source, audit: &mut Audit, watch: &mut Watch) -> Duration {
    match source {
        Source::Live(live) => {
            if let Some(max_map_count) = live.refresh_limit() {
                take(Event::LimitSeen(LimitSeen { at_ns: now_ns(), max_map_count }), audit, watch);
            }
            live.sweep(&mut |event| take(event, audit, watch));
            live.flush_debug();
            TICK
        }
        Source::Proc(sampling) => sampling.look(now_ns(), &mut |event| take(event, audit, watch)),
    }
}

/// Kernel memory per VMA, bytes; `None` where its slab figures cannot be read.
fn vma_price() -> Option<f64> {
    let _rights = rights::raised(&rights::PROCESSES);
    vma_cost::price(&Proc::new("/proc").slabs(&vma_cost::CACHES), ebpf::page_size()).map(|price| price.usual)
}

/// Adds up processes of a crowd, those of which nothing can come any more.
fn thin_out(live: Option<&mut Live>, audit: &mut Audit, watch: &mut Watch) {
    if !audit.crowded() {
        return;
    }
    let exists = |id: &ProcessId| {
        !audit.succeeded(*id) && kill(Pid::from_raw(id.tgid as i32), None) != Err(Errno::ESRCH)
    };
    // Whoever is gone by now has left its last figures in its slot, if not with the audit; so in this order.
    let mut over: HashSet<ProcessId> = audit.ended().filter(|id| !exists(id)).collect();
    if let Some(live) = live {
        live.sweep(&mut |event| take(event, audit, watch));
        let awaited = live.in_slots();
        over.retain(|id| !awaited.contains(id));
    }
    let mut over: Vec<ProcessId> = over.into_iter().collect();
    over.sort_unstable();
    take(Event::Gone(over), audit, watch);
    watch.symbols.keep(&audit.examples_of());
}

fn shown_command(args: &RunArgs) -> Vec<String> {
    if args.show_args {
        return args.command.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    }
    args.command.first().map(|file| child::short_name(file)).into_iter().collect()
}
