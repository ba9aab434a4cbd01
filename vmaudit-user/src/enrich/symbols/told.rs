//! What the kernel told of mappings of processes that may be gone, and how their files are found again.
//!
//! A path proves nothing: another file may stand there by now. So a file counts only if its inode number and the time
//! of its inode's last change are those that the kernel read when the call was refused. No one can set that time, and
//! no two inodes of one number have the same. A file that was replaced, rebuilt, renamed or removed, or one in a mount
//! namespace that vmaudit does not see, stays a name and an offset.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    ffi::CString,
    io::{Error, Result},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use crate::enrich::symbols::{By, Handle, Key, Module, held};
use crate::model::event::{Mapped, MappedFile};

/// Mappings kept, all processes together; about 300 bytes each.
const MAPPINGS: usize = 8192;

/// By address space.
#[derive(Debug, Default)]
pub struct Told {
    mappings: HashMap<u64, Vec<Mapped>>,
    kept: usize,
}

impl Told {
    pub fn take(&mut self, mapped: &Mapped) {
        if self.kept >= MAPPINGS {
            return;
        }
        let of_image = match self.mappings.entry(mapped.generation) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        if !of_image.contains(mapped) {
            of_image.push(mapped.clone());
            self.kept += 1;
        }
    }

    /// Forgets all but these address spaces.
    pub fn keep(&mut self, wanted: &HashSet<u64>) {
        self.mappings.retain(|generation, _| wanted.contains(generation));
        self.kept = self.mappings.values().map(Vec::len).sum();
    }

    /// All that was told of code of this address space, the newest first.
    pub fn code_of(&self, generation: u64) -> impl Iterator<Item = &Mapped> {
        self.mappings.get(&generation).into_iter().flatten().rev().filter(|mapped| mapped.executable)
    }

    /// What was told last of an address.
    pub fn at(&self, generation: u64, at: u64) -> Option<&Mapped> {
        self.mappings.get(&generation)?.iter().rev().find(|mapped| (mapped.start..mapped.end).contains(&at))
    }
}

/// Whether a file is the one that was mapped, and whether it was written to since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    written: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    /// Of a regular file. Asks no server of a network or user-space file system.
    pub fn of(file: &BorrowedFd<'_>) -> Option<Self> {
        // SAFETY: all bytes zero is a valid statx.
        let mut it: libc::statx = unsafe { std::mem::zeroed() };
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        // SAFETY: an open descriptor, an empty path and a buffer that outlives the call.
        let answer = unsafe {
            libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_BASIC_STATS, &raw mut it)
        };
        if answer != 0 || u32::from(it.stx_mode) & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        let time = |t: libc::statx_timestamp| (t.tv_sec, t.tv_nsec);
        Some(Self {
            inode: it.stx_ino,
            size: it.stx_size,
            written: time(it.stx_mtime),
            changed: time(it.stx_ctime),
        })
    }

    /// This is the file of that key, unchanged.
    pub fn is(&self, key: &Key) -> bool {
        self.inode == key.inode && By::Change(self.changed.0, self.changed.1) == key.by
    }

    /// Nobody wrote to the file in between; new links or rights are no matter.
    pub fn same_content(&self, other: &Self) -> bool {
        (self.inode, self.size, self.written) == (other.inode, other.size, other.written)
    }
}

/// Index of a file that the kernel told of, held from now on if it is still there.
pub fn hold(modules: &mut Vec<Module>, file: &MappedFile) -> Option<usize> {
    let by = By::Change(file.changed.0, file.changed.1);
    let key = Key { name: file.path.clone(), inode: file.inode, by };
    let handle = match find(&file.path, true) {
        Ok(fd) => {
            let stamp = Stamp::of(&std::os::fd::AsFd::as_fd(&fd)).filter(|stamp| stamp.is(&key))?;
            Handle::Held(fd, Some(stamp))
        }
        // The child that reads symbols may wait for a server; and kernels before 5.12 cannot say whether one is asked.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) => Handle::Named,
        Err(_) => return None,
    };
    held(modules, key, || Some(handle))
}

/// O_PATH of a file by an absolute path without links. `cached`: only if the kernel knows the whole way without asking a
/// file system, so that no dead server holds vmaudit up; the file was mapped a moment ago, so it usually does.
pub fn find(path: &str, cached: bool) -> Result<OwnedFd> {
    if !path.starts_with('/') {
        return Err(Error::from_raw_os_error(libc::ENOENT));
    }
    let path = CString::new(path)?;
    // SAFETY: all bytes zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW) as u64;
    how.resolve = libc::RESOLVE_NO_SYMLINKS | if cached { RESOLVE_CACHED } else { 0 };
    // SAFETY: path and `how` are live, the size is that of `how`.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), &raw const how, size_of_val(&how))
    };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// include/uapi/linux/openat2.h (5.12).
const RESOLVE_CACHED: u64 = 0x20;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::path::PathBuf;

    use crate::enrich::symbols::told::*;

    fn mapped(start: u64, end: u64, offset: u64) -> Mapped {
        Mapped { generation: 5, start, end, offset, executable: true, file: None }
    }

    #[test]
    fn what_was_told_last_of_an_address_counts() {
        let mut told = Told::default();
        for mapped in [mapped(0x1000, 0x3000, 0), mapped(0x2000, 0x3000, 7), mapped(0x2000, 0x3000, 7)] {
            told.take(&mapped);
        }
        assert_eq!(told.kept, 2, "the same is kept once");
        let offset = |at| told.at(5, at).map(|mapped| mapped.offset);
        assert_eq!(
            [offset(0x1fff), offset(0x2000), offset(0x2fff), offset(0x3000)],
            [Some(0), Some(7), Some(7), None]
        );
        assert!(told.at(6, 0x1000).is_none(), "another address space");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut told = Told::default();
        for n in 0..2 * MAPPINGS as u64 {
            told.take(&Mapped { generation: n / 3, ..mapped(n, n + 1, 0) });
        }
        assert_eq!((told.kept, told.mappings.values().map(Vec::len).sum()), (MAPPINGS, MAPPINGS));
    }

    /// A file of ours, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().canonicalize().unwrap();
            let path = folder.join(format!("vmaudit-told-{name}-{}", std::process::id()));
            std::fs::write(&path, name).unwrap();
            Self(path)
        }

        /// As the kernel would tell of it.
        fn told(&self) -> MappedFile {
            let path = self.0.to_str().unwrap().to_owned();
            let stamp = Stamp::of(&find(&path, false).unwrap().as_fd()).unwrap();
            MappedFile { path, inode: stamp.inode, changed: stamp.changed }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn only_the_very_file_that_was_mapped_is_held() {
        let file = Scratch::new("file");
        let told = file.told();
        let mut modules = Vec::new();
        assert_eq!(hold(&mut modules, &told), Some(0));
        assert_eq!(hold(&mut modules, &told), Some(0), "once");
        let (seconds, nanoseconds) = told.changed;
        for other in [
            MappedFile { inode: told.inode + 1, ..told.clone() },
            MappedFile { changed: (seconds, nanoseconds ^ 1), ..told.clone() },
            MappedFile { path: format!("...{}", told.path), ..told.clone() },
            MappedFile { path: "/tmp\0/x".into(), ..told.clone() },
        ] {
            assert_eq!(hold(&mut modules, &other), None, "{other:?}");
        }
        // Another file by the same name.
        std::fs::rename(&Scratch::new("another").0, &file.0).unwrap();
        assert_eq!(hold(&mut Vec::new(), &told), None);
    }

    #[test]
    fn links_are_not_followed_and_only_regular_files_count() {
        let file = Scratch::new("target");
        let link = file.0.with_extension("link");
        std::os::unix::fs::symlink(&file.0, &link).unwrap();
        let by_link = MappedFile { path: link.to_str().unwrap().into(), ..file.told() };
        assert_eq!(hold(&mut Vec::new(), &by_link), None);
        std::fs::remove_file(&link).unwrap();
        assert!(Stamp::of(&std::fs::File::open("/dev/null").unwrap().as_fd()).is_none());
    }
}
