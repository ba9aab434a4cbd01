//! Threads that mix calls which are refused with calls which are not, as fast as they can: every one of either kind must be
//! told from the others.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use libc::{MADV_DONTNEED, MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE};

use crate::makers::max_map_count;
use crate::memory::{
    Errno, Holes, PAGE, brk, call, die, kernel_page, leave, madvise, mmap, mmap_at, mprotect, mremap, munmap,
    must,
};
use crate::own::{Own, count};

const NAMES: [&str; 6] = ["mmap", "mprotect", "madvise", "mremap", "brk", "munmap"];
const MMAP: usize = 0;
const MPROTECT: usize = 1;
const MADVISE: usize = 2;
const MREMAP: usize = 3;
const BRK: usize = 4;
const MUNMAP: usize = 5;

static REFUSED: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
/// What each kind is refused with; one errno each.
static ERRNOS: [AtomicI32; NAMES.len()] = [const { AtomicI32::new(0) }; NAMES.len()];
/// A page that nothing is mapped at and nobody maps.
static NOWHERE: AtomicUsize = AtomicUsize::new(0);

/// More than any machine has, so that no mode of overcommit allows it.
const TOO_MUCH: usize = 1 << 46;
/// An address that no heap reaches: mappings and the stack are before it.
const FAR: usize = (1 << 47) - (1 << 20);

fn refused<T>(kind: usize, answer: Result<T, Errno>) {
    match answer {
        Err(errno) => {
            ERRNOS[kind].store(errno, Ordering::Relaxed);
            REFUSED[kind].fetch_add(1, Ordering::Relaxed);
        }
        Ok(_) => die(99, format_args!("{} was not refused", NAMES[kind])),
    }
}

/// Handlers that have begun, and that have ended.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
/// No handler makes a call any more.
static OVER: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    if !OVER.load(Ordering::SeqCst) {
        refused(MPROTECT, mprotect(NOWHERE.load(Ordering::Relaxed), PAGE, PROT_READ));
    }
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Waits for handlers whose call is made and not counted yet.
fn end_of_handlers() {
    OVER.store(true, Ordering::SeqCst);
    while BEGUN.load(Ordering::SeqCst) != ENDED.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

/// `threads` threads make `n` calls each; with `signal_us`, a signal's handler makes refused calls so often as well.
pub fn mixed(threads: usize, n: usize, signal_us: Option<i64>) -> ! {
    let nowhere = must(mmap(3 * PAGE, PROT_NONE, MAP_NORESERVE), "mmap");
    // Between two pages, so that nobody else finds room here that is large enough for what is mapped below.
    must(munmap(nowhere + PAGE, PAGE), "munmap of the middle");
    NOWHERE.store(nowhere + PAGE, Ordering::Relaxed);
    let barrier = threads_of(threads, move |t| calls(t, n));
    barrier.wait();
    if let Some(us) = signal_us {
        signals(us);
    }
    barrier.wait();
    barrier.wait();
    if signal_us.is_some() {
        signals(0);
        end_of_handlers();
    }
    finish("mixed")
}

/// Threads that do this at the same time, from the second wait of all to the third. At the first all have begun: nothing more is
/// mapped for them.
fn threads_of(threads: usize, work: impl Fn(usize) + Copy + Send + 'static) -> &'static Barrier {
    let barrier: &'static Barrier = Box::leak(Box::new(Barrier::new(threads + 1)));
    for t in 0..threads {
        std::thread::spawn(move || {
            barrier.wait();
            barrier.wait();
            work(t);
            barrier.wait();
            loop {
                std::thread::park();
            }
        });
    }
    barrier
}

/// The same at the limit on VMAs, where what splits a mapping is refused, and what shrinks one and lets it grow again is not.
pub fn mixed_full(threads: usize, n: usize) -> ! {
    // Of each thread three pages, with a page between them and the next.
    let all = must(mmap((4 * threads + 1) * PAGE, PROT_NONE, MAP_NORESERVE), "mmap");
    let barrier = threads_of(threads, move |t| calls_at_the_limit(all + (4 * t + 1) * PAGE, t, n));
    barrier.wait();
    for t in 0..threads {
        let mine = all + (4 * t + 1) * PAGE;
        must(mprotect(mine, 3 * PAGE, PROT_READ | PROT_WRITE), "mprotect of what is a thread's");
    }
    let more = (max_map_count() - count()) as usize;
    let holes = Holes::find(more);
    for i in 0..more {
        holes.map(i);
    }
    barrier.wait();
    barrier.wait();
    for i in 0..more {
        holes.unmap(i);
    }
    finish("mixed-full")
}

fn calls_at_the_limit(mine: usize, thread: usize, n: usize) {
    let read_write = PROT_READ | PROT_WRITE;
    let mut seed = thread as u32 * 7919 + 1;
    for _ in 0..n {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        match (seed >> 16) % 5 {
            0 => refused(MUNMAP, munmap(mine + PAGE, PAGE)),
            1 => refused(MPROTECT, mprotect(mine + PAGE, PAGE, PROT_READ)),
            2 => refused(MMAP, mmap(TOO_MUCH, read_write, 0)),
            3 => {
                must(munmap(mine + 2 * PAGE, PAGE), "munmap of the last page");
                must(mmap_at(mine + 2 * PAGE, PAGE, read_write), "mmap of the last page");
            }
            _ => {
                must(mprotect(mine, 3 * PAGE, PROT_READ), "mprotect of all");
                must(mprotect(mine, 3 * PAGE, read_write), "mprotect of all");
            }
        }
    }
}

/// Refused calls of the main thread, whose stack has grown by a page before each.
pub fn mixed_stack(n: usize) -> ! {
    /// Bytes of the smallest page that a kernel has: larger ones would not fit into the stack so often.
    const LEAST_PAGE: usize = 4096;
    #[inline(never)]
    fn deeper(pages: usize) -> usize {
        let page = std::hint::black_box([1_u8; LEAST_PAGE]);
        if pages == 0 { 0 } else { deeper(pages - 1) + usize::from(page[pages % LEAST_PAGE]) }
    }
    for pages in 0..n {
        std::hint::black_box(deeper(pages));
        refused(MMAP, mmap(TOO_MUCH, PROT_READ | PROT_WRITE, 0));
    }
    finish("mixed-stack")
}

fn finish(role: &'static str) -> ! {
    let base = count();
    let mut own = Own::new(role, base, 0);
    for (kind, name) in NAMES.iter().enumerate() {
        for _ in 0..REFUSED[kind].load(Ordering::Relaxed) {
            own.refuse(name, ERRNOS[kind].load(Ordering::Relaxed), "");
        }
    }
    own.last = Some(base);
    own.print();
    leave(0)
}

fn calls(thread: usize, n: usize) {
    const PAGES: usize = 64;
    let read_write = PROT_READ | PROT_WRITE;
    let mine = must(mmap(PAGES * PAGE, read_write, MAP_NORESERVE), "mmap");
    let nowhere = NOWHERE.load(Ordering::Relaxed);
    // A byte for each page of the kernel's, of which ours may be several.
    let mut resident = vec![0_u8; PAGES * PAGE / kernel_page()];
    let mut seed = thread as u32 * 7919 + 1;
    for _ in 0..n {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let part = (seed >> 20) as usize % (PAGES / 2);
        match (seed >> 16) % 10 {
            0 => refused(MPROTECT, mprotect(nowhere, PAGE, PROT_READ)),
            1 => refused(MMAP, mmap(TOO_MUCH, read_write, 0)),
            2 => refused(MADVISE, madvise(nowhere, PAGE, MADV_DONTNEED)),
            // Its neighbour is in the way.
            3 => refused(MREMAP, mremap(mine, PAGE, 2 * PAGE, 0)),
            4 => {
                let left = brk(FAR);
                refused(BRK, if left == FAR { Ok(()) } else { Err(libc::ENOMEM) });
            }
            5 => {
                let page = must(mmap(2 * PAGE, PROT_READ | libc::PROT_EXEC, 0), "mmap");
                must(munmap(page, 2 * PAGE), "munmap");
            }
            // A piece of a mapping that is merged with its neighbours: their number stays.
            6 => {
                let pages = must(mmap(3 * PAGE, read_write, 0), "mmap");
                must(munmap(pages + 2 * PAGE, PAGE), "munmap");
                must(munmap(pages, 2 * PAGE), "munmap");
            }
            7 => {
                let prot = if seed >> 19 & 1 == 0 { PROT_READ } else { read_write };
                must(mprotect(mine + part * PAGE, 8 * PAGE, prot), "mprotect");
            }
            // Readers of the lock, between others' calls and in their midst.
            8 => {
                let into = resident.as_mut_ptr() as usize;
                must(call(libc::SYS_mincore, [mine, PAGES * PAGE, into, 0, 0, 0]), "mincore");
            }
            _ => {
                let grown = must(mmap(2 * PAGE, read_write, 0), "mmap");
                let grown = must(mremap(grown, 2 * PAGE, 4 * PAGE, libc::MREMAP_MAYMOVE), "mremap");
                let shrunk = must(mremap(grown, 4 * PAGE, 2 * PAGE, 0), "mremap");
                must(munmap(shrunk, 2 * PAGE), "munmap");
            }
        }
    }
}

/// SIGALRM every so many microseconds; 0: no more.
fn signals(us: i64) {
    // SAFETY: plain structures, filled in as the calls want them.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        let time = libc::timeval { tv_sec: 0, tv_usec: us };
        let timer = libc::itimerval { it_interval: time, it_value: time };
        let timer = &raw const timer as usize;
        must(call(libc::SYS_setitimer, [libc::ITIMER_REAL as usize, timer, 0, 0, 0, 0]), "setitimer");
    }
}
