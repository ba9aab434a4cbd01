//! One process, its VMAs, an exactly known history.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};

use libc::{MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE};

use crate::memory::{
    Holes, PAGE, brk, call, die, leave, mmap, mmap_at, mprotect, mremap, munmap, must, read, write_all,
};
use crate::own::{Own, count, counted, looked};

/// Maps `n` single pages and unmaps them at once; the maximum lasts for one call.
pub fn burst(role: &'static str, n: usize) -> ! {
    let holes = Holes::find(n);
    let base = count();
    up_and_down(holes, base);
    counted(base, "burst, end");
    let mut own = Own::new(role, base, base + n as u64);
    own.last = Some(base);
    own.print();
    leave(0)
}

/// Makes the stack grow page by page, which takes a write section each and adds no mapping.
pub fn deep_stack(kib: usize) -> ! {
    #[inline(never)]
    fn deeper(kib: usize) -> u64 {
        let page = std::hint::black_box([1u8; 1024]);
        if kib == 0 { 0 } else { deeper(kib - 1) + u64::from(page[kib % 1024]) }
    }
    let base = count();
    std::hint::black_box(deeper(kib));
    counted(base, "with a deep stack");
    Own::new("deep-stack", base, base).print();
    leave(0)
}

/// All pages of `holes` mapped, then unmapped, from a count of `base`.
pub fn up_and_down(holes: Holes, base: u64) {
    for i in 0..holes.pages() {
        holes.map(i);
    }
    looked(base + holes.pages() as u64, "at the peak");
    for i in 0..holes.pages() {
        holes.unmap(i);
    }
}

/// Unmaps every second page of one region: each munmap splits, and the count is seen at a read release only.
pub fn holes(n: usize) -> ! {
    let region = must(mmap((2 * n + 1) * PAGE, PROT_NONE, MAP_NORESERVE), "mmap of the region");
    let base = count();
    for i in 0..n {
        must(munmap(region + (2 * i + 1) * PAGE, PAGE), "munmap of a middle page");
    }
    stay("holes", base, base + n as u64)
}

/// Maps three pages below the stack, nearer to it than all else, and unmaps the upper two, `n` times. Its neighbour is
/// then a mapping that may grow down, for which some kernels keep the write lock to the end of munmap (6.1,
/// mm/mmap.c:do_mas_align_munmap).
pub fn below_stack(n: usize) -> ! {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).and_then(|line| line.split('-').next());
    let Some(stack) = stack.and_then(|start| usize::from_str_radix(start, 16).ok()) else {
        die(99, format_args!("no [stack] in /proc/self/maps"))
    };
    // Below what the stack may grow to (RLIMIT_STACK, usually 8 MiB), and its guard gap of 1 MiB.
    let at = stack - (16 << 20);
    let base = count();
    for i in 0..n {
        must(mmap_at(at, 3 * PAGE, PROT_NONE), "mmap below the stack");
        must(mprotect(at + PAGE, PAGE, PROT_READ), "mprotect of the middle");
        looked(base + 3, "below the stack");
        must(munmap(at + PAGE, 2 * PAGE), "munmap of the upper two pages");
        looked(base + 1, "two of three gone");
        if i + 1 < n {
            must(munmap(at, PAGE), "munmap of the last page");
        }
    }
    counted(base + 1, "at the end");
    let mut own = Own::new("below-stack", base, base + 3);
    own.last = Some(base + 1);
    own.print();
    leave(0)
}

/// Shrinks two pages to one by mremap inside a larger region: each call makes a hole.
pub fn shrink(n: usize) -> ! {
    let region = must(mmap((2 * n + 1) * PAGE, PROT_NONE, MAP_NORESERVE), "mmap of the region");
    let base = count();
    for i in 0..n {
        must(mremap(region + 2 * i * PAGE, 2 * PAGE, PAGE, 0), "mremap to half the length");
    }
    stay("shrink", base, base + n as u64)
}

/// The heap split by mprotect, then taken away by one brk.
pub fn brk_shrink(n: usize) -> ! {
    let before = brk(0);
    let start = before.next_multiple_of(PAGE);
    let end = start + 2 * n * PAGE;
    if brk(end) != end {
        die(99, format_args!("brk to {end:#x} was refused"));
    }
    let base = count();
    for i in 0..n {
        must(mprotect(start + (2 * i + 1) * PAGE, PAGE, PROT_READ), "mprotect of a heap page");
    }
    // Each of them adds two, but the last has no page above it.
    let peak = base + 2 * n as u64 - 1;
    looked(peak, "heap split");
    if brk(start) != start {
        die(99, format_args!("brk back to {start:#x} was refused"));
    }
    counted(base, "heap given back");
    let mut own = Own::new("brk-shrink", base, peak);
    own.last = Some(base);
    own.print();
    leave(0)
}

fn stay(role: &'static str, base: u64, peak: u64) -> ! {
    counted(peak, "at the end");
    let mut own = Own::new(role, base, peak);
    own.last = Some(peak);
    own.print();
    leave(0)
}

/// vm.max_map_count now.
pub fn max_map_count() -> u64 {
    let mut buffer = [0; 64];
    let text = crate::memory::read_text(b"/proc/sys/vm/max_map_count\0", &mut buffer);
    text.trim().parse().unwrap_or_else(|_| die(99, format_args!("vm.max_map_count reads {text:?}")))
}

/// The StackOverflow program: twice the limit in single pages, which merge into one VMA; then every second page goes,
/// until the limit refuses the split and the memory stays mapped.
pub fn stackoverflow(limit: Option<u64>) -> ! {
    let pages = 2 * limit.unwrap_or_else(max_map_count) as usize;
    let room = must(mmap(pages * size_of::<usize>(), PROT_READ | PROT_WRITE, 0), "mmap of the list");
    // SAFETY: the mapping was just made for `pages` words, is aligned, zero-filled and used by nobody else.
    let list = unsafe { std::slice::from_raw_parts_mut(room as *mut usize, pages) };
    let base = count();
    for page in list.iter_mut() {
        *page = must(mmap(PAGE, PROT_READ | PROT_WRITE, 0), "mmap of one page");
    }
    let merged = count();
    let mut own = Own::new("stackoverflow", base, merged);
    for page in list.iter().skip(1).step_by(2) {
        if let Err(errno) = munmap(*page, PAGE) {
            own.refuse("munmap", errno, "max_map_count");
            own.leaked_bytes += PAGE as u64;
        }
    }
    own.peak = count();
    own.last = Some(own.peak);
    if own.leaked_bytes > 0 && own.peak != max_map_count() {
        die(98, format_args!("munmap was refused with {} VMAs", own.peak));
    }
    own.print();
    leave(0)
}

/// At the limit, two pages are refused to be unmapped `n` times each; then there is room, and the second one goes.
pub fn retries(n: usize) -> ! {
    let max = max_map_count();
    let pages = [0; 2].map(|_| PAGE + must(mmap(3 * PAGE, PROT_NONE, MAP_NORESERVE), "mmap"));
    let holes = Holes::find(max as usize);
    let base = count();
    let free = (max - base) as usize;
    (0..free).for_each(|i| holes.map(i));
    let mut own = Own::new("retries", base, max);
    for page in pages {
        for _ in 0..n {
            match munmap(page, PAGE) {
                Err(errno) => own.refuse("munmap", errno, "max_map_count"),
                Ok(_) => {
                    die(99, format_args!("munmap in a mapping's middle succeeded with {} VMAs", count()))
                }
            }
        }
    }
    holes.unmap(0);
    must(munmap(pages[1], PAGE), "munmap with room for a split");
    own.leaked_bytes = PAGE as u64;
    own.last = Some(max);
    counted(max, "retries, end");
    own.print();
    leave(0)
}

/// `n` times mremap with an old length that the kernel rounds to 0, which for shared memory asks for a second mapping:
/// refused without MREMAP_MAYMOVE, and nothing was to be unmapped.
pub fn mremap_all(n: usize) -> ! {
    let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
    let page = must(call(libc::SYS_mmap, [0, PAGE, PROT_READ as usize, flags, usize::MAX, 0]), "mmap");
    let base = count();
    let mut own = Own::new("mremap-all", base, base);
    for _ in 0..n {
        match call(libc::SYS_mremap, [page, usize::MAX, PAGE, 0, 0, 0]) {
            Err(errno) => own.refuse("mremap", errno, "no_address_range"),
            Ok(_) => die(99, format_args!("mremap of shared memory with a length of 0 succeeded in place")),
        }
    }
    own.last = Some(base);
    own.print();
    leave(0)
}

/// `threads` threads, each with `n` pages of its own, all at their maximum at the same moment.
pub fn threads(threads: usize, n: usize) -> ! {
    // Stacks, thread records and allocator arenas exist before the room is sought and `base` is taken; from then on
    // only raw calls are made.
    static ROOM: OnceLock<Holes> = OnceLock::new();
    let barrier: &'static Barrier = Box::leak(Box::new(Barrier::new(threads + 1)));
    for t in 0..threads {
        std::thread::spawn(move || {
            barrier.wait();
            barrier.wait();
            let Some(holes) = ROOM.get() else { die(99, format_args!("no room was set")) };
            (t * n..(t + 1) * n).for_each(|i| holes.map(i));
            barrier.wait();
            barrier.wait();
            (t * n..(t + 1) * n).for_each(|i| holes.unmap(i));
            barrier.wait();
            loop {
                std::thread::park();
            }
        });
    }
    barrier.wait();
    ROOM.get_or_init(|| Holes::find(threads * n));
    let base = count();
    let peak = base + (threads * n) as u64;
    barrier.wait();
    barrier.wait();
    looked(peak, "all threads at their maximum");
    barrier.wait();
    barrier.wait();
    counted(base, "threads, end");
    let mut own = Own::new("threads", base, peak);
    own.last = Some(base);
    own.print();
    leave(0)
}

/// The leader ends by the raw call; another thread goes on making VMAs.
pub fn leader_exits(n: usize) -> ! {
    static READY: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(move || {
        let holes = Holes::find(n);
        READY.store(true, Ordering::Release);
        wait_for_zombie_leader();
        let base = count();
        up_and_down(holes, base);
        counted(base, "leader gone, end");
        let mut own = Own::new("leader-exits", base, base + n as u64);
        own.last = Some(base);
        own.print();
        leave(0)
    });
    while !READY.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    must(call(libc::SYS_exit, [0; 6]), "exit of the leader");
    leave(99)
}

fn wait_for_zombie_leader() {
    loop {
        let mut buffer = [0; 1024];
        let stat = crate::memory::read_text(b"/proc/self/stat\0", &mut buffer);
        if stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
            return;
        }
        pause_ms(1);
    }
}

/// Sleeps.
pub fn pause_ms(ms: u64) {
    pause_ns(ms * 1_000_000);
}

/// Sleeps.
pub fn pause_ns(ns: u64) {
    let time = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    let _ = call(libc::SYS_nanosleep, [&raw const time as usize, 0, 0, 0, 0, 0]);
}

/// For `-p`: `n` VMAs that are there before, then at each byte on stdin `n` more for a moment.
///
/// Prints a line when the first `n` stand and after each burst; ends at end of file.
pub fn attach(n: usize) -> ! {
    let holes = Holes::find(2 * n);
    let before = count();
    (0..n).for_each(|i| holes.map(i));
    let base = before + n as u64;
    counted(base, "attach, standing");
    let mut own = Own::new("standing", base, base);
    own.last = Some(base);
    own.print();
    let mut byte = [0; 1];
    while read(0, &mut byte) == 1 {
        (n..2 * n).for_each(|i| holes.map(i));
        looked(base + n as u64, "attach, at the peak");
        (n..2 * n).for_each(|i| holes.unmap(i));
        counted(base, "attach, after the burst");
        own.role = "after-burst";
        own.peak = base + n as u64;
        own.print();
    }
    leave(0)
}

/// Maps `n` single pages and unmaps them, round after round until stdin ends. Says when it begins, and of each byte that comes
/// when a whole round has passed since.
pub fn around(n: usize) -> ! {
    let holes = Holes::find(n);
    let base = count();
    write_all(1, b"around\n");
    let mut asked = false;
    loop {
        up_and_down(holes, base);
        if std::mem::take(&mut asked) {
            write_all(1, b"again\n");
        }
        let mut stdin = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let [it, time] = [&raw mut stdin as usize, &raw const at_once as usize];
        if must(call(libc::SYS_ppoll, [it, 1, time, 0, 0, 0]), "ppoll") > 0 {
            asked = read(0, &mut [0; 1]) == 1;
            if !asked {
                leave(0);
            }
        }
    }
}

/// Gives itself a name that would colour a terminal, shows a few VMAs, and ends.
pub fn setname(name: &[u8], n: usize) -> ! {
    let mut comm = [0_u8; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    must(
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, comm.as_ptr() as usize, 0, 0, 0, 0]),
        "PR_SET_NAME",
    );
    burst("setname", n)
}

/// Copies stdin to stdout.
pub fn cat() -> ! {
    let mut buffer = [0; 65536];
    loop {
        match read(0, &mut buffer) {
            0 => leave(0),
            n => write_all(1, &buffer[..n]),
        }
    }
}
