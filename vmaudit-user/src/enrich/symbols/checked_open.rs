//! How a file of a stranger is opened: without following, and asked first what it is.

use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};

/// O_PATH of what stands there; a link at the end is not followed.
pub fn below(folder: BorrowedFd<'_>, path: &str, resolve: ResolveFlags) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve).ok()
}

/// Of a regular file.
pub fn stat(held: BorrowedFd<'_>) -> Option<Stat> {
    rustix::fs::fstat(held).ok().filter(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

/// Opens for reading what is held, if it is a regular file; asks before it opens, because opening a device or a FIFO
/// does things.
pub fn reopen(held: BorrowedFd<'_>) -> Option<File> {
    stat(held)?;
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from)
}
