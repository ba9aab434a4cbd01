//! The folder of a flight recorder: opened once, by a privileged program, perhaps where others may write.
//!
//! Its files are new ones that only their owner reads, made by descriptor: no link is followed, no file of anybody is
//! written over, and each has its name only when it is whole. Of the recorder's own earlier ones, which are told by the whole of
//! their names, the oldest go after a new one is there, so that number and size are bounded, also over many starts.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use rustix::fs::{Dir, RenameFlags, linkat, renameat_with};

use super::destination::walk::{Found, find};
use super::rights;
use crate::text::time::rfc3339;

/// Files that are kept.
pub const MOST_FILES: usize = 16;
/// Bytes of them together.
pub const MOST_BYTES: u64 = 256 << 20;
/// Names looked at; a folder of more is not the recorder's.
const MOST_NAMES: usize = 100_000;
/// Names tried for a new file.
const TRIES: u32 = 100;
const BEGIN: &str = "vmaudit-flight-";
const END: &str = ".vma";
/// Behind the name of one that is not whole.
const PART: &str = ".part";
/// One that nobody has written to for so long is left of a program that was killed, seconds.
const LEFT: i64 = 3600;

/// An open folder.
#[derive(Debug)]
pub struct FlightFolder {
    folder: OwnedFd,
    path: PathBuf,
    rights: &'static [Capability],
}

/// A file that was left: when it was written (seconds, nanoseconds), its name, bytes. In the order of their ages.
type Left = ((i64, i64), OsString, u64);

impl FlightFolder {
    /// Opens it. Errors: the system's, a sentence about a link that somebody else may have planted, and one when vmaudit has
    /// rights that its caller lacks.
    pub fn open(path: &Path) -> io::Result<Self> {
        if rights::lent() {
            return Err(io::Error::other(
                "a recording holds addresses, and this vmaudit has rights that you lack; use sudo",
            ));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let trimmed = trimmed(path);
        let folder = match trimmed {
            b"" if path.has_root() => nix::fcntl::open("/", flags, Mode::empty())?,
            b"" | b"." => nix::fcntl::open(".", flags, Mode::empty())?,
            trimmed => match find(Path::new(OsStr::from_bytes(trimmed)))? {
                Found::Name(above, name) | Found::Magic(above, name) => {
                    openat(&above, name.as_os_str(), flags, Mode::empty())?
                }
            },
        };
        let stat = fstat(&folder)?;
        let own = geteuid();
        let strange = own.is_root() && (stat.st_uid != 0 || stat.st_mode & libc::S_IWUSR == 0);
        let rights: &[_] = if strange { &[Capability::CAP_DAC_OVERRIDE] } else { &[] };
        let it = Self { folder, path: path.to_owned(), rights };
        it.try_it()?;
        Ok(it)
    }

    /// What root must keep to write there.
    pub fn rights(&self) -> &'static [Capability] {
        self.rights
    }

    /// For people.
    pub fn shown(&self) -> impl std::fmt::Display + '_ {
        self.path.display()
    }

    /// A folder that takes no file is told before anything is attached.
    fn try_it(&self) -> io::Result<()> {
        let _rights = rights::raised(self.rights);
        self.try_by(|part, name| self.renamed(part, name))
    }

    /// The whole way of a file.
    fn try_by(&self, renamed: impl Fn(&OsStr, &OsStr) -> rustix::io::Result<()>) -> io::Result<()> {
        let (file, part) = self.make(".vmaudit-flight-try", PART)?;
        let name = self.named(&part, renamed).inspect_err(|_| self.take_back(&file, &part))?;
        self.remove(&name)
    }

    /// Somebody else may have been faster: it is gone, as it is to be.
    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// A new file whose name begins and ends so.
    fn make(&self, begin: &str, end: &str) -> io::Result<(File, OsString)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut number = 0;
        loop {
            let name = OsString::from(format!("{begin}-{}-{number}{END}{end}", std::process::id()));
            match openat(&self.folder, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Err(Errno::EEXIST) if number < TRIES => number += 1,
                made => return Ok((File::from(made?), name)),
            }
        }
    }

    /// Writes a new file of these parts; then the oldest ones go that it is too much for. What cannot be written to its end is
    /// not left behind, and costs no earlier file.
    pub fn write(&self, parts: &[Arc<[u8]>]) -> io::Result<PathBuf> {
        let _rights = rights::raised(self.rights);
        if !Self::fits(parts) {
            return Err(io::Error::other("the stretch is longer than all its files may be together"));
        }
        let now = rfc3339(SystemTime::now()).replace([':', '-'], "");
        let (mut file, part) = self.make(&format!("{BEGIN}{now}"), PART)?;
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        let named = written.and_then(|()| self.named(&part, |part, name| self.renamed(part, name)));
        let name = named.inspect_err(|_| self.take_back(&file, &part))?;
        self.make_room(&name).map_err(|e| {
            io::Error::other(format!("{} is there, but an older one cannot be removed: {e}", shown(&name)))
        })?;
        Ok(self.path.join(name))
    }

    /// As one file they are within the bound of all.
    pub fn fits(parts: &[Arc<[u8]>]) -> bool {
        parts.iter().map(|part| part.len() as u64).sum::<u64>() <= MOST_BYTES
    }

    /// Gives a whole file its name, which nobody else has.
    fn named(
        &self,
        part: &OsStr,
        renamed: impl Fn(&OsStr, &OsStr) -> rustix::io::Result<()>,
    ) -> io::Result<OsString> {
        let whole = part.as_bytes().strip_suffix(PART.as_bytes()).unwrap_or_default();
        let stem = whole.strip_suffix(END.as_bytes()).unwrap_or_default();
        for number in 0..TRIES {
            let again = if number == 0 { String::new() } else { format!("-{number}") };
            let name = OsString::from_vec([stem, again.as_bytes(), END.as_bytes()].concat());
            match renamed(part, &name) {
                Err(rustix::io::Errno::EXIST) => {}
                renamed => return renamed.map(|()| name).map_err(io::Error::from),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    fn renamed(&self, part: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
        use rustix::io::Errno;
        match renameat_with(&self.folder, part, &self.folder, name, RenameFlags::NOREPLACE) {
            // A file system that cannot rename so may know links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {}
            renamed => return renamed,
        }
        match linkat(&self.folder, part, &self.folder, name, rustix::fs::AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(&self.folder, part, rustix::fs::AtFlags::empty()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::MLINK) => {
                self.reserved(part, name)
            }
            Err(e) => Err(e),
        }
    }

    /// Where neither is known (FUSE leaves both to each file system): a new, empty file keeps the name until the whole one
    /// takes its place.
    fn reserved(&self, part: &OsStr, name: &OsStr) -> rustix::io::Result<()> {
        use rustix::fs::{Mode, OFlags, openat, renameat};
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)?);
        renameat(&self.folder, part, &self.folder, name).inspect_err(|_| self.take_back(&file, name))
    }

    fn take_back(&self, file: &File, name: &OsStr) {
        let found = fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let ours = file.metadata().ok().zip(found.ok());
        if ours.is_some_and(|(ours, found)| (ours.dev(), ours.ino()) == (found.st_dev, found.st_ino)) {
            let _ = unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Lets the oldest go until all are within their bounds, but not `new`, and what is left of programs that were killed.
    fn make_room(&self, new: &OsStr) -> io::Result<()> {
        self.make_room_of(self.own()?, new)
    }

    fn make_room_of(&self, own: Vec<Left>, new: &OsStr) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let long_ago = i64::try_from(now).unwrap_or(i64::MAX) - LEFT;
        let (mut whole, parts): (Vec<Left>, Vec<Left>) =
            own.into_iter().partition(|(_, name, _)| is_own(name.as_bytes(), END));
        for (_, name, _) in parts.iter().filter(|((written, _), ..)| *written < long_ago) {
            self.remove(name)?;
        }
        whole.sort_unstable();
        let mut bytes = whole.iter().map(|(.., bytes)| bytes).sum::<u64>();
        let mut left = whole.len();
        for (_, name, of_it) in whole.into_iter().filter(|(_, name, _)| name != new) {
            if left <= MOST_FILES && bytes <= MOST_BYTES {
                break;
            }
            self.remove(&name)?;
            (left, bytes) = (left - 1, bytes - of_it);
        }
        Ok(())
    }

    /// Files that a flight recorder of this user has left, also those that are not whole.
    fn own(&self) -> io::Result<Vec<Left>> {
        let folder = Dir::read_from(&self.folder).map_err(io::Error::from)?;
        let mut own = Vec::new();
        for entry in folder.take(MOST_NAMES) {
            let entry = entry.map_err(io::Error::from)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !is_own(name.as_bytes(), END) && !is_own(name.as_bytes(), ".vma.part") {
                continue;
            }
            let Ok(stat) = fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            let regular = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
            if regular && stat.st_uid == geteuid().as_raw() {
                own.push(((stat.st_mtime, stat.st_mtime_nsec), name.to_owned(), stat.st_size.unsigned_abs()));
            }
        }
        Ok(own)
    }
}

/// The whole of the name is as [`FlightFolder::write`] makes it: a time as `20260131T235959Z`, a process's number, and one or two
/// more. Whoever gives a file another name keeps it.
fn is_own(name: &[u8], end: &str) -> bool {
    let of_it = || name.strip_prefix(BEGIN.as_bytes())?.strip_suffix(end.as_bytes());
    let Some(of_it) = of_it() else { return false };
    let mut parts = of_it.split(|&b| b == b'-');
    let is_time = |time: &[u8]| {
        time.len() == 16
            && time.iter().enumerate().all(|(at, b)| match at {
                8 => *b == b'T',
                15 => *b == b'Z',
                _ => b.is_ascii_digit(),
            })
    };
    let is_number = |part: &[u8]| (1..=10).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let time = parts.next().is_some_and(is_time);
    let numbers: Vec<&[u8]> = parts.take(4).collect();
    time && (2..=3).contains(&numbers.len()) && numbers.into_iter().all(is_number)
}

fn shown(name: &OsStr) -> impl std::fmt::Display + '_ {
    Path::new(name).display()
}

/// Without slashes at its end, which would ask for what is behind a link.
fn trimmed(path: &Path) -> &[u8] {
    let mut bytes = path.as_os_str().as_bytes();
    while let Some(shorter) = bytes.strip_suffix(b"/").or_else(|| bytes.strip_suffix(b"/.")) {
        bytes = shorter;
    }
    bytes
}

#[cfg(test)]
mod tests;
