//! Needs that are refused, and what becomes of them: the same thread gets the like, or it does not.

use libc::{MAP_FIXED_NOREPLACE, MAP_HUGETLB, MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE, c_int};

use crate::causes::limit;
use crate::memory::{Errno, PAGE, PRIVATE, brk, call, die, errno, leave, mmap, munmap, must};
use crate::own::{Own, count};

const READ_WRITE: c_int = PROT_READ | PROT_WRITE;
/// More than any machine has, so that no mode of overcommit allows it.
const TOO_MUCH: usize = 1 << 46;
const MIB: usize = 1 << 20;
const TIB: usize = 1 << 40;
/// Largest heap of a thread (glibc, malloc/arena.c:HEAP_MAX_SIZE with 8-byte words).
const HEAP: usize = 64 * MIB;

/// Refuses something, and says what and why; the status to end with.
type Case = fn(&mut Own) -> c_int;

const CASES: &[(&str, Case)] = &[
    ("huge-then-ordinary", huge_then_ordinary),
    ("huge-segment-then-ordinary", huge_segment_then_ordinary),
    ("heap-then-mmap", heap_then_mmap),
    ("ladder", ladder),
    ("too-steep", too_steep),
    ("interrupted", interrupted),
    ("another-thread", another_thread),
    ("another-access", another_access),
    ("again", again),
    ("no-own-heap", |own| no_own_heap(own, &[2 * HEAP, HEAP, 2 * HEAP, HEAP], (PAGE, 0))),
    ("no-own-heap-hinted", |own| no_own_heap(own, &[HEAP, 2 * HEAP, HEAP], (PAGE, 0))),
    ("no-own-heap-nor-memory", |own| no_own_heap(own, &[2 * HEAP, HEAP], (HEAP, 0))),
    ("no-own-heap-then-stack", |own| no_own_heap(own, &[2 * HEAP, HEAP], (PAGE, libc::MAP_STACK))),
    ("a-reservation-of-that-size", |own| no_own_heap(own, &[HEAP], (PAGE, 0))),
    ("reservations-of-other-sizes", |own| no_own_heap(own, &[4 * HEAP, 2 * HEAP], (PAGE, 0))),
    ("malloc-in-threads", malloc_in_threads),
    ("malloc-in-vain", malloc_in_vain),
    ("probe-and-success", |own| probe(own, 0)),
    ("probe-and-failure", |own| probe(own, 1)),
    ("probe-hides-needs", probe_hides_needs),
    ("full-address-space", full_address_space),
    ("library", library),
];

/// Runs one case.
pub fn run(name: &str) -> ! {
    let Some((_, case)) = CASES.iter().find(|(known, _)| *known == name) else {
        die(2, format_args!("no such case: {name}"));
    };
    let mut own = Own::new("outcomes", count(), 0);
    let status = case(&mut own);
    own.last = Some(count());
    own.peak = 0;
    own.print();
    leave(status)
}

fn refused<T>(own: &mut Own, call: &'static str, cause: &'static str, answer: Result<T, Errno>) {
    match answer {
        Err(errno) => own.refuse(call, errno, cause),
        Ok(_) => die(99, format_args!("{call} was not refused")),
    }
}

fn huge_then_ordinary(own: &mut Own) -> c_int {
    refused(own, "mmap", "hugetlb", mmap(4 * MIB, READ_WRITE, MAP_HUGETLB));
    must(mmap(4 * MIB, READ_WRITE, 0), "mmap");
    0
}

/// The same with a shared memory segment, which is taken away again.
fn huge_segment_then_ordinary(own: &mut Own) -> c_int {
    let flags = libc::IPC_CREAT as usize | 0o600;
    let shmget = |flags| call(libc::SYS_shmget, [0, 4 * MIB, flags, 0, 0, 0]);
    refused(own, "shmget", "hugetlb", shmget(flags | libc::SHM_HUGETLB as usize));
    let segment = must(shmget(flags), "shmget");
    must(call(libc::SYS_shmctl, [segment, libc::IPC_RMID as usize, 0, 0, 0, 0]), "shmctl");
    0
}

fn heap_then_mmap(own: &mut Own) -> c_int {
    let start = brk(0);
    let above = (start + 16 * PAGE).next_multiple_of(PAGE);
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_FIXED_NOREPLACE) as usize;
    must(
        call(libc::SYS_mmap, [above, PAGE, PROT_READ as usize, flags, usize::MAX, 0]),
        "mmap above the heap",
    );
    for _ in 0..3 {
        let asked = start + 64 * PAGE;
        refused(own, "brk", "no_address_range", if brk(asked) == asked { Ok(()) } else { Err(libc::ENOMEM) });
        must(mmap(64 * PAGE, READ_WRITE, 0), "mmap");
    }
    0
}

/// Halves until it is given.
fn ladder(own: &mut Own) -> c_int {
    let mut bytes = TOO_MUCH;
    while let Err(errno) = mmap(bytes, READ_WRITE, 0) {
        own.refuse("mmap", errno, "overcommit");
        bytes /= 2;
    }
    0
}

fn too_steep(own: &mut Own) -> c_int {
    refused(own, "mmap", "overcommit", mmap(TOO_MUCH, READ_WRITE, 0));
    must(mmap(MIB, READ_WRITE, 0), "mmap");
    0
}

/// Another memory call comes between.
fn interrupted(own: &mut Own) -> c_int {
    let page = must(mmap(PAGE, PROT_NONE, 0), "mmap");
    refused(own, "mmap", "hugetlb", mmap(4 * MIB, READ_WRITE, MAP_HUGETLB));
    must(munmap(page, PAGE), "munmap");
    must(mmap(4 * MIB, READ_WRITE, 0), "mmap");
    0
}

fn another_thread(own: &mut Own) -> c_int {
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (give, given) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if asked.recv().is_ok() {
            must(mmap(4 * MIB, READ_WRITE, 0), "mmap");
            let _ = give.send(());
        }
        // Its stack is not unmapped before the process ends.
        std::thread::park();
    });
    refused(own, "mmap", "hugetlb", mmap(4 * MIB, READ_WRITE, MAP_HUGETLB));
    if ask.send(()).is_err() || given.recv().is_err() {
        die(99, format_args!("the other thread is gone"));
    }
    0
}

fn another_access(own: &mut Own) -> c_int {
    refused(own, "mmap", "hugetlb", mmap(4 * MIB, READ_WRITE, MAP_HUGETLB));
    must(mmap(4 * MIB, PROT_READ, 0), "mmap");
    0
}

/// The same call once more, with more room.
fn again(own: &mut Own) -> c_int {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid structure.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut old) };
    limit(libc::RLIMIT_AS, PAGE);
    for _ in 0..2 {
        refused(own, "mmap", "rlimit_as", mmap(MIB, READ_WRITE, 0));
    }
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const old) };
    must(mmap(MIB, READ_WRITE, 0), "mmap");
    0
}

/// What the GNU C library's malloc does in a thread that is to have a heap of its own and gets none: reservations are
/// refused, then a mapping of what is needed (bytes, flags) is asked for, which is refused if it is as large as a heap.
fn no_own_heap(own: &mut Own, reservations: &[usize], (bytes, flags): (usize, c_int)) -> c_int {
    limit(libc::RLIMIT_AS, HEAP / 2);
    for reserved in reservations {
        refused(own, "mmap", "rlimit_as", mmap(*reserved, PROT_NONE, MAP_NORESERVE));
    }
    let answer = mmap(bytes, READ_WRITE, flags);
    if bytes < HEAP {
        must(answer, "mmap");
    } else {
        refused(own, "mmap", "rlimit_as", answer);
    }
    0
}

/// The C library's own malloc, in threads that get no heap of their own; how often it asks for one is its affair.
fn malloc_in_threads(_: &mut Own) -> c_int {
    limit(libc::RLIMIT_AS, HEAP / 2);
    for _ in 0..4 {
        let thread = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(|| (0..10).map(|n| std::hint::black_box(vec![n as u8; 100]).len()).sum::<usize>());
        match thread.map(std::thread::JoinHandle::join) {
            Ok(Ok(1000)) => {}
            other => die(99, format_args!("a thread: {other:?}")),
        }
    }
    0
}

/// The same in one that gets nothing at all, for a moment: nothing else may ask for memory then, nor may the thread before.
fn malloc_in_vain(_: &mut Own) -> c_int {
    extern "C" fn ask(_: *mut libc::c_void) -> *mut libc::c_void {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: valid structures; what malloc gives is not used, and the compiler must not know.
        unsafe {
            libc::getrlimit(libc::RLIMIT_AS, &raw mut old);
            let least = libc::rlimit { rlim_cur: PAGE as libc::rlim_t, ..old };
            libc::setrlimit(libc::RLIMIT_AS, &raw const least);
            let got = std::hint::black_box(libc::malloc(std::hint::black_box(32 * MIB)));
            libc::setrlimit(libc::RLIMIT_AS, &raw const old);
            got
        }
    }
    let (mut thread, mut got) = (0, std::ptr::null_mut());
    // SAFETY: a function of the right type, and places for its answers.
    let done = unsafe {
        libc::pthread_create(&raw mut thread, std::ptr::null(), ask, std::ptr::null_mut()) == 0
            && libc::pthread_join(thread, &raw mut got) == 0
    };
    if !done || !got.is_null() {
        die(99, format_args!("malloc in a thread was given {got:?}"));
    }
    1
}

fn probe(own: &mut Own, status: c_int) -> c_int {
    limit(libc::RLIMIT_AS, 8 << 30);
    refused(own, "mmap", "rlimit_as", mmap(6 * TIB, PROT_NONE, MAP_NORESERVE));
    status
}

/// A probe is refused, then real needs.
fn probe_hides_needs(own: &mut Own) -> c_int {
    limit(libc::RLIMIT_AS, 1 << 30);
    refused(own, "mmap", "rlimit_as", mmap(TIB, PROT_NONE, MAP_NORESERVE));
    for _ in 0..5 {
        refused(own, "mmap", "rlimit_as", mmap(2 << 30, PROT_NONE, MAP_NORESERVE));
    }
    0
}

/// The address space is filled up, then more is asked for.
fn full_address_space(own: &mut Own) -> c_int {
    for bytes in [TIB, 1 << 30, MIB] {
        while mmap(bytes, PROT_NONE, MAP_NORESERVE).is_ok() {}
        own.refuse("mmap", libc::ENOMEM, "no_address_range");
    }
    for _ in 0..5 {
        refused(own, "mmap", "no_address_range", mmap(MIB, PROT_NONE, MAP_NORESERVE));
    }
    0
}

/// A probe is refused, then files that the program needs.
fn library(own: &mut Own) -> c_int {
    let Ok(file) = std::fs::File::open("/proc/self/exe") else { die(99, format_args!("no own file")) };
    limit(libc::RLIMIT_AS, 1 << 30);
    refused(own, "mmap", "rlimit_as", mmap(TIB, PROT_NONE, MAP_NORESERVE));
    for _ in 0..5 {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file) as usize;
        let arguments = [0, 2 << 30, PROT_READ as usize, libc::MAP_PRIVATE as usize, fd, 0];
        refused(own, "mmap", "rlimit_as", call(libc::SYS_mmap, arguments));
    }
    0
}

/// Refusals from two places: so many here, so many there.
pub fn sites(here: usize, there: usize) -> ! {
    let mut own = Own::new("outcomes", count(), 0);
    for _ in 0..here {
        first_place(&mut own);
    }
    for n in 0..there {
        second_place(&mut own, n);
    }
    own.last = Some(count());
    own.peak = 0;
    own.print();
    leave(0)
}

#[inline(never)]
fn first_place(own: &mut Own) {
    refused(own, "mmap", "overcommit", mmap_here(std::hint::black_box(TOO_MUCH)));
}

#[inline(never)]
fn second_place(own: &mut Own, n: usize) {
    refused(own, "mmap", "overcommit", mmap_here(std::hint::black_box(TOO_MUCH) + (n + 1) * MIB));
}

/// By the C library's own function, so that the caller is the one who calls this.
#[inline(always)]
fn mmap_here(bytes: usize) -> Result<usize, Errno> {
    // SAFETY: new memory where the kernel likes.
    let answer = unsafe { libc::mmap(std::ptr::null_mut(), bytes, READ_WRITE, PRIVATE, -1, 0) };
    if answer == libc::MAP_FAILED { Err(errno()) } else { Ok(answer as usize) }
}
