//! How large a process is at most: each size by what the kernel's own status file says at that moment.

use libc::{MAP_LOCKED, MAP_NORESERVE, MREMAP_MAYMOVE, PROT_NONE, PROT_READ, PROT_WRITE, c_int};

use crate::causes::limit;
use crate::memory::{
    PAGE, brk, call, die, leave, madvise, mlock, mmap, mmap_at, mprotect, mremap, munmap, must, read_text,
};
use crate::own::{Own, count};

const READ_WRITE: c_int = PROT_READ | PROT_WRITE;
const MIB: usize = 1 << 20;

type Maker = fn(&mut Peaks);

const CASES: &[(&str, Maker)] = &[
    ("up-and-down", up_and_down),
    ("in-place", in_place),
    ("moved", moved),
    ("replaced", replaced),
    ("heap", heap),
    ("locked", locked),
    ("stack", stack),
    ("deep-at-the-peak", deep_at_the_peak),
];

/// The largest of what was seen so far, bytes: address space, data, locked memory, stacks.
pub struct Peaks([usize; 4]);

impl Peaks {
    /// Looks now. No call between a change of a size and this look changes one.
    fn look(&mut self) {
        let mut buffer = [0; 4096];
        let text = read_text(b"/proc/self/status\0", &mut buffer);
        for (peak, name) in self.0.iter_mut().zip(["VmSize:", "VmData:", "VmLck:", "VmStk:"]) {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<usize>().ok());
            match kib {
                Some(kib) => *peak = (*peak).max(kib * 1024),
                None => die(99, format_args!("/proc/self/status has no {name}")),
            }
        }
    }
}

/// Runs one case.
pub fn run(name: &str) -> ! {
    let Some((_, maker)) = CASES.iter().find(|(known, _)| *known == name) else {
        die(2, format_args!("no such case: {name}"));
    };
    let mut peaks = Peaks([0; 4]);
    let base = count();
    // More than the program had while it was loaded, when nobody looked.
    let at = must(mmap(4 * MIB, READ_WRITE, MAP_NORESERVE), "mmap");
    peaks.look();
    must(munmap(at, 4 * MIB), "munmap");
    maker(&mut peaks);
    peaks.look();
    let mut own = Own::new("sizes", base, 0);
    own.sizes = Some(peaks.0);
    own.print();
    leave(0)
}

fn up_and_down(peaks: &mut Peaks) {
    for mib in [8, 64, 3] {
        let at = must(mmap(mib * MIB, READ_WRITE, MAP_NORESERVE), "mmap");
        peaks.look();
        must(munmap(at, mib * MIB), "munmap");
    }
    // Reservations count for the address space alone, until they are made writable.
    let at = must(mmap(100 * MIB, PROT_NONE, MAP_NORESERVE), "mmap");
    peaks.look();
    must(mprotect(at, 80 * MIB, READ_WRITE), "mprotect");
    peaks.look();
    must(mprotect(at, 80 * MIB, PROT_NONE), "mprotect");
    must(munmap(at, 100 * MIB), "munmap");
}

/// Grows where it is: the count stays as it was.
fn in_place(peaks: &mut Peaks) {
    let room = must(mmap(64 * MIB, PROT_NONE, MAP_NORESERVE), "mmap");
    peaks.look();
    must(munmap(room, 64 * MIB), "munmap");
    let at = must(mmap_at(room, PAGE, READ_WRITE), "mmap");
    let grown = must(mremap(at, PAGE, 32 * MIB, 0), "mremap");
    peaks.look();
    must(mremap(grown, 32 * MIB, PAGE, 0), "mremap");
}

/// While it moves, the old and the new place are both mapped: that is no size which a limit looks at.
fn moved(peaks: &mut Peaks) {
    let at = must(mmap(16 * MIB, READ_WRITE, MAP_NORESERVE), "mmap");
    let to = must(mmap(64 * MIB, PROT_NONE, MAP_NORESERVE), "mmap");
    peaks.look();
    must(munmap(to, 64 * MIB), "munmap");
    let fixed = (MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    let moved = must(call(libc::SYS_mremap, [at, 16 * MIB, 20 * MIB, fixed, to, 0]), "mremap");
    peaks.look();
    must(munmap(moved, 20 * MIB), "munmap");
}

fn replaced(peaks: &mut Peaks) {
    let at = must(mmap(32 * MIB, PROT_NONE, MAP_NORESERVE), "mmap");
    peaks.look();
    must(mmap_at(at, 16 * MIB, READ_WRITE), "mmap in its place");
    peaks.look();
    must(munmap(at, 32 * MIB), "munmap");
}

fn heap(peaks: &mut Peaks) {
    let start = brk(0);
    for mib in [20, 48, 1] {
        if brk(start + mib * MIB) != start + mib * MIB {
            die(99, format_args!("brk was refused"));
        }
        peaks.look();
    }
}

fn locked(peaks: &mut Peaks) {
    let at = must(mmap(64 * PAGE, READ_WRITE, 0), "mmap");
    must(mlock(at, 16 * PAGE), "mlock");
    peaks.look();
    must(call(libc::SYS_munlock, [at, 16 * PAGE, 0, 0, 0, 0]), "munlock");
    let more = must(mmap(32 * PAGE, READ_WRITE, MAP_LOCKED), "mmap with MAP_LOCKED");
    peaks.look();
    must(munmap(more, 32 * PAGE), "munmap");
    must(madvise(at, PAGE, libc::MADV_DONTNEED), "madvise");
}

#[inline(never)]
fn deeper(kib: usize, peaks: &mut Peaks) -> u64 {
    let page = std::hint::black_box([1u8; 1024]);
    if kib == 0 {
        peaks.look();
        return 0;
    }
    deeper(kib - 1, peaks) + u64::from(page[kib % 1024])
}

/// The stack grows by faults, and no call follows that would show it.
fn stack(peaks: &mut Peaks) {
    std::hint::black_box(deeper(2048, peaks));
}

/// The stack grows while much is mapped, and the next call makes the address space smaller.
fn deep_at_the_peak(peaks: &mut Peaks) {
    let at = must(mmap(64 * MIB, READ_WRITE, MAP_NORESERVE), "mmap");
    std::hint::black_box(deeper(1024, peaks));
    must(munmap(at, 64 * MIB), "munmap");
}

/// At a soft limit of `bytes` (as, data or memlock; - leaves it as it is): asks for 24 MiB, and is done if that is granted; for
/// locked memory for 40 pages. Status 3: it was refused.
pub fn needs(which: &str, bytes: &str) -> ! {
    let resource = match which {
        "as" => libc::RLIMIT_AS,
        "data" => libc::RLIMIT_DATA,
        "memlock" => libc::RLIMIT_MEMLOCK,
        other => die(2, format_args!("no such limit: {other}")),
    };
    if bytes != "-" {
        limit(resource, crate::number(bytes));
    }
    let granted = match which {
        "memlock" => {
            let at = must(mmap(64 * PAGE, READ_WRITE, 0), "mmap");
            // SAFETY: plain numbers.
            let _ = unsafe { libc::setuid(65534) };
            must(mlock(at, PAGE), "mlock");
            mlock(at + 8 * PAGE, 40 * PAGE).is_ok()
        }
        _ => {
            let smaller = mmap(12 * MIB, READ_WRITE, MAP_NORESERVE).is_ok();
            mmap(24 * MIB, READ_WRITE, MAP_NORESERVE).is_ok() && smaller
        }
    };
    leave(if granted { 0 } else { 3 })
}
