//! Who is followed: the table of processes, by tgid.

use aya_ebpf::{macros::map, maps::HashMap};
use vmaudit_common::{FOLLOW_AFTER_EXEC, FOLLOW_FROM_BIRTH, FOLLOW_LATE, Followed};

use crate::{
    control::{config, lost},
    namespace,
};

/// Followed processes by tgid; user space puts the first ones in.
#[map]
static FOLLOWED: HashMap<u32, Followed> = HashMap::with_max_entries(16384, 0);

/// The address space of each followed process, where its end has to be told by the process's (see `hooks::sampled`).
#[map]
static MM_OF_TGID: HashMap<u32, u64> = HashMap::with_max_entries(16384, 0);

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// `FOLLOW_*` bits of a process; `None` if it is not in the table.
#[inline(always)]
pub fn flags_of(tgid: u32) -> Option<u32> {
    // SAFETY: the value is copied at once; entries are preallocated and never freed to the system.
    unsafe { FOLLOWED.get(tgid) }.map(|followed| followed.flags)
}

/// Is this process followed?
#[inline(always)]
pub fn follows(tgid: u32) -> bool {
    if config!(watch_all) != 0 {
        return tgid != config!(self_tgid) && namespace::in_sight();
    }
    match flags_of(tgid) {
        Some(flags) => flags & FOLLOW_AFTER_EXEC == 0,
        None => false,
    }
}

/// Is it, or will it be from its next exec on?
#[inline(always)]
pub fn follows_or_waits(tgid: u32) -> bool {
    if config!(watch_all) != 0 { follows(tgid) } else { flags_of(tgid).is_some() }
}

/// A process is followed from its birth on.
#[inline(always)]
pub fn add_from_birth(tgid: u32) {
    if FOLLOWED.insert(tgid, Followed { flags: FOLLOW_FROM_BIRTH, reserved: 0 }, BPF_ANY).is_err() {
        lost!(tree_full);
    }
}

/// A process is followed, but whoever saw its birth could not find its address space. What is known of it stays.
#[inline(always)]
pub fn add_late(tgid: u32) {
    if flags_of(tgid).is_none()
        && FOLLOWED.insert(tgid, Followed { flags: FOLLOW_LATE, reserved: 0 }, BPF_NOEXIST).is_err()
    {
        lost!(tree_full);
    }
}

/// A new image: from here on all of the process is known.
#[inline(always)]
pub fn begin_anew(tgid: u32) {
    if let Some(followed) = FOLLOWED.get_ptr_mut(tgid) {
        // SAFETY: the map is ours; the value is changed in place, by the process's only running thread.
        unsafe { (*followed).flags = FOLLOW_FROM_BIRTH };
    }
}

/// Nobody has this number any more.
#[inline(always)]
pub fn remove(tgid: u32) {
    let _ = FOLLOWED.remove(tgid);
}

/// The address space that this process is known to have.
#[inline(always)]
pub fn mm_of(tgid: u32) -> Option<u64> {
    // SAFETY: as in `flags_of`.
    unsafe { MM_OF_TGID.get(tgid) }.copied()
}

/// This process has this address space.
#[inline(always)]
pub fn set_mm(tgid: u32, mm: u64) {
    if MM_OF_TGID.insert(tgid, mm, BPF_ANY).is_err() {
        lost!(death_missed);
    }
}

/// Its address space is over.
#[inline(always)]
pub fn remove_mm(tgid: u32) {
    let _ = MM_OF_TGID.remove(tgid);
}
