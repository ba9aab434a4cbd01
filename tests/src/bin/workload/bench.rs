//! Micro benchmarks: nanoseconds per operation, best of many batches.

use std::fmt::Write as _;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use libc::{PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE};

use crate::memory::{
    Holes, Line, PAGE, call, close, die, errno, leave, mmap, mmap_at, mprotect, munmap, must, read, write_all,
};

const READ_WRITE: i32 = PROT_READ | PROT_WRITE;
/// Operations between two looks at the clock.
const BATCH: u32 = 2000;
/// The same for processes.
const BIRTHS: u32 = 20;
/// Pages that one fault batch touches.
const FAULTS: usize = 2000;
/// Threads of the contended case.
const THREADS: usize = 4;

/// Runs one benchmark for about `seconds` and prints `<name> <ns_per_op>`.
pub fn run(name: &str, seconds: f64) -> ! {
    let time = Duration::from_secs_f64(seconds);
    let ns = match name {
        "pair" => {
            // One may lie where the kernel's tree splits a node with each mmap and joins it with each munmap (16 to a node).
            let holes: Vec<usize> = (0..HOLES).map(|_| hole()).collect();
            best(time, BATCH, || holes.iter().cycle().take(BATCH as usize).for_each(|hole| pair(*hole)))
        }
        "pair-anywhere" => best(time, BATCH, pairs_anywhere),
        "getppid" => best(time, BATCH, || {
            (0..BATCH).for_each(|_| {
                must(call(libc::SYS_getppid, [0; 6]), "getppid");
            });
        }),
        "toggle" => {
            let page = must(mmap_at(hole(), PAGE, READ_WRITE), "mmap");
            let to = |protection| must(mprotect(page, PAGE, protection), "mprotect");
            best(time, BATCH, || {
                (0..BATCH / 2).for_each(|_| {
                    to(PROT_READ);
                    to(READ_WRITE);
                });
            })
        }
        "growth" => growth(time),
        "births" => best(time, BIRTHS, || (0..BIRTHS).for_each(|_| birth())),
        "fault" => fault(time),
        "threads" => threads(time),
        _ => die(2, format_args!("no such benchmark: {name}")),
    };
    let mut line = Line::new();
    let _ = writeln!(line, "{name} {ns:.1}");
    write_all(1, line.bytes());
    leave(0)
}

/// Places of a pair.
const HOLES: usize = 64;
/// Places in a node of the kernel's tree of mappings.
const NODE: usize = 16;
/// Pages that make one process grow.
const GROWTH: usize = 60_000;

/// A child that maps page after page, none beside another, for each turn: each begins with few.
fn growth(time: Duration) -> f64 {
    let holes = Holes::find(GROWTH);
    let began = Instant::now();
    let mut least = f64::MAX;
    while began.elapsed() < time {
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        must(if unsafe { libc::pipe(pipe.as_mut_ptr()) } == 0 { Ok(()) } else { Err(errno()) }, "pipe");
        // SAFETY: one thread; the child makes system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let began = Instant::now();
            (0..GROWTH).for_each(|page| holes.map(page));
            let ns = began.elapsed().as_nanos() as u64;
            write_all(pipe[1], &ns.to_le_bytes());
            leave(0)
        }
        let mut ns = [0; 8];
        read(pipe[0], &mut ns);
        pipe.into_iter().for_each(close);
        // SAFETY: a child of ours.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        least = least.min(u64::from_le_bytes(ns) as f64 / GROWTH as f64);
    }
    least
}

fn pair(hole: usize) {
    let page = must(mmap_at(hole, PAGE, READ_WRITE), "mmap");
    must(munmap(page, PAGE), "munmap");
}

/// A batch of pairs whose address the kernel chooses. After each sixteenth of it one page more stays, so that the pair comes
/// by all places of a node of the kernel's tree, see above; these calls are under one in a hundred of all.
fn pairs_anywhere() {
    let kept: [usize; NODE] = std::array::from_fn(|page| {
        // Neighbours differ, and what the pair maps is like nothing else in this process: none merges.
        let kept = must(mmap(PAGE, [PROT_NONE, PROT_READ][page % 2], 0), "mmap");
        (0..BATCH as usize / NODE).for_each(|_| {
            let page = must(mmap(PAGE, PROT_READ | PROT_EXEC, 0), "mmap");
            must(munmap(page, PAGE), "munmap");
        });
        kept
    });
    kept.into_iter().for_each(|page| {
        must(munmap(page, PAGE), "munmap");
    });
}

/// A page of free addresses between two mappings that none merges with: where a page lies beside its like by chance, mmap
/// and munmap are an extension and a split, which cost several times as much.
fn hole() -> usize {
    let range = must(mmap(3 * PAGE, PROT_NONE, 0), "mmap");
    must(munmap(range + PAGE, PAGE), "munmap of the middle");
    range + PAGE
}

/// A process that does nothing: vfork, exec, exit.
fn birth() {
    match std::process::Command::new("/proc/self/exe").args(["exit", "0"]).status() {
        Ok(status) if status.success() => {}
        other => die(99, format_args!("a process that does nothing: {other:?}")),
    }
}

fn best(time: Duration, operations: u32, batch: impl Fn()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < time {
        let from = Instant::now();
        batch();
        best = best.min(from.elapsed().as_nanos() as f64 / f64::from(operations));
    }
    best
}

/// First touch of each page of a fresh mapping.
fn fault(time: Duration) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < time {
        let region = must(mmap(FAULTS * PAGE, READ_WRITE, 0), "mmap");
        must(crate::memory::madvise(region, FAULTS * PAGE, libc::MADV_NOHUGEPAGE), "madvise");
        let from = Instant::now();
        touch(region, FAULTS);
        best = best.min(from.elapsed().as_nanos() as f64 / FAULTS as f64);
        must(munmap(region, FAULTS * PAGE), "munmap");
    }
    best
}

fn touch(region: usize, pages: usize) {
    for i in 0..pages {
        // SAFETY: the caller has just mapped these pages for writing, and nobody else uses them.
        unsafe { std::ptr::write_volatile((region + i * PAGE) as *mut u8, 1) };
    }
}

/// Each thread maps 16 pages, touches them and unmaps them; all share one mmap lock. Per operation of one thread.
fn threads(time: Duration) -> f64 {
    const PAGES: usize = 16;
    const ROUNDS: u32 = 200;
    let barrier: &'static Barrier = Box::leak(Box::new(Barrier::new(THREADS + 1)));
    for _ in 0..THREADS {
        std::thread::spawn(move || {
            loop {
                barrier.wait();
                for _ in 0..ROUNDS {
                    let region = must(mmap(PAGES * PAGE, READ_WRITE, 0), "mmap");
                    touch(region, PAGES);
                    must(munmap(region, PAGES * PAGE), "munmap");
                }
                barrier.wait();
            }
        });
    }
    best(time, ROUNDS * THREADS as u32, || {
        barrier.wait();
        barrier.wait();
    })
}
