//! `vmaudit trace`: the stream of changes and failures, filtered and written as it comes.
//!
//! The workload never waits for the reader: a full ring buffer drops records, and the number of dropped ones is
//! printed where they are missing. Alike lines are written as one, see [`folding`].

mod folding;
mod lines;

pub use self::lines::LEAST_BYTES;

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use vmaudit_common::call::CALLS;

use crate::cli::{ReportFormat, Source, TraceArgs};
use crate::domain::diagnosis::{Question, Verdict};
use crate::domain::{arguments, diagnosis};
use crate::launch::child::{Child, EXIT_OWN_FAILURE, Look, User};
use crate::model::cause::name_of;
use crate::model::event::{Change, Event, Refused, UsedShare};
use crate::model::report::{Cause, Limits};
use crate::model::session::KernelRules;
use crate::os::kernel::Facts;
use crate::os::procfs::Proc;
use crate::output::{self, Destination, Writing};
use crate::session::{Asked, Ring, Signals, give_up_rights, now_ns, open_live, rules, runtime};
use crate::source::ebpf;
use crate::source::ebpf::{Live, Unavailable};
use crate::text;

use self::{
    folding::{Folding, Line},
    lines::Lines,
};
use crate::os::rights;

/// Longest time between two looks at the ring buffer.
const TICK: Duration = Duration::from_millis(20);
/// For so long no process must be seen before all count as ended: the last one's child may be in the middle of an exec.
const SETTLED: Duration = Duration::from_millis(100);
/// Records written before signals and losses get their turn.
const BATCH: usize = 4096;
/// Batches read after the end was seen: more than the largest ring buffer holds of the smallest records.
const LAST_BATCHES: usize = 64;

/// `vmaudit trace`.
pub fn trace(args: TraceArgs) -> anyhow::Result<i32> {
    if args.pid.is_empty() && !args.all && args.command.is_empty() {
        output::say("say what to trace: -p PID, --all, or -- CMD");
        return Ok(2);
    }
    if let Some(unknown) = args.call.iter().find(|name| !CALLS.iter().any(|call| call.name == **name)) {
        output::say(&format!("{unknown} is not one of the watched system calls"));
        return Ok(2);
    }
    let proc = Proc::new("/proc");
    let roots = args.pid.iter().map(|pid| Root::hold(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    if args.common.source == Source::Proc {
        return Err(anyhow!("trace needs eBPF: /proc shows counts, not changes and failures"));
    }
    let destination = match &args.output {
        Some(path) => Destination::open(path, Writing::Lines)
            .with_context(|| format!("cannot write to {}", path.display()))?,
        None => Destination::Stdout,
    };
    let user = args.user.as_deref().map(User::find).transpose()?;
    let mut child = match args.command.is_empty() {
        true => None,
        false => Some(Child::prepare(&args.command, user.as_ref(), args.keep_caps)?),
    };
    let facts = Facts::gather();
    let options = ebpf::Options {
        watch_all: args.all,
        follow_children: !args.no_follow,
        stream_changes: !args.failed,
        stream_failures: true,
        attach: child.is_none() || !args.pid.is_empty(),
        calls: true,
        stacks: false,
        ring_bytes: args.common.ring_bytes.unwrap_or(8 << 20),
        slots: args.common.slots,
        debug: args.common.debug_bpf,
    };
    let unavailable = |Unavailable(why)| anyhow!("eBPF is not available: {why}");
    let own_child = child.as_ref().map(|child| (child.pid.as_raw() as u32, true));
    let follow: Vec<_> = args.pid.iter().map(|pid| (*pid, false)).chain(own_child).collect();
    let mut live = open_live(&facts, &options, &follow).map_err(unavailable)?;
    live.snapshot()?;
    let notes = give_up_rights(child.as_ref(), destination.rights());
    let mut stream = Stream {
        out: Lines::new(destination, args.format == ReportFormat::Json, args.max_bytes),
        folding: (!args.all_lines).then(Folding::default),
        json: args.format == ReportFormat::Json,
        start_ns: now_ns(),
        dropped: 0,
        limits: proc.limits(),
        rules: rules(&facts, Some(&live)),
        failed: args.failed,
        call: args.call.clone(),
        comm: args.comm.clone(),
    };
    let deadline = args.duration.map(|d| Instant::now() + d);
    let outcome = runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        // Before the command runs, because afterwards nobody would wait for it if this failed.
        let ring = Ring::new(&live)?;
        if let Some(child) = &mut child
            && let Err((status, why)) = child.go()
        {
            let name = args.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
            output::say(&format!("cannot run {name}: {why}"));
            // 125 tells vmaudit's failure from the command's status, which only `run` passes on.
            return Ok(if status == EXIT_OWN_FAILURE { 1 } else { status });
        }
        stream.follow(&mut live, child.as_mut(), &roots, deadline, (&mut signals, &ring)).await
    });
    drop(child);
    notes.iter().for_each(|note| output::say(note));
    stream.end(&live)?;
    outcome
}

/// A process that is followed, held by a descriptor so that a reused pid is nobody's.
struct Root(OwnedFd);

impl Root {
    fn hold(pid: u32) -> anyhow::Result<Self> {
        // SAFETY: takes numbers only (Linux 5.3 and later; eBPF with a ring buffer needs 5.8 anyway).
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ESRCH) => anyhow!("there is no process {pid}"),
                // EINVAL: such numbers belong to threads.
                e => anyhow!(e).context(format!("cannot follow process {pid}")),
            });
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// All its threads have ended.
    fn ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }
}

struct Stream {
    out: Lines,
    /// `None` when every line is wanted.
    folding: Option<Folding>,
    json: bool,
    start_ns: u64,
    /// Records known to be dropped, as last printed.
    dropped: u64,
    limits: Limits,
    rules: KernelRules,
    failed: bool,
    call: Vec<String>,
    comm: Option<String>,
}

impl Stream {
    async fn follow(
        &mut self,
        live: &mut Live,
        mut child: Option<&mut Child>,
        roots: &[Root],
        deadline: Option<Instant>,
        (signals, ring): (&mut Signals, &Ring),
    ) -> anyhow::Result<i32> {
        let mut pause = TICK;
        let mut next = Instant::now() + TICK;
        let mut empty_since: Option<Instant> = None;
        loop {
            let mut over = deadline.is_some_and(|at| Instant::now() >= at);
            tokio::select! {
                biased;
                asked = signals.next() => match (asked?, child.as_deref_mut()) {
                    (Asked::Child, _) => {}
                    (Asked::PassOn(number), Some(child)) => child.pass_on(number),
                    (Asked::Terminal(_), Some(_)) => {}
                    (_, None) => over = true,
                },
                () = ring.ready() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // Not in the branch above: a busy ring buffer would always be faster than the clock.
            if Instant::now() >= next {
                live.refresh_limit();
                live.flush_debug();
                next = Instant::now() + TICK;
            }
            if let Some(child) = &child {
                over |= matches!(child.look(), Look::Ended(_));
            } else if !roots.is_empty() {
                // In the middle of an exec a process has no address space that is followed.
                let empty = live.living() == 0 && roots.iter().all(Root::ended);
                empty_since = empty.then(|| empty_since.unwrap_or_else(Instant::now));
                over |= empty_since.is_some_and(|since| since.elapsed() >= SETTLED);
            }
            let mut more = live.drain(BATCH, &mut |event| self.write(event));
            self.losses(live);
            // What is in the buffer when the end was seen still belongs to the stream; what comes later does not.
            for _ in 0..LAST_BATCHES {
                if !(over && more) {
                    break;
                }
                more = live.drain(BATCH, &mut |event| self.write(event));
                self.losses(live);
            }
            pause = if more { Duration::ZERO } else { TICK };
            live.sweep(&mut |_| {});
            let now = Instant::now();
            if let Some(folding) = &mut self.folding {
                let mut due = Vec::new();
                if over {
                    folding.all(&mut due)
                } else {
                    folding.due(now, &mut due)
                }
                due.into_iter().for_each(|line| self.say(line, now));
            }
            self.out.second_over(now);
            self.out.flush();
            if over || self.out.is_broken() {
                return Ok(0);
            }
        }
    }

    fn write(&mut self, event: Event) {
        let now = Instant::now();
        let mut lines = Vec::new();
        match event {
            Event::Change(it) if !self.failed && self.wanted(it.call, &it.comm) => match &mut self.folding {
                Some(folding) => folding.change(it, now, &mut lines),
                None => lines.push(Line::Change(it)),
            },
            Event::Refused(it) if self.wanted(it.call, &it.comm) => {
                let Verdict { cause, certain, .. } = self.verdict(&it);
                match &mut self.folding {
                    Some(folding) => folding.refused(it, (cause, certain), now, &mut lines),
                    None => lines.push(Line::Refused(it)),
                }
            }
            _ => return,
        }
        lines.into_iter().for_each(|line| self.say(line, now));
    }

    fn say(&mut self, line: Line, now: Instant) {
        let text = match &line {
            Line::Change(change) => self.change(change),
            Line::Refused(refused) => self.refused(refused),
            Line::Changes { first, last, times } => self.changes(first, last, *times),
            Line::RefusedAgain { first_ns, last, times, why } => {
                self.refused_again(*first_ns, last, *times, *why)
            }
        };
        self.out.line(&text, now);
    }

    fn wanted(&self, call: u8, comm: &str) -> bool {
        (self.call.is_empty() || self.call.iter().any(|name| name == name_of(call)))
            && self.comm.as_ref().is_none_or(|wanted| wanted == comm)
    }

    fn seconds(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    fn change(&self, c: &Change) -> String {
        let at = self.seconds(c.at_ns);
        if self.json {
            return output::json::line(
                &json!({"type": "change", "at_s": at, "pid": c.tgid, "tid": c.tid, "comm": c.comm,
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
            return output::json::line(
                &json!({"type": "repeat", "of": "change", "times": times, "since_s": self.seconds(first.at_ns),
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
            return output::json::line(
                &json!({"type": "repeat", "of": "failure", "times": times, "since_s": self.seconds(first_ns),
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

    fn verdict(&self, r: &Refused) -> Verdict {
        diagnosis::why(&Question {
            call: r.call,
            errno: r.errno,
            class: r.class,
            count: 1,
            kept_bytes: 0,
            example: Some(r),
            cgroup: None,
            limits: &self.limits,
            kernel: &self.rules,
        })
    }

    fn refused(&self, r: &Refused) -> String {
        let verdict = self.verdict(r);
        let at = self.seconds(r.at_ns);
        let errno = errno_name(r.errno);
        let mut args = arguments::by_name(r.call, &r.args);
        if !rights::may_know_addresses(r.tgid, None) {
            arguments::hide_addresses(&mut args);
        }
        if self.json {
            return output::json::line(
                &json!({"type": "failure", "at_s": at, "pid": r.tgid, "tid": r.tid, "comm": r.comm,
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
    fn losses(&mut self, live: &Live) {
        let dropped = live.ring_full();
        if dropped > self.dropped {
            let missing = dropped - self.dropped;
            self.dropped = dropped;
            let at = self.seconds(now_ns());
            let line = if self.json {
                output::json::line(&json!({"type": "lost", "at_s": at, "ring_full": missing}))
            } else {
                format!(
                    "{at:12.6} [{} lost here: the reader was too slow]",
                    text::count(missing, "record", "records")
                )
            };
            self.out.line(&line, Instant::now());
        }
    }

    fn end(self, live: &Live) -> anyhow::Result<()> {
        let losses = live.losses();
        let notes: Vec<String> = losses.shares.iter().map(UsedShare::sentence).collect();
        let lost: serde_json::Map<String, Value> =
            losses.counters.into_iter().map(|(name, n)| (name, n.into())).collect();
        let line = if self.json {
            let at = self.seconds(now_ns());
            output::json::line(&json!({"type": "end", "at_s": at, "lost": lost, "notes": notes}))
        } else {
            let counters: Vec<String> = lost.iter().map(|(name, n)| format!("{name} {n}")).collect();
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
