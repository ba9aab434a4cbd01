//! What a mapping is, told from itself and its two neighbours.

use serde::{Deserialize, Serialize};

use super::boundary::{is_library, kernel_made};
use crate::maps::Mapping;

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program or library (executable file or its segments).
    Library,
    /// Any other file.
    File,
    /// A file that was deleted.
    DeletedFile,
    /// memfd, /dev/shm, SysV, MAP_SHARED | MAP_ANONYMOUS.
    SharedMemory,
    /// A device.
    Device,
    /// `[heap]`: brk.
    Heap,
    /// `[stack]` of the first thread.
    MainStack,
    /// Memory behind a guard page: stacks of threads and fibers.
    Stack,
    /// A short range without access beside a longer one with it.
    Guard,
    /// glibc's malloc arenas: 64 MiB, aligned.
    Arena,
    /// Another range without access.
    Reserved,
    /// Anonymous memory with a name.
    Named,
    /// Anonymous memory that can be executed: compiled at run time.
    Jit,
    /// Other anonymous memory.
    Anonymous,
    /// vdso, vvar, uprobes.
    Kernel,
}

impl Kind {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Library => "programs and libraries",
            Self::File => "other files",
            Self::DeletedFile => "deleted files",
            Self::SharedMemory => "shared memory",
            Self::Device => "devices",
            Self::Heap => "heap (brk)",
            Self::MainStack => "main stack",
            Self::Stack => "stacks behind a guard page",
            Self::Guard => "guard pages",
            Self::Arena => "malloc arenas (glibc)",
            Self::Reserved => "ranges without access (reserved)",
            Self::Named => "named anonymous memory",
            Self::Jit => "executable anonymous memory",
            Self::Anonymous => "anonymous memory",
            Self::Kernel => "kernel-made (vdso, vvar)",
        }
    }
}

/// The mapping that touches another from below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Below {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
}

pub(super) const MIB: u64 = 1 << 20;

/// Guards are at most this long, bytes (a page of 64 KiB) ...
pub(super) const MAX_GUARD: u64 = 64 << 10;
/// ... and guard at least so many times their length.
pub(super) const GUARDED: u64 = 4;

/// What `it` is; `before` touches it from below, `after` is the next one.
pub(super) fn kind(before: Option<Below>, it: &Mapping, after: Option<&Mapping>) -> Kind {
    let name = it.name.as_str();
    let touching = after.filter(|after| after.start == it.end && !after.has_file() && after.name.is_empty());
    if kernel_made(name) {
        return Kind::Kernel;
    }
    if it.has_file() {
        let shared_memory = ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero", "/anon_hugepage", "[anon_shmem"];
        return if shared_memory.iter().any(|prefix| name.starts_with(prefix)) {
            Kind::SharedMemory
        } else if name.starts_with("/dev/") || name.starts_with("anon_inode:") {
            Kind::Device
        } else if name.ends_with(" (deleted)") {
            Kind::DeletedFile
        } else if it.permissions.execute || is_library(name) {
            Kind::Library
        } else {
            Kind::File
        };
    }
    match name {
        "[heap]" => return Kind::Heap,
        "[stack]" => return Kind::MainStack,
        "" => {}
        _ => return Kind::Named,
    }
    if it.inaccessible() {
        // The unused part of an arena ends where the arena ends.
        if before.is_some_and(|before| before.kind == Kind::Arena) && it.end.is_multiple_of(64 * MIB) {
            return Kind::Arena;
        }
        let guards = |bytes: u64| it.bytes() <= MAX_GUARD && bytes / GUARDED >= it.bytes();
        let above = touching.is_some_and(|next| next.permissions.write && guards(next.bytes()));
        let below = before.is_some_and(|before| {
            matches!(before.kind, Kind::Stack | Kind::Anonymous | Kind::Named | Kind::Jit)
                && guards(before.bytes)
        });
        return if above || below { Kind::Guard } else { Kind::Reserved };
    }
    if it.permissions.execute {
        return Kind::Jit;
    }
    if it.start.is_multiple_of(64 * MIB)
        && it.permissions.write
        && touching.is_some_and(|next| {
            next.inaccessible() && next.end.is_multiple_of(64 * MIB) && next.end - it.start == 64 * MIB
        })
    {
        return Kind::Arena;
    }
    if it.permissions.write
        && before.is_some_and(|before| before.kind == Kind::Guard && it.bytes() / GUARDED >= before.bytes)
    {
        return Kind::Stack;
    }
    Kind::Anonymous
}

/// Ending of a file's name: `.dvd (deleted)`, `.so`; `None` for what is no file.
pub(super) fn extension(mapping: &Mapping) -> Option<String> {
    if !mapping.has_file() || !mapping.name.starts_with('/') {
        return None;
    }
    let (name, deleted) = match mapping.name.strip_suffix(" (deleted)") {
        Some(name) => (name, " (deleted)"),
        None => (mapping.name.as_str(), ""),
    };
    let file = name.rsplit('/').next().unwrap_or(name);
    if is_library(file) {
        return Some(format!(".so{deleted}"));
    }
    Some(match file.rsplit_once('.') {
        Some((stem, ending))
            if !stem.is_empty()
                && ending.len() <= 12
                // `python3.11` has no ending.
                && ending.bytes().any(|b| !b.is_ascii_digit()) =>
        {
            format!(".{ending}{deleted}")
        }
        _ => format!("(no ending){deleted}"),
    })
}
