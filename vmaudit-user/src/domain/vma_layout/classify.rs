//! What a mapping is, told from itself and its two neighbours.

use crate::domain::vma_layout::maps_parser::Mapping;
use crate::domain::vma_layout::merge_blockers::{is_library, kernel_made};
use crate::domain::vma_layout::shared_memory::shared_memory;
use crate::model::vma_layout::Kind;

/// The mapping that touches another from below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Below {
    pub(super) told: Told,
    pub(super) bytes: u64,
}

/// What can be told of a mapping from itself and its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Kind(Kind),
    /// A short range without access below memory of so many bytes.
    Below(u64),
    /// Memory above a short range without access of so many bytes.
    Above(u64),
}

pub(crate) const MIB: u64 = 1 << 20;

/// Guards are at most this long, bytes (a page of 64 KiB) ...
pub(super) const MAX_GUARD: u64 = 64 << 10;
/// ... and one above what it guards at least so many times shorter.
pub(super) const GUARDED: u64 = 4;

/// What `it` is; `before` touches it from below, `after` is the next one.
pub(super) fn told(before: Option<Below>, it: &Mapping, after: Option<&Mapping>) -> Told {
    let name = it.name.as_str();
    let touching = after.filter(|after| after.start == it.end && !after.has_file() && after.name.is_empty());
    if kernel_made(name) {
        return Told::Kind(Kind::Kernel);
    }
    if it.has_file() {
        return Told::Kind(file_kind(it));
    }
    match name {
        // What lies right above the heap is called so too (fs/proc/task_mmu.c:vma_is_initial_heap); a heap can be used.
        "[heap]" if !it.inaccessible() => return Told::Kind(Kind::Heap),
        "[stack]" => return Told::Kind(Kind::MainStack),
        "" | "[heap]" => {}
        _ => return Told::Kind(Kind::Named),
    }
    if it.inaccessible() {
        return without_access(before, it, touching);
    }
    if it.permissions.execute {
        return Told::Kind(Kind::Jit);
    }
    if it.start.is_multiple_of(64 * MIB)
        && it.permissions.write
        && touching.is_some_and(|next| {
            next.inaccessible() && next.end.is_multiple_of(64 * MIB) && next.end - it.start == 64 * MIB
        })
    {
        return Told::Kind(Kind::Arena);
    }
    match before {
        Some(Below { told: Told::Below(_), bytes }) if it.permissions.write => Told::Above(bytes),
        _ => Told::Kind(Kind::Anonymous),
    }
}

fn file_kind(it: &Mapping) -> Kind {
    let name = it.name.as_str();
    if shared_memory(name).is_some() || name.starts_with("/dev/shm/") {
        Kind::SharedMemory
    } else if name.starts_with("/dev/") || name.starts_with("anon_inode:") {
        Kind::Device
    } else if name.ends_with(" (deleted)") {
        Kind::DeletedFile
    } else if it.permissions.execute || is_library(name) {
        Kind::Library
    } else {
        Kind::File
    }
}

/// Anonymous memory without access; `above` touches it and is anonymous.
fn without_access(before: Option<Below>, it: &Mapping, above: Option<&Mapping>) -> Told {
    // The unused part of an arena ends where the arena ends.
    if before.is_some_and(|before| before.told == Told::Kind(Kind::Arena)) && it.end.is_multiple_of(64 * MIB)
    {
        return Told::Kind(Kind::Arena);
    }
    let short = it.bytes() <= MAX_GUARD;
    // What goes on below is a longer range without access.
    let goes_on =
        before.is_some_and(|it| matches!(it.told, Told::Below(_) | Told::Kind(Kind::Reserved | Kind::Guard)));
    if let Some(above) = above.filter(|above| above.permissions.write && !above.permissions.execute)
        && short
        && !goes_on
        && !is_arena(above)
    {
        return Told::Below(above.bytes());
    }
    let below = before.is_some_and(|before| {
        let memory =
            matches!(before.told, Told::Above(_) | Told::Kind(Kind::Anonymous | Kind::Named | Kind::Jit));
        memory && short && before.bytes / GUARDED >= it.bytes()
    });
    Told::Kind(if below { Kind::Guard } else { Kind::Reserved })
}

/// It begins where arenas of glibc begin: whether it is one its other end tells.
fn is_arena(it: &Mapping) -> bool {
    it.start.is_multiple_of(64 * MIB)
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
