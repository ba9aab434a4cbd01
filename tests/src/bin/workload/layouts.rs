//! Address spaces in pieces, as programs make them, and the same after following what `explain` advises.
//!
//! Each case makes its layout, says on stdout how many VMAs that added (`standing N`), and stands until stdin ends. The
//! second word is `before` or `after`.

use std::fmt::Write as _;
use std::sync::{Arc, Barrier};

use libc::{
    MADV_DONTDUMP, MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_SHARED, PROT_NONE, PROT_READ,
    PROT_WRITE, c_int,
};

use crate::memory::{
    Line, PAGE, call, die, leave, madvise, mmap, mmap_at, mprotect, munmap, must, read, write_all,
};
use crate::own::count;

const RW: c_int = PROT_READ | PROT_WRITE;
/// MADV_GUARD_INSTALL (include/uapi/asm-generic/mman-common.h, since 6.13).
const GUARD_INSTALL: c_int = 102;
/// A piece that is longer than a guard page can be, bytes.
const PIECE: usize = 128 << 10;
/// What a WebAssembly memory reserves, bytes.
const CAGE: usize = 10 << 30;

/// Makes the layout `name` with `n` pieces; `after`: the advice is followed.
pub fn run(name: &str, after: bool, n: usize) -> ! {
    let before = count();
    match name {
        "file-ascending" => file_ascending(after, n),
        "file-again" => file_again(after, n),
        "file-parts" => file_parts(after, n),
        "holes" => holes(after, n),
        "decommit" => decommit(after, n),
        "every-second" => every_second(after, n),
        "shared" | "memfd" => shared(name, after, n),
        "deleted" => deleted(after, n),
        "bind" => bind(after, n),
        "dontdump" => dontdump(after, n),
        "commit" => commit(after, n),
        "account" => account(after, false, n),
        "account-reserved" => account(false, after, n),
        "wasm" => wasm(after, n),
        "threads" => threads(after, n, before),
        "arenas" => arenas(n, before),
        _ => die(2, format_args!("no such layout: {name}")),
    }
    stand(before)
}

fn stand(before: u64) -> ! {
    let mut line = Line::new();
    let _ = writeln!(line, "standing {}", count() - before);
    write_all(1, line.bytes());
    while read(0, &mut [0; 16]) > 0 {}
    leave(0)
}

/// A file of `bytes` in the folder for temporary files, which keeps its name.
fn file(bytes: usize) -> usize {
    let name = std::env::temp_dir().join(format!("vmaudit-layout-{}.bin", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&name);
    let file = file.unwrap_or_else(|e| die(99, format_args!("{}: {e}", name.display())));
    file.set_len(bytes as u64).unwrap_or_else(|e| die(99, format_args!("size of a file: {e}")));
    std::os::fd::IntoRawFd::into_raw_fd(file) as usize
}

fn map_file(fd: usize, at: usize, bytes: usize, offset: usize) -> usize {
    let flags = MAP_SHARED | if at == 0 { 0 } else { MAP_FIXED };
    must(call(libc::SYS_mmap, [at, bytes, PROT_READ as usize, flags as usize, fd, offset]), "mmap of a file")
}

fn file_ascending(after: bool, n: usize) {
    let fd = file(n * PAGE);
    if after {
        // As the advice says: from its end to its beginning.
        (0..n).rev().for_each(|i| _ = map_file(fd, 0, PAGE, i * PAGE));
    } else {
        (0..n).for_each(|i| _ = map_file(fd, 0, PAGE, i * PAGE));
    }
}

fn file_again(after: bool, n: usize) {
    let fd = file(PAGE);
    (0..if after { 1 } else { n }).for_each(|_| _ = map_file(fd, 0, PAGE, 0));
}

fn file_parts(after: bool, n: usize) {
    let fd = file(2 * n * PAGE);
    if after {
        map_file(fd, 0, 2 * n * PAGE, 0);
    } else {
        (0..n).rev().for_each(|i| _ = map_file(fd, 0, PAGE, 2 * i * PAGE));
    }
}

fn holes(after: bool, n: usize) {
    let start = must(mmap(2 * n * PAGE, RW, MAP_NORESERVE), "mmap");
    for i in 0..n {
        let at = start + (2 * i + 1) * PAGE;
        must(if after { madvise(at, PAGE, MADV_DONTNEED) } else { munmap(at, PAGE) }, "giving back");
    }
}

/// jemalloc with vm.overcommit_memory = 2: live pieces and holes of many sizes.
fn decommit(after: bool, n: usize) {
    let start = must(mmap(n * 32 * PAGE, RW, MAP_NORESERVE), "mmap");
    let (mut at, mut seed) = (start, 1_u32);
    for _ in 0..n {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        at += PAGE * (4 + (seed >> 16) as usize % 24);
        let hole = PAGE * (1 + (seed >> 8) as usize % 3);
        must(
            if after { madvise(at, hole, MADV_DONTNEED) } else { mmap_at(at, hole, PROT_NONE) },
            "decommitting",
        );
        at += hole;
    }
}

/// Every second page is made read-only; advised: half of them in one piece.
fn every_second(after: bool, n: usize) {
    let start = must(mmap(2 * n * PAGE, RW, MAP_NORESERVE), "mmap");
    if after {
        must(mprotect(start, n * PAGE, PROT_READ), "mprotect");
    } else {
        (0..n).for_each(|i| _ = must(mprotect(start + 2 * i * PAGE, PAGE, PROT_READ), "mprotect"));
    }
}

fn shared(name: &str, after: bool, n: usize) {
    let one = |bytes: usize| match name {
        "memfd" => {
            let fd = must(call(libc::SYS_memfd_create, [c"piece".as_ptr() as usize, 0, 0, 0, 0, 0]), "memfd");
            must(call(libc::SYS_ftruncate, [fd, bytes, 0, 0, 0, 0]), "ftruncate");
            map_file(fd, 0, bytes, 0);
            must(call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]), "close");
        }
        _ => {
            let flags = (MAP_SHARED | MAP_ANONYMOUS) as usize;
            must(call(libc::SYS_mmap, [0, bytes, RW as usize, flags, usize::MAX, 0]), "mmap");
        }
    };
    if after { one(n * PAGE) } else { (0..n).for_each(|_| one(PAGE)) }
}

/// Pieces of shared anonymous memory, every second of them read-only, until one is refused.
pub fn shared_until_refused() -> ! {
    let flags = (MAP_SHARED | MAP_ANONYMOUS) as usize;
    let pieces = (0_usize..).take_while(|i| {
        let prot = if i.is_multiple_of(2) { RW } else { PROT_READ };
        call(libc::SYS_mmap, [0, PAGE, prot as usize, flags, usize::MAX, 0]).is_ok()
    });
    if pieces.count() == 0 {
        die(99, format_args!("not one piece"));
    }
    leave(0)
}

/// Files of a folder, mapped and removed; advised: unmapped too.
fn deleted(after: bool, n: usize) {
    let folder = std::env::temp_dir();
    for i in 0..n {
        let name = folder.join(format!("vmaudit-layout-{}-{i}.dvd", std::process::id()));
        std::fs::write(&name, [0; PAGE]).unwrap_or_else(|e| die(99, format_args!("a file: {e}")));
        let file = std::fs::File::open(&name).unwrap_or_else(|e| die(99, format_args!("a file: {e}")));
        let at = map_file(std::os::fd::AsRawFd::as_raw_fd(&file) as usize, 0, PAGE, 0);
        std::fs::remove_file(&name).unwrap_or_else(|e| die(99, format_args!("a file: {e}")));
        if after {
            must(munmap(at, PAGE), "munmap");
        }
    }
}

/// Every second chunk of a slab is bound to the first node; advised: the slab as a whole.
fn bind(after: bool, n: usize) {
    const CHUNK: usize = 4 * PAGE;
    let start = must(mmap(n * CHUNK, RW, MAP_NORESERVE), "mmap");
    let mask = 1_u64;
    let bind = |at: usize, bytes: usize| {
        let mask = std::ptr::from_ref(&mask) as usize;
        let arguments = [at, bytes, libc::MPOL_BIND as usize, mask, 64, 0];
        must(call(libc::SYS_mbind, arguments), "mbind");
    };
    if after {
        bind(start, n * CHUNK);
    } else {
        (0..n).step_by(2).for_each(|i| bind(start + i * CHUNK, CHUNK));
    }
}

fn dontdump(after: bool, n: usize) {
    let start = must(mmap(n * PIECE, RW, MAP_NORESERVE), "mmap");
    if after {
        must(madvise(start, n * PIECE, MADV_DONTDUMP), "madvise");
    } else {
        (0..n).step_by(2).for_each(|i| _ = must(madvise(start + i * PIECE, PIECE, MADV_DONTDUMP), "madvise"));
    }
}

/// Every second part of a reservation is made accessible; advised: the first half at once.
fn commit(after: bool, n: usize) {
    let start = must(mmap(n * PIECE, PROT_NONE, MAP_NORESERVE), "mmap");
    if after {
        must(mprotect(start, n / 2 * PIECE, RW), "mprotect");
    } else {
        (0..n).step_by(2).for_each(|i| _ = must(mprotect(start + i * PIECE, PIECE, RW), "mprotect"));
    }
}

/// Every second part of a reservation was accessible once; advised: it is given back by another mapping, or the reservation
/// is MAP_NORESERVE.
fn account(mapped_again: bool, reserved: bool, n: usize) {
    let start = must(mmap(n * PIECE, PROT_NONE, if reserved { MAP_NORESERVE } else { 0 }), "mmap");
    for i in (0..n).step_by(2) {
        let at = start + i * PIECE;
        must(mprotect(at, PIECE, RW), "mprotect");
        // What was never written to is not accounted any more when it is given back (since 6.5).
        must(call(libc::SYS_getrandom, [at, 1, 0, 0, 0, 0]), "writing to a page");
        if mapped_again {
            let flags = (libc::MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) as usize;
            must(call(libc::SYS_mmap, [at, PIECE, PROT_NONE as usize, flags, usize::MAX, 0]), "mmap");
        } else {
            must(mprotect(at, PIECE, PROT_NONE), "mprotect");
        }
    }
}

/// Memories of WebAssembly with room for all that can be addressed; advised: mapped at their size.
fn wasm(after: bool, n: usize) {
    for _ in 0..n {
        let bytes = if after { PIECE } else { CAGE };
        let start = must(mmap(bytes, PROT_NONE, MAP_NORESERVE), "mmap");
        must(mprotect(start, PIECE, RW), "mprotect");
    }
}

/// Threads as the standard library starts them; advised: guards that need no VMA. No thread ends.
fn threads(after: bool, n: usize, before: u64) -> ! {
    let all = Arc::new(Barrier::new(n + 1));
    for _ in 0..n {
        if after {
            thread_with_light_guards(&all);
        } else {
            let all = Arc::clone(&all);
            let stays = move || {
                all.wait();
                pause()
            };
            let started = std::thread::Builder::new().spawn(stays);
            drop(started.unwrap_or_else(|e| die(99, format_args!("a thread: {e}"))));
        }
    }
    all.wait();
    stand(before)
}

fn pause() -> ! {
    loop {
        std::thread::park();
    }
}

/// A thread whose stack and signal stack are guarded by MADV_GUARD_INSTALL.
fn thread_with_light_guards(all: &Arc<Barrier>) {
    extern "C" fn stays(all: *mut libc::c_void) -> *mut libc::c_void {
        let signals = must(mmap(3 * PAGE, RW, 0), "mmap of a signal stack");
        must(madvise(signals, PAGE, GUARD_INSTALL), "guarding a signal stack");
        let stack = libc::stack_t { ss_sp: (signals + PAGE) as *mut _, ss_flags: 0, ss_size: 2 * PAGE };
        // SAFETY: the memory is this thread's own and stays mapped.
        unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
        let (mut stack, mut bytes) = (std::ptr::null_mut(), 0);
        // SAFETY: all pointers are to live variables; the lowest page of a stack of megabytes is not in use.
        unsafe {
            let mut attributes = std::mem::zeroed();
            libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes);
            libc::pthread_attr_getstack(&raw const attributes, &raw mut stack, &raw mut bytes);
            libc::pthread_attr_destroy(&raw mut attributes);
        }
        must(madvise(stack as usize, PAGE, GUARD_INSTALL), "guarding a stack");
        // SAFETY: made by Arc::into_raw for this thread.
        unsafe { Arc::from_raw(all.cast::<Barrier>().cast_const()) }.wait();
        pause()
    }
    let all = Arc::into_raw(Arc::clone(all)).cast_mut().cast();
    // SAFETY: the attributes are initialised before they are used, and the thread takes over its reference.
    let answer = unsafe {
        let (mut attributes, mut thread) = (std::mem::zeroed(), std::mem::zeroed());
        libc::pthread_attr_init(&raw mut attributes);
        libc::pthread_attr_setstacksize(&raw mut attributes, 2 << 20);
        libc::pthread_attr_setguardsize(&raw mut attributes, 0);
        libc::pthread_create(&raw mut thread, &raw const attributes, stays, all)
    };
    if answer != 0 {
        die(99, format_args!("a thread: errno {answer}"));
    }
}

/// Threads that have allocated something each. MALLOC_ARENA_MAX says how many arenas they share.
fn arenas(n: usize, before: u64) -> ! {
    let all = Arc::new(Barrier::new(n + 1));
    for _ in 0..n {
        let all = Arc::clone(&all);
        let stays = move || {
            // SAFETY: takes a number; what it gives is not used.
            std::hint::black_box(unsafe { libc::malloc(64) });
            all.wait();
            pause()
        };
        let started = std::thread::Builder::new().stack_size(64 << 10).spawn(stays);
        drop(started.unwrap_or_else(|e| die(99, format_args!("a thread: {e}"))));
    }
    all.wait();
    stand(before)
}
