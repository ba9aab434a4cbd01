//! The folder of a flight recorder: opened once, by a privileged program, perhaps where others may write.
//!
//! Its files are new ones that only their owner reads, made by descriptor: no link is followed, no file of anybody is
//! written over. Of its own earlier ones the oldest go, so that number and size are bounded, also over many starts.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use rustix::fs::Dir;

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
        let (file, name) = self.make(".vmaudit-flight-try")?;
        drop(file);
        unlinkat(&self.folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        Ok(())
    }

    /// A new file whose name begins so.
    fn make(&self, begin: &str) -> io::Result<(File, OsString)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut number = 0;
        loop {
            let name = OsString::from(format!("{begin}-{}-{number}{END}", std::process::id()));
            match openat(&self.folder, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Err(Errno::EEXIST) if number < TRIES => number += 1,
                made => return Ok((File::from(made?), name)),
            }
        }
    }

    /// Writes a new file of these parts, after the oldest ones have gone that it is too much for. What cannot be written to its
    /// end is not left behind.
    pub fn write(&self, parts: &[Arc<[u8]>]) -> io::Result<PathBuf> {
        let _rights = rights::raised(self.rights);
        let size = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if size > MOST_BYTES {
            return Err(io::Error::other("the stretch is longer than all its files may be together"));
        }
        self.make_room(size)?;
        let now = rfc3339(SystemTime::now()).replace([':', '-'], "");
        let (mut file, name) = self.make(&format!("{BEGIN}{now}"))?;
        if let Err(e) = parts.iter().try_for_each(|part| file.write_all(part)) {
            self.take_back(&file, &name);
            return Err(e);
        }
        Ok(self.path.join(name))
    }

    fn take_back(&self, file: &File, name: &OsStr) {
        let found = fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let ours = file.metadata().ok().zip(found.ok());
        if ours.is_some_and(|(ours, found)| (ours.dev(), ours.ino()) == (found.st_dev, found.st_ino)) {
            let _ = unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Lets the oldest go until there is room for one of this size.
    fn make_room(&self, size: u64) -> io::Result<()> {
        let mut own = self.own()?;
        own.sort_unstable();
        let mut bytes = own.iter().map(|(.., bytes)| bytes).sum::<u64>();
        let mut left = own.len();
        for (_, name, of_it) in own {
            if left < MOST_FILES && bytes.saturating_add(size) <= MOST_BYTES {
                break;
            }
            unlinkat(&self.folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
            (left, bytes) = (left - 1, bytes - of_it);
        }
        Ok(())
    }

    /// Files that a flight recorder of this user has left.
    fn own(&self) -> io::Result<Vec<Left>> {
        let folder = Dir::read_from(&self.folder).map_err(io::Error::from)?;
        let mut own = Vec::new();
        for entry in folder.take(MOST_NAMES) {
            let entry = entry.map_err(io::Error::from)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !name.as_bytes().starts_with(BEGIN.as_bytes()) || !name.as_bytes().ends_with(END.as_bytes()) {
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
