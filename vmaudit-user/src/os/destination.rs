//! Where reports go, and how their files are opened: with the caller's rights alone, and without obeying what strangers
//! planted.
//!
//! A path is walked one name at a time, by descriptors. A folder that others than root and the caller can write to is
//! shared: there no symbolic link is followed but the caller's own (the rule of the kernel's fs.protected_symlinks,
//! whether or not that is switched on), and only a new file or the caller's own one is written to. A report is written
//! into a file without a name, which takes the place of an earlier one when it is complete.

pub(super) mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Seek as _, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use self::walk::{Found, find, is_shared, own_descriptor, planted};
use crate::os::inherited;
use crate::os::rights;

/// Names tried for a file beside another.
const MOST_NAMES: u32 = 100;

/// Where a report goes. A file is opened or made before any workload runs, so that a bad path fails early.
#[derive(Debug)]
pub enum Destination {
    /// Standard error: the default of `run`, whose standard output belongs to the workload.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file.
    File(Target),
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// In one piece: it takes the place of what was there when it is complete, at the first flush.
    Whole,
    /// Line by line, to be read while it grows.
    Lines,
    /// The same, in a new file that only its owner may read; a file that is there goes on as NAME.old.
    Recording,
}

/// An open file.
#[derive(Debug)]
pub struct Target {
    file: File,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The file itself, with what it holds until the first byte is written.
    Found,
    /// The file itself, or one that has its name by now.
    Begun,
    /// The file itself, with the rest of what it held behind what was written.
    Over,
    /// A file that takes its name when it is complete.
    Beside(Beside),
    /// A new recording of which nothing was flushed yet.
    Unborn(Unborn),
}

/// A new file that goes again, and gives its place back, unless something of it is flushed.
#[derive(Debug)]
struct Unborn {
    folder: OwnedFd,
    name: OsString,
    /// Device and number of the file.
    identity: (u64, u64),
    /// What had its name before is called so now.
    old: Option<OsString>,
    stays: bool,
}

#[derive(Debug)]
struct Beside {
    folder: OwnedFd,
    name: OsString,
    /// Its name meanwhile, where files without one are not to be had.
    temporary: Option<OsString>,
    /// Root's own rights over the folders and files of others that are needed to put it in its place.
    rights: &'static [Capability],
}

impl Destination {
    /// Opens `path`; `-` is standard output. Errors: the system's, and one sentence about what strangers may have
    /// planted there.
    pub fn open(path: &Path, writing: Writing) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        Target::open(path, writing).map(Self::File)
    }

    /// The capabilities that root must keep for the end, because only they let root write into a folder of somebody else, or
    /// name a file of somebody else's.
    pub fn rights(&self) -> &'static [Capability] {
        match self {
            Self::File(Target { state: State::Beside(beside), .. }) => beside.rights,
            _ => &[],
        }
    }

    /// Whether people look at it directly.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Stderr => io::stderr().is_terminal(),
            Self::Stdout => io::stdout().is_terminal(),
            Self::File(_) => false,
        }
    }

    /// Nobody sees what is written there before the first flush, nor anything of it unless there is one.
    pub fn is_unseen(&self) -> bool {
        matches!(self, Self::File(Target { state: State::Beside(_), .. }))
    }

    /// Colour is allowed: on a terminal that knows it, and not against NO_COLOR.
    pub fn colour(&self) -> bool {
        let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
        self.is_terminal() && colour_wanted(no_color.as_deref(), term.as_deref())
    }

    /// Width of its terminal in columns; `None` when it is no terminal.
    pub fn columns(&self) -> Option<usize> {
        self.is_terminal().then(|| terminal_size(self.raw_fd())).flatten().map(|(_, columns)| columns)
    }

    fn raw_fd(&self) -> RawFd {
        match self {
            Self::Stderr => io::stderr().as_raw_fd(),
            Self::Stdout => io::stdout().as_raw_fd(),
            Self::File(target) => target.file.as_raw_fd(),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stderr => write_standard(libc::STDERR_FILENO, bytes),
            Self::Stdout => write_standard(libc::STDOUT_FILENO, bytes),
            Self::File(target) => {
                target.begin(bytes.len())?;
                target.file.write(bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stderr | Self::Stdout => Ok(()),
            // Whoever flushes has said all, be it nothing.
            Self::File(target) => target.begin(0).and_then(|()| target.publish()),
        }
    }
}

impl Target {
    fn open(path: &Path, writing: Writing) -> io::Result<Self> {
        if let Some(file) = own_descriptor(path)? {
            return Ok(Self { file, state: State::Begun });
        }
        let (folder, name) = match find(path)? {
            Found::Name(folder, name) => (folder, name),
            // A descriptor by its name in /proc: the kernel knows what is behind it.
            Found::Magic(folder, name) => {
                let file = File::from(openat(&folder, name.as_os_str(), WRITE, Mode::empty())?);
                return Ok(Self { file, state: State::Found });
            }
        };
        let shared = is_shared(&fstat(&folder)?);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let there = match openat(&folder, name.as_os_str(), flags, Mode::empty()) {
            Ok(there) => there,
            Err(Errno::ENOENT) => return Self::new(folder, name, writing, None),
            Err(errno) => return Err(errno.into()),
        };
        match kind(&fstat(&there)?) {
            SFlag::S_IFREG => Self::existing(folder, name, shared, writing),
            SFlag::S_IFDIR => Err(Errno::EISDIR.into()),
            SFlag::S_IFIFO if shared => Err(planted("a FIFO")),
            _ if shared => Err(planted("no regular file")),
            _ => {
                let file = openat(&folder, name.as_os_str(), WRITE | OFlag::O_NOFOLLOW, Mode::empty())?;
                Ok(Self { file: File::from(file), state: State::Found })
            }
        }
    }

    /// `old`: what the file is called now that has its name to give.
    fn new(folder: OwnedFd, name: OsString, writing: Writing, old: Option<OsString>) -> io::Result<Self> {
        if writing == Writing::Whole {
            return Self::beside(folder, name, true);
        }
        let recording = writing == Writing::Recording;
        let flags = WRITE | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let mode = if recording { Mode::S_IRUSR | Mode::S_IWUSR } else { mode_of_new() };
        let file = File::from(openat(&folder, name.as_os_str(), flags, mode)?);
        if !recording {
            return Ok(Self { file, state: State::Begun });
        }
        let found = file.metadata()?;
        let unborn = Unborn { folder, name, identity: (found.dev(), found.ino()), old, stays: false };
        Ok(Self { file, state: State::Unborn(unborn) })
    }

    fn existing(folder: OwnedFd, name: OsString, shared: bool, writing: Writing) -> io::Result<Self> {
        // Somebody may have put another one there since it was looked at: O_NONBLOCK waits for nobody.
        let flags = WRITE | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = openat(&folder, name.as_os_str(), flags, Mode::empty());
        let file = File::from(file.map_err(|errno| match errno {
            Errno::ELOOP | Errno::ENXIO => planted("no regular file"),
            errno => errno.into(),
        })?);
        let found = file.metadata()?;
        let own = found.uid() == geteuid().as_raw();
        if shared {
            match found {
                _ if !found.is_file() => return Err(planted("no regular file")),
                _ if !own => return Err(planted("a file of another user")),
                _ if found.nlink() > 1 => return Err(planted("a file with several names (hard links)")),
                _ => {}
            }
        }
        if writing == Writing::Recording {
            let mut old = name.clone();
            old.push(".old");
            // What is called so is replaced, be it a link: nothing is followed.
            renameat(&folder, name.as_os_str(), &folder, old.as_os_str())?;
            return Self::new(folder, name, writing, Some(old));
        }
        if writing == Writing::Whole
            && let Ok(target) = Self::beside(folder, name, own)
            && target.file.set_permissions(PermissionsExt::from_mode(found.mode() & 0o777)).is_ok()
            && given_to(&target.file, (!own).then_some(found.uid()), found.gid()).is_ok()
        {
            return Ok(target);
        }
        // A file that could not be replaced by one of the same owner and group, or in a folder that may not be changed.
        Ok(Self { file, state: State::Found })
    }

    /// `own`: its owner will be the caller.
    fn beside(folder: OwnedFd, name: OsString, own: bool) -> io::Result<Self> {
        let overrides = geteuid().is_root() && {
            let stat = fstat(&folder)?;
            stat.st_uid != 0 || stat.st_mode & libc::S_IWUSR == 0
        };
        // It gets its name by way of /proc (man 2 openat).
        let nameless = || match File::open("/proc/self/fd") {
            Ok(_) => openat(&folder, ".", WRITE | OFlag::O_TMPFILE, mode_of_new()),
            Err(_) => Err(Errno::EOPNOTSUPP),
        };
        let (file, temporary) = match nameless() {
            Ok(file) => (file, None),
            // EISDIR and ENOENT: kernels and file systems that do not know the flag.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => {
                let flags = WRITE | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                let (file, name) = with_free_name(|name| openat(&folder, name, flags, mode_of_new()))?;
                (file, Some(name))
            }
            Err(errno) => return Err(errno.into()),
        };
        // CAP_FOWNER to link what is another's (fs/namei.c:may_linkat).
        let rights: &[_] = match (overrides, own || !geteuid().is_root()) {
            (false, true) => &[],
            (true, true) => &[Capability::CAP_DAC_OVERRIDE],
            (false, false) => &[Capability::CAP_FOWNER],
            (true, false) => &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER],
        };
        let beside = Beside { folder, name, temporary, rights };
        Ok(Self { file: File::from(file), state: State::Beside(beside) })
    }

    /// Takes away what a file held before. `room`: bytes that are about to be written; where the disk has no room for
    /// them, the file keeps what it holds.
    fn begin(&mut self, room: usize) -> io::Result<()> {
        if !matches!(self.state, State::Found) {
            return Ok(());
        }
        self.state = State::Begun;
        if !self.file.metadata()?.is_file() {
            return Ok(());
        }
        let mode = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let room = libc::off_t::try_from(room).unwrap_or(libc::off_t::MAX);
        match if room > 0 { fallocate(&self.file, mode, 0, room) } else { Err(Errno::EOPNOTSUPP) } {
            Ok(()) => self.state = State::Over,
            Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => {
                self.state = State::Found;
                return Err(errno.into());
            }
            // A file system without it.
            Err(_) => self.file.set_len(0)?,
        }
        Ok(())
    }

    /// Gives a complete file its name.
    fn publish(&mut self) -> io::Result<()> {
        if matches!(self.state, State::Over) {
            let end = self.file.stream_position()?;
            self.file.set_len(end)?;
        }
        let beside = match &mut self.state {
            State::Beside(beside) => beside,
            State::Unborn(unborn) => {
                unborn.stays = true;
                self.state = State::Begun;
                return self.file.flush();
            }
            _ => return self.file.flush(),
        };
        let _rights = rights::raised(beside.rights);
        if beside.temporary.is_none() {
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link = |name: &OsStr| {
                linkat(AT_FDCWD, own.as_str(), &beside.folder, name, AtFlags::AT_SYMLINK_FOLLOW)
            };
            beside.temporary = Some(with_free_name(link)?.1);
        }
        if let Some(temporary) = &beside.temporary {
            renameat(&beside.folder, temporary.as_os_str(), &beside.folder, beside.name.as_os_str())?;
        }
        beside.temporary = None;
        self.state = State::Begun;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _rights = rights::raised(self.rights);
            let _ = unlinkat(&self.folder, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl Drop for Unborn {
    fn drop(&mut self) {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        // In a folder where others may write, another file may have the name by now.
        let ours = fstatat(&self.folder, self.name.as_os_str(), flags)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == self.identity);
        if self.stays || !ours {
            return;
        }
        let _ = match &self.old {
            Some(old) => renameat(&self.folder, old.as_os_str(), &self.folder, self.name.as_os_str()),
            None => unlinkat(&self.folder, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir),
        };
    }
}

/// Writes to a standard descriptor. Not through the standard library, which takes a closed one, or one that is open for
/// reading only, for a success (library/std/src/io/stdio.rs:handle_ebadf) and has opened /dev/null in its place at start.
fn write_standard(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    if inherited::closed_descriptors().any(|closed| closed == fd) {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: `bytes` lives through the call; a descriptor that is not open is an answer.
    let written = Errno::result(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })?;
    Ok(usize::try_from(written).unwrap_or(0))
}

/// Gives a file to an owner, where that is another one, and to a group. Only root can give a file away.
fn given_to(file: &File, owner: Option<u32>, group: u32) -> io::Result<()> {
    let wanted: &[_] = if geteuid().is_root() { &[Capability::CAP_CHOWN] } else { &[] };
    let _rights = rights::raised(wanted);
    std::os::unix::fs::fchown(file, owner, Some(group))
}

/// A terminal that is opened does not become ours.
const WRITE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY);

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// What rights brought to light is nobody else's; the umask takes its part.
fn mode_of_new() -> Mode {
    Mode::from_bits_truncate(if rights::had_any() { 0o600 } else { 0o666 })
}

/// Lets `make` try names of our own until one is free.
fn with_free_name<T>(mut make: impl FnMut(&OsStr) -> nix::Result<T>) -> nix::Result<(T, OsString)> {
    let mut n = 0;
    loop {
        let name = OsString::from(format!(".vmaudit-{}-{n}", std::process::id()));
        match make(&name) {
            Err(Errno::EEXIST) if n < MOST_NAMES => n += 1,
            answer => return answer.map(|made| (made, name)),
        }
    }
}

/// no-color.org: NO_COLOR counts when it is set and not empty.
fn colour_wanted(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

pub(super) fn terminal_size(fd: RawFd) -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize to the address it is given, and `size` is one that outlives the call.
    let answer = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some((size.ws_row.into(), size.ws_col.into()))
}

#[cfg(test)]
mod tests;
