//! Opens files for the process that reads them: the ones that are mapped, perf maps, debug information beside them. It
//! has vmaudit's right to read files and reads none.
//!
//! One rule for all of them: looked up without running code of the file (O_PATH), found to be a regular file, and only
//! then opened, by the descriptor and not by the name once more.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
};

use caps::{CapSet, Capability};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{
    Handle, Image, Module,
    channel::{self, Ask},
    checked_open::{below, reopen, stat},
    debug_files,
    told::{self, Stamp},
};

/// What is mapped where, and by whom.
pub struct Opener<'a> {
    pub modules: &'a [Module],
    pub images: &'a HashMap<u64, Image>,
}

impl Opener<'_> {
    /// Descriptors that it needs.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let roots = self.images.values().filter_map(|image| Some(image.root.as_ref()?.0.as_raw_fd()));
        let held = self.modules.iter().map(|module| match &module.handle {
            Handle::Held(fd, _) => fd.as_raw_fd(),
            Handle::Below(root, _) => root.as_raw_fd(),
            Handle::Named => -1,
        });
        let mut all: Vec<RawFd> = roots.chain(held).filter(|&fd| fd >= 0).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Answers until the reader is gone.
    pub fn serve(&self, reader: &OwnedFd) {
        keep_reading_only();
        channel::serve(reader, |ask| match ask {
            Ask::Module(index) => open(self.modules.get(index)?),
            Ask::PerfMap(generation) => {
                let (root, pid) = self.images.get(&generation)?.root.as_ref()?;
                perf_map(root.as_fd(), *pid)
            }
            Ask::BuildId { module, id } => debug_files::by_build_id(&self.home(module)?, &id),
            Ask::Link { module, name, place } => debug_files::by_name(&self.home(module)?, &name, place),
        })
    }

    /// Where a mapped file lies: below vmaudit's own root, or else below that of a process that maps it.
    fn home(&self, index: usize) -> Option<debug_files::Home> {
        let module = self.modules.get(index)?;
        let program = match &module.handle {
            Handle::Held(fd, _) => stat(fd.as_fd())?,
            Handle::Named => stat(named(module)?.as_fd())?,
            Handle::Below(root, inode) => {
                let fd = below(root.as_fd(), &module.key.name, IN_ROOT)?;
                stat(fd.as_fd()).filter(|stat| stat.st_ino == *inode)?
            }
        };
        let own = Rc::new(rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?);
        let maps_it = |image: &&Image| image.areas.iter().any(|area| area.module == Some(index));
        let others = self.images.values().filter(maps_it).filter_map(|image| Some(&image.root.as_ref()?.0));
        std::iter::once(&own)
            .chain(others)
            .find_map(|root| debug_files::home(root, &module.key.name, &program))
    }
}

/// Of all rights, the one to read files of other users is left.
fn keep_reading_only() {
    const READ: Capability = Capability::CAP_DAC_READ_SEARCH;
    let may = caps::has_cap(None, CapSet::Permitted, READ).unwrap_or(false);
    let keep: caps::CapsHashSet = may.then_some(READ).into_iter().collect();
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        let _ = caps::clear(None, set);
    }
    let _ = caps::set(None, CapSet::Effective, &keep);
    let _ = caps::set(None, CapSet::Permitted, &keep);
    super::child::dies_with_parent();
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
}

fn open(module: &Module) -> Option<File> {
    match &module.handle {
        // The very file that is mapped: its process could read it.
        Handle::Held(fd, None) => reopen(fd.as_fd()),
        Handle::Held(fd, Some(stamp)) => {
            let file = by_path(fd)?;
            // What was written into it since was not mapped by a process that is gone.
            Stamp::of(&file.as_fd()).is_some_and(|now| now.same_content(stamp)).then_some(file)
        }
        Handle::Named => by_path(&named(module)?),
        Handle::Below(root, inode) => {
            let fd = below(root.as_fd(), &module.key.name, IN_ROOT)?;
            // The device number of a mapping is not always that of stat, so the inode must do.
            stat(fd.as_fd()).filter(|stat| stat.st_ino == *inode)?;
            by_path(&fd)
        }
    }
}

/// Opens what is thought to be a mapped file because inode number and times are the same. A file system of the process's
/// own (FUSE) can give its files any of both, so nothing is opened that is no program and that only its owner may read.
fn by_path(found: &OwnedFd) -> Option<File> {
    let stat = stat(found.as_fd())?;
    (stat.st_mode & 0o115 != 0).then(|| reopen(found.as_fd()))?
}

/// Where the process may have mounted and linked what it likes: a file of that name in the folder of that name.
fn perf_map(root: BorrowedFd<'_>, pid: u32) -> Option<File> {
    let folder = below(root, "tmp", IN_ROOT)?;
    let map = below(folder.as_fd(), &format!("perf-{pid}.map"), debug_files::STRICT)?;
    let stat = stat(map.as_fd())?;
    // One that has another name, too, may be anybody's.
    (stat.st_nlink == 1 || stat.st_mode & 0o004 != 0).then(|| reopen(map.as_fd()))?
}

fn named(module: &Module) -> Option<OwnedFd> {
    let fd = told::find(&module.key.name, false).ok()?;
    Stamp::of(&fd.as_fd())?.is(&module.key).then_some(fd)
}

/// A process's own files, named by itself: no link leads out of its root.
pub const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
