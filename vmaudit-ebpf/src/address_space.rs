//! A followed address space: how it begins, and how it ends.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use vmaudit_common::{
    FOLLOW_AFTER_EXEC, FOLLOW_FROM_BIRTH, FOLLOW_LATE, MM_FROM_BIRTH, MM_FROM_EXEC, MM_LODGERS, Makers, Sizes,
};

use crate::{
    control::{config, layout, lost},
    followed, kernel, lock_sequence, namespace, records, sizes,
    slots::{self, Slot},
};

/// Whose an address space is, and how it came to be.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Any of its tasks.
    pub task: u64,
    /// Process id.
    pub tgid: u32,
    /// The parent's.
    pub ppid: u32,
    /// `MM_*` bits.
    pub flags: u32,
}

/// Starts following an address space with the count it has now.
#[inline(always)]
pub fn open(mm: u64, owner: Owner) -> Option<Slot> {
    open_at(mm, owner, (kernel::map_count(mm), sizes::of(mm)))
}

/// Starts following an address space with this count and these sizes.
#[inline(always)]
pub fn open_at(mm: u64, owner: Owner, seen: (u32, Sizes)) -> Option<Slot> {
    claim_for::<true>(mm, owner, seen)
}

/// See [`open_at`]. `CAS`: the kernel has compare-and-swap.
#[inline(always)]
pub fn claim_for<const CAS: bool>(mm: u64, owner: Owner, (count, sizes): (u32, Sizes)) -> Option<Slot> {
    let uid = kernel::uid_of(owner.task);
    let (index, slot) = slots::claim::<CAS>(uid)?;
    fill(slot, owner, uid, count);
    slot.set_most(sizes);
    slot.set_sequence(lock_sequence::now(mm));
    slot.go_live();
    // Two who meet the same mm must not both win.
    if slots::enter(mm, index) {
        return Some(slot);
    }
    slot.give_back();
    None
}

/// Makes a slot that is claimed that of an address space with this count, or of a process that lives in one. It is ours alone
/// until it goes live; user space zeroed it when it freed it.
#[inline(always)]
pub fn fill(slot: Slot, owner: Owner, uid: u32, count: u32) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let leader = kernel::leader_of(owner.task);
    slot.set_tgid(owner.tgid);
    slot.set_ppid(owner.ppid);
    slot.set_start_boottime_ns(kernel::read(leader, layout!(task_start_boottime)));
    slot.set_comm(kernel::comm_of(leader));
    slot.set_uid(uid);
    slot.set_first(count);
    slot.set_last(count);
    slot.set_peak(count);
    slot.set_born_ns(now);
    slot.set_peak_ns(now);
    slot.set_flags(owner.flags);
    slot.forget_figures();
    slot.set_host(0);
    slot.set_verified(0);
    slot.set_makers(Makers::begin(count));
    if config!(pid_ns_level) != 0 {
        slot.set_shown_tgid(namespace::shown(leader));
        slot.set_shown_ppid(namespace::shown(kernel::leader_of(kernel::read(
            leader,
            layout!(task_real_parent),
        ))));
    }
}

/// An address space is being torn down, by the last task that had to do with it.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn torn_down(mm: u64) -> u64 {
    let Some(index) = slots::index_of(mm) else { return 0 };
    // Before 6.16 sched_process_exit comes too late to ask for the last name. An exec also ends an address space, but
    // by then the task may bear the new image's name.
    if let Some(slot) = Slot::at(index)
        && !kernel::in_exec()
    {
        let (tgid, _) = kernel::ids();
        if slot.tgid() == tgid {
            slot.set_comm(kernel::comm_of(kernel::leader_of(kernel::current())));
        } else if kernel::mm_of(kernel::current()) == 0 && slot.flags() & MM_LODGERS == 0 {
            // Not a reader who came last, but a task that ends: the owner's end was not seen, and this one's
            // changes went to the owner's slot. (Or the owner ended before a vfork child of it. Others that have lived in
            // it are known, and may have been the last.)
            lock_sequence::late(slot);
        }
    }
    finish(index, mm, true);
    0
}

/// The figures of this address space are final. `count`: what it has now is its last; else, what was seen last.
#[inline(always)]
pub fn finish(index: u32, mm: u64, count: bool) {
    let Some(slot) = Slot::at(index) else { return };
    // exit_mmap runs once, but two programs may listen to it, and a walk may end what it began too late.
    if !slots::leave(mm) {
        if slots::index_of(mm) == Some(index) {
            // Counted as a missed death: the table refused.
            lock_sequence::late(slot);
        }
        return;
    }
    // Nobody else finds it any more.
    if count {
        // exit_mmap never counts down, so the field still holds the last value (mm/mmap.c:exit_mmap, 5.10 to 7.3).
        let count = kernel::map_count(mm);
        slot.set_last(count);
        if count > slot.peak() {
            slot.set_peak(count);
        }
        // Nor does it take anything from the sizes, and the stack may have grown since.
        slot.was_of(sizes::of(mm));
        lock_sequence::end(slot, mm);
    }
    // SAFETY: no preconditions.
    slot.set_dead_ns(unsafe { bpf_ktime_get_ns() });
    // User space may free the slot as soon as it is dead.
    let (generation, tgid) = (slot.generation(), slot.tgid());
    slot.go_dead();
    records::dead(index, tgid, generation);
}

/// The former owner of this mm_struct ended, and no program saw it. A function of its own because it is rare.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_unseen(index: u32, mm: u64) -> u64 {
    lost!(death_missed);
    if let Some(slot) = Slot::at(index) {
        lock_sequence::late(slot);
    }
    finish(index, mm, false);
    0
}

/// A write release of an address space that has no slot: an exec's new one, or the first sign of a process that ran
/// before the hooks did. Says whether it has one now.
#[inline(always)]
pub fn adopt_current(mm: u64) -> bool {
    adopt(mm) != 0
}

// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn adopt(mm: u64) -> u64 {
    let task = kernel::current();
    let own = kernel::mm_of(task);
    if own != mm {
        open_before_exec(task, own);
        return 0;
    }
    let (tgid, _) = kernel::ids();
    let flags = if config!(watch_all) != 0 {
        if !followed::follows(tgid) {
            return 0;
        }
        0
    } else {
        match followed::flags_of(tgid) {
            Some(flags) => flags,
            None => return 0,
        }
    };
    let in_exec = kernel::in_exec();
    if flags & FOLLOW_AFTER_EXEC != 0 && !in_exec {
        return 0; // our own child, still running our code
    }
    let born = if in_exec {
        MM_FROM_BIRTH | MM_FROM_EXEC
    } else if flags & FOLLOW_FROM_BIRTH != 0 {
        MM_FROM_BIRTH
    } else {
        if flags & FOLLOW_LATE != 0 {
            lost!(birth_missed);
        }
        0
    };
    let owner = Owner { task, tgid, ppid: kernel::parent_of(task), flags: born };
    let Some(slot) = open(mm, owner) else { return 0 };
    lock_sequence::begin(slot, mm, in_exec);
    if !in_exec && born & MM_FROM_BIRTH != 0 {
        lock_sequence::late(slot); // its birth gave it a slot, or should have
    }
    1
}

/// `current` fills an address space that is not its own yet. If that is an exec's, and the old one belongs to a process
/// that was followed late and has changed nothing, then the old one still has the count it was born with.
#[inline(always)]
fn open_before_exec(task: u64, own: u64) {
    if config!(fork_child_pid_offset) == 0 || own == 0 {
        return;
    }
    let (tgid, _) = kernel::ids();
    let late = followed::flags_of(tgid).is_some_and(|flags| flags & FOLLOW_LATE != 0);
    if late && kernel::in_exec() && slots::index_of(own).is_none() {
        open_with_birth(own, task, tgid);
    }
}

/// Opens the slot of a child that has changed nothing since its birth, which no program saw that could find its address
/// space.
#[inline(always)]
pub fn open_with_birth(mm: u64, task: u64, tgid: u32) {
    let owner = Owner { task, tgid, ppid: kernel::parent_of(task), flags: MM_FROM_BIRTH };
    if let Some(slot) = open(mm, owner) {
        lock_sequence::only_born(slot);
    }
}
