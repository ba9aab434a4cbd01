//! `vmaudit watch`: attaches to what already runs, reports at the end. The processes are not touched, and live on.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use vmaudit_user::domain::audit::Audit;
use vmaudit_user::domain::recommend::Margin;
use vmaudit_user::domain::report;
use vmaudit_user::enrich::Enrichment;
use vmaudit_user::model::event::Event;
use vmaudit_user::model::session::Header;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::os::destination::Destination;
use vmaudit_user::os::kernel::Facts;
use vmaudit_user::os::{rights, status_line, users};
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::output::{Weight, say, say_as};
use vmaudit_user::session::flight::Flight;
use vmaudit_user::session::opening::{AskedOf, give_up_rights, open_running};
use vmaudit_user::session::{Ends, Root, Session, Sink, Unfollowed};
use vmaudit_user::source::ebpf;
use vmaudit_user::text::{clean, count, grouped};

use crate::cli::watch::WatchArgs;
use crate::command::options;
use crate::command::reporting::{Outcome, budget, conclude, shown, wants_all_calls};
use crate::command::run::{begin_recording, open_recording};
use crate::command::status::Status;
use crate::command::thresholds::Thresholds;
use crate::command::{filters, flight};
use crate::outputs::{Asked, Outputs};

/// `vmaudit watch`. Returns vmaudit's exit status.
pub fn watch(args: WatchArgs) -> anyhow::Result<i32> {
    let margin = Margin::new(args.report.headroom, args.report.round).map_err(|e| anyhow!("{e}"))?;
    let budget = budget(&args.report)?;
    let whom = filters::whom(&args.filters, args.wait)?;
    let roots = whom.pids.iter().map(|pid| Root::hold(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    if !whom.waits && whom.filter.is_some() && whom.now().is_empty() {
        return Err(filters::nobody(&args.filters));
    }
    let asked = Asked { named: &args.report.output, screen: args.report.format, kind: Kind::Report };
    let outputs = Outputs::open(&asked)?;
    let recording = args.report.record.as_deref().map(open_recording).transpose()?;
    let folder = flight::folder(&args.flight)?;
    let mut status = if args.report.quiet { None } else { Status::new() };
    let mut for_outputs = outputs.rights();
    for_outputs.extend(folder.iter().flat_map(|it| it.rights()));
    for_outputs.extend(status.as_ref().and_then(|_| status_line::right()));
    let facts = Facts::gather();
    let options = ebpf::Options {
        calls: !args.report.peaks_only,
        exits: wants_all_calls(&args.report, &budget),
        stacks: true,
        makers: !args.report.peaks_only,
        ledger: args.report.stacks,
        ..options::of_running(&args.common, &whom, !args.no_follow)
    };
    let patience = Patience::default();
    let mut opened = open_running(args.common.source.into(), &facts, &options, &whom, &patience)?;
    opened.events.extend(give_up_rights(None, &for_outputs));
    let anonymizer = || users::anonymizer(args.report.no_anonymize);
    let words = filters::words(&args.filters).unwrap_or_else(|| "every process".into());
    let asked = AskedOf {
        margin,
        budget,
        all_rows: args.report.all_rows,
        watched: Some(anonymizer().apply(&words).into_owned()),
    };
    let header = opened.header(Vec::new(), &anonymizer(), asked);
    let (mut recorder, not_recorded) = begin_recording(recording, &header, None);
    let mut thresholds = Thresholds::new(&args.at, args.exec.as_deref(), args.report.quiet);
    let mut flight =
        args.flight.flight.zip(folder).map(|(length, it)| Flight::new(&header, length, &args.at, it));
    let mut interim = Interim { header: header.clone(), args: &args };
    let mut first = First::default();
    let mut enrichment = Enrichment::new(!args.report.no_symbols, anonymizer(), header.start_ns, &patience);
    if args.report.show_args {
        enrichment = enrichment.with_command_lines(&patience);
    }
    let mut source = opened.source;
    let mut events = opened.events;
    source.begin(&mut |event| {
        first.take(&event);
        events.push(event);
    });
    if first.processes.is_empty() && !whom.waits {
        return Err(match whom.pids.is_empty() {
            true => filters::nobody(&args.filters),
            false => anyhow!(
                "nothing to watch: {words} has no memory of its own (a kernel thread), or ended just now"
            ),
        });
    }
    let mut sinks: Vec<&mut dyn Sink> = recorder.iter_mut().map(|it| it as &mut dyn Sink).collect();
    sinks.extend(status.iter_mut().map(|it| it as &mut dyn Sink));
    sinks.extend(thresholds.iter_mut().map(|it| it as &mut dyn Sink));
    sinks.extend(flight.iter_mut().map(|it| it as &mut dyn Sink));
    sinks.push(&mut interim);
    let mut session = Session::new(&header, source, Some(enrichment), anonymizer(), sinks, patience);
    events.into_iter().for_each(|event| session.take(event));
    if !args.report.quiet {
        let limit = vmaudit_user::source::proc_max_map_count();
        let ends =
            if args.duration.is_some() { "Ctrl-C ends it earlier" } else { "Ctrl-C ends it and reports" };
        let why =
            opened.instead.map_or(String::new(), |why| format!("; looking at /proc instead of eBPF ({why})"));
        session.announce(format!("watching {words} ({}){why}; {ends}", first.words(limit)));
    }
    let with_the_last = !roots.is_empty() || whom.filter.is_some();
    let deadline = args.duration.map(|time| Instant::now() + time);
    let ends = Ends { roots, with_the_last, deadline, linger: Duration::ZERO };
    match session.run(None, &ends) {
        Ok(_) => {}
        Err(Unfollowed::NotBegun(e) | Unfollowed::Lost(e)) => return Err(e),
        Err(Unfollowed::Refused(_, why)) => return Err(anyhow!(why)),
    }
    let echoed = session.interrupted();
    let audit = session.finish(None);
    if let Some(complaint) = thresholds.and_then(|it| it.complaint()) {
        say_as(Weight::Error, &complaint);
    }
    let not_kept = flight::status(flight.as_ref()) != 0;
    // The line is gone, and the terminal's time as it was, before anything is written.
    drop(status);
    // Nothing of others is read any more; what was read is rendered without rights.
    rights::finish(&for_outputs);
    let Outcome { breached, lost } =
        conclude(&args.report, (&header, &audit), outputs, recorder, echoed, true)?;
    Ok(match (breached, lost || not_recorded || not_kept) {
        (true, _) => args.report.breach_exit_code.into(),
        (false, true) => 1,
        (false, false) => 0,
    })
}

/// Reports of what was seen so far, for whoever sends SIGUSR1: as text on standard error, so that the last one is alone
/// where it belongs.
struct Interim<'a> {
    header: Header,
    args: &'a WatchArgs,
}

impl Sink for Interim<'_> {
    fn event(&mut self, _: &Event, _: &Audit) {}

    fn turn(&mut self, _: &Audit, _: bool) {}

    fn wants_interim(&self) -> bool {
        true
    }

    fn interim(&mut self, audit: &Audit) {
        let outputs = Outputs::on_screen(Destination::Stderr);
        match report::report(&self.header, audit) {
            Ok(report) => {
                say("so far, and it goes on:");
                for e in outputs.write_each(&Document::Report(&report), shown(&self.args.report, false)) {
                    say_as(Weight::Error, &format!("the report could not be written: {e}"));
                }
            }
            Err(e) => say_as(Weight::Error, &e.to_string()),
        }
    }
}

/// What ran already.
#[derive(Default)]
struct First {
    processes: std::collections::BTreeSet<u32>,
    largest: Option<(u64, String, u32)>,
}

impl First {
    fn take(&mut self, event: &Event) {
        let (pid, comm, vmas) = match event {
            Event::Mm(state) => (state.process.tgid, &state.comm, Some(state.last)),
            Event::Sample(sample) => (sample.process.tgid, &sample.comm, sample.map_count),
            Event::Process(facts) => {
                self.processes.insert(facts.process.tgid);
                return;
            }
            _ => return,
        };
        self.processes.insert(pid);
        if let Some(vmas) = vmas.map(u64::from)
            && self.largest.as_ref().is_none_or(|(most, ..)| vmas > *most)
        {
            self.largest = Some((vmas, comm.clone(), pid));
        }
    }

    /// `3 processes, largest java 28868 with 65,018 VMAs, 99.2 % of 65,530`.
    fn words(&self, limit: Option<u32>) -> String {
        let mut words = count(self.processes.len() as u64, "process", "processes");
        if let Some((vmas, comm, pid)) = &self.largest {
            let share = limit.filter(|limit| *limit > 0).map(|limit| {
                format!(", {:.1} % of {}", *vmas as f64 * 100.0 / f64::from(limit), grouped(limit.into()))
            });
            let (name, vmas) = (clean(comm), count(*vmas, "VMA", "VMAs"));
            words.push_str(&format!(", largest {name} ({pid}) with {vmas} now{}", share.unwrap_or_default()));
        }
        words
    }
}
