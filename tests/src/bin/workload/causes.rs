//! Refusals for other reasons than the VMA limit: a known number of each, one reason at a time.

use libc::{MAP_HUGETLB, MAP_LOCKED, MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE, c_int};

use crate::memory::{
    Errno, PAGE, brk, call, die, kernel_page, leave, madvise, mlock, mmap, mprotect, mremap, munmap, must,
    read_text,
};
use crate::own::{Own, count};

const READ_WRITE: c_int = PROT_READ | PROT_WRITE;
/// Pages that the limits of this program leave free, and more than that.
const ROOM: usize = 256;
const TOO_MUCH: usize = 4 * ROOM * PAGE;

/// Provokes refusals: the report it adds to, how often.
type Maker = fn(&mut Own, usize);

const KINDS: &[(&str, Maker)] = &[
    ("rlimit-as", rlimit_as),
    ("rlimit-data", rlimit_data),
    ("rlimit-memlock", rlimit_memlock),
    ("overcommit", overcommit),
    ("too-long", too_long),
    ("no-hole", no_hole),
    // No other architecture has the flag.
    #[cfg(target_arch = "x86_64")]
    ("no-hole-32bit", no_hole_32bit),
    ("gap", gap),
    ("hugetlb", hugetlb),
    ("blocked-mremap", blocked_mremap),
    ("brk-query", brk_query),
    ("tasks", tasks),
    ("future-locks", future_locks),
    ("fixed-over-as", fixed_over_as),
    ("hugetlb-file", hugetlb_file),
    ("wrap", wrap),
    ("beyond-addresses", beyond_addresses),
    ("file-end", file_end),
    ("two-of-brk", two_of_brk),
    ("driver", driver),
];

/// Names for the usage line and for the tests.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// Provokes `n` refusals of each call of kind `name`.
pub fn run(name: &str, n: usize) -> ! {
    let Some((_, maker)) = KINDS.iter().find(|(k, _)| *k == name) else {
        die(2, format_args!("no such kind: {name}"));
    };
    let base = count();
    let mut own = Own::new("causes", base, base);
    maker(&mut own, n);
    own.last = Some(count());
    own.peak = 0;
    own.print();
    leave(0)
}

/// `n` times `attempt`, which must be refused with `errno`.
fn refused<T>(
    own: &mut Own,
    n: usize,
    (call, cause): (&'static str, &'static str),
    errno: Errno,
    attempt: impl Fn() -> Result<T, Errno>,
) {
    for _ in 0..n {
        match attempt() {
            Err(e) if e == errno => own.refuse(call, e, cause),
            Err(e) => die(99, format_args!("{call} for {cause}: errno {e} instead of {errno}")),
            Ok(_) => die(99, format_args!("{call} for {cause} was not refused")),
        }
    }
}

/// brk to `by` bytes more, an error when the break stays.
fn brk_by(by: usize) -> Result<(), Errno> {
    let to = brk(0) + by;
    if brk(to) == to { Ok(()) } else { Err(libc::ENOMEM) }
}

/// Sets a soft limit, in bytes.
pub fn limit(resource: libc::__rlimit_resource_t, bytes: usize) {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` is valid for writing and reading.
    let ok = unsafe {
        libc::getrlimit(resource, &raw mut now) == 0 && {
            now.rlim_cur = bytes as u64;
            libc::setrlimit(resource, &raw const now) == 0
        }
    };
    if !ok {
        die(99, format_args!("setrlimit failed with errno {}", crate::memory::errno()));
    }
}

/// Figure `index` of /proc/self/statm, in [`PAGE`]s, rounded up.
fn statm(index: usize) -> usize {
    let mut buffer = [0; 256];
    let text = read_text(b"/proc/self/statm\0", &mut buffer);
    let figure = text.split_ascii_whitespace().nth(index).and_then(|w| w.parse().ok());
    let pages: usize = figure.unwrap_or_else(|| die(99, format_args!("/proc/self/statm reads {text:?}")));
    pages.div_ceil(PAGE / kernel_page())
}

fn rlimit_as(own: &mut Own, n: usize) {
    const CAUSE: &str = "rlimit_as";
    let block = must(mmap(PAGE, PROT_READ, 0), "mmap");
    limit(libc::RLIMIT_AS, (statm(0) + ROOM) * PAGE);
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || mmap(TOO_MUCH, PROT_NONE, MAP_NORESERVE));
    refused(own, n, ("mremap", CAUSE), libc::ENOMEM, || mremap(block, PAGE, TOO_MUCH, libc::MREMAP_MAYMOVE));
    refused(own, n, ("brk", CAUSE), libc::ENOMEM, || brk_by(TOO_MUCH));
}

/// The same for a reservation of 4 GiB at a limit of 1 GiB. Needs no /proc.
pub fn over_as(n: usize) -> ! {
    limit(libc::RLIMIT_AS, 1 << 30);
    for _ in 0..n {
        if mmap(4 << 30, PROT_NONE, MAP_NORESERVE).is_ok() {
            die(99, format_args!("4 GiB were not refused"));
        }
    }
    leave(0)
}

fn rlimit_data(own: &mut Own, n: usize) {
    const CAUSE: &str = "rlimit_data";
    let block = must(mmap(PAGE, READ_WRITE, 0), "mmap");
    let none = must(mmap(TOO_MUCH, PROT_NONE, 0), "mmap");
    // The sixth figure is data and stack together, so at least what counts for the limit.
    limit(libc::RLIMIT_DATA, (statm(5) + ROOM) * PAGE);
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || mmap(TOO_MUCH, READ_WRITE, 0));
    refused(own, n, ("mremap", CAUSE), libc::ENOMEM, || mremap(block, PAGE, TOO_MUCH, libc::MREMAP_MAYMOVE));
    refused(own, n, ("mprotect", CAUSE), libc::ENOMEM, || mprotect(none, TOO_MUCH, READ_WRITE));
    refused(own, n, ("brk", CAUSE), libc::ENOMEM, || brk_by(TOO_MUCH));
}

/// Gives up root, which several limits do not bind.
fn become_nobody() {
    const NOBODY: usize = 65534;
    must(call(libc::SYS_setresgid, [NOBODY, NOBODY, NOBODY, 0, 0, 0]), "setresgid");
    must(call(libc::SYS_setresuid, [NOBODY, NOBODY, NOBODY, 0, 0, 0]), "setresuid");
}

fn rlimit_memlock(own: &mut Own, n: usize) {
    const CAUSE: &str = "rlimit_memlock";
    let block = must(mmap(4 * PAGE, READ_WRITE, 0), "mmap");
    limit(libc::RLIMIT_MEMLOCK, 2 * PAGE);
    become_nobody();
    refused(own, n, ("mlock", CAUSE), libc::ENOMEM, || mlock(block, 4 * PAGE));
    refused(own, n, ("mlock2", CAUSE), libc::ENOMEM, || {
        call(libc::SYS_mlock2, [block, 4 * PAGE, 1, 0, 0, 0])
    });
    refused(own, n, ("mlockall", CAUSE), libc::ENOMEM, || {
        call(libc::SYS_mlockall, [libc::MCL_CURRENT as usize, 0, 0, 0, 0, 0])
    });
    refused(own, n, ("mmap", CAUSE), libc::EAGAIN, || mmap(4 * PAGE, READ_WRITE, MAP_LOCKED));
}

fn overcommit(own: &mut Own, n: usize) {
    const CAUSE: &str = "overcommit";
    let mut buffer = [0; 64];
    let mode = read_text(b"/proc/sys/vm/overcommit_memory\0", &mut buffer).trim();
    if mode != "0" {
        die(99, format_args!("vm.overcommit_memory is {mode}; this needs the default, 0"));
    }
    let more = 2 * memory_and_swap();
    let none = must(mmap(more, PROT_NONE, 0), "mmap without access");
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || mmap(more, READ_WRITE, 0));
    refused(own, n, ("mprotect", CAUSE), libc::ENOMEM, || mprotect(none, more, READ_WRITE));
    let block = must(mmap(PAGE, READ_WRITE, 0), "mmap");
    refused(own, n, ("mremap", CAUSE), libc::ENOMEM, || mremap(block, PAGE, more, libc::MREMAP_MAYMOVE));
    refused(own, n, ("brk", CAUSE), libc::ENOMEM, || brk_by(more));
}

/// MemTotal + SwapTotal, bytes.
pub fn memory_and_swap() -> usize {
    let mut buffer = [0; 4096];
    let text = read_text(b"/proc/meminfo\0", &mut buffer);
    let mut sum = 0;
    for line in text.lines().filter(|l| l.starts_with("MemTotal:") || l.starts_with("SwapTotal:")) {
        let kib = line.split_ascii_whitespace().nth(1).and_then(|w| w.parse::<usize>().ok());
        sum += 1024 * kib.unwrap_or_else(|| die(99, format_args!("/proc/meminfo has {line:?}")));
    }
    sum
}

/// Longer than any address space.
fn too_long(own: &mut Own, n: usize) {
    const CAUSE: &str = "no_address_range";
    let all = 1 << 57;
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || mmap(all, PROT_NONE, MAP_NORESERVE));
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || {
        mmap(usize::MAX & !(PAGE - 1), PROT_NONE, MAP_NORESERVE)
    });
}

/// Address space used up until no free range is as large as what is asked for.
fn no_hole(own: &mut Own, n: usize) {
    const CAUSE: &str = "no_address_range";
    const MOST: usize = 30 << 40;
    let block = must(mmap(PAGE, PROT_READ, 0), "mmap");
    // The refusal that ends this is the first of `n`.
    while mmap(MOST, PROT_NONE, MAP_NORESERVE).is_ok() {}
    own.refuse("mmap", libc::ENOMEM, CAUSE);
    refused(own, n - 1, ("mmap", CAUSE), libc::ENOMEM, || mmap(MOST, PROT_NONE, MAP_NORESERVE));
    refused(own, n, ("mremap", CAUSE), libc::ENOMEM, || mremap(block, PAGE, MOST, libc::MREMAP_MAYMOVE));
}

/// MAP_32BIT has one gigabyte to give.
#[cfg(target_arch = "x86_64")]
fn no_hole_32bit(own: &mut Own, n: usize) {
    let asked = 3 << 29;
    refused(own, n, ("mmap", "no_address_range"), libc::ENOMEM, || {
        mmap(asked, PROT_NONE, MAP_NORESERVE | libc::MAP_32BIT)
    });
}

/// The range has a gap.
fn gap(own: &mut Own, n: usize) {
    const CAUSE: &str = "range_not_mapped";
    let range = must(mmap(3 * PAGE, READ_WRITE, 0), "mmap");
    must(munmap(range + PAGE, PAGE), "munmap of the middle");
    refused(own, n, ("mprotect", CAUSE), libc::ENOMEM, || mprotect(range, 3 * PAGE, PROT_READ));
    refused(own, n, ("madvise", CAUSE), libc::ENOMEM, || madvise(range, 3 * PAGE, libc::MADV_DONTFORK));
    refused(own, n, ("madvise", CAUSE), libc::ENOMEM, || madvise(range, 3 * PAGE, libc::MADV_DONTNEED));
    refused(own, n, ("mlock", CAUSE), libc::ENOMEM, || mlock(range, 3 * PAGE));
    refused(own, n, ("munlock", CAUSE), libc::ENOMEM, || {
        call(libc::SYS_munlock, [range, 3 * PAGE, 0, 0, 0, 0])
    });
}

/// Huge pages where none are set aside.
fn hugetlb(own: &mut Own, n: usize) {
    // More than any machine has set aside.
    let len = memory_and_swap().next_multiple_of(1 << 30) * 2;
    refused(own, n, ("mmap", "hugetlb"), libc::ENOMEM, || mmap(len, READ_WRITE, MAP_HUGETLB));
}

/// "Can it grow where it is?" No.
fn blocked_mremap(own: &mut Own, n: usize) {
    let block = must(mmap(2 * PAGE, READ_WRITE, 0), "mmap");
    must(mprotect(block + PAGE, PAGE, PROT_NONE), "mprotect of the neighbour");
    refused(own, n, ("mremap", "no_address_range"), libc::ENOMEM, || mremap(block, PAGE, 2 * PAGE, 0));
}

/// Questions, not requests.
/// Once more than there is, then something in the way: two causes of one call.
fn two_of_brk(own: &mut Own, n: usize) {
    let start = brk(0).next_multiple_of(PAGE);
    refused(own, 1, ("brk", "overcommit"), libc::ENOMEM, || brk_by(2 * memory_and_swap()));
    must(crate::memory::mmap_at(start + 8 * PAGE, PAGE, PROT_READ), "mmap above the heap");
    refused(own, n, ("brk", "no_address_range"), libc::ENOMEM, || brk_by(TOO_MUCH));
}

fn brk_query(_: &mut Own, n: usize) {
    for _ in 0..n {
        brk(0);
        brk(1);
    }
}

/// A child that ends at once.
pub fn child() -> Result<usize, Errno> {
    let made = call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0])?;
    if made == 0 {
        leave(0);
    }
    Ok(made)
}

/// No more tasks for this user.
fn tasks(own: &mut Own, n: usize) {
    limit(libc::RLIMIT_NPROC, 0);
    become_nobody();
    refused(own, n, ("clone", "rlimit_nproc"), libc::EAGAIN, child);
}

/// What is mapped from now on is locked, and little may be.
fn future_locks(own: &mut Own, n: usize) {
    const CAUSE: &str = "rlimit_memlock";
    must(call(libc::SYS_mlockall, [libc::MCL_FUTURE as usize, 0, 0, 0, 0, 0]), "mlockall");
    limit(libc::RLIMIT_MEMLOCK, 2 * PAGE);
    become_nobody();
    refused(own, n, ("brk", CAUSE), libc::ENOMEM, || brk_by(TOO_MUCH));
    refused(own, n, ("mmap", CAUSE), libc::EAGAIN, || mmap(TOO_MUCH, READ_WRITE, 0));
}

/// Fixed ranges where nothing is mapped: as a sanitizer's shadow, and as a small one that must be free.
fn fixed_over_as(own: &mut Own, n: usize) {
    const CAUSE: &str = "rlimit_as";
    const SHADOW: (usize, usize) = (0x1000_0000_0000, 1 << 40);
    let at = |(start, length): (usize, usize), flag| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_NORESERVE | flag;
        call(libc::SYS_mmap, [start, length, READ_WRITE as usize, flags as usize, usize::MAX, 0])
    };
    limit(libc::RLIMIT_AS, (statm(0) + ROOM) * PAGE);
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || at(SHADOW, libc::MAP_FIXED));
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || at((SHADOW.0, TOO_MUCH), libc::MAP_FIXED_NOREPLACE));
}

/// A new file in memory, of so many bytes.
fn memory_file(flags: libc::c_uint, bytes: usize) -> usize {
    let name = b"vmaudit\0";
    let file = must(
        call(libc::SYS_memfd_create, [name.as_ptr() as usize, flags as usize, 0, 0, 0, 0]),
        "memfd_create",
    );
    must(call(libc::SYS_ftruncate, [file, bytes, 0, 0, 0, 0]), "ftruncate");
    file
}

fn map_file(file: usize, bytes: usize) -> Result<usize, Errno> {
    call(libc::SYS_mmap, [0, bytes, READ_WRITE as usize, libc::MAP_SHARED as usize, file, 0])
}

/// The same huge pages through a file.
fn hugetlb_file(own: &mut Own, n: usize) {
    let len = memory_and_swap().next_multiple_of(1 << 30) * 2;
    let file = memory_file(libc::MFD_HUGETLB, len);
    refused(own, n, ("mmap", "hugetlb"), libc::ENOMEM, || map_file(file, len));
}

/// Address and length together are 2^64 and more; a length that rounds to 0.
fn wrap(own: &mut Own, n: usize) {
    const CAUSE: &str = "invalid_range";
    let last = usize::MAX & !(PAGE - 1);
    refused(own, n, ("mprotect", CAUSE), libc::ENOMEM, || mprotect(last, 2 * PAGE, PROT_READ));
    refused(own, n, ("mprotect", CAUSE), libc::ENOMEM, || mprotect(PAGE, usize::MAX, PROT_READ));
    refused(own, n, ("mmap", CAUSE), libc::ENOMEM, || mmap(usize::MAX, PROT_NONE, MAP_NORESERVE));
}

/// A range in the kernel's half.
fn beyond_addresses(own: &mut Own, n: usize) {
    let there = 0xffff_8000_0000_0000;
    refused(own, n, ("mprotect", "range_not_mapped"), libc::ENOMEM, || mprotect(there, PAGE, PROT_READ));
}

/// One page of a mapping of eight has something to lock.
fn file_end(own: &mut Own, n: usize) {
    let range = must(map_file(memory_file(0, PAGE), 8 * PAGE), "mmap of the file");
    refused(own, n, ("mlock", "beyond_end_of_file"), libc::ENOMEM, || mlock(range, 8 * PAGE));
}

/// A ring buffer of the kernel's own events that is larger than it can make one.
fn driver(own: &mut Own, n: usize) {
    const PAGES: usize = 1 << 20;
    // struct perf_event_attr: PERF_TYPE_SOFTWARE, its size; PERF_COUNT_SW_DUMMY.
    let attr: [u64; 8] = [1 | 64 << 32, 9, 0, 0, 0, 0, 0, 0];
    let event = [(&raw const attr) as usize, 0, usize::MAX, usize::MAX, 0, 0];
    let event = must(call(libc::SYS_perf_event_open, event), "perf_event_open");
    refused(own, n, ("mmap", "driver"), libc::ENOMEM, || map_file(event, (1 + PAGES) * PAGE));
}
