//! One session: a source, what is looked up beside it, the audit, and whoever else wants the events. The only place with
//! a loop, a runtime and signals.

mod beside;
mod ending;
pub mod flight;
pub mod http;
mod keeping;
pub mod left;
pub(crate) mod marks;
pub mod opening;
mod over;
pub mod recorder;
pub mod replay;
mod root;
pub(crate) mod signals;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::sync::Notify;

use crate::domain::application::Anonymizer;
use crate::domain::audit::{Audit, Standing};
use crate::enrich::Enrichment;
use crate::launch::child::Child;
use crate::launch::signals::is_harmless;
use crate::model::event::{End, Event, UserName};
use crate::model::report::Exit;
use crate::model::session::Header;
use crate::os::apart::Patience;
use crate::os::clock::now_ns;
use crate::os::procfs::Proc;
use crate::os::rights;
use crate::os::users::user_name;
use crate::source::Source;
use crate::text::MESSAGES;
use beside::Beside;
use ending::{left_behind, living_last, look, look_last, vma_bytes};
use marks::Marks;
use over::{TIDY, nobody, release, thin_out, tidy, wants_ended};
pub use root::Root;
use signals::{Asked, Signals, Wake};

/// For so long no followed address space must be seen before all count as ended.
const SETTLED: Duration = Duration::from_millis(5);
/// The same for processes that ran before: the last one's child may be in the middle of an exec.
const ROOTS_SETTLED: Duration = Duration::from_millis(100);
/// Between two looks once the command has ended.
const ENDING: Duration = Duration::from_millis(2);
/// Records taken before other work gets its turn.
const BATCH: usize = 1024;
/// Batches taken before signals and the command get their turn.
const BATCHES: usize = 64;
/// Between two looks for processes that are over, where somebody wants them.
const LOOK: Duration = Duration::from_secs(1);
/// Batches taken after the end was seen: more than the largest ring buffer holds of the smallest records.
const LAST_BATCHES: usize = 256;

/// A runtime without threads: nothing of vmaudit's competes with the workload but this one.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

/// Somebody who wants the events as they come: lines of a trace, a recording.
pub trait Sink {
    /// Takes one event, which the audit has just taken.
    fn event(&mut self, event: &Event, audit: &Audit);

    /// A turn of the session's loop is done; `over`: it was the last one.
    fn turn(&mut self, audit: &Audit, over: bool);

    /// vmaudit is about to be stopped with its job.
    fn stopping(&mut self) {}

    /// It wants figures of the living so often; `None`: never.
    fn checkpoints(&self) -> Option<Duration> {
        None
    }

    /// Whether [`Sink::interim`] does anything.
    fn wants_interim(&self) -> bool {
        false
    }

    /// Somebody asked for the state as of now, by SIGUSR1.
    fn interim(&mut self, audit: &Audit) {
        let _ = audit;
    }

    /// The address space whose makers' places it wants named now, each time that it is asked.
    fn wants_places(&mut self) -> Option<u64> {
        None
    }

    /// It wants the processes that are over, and nobody else needs them: they are forgotten when it has taken them.
    fn wants_ended(&self) -> bool {
        false
    }

    /// These processes are over; nothing more will come of them.
    fn ended(&mut self, processes: Vec<Standing>, audit: &Audit) {
        let _ = (processes, audit);
    }

    /// It keeps the last stretch, for [`Sink::keep`].
    fn keeps(&self) -> bool {
        false
    }

    /// What it keeps is to be written down now.
    fn due(&self) -> bool {
        false
    }

    /// Something happened that it will write down: names of stacks are wanted until then.
    fn waits(&self) -> bool {
        false
    }

    /// Writes down what it keeps. `asked`: by SIGUSR2, else because it was due. `last`: what a session's end tells.
    fn keep(&mut self, asked: bool, last: &[Event]) {
        let _ = (asked, last);
    }

    /// Nobody reads it any more, so that the session may end.
    fn is_closed(&self) -> bool {
        false
    }

    /// What did not work, for people.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// Why a session did not come to its end.
#[derive(Debug)]
pub enum Unfollowed {
    /// Something that it needs is not to be had; the command has not been let go.
    NotBegun(anyhow::Error),
    /// The command cannot be run: the exit status for the caller (125, 126 or 127) and the reason.
    Refused(i32, String),
    /// Something failed in the middle.
    Lost(anyhow::Error),
}

/// When a session is over.
#[derive(Default)]
pub struct Ends {
    /// Processes that ran before; with all of them it ends.
    pub roots: Vec<Root>,
    /// Ends with the last process that is followed.
    pub with_the_last: bool,
    /// At this time at the latest.
    pub deadline: Option<Instant>,
    /// How long descendants that outlive the command are waited for.
    pub linger: Duration,
}

/// A session at work.
pub struct Session<'s> {
    source: Box<dyn Source>,
    enrichment: Option<Enrichment>,
    state: State<'s>,
    patience: Patience,
    /// When figures of the living are due, and how often; `None` where nobody wants them.
    checkpoint: Option<(Instant, Duration)>,
    /// What people are told when nothing can keep the session from beginning any more.
    announced: Option<String>,
    /// A key of the terminal sent a signal, and its echo (`^C`) stands there.
    interrupted: bool,
    /// What goes on beside it, on the same runtime.
    beside: Option<Beside>,
    /// Who names stretches of it.
    marks: Option<Marks>,
    /// When those that are over were last looked for.
    looked: Instant,
    /// When details that nobody needs any more were last looked for.
    tidied: Instant,
}

/// What takes events.
struct State<'s> {
    audit: Audit,
    anonymizer: Anonymizer,
    sinks: Vec<&'s mut dyn Sink>,
}

impl State<'_> {
    /// One event to everybody: what is looked up for it first, users' names taken out, then the audit, then the sinks.
    fn take(&mut self, mut event: Event, enrichment: &mut Option<Enrichment>) {
        if let Some(enrichment) = enrichment {
            let mut before = Vec::new();
            enrichment.notice(&mut event, &self.audit, &mut |event| before.push(event));
            before.into_iter().for_each(|event| self.give(event));
        }
        self.give(event);
    }

    fn give(&mut self, mut event: Event) {
        self.anonymizer.event(&mut event);
        if self.sinks.is_empty() {
            return self.audit.apply(event);
        }
        self.audit.apply(event.clone());
        self.sinks.iter_mut().for_each(|sink| sink.event(&event, &self.audit));
    }
}

impl<'s> Session<'s> {
    /// Puts one together; nothing has happened yet. `enrichment`: what is looked up beside the source, if anything is.
    pub fn new(
        header: &Header,
        source: Box<dyn Source>,
        enrichment: Option<Enrichment>,
        anonymizer: Anonymizer,
        sinks: Vec<&'s mut dyn Sink>,
        patience: Patience,
    ) -> Self {
        let checkpoint = sinks.iter().filter_map(|sink| sink.checkpoints()).min();
        let checkpoint = checkpoint.map(|every| (Instant::now() + every, every));
        let state = State { audit: Audit::of(header), anonymizer, sinks };
        let mut session = Self {
            source,
            enrichment,
            state,
            patience,
            checkpoint,
            announced: None,
            interrupted: false,
            beside: None,
            marks: None,
            looked: Instant::now(),
            tidied: Instant::now(),
        };
        session.take(Event::Limits(Proc::new("/proc").limits()));
        session
    }

    /// Takes an event that comes from no source: what was seen when it was opened.
    pub fn take(&mut self, event: Event) {
        self.state.take(event, &mut self.enrichment);
    }

    /// Has people told this when the session begins.
    pub fn announce(&mut self, what: String) {
        self.announced = Some(what);
    }

    /// Has this work go on beside it, on its runtime. Who wants an interim state gets one whenever `asks` tells.
    pub fn beside(&mut self, work: Pin<Box<dyn Future<Output = ()> + Send>>, asks: Arc<Notify>) {
        self.beside = Some(Beside::new(work, asks));
    }

    /// Lets the command go, if there is one, and follows to the end. Errors: see [`Unfollowed`].
    pub fn run(&mut self, mut child: Option<&mut Child>, ends: &Ends) -> Result<Option<Exit>, Unfollowed> {
        let runtime = runtime().map_err(Unfollowed::NotBegun)?;
        runtime.block_on(async {
            // All that can fail comes before the command runs: afterwards nobody would wait for it.
            let mut signals = Signals::take().map_err(Unfollowed::NotBegun)?;
            let wake_fd = self.source.wake_fd().context("cannot wait for records");
            let wake = wake_fd.and_then(Wake::new).map_err(Unfollowed::NotBegun)?;
            let marks = Wake::of(self.marks.as_ref()).map_err(Unfollowed::NotBegun)?;
            if let Some(what) = self.announced.take() {
                log::info!(target: MESSAGES, "{what}");
            }
            if let Some(work) = self.beside.as_mut().and_then(|it| it.work.take()) {
                tokio::spawn(work);
            }
            if let Some(child) = &mut child {
                let gone = |e| Unfollowed::Lost(anyhow!("the command's process is gone: {e}"));
                child.go().map_err(gone)?;
            }
            let exit = self.follow(child.as_deref_mut(), ends, &mut signals, (&wake, &marks)).await;
            match child.and_then(|child| child.refusal()) {
                Some((status, why)) => Err(Unfollowed::Refused(status, why)),
                None => exit.map_err(Unfollowed::Lost),
            }
        })
    }

    async fn follow(
        &mut self,
        mut child: Option<&mut Child>,
        ends: &Ends,
        signals: &mut Signals,
        (wake, marks): (&Wake, &Wake),
    ) -> anyhow::Result<Option<Exit>> {
        let mut exit: Option<Exit> = None;
        let mut deadline = ends.deadline;
        let mut next = Instant::now();
        let mut empty_since: Option<Instant> = None;
        let mut more = false;
        loop {
            let wake_at = self.enrichment.as_ref().map_or(next, |it| it.wake(next));
            tokio::select! {
                biased;
                asked = signals.next() => match (self.heed(asked?), child.as_deref_mut()) {
                    (Asked::Child, _) => self.source.child_changed(),
                    (Asked::Nothing, _) => {}
                    (Asked::PassOn(number), Some(child)) if exit.is_none() => child.pass_on(number),
                    (Asked::Kernel(libc::SIGHUP), Some(child)) if exit.is_none() => child.hung_up(),
                    (Asked::Kernel(_), Some(_)) if exit.is_none() => {}
                    (Asked::PassOn(number) | Asked::Kernel(number), _) if is_harmless(number) => {}
                    (Asked::PassOn(libc::SIGUSR1), None) if self.interim() => {}
                    (Asked::PassOn(libc::SIGUSR2), None) if self.keep(true) => {}
                    // There is no command, or it is gone, and somebody wants us to end: no waiting for its descendants.
                    _ => deadline = Some(Instant::now()),
                },
                () = marks.ready() => {}
                // Whoever works beside gets a turn.
                () = tokio::task::yield_now(), if more => {}
                () = Beside::asked(self.beside.as_ref()) => self.answer(),
                () = wake.ready() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
            // Not in a branch above: a busy ring buffer would always be faster than the clock.
            if Instant::now() >= next {
                next = Instant::now() + self.tick();
            }
            more = self.drain(BATCHES) | self.set_marks();
            if let (None, Some(child)) = (exit, child.as_deref_mut()) {
                exit = look(child, &mut self.state.sinks);
                if exit.is_some() {
                    let lingered = Instant::now() + ends.linger;
                    deadline = Some(deadline.map_or(lingered, |at| at.min(lingered)));
                }
            }
            let mut over = deadline.is_some_and(|at| Instant::now() >= at)
                || self.state.sinks.iter().any(|sink| sink.is_closed());
            if exit.is_some() || child.is_none() && (ends.with_the_last || !ends.roots.is_empty()) {
                if exit.is_some() {
                    self.tick();
                    next = next.min(Instant::now() + ENDING);
                }
                // In the middle of an exec a process has no address space that is followed: none must be seen for a while.
                let empty = ends.roots.iter().all(Root::ended) && nobody(self.source.as_mut());
                empty_since = empty.then(|| empty_since.unwrap_or_else(Instant::now));
                let settled = if exit.is_some() { SETTLED } else { ROOTS_SETTLED };
                over |= empty_since.is_some_and(|since| since.elapsed() >= settled)
                    || empty && exit.is_some() && self.source.nobody_lives();
            }
            if over {
                // What is in the buffer when the end was seen still belongs to the session; what comes later does not.
                self.drain(LAST_BATCHES);
            }
            self.state.sinks.iter_mut().for_each(|sink| sink.turn(&self.state.audit, over));
            if over {
                return Ok(exit);
            }
            self.keep_if_due();
        }
    }

    /// The same for who works beside.
    fn answer(&mut self) {
        let began = Instant::now();
        self.interim();
        if let Some(beside) = &mut self.beside {
            beside.rest(began.elapsed());
        }
    }

    /// Gives whoever wants it the state as of now; `false`: nobody does.
    fn interim(&mut self) -> bool {
        if !self.state.sinks.iter().any(|sink| sink.wants_interim()) {
            return false;
        }
        self.drain(BATCHES);
        let Self { source, enrichment, state, .. } = self;
        source.checkpoint(&mut |event| state.take(event, enrichment));
        release(source.as_mut(), state, enrichment);
        state.sinks.iter_mut().for_each(|sink| sink.interim(&state.audit));
        let wanted: Vec<u64> = state.sinks.iter_mut().filter_map(|sink| sink.wants_places()).collect();
        if let Some(it) = enrichment {
            for generation in wanted {
                it.name_places(generation, &mut |event| state.give(event));
            }
        }
        true
    }

    /// Keeps in mind that a key was pressed.
    fn heed(&mut self, asked: Asked) -> Asked {
        self.interrupted |= matches!(asked, Asked::Kernel(libc::SIGINT | libc::SIGQUIT));
        asked
    }

    /// Ctrl-C or Ctrl-\ was pressed: the terminal stands behind its echo.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Takes what the source has, up to so many batches; `true` when more is waiting.
    fn drain(&mut self, batches: usize) -> bool {
        let Self { source, enrichment, state, .. } = self;
        let mut more = true;
        for _ in 0..batches {
            more = source.drain(BATCH, &mut |event| state.take(event, enrichment));
            if !more {
                break;
            }
            if let Some(it) = enrichment.as_mut() {
                it.look(true, &|generation| source.lives(generation));
            }
            thin_out(source.as_mut(), state, enrichment);
        }
        if let Some(it) = enrichment.as_mut() {
            it.look(false, &|generation| source.lives(generation));
            it.found(&mut |event| state.give(event));
        }
        more
    }

    /// The work of a tick; returns the time until the next.
    fn tick(&mut self) -> Duration {
        let Self { source, enrichment, state, checkpoint, .. } = self;
        let next = source.tick(&mut |event| state.take(event, enrichment));
        if let Some((due, every)) = checkpoint.as_mut().filter(|(due, _)| Instant::now() >= *due) {
            *due = Instant::now() + *every;
            source.checkpoint(&mut |event| state.take(event, enrichment));
        }
        if wants_ended(state) {
            if self.looked.elapsed() >= LOOK {
                self.looked = Instant::now();
                release(source.as_mut(), state, enrichment);
            }
            if self.tidied.elapsed() >= TIDY {
                self.tidied = Instant::now();
                tidy(source.as_mut(), state, enrichment);
            }
        }
        thin_out(source.as_mut(), state, enrichment);
        next
    }

    /// Takes the last figures, detaches, looks up names, and gives the audit of it all. `exit`: how the command ended.
    pub fn finish(self, exit: Option<Exit>) -> Audit {
        let Self { mut source, mut enrichment, mut state, patience, marks, .. } = self;
        for complaint in marks.iter().flat_map(Marks::complaints) {
            state.give(Event::Note(complaint));
        }
        if let Some(it) = &mut enrichment {
            it.settle(&|generation| source.lives(generation));
        }
        let still_running = source.finish(&mut |event| state.take(event, &mut enrichment));
        state.give(Event::Limits(Proc::new("/proc").limits()));
        let end = End { at_ns: now_ns(), exit, still_running };
        let living = living_last(&state.audit, source.as_ref());
        // Detach before others are looked at and the report is written: that may take long, the machine need not wait.
        drop(source);
        look_last(&mut enrichment, living);
        // Of a process that was added up nobody knows any more whether its test has been told.
        if let Some(it) = &mut enrichment {
            it.finish_tests(&mut |event| state.give(event));
        }
        state.give(Event::FiguresEnd);
        if let Some(mut it) = enrichment {
            it.keep(&state.audit.stacks_of());
            it.finish(&mut |event| state.give(event));
        }
        let hidden: Vec<u32> = state
            .audit
            .refused_processes()
            .filter(|(pid, uid)| !rights::may_know_addresses(*pid, *uid))
            .map(|(pid, _)| pid)
            .collect();
        hidden.into_iter().for_each(|pid| state.give(Event::AddressesHidden(pid)));
        for uid in state.audit.owners() {
            state.give(Event::User(UserName { uid, name: user_name(uid) }));
        }
        if state.audit.may_need_a_price()
            && let Some(bytes) = vma_bytes()
        {
            state.give(Event::VmaBytes(bytes));
        }
        if let Some(note) = left_behind(patience.left_behind()) {
            state.give(Event::Note(note));
        }
        state.give(Event::End(end));
        state.audit
    }
}

#[cfg(test)]
mod tests;
