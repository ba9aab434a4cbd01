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
        // A process whose parent is followed is followed, also after the parent's end (known).
        let mut stats = BTreeMap::new();
        for pid in self.proc.pids().unwrap_or_default() {
            if let Ok(handle) = self.proc.open(pid)
                && let Ok(stat) = handle.stat()
            {
                stats.insert(pid, (handle, stat));
            }
        }
        let mut followed: BTreeSet<u32> =
            self.roots.iter().copied().filter(|pid| stats.contains_key(pid)).collect();
        for (pid, (_, stat)) in &stats {
            let id = ProcessId { tgid: *pid, start_ns: stat.start_ticks * self.tick_ns };
            if self.known.get(pid) == Some(&id) {
                followed.insert(*pid);
            }
        }
        if self.children {
            add_descendants(&mut followed, stats.iter().map(|(pid, (_, stat))| (*pid, stat.ppid)));
        }
        for pid in followed {
            let Some((handle, stat)) = stats.get(&pid) else { continue };
            let process = ProcessId { tgid: pid, start_ns: stat.start_ticks * self.tick_ns };
            let count = handle.count(stat, &mut self.buffer).ok().and_then(|n| u32::try_from(n).ok());
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

    #[test]
    fn descendants_are_found_in_any_order() {
        let pairs = [(9, 8), (8, 7), (5, 1), (7, 2), (2, 1)];
        let mut followed = BTreeSet::from([7]);
        add_descendants(&mut followed, pairs.iter().copied());
        assert_eq!(followed, BTreeSet::from([7, 8, 9]));
    }
}
