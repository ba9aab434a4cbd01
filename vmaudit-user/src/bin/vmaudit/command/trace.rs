//! `vmaudit trace`: the stream of changes and failures, filtered and written as it comes.
//!
//! The workload never waits for the reader: a full ring buffer drops records, and the number of dropped ones is
//! printed where they are missing. Alike lines are written as one, see [`vmaudit_user::domain::repeats`].

mod lines;
mod shown;
mod stream;
mod tally;

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use vmaudit_common::call::CALLS;

use vmaudit_user::domain::process_filter::ProcessFilter;
use vmaudit_user::domain::report;
use vmaudit_user::launch::child::Child;
use vmaudit_user::launch::exit_status::EXIT_OWN_FAILURE;
use vmaudit_user::launch::user::User;
use vmaudit_user::os::clock::boot_ns;
use vmaudit_user::os::destination::{Destination, Writing};
use vmaudit_user::os::kernel::Facts;
use vmaudit_user::os::users;
use vmaudit_user::output::format::Kind;
use vmaudit_user::output::text::page::Style;
use vmaudit_user::output::text::{refusals, verdict};
use vmaudit_user::output::{Weight, say, say_as};

use vmaudit_user::source::ebpf;
use vmaudit_user::source::ebpf::Unavailable;
use vmaudit_user::source::process_names;
use vmaudit_user::text::count;

use self::stream::{Last, Stream};
use vmaudit_user::domain::application::Anonymizer;
use vmaudit_user::enrich::Enrichment;
use vmaudit_user::launch::child;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::session::opening::{AskedOf, give_up_rights, of_live, open_live};
use vmaudit_user::session::{Ends, Root, Session, Sink, Unfollowed};

use crate::cli::trace::TraceArgs;
use crate::cli::values::Source;
use crate::command::filters;
use crate::command::run::{begin_recording, open_recording};
use crate::outputs::{Asked, Outputs};

/// `vmaudit trace`.
pub fn trace(args: TraceArgs) -> anyhow::Result<i32> {
    if let Some(unknown) = args.call.iter().find(|name| !CALLS.iter().any(|call| call.name == **name)) {
        say(&format!("{unknown} is not one of the watched system calls"));
        return Ok(2);
    }
    let (pids, filter) = meant(&args)?;
    let roots = pids.iter().map(|pid| Root::hold(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    if args.common.source == Source::Proc {
        return Err(anyhow!("trace needs eBPF: /proc shows counts, not changes and failures"));
    }
    let asked = Asked { named: args.output.as_slice(), screen: args.format, kind: Kind::Stream };
    let (format, destination) = Outputs::open_or(&asked, Writing::Lines, Destination::Stdout)?
        .into_first()
        .context("there is nowhere to write to")?;
    let user = args.run_as.as_deref().map(User::find).transpose()?;
    let mut child = match args.command.is_empty() {
        true => None,
        false => Some(Child::prepare(&args.command, user.as_ref(), args.keep_caps)?),
    };
    let facts = Facts::gather();
    let recording = args.record.as_deref().map(open_recording).transpose()?;
    let options = options(&args, &pids, recording.is_some());
    let unavailable = |Unavailable(why)| anyhow!("eBPF is not available: {why}");
    let own_child = child.as_ref().map(|child| (child.pid.as_raw() as u32, true));
    let follow: Vec<_> = pids.iter().map(|pid| (*pid, false)).chain(own_child).collect();
    let attached_ns = boot_ns();
    let mut live = open_live(&facts, &options, &follow).map_err(unavailable)?;
    live.snapshot()?;
    let mut opened = of_live(live, &facts);
    opened.attached_ns = options.attach.then_some(attached_ns);
    if filter.asks() {
        opened = opened.narrow(filter, options.follow_children, false);
    }
    opened.events.extend(give_up_rights(child.as_ref(), destination.rights()));
    let anonymizer = users::anonymizer(false);
    let command = args.command.first().map(|file| child::short_name(file)).into_iter().collect();
    let header =
        opened.header(command, &anonymizer, AskedOf { all_rows: args.narrows(), ..AskedOf::default() });
    let width = destination.columns();
    let mut stream = Stream::new(&args, (format, destination), header.start_ns);
    let (mut recorder, not_recorded) = begin_recording(recording, &header, args.record_max);
    let patience = Patience::default();
    // What is not kept is not looked up.
    let enrichment = match recorder.is_some() || args.stacks {
        true => Enrichment::new(true, anonymizer.clone(), header.start_ns, &patience),
        false => Enrichment::for_verdicts(&patience),
    };
    let followed = opened.source.living() as u64;
    let mut sinks: Vec<&mut dyn Sink> = vec![&mut stream];
    sinks.extend(recorder.iter_mut().map(|it| it as &mut dyn Sink));
    // Names in the lines are as the kernel has them: they are for the one who watches.
    let shown = if args.record.is_some() { anonymizer } else { Anonymizer::off() };
    let mut session = Session::new(&header, opened.source, Some(enrichment), shown, sinks, patience);
    opened.events.into_iter().for_each(|event| session.take(event));
    // A command shows by itself that it runs.
    if child.is_none() {
        session.announce(waiting(&args, followed));
    }
    let roots = if child.is_none() { roots } else { Vec::new() };
    let ends = Ends {
        roots,
        with_the_last: false,
        deadline: args.duration.map(|d| Instant::now() + d),
        linger: Duration::ZERO,
    };
    let exit = match session.run(child.as_mut(), &ends) {
        Ok(exit) => exit,
        Err(Unfollowed::NotBegun(e) | Unfollowed::Lost(e)) => return Err(e),
        Err(Unfollowed::Refused(status, why)) => {
            let name = args.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
            say_as(Weight::Error, &format!("cannot run {name}: {why}"));
            // 125 tells vmaudit's failure from the command's status, which only `run` passes on.
            return Ok(if status == EXIT_OWN_FAILURE { 1 } else { status });
        }
    };
    drop(child);
    let echoed = session.interrupted();
    let audit = session.finish(exit);
    // Those of the end among them.
    audit.session().notes.iter().for_each(|note| say(note));
    let complaint = recorder.and_then(|it| it.complaint());
    if let Some(complaint) = &complaint {
        say_as(Weight::Error, complaint);
    }
    let mut report = report::report(&header, &audit)?;
    // Of processes that nobody asked for there is nothing to say.
    let verdict = (!args.narrows()).then(|| verdict(&report));
    stream.sum_up(&mut report);
    let style = Style { width: width.unwrap_or(100), ..Style::default() };
    let stacks = if args.stacks { refusals(&report, &style)? } else { String::new() };
    let failures = args.stacks.then_some(report.failures.as_slice());
    stream.end(&audit, &Last { verdict: verdict.as_deref(), stacks: &stacks, failures, echoed })?;
    Ok(i32::from(not_recorded || complaint.is_some()))
}

/// Processes that the kernel is told to follow, and what all must be like. Errors: nobody is meant.
fn meant(args: &TraceArgs) -> anyhow::Result<(Vec<u32>, ProcessFilter)> {
    let whom = filters::whom(&args.filters, args.wait)?;
    if args.command.is_empty() && !args.wait && whom.filter.is_some() && whom.now().is_empty() {
        return Err(filters::nobody(&args.filters));
    }
    // Which line is asked for by the name of a thread, the lines tell; which process, the source.
    let filter = match args.wait {
        true => whom.filter.unwrap_or_default(),
        false => filters::beside_pids(&args.filters)?,
    };
    // What is waited for nobody can be told the number of.
    let pids = match args.wait {
        true => Vec::new(),
        false => process_names::pids_of(&args.filters.pid).map_err(anyhow::Error::msg)?,
    };
    Ok((pids, ProcessFilter { comm: Vec::new(), ..filter }))
}

/// What to load.
fn options(args: &TraceArgs, pids: &[u32], recorded: bool) -> ebpf::Options {
    // Sums of processes are kept in the kernel; which thread it was is known of lines alone.
    let lines = !args.count || !args.filters.comm.is_empty();
    let no_child = args.command.is_empty();
    ebpf::Options {
        watch_all: args.all || (pids.is_empty() && no_child),
        follow_children: !args.no_follow,
        // A recording has all of them, whatever is shown.
        stream_changes: lines && !args.failed || recorded,
        stream_failures: lines,
        attach: no_child || !pids.is_empty(),
        calls: true,
        exits: true,
        // Names for the stacks of a report.
        stacks: recorded || args.stacks,
        makers: recorded,
        ledger: recorded && args.stacks,
        ring_bytes: args.common.ring_bytes.unwrap_or(8 << 20),
        slots: args.common.slots,
        debug: args.common.debug_bpf,
        interval: args.common.interval,
        namespace: None,
    }
}

/// What is said while nothing comes.
fn waiting(args: &TraceArgs, followed: u64) -> String {
    let what = match args.failed {
        true => "refused memory calls",
        false => "changes of VMA counts and refused memory calls",
    };
    let whose = match args.narrows() {
        true => "of what was asked for, among ",
        false => "of ",
    };
    let ends = if args.duration.is_some() { "Ctrl-C ends it before its time" } else { "Ctrl-C ends" };
    let does = if args.count { "counting" } else { "tracing" };
    format!("{does} {what} {whose}{} so far; {ends}", count(followed, "process", "processes"))
}
