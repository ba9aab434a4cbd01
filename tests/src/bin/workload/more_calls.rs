//! Refusals of calls that seldom are, and by other doors than usual: shared memory segments, questions about ranges, locks that
//! are forbidden altogether, and the 32-bit entry.

use libc::{MAP_LOCKED, PROT_READ, PROT_WRITE};

use crate::causes::limit;
use crate::memory::{Errno, PAGE, call, die, kernel_page, leave, mlock, mmap, munmap, must};
use crate::own::{Own, count};

type Case = fn(&mut Own, usize);

const CASES: &[(&str, Case)] = &[
    ("shmget-huge", shmget_huge),
    ("shmget-vast", shmget_vast),
    ("mincore-gap", mincore_gap),
    ("msync-gap", msync_gap),
    ("lock-nothing", lock_nothing),
    ("by-io-uring", by_io_uring),
    #[cfg(target_arch = "x86_64")]
    ("int80", int80),
];

/// `n` refusals of one kind.
pub fn run(name: &str, n: usize) -> ! {
    let Some((_, case)) = CASES.iter().find(|(known, _)| *known == name) else {
        die(2, format_args!("no such case: {name}"));
    };
    let mut own = Own::new("more_calls", count(), 0);
    case(&mut own, n);
    own.last = Some(count());
    own.peak = 0;
    own.print();
    leave(0)
}

fn refused<T>(
    own: &mut Own,
    call: &'static str,
    errno: Errno,
    cause: &'static str,
    answer: Result<T, Errno>,
) {
    match answer {
        Err(seen) if seen == errno => own.refuse(call, errno, cause),
        Err(other) => die(99, format_args!("{call} was refused with errno {other}")),
        Ok(_) => die(99, format_args!("{call} was not refused")),
    }
}

/// A ring is made, by which madvise() could be asked for; nothing is refused.
fn by_io_uring(_: &mut Own, _: usize) {
    // struct io_uring_params (include/uapi/linux/io_uring.h).
    let mut parameters = [0_u32; 30];
    must(call(libc::SYS_io_uring_setup, [4, parameters.as_mut_ptr() as usize, 0, 0, 0, 0]), "io_uring_setup");
}

fn shmget(bytes: usize, flags: usize) -> Result<usize, Errno> {
    call(libc::SYS_shmget, [0, bytes, flags | 0o1600, 0, 0, 0])
}

fn shmget_huge(own: &mut Own, n: usize) {
    for _ in 0..n {
        refused(own, "shmget", libc::ENOMEM, "hugetlb", shmget(2 << 20, libc::SHM_HUGETLB as usize));
    }
}

fn shmget_vast(own: &mut Own, n: usize) {
    for _ in 0..n {
        refused(own, "shmget", libc::ENOMEM, "overcommit", shmget(1 << 46, 0));
    }
}

/// Four pages, of which the second is not mapped.
fn with_gap() -> usize {
    let at = must(mmap(4 * PAGE, PROT_READ | PROT_WRITE, 0), "mmap");
    must(munmap(at + PAGE, PAGE), "munmap");
    at
}

fn mincore_gap(own: &mut Own, n: usize) {
    let (at, mut resident) = (with_gap(), vec![0_u8; 4 * PAGE / kernel_page()]);
    for _ in 0..n {
        let into = resident.as_mut_ptr() as usize;
        let answer = call(libc::SYS_mincore, [at, 4 * PAGE, into, 0, 0, 0]);
        refused(own, "mincore", libc::ENOMEM, "range_not_mapped", answer);
    }
}

fn msync_gap(own: &mut Own, n: usize) {
    let at = with_gap();
    for _ in 0..n {
        let answer = call(libc::SYS_msync, [at, 4 * PAGE, libc::MS_ASYNC as usize, 0, 0, 0]);
        refused(own, "msync", libc::ENOMEM, "range_not_mapped", answer);
    }
}

/// Without a privilege and with a limit of 0.
fn lock_nothing(own: &mut Own, n: usize) {
    const NOBODY: u32 = 65534;
    limit(libc::RLIMIT_MEMLOCK, 0);
    // SAFETY: no pointers; this program has one thread.
    if unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) } != 0 {
        die(99, format_args!("cannot become another user"));
    }
    let page = must(mmap(PAGE, PROT_READ, 0), "mmap");
    for _ in 0..n {
        refused(own, "mlock", libc::EPERM, "rlimit_memlock", mlock(page, PAGE));
        let answer = call(libc::SYS_mlockall, [libc::MCL_CURRENT as usize, 0, 0, 0, 0, 0]);
        refused(own, "mlockall", libc::EPERM, "rlimit_memlock", answer);
        refused(own, "mmap", libc::EPERM, "rlimit_memlock", mmap(PAGE, PROT_READ, MAP_LOCKED));
    }
}

/// mmap2 by the 32-bit entry: more than there is below 4 GiB, with nothing else that could refuse it.
#[cfg(target_arch = "x86_64")]
fn int80(own: &mut Own, n: usize) {
    const MMAP2: u64 = 192;
    for _ in 0..n {
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
        let (answer, length, prot) = (MMAP2, 0xffff_e000_u64, libc::PROT_NONE as u64);
        let mut answer = answer;
        // SAFETY: a system call that is refused; rbx and rbp, which the compiler keeps, are put back.
        unsafe {
            std::arch::asm!(
                "push rbx",
                "push rbp",
                "xor ebx, ebx",
                "xor ebp, ebp",
                "int 0x80",
                "pop rbp",
                "pop rbx",
                inout("rax") answer,
                in("rcx") length,
                in("rdx") prot,
                in("rsi") flags,
                in("rdi") u64::MAX,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        let answer = answer as i32;
        let answer = if (-4095..0).contains(&answer) { Err(-answer) } else { Ok(()) };
        refused(own, "mmap", libc::ENOMEM, "no_address_range", answer);
    }
}

/// Unmaps everything, its own code as well, and dies of that.
pub fn unmap_everything() -> ! {
    let mut own = Own::new("more_calls", count(), count());
    own.last = None;
    own.print();
    let end = (1 << 47) - 2 * PAGE;
    let _ = munmap(0, end);
    leave(99)
}
