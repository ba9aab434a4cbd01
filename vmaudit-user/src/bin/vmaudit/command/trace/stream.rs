//! The lines of `trace`, and what is said at its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json as object;
use vmaudit_common::call;

use vmaudit_user::domain::audit::Audit;
use vmaudit_user::domain::diagnosis::Verdict;
use vmaudit_user::domain::repeats::{Folding, Line, THREADS};
use vmaudit_user::domain::{arguments, notation};
use vmaudit_user::model::cause::{because, name_of};
use vmaudit_user::model::event::{Change, Event, Refused, UsedShare};
use vmaudit_user::model::loss::LossReason;
use vmaudit_user::model::report::{Cause, Failure, Report};
use vmaudit_user::os::clock::{now_ns, time_of_day};
use vmaudit_user::os::destination::Destination;
use vmaudit_user::os::rights;
use vmaudit_user::output::format::Format;
use vmaudit_user::output::text::page::wrapped;
use vmaudit_user::output::{json, say};
use vmaudit_user::session::Sink;
use vmaudit_user::text;

use super::lines::Lines;
use super::shown::Shown;
use super::tally::Tally;
use crate::cli::trace::TraceArgs;

/// What is said at the end.
pub struct Last<'a> {
    /// On all that was followed; `None` where only a part was asked for.
    pub verdict: Option<&'a str>,
    /// From where calls were refused, for people.
    pub stacks: &'a str,
    /// The same for programs; `None` where no stacks were asked for.
    pub failures: Option<&'a [Failure]>,
    /// A terminal stands behind `^C`.
    pub echoed: bool,
}

/// What `trace` makes of the events.
pub struct Stream {
    out: Lines,
    /// `None` when every line is wanted.
    folding: Option<Folding>,
    json: bool,
    start_ns: u64,
    /// Records known to be dropped, as last printed.
    dropped: u64,
    failed: bool,
    /// Nothing but the sum at the end.
    count_only: bool,
    shown: Shown,
    tally: Tally,
    /// Every refused call is in the report.
    complete: bool,
    /// Wall time of `start_ns`.
    started: SystemTime,
    headed: bool,
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
    /// `start_ns`: the session's start, CLOCK_MONOTONIC.
    pub fn new(args: &TraceArgs, (format, destination): (Format, Destination), start_ns: u64) -> Self {
        let json = format == Format::Json;
        Self {
            out: Lines::new(destination, json, args.max_bytes),
            folding: (!args.all_lines).then(Folding::default),
            json,
            start_ns,
            dropped: 0,
            failed: args.failed,
            count_only: args.count,
            shown: Shown::new(&args.call, &args.filters.comm),
            tally: Tally::default(),
            complete: false,
            started: SystemTime::now()
                .checked_sub(Duration::from_nanos(now_ns().saturating_sub(start_ns)))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            headed: json || args.count,
        }
    }

    fn write(&mut self, event: &Event, audit: &Audit) {
        let now = Instant::now();
        let mut lines = Vec::new();
        match event {
            Event::Change(it) if !self.failed && self.shown.wanted(it.call, it.tgid, &it.comm) => {
                self.tally.change(it);
                if self.count_only {
                    return;
                }
                match &mut self.folding {
                    Some(folding) => folding.change(it.clone(), now, &mut lines),
                    None => lines.push(Line::Change(it.clone())),
                }
            }
            Event::Refused(it) if self.shown.wanted(it.call, it.tgid, &it.comm) => {
                let Verdict { cause, certain, .. } = audit.verdict_of(it);
                let process = self.process(it.tgid, it.tid, &it.comm, audit);
                self.tally.refused((it.tgid, it.call), cause, &process);
                if self.count_only {
                    return;
                }
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
            Line::Change(change) => self.change(change, audit),
            Line::Refused(refused) => self.refused(refused, audit),
            Line::Changes { first, last, times, threads, calls, most } => {
                let calls = Calls { calls, most: *most };
                self.changes(first, last, (*times, *threads), &calls, audit)
            }
            Line::RefusedAgain { first_ns, last, times, threads, why } => {
                self.refused_again(*first_ns, last, (*times, *threads, *why), audit)
            }
        };
        if !std::mem::replace(&mut self.headed, true) {
            let (pid, process, thread) = ("PID", "PROCESS", "THREAD");
            self.out.line(&format!("{:<12} {pid:>7} {process:<15} {thread:<15} CALL", "TIME"), now);
        }
        self.out.line(&text, now);
    }

    fn seconds(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    fn wall(&self, at_ns: u64) -> SystemTime {
        let since = Duration::from_nanos(at_ns.saturating_sub(self.start_ns));
        self.started.checked_add(since).unwrap_or(self.started)
    }

    /// Name of the process; the thread's own where it is the first one.
    fn process(&mut self, tgid: u32, tid: u32, comm: &str, audit: &Audit) -> String {
        if tgid == tid {
            return comm.to_owned();
        }
        let known = || audit.name_of(tgid).map(str::to_owned);
        self.shown.name(tgid).or_else(known).unwrap_or_else(|| "?".to_owned())
    }

    /// `22:18:31.246   28868 java            G1 Service      `.
    fn columns(&self, at_ns: u64, pid: u32, process: &str, thread: &str) -> String {
        let at = self.wall(at_ns);
        let (process, thread) = (text::clean(process), text::clean(thread));
        format!("{:<12} {pid:>7} {process:<15} {thread:<15} ", time_of_day(at))
    }

    fn change(&mut self, c: &Change, audit: &Audit) -> String {
        let process = self.process(c.tgid, c.tid, &c.comm, audit);
        let at = self.seconds(c.at_ns);
        if self.json {
            return json::line(
                &object!({"type": "change", "at_s": at, "pid": c.tgid, "tid": c.tid, "comm": c.comm,
                          "process": process, "syscall": name_of(c.call), "before": c.before, "after": c.after}),
            );
        }
        let columns = self.columns(c.at_ns, c.tgid, &process, &c.comm);
        format!("{columns}{}", counts(name_of(c.call), c))
    }

    /// Several changes in a row: one call over and over, or a cycle of calls.
    fn changes(
        &mut self,
        first: &Change,
        last: &Change,
        (times, threads): (u64, usize),
        calls: &Calls<'_>,
        audit: &Audit,
    ) -> String {
        let process = self.process(last.tgid, last.tid, &last.comm, audit);
        if self.json {
            let one = (calls.calls.len() == 1).then(|| name_of(last.call));
            return json::line(
                &object!({"type": "repeat", "of": "change", "times": times, "since_s": self.seconds(first.at_ns),
                          "at_s": self.seconds(last.at_ns), "pid": last.tgid, "tid": last.tid, "comm": last.comm,
                          "threads": threads, "process": process, "syscall": one, "calls": calls.by_name(),
                          "before": first.before, "after": last.after, "peak": calls.most}),
            );
        }
        let columns = self.columns(last.at_ns, last.tgid, &process, &of_threads(threads, &last.comm));
        let whole = Change { before: first.before, ..last.clone() };
        let more = times_more(times, first.at_ns, last.at_ns);
        let highest = match calls.most > whole.after.max(whole.before) {
            true => format!(", up to {}", text::grouped(calls.most.into())),
            false => String::new(),
        };
        format!("{columns}{}  {more}{highest}", counts(&calls.names(), &whole))
    }

    /// Several refused calls of one process, each like the one written before.
    fn refused_again(
        &mut self,
        first_ns: u64,
        r: &Refused,
        (times, threads, (cause, certain)): (u64, usize, (Cause, bool)),
        audit: &Audit,
    ) -> String {
        let process = self.process(r.tgid, r.tid, &r.comm, audit);
        let at = self.seconds(r.at_ns);
        let errno = errno_name(r.errno);
        if self.json {
            return json::line(
                &object!({"type": "repeat", "of": "failure", "times": times, "since_s": self.seconds(first_ns),
                          "at_s": at, "pid": r.tgid, "tid": r.tid, "comm": r.comm, "threads": threads,
                          "process": process, "syscall": name_of(r.call), "errno": errno, "cause": cause,
                          "certain": certain}),
            );
        }
        format!(
            "{}{}(...) = -1 {errno}: {}{}  {}",
            self.columns(r.at_ns, r.tgid, &process, &of_threads(threads, &r.comm)),
            name_of(r.call),
            if certain { "" } else { "probably " },
            because(cause),
            times_more(times, first_ns, r.at_ns),
        )
    }

    fn refused(&mut self, r: &Refused, audit: &Audit) -> String {
        let process = self.process(r.tgid, r.tid, &r.comm, audit);
        let verdict = audit.verdict_of(r);
        let at = self.seconds(r.at_ns);
        let errno = errno_name(r.errno);
        let hidden = audit.hides_addresses(r.tgid) || !rights::may_know_addresses(r.tgid, None);
        if self.json {
            let mut args = arguments::by_name(r.call, &r.args);
            if hidden {
                arguments::hide_addresses(&mut args);
            }
            return json::line(
                &object!({"type": "failure", "at_s": at, "pid": r.tgid, "tid": r.tid, "comm": r.comm,
                          "process": process, "syscall": name_of(r.call), "errno": errno, "args": args,
                          "cause": verdict.cause, "certain": verdict.certain, "ordinary": verdict.ordinary,
                          "evidence": verdict.evidence, "sentence": verdict.sentence}),
            );
        }
        let answer = match (r.call, hidden) {
            // It never answers with an errno.
            (call::BRK, true) => "?, unchanged".to_owned(),
            (call::BRK, false) => format!("{:#x}, unchanged", r.ret),
            _ => format!("-1 {errno}"),
        };
        format!(
            "{}{} = {answer}: {}",
            self.columns(r.at_ns, r.tgid, &process, &r.comm),
            notation::call(r.call, &r.args, hidden),
            in_short(&verdict),
        )
    }

    /// Says where records are missing.
    fn losses(&mut self, audit: &Audit) {
        let dropped = audit.losses().counters.get(&LossReason::RingFull).copied().unwrap_or(0);
        if dropped > self.dropped {
            let missing = dropped - self.dropped;
            self.dropped = dropped;
            let at = now_ns();
            let line = if self.json {
                let at = self.seconds(at);
                json::line(&object!({"type": "lost", "at_s": at, "ring_full": missing}))
            } else {
                let at = self.wall(at);
                format!(
                    "{} [{} lost here: the reader was too slow, or a user had his share]",
                    time_of_day(at),
                    text::count(missing, "record", "records")
                )
            };
            if !self.count_only || self.json {
                self.out.line(&line, Instant::now());
            }
        }
    }

    /// Takes the sums of the report, which no lost line makes less; where threads were asked for, the lines' own remain.
    /// Then the report's failures are those that were asked for.
    pub fn sum_up(&mut self, report: &mut Report) {
        if self.shown.by_process() {
            self.tally = Tally::of_report(report, &|call| self.shown.call(call));
            self.complete = !report.failures_may_be_missing();
        }
        report.failures.retain(|failure| self.tally.knows(failure));
    }

    /// What was shown in sum, and the last words; what was lost goes to standard error.
    pub fn end(self, audit: &Audit, last: &Last<'_>) -> anyhow::Result<()> {
        let Last { verdict, stacks, failures, echoed } = *last;
        let losses = audit.losses();
        let notes: Vec<String> = losses.shares.iter().map(UsedShare::sentence).collect();
        let no_line_lost = losses.counters.get(&LossReason::RingFull).is_none_or(|n| *n == 0);
        let complete = if self.shown.by_process() { self.complete } else { no_line_lost };
        if self.json {
            let at = self.seconds(now_ns());
            let line = json::line(
                &object!({"type": "end", "at_s": at, "lost": losses.counters, "notes": notes, "complete": complete,
                          "refused": self.tally.rows(), "calls": self.tally.calls(), "failures": failures,
                          "verdict": verdict}),
            );
            return self.out.end(&line).map_err(Into::into);
        }
        let lost: Vec<String> = losses
            .counters
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(reason, n)| format!("{} x {} ({})", text::grouped(*n), reason.words(), reason.name()))
            .collect();
        let mut last = self.tally.text(self.count_only && !self.failed, complete);
        if !stacks.is_empty() {
            last.push_str(&format!("\n{}", stacks.trim_end()));
        }
        if let Some(verdict) = verdict {
            for line in wrapped("vmaudit: ", "  ", verdict, self.out.columns()) {
                last.push_str(&format!("\n{line}"));
            }
        }
        if echoed && self.out.is_terminal() {
            last.insert(0, '\n');
        }
        let written = self.out.end(&last);
        if !lost.is_empty() {
            say(&format!("lost: {}", lost.join(", ")));
        }
        notes.iter().for_each(|note| say(note));
        written.map_err(Into::into)
    }
}

/// The cause in a few words.
fn in_short(verdict: &Verdict) -> String {
    let probably = if verdict.certain { "" } else { "probably " };
    let figure = |name| verdict.evidence.get(name).map(|figure| text::grouped(*figure));
    let why = match (verdict.cause, figure("map_count"), figure("max_map_count")) {
        (Cause::MaxMapCount, Some(count), Some(limit)) => format!("{probably}{count} VMAs, limit {limit}"),
        (Cause::Unknown, ..) => because(Cause::Unknown).to_owned(),
        (cause, ..) => format!("{probably}{}", because(cause)),
    };
    if verdict.ordinary { format!("{why} (an ordinary answer)") } else { why }
}

fn errno_name(errno: u8) -> &'static str {
    if errno == libc::EAGAIN as u8 { "EAGAIN" } else { "ENOMEM" }
}

fn times_more(times: u64, first_ns: u64, last_ns: u64) -> String {
    let taken = Duration::from_nanos(last_ns.saturating_sub(first_ns));
    let taken = match taken.as_micros() {
        us @ 0..1000 => format!("{us} us"),
        us @ 1000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{:.1} s", taken.as_secs_f64()),
    };
    format!("\u{d7} {} more in {taken}", text::grouped(times))
}

/// The calls of several changes.
struct Calls<'a> {
    calls: &'a [(u8, u64)],
    /// Largest count that they left behind.
    most: u32,
}

impl Calls<'_> {
    /// `mmap, munmap`.
    fn names(&self) -> String {
        let names: Vec<&str> = self.calls.iter().map(|(call, _)| name_of(*call)).collect();
        names.join(", ")
    }

    fn by_name(&self) -> BTreeMap<&'static str, u64> {
        self.calls.iter().map(|(call, times)| (name_of(*call), *times)).collect()
    }
}

/// By what, by how much, and what there is then.
fn counts(by: &str, change: &Change) -> String {
    let difference = i64::from(change.after) - i64::from(change.before);
    format!("{by:<14} {difference:>+7} {:>9}", text::grouped(change.after.into()))
}

/// Whose line it is that stands for several.
fn of_threads(threads: usize, comm: &str) -> String {
    match threads {
        0 | 1 => comm.to_owned(),
        many if many > THREADS => format!("over {THREADS} threads"),
        many => format!("{many} threads"),
    }
}

#[cfg(test)]
mod tests;
