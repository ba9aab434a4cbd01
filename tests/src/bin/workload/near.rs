//! Near-misses: refusals at vm.max_map_count where something else is true as well, or is true no longer a moment later.

use std::os::unix::process::CommandExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::{MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE, c_int};

use crate::limit::{Level, TARGET, targets};
use crate::makers::max_map_count;
use crate::memory::{Holes, PAGE, PRIVATE, call, die, leave, mmap, mmap_at, mprotect, munmap, must};
use crate::own::{Own, count};

const READ_WRITE: c_int = PROT_READ | PROT_WRITE;

/// Provokes refusals: the report it adds to, how often.
type Maker = fn(&mut Own, usize);

const NAMES: &[(&str, Maker)] = &[
    ("limit-and-rlimit-as", limit_and_rlimit_as),
    ("limit-and-gap-behind", limit_and_gap_behind),
    ("gap-at-the-limit", gap_at_the_limit),
    ("race", race),
    ("strict-overcommit", strict_overcommit),
];

/// Provokes `n` refusals of the near-miss `name`.
pub fn run(name: &str, n: usize) -> ! {
    let Some((_, maker)) = NAMES.iter().find(|(known, _)| *known == name) else {
        die(2, format_args!("no such near-miss: {name}"));
    };
    let base = count();
    let mut own = Own::new("near", base, 0);
    maker(&mut own, n);
    own.last = Some(count());
    own.print();
    leave(0)
}

/// Joins a memory cgroup, made by the test with a small limit, and starts anew as [`fill_cgroup`] in it.
pub fn full_cgroup(folder: &str, n: &str) -> ! {
    if let Err(error) = std::fs::write(format!("{folder}/cgroup.procs"), "0") {
        die(99, format_args!("cannot join {folder}: {error}"));
    }
    let error = std::process::Command::new("/proc/self/exe").args(["fill-cgroup", n]).exec();
    die(99, format_args!("cannot start anew: {error}"))
}

/// The memory cgroup of this process runs out of kernel memory: `n` refusals. The killing that follows is switched off, in
/// the cgroup (version 1) or by this process.
pub fn fill_cgroup(n: usize) -> ! {
    /// More than any limit used here has room for.
    const MOST: usize = 200_000;
    let base = count();
    let mut own = Own::new("near", base, 0);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let area = must(mmap(MOST * PAGE, PROT_NONE, MAP_NORESERVE), "mmap");
    let mut refused = Vec::with_capacity(n);
    for i in 0..MOST {
        // Neighbours differ, so that each is a VMA of its own.
        if let Err(errno) = mmap_at(area + i * PAGE, PAGE, if i & 1 == 0 { PROT_NONE } else { PROT_READ }) {
            refused.push(errno);
        }
        if refused.len() == n {
            break;
        }
    }
    let mut children = Vec::with_capacity(n);
    for _ in 0..n {
        children.push(crate::causes::child().err());
    }
    must(munmap(area, MOST * PAGE), "munmap");
    // Only now: new pages could not be had.
    for errno in refused {
        own.refuse("mmap", errno, "kernel_memory");
    }
    for child in children {
        let Some(errno) = child else { die(99, format_args!("clone was not refused")) };
        own.refuse("clone", errno, "kernel_memory");
    }
    own.last = Some(count());
    own.print();
    leave(0)
}

/// Starts anew with room for a stack and for hardly more: the kernel is past the point of no return when it finds that the
/// image does not fit, and kills the process.
pub fn exec_without_room() -> ! {
    crate::causes::limit(libc::RLIMIT_AS, 36 * PAGE);
    let error = std::process::Command::new("/proc/self/exe").arg("bytes").exec();
    die(99, format_args!("exec came back: {error}"))
}

/// A process one above the limit whose RLIMIT_AS is used up too: the kernel looks at the count first.
fn limit_and_rlimit_as(own: &mut Own, n: usize) {
    let free = Holes::reserve(1);
    let mut level = Level::fill(max_map_count());
    free.release();
    level.set(max_map_count() + 1);
    crate::causes::limit(libc::RLIMIT_AS, PAGE);
    for _ in 0..n {
        match mmap_at(free.at(0), PAGE, PROT_READ) {
            Err(errno) => own.refuse("mmap", errno, "max_map_count"),
            Ok(_) => die(99, format_args!("mmap was not refused")),
        }
    }
}

/// At the limit: a range that begins inside one mapping and goes on beyond its end. Splitting is refused before the gap is
/// met, but the gap would be met too.
fn limit_and_gap_behind(own: &mut Own, n: usize) {
    let room = targets(n, PRIVATE);
    let mut level = Level::fill(max_map_count());
    level.set(max_map_count());
    for i in 0..n {
        match mprotect(room.target(i) + PAGE, TARGET * PAGE, PROT_NONE) {
            Err(errno) => own.refuse("mprotect", errno, "max_map_count"),
            Ok(_) => die(99, format_args!("mprotect was not refused")),
        }
    }
}

/// At the limit: a range of one whole mapping and the gap behind it. Nothing has to be split, so it is the gap.
fn gap_at_the_limit(own: &mut Own, n: usize) {
    let room = targets(n, PRIVATE);
    let mut level = Level::fill(max_map_count());
    level.set(max_map_count());
    for i in 0..n {
        match mprotect(room.target(i), (TARGET + 1) * PAGE, PROT_NONE) {
            Err(errno) => own.refuse("mprotect", errno, "range_not_mapped"),
            Ok(_) => die(99, format_args!("mprotect was not refused")),
        }
    }
}

/// Two threads at the limit, each maps a page and unmaps it when that worked: whoever comes second is refused, and by the
/// end of its call the other one has often unmapped. In the end one refusal for sure.
fn race(own: &mut Own, n: usize) {
    static READY: AtomicBool = AtomicBool::new(false);
    static GO: AtomicBool = AtomicBool::new(false);
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    static DONE: AtomicU64 = AtomicU64::new(0);
    let free = Holes::reserve(2);
    let turns = move |which: usize| {
        for _ in 0..n {
            match mmap_at(free.at(which), PAGE, PROT_READ) {
                Ok(at) => drop(must(munmap(at, PAGE), "munmap")),
                Err(libc::ENOMEM) => drop(REFUSED.fetch_add(1, Ordering::Relaxed)),
                Err(errno) => die(99, format_args!("mmap failed with errno {errno}")),
            }
        }
    };
    std::thread::spawn(move || {
        // A thread's first allocation can map an arena of its own; park() must not be the first.
        let _me = std::thread::current();
        drop(std::hint::black_box(vec![0u8; 64]));
        READY.store(true, Ordering::Release);
        while !GO.load(Ordering::Acquire) {
            crate::makers::pause_ms(1);
        }
        turns(1);
        DONE.store(1, Ordering::Release);
        loop {
            std::thread::park();
        }
    });
    // Beginning a thread maps something too.
    while !READY.load(Ordering::Acquire) {
        crate::makers::pause_ms(1);
    }
    let mut level = Level::fill(max_map_count());
    free.release();
    level.set(max_map_count());
    GO.store(true, Ordering::Release);
    turns(0);
    while DONE.load(Ordering::Acquire) == 0 {
        crate::makers::pause_ms(1);
    }
    if let Err(errno) = mmap_at(free.at(0), PAGE, PROT_READ) {
        die(99, format_args!("mmap at the limit, with {} VMAs, failed with errno {errno}", count()));
    }
    turns_refused(own, REFUSED.load(Ordering::Relaxed), &free);
    must(munmap(free.at(0), PAGE), "munmap");
}

fn turns_refused(own: &mut Own, before: u64, free: &Holes) {
    for _ in 0..before {
        own.refuse("mmap", libc::ENOMEM, "max_map_count");
    }
    match mmap_at(free.at(1), PAGE, PROT_READ) {
        Err(errno) => own.refuse("mmap", errno, "max_map_count"),
        Ok(_) => die(99, format_args!("mmap above the limit was not refused")),
    }
}

/// With vm.overcommit_memory = 2, which ignores MAP_NORESERVE.
fn strict_overcommit(own: &mut Own, n: usize) {
    let more = 2 * crate::causes::memory_and_swap();
    let none = must(mmap(more, PROT_NONE, 0), "mmap without access");
    for _ in 0..n {
        for (call, answer) in [
            ("mmap", mmap(more, READ_WRITE, 0)),
            ("mmap", mmap(more, READ_WRITE, MAP_NORESERVE)),
            ("mprotect", mprotect(none, more, READ_WRITE)),
        ] {
            match answer {
                Err(errno) => own.refuse(call, errno, "overcommit"),
                Ok(_) => die(99, format_args!("{call} was not refused")),
            }
        }
    }
}

/// At the limit: `n` threads' stacks as a C library asks for them.
pub fn stacks(n: usize) -> ! {
    let mut own = Own::new("stacks", count(), 0);
    let mut level = Level::fill(max_map_count());
    level.set(max_map_count() + 1);
    for _ in 0..n {
        let flags = (PRIVATE | MAP_NORESERVE | libc::MAP_STACK) as usize;
        match call(libc::SYS_mmap, [0, 16 * PAGE, PROT_NONE as usize, flags, usize::MAX, 0]) {
            Err(errno) => own.refuse("mmap", errno, "max_map_count"),
            Ok(_) => die(99, format_args!("mmap was not refused")),
        }
    }
    own.last = Some(count());
    own.print();
    leave(0)
}
