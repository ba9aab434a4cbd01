//! One process that books when its count was how high.

use std::fmt::Write as _;

use crate::makers::{pause_ms, pause_ns};
use crate::memory::{Holes, leave, write_all};
use crate::own::{Own, count, counted};

/// Highest burst.
const MOST: usize = 300;
/// Entries of the book, at most.
const ENTRIES: usize = 400_000;

/// CLOCK_MONOTONIC, ns.
fn now() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// Bursts without a pause for so many milliseconds, of heights that change every few of them, with a rest now and then. Says
/// the count between bursts, then of each burst: from when until when (CLOCK_MONOTONIC ns) it stood at which height.
pub fn bursts(ms: u64) -> ! {
    // First: else it would lie in the room that is found.
    let mut book = vec![(1_u64, 1_u64, 1_u64); ENTRIES];
    let holes = Holes::find(MOST);
    let base = count();
    let (begin, mut used, mut rested) = (now(), 0, 0);
    while let Some(entry) = book.get_mut(used) {
        let stretch = (now() - begin) / 7_000_000;
        if stretch > ms / 7 {
            break;
        }
        if stretch % 16 == 15 && rested != stretch {
            rested = stretch;
            pause_ms(30);
            continue;
        }
        let height = (1 + stretch * 61 % MOST as u64) as usize;
        for i in 0..height {
            holes.map(i);
        }
        entry.0 = now();
        entry.1 = now();
        entry.2 = base + height as u64;
        for i in 0..height {
            holes.unmap(i);
        }
        used += 1;
    }
    counted(base, "after the bursts");
    let mut said = format!("{base}\n");
    for (from, until, height) in book.iter().take(used) {
        let _ = writeln!(said, "{from} {until} {height}");
    }
    write_all(1, said.as_bytes());
    leave(0)
}

/// Maps so many pages a second for so many milliseconds, and ends.
pub fn leak(per_s: usize, ms: usize) -> ! {
    let holes = Holes::find(per_s * ms / 1000 + 1);
    let base = count();
    let begin = now();
    for i in 0..per_s * ms / 1000 {
        let due = begin + (i as u64 + 1) * 1_000_000_000 / per_s as u64;
        pause_ns(due.saturating_sub(now()));
        holes.map(i);
    }
    let mut own = Own::new("leak", base, base + (per_s * ms / 1000) as u64);
    own.last = Some(own.peak);
    own.print();
    leave(0)
}
