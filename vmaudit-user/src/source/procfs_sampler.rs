//! The fallback source: looks at the processes of one tree in /proc from time to time. Every figure is a sample.
//!
//! Reading /proc/PID/maps takes the process's mmap lock on kernels before 6.17 (kernel.md 1.3), so looks are rare and
//! become rarer when they take long: reading never takes more than a twentieth of the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::model::event::{Event, ProcessFacts, ProcessId, Sample};
use crate::os::procfs::{CountBuffer, Proc, Unreadable};
use crate::os::rights;

/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest time between two looks, however slow reading is.
const LONGEST: Duration = Duration::from_secs(1);
/// Share of the time that may be spent on reading, as a divisor.
const SHARE: u32 = 20;

/// The processes below one root.
pub struct Sampling {
    proc: Proc,
    roots: BTreeSet<u32>,
    children: bool,
    known: BTreeMap<u32, Known>,
    buffer: CountBuffer,
    tick_ns: u64,
    uncounted: Option<Uncounted>,
}

/// A process as it was at the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    process: ProcessId,
    comm: String,
    exe: Option<String>,
    /// Counted in [`Uncounted`].
    uncounted: bool,
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
    pub fn new(proc: Proc, roots: impl IntoIterator<Item = u32>, children: bool) -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Self {
            proc,
            roots: roots.into_iter().collect(),
            children,
            known: BTreeMap::new(),
            buffer: CountBuffer::default(),
            tick_ns: 1_000_000_000 / u64::try_from(ticks).unwrap_or(100).max(1),
            uncounted: None,
        }
    }

    /// One look; returns the time to wait until the next. `now_ns`: CLOCK_MONOTONIC.
    pub fn look(&mut self, now_ns: u64, sink: &mut dyn FnMut(Event)) -> Duration {
        let _rights = rights::raised(&rights::PROCESSES);
        let began = Instant::now();
        let mut seen = BTreeMap::new();
        // A process whose parent is followed is followed, also after the parent's end (known). One descriptor at a
        // time: a machine has more processes than a process may have descriptors.
        let mut stats = BTreeMap::new();
        for pid in self.proc.pids().unwrap_or_default() {
            if let Ok(stat) = self.proc.open(pid).and_then(|handle| handle.stat()) {
                stats.insert(pid, (stat.ppid, stat.start_ticks));
            }
        }
        let identity =
            |pid: u32, start_ticks: u64| ProcessId { tgid: pid, start_ns: start_ticks * self.tick_ns };
        let mut followed: BTreeSet<u32> =
            self.roots.iter().copied().filter(|pid| stats.contains_key(pid)).collect();
        for (pid, (_, start_ticks)) in &stats {
            if self.known.get(pid).is_some_and(|known| known.process == identity(*pid, *start_ticks)) {
                followed.insert(*pid);
            }
        }
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
            let count = handle.count(&stat, &mut self.buffer);
            let before = self.known.get(&pid).filter(|known| known.process == process);
            let mut known = Known {
                process,
                comm: stat.comm.clone(),
                exe: handle.exe(),
                uncounted: before.is_some_and(|before| before.uncounted),
            };
            // Again after an exec: what is known then is of the image before.
            if before.is_none_or(|before| before.comm != known.comm || before.exe != known.exe) {
                sink(Event::Process(ProcessFacts {
                    process,
                    at_ns: now_ns,
                    exe: known.exe.clone(),
                    cgroup: handle.cgroup(),
                }));
            }
            match count {
                Ok(count) => sink(Event::Sample(Sample {
                    at_ns: now_ns,
                    process,
                    ppid: stat.ppid,
                    comm: stat.comm,
                    map_count: Some(u32::try_from(count).unwrap_or(u32::MAX)),
                })),
                Err(why @ (Unreadable::Forbidden | Unreadable::Failed(_))) if !known.uncounted => {
                    known.uncounted = true;
                    self.uncounted
                        .get_or_insert(Uncounted { processes: 0, comm: stat.comm, pid, why })
                        .processes += 1;
                }
                // One that ended meanwhile has no figures by then, and no more are missing.
                Err(_) => {}
            }
            seen.insert(pid, known);
        }
        for (pid, known) in &self.known {
            if seen.get(pid).is_none_or(|now| now.process != known.process) {
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
        (began.elapsed() * SHARE).clamp(SHORTEST, LONGEST)
    }

    /// Processes without figures, or without the figures of a part of their life; `None` when there are none.
    pub fn uncounted(&self) -> Option<&Uncounted> {
        self.uncounted.as_ref()
    }

    /// Processes that were alive at the last look.
    pub fn living(&self) -> usize {
        self.known.len()
    }
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

    /// A look at a made-up machine of 400 processes, all of one family, with 100 descriptors to spare.
    #[test]
    fn a_look_needs_few_descriptors_however_many_processes_there_are() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let root = std::env::temp_dir().join(format!("vmaudit-sampling-{}", std::process::id()));
        for pid in 1..=400 {
            let own = root.join(pid.to_string());
            std::fs::create_dir_all(&own).unwrap();
            let stat = format!("{pid} (x) S {} 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {pid} 0 0", pid - 1);
            std::fs::write(own.join("stat"), stat).unwrap();
            std::fs::write(own.join("maps"), "1000-2000 rw-p 00000000 00:00 0 \n".repeat(3)).unwrap();
        }
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, (open + 100).min(hard), hard).unwrap();
        let mut seen = 0;
        Sampling::new(Proc::new(&root), [1], true).look(7, &mut |event| {
            seen += u32::from(matches!(event, Event::Sample(Sample { map_count: Some(3), .. })));
        });
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        std::fs::remove_dir_all(root).unwrap();
        assert_eq!(seen, 400);
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
        let mut sampling = Sampling::new(Proc::new(&root), [1], true);
        let mut named = |comm, exe| {
            write(&root, comm, exe, Some("1000-2000 rw-p 00000000 00:00 0 \n"));
            let mut found = Vec::new();
            sampling.look(7, &mut |event| {
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
        let mut sampling = Sampling::new(Proc::new(&root), [1], true);
        let mut look = |comm, maps| {
            write(&root, comm, "/bin/x", maps);
            sampling.look(7, &mut |_| {});
            sampling.uncounted().map(|uncounted| (uncounted.processes, uncounted.comm.clone()))
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
    fn descendants_are_found_in_any_order() {
        let pairs = [(9, 8), (8, 7), (5, 1), (7, 2), (2, 1)];
        let mut followed = BTreeSet::from([7]);
        add_descendants(&mut followed, pairs.iter().copied());
        assert_eq!(followed, BTreeSet::from([7, 8, 9]));
    }
}
