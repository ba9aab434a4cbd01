//! Tasks that are named after what they do, as test runners name their threads.

use std::sync::{Barrier, OnceLock};

use libc::{PROT_READ, PROT_WRITE};

use crate::memory::{Holes, call, die, leave, mmap, must};
use crate::own::{Own, count, counted};

/// More than any machine promises, less than there are addresses.
const TOO_MUCH: usize = 1 << 42;

/// This task has the name `case-T` from now on.
fn rename(t: usize) {
    let mut name = *b"case-\0\0\0\0";
    let (mut rest, mut length) = (t, 1 + usize::from(t > 9) + usize::from(t > 99));
    while length > 0 {
        name[4 + length] = b'0' + (rest % 10) as u8;
        (rest, length) = (rest / 10, length - 1);
    }
    must(call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]), "prctl");
}

/// `n` pages mapped, `t` calls refused, then the pages unmapped.
fn work(holes: Holes, n: usize, t: usize) {
    (0..n).for_each(|i| holes.map(i));
    for _ in 0..t {
        if mmap(TOO_MUCH, PROT_READ | PROT_WRITE, 0).is_ok() {
            die(99, format_args!("a mapping of {TOO_MUCH} bytes was granted"));
        }
    }
    (0..n).for_each(|i| holes.unmap(i));
}

/// Tasks `case-0`, `case-1` and so on, `t` of them; number `i` maps and unmaps `n + i` pages, and is refused `i` calls.
/// `how`: `threads`, one after the other; `together`, page by page in turns, all mapped before the first is unmapped;
/// `renames`, one task with one name after the other; `many`, the same with `n` pages each and no refusals.
pub fn named(how: &'static str, t: usize, n: usize) -> ! {
    static ROOM: OnceLock<Holes> = OnceLock::new();
    if how == "renames" || how == "many" {
        let more = if how == "many" { 0 } else { 1 };
        let holes = Holes::find(n + t);
        let base = count();
        for i in 0..t {
            rename(i);
            work(holes, n + i * more, i * more);
        }
        end(base, base + (n + (t - 1) * more) as u64);
    }
    let barrier: &'static Barrier = Box::leak(Box::new(Barrier::new(t + 1)));
    let room = || ROOM.get().copied().unwrap_or_else(|| die(99, format_args!("no room was set")));
    for i in 0..t {
        std::thread::spawn(move || {
            barrier.wait();
            barrier.wait();
            if how == "threads" {
                for turn in 0..t {
                    if turn == i {
                        rename(i);
                        work(room(), n + i, i);
                    }
                    barrier.wait();
                }
            } else {
                rename(i);
                for page in 0..n {
                    for turn in 0..t {
                        if turn == i {
                            room().map(page * t + i);
                        }
                        barrier.wait();
                    }
                }
                (0..n).for_each(|page| room().unmap(page * t + i));
                barrier.wait();
            }
            loop {
                std::thread::park();
            }
        });
    }
    barrier.wait();
    // Stacks, thread records and allocator arenas are there; from now on only raw calls are made.
    ROOM.get_or_init(|| Holes::find((n + t) * t));
    let base = count();
    barrier.wait();
    let waits = if how == "threads" { t } else { n * t + 1 };
    for _ in 0..waits {
        barrier.wait();
    }
    let most = if how == "threads" { n + t - 1 } else { n * t };
    end(base, base + most as u64)
}

fn end(base: u64, peak: u64) -> ! {
    counted(base, "named, end");
    let mut own = Own::new("named", base, peak);
    own.last = Some(base);
    own.print();
    leave(0)
}
