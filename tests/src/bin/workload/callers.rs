//! A call that is refused below many callers, none of which keeps a frame pointer.

use std::hint::black_box;

use libc::{PROT_NONE, RLIMIT_AS};

use crate::memory::{die, leave, mmap};

/// Larger than the limit, smaller than what a process has of addresses.
const TOO_MUCH: usize = 1 << 33;
/// Bytes of each caller's frame, at least.
const FRAME: usize = 512;

/// Is refused a mapping `depth` calls deep, in the first thread or in another.
pub fn run(depth: usize, in_thread: bool) -> ! {
    let limit = libc::rlimit { rlim_cur: 1 << 32, rlim_max: 1 << 32 };
    // SAFETY: a valid limit that outlives the call.
    unsafe { libc::setrlimit(RLIMIT_AS, &raw const limit) };
    if in_thread {
        if std::thread::spawn(move || below(depth)).join().is_err() {
            die(99, format_args!("the thread panicked"));
        }
    } else {
        below(depth);
    }
    leave(0)
}

/// `left` more calls, and then the refused one.
#[inline(never)]
fn below(left: usize) -> usize {
    let frame = black_box([left as u8; FRAME]);
    let answer = match left {
        0 => mmap(TOO_MUCH, PROT_NONE, 0).unwrap_or(0),
        _ => below(left - 1),
    };
    // What is used behind the call keeps it from being a jump.
    answer + usize::from(black_box(frame)[0])
}
