//! The fallback source: looks at the processes of one tree in /proc from time to time. Every figure is a sample.
//!
//! Reading /proc/PID/maps takes the process's mmap lock on kernels before 6.17 (kernel.md 1.3), so looks are rare and
//! become rarer when they take long: reading never takes more than a twentieth of the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    Event, Named, ProcessId, Sample,
    proc::{CountBuffer, Proc},
};

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
    known: BTreeMap<u32, ProcessId>,
    buffer: CountBuffer,
    tick_ns: u64,
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
        }
    }

    /// One look; returns the time to wait until the next. `now_ns`: CLOCK_MONOTONIC.
    pub fn look(&mut self, now_ns: u64, sink: &mut impl FnMut(Event)) -> Duration {
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
            if self.known.get(pid) == Some(&identity(*pid, *start_ticks)) {
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
            let count = handle.count(&stat, &mut self.buffer).ok().and_then(|n| u32::try_from(n).ok());
            if self.known.get(&pid) != Some(&process) {
                sink(Event::Named(Named {
                    process,
                    at_ns: now_ns,
                    exe: handle.exe(),
                    cgroup: handle.cgroup(),
                }));
            }
            if count.is_some() {
                sink(Event::Sample(Sample {
                    at_ns: now_ns,
                    process,
                    ppid: stat.ppid,
                    comm: stat.comm.clone(),
                    map_count: count,
                }));
            }
            seen.insert(pid, process);
        }
        for (pid, process) in &self.known {
            if seen.get(pid) != Some(process) {
                sink(Event::Sample(Sample {
                    at_ns: now_ns,
                    process: *process,
                    ppid: 0,
                    comm: String::new(),
                    map_count: None,
                }));
            }
        }
        self.known = seen;
        (began.elapsed() * SHARE).clamp(SHORTEST, LONGEST)
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

    #[test]
    fn descendants_are_found_in_any_order() {
        let pairs = [(9, 8), (8, 7), (5, 1), (7, 2), (2, 1)];
        let mut followed = BTreeSet::from([7]);
        add_descendants(&mut followed, pairs.iter().copied());
        assert_eq!(followed, BTreeSet::from([7, 8, 9]));
    }
}
