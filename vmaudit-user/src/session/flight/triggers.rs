//! When the flight recorder writes: a call is refused, a process passes a share of the limit, or somebody asks. Each thing
//! once an hour, and never more than a file a minute, beside the one at the session's end: who is refused all day does not fill
//! the disk. What happened before the minute is over waits; the stretch is held as long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::audit::Audit;
use crate::domain::shares::{Passed, Shares};
use crate::model::cause::{because, name_of};
use crate::model::event::{Event, MmState, RefusalGroup, Refused};
use crate::os::clock::now_ns;
use crate::text::clean;

/// Between two files that nobody asked for.
const APART: Duration = Duration::from_secs(60);
/// Between two that somebody asked for.
const ASKED_APART: Duration = Duration::from_secs(1);
/// After it the same is news again.
const NEWS: Duration = Duration::from_secs(3600);
/// After what happened, so that its consequences are in the file.
const AFTER: Duration = Duration::from_millis(500);
/// Things that are remembered.
const REMEMBERED: usize = 10_000;

/// A process, and the call that it was refused or the share that it has passed.
type Thing = (u32, u64);
/// A kind of refusal: address space, call, errno, class.
type RefusedKind = (u64, u8, u8, u64);

/// What is told of it.
struct Happened {
    pid: u32,
    /// As it is called, as far as is known by now.
    comm: String,
    what: String,
    at: Instant,
    /// The same, CLOCK_MONOTONIC.
    at_ns: u64,
    /// It, and what happened since, with the times.
    things: Vec<(u64, Thing)>,
}

impl Happened {
    fn why(self) -> Why {
        let words = format!("{} (pid {}) {}", clean(&self.comm), self.pid, self.what);
        Why { words, at_ns: Some(self.at_ns), things: self.things }
    }
}

/// Why a file is written.
pub struct Why {
    /// In words.
    pub words: String,
    /// When what they tell happened, CLOCK_MONOTONIC ns.
    pub at_ns: Option<u64>,
    /// That, and what happened since.
    things: Vec<(u64, Thing)>,
}

/// See the module.
pub struct Triggers {
    shares: Option<Shares>,
    told: HashMap<Thing, Instant>,
    /// Kinds of refusal that are no ordinary answers, and how many there were.
    kinds: HashMap<RefusedKind, u64>,
    /// What happened first since the last file, and when.
    happened: Option<Happened>,
    written: Option<Instant>,
    asked: Option<Instant>,
}

impl Triggers {
    /// `at`: percent of the limit.
    pub fn new(at: &[f64]) -> Self {
        Self {
            shares: Shares::new(at),
            told: HashMap::new(),
            kinds: HashMap::new(),
            happened: None,
            written: None,
            asked: None,
        }
    }

    /// Looks whether something happens.
    pub fn take(&mut self, event: &Event, audit: &Audit) {
        if let Some(passed) = self.shares.as_mut().and_then(|it| it.take(event)) {
            let Passed { process, comm, at, .. } = passed;
            let what = format!("has passed {at} % of vm.max_map_count");
            self.happens((process.tgid, at.to_bits()), &comm, what);
        }
        match event {
            Event::Refused(refused) => self.refused(refused, audit),
            Event::Mm(state) => {
                self.again(state);
                // It may be called by its old name until then.
                let same = |it: &&mut Happened| it.pid == state.process.tgid && state.dead_ns.is_none();
                if let Some(it) = self.happened.as_mut().filter(same) {
                    it.comm.clone_from(&state.comm);
                }
            }
            _ => {}
        }
    }

    fn refused(&mut self, refused: &Refused, audit: &Audit) {
        let Refused { generation, call, errno, class, tgid, .. } = *refused;
        let kind = (generation, call, errno, class);
        if self.kinds.contains_key(&kind) {
            return;
        }
        let verdict = audit.verdict_of(refused);
        if verdict.ordinary || verdict.probe {
            return;
        }
        if self.kinds.len() >= REMEMBERED {
            self.kinds.clear();
        }
        self.kinds.insert(kind, 0);
        let comm = audit.name_of(tgid).unwrap_or(&refused.comm);
        let what = format!("was refused {}: {}", name_of(call), because(verdict.cause));
        self.happens((tgid, call.into()), comm, what);
    }

    /// More of a kind that is known.
    fn again(&mut self, state: &MmState) {
        for &RefusalGroup { call, errno, class, count, .. } in &state.refusals {
            let Some(before) = self.kinds.get_mut(&(state.generation, call, errno, class)) else { continue };
            if std::mem::replace(before, count) < count {
                let pid = state.process.tgid;
                self.happens((pid, call.into()), &state.comm, format!("was refused {} again", name_of(call)));
            }
        }
    }

    fn happens(&mut self, thing: Thing, comm: &str, what: String) {
        if self.told.get(&thing).is_some_and(|at| at.elapsed() < NEWS) {
            return;
        }
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(thing, Instant::now());
        let (pid, comm, at, at_ns) = (thing.0, comm.to_owned(), Instant::now(), now_ns());
        let new = || Happened { pid, comm, what, at, at_ns, things: Vec::new() };
        let things = &mut self.happened.get_or_insert_with(new).things;
        if things.len() < REMEMBERED {
            things.push((at_ns, thing));
        }
    }

    /// Something happened, and it is time.
    pub fn due(&self) -> bool {
        self.happened.as_ref().is_some_and(|it| it.at.elapsed() >= AFTER)
            && self.written.is_none_or(|at| at.elapsed() >= APART)
    }

    /// Since when something waits for its file, CLOCK_MONOTONIC ns.
    pub fn waits_since(&self) -> Option<u64> {
        self.happened.as_ref().map(|it| it.at_ns)
    }

    /// Its file begins here, CLOCK_MONOTONIC ns, and does not have what came before: that is news when it happens again.
    pub fn untold(&mut self, why: &Why, from_ns: u64) {
        for (_, thing) in why.things.iter().filter(|(at_ns, _)| *at_ns < from_ns) {
            self.told.remove(thing);
        }
    }

    /// Why a file is written now; `None`: it is not. `asked`: somebody asks for it.
    pub fn why(&mut self, asked: bool) -> Option<Why> {
        if asked {
            if self.asked.is_some_and(|at| at.elapsed() < ASKED_APART) {
                return None;
            }
            self.asked = Some(Instant::now());
            return Some(Why { words: "asked for by SIGUSR2".into(), at_ns: None, things: Vec::new() });
        }
        if !self.due() {
            return None;
        }
        self.written = Some(Instant::now());
        self.happened.take().map(Happened::why)
    }

    /// What happened and is in no file, at the end of a session.
    pub fn left(&mut self) -> Option<Why> {
        self.happened.take().map(Happened::why)
    }

    #[cfg(test)]
    pub fn happens_now(&mut self, pid: u32, what: &str) {
        self.happens((pid, 0), "one", what.to_owned());
    }
}
