//! The calls under test, made directly: no allocator, no libc bookkeeping, no surprise VMA between two measurements.
//!
//! Everything here works on address ranges in which no Rust object lives (see [`Holes`]), so the functions are safe
//! to call although they take addresses as numbers.

use std::fmt::Write as _;

use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ, c_int, c_long};

/// Bytes per page.
pub const PAGE: usize = vmaudit_tests::PAGE as usize;
/// What the kernel counts in, bytes: a page, or a part of one.
pub fn kernel_page() -> usize {
    // SAFETY: takes a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(PAGE)
}

/// Private anonymous memory.
pub const PRIVATE: c_int = MAP_PRIVATE | MAP_ANONYMOUS;

/// Positive errno.
pub type Errno = i32;

/// One raw system call.
pub fn call(number: c_long, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the callers in this program pass either addresses of their own live buffers or ranges in which no Rust
    // object lives; the kernel checks everything else.
    let answer = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if answer == -1 { Err(errno()) } else { Ok(answer as usize) }
}

/// errno of the last call of this thread.
pub fn errno() -> Errno {
    // SAFETY: libc gives a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// mmap of anonymous memory where the kernel likes.
pub fn mmap(len: usize, prot: c_int, flags: c_int) -> Result<usize, Errno> {
    call(libc::SYS_mmap, [0, len, prot as usize, (PRIVATE | flags) as usize, usize::MAX, 0])
}

/// mmap at exactly `addr`.
pub fn mmap_at(addr: usize, len: usize, prot: c_int) -> Result<usize, Errno> {
    let flags = PRIVATE | MAP_FIXED | MAP_NORESERVE;
    call(libc::SYS_mmap, [addr, len, prot as usize, flags as usize, usize::MAX, 0])
}

/// munmap.
pub fn munmap(addr: usize, len: usize) -> Result<usize, Errno> {
    call(libc::SYS_munmap, [addr, len, 0, 0, 0, 0])
}

/// mprotect.
pub fn mprotect(addr: usize, len: usize, prot: c_int) -> Result<usize, Errno> {
    call(libc::SYS_mprotect, [addr, len, prot as usize, 0, 0, 0])
}

/// madvise.
pub fn madvise(addr: usize, len: usize, advice: c_int) -> Result<usize, Errno> {
    call(libc::SYS_madvise, [addr, len, advice as usize, 0, 0, 0])
}

/// mremap without a target address.
pub fn mremap(addr: usize, old: usize, new: usize, flags: c_int) -> Result<usize, Errno> {
    call(libc::SYS_mremap, [addr, old, new, flags as usize, 0, 0])
}

/// mlock.
pub fn mlock(addr: usize, len: usize) -> Result<usize, Errno> {
    call(libc::SYS_mlock, [addr, len, 0, 0, 0, 0])
}

/// brk as the kernel answers it: the break that is now in force.
pub fn brk(to: usize) -> usize {
    must(call(libc::SYS_brk, [to, 0, 0, 0, 0, 0]), "brk")
}

/// An address range that is free and stays free: single pages put into it never touch each other or a neighbour.
#[derive(Clone, Copy)]
pub struct Holes {
    start: usize,
    pages: usize,
}

impl Holes {
    /// Finds room for `pages` pages, each with a free page on both sides.
    pub fn find(pages: usize) -> Self {
        let holes = Self::reserve(pages);
        holes.release();
        holes
    }

    /// The same, but nothing else gets the room before [`Holes::release`].
    pub fn reserve(pages: usize) -> Self {
        let start = must(mmap((2 * pages + 1) * PAGE, PROT_NONE, MAP_NORESERVE), "reserving address space");
        Self { start, pages }
    }

    /// From now on the room is free.
    pub fn release(self) {
        must(munmap(self.start, (2 * self.pages + 1) * PAGE), "freeing the reserved address space");
    }

    /// How many pages it was made for.
    pub fn pages(self) -> usize {
        self.pages
    }

    /// Address of page `i`.
    pub fn at(self, i: usize) -> usize {
        assert!(i < self.pages);
        self.start + (2 * i + 1) * PAGE
    }

    /// Maps page `i`: one VMA more.
    pub fn map(self, i: usize) {
        must(
            mmap_at(self.at(i), PAGE, if i.is_multiple_of(2) { PROT_NONE } else { PROT_READ }),
            "mmap of one page",
        );
    }

    /// Unmaps page `i`: one VMA less.
    pub fn unmap(self, i: usize) {
        must(munmap(self.at(i), PAGE), "munmap of one page");
    }
}

/// The value, or the end of this program with a sentence.
pub fn must<T>(result: Result<T, Errno>, what: &str) -> T {
    result.unwrap_or_else(|errno| die(99, format_args!("{what} failed with errno {errno}")))
}

/// Says why on stderr and ends the whole process, without any cleaning up.
pub fn die(code: i32, why: std::fmt::Arguments<'_>) -> ! {
    let mut line = Line::new();
    let _ = writeln!(line, "workload: {why}");
    write_all(2, line.bytes());
    leave(code)
}

/// How long the program stays before it ends, ms.
pub static LINGER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// exit_group: nothing is unmapped or flushed first, so `last` stays what it is.
pub fn leave(code: i32) -> ! {
    match LINGER.load(std::sync::atomic::Ordering::Relaxed) {
        0 => {}
        ms => crate::makers::pause_ms(ms),
    }
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Writes all of it; the program ends when that fails.
pub fn write_all(fd: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or(&[]),
            Err(libc::EINTR) => {}
            Err(_) => leave(97),
        }
    }
}

/// Reads once; 0 at the end.
pub fn read(fd: c_int, into: &mut [u8]) -> usize {
    loop {
        match call(libc::SYS_read, [fd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) {
            Err(libc::EINTR) => {}
            answer => return must(answer, "read"),
        }
    }
}

/// Opens a file to read, `path` ending in `\0`.
pub fn open(path: &[u8]) -> c_int {
    assert_eq!(path.last(), Some(&0));
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let fd = call(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0]);
    must(fd, "open") as c_int
}

/// Closes.
pub fn close(fd: c_int) {
    must(call(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]), "close");
}

/// Reads a short file into `into` and gives its text.
pub fn read_text<'a>(path: &[u8], into: &'a mut [u8]) -> &'a str {
    let fd = open(path);
    let mut used = 0;
    while used < into.len() {
        match read(fd, &mut into[used..]) {
            0 => break,
            n => used += n,
        }
    }
    close(fd);
    std::str::from_utf8(&into[..used]).unwrap_or_default()
}

/// Text of fixed room on the stack.
pub struct Line {
    bytes: [u8; 4096],
    used: usize,
}

impl Line {
    /// Empty.
    pub fn new() -> Self {
        Self { bytes: [0; 4096], used: 0 }
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.used + text.len();
        let room = self.bytes.get_mut(self.used..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}
