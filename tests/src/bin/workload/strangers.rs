//! A crowd in which everybody is called otherwise and is refused something.

use libc::{MAP_HUGETLB, MAP_NORESERVE, MREMAP_MAYMOVE, PROT_NONE, PROT_READ, PROT_WRITE};

use crate::causes::limit;
use crate::memory::{Holes, PAGE, call, die, leave, madvise, mlock, mmap, mprotect, mremap, must};
use crate::own::{Own, Refused, count};
use crate::processes::{AT_ONCE, End, MOST, expect_end, fork, pids, reap};

/// Calls that a stranger is refused, all for lack of something.
const REFUSED_TO_STRANGERS: [&str; 5] = ["mmap", "mprotect", "madvise", "mlock", "mremap"];

/// Refused to each of the needy, and why.
const REFUSED_TO_THE_NEEDY: [(&str, &str); 7] = [
    ("mmap", "hugetlb"),
    ("mmap", "no_address_range"),
    ("mmap", "overcommit"),
    ("mprotect", "range_not_mapped"),
    ("mlock", "range_not_mapped"),
    ("mmap", "rlimit_as"),
    ("mremap", "rlimit_as"),
];

/// `n` short-lived children, a few at a time, each of which is refused the same many kinds of calls.
pub fn needy(n: usize) -> ! {
    let pids = pids(n);
    let holes = Holes::find(2);
    let base = count();
    for i in 0..n {
        if i >= AT_ONCE {
            expect_end(pids[i - AT_ONCE], reap(pids[i - AT_ONCE]), End::Exit);
        }
        pids[i] = fork();
        if pids[i] == 0 {
            one_in_need(holes);
        }
    }
    for &child in &pids[n.saturating_sub(AT_ONCE)..] {
        expect_end(child, reap(child), End::Exit);
    }
    let mut own = Own::new("needy", base, base);
    for ((call, cause), refused) in REFUSED_TO_THE_NEEDY.into_iter().zip(&mut own.refused) {
        *refused = Some(Refused { call, errno: libc::ENOMEM, cause, count: n as u64 });
    }
    own.print();
    leave(0)
}

fn one_in_need(holes: Holes) -> ! {
    const MIB: usize = 1 << 20;
    const READ_WRITE: i32 = PROT_READ | PROT_WRITE;
    holes.map(0);
    let mut answers = [Ok(0); REFUSED_TO_THE_NEEDY.len()];
    answers[0] = mmap(4 * MIB, READ_WRITE, MAP_HUGETLB);
    answers[1] = mmap(1 << 47, PROT_NONE, MAP_NORESERVE);
    answers[2] = mmap(1 << 46, READ_WRITE, 0);
    answers[3] = mprotect(holes.at(1), PAGE, PROT_READ);
    answers[4] = mlock(holes.at(1), PAGE);
    limit(libc::RLIMIT_AS, 16 * MIB);
    answers[5] = mmap(256 * MIB, READ_WRITE, 0);
    answers[6] = mremap(holes.at(0), PAGE, 256 * MIB, MREMAP_MAYMOVE);
    for (answer, (call, cause)) in answers.into_iter().zip(REFUSED_TO_THE_NEEDY) {
        if answer != Err(libc::ENOMEM) {
            die(99, format_args!("{call} for {cause} ended with {answer:?}"));
        }
    }
    leave(0)
}

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
