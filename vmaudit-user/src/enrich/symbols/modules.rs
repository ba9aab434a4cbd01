//! The mapped files below stacks, each held once.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::mappings::Found;
use super::told::Stamp;

/// Files held, one descriptor each.
pub(super) const MODULES: usize = 128;

/// A mapped file.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) key: Key,
    pub(super) handle: Handle,
}

/// Tells mapped files apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) inode: u64,
    pub(super) by: By,
}

/// What is known of a file besides its name and inode number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Its device, from /proc/PID/maps.
    Device(u32, u32),
    /// The time of its inode's last change, from the kernel.
    Change(i64, u32),
}

/// How to get at a mapped file.
#[derive(Debug)]
pub(super) enum Handle {
    /// O_PATH: the very inode, deleted or not, in whatever mount namespace. With a stamp: if it is still as it was.
    Held(OwnedFd, Option<Stamp>),
    /// To be looked up in vmaudit's own namespace, if the inode there is the mapped one, unchanged.
    Named,
    /// To be looked up below this root, if the inode there is still the mapped one.
    Below(Rc<OwnedFd>, u64),
}

/// Index of the mapped file, held from now on.
pub(super) fn hold(
    modules: &mut Vec<Module>,
    found: &Found,
    file: Option<OwnedFd>,
    root: Option<&Rc<OwnedFd>>,
) -> Option<usize> {
    if found.inode == 0 {
        return None;
    }
    let by = By::Device(found.device.0, found.device.1);
    let key = Key { name: found.name.clone(), inode: found.inode, by };
    held(modules, key, || {
        Some(match file {
            Some(fd) => Handle::Held(fd, None),
            None => Handle::Below(Rc::clone(root?), found.inode),
        })
    })
}

/// Index of the module with this key, which is made if it is new and there is room.
pub(super) fn held(
    modules: &mut Vec<Module>,
    key: Key,
    hold: impl FnOnce() -> Option<Handle>,
) -> Option<usize> {
    if let Some(index) = modules.iter().position(|module| module.key == key) {
        return Some(index);
    }
    if modules.len() >= MODULES {
        return None;
    }
    let handle = hold()?;
    modules.push(Module { key, handle });
    Some(modules.len() - 1)
}
