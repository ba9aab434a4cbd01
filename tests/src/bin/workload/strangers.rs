//! A crowd in which everybody is called otherwise and is refused something.

use libc::PROT_READ;

use crate::memory::{Holes, PAGE, call, die, leave, madvise, mlock, mmap, mprotect, mremap, must};
use crate::own::{Own, Refused, count};
use crate::processes::{AT_ONCE, End, MOST, expect_end, fork, pids, reap};

/// Calls that a stranger is refused, all for lack of something.
const REFUSED_TO_STRANGERS: [&str; 5] = ["mmap", "mprotect", "madvise", "mlock", "mremap"];

/// `n` short-lived children, a few at a time, each under a name of its own. Child `i` maps `i` mod 17 pages and one more,
/// and makes one call in vain, up to three times.
pub fn strangers(n: usize) -> ! {
    let pids = pids(n);
    let holes = Holes::find(MOST);
    let base = count();
    for i in 0..n {
        if i >= AT_ONCE {
            expect_end(pids[i - AT_ONCE], reap(pids[i - AT_ONCE]), End::Exit);
        }
        pids[i] = fork();
        if pids[i] == 0 {
            stranger(i, holes);
        }
    }
    for &child in &pids[n.saturating_sub(AT_ONCE)..] {
        expect_end(child, reap(child), End::Exit);
    }
    let mut own = Own::new("strangers", base, base);
    for (kind, (call, refused)) in REFUSED_TO_STRANGERS.iter().zip(&mut own.refused).enumerate() {
        let count = (0..n).filter(|i| i % REFUSED_TO_STRANGERS.len() == kind).map(|i| 1 + i as u64 % 3).sum();
        *refused = Some(Refused { call, errno: libc::ENOMEM, cause: "any", count });
    }
    own.print();
    leave(0)
}

fn stranger(i: usize, holes: Holes) -> ! {
    const HUGE: usize = 1 << 42;
    let mut name = [0_u8; 16];
    for (digit, to) in name.iter_mut().take(15).enumerate() {
        *to = b'a' + (i >> (2 * digit) & 3) as u8;
    }
    must(
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]),
        "PR_SET_NAME",
    );
    (0..=i % 17).for_each(|page| holes.map(page));
    let free = holes.at(MOST - 1);
    for _ in 0..=i % 3 {
        let answer = match REFUSED_TO_STRANGERS[i % REFUSED_TO_STRANGERS.len()] {
            "mmap" => mmap(HUGE << 8, PROT_READ, 0),
            "mprotect" => mprotect(free, PAGE, PROT_READ),
            "madvise" => madvise(free, PAGE, libc::MADV_DONTNEED),
            "mlock" => mlock(free, PAGE),
            _ => mremap(holes.at(0), PAGE, HUGE, 0),
        };
        if answer != Err(libc::ENOMEM) {
            die(99, format_args!("a stranger's call {i} ended with {answer:?}"));
        }
    }
    leave(0)
}
