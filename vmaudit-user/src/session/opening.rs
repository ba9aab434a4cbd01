//! Opens the source of a session, and gives up the rights that only this needed.

use std::time::SystemTime;

use anyhow::anyhow;

use crate::domain::application::Anonymizer;
use crate::domain::process_filter::ProcessFilter;
use crate::domain::recommend::Margin;
use crate::launch::child::Child;
use crate::model::event::Event;
use crate::model::hook;
use crate::model::report::SourceKind;
use crate::model::session::{Budget, Header, KernelRules, MarginAsked, Sight};
use crate::os::apart::Patience;
use crate::os::clock::{boot_ns, now_ns};
use crate::os::kernel::{Facts, proc_is_ours};
use crate::os::procfs::{self, Proc};
use crate::os::rights;
use crate::source::chosen::{Chosen, matching};
use crate::source::ebpf::{self, Live, Options, PidNamespace, Unavailable, hooks};
use crate::source::procfs_sampler::Sampling;
use crate::source::{Source, environment};
use crate::text::time::rfc3339;

/// Where figures may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceWanted {
    /// eBPF when possible, else /proc.
    Auto,
    /// eBPF or nothing.
    Ebpf,
    /// /proc.
    Proc,
}

/// An open source, and what there is to say of it before its first event.
pub struct Opened {
    /// The source.
    pub source: Box<dyn Source>,
    /// What it is.
    pub kind: SourceKind,
    /// What it can see at all.
    pub sight: Sight,
    /// What the kernel checks, and what of it the source captures.
    pub rules: KernelRules,
    /// Hooks and conditions.
    pub events: Vec<Event>,
    /// Why /proc is looked at instead of eBPF.
    pub instead: Option<String>,
    /// When what runs already was attached to, CLOCK_BOOTTIME ns.
    pub attached_ns: Option<u64>,
}

impl Opened {
    /// Passes on only what is of processes that fit, and with `children` of whoever descends from them. `waits`: the source
    /// has somebody until the first of them comes.
    pub fn narrow(self, filter: ProcessFilter, children: bool, waits: bool) -> Self {
        Self { source: Box::new(Chosen::new(self.source, filter, children, waits)), ..self }
    }

    /// The header of a session that begins now on this source. Users' names are taken out of `command` and of
    /// the machine's name.
    pub fn header(&self, mut command: Vec<String>, anonymizer: &Anonymizer, asked: AskedOf) -> Header {
        let mut host = procfs::host();
        anonymizer.texts(command.iter_mut().chain(&mut host.name));
        Header {
            vmaudit: env!("CARGO_PKG_VERSION").into(),
            host,
            source: self.kind,
            sight: self.sight,
            rules: self.rules.clone(),
            started: rfc3339(SystemTime::now()),
            start_ns: now_ns(),
            command,
            watched: asked.watched,
            attached_ns: self.attached_ns,
            margin: MarginAsked { headroom: asked.margin.headroom(), round: asked.margin.round() },
            budget: asked.budget,
            all_rows: asked.all_rows,
            stretch: None,
        }
    }
}

/// What the caller asks of the report.
#[derive(Clone, Debug, Default)]
pub struct AskedOf {
    /// What the recommendation adds to a peak.
    pub margin: Margin,
    /// What must hold.
    pub budget: Budget,
    /// Every process has a row of its own.
    pub all_rows: bool,
    /// What is watched of what runs already, in words.
    pub watched: Option<String>,
}

/// Opens the source for a command that waits to be let go. Error: eBPF was demanded and is not to be had.
pub fn open_source(
    wanted: SourceWanted,
    facts: &Facts,
    options: &Options,
    pid: u32,
    patience: &Patience,
) -> anyhow::Result<Opened> {
    let why = match wanted {
        SourceWanted::Proc => "asked for by --source proc".to_owned(),
        _ => match open_live(facts, options, &[(pid, true)]) {
            Ok(live) => return Ok(of_live(live, facts)),
            Err(Unavailable(why)) if wanted == SourceWanted::Ebpf => {
                return Err(anyhow!("eBPF is not available: {why}"));
            }
            Err(Unavailable(why)) => why,
        },
    };
    // Numbers of another namespace are strangers' in this one.
    let roots = if proc_is_ours() { Some(pid) } else { None };
    let mut sampling = Sampling::new(Proc::new("/proc"), roots, options.follow_children, patience);
    let mut missed =
        "bursts between two looks, processes that live no longer, and failed calls are missed".to_owned();
    if options.follow_children && (roots.is_none() || !sampling.keep_orphans()) {
        missed.push_str(", and so are processes that leave the command's family");
    }
    Ok(of_samples(sampling, facts, options, (why, &missed)))
}

/// Whom to watch of what runs already.
#[derive(Clone, Debug, Default)]
pub struct Whom {
    /// These, each with what the kernel is told to follow; none: all.
    pub pids: Vec<u32>,
    /// Of all, those that fit; `None`: all.
    pub filter: Option<ProcessFilter>,
    /// The session goes on until the first one comes.
    pub waits: bool,
}

impl Whom {
    /// Those who fit now.
    pub fn now(&self) -> Vec<u32> {
        match (&self.filter, self.pids.is_empty()) {
            (Some(filter), _) => matching(filter),
            // Of others nothing can be counted without rights.
            (None, true) if !nix::unistd::geteuid().is_root() => {
                let uids = vec![nix::unistd::geteuid().as_raw()];
                matching(&ProcessFilter { uids, ..ProcessFilter::default() })
            }
            (None, true) => matching(&ProcessFilter::default()),
            (None, false) => self.pids.clone(),
        }
    }
}

/// Opens the source for what runs already. Error: eBPF was demanded and is not to be had.
pub fn open_running(
    wanted: SourceWanted,
    facts: &Facts,
    options: &Options,
    whom: &Whom,
    patience: &Patience,
) -> anyhow::Result<Opened> {
    let attached_ns = boot_ns();
    let why = match wanted {
        SourceWanted::Proc => "asked for by --source proc".to_owned(),
        _ => {
            let follow: Vec<_> = whom.pids.iter().map(|pid| (*pid, false)).collect();
            match open_live(facts, options, &follow) {
                Ok(mut live) => {
                    live.snapshot()?;
                    let mut opened = of_live(live, facts);
                    opened.attached_ns = Some(attached_ns);
                    return Ok(match &whom.filter {
                        Some(filter) => opened.narrow(filter.clone(), options.follow_children, whom.waits),
                        None => opened,
                    });
                }
                Err(Unavailable(why)) if wanted == SourceWanted::Ebpf => {
                    return Err(anyhow!("eBPF is not available: {why}"));
                }
                Err(Unavailable(why)) => why,
            }
        }
    };
    let mut missed =
        "bursts between two looks, processes that live no longer, and failed calls are missed".to_owned();
    if !proc_is_ours() {
        return Err(anyhow!("nothing can be watched: {why}"));
    }
    let later = if whom.waits { Some(whom.clone()) } else { None };
    missed.push_str(match &later {
        Some(_) => ", and so are processes that fit only later, until the next search for them, every 10 s",
        None if whom.filter.is_some() => {
            ", and so are processes that fit only later and descend from none that fits now"
        }
        None => "",
    });
    let mut sampling = Sampling::new(Proc::new("/proc"), whom.now(), options.follow_children, patience);
    if let Some(whom) = later {
        sampling = sampling.seeking(Box::new(move || whom.now()));
    }
    let mut opened = of_samples(sampling, facts, options, (why, &missed));
    opened.attached_ns = Some(attached_ns);
    Ok(opened)
}

/// Where changes were asked for by place.
const NO_CHANGES: &str = "--stacks: no change of a count has a place here (samples tell of no single change)";

/// The same for /proc. `why` not eBPF, and what is `missed`.
fn of_samples(sampling: Sampling, facts: &Facts, options: &Options, (why, missed): (String, &str)) -> Opened {
    let mut events = vec![
        Event::Hooks(hooks::all_missing(&why)),
        Event::Conditions(environment::look(facts, None)),
        Event::Note(format!("Counts are samples from /proc ({why}): {missed}")),
    ];
    events.extend(options.ledger.then(|| Event::Note(NO_CHANGES.into())));
    Opened {
        source: Box::new(sampling),
        kind: SourceKind::Proc,
        sight: Sight { changes: false, exits: false, locking: false, ends: false },
        rules: rules(facts, None),
        events,
        instead: Some(why),
        attached_ns: None,
    }
}

/// The same for eBPF that has been opened.
pub fn of_live(live: Live, facts: &Facts) -> Opened {
    let rules = rules(facts, Some(&live));
    let mut events = vec![Event::Conditions(environment::look(facts, Some(&live.hooks())))];
    let (watched, asks) = (live.has(hook::CALL_EXIT), live.asks());
    let sight = Sight {
        changes: true,
        exits: watched && !asks,
        locking: watched && asks,
        ends: live.has(hook::EXIT),
    };
    events.extend(asks.then(|| Event::Note(hooks::UNWATCHED.into())));
    events.extend(live.no_ledger().map(|why| Event::Note(why.to_owned())));
    Opened {
        source: Box::new(live),
        kind: SourceKind::Ebpf,
        sight,
        rules,
        events,
        instead: None,
        attached_ns: None,
    }
}

/// What the verdicts must know about this kernel and about what the programs capture.
fn rules(facts: &Facts, live: Option<&Live>) -> KernelRules {
    let proc = Proc::new("/proc");
    let page_size = ebpf::page_size();
    KernelRules {
        page_size,
        task_size: Proc::usual_address_end(),
        address_end: proc.address_end(),
        ram_and_swap_pages: proc.ram_and_swap_bytes().map(|bytes| bytes / page_size),
        ignore_rlimit_data: std::fs::read_to_string("/sys/module/kernel/parameters/ignore_rlimit_data")
            .is_ok_and(|value| value.trim() == "Y"),
        vm_counters_captured: true,
        sections_seen: live.is_some_and(|live| live.has(hook::LOCK_RELEASED) && !live.sampled()),
        searches_seen: live.is_some_and(|live| live.has(hook::ADDRESS_SEARCH)),
        memlock_bit_knows_capability: true,
        future_locks_captured: facts
            .layout
            .as_ref()
            .is_ok_and(|layout| layout.mm_def_flags != vmaudit_common::ABSENT),
        ..KernelRules::for_release(&facts.release)
    }
}

/// Address spaces that there is room for. Where all are followed, a user may have half of what the others leave, and each
/// process may be followed by another before its end is taken.
fn slots(options: &Options) -> u32 {
    const FOR_EACH: usize = 4;
    const MOST: u32 = 1 << 17;
    let processes = if options.watch_all { Proc::default().pids().map_or(0, |pids| pids.len()) } else { 0 };
    let wanted = u32::try_from(processes * FOR_EACH).map_or(MOST, u32::next_power_of_two);
    options.slots.max(wanted.min(MOST))
}

/// Loads the programs and tells them whom to follow. `follow`: each process, and whether it is our own child that has
/// not exec'd yet; the children that the others have are followed with them. All of them must be given here: numbers mean something only in the kernel's own pid namespace, and
/// none may be added after [`Live::begin`].
pub fn open_live(facts: &Facts, options: &Options, follow: &[(u32, bool)]) -> Result<Live, Unavailable> {
    let namespace = PidNamespace::find().map_err(|why| {
        Unavailable(environment::blocking(facts).unwrap_or_else(|| {
            format!("vmaudit runs inside a pid namespace (a container), and process numbers cannot be translated: {why}")
        }))
    })?;
    let options = &Options { slots: slots(options), namespace, ..*options };
    let mut live = Live::open(facts, options)
        .map_err(|Unavailable(why)| Unavailable(environment::blocking(facts).unwrap_or(why)))?;
    let unavailable = |e| Unavailable(format!("{e:#}"));
    for (pid, after_exec) in follow {
        live.follow(*pid, *after_exec).map_err(unavailable)?;
    }
    let before: Vec<u32> = follow.iter().filter(|(_, own)| !own).map(|(pid, _)| *pid).collect();
    if options.follow_children && !before.is_empty() {
        live.follow_descendants(&before, &Proc::default()).map_err(unavailable)?;
    }
    live.begin();
    Ok(live)
}

/// Keeps only the rights that a session at work needs. Tells the limits of the command, and in notes: what the command did not get, or why nothing could be given
/// up. `for_outputs`: rights that replacing the outputs will need.
pub fn give_up_rights(child: Option<&Child>, for_outputs: &[caps::Capability]) -> Vec<Event> {
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
    let limits = child.and_then(|child| child.rlimits).map(Event::Rlimits);
    limits.into_iter().chain(notes.into_iter().map(Event::Note)).collect()
}
