//! Processes that live in the address space of another: vfork's children, and what clone makes with CLONE_VM and without
//! CLONE_THREAD.
//!
//! What they change is the address space's; what they are refused is their own, and is kept in a slot of theirs, which names
//! its host. One that runs beside its parent has it from its birth. A vfork child, of which shells make thousands, has it only
//! if it is refused something; nearly all of them call exec before.

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_ktime_get_ns};
use vmaudit_common::{MM_FROM_BIRTH, MM_LODGERS, call};

use crate::{
    address_space::{self, Owner},
    control::{Page, layout},
    followed::follows,
    kernel, records,
    slots::{self, Slot},
};

const CLONE_VFORK: u64 = 0x4000;

/// The slot of a process that lives in another's address space; `leader`: its first task.
#[inline(always)]
pub fn index_of(tgid: u32, leader: u64) -> Option<u32> {
    if Page::get().lodgers().read() == 0 {
        return None;
    }
    // Process ids are no addresses of the kernel.
    let index = slots::index_of_key(u64::from(tgid))?;
    let slot = Slot::at(index)?;
    // Where an end was missed, the number may be another's by now.
    let same = slot.host() != 0
        && slot.tgid() == tgid
        && slot.start_boottime_ns() == kernel::read(leader, layout!(task_start_boottime));
    if same { Some(index) } else { None }
}

/// The slot that what `current` is refused belongs into; `index`: that of its address space.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn slot_of_caller(index: u32) -> u64 {
    u64::from(of_caller::<true>(index).unwrap_or(index))
}

/// As [`slot_of_caller`], without compare-and-swap.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn slot_of_caller_without_cas(index: u32) -> u64 {
    u64::from(of_caller::<false>(index).unwrap_or(index))
}

#[inline(always)]
fn of_caller<const CAS: bool>(index: u32) -> Option<u32> {
    let host = Slot::at(index)?;
    let (tgid, _) = kernel::ids();
    if host.tgid() == tgid {
        return None;
    }
    let task = kernel::current();
    let leader = kernel::leader_of(task);
    if let Some(known) = index_of(tgid, leader) {
        return Some(known);
    }
    let owner = Owner { task, tgid, ppid: kernel::parent_of(leader), flags: MM_FROM_BIRTH };
    open::<CAS>(index, owner);
    // Another thread of it may have been first.
    index_of(tgid, leader)
}

/// Opens the slot of a process that lives in the address space with this slot. `CAS`: the kernel has compare-and-swap.
#[inline(always)]
pub fn open<const CAS: bool>(host_index: u32, owner: Owner) {
    let Some(host) = Slot::at(host_index) else { return };
    let page = Page::get();
    let uid = kernel::uid_of(owner.task);
    let Some((index, slot)) = slots::claim::<CAS>(uid) else { return };
    address_space::fill(slot, owner, uid, host.last());
    slot.set_peak(host.peak());
    slot.set_peak_ns(host.peak_ns());
    slot.set_host(host.generation());
    slot.set_host_slot(host_index);
    slot.set_host_tgid(host.tgid());
    slot.go_live();
    if !slots::enter(u64::from(owner.tgid), index) {
        slot.give_back();
        return;
    }
    // So that calls which succeed are looked at, see `failure::outcome`.
    host.waiting().add(1);
    host.mark(MM_LODGERS);
    page.lodgers().add(1);
}

/// A task that ran before the hooks did has the address space with this slot.
#[inline(always)]
pub fn met<const CAS: bool>(index: u32, task: u64) {
    let tgid: u32 = kernel::read(task, layout!(task_tgid));
    let leader = kernel::leader_of(task);
    if follows(tgid)
        && Slot::at(index).is_some_and(|host| host.tgid() != tgid)
        && index_of(tgid, leader).is_none()
    {
        open::<CAS>(index, Owner { task: leader, tgid, ppid: kernel::parent_of(leader), flags: 0 });
    }
}

/// A child was born that has the address space of `current`, its parent.
#[inline(always)]
pub fn born(child: u64, child_tgid: u32, tgid: u32, mm: u64) {
    if runs_beside()
        && let Some(host) = slots::index_of(mm)
    {
        open::<true>(host, Owner { task: child, tgid: child_tgid, ppid: tgid, flags: MM_FROM_BIRTH });
    }
}

/// The call that `current` is in makes a child that it does not wait for.
#[inline(always)]
fn runs_beside() -> bool {
    let first = || kernel::argument(kernel::registers(), 0);
    let flags = match kernel::Current::task().call() {
        call::CLONE => first(),
        // SAFETY: the helper checks the address in user space and never faults; the kernel has just read there
        // (struct clone_args begins with the flags).
        call::CLONE3 => unsafe { bpf_probe_read_user(first() as *const u64) }.unwrap_or(CLONE_VFORK),
        _ => CLONE_VFORK,
    };
    flags & CLONE_VFORK == 0
}

/// A process has ended, or has an address space of its own from now on (`ended` is false).
#[inline(always)]
pub fn left<const CAS: bool>(tgid: u32, ended: bool) {
    if Page::get().lodgers().read() != 0 {
        if CAS {
            lodger_left(tgid, u32::from(ended));
        } else {
            lodger_left_without_cas(tgid, u32::from(ended));
        }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lodger_left(tgid: u32, ended: u32) -> u64 {
    finish::<true>(tgid, ended != 0);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lodger_left_without_cas(tgid: u32, ended: u32) -> u64 {
    finish::<false>(tgid, ended != 0);
    0
}

#[inline(always)]
fn finish<const CAS: bool>(tgid: u32, ended: bool) {
    let Some(index) = slots::index_of_key(u64::from(tgid)) else { return };
    // Two programs may listen to the same event.
    if !slots::leave(u64::from(tgid)) {
        return;
    }
    let Some(slot) = Slot::at(index) else { return };
    let page = Page::get();
    if slot.host() == 0 || slot.tgid() != tgid {
        return;
    }
    page.lodgers().add(1u64.wrapping_neg());
    if ended {
        slot.set_comm(kernel::comm_of(kernel::leader_of(kernel::current())));
    }
    if let Some(host) = Slot::at(slot.host_slot())
        && host.generation() == slot.host()
    {
        host.waiting().add(1u64.wrapping_neg());
        slot.set_last(host.last());
        slot.set_peak(host.peak());
        slot.set_peak_ns(host.peak_ns());
    }
    if !CAS {
        slots::drop_claims(index);
    }
    // SAFETY: no preconditions.
    slot.set_dead_ns(unsafe { bpf_ktime_get_ns() });
    // User space may free the slot as soon as it is dead.
    let generation = slot.generation();
    slot.go_dead();
    records::dead(index, tgid, generation);
}
