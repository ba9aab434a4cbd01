//! The fallback source: looks at the processes of one tree in /proc from time to time. Every figure is a sample.
//!
//! Reading /proc/PID/maps takes the process's mmap lock on kernels before 6.17 (kernel.md 1.3), so looks are rare and
//! become rarer when they take long: reading never takes more than a twentieth of the time. It is done
//! [apart](crate::os::apart), and what is not ready after a moment is taken at the next turn.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::domain::cgroup::Groups;
use crate::model::event::{Event, Losses, ProcessFacts, ProcessId, Sample};
use crate::model::loss::LossReason;
use crate::model::unreadable::Unreadable;
use crate::os::apart::desk::{Desk, MOMENT, Turn};
use crate::os::apart::{Beat, Patience, Unanswered};
use crate::os::clock::now_ns;
use crate::os::own_children;
use crate::os::procfs::{CountBuffer, Proc, Stat};
use crate::source::{OwnedFd, Source, io};
use crate::text;
use std::collections::HashSet;

/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest time between two looks, however slow reading is.
const LONGEST: Duration = Duration::from_secs(1);
/// Until the next turn while counts are not ready.
const AGAIN: Duration = Duration::from_millis(5);
/// Time for what is not ready at the session's end.
const LAST: Duration = Duration::from_secs(10);
/// Processes in one question: it has to fit one packet.
const TOGETHER: usize = 512;
/// Share of the time that may be spent on reading, as a divisor.
const SHARE: u32 = 20;
/// Between two searches for those that fit, while none was found yet.
const SEEK_FIRST: Duration = Duration::from_millis(200);
/// Later.
const SEEK_MORE: Duration = Duration::from_secs(10);

/// The processes below one root.
pub struct Sampling {
    proc: Proc,
    roots: BTreeSet<u32>,
    children: bool,
    known: BTreeMap<u32, Known>,
    tick_ns: u64,
    uncounted: BTreeMap<Unreadable, Uncounted>,
    /// Those that leave the family become vmaudit's own children.
    orphans: bool,
    /// Processes that ended before they could be counted.
    unseen: u64,
    /// The command was counted once.
    counted_roots: bool,
    seek: Option<Seek>,
    /// Takes process ids with their start in clock ticks.
    desk: Desk<Vec<(u32, u64)>, Counts>,
    round: Round,
}

/// Of the processes in a question.
type Counts = Vec<Result<u64, Unreadable>>;

/// Finds roots that come later.
struct Seek {
    find: Box<dyn FnMut() -> Vec<u32>>,
    next: Instant,
    found: bool,
}

/// One look at all of them.
struct Round {
    began: Instant,
    /// CLOCK_MONOTONIC.
    at_ns: u64,
    /// To be counted.
    waiting: VecDeque<Counted>,
    /// Being counted.
    asked: Vec<Counted>,
}

/// A process and what its sample says besides the count.
struct Counted {
    process: ProcessId,
    start_ticks: u64,
    ppid: u32,
    comm: String,
}

/// A process as it was at the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    process: ProcessId,
    comm: String,
    exe: Option<String>,
    /// Counted in [`Uncounted`].
    uncounted: bool,
    /// Its mappings were counted once.
    counted: bool,
    /// It did not answer, and is not asked again.
    silent: bool,
}

/// Processes that live and whose mappings could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncounted {
    /// How many, at one look or more.
    pub processes: u64,
    /// Name of the first one.
    pub comm: String,
    /// Its number.
    pub pid: u32,
    /// Why it could not be read.
    pub why: Unreadable,
}

impl Sampling {
    /// Looks at `roots`, and with `children` at all that descends from them.
    pub fn new(
        proc: Proc,
        roots: impl IntoIterator<Item = u32>,
        children: bool,
        patience: &Patience,
    ) -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let reader = proc.clone();
        let mut buffer = CountBuffer::default();
        let counts = move |asked: Vec<(u32, u64)>, beat: &Beat| {
            let count = |(item, (pid, start_ticks)): (usize, (u32, u64))| {
                beat.begin(item as u64);
                count(&reader, pid, start_ticks, &mut buffer)
            };
            (asked.into_iter().enumerate().map(count).collect(), Vec::new())
        };
        Self {
            proc,
            roots: roots.into_iter().collect(),
            children,
            known: BTreeMap::new(),
            tick_ns: 1_000_000_000 / u64::try_from(ticks).unwrap_or(100).max(1),
            uncounted: BTreeMap::new(),
            orphans: false,
            unseen: 0,
            counted_roots: false,
            seek: None,
            desk: Desk::new(patience, counts),
            round: Round { began: Instant::now(), at_ns: 0, waiting: VecDeque::new(), asked: Vec::new() },
        }
    }

    /// Looks for more roots with `find`, now and then; until there is one the session has somebody to wait for.
    pub fn seeking(mut self, find: Box<dyn FnMut() -> Vec<u32>>) -> Self {
        self.seek = Some(Seek { find, next: Instant::now(), found: !self.roots.is_empty() });
        self
    }

    fn seek(&mut self) {
        let Some(seek) = self.seek.as_mut().filter(|seek| Instant::now() >= seek.next) else { return };
        let began = Instant::now();
        self.roots.extend((seek.find)());
        seek.found |= !self.roots.is_empty();
        seek.next = Instant::now() + rest(began.elapsed(), if seek.found { SEEK_MORE } else { SEEK_FIRST });
    }

    /// Keeps in sight whoever leaves the family: as with systemd's user manager, orphans get vmaudit for a parent, which
    /// reaps them as init would. To be called before the command runs. `false`: the kernel refuses.
    pub fn keep_orphans(&mut self) -> bool {
        // SAFETY: takes numbers only.
        self.orphans = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } == 0;
        self.orphans
    }

    /// Waits for the orphans among these children of vmaudit that have ended, and never for one that has not.
    fn reap(&mut self, children: impl Iterator<Item = u32>) {
        for pid in children {
            let (number, mut status) = (pid.cast_signed(), 0);
            if self.roots.contains(&pid) || own_children::is_own(number) {
                continue;
            }
            // Not by nix, which knows no real-time signals.
            // SAFETY: `status` lives through the call.
            if unsafe { libc::waitpid(number, &raw mut status, libc::WNOHANG) } == number {
                match self.known.get_mut(&pid) {
                    Some(known) if known.counted || known.uncounted => {}
                    Some(known) => {
                        known.counted = true;
                        self.unseen += 1;
                    }
                    None => self.unseen += 1,
                }
            }
        }
    }

    /// One look, or more of the one that is not done; returns the time to wait until the next. Waits for [`MOMENT`] at
    /// most, beside what reading the list of processes takes. `now_ns`: CLOCK_MONOTONIC.
    pub fn look(&mut self, now_ns: u64, sink: &mut dyn FnMut(Event)) -> Duration {
        if !self.busy() {
            self.begin(now_ns, sink);
        }
        self.go_on(sink);
        if self.busy() { AGAIN } else { (self.round.began.elapsed() * SHARE).clamp(SHORTEST, LONGEST) }
    }

    /// The last look, and what is not done of the one before. Waits for both, with an end.
    pub fn settle(&mut self, now_ns: u64, sink: &mut dyn FnMut(Event)) {
        let until = Instant::now() + LAST;
        for last in [false, true] {
            if last {
                self.begin(now_ns, sink);
            }
            while self.busy() && Instant::now() < until {
                self.go_on(sink);
            }
        }
        let asked = std::mem::take(&mut self.round.asked);
        for process in asked.into_iter().chain(std::mem::take(&mut self.round.waiting)) {
            self.missing(&process, Unreadable::NotAsked);
        }
    }

    /// Counts are not ready.
    fn busy(&self) -> bool {
        self.desk.busy() || !self.round.waiting.is_empty()
    }

    /// Reads what never blocks: who is there, by what name, and where. Counts come in [`Sampling::go_on`].
    fn begin(&mut self, now_ns: u64, sink: &mut dyn FnMut(Event)) {
        self.seek();
        self.round.began = Instant::now();
        self.round.at_ns = now_ns;
        if self.roots.is_empty() && self.known.is_empty() && !self.orphans {
            return;
        }
        let mut seen = BTreeMap::new();
        // A process whose parent is followed is followed, also after the parent's end (known). One descriptor at a
        // time: a machine has more processes than a process may have descriptors.
        let mut stats = BTreeMap::new();
        for pid in self.proc.pids().unwrap_or_default() {
            if let Ok(stat) = self.proc.open(pid).and_then(|handle| handle.stat()) {
                stats.insert(pid, (stat.ppid, stat.start_ticks));
            }
        }
        if self.seek.is_some() {
            // Its number may become a stranger's.
            self.roots.retain(|pid| stats.contains_key(pid));
        }
        let own_pid = std::process::id();
        let orphans: Vec<u32> = stats
            .iter()
            .filter(|(pid, (ppid, _))| {
                self.orphans && *ppid == own_pid && !own_children::is_own(pid.cast_signed())
            })
            .map(|(pid, _)| *pid)
            .collect();
        let identity =
            |pid: u32, start_ticks: u64| ProcessId { tgid: pid, start_ns: start_ticks * self.tick_ns };
        let mut followed: BTreeSet<u32> =
            self.roots.iter().copied().filter(|pid| stats.contains_key(pid)).collect();
        for (pid, (_, start_ticks)) in &stats {
            if self.known.get(pid).is_some_and(|known| known.process == identity(*pid, *start_ticks)) {
                followed.insert(*pid);
            }
        }
        followed.extend(&orphans);
        if self.children {
            add_descendants(&mut followed, stats.iter().map(|(pid, (ppid, _))| (*pid, *ppid)));
        }
        for pid in followed {
            let Some((_, start_ticks)) = stats.get(&pid) else { continue };
            let process = identity(pid, *start_ticks);
            // It may have ended since, and its number may be another process's.
            let Ok(handle) = self.proc.open(pid) else { continue };
            let Some(stat) = handle.stat().ok().filter(|stat| stat.start_ticks == *start_ticks) else {
                continue;
            };
            let before = self.known.get(&pid).filter(|known| known.process == process);
            let known = Known {
                process,
                comm: stat.comm.clone(),
                exe: handle.exe(),
                uncounted: before.is_some_and(|before| before.uncounted),
                counted: before.is_some_and(|before| before.counted),
                silent: before.is_some_and(|before| before.silent),
            };
            // Again after an exec: what is known then is of the image before.
            if before.is_none_or(|before| before.comm != known.comm || before.exe != known.exe) {
                let groups = handle.cgroups().map(|text| Groups::parse(&text));
                sink(Event::Process(ProcessFacts {
                    process,
                    at_ns: now_ns,
                    exe: known.exe.clone(),
                    within: groups.as_ref().map(Groups::within).unwrap_or_default(),
                    cgroup: groups.and_then(|groups| groups.shown),
                }));
            }
            if !known.silent {
                let Stat { ppid, start_ticks, comm, .. } = stat;
                self.round.waiting.push_back(Counted { process, start_ticks, ppid, comm });
            }
            seen.insert(pid, known);
        }
        for (pid, known) in &self.known {
            if seen.get(pid).is_none_or(|now| now.process != known.process) {
                self.unseen += u64::from(!known.counted && !known.uncounted);
                sink(Event::Sample(Sample {
                    at_ns: now_ns,
                    process: known.process,
                    ppid: 0,
                    comm: String::new(),
                    map_count: None,
                }));
            }
        }
        self.known = seen;
        self.reap(orphans.into_iter());
    }

    /// Asks for counts and takes them, until one is not ready.
    fn go_on(&mut self, sink: &mut dyn FnMut(Event)) {
        while self.busy() {
            if !self.desk.busy() {
                let most = self.round.waiting.len().min(TOGETHER);
                self.round.asked = self.round.waiting.drain(..most).collect();
                let question: Vec<(u32, u64)> =
                    self.round.asked.iter().map(|it| (it.process.tgid, it.start_ticks)).collect();
                if let Err(why) = self.desk.ask(&question) {
                    for process in std::mem::take(&mut self.round.asked) {
                        self.missing(&process, why.into());
                    }
                    continue;
                }
            }
            match self.desk.turn(MOMENT) {
                Turn::Waiting => return,
                Turn::Answer(counts, _) => {
                    for (process, count) in std::mem::take(&mut self.round.asked).into_iter().zip(counts) {
                        match count {
                            Ok(count) => {
                                self.counted_roots |= self.roots.contains(&process.process.tgid);
                                if let Some(known) = self.known.get_mut(&process.process.tgid) {
                                    known.counted |= known.process == process.process;
                                }
                                sink(Event::Sample(Sample {
                                    at_ns: self.round.at_ns,
                                    process: process.process,
                                    ppid: process.ppid,
                                    comm: process.comm,
                                    map_count: Some(u32::try_from(count).unwrap_or(u32::MAX)),
                                }));
                            }
                            Err(why @ (Unreadable::Forbidden | Unreadable::Failed(_))) => {
                                self.missing(&process, why);
                            }
                            // One that ended meanwhile has no figures by then, and no more are missing.
                            Err(_) => {}
                        }
                    }
                }
                Turn::Unanswered(why, item) => self.leave_out(why, item as usize),
            }
        }
    }

    /// Leaves out this one of those that were asked; the others are asked again.
    fn leave_out(&mut self, why: Unanswered, item: usize) {
        let mut asked = std::mem::take(&mut self.round.asked);
        let item = if item < asked.len() { item } else { 0 };
        if item < asked.len() {
            let process = asked.remove(item);
            if let Some(known) = self.known.get_mut(&process.process.tgid) {
                known.silent = true;
            }
            self.missing(&process, why.into());
        }
        asked.into_iter().rev().for_each(|process| self.round.waiting.push_front(process));
    }

    /// Takes note that it has no count, the first time.
    fn missing(&mut self, Counted { process, comm, .. }: &Counted, why: Unreadable) {
        let known = self.known.get_mut(&process.tgid).filter(|known| known.process == *process);
        if known.is_some_and(|known| std::mem::replace(&mut known.uncounted, true)) {
            return;
        }
        let first = |why| Uncounted { processes: 0, comm: comm.clone(), pid: process.tgid, why };
        self.uncounted.entry(why.clone()).or_insert_with(|| first(why)).processes += 1;
    }
}

impl Source for Sampling {
    fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn drain(&mut self, _: usize, _: &mut dyn FnMut(Event)) -> bool {
        false
    }

    fn tick(&mut self, sink: &mut dyn FnMut(Event)) -> Duration {
        self.look(now_ns(), sink)
    }

    fn child_changed(&mut self) {
        if self.orphans {
            let children = self.proc.own_children();
            self.reap(children.into_iter());
        }
    }

    fn begin(&mut self, sink: &mut dyn FnMut(Event)) {
        self.look(now_ns(), sink);
    }

    fn living(&mut self) -> usize {
        self.known.len()
    }

    fn waits(&mut self) -> bool {
        self.seek.as_ref().is_some_and(|seek| !seek.found)
    }

    fn living_processes(&mut self) -> HashSet<ProcessId> {
        self.known.values().map(|known| known.process).collect()
    }

    fn lives(&self, _: u64) -> bool {
        false
    }

    fn awaited(&mut self, _: &mut dyn FnMut(Event)) -> HashSet<ProcessId> {
        HashSet::new()
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) -> u64 {
        self.settle(now_ns(), sink);
        self.uncounted.values().for_each(|it| sink(Event::Note(it.sentence())));
        // The command itself may have been too quick, or still be there and never counted.
        let never = self.known.values().filter(|known| !known.counted && !known.uncounted).count() as u64;
        let there = self.roots.iter().any(|root| self.known.contains_key(root));
        let quick = u64::from(!self.counted_roots && !there && self.seek.is_none());
        let unseen = self.unseen.max(quick) + never;
        if unseen > 0 {
            sink(Event::Note(format!(
                "{} ended before a sample could be taken",
                text::count(unseen, "process or more", "processes or more")
            )));
        }
        let unread: u64 = self.uncounted.values().map(|it| it.processes).sum();
        let counters = [(LossReason::ProcessUnseen, unseen + unread)].into();
        sink(Event::Lost(Losses { at_ns: now_ns(), counters, ..Losses::default() }));
        self.known.len() as u64
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        if self.orphans {
            // SAFETY: takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) };
        }
    }
}

impl Uncounted {
    fn sentence(&self) -> String {
        let Self { processes, comm, pid, why } = self;
        let (who, why) = (text::count(*processes, "process", "processes"), why.sentence());
        let first = if *processes == 1 { "" } else { "the first, " };
        format!("{who} could not be counted for all or a part of the time: {first}{comm} (pid {pid}), {why}")
    }
}

/// Until the next search, after one that took so long.
fn rest(took: Duration, least: Duration) -> Duration {
    took.saturating_mul(SHARE).max(least)
}

/// In the child.
fn count(proc: &Proc, pid: u32, start_ticks: u64, buffer: &mut CountBuffer) -> Result<u64, Unreadable> {
    let handle = proc.open(pid)?;
    let stat = handle.stat()?;
    // Its number may be another process's by now.
    if stat.start_ticks == start_ticks { handle.count(&stat, buffer) } else { Err(Unreadable::Gone) }
}

/// Adds to `followed` all that descends from it; `pairs` are (pid, parent).
pub fn add_descendants(followed: &mut BTreeSet<u32>, pairs: impl Iterator<Item = (u32, u32)> + Clone) {
    loop {
        let before = followed.len();
        let more: Vec<u32> =
            pairs.clone().filter(|(_, parent)| followed.contains(parent)).map(|(pid, _)| pid).collect();
        followed.extend(more);
        if followed.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    /// A look at a made-up machine of 400 processes, all of one family, with 100 descriptors to spare.
    #[test]
    fn a_look_needs_few_descriptors_however_many_processes_there_are() {
        let name = "::a_look_needs_few_descriptors_however_many_processes_there_are";
        // The limit is that of a whole process.
        alone(&[module_path!(), name].concat(), look_at_400);
    }

    fn look_at_400() {
        let root = std::env::temp_dir().join(format!("vmaudit-sampling-{}", std::process::id()));
        for pid in 1..=400 {
            let own = root.join(pid.to_string());
            std::fs::create_dir_all(&own).unwrap();
            let stat = format!("{pid} (x) S {} 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {pid} 0 0", pid - 1);
            std::fs::write(own.join("stat"), stat).unwrap();
            std::fs::write(own.join("maps"), "1000-2000 rw-p 00000000 00:00 0 \n".repeat(3)).unwrap();
        }
        assert_eq!(counted_with_few_descriptors(&root), 400);
        std::fs::remove_dir_all(root).unwrap();
    }

    fn counted_with_few_descriptors(root: &std::path::Path) -> u32 {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, (open + 100).min(hard), hard).unwrap();
        let mut seen = 0;
        Sampling::new(Proc::new(root), [1], true, &Patience::default()).settle(7, &mut |event| {
            seen += u32::from(matches!(event, Event::Sample(Sample { map_count: Some(3), .. })));
        });
        seen
    }

    /// A made-up process 1; `maps` is a folder, which can be opened and not read, where there is no text for it.
    fn write(root: &std::path::Path, comm: &str, exe: &str, maps: Option<&str>) {
        let own = root.join("1");
        let _ = std::fs::remove_dir_all(&own);
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(
            own.join("stat"),
            format!("1 ({comm}) S 0 1 1 0 -1 4194304{} 1 0 5 0 0", " 0".repeat(10)),
        )
        .unwrap();
        std::os::unix::fs::symlink(exe, own.join("exe")).unwrap();
        match maps {
            Some(text) => std::fs::write(own.join("maps"), text).unwrap(),
            None => std::fs::create_dir(own.join("maps")).unwrap(),
        }
    }

    #[test]
    fn an_exec_gives_a_new_name_and_only_that_does() {
        let root = std::env::temp_dir().join(format!("vmaudit-sampling-exec-{}", std::process::id()));
        let mut sampling = Sampling::new(Proc::new(&root), [1], true, &Patience::default());
        let mut named = |comm, exe| {
            write(&root, comm, exe, Some("1000-2000 rw-p 00000000 00:00 0 \n"));
            let mut found = Vec::new();
            sampling.settle(7, &mut |event| {
                if let Event::Process(named) = event {
                    found.extend(named.exe);
                }
            });
            found
        };
        assert_eq!(named("sh", "/bin/sh"), ["/bin/sh"]);
        assert_eq!(named("sh", "/bin/sh"), [""; 0]);
        assert_eq!(named("make", "/bin/make"), ["/bin/make"]);
        assert_eq!(named("make", "/bin/other"), ["/bin/other"]);
        assert_eq!(named("make", "/bin/other"), [""; 0]);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_process_that_cannot_be_read_is_counted_once() {
        let root = std::env::temp_dir().join(format!("vmaudit-sampling-closed-{}", std::process::id()));
        let mut sampling = Sampling::new(Proc::new(&root), [1], true, &Patience::default());
        let mut look = |comm, maps| {
            write(&root, comm, "/bin/x", maps);
            sampling.settle(7, &mut |_| {});
            sampling.uncounted.values().next().map(|uncounted| (uncounted.processes, uncounted.comm.clone()))
        };
        assert_eq!(look("sh", Some("1000-2000 rw-p 00000000 00:00 0 \n")), None);
        // No mappings at all: it is ending.
        assert_eq!(look("sh", Some("")), None);
        for _ in 0..2 {
            assert_eq!(look("su", None), Some((1, "su".to_owned())));
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn searches_for_those_that_fit_take_a_twentieth_of_the_time() {
        use std::cell::Cell;
        use std::rc::Rc;
        let searches = Rc::new(Cell::new(0));
        let counted = Rc::clone(&searches);
        let slow = Box::new(move || {
            counted.set(counted.get() + 1);
            std::thread::sleep(Duration::from_millis(50));
            Vec::new()
        });
        let mut sampling = Sampling::new(Proc::new("/nowhere"), [], true, &Patience::default()).seeking(slow);
        let began = Instant::now();
        sampling.look(7, &mut |_| {});
        assert_eq!((searches.get(), sampling.living(), sampling.waits()), (1, 0, true));
        let next = sampling.seek.as_ref().map(|seek| seek.next - began);
        assert!(next.is_some_and(|next| next >= Duration::from_millis(50 + 50 * 20)), "{next:?}");
        assert_eq!(rest(Duration::from_millis(1), SEEK_FIRST), SEEK_FIRST);
    }

    #[test]
    fn descendants_are_found_in_any_order() {
        let pairs = [(9, 8), (8, 7), (5, 1), (7, 2), (2, 1)];
        let mut followed = BTreeSet::from([7]);
        add_descendants(&mut followed, pairs.iter().copied());
        assert_eq!(followed, BTreeSet::from([7, 8, 9]));
    }
}
