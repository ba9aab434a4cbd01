//! `vmaudit trace`: the stream of changes and failures, filtered and written as it comes.
//!
//! The workload never waits for the reader: a full ring buffer drops records, and the number of dropped ones is
//! printed where they are missing. Alike lines are written as one, see [`vmaudit_user::domain::repeats`].

mod lines;
mod shown;

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json as object};
use vmaudit_common::call::CALLS;

use vmaudit_user::domain::arguments;
use vmaudit_user::domain::diagnosis::Verdict;
use vmaudit_user::launch::child::{Child, EXIT_OWN_FAILURE};
use vmaudit_user::launch::user::User;
use vmaudit_user::model::cause::name_of;
use vmaudit_user::model::event::{Change, Event, Refused, UsedShare};
use vmaudit_user::model::loss::LossReason;
use vmaudit_user::model::report::Cause;
use vmaudit_user::os::destination::{Destination, Writing};
use vmaudit_user::os::kernel::Facts;
use vmaudit_user::os::users;
use vmaudit_user::output::format::{Format, Kind};
use vmaudit_user::output::{json, say};

use vmaudit_user::source::ebpf;
use vmaudit_user::source::ebpf::Unavailable;
use vmaudit_user::source::process_names;
use vmaudit_user::text;

use self::lines::Lines;
use self::shown::Shown;
use vmaudit_user::domain::application::Anonymizer;
use vmaudit_user::domain::audit::Audit;
use vmaudit_user::domain::repeats::{Folding, Line};
use vmaudit_user::enrich::Enrichment;
use vmaudit_user::launch::child;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::os::clock::now_ns;
use vmaudit_user::os::rights;
use vmaudit_user::session::opening::{AskedOf, give_up_rights, of_live, open_live};
use vmaudit_user::session::recorder::Recorder;
use vmaudit_user::session::{Ends, Root, Session, Sink, Unfollowed};

use crate::cli::trace::TraceArgs;
use crate::cli::values::Source;
use crate::command::run::open_recording;
use crate::outputs::{Asked, Outputs};

/// `vmaudit trace`.
pub fn trace(args: TraceArgs) -> anyhow::Result<i32> {
    if let Some(unknown) = args.call.iter().find(|name| !CALLS.iter().any(|call| call.name == **name)) {
        say(&format!("{unknown} is not one of the watched system calls"));
        return Ok(2);
    }
    let pids = process_names::pids_of(&args.pid).map_err(anyhow::Error::msg)?;
    let roots = pids.iter().map(|pid| Root::hold(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let owner = args.user.as_deref().map(users::resolve_user).transpose()?;
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
    let options = ebpf::Options {
        watch_all: args.all || (pids.is_empty() && child.is_none()),
        follow_children: !args.no_follow,
        // A recording has all of them, whatever is shown.
        stream_changes: !args.failed || recording.is_some(),
        stream_failures: true,
        attach: child.is_none() || !pids.is_empty(),
        calls: true,
        exits: true,
        // Names for the stacks of a report.
        stacks: recording.is_some(),
        ring_bytes: args.common.ring_bytes.unwrap_or(8 << 20),
        slots: args.common.slots,
        debug: args.common.debug_bpf,
    };
    let unavailable = |Unavailable(why)| anyhow!("eBPF is not available: {why}");
    let own_child = child.as_ref().map(|child| (child.pid.as_raw() as u32, true));
    let follow: Vec<_> = pids.iter().map(|pid| (*pid, false)).chain(own_child).collect();
    let mut live = open_live(&facts, &options, &follow).map_err(unavailable)?;
    live.snapshot()?;
    let mut opened = of_live(live, &facts);
    opened.events.extend(give_up_rights(child.as_ref(), destination.rights()));
    let anonymizer = users::anonymizer(false);
    let command = args.command.first().map(|file| child::short_name(file)).into_iter().collect();
    let header = opened.header(command, &anonymizer, AskedOf::default());
    let mut stream = Stream::new(&args, (format, destination), owner, header.start_ns);
    let mut recorder = recording
        .map(|file| Recorder::new(Box::new(file), &header, args.record_max))
        .transpose()
        .context("cannot write the recording")?;
    let patience = Patience::default();
    // What is not kept is not looked up.
    let enrichment = match recorder {
        Some(_) => Enrichment::new(true, anonymizer.clone(), header.start_ns, &patience),
        None => Enrichment::for_verdicts(&patience),
    };
    let mut sinks: Vec<&mut dyn Sink> = vec![&mut stream];
    sinks.extend(recorder.iter_mut().map(|it| it as &mut dyn Sink));
    // Names in the lines are as the kernel has them: they are for the one who watches.
    let shown = if args.record.is_some() { anonymizer } else { Anonymizer::off() };
    let mut session = Session::new(&header, opened.source, Some(enrichment), shown, sinks, patience);
    let notes: Vec<String> = opened
        .events
        .into_iter()
        .inspect(|event| session.take(event.clone()))
        .filter_map(|event| if let Event::Note(note) = event { Some(note) } else { None })
        .collect();
    let roots = if child.is_none() { roots } else { Vec::new() };
    let ends = Ends { roots, deadline: args.duration.map(|d| Instant::now() + d), linger: Duration::ZERO };
    let exit = match session.run(child.as_mut(), &ends) {
        Ok(exit) => exit,
        Err(Unfollowed::NotBegun(e) | Unfollowed::Lost(e)) => return Err(e),
        Err(Unfollowed::Refused(status, why)) => {
            let name = args.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
            say(&format!("cannot run {name}: {why}"));
            // 125 tells vmaudit's failure from the command's status, which only `run` passes on.
            return Ok(if status == EXIT_OWN_FAILURE { 1 } else { status });
        }
    };
    drop(child);
    let audit = session.finish(exit);
    notes.iter().for_each(|note| say(note));
    let complaint = recorder.and_then(|it| it.complaint());
    if let Some(complaint) = &complaint {
        say(complaint);
    }
    stream.end(&audit)?;
    Ok(i32::from(complaint.is_some()))
}

struct Stream {
    out: Lines,
    /// `None` when every line is wanted.
    folding: Option<Folding>,
    json: bool,
    start_ns: u64,
    /// Records known to be dropped, as last printed.
    dropped: u64,
    failed: bool,
    shown: Shown,
}

impl Sink for Stream {
    fn event(&mut self, event: &Event, audit: &Audit) {
        self.shown.heed(event);
        if matches!(event, Event::Lost(_)) {
            self.losses(audit);
        } else {
            self.write(event, audit);
        }
    }

    fn turn(&mut self, audit: &Audit, over: bool) {
        let now = Instant::now();
        if let Some(folding) = &mut self.folding {
            let mut due = Vec::new();
            if over {
                folding.all(&mut due)
            } else {
                folding.due(now, &mut due)
            }
            due.into_iter().for_each(|line| self.say(line, now, audit));
        }
        self.out.second_over(now);
        self.out.flush();
    }

    fn is_closed(&self) -> bool {
        self.out.is_broken()
    }
}

impl Stream {
    fn new(
        args: &TraceArgs,
        (format, destination): (Format, Destination),
        owner: Option<u32>,
        start_ns: u64,
    ) -> Self {
        let json = format == Format::Json;
        Self {
            out: Lines::new(destination, json, args.max_bytes),
            folding: (!args.all_lines).then(Folding::default),
            json,
            start_ns,
            dropped: 0,
            failed: args.failed,
            shown: Shown::new(&args.call, owner, &args.comm),
        }
    }

    fn write(&mut self, event: &Event, audit: &Audit) {
        let now = Instant::now();
        let mut lines = Vec::new();
        match event {
            Event::Change(it) if !self.failed && self.shown.wanted(it.call, it.tgid, &it.comm) => {
                match &mut self.folding {
                    Some(folding) => folding.change(it.clone(), now, &mut lines),
                    None => lines.push(Line::Change(it.clone())),
                }
            }
            Event::Refused(it) if self.shown.wanted(it.call, it.tgid, &it.comm) => {
                let Verdict { cause, certain, .. } = audit.verdict_of(it);
                match &mut self.folding {
                    Some(folding) => folding.refused(it.clone(), (cause, certain), now, &mut lines),
                    None => lines.push(Line::Refused(it.clone())),
                }
            }
            _ => return,
        }
        lines.into_iter().for_each(|line| self.say(line, now, audit));
    }

    fn say(&mut self, line: Line, now: Instant, audit: &Audit) {
        let text = match &line {
            Line::Change(change) => self.change(change),
            Line::Refused(refused) => self.refused(refused, audit),
            Line::Changes { first, last, times } => self.changes(first, last, *times),
            Line::RefusedAgain { first_ns, last, times, why } => {
                self.refused_again(*first_ns, last, *times, *why)
            }
        };
        self.out.line(&text, now);
    }

    fn seconds(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    fn change(&self, c: &Change) -> String {
        let at = self.seconds(c.at_ns);
        if self.json {
            return json::line(
                &object!({"type": "change", "at_s": at, "pid": c.tgid, "tid": c.tid, "comm": c.comm,
                          "syscall": name_of(c.call), "before": c.before, "after": c.after}),
            );
        }
        format!(
            "{at:12.6} {:>7} {:<15} {:<14} {:>+7} {:>9}",
            c.tid,
            text::clean(&c.comm),
            name_of(c.call),
            i64::from(c.after) - i64::from(c.before),
            text::grouped(c.after.into()),
        )
    }

    /// Several changes in a row, each like the first.
    fn changes(&self, first: &Change, last: &Change, times: u64) -> String {
        if self.json {
            return json::line(
                &object!({"type": "repeat", "of": "change", "times": times, "since_s": self.seconds(first.at_ns),
                          "at_s": self.seconds(last.at_ns), "pid": last.tgid, "tid": last.tid, "comm": last.comm,
                          "syscall": name_of(last.call), "before": first.before, "after": last.after}),
            );
        }
        let whole = self.change(&Change { before: first.before, ..last.clone() });
        format!("{whole} ... {}", times_more(times, first.at_ns, last.at_ns))
    }

    /// Several refused calls of one task, each like the one written before.
    fn refused_again(
        &self,
        first_ns: u64,
        r: &Refused,
        times: u64,
        (cause, certain): (Cause, bool),
    ) -> String {
        let at = self.seconds(r.at_ns);
        let errno = errno_name(r.errno);
        if self.json {
            return json::line(
                &object!({"type": "repeat", "of": "failure", "times": times, "since_s": self.seconds(first_ns),
                          "at_s": at, "pid": r.tgid, "tid": r.tid, "comm": r.comm, "syscall": name_of(r.call),
                          "errno": errno, "cause": cause, "certain": certain}),
            );
        }
        format!(
            "{at:12.6} {:>7} {:<15} {} = {errno}: {} ... {}",
            r.tid,
            text::clean(&r.comm),
            name_of(r.call),
            cause.name(),
            times_more(times, first_ns, r.at_ns),
        )
    }

    fn refused(&self, r: &Refused, audit: &Audit) -> String {
        let verdict = audit.verdict_of(r);
        let at = self.seconds(r.at_ns);
        let errno = errno_name(r.errno);
        let mut args = arguments::by_name(r.call, &r.args);
        if audit.hides_addresses(r.tgid) || !rights::may_know_addresses(r.tgid, None) {
            arguments::hide_addresses(&mut args);
        }
        if self.json {
            return json::line(
                &object!({"type": "failure", "at_s": at, "pid": r.tgid, "tid": r.tid, "comm": r.comm,
                          "syscall": name_of(r.call), "errno": errno, "args": args,
                          "cause": verdict.cause, "certain": verdict.certain, "ordinary": verdict.ordinary,
                          "evidence": verdict.evidence, "sentence": verdict.sentence}),
            );
        }
        let shown: Vec<String> = args
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name}={text}"),
                Value::Null => format!("{name}=?"),
                other => format!("{name}={other}"),
            })
            .collect();
        format!(
            "{at:12.6} {:>7} {:<15} {}({}) = {errno}: {}{}",
            r.tid,
            text::clean(&r.comm),
            name_of(r.call),
            shown.join(", "),
            verdict.cause.name(),
            if verdict.certain { "" } else { " (not certain)" },
        )
    }

    /// Says where records are missing.
    fn losses(&mut self, audit: &Audit) {
        let dropped = audit.losses().counters.get(&LossReason::RingFull).copied().unwrap_or(0);
        if dropped > self.dropped {
            let missing = dropped - self.dropped;
            self.dropped = dropped;
            let at = self.seconds(now_ns());
            let line = if self.json {
                json::line(&object!({"type": "lost", "at_s": at, "ring_full": missing}))
            } else {
                format!(
                    "{at:12.6} [{} lost here: the reader was too slow, or a user had his share]",
                    text::count(missing, "record", "records")
                )
            };
            self.out.line(&line, Instant::now());
        }
    }

    fn end(self, audit: &Audit) -> anyhow::Result<()> {
        let losses = audit.losses();
        let mut notes: Vec<String> = losses.shares.iter().map(UsedShare::sentence).collect();
        if self.shown.unknown() > 0 {
            notes.push(format!(
                "{} not shown: their processes were gone before their owner could be asked for",
                text::count(self.shown.unknown(), "line is", "lines are")
            ));
        }
        let line = if self.json {
            let at = self.seconds(now_ns());
            json::line(&object!({"type": "end", "at_s": at, "lost": losses.counters, "notes": notes}))
        } else {
            let counters: Vec<String> =
                losses.counters.iter().map(|(reason, n)| format!("{} {n}", reason.name())).collect();
            let notes: String = notes.iter().map(|note| format!("\nNote: {note}.")).collect();
            format!("Lost: {}{notes}", counters.join(", "))
        };
        self.out.end(&line).map_err(Into::into)
    }
}

fn errno_name(errno: u8) -> &'static str {
    if errno == libc::EAGAIN as u8 { "EAGAIN" } else { "ENOMEM" }
}

fn times_more(times: u64, first_ns: u64, last_ns: u64) -> String {
    let seconds = last_ns.saturating_sub(first_ns) as f64 / 1e9;
    format!("{} times more in {seconds:.1} s", text::grouped(times))
}
