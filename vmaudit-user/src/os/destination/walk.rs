//! Walks a path name by name, by descriptors, and follows only links that nobody can have planted.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{getegid, geteuid};

/// Symbolic links in one path (include/linux/namei.h:MAXSYMLINKS).
const MOST_LINKS: usize = 40;

/// A look that opens nothing.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The sentence about what may be somebody's trap.
pub fn planted(what: &str) -> io::Error {
    io::Error::other(format!(
        "there is {what}, in a folder that others can write to; remove it or name another file"
    ))
}

/// Others than root and the caller can change what is in this folder. A group of the caller's own number is the one
/// that a distribution makes for each user, and root's group is root's.
pub fn is_shared(folder: &FileStat) -> bool {
    let own = geteuid().as_raw();
    let group = folder.st_gid == 0 || folder.st_gid == own && getegid().as_raw() == own;
    ![0, own].contains(&folder.st_uid)
        || folder.st_mode & libc::S_IWOTH != 0
        || folder.st_mode & libc::S_IWGRP != 0 && !group
}

/// `/dev/stdout` and its kind: the descriptor itself, as the caller opened it.
pub fn own_descriptor(path: &Path) -> io::Result<Option<File>> {
    let number = match path.to_str() {
        Some("/dev/stdout") => "1",
        Some("/dev/stderr") => "2",
        Some(path) => match path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/")) {
            Some(number) => number,
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    let Ok(number) = number.parse::<RawFd>() else { return Ok(None) };
    if number < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: takes numbers only; a descriptor that is not open is an error.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(Some(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
}

/// What a path leads to.
pub enum Found {
    /// The last name of the path, no symbolic link when it was looked at, and its folder.
    Name(OwnedFd, OsString),
    /// A link of /proc.
    Magic(OwnedFd, OsString),
}

/// Walks a path to its last name.
pub fn find(path: &Path) -> io::Result<Found> {
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = || openat(AT_FDCWD, "/", folder, Mode::empty());
    let mut left = names(path.as_os_str());
    let mut at = if path.has_root() { root()? } else { openat(AT_FDCWD, ".", folder, Mode::empty())? };
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        let last = left.is_empty();
        if last && [OsStr::new("."), OsStr::new("..")].contains(&name.as_os_str()) {
            return Err(Errno::EISDIR.into());
        }
        let there = match openat(&at, name.as_os_str(), LOOK, Mode::empty()) {
            Ok(there) => there,
            // What is wrong shows when it is opened.
            Err(_) if last => return Ok(Found::Name(at, name)),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&there)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            if last {
                return Ok(Found::Name(at, name));
            }
            // Opened anew, because only this mounts what is mounted on demand.
            at = openat(&at, name.as_os_str(), folder | OFlag::O_NOFOLLOW, Mode::empty())?;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        if in_proc(&at) {
            // Its text may be none that leads anywhere.
            if last {
                return Ok(Found::Magic(at, name));
            }
            at = openat(&at, name.as_os_str(), folder, Mode::empty())?;
            continue;
        }
        if stat.st_uid != geteuid().as_raw() && is_shared(&fstat(&at)?) {
            return Err(planted(&format!("the symbolic link {:?} of another user", Path::new(&name))));
        }
        let target = readlinkat(&there, "")?;
        if target.as_bytes().first() == Some(&b'/') {
            at = root()?;
        }
        let mut whole = names(&target);
        whole.append(&mut left);
        left = whole;
    }
    Err(Errno::EISDIR.into())
}

/// Names of a path, `..` among them. A slash at its end asks for a folder, so it leaves a `.` there.
fn names(path: &OsStr) -> VecDeque<OsString> {
    let bytes = path.as_bytes();
    let parts = bytes.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let mut names: VecDeque<OsString> = parts.map(|part| OsString::from_vec(part.to_vec())).collect();
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        names.push_back(OsString::from("."));
    }
    names
}

fn in_proc(folder: &OwnedFd) -> bool {
    nix::sys::statfs::fstatfs(folder)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}
