//! What became of a need that was refused: whether the same thread got the like in its next memory calls.
//!
//! The like is the same protection and flags (huge pages aside) in steps each at least a quarter of the one before; mmap
//! of at least the same after brk; memory by mmap after the reservations of the C library's malloc; any other call once
//! more. Every other memory call of the thread ends the matter.

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{
    GROUPS,
    call::{self, Call},
};

use super::{counters, sites};
use crate::{
    call::{FailedCall, ReturnedCall, may_downgrade},
    control::{Word, config},
    kernel, lodgers,
    slots::Slot,
};

/// A power of two. Threads between a refused call and their next one are few.
const WAITING: u32 = 1024;
/// Kinds or places that the steps of one thread may be of: malloc asks for two reservations, from two places.
const STEPS: usize = 4;

/// A thread whose last memory call was refused.
#[repr(C)]
struct Waiting {
    /// Its id; 0: free.
    owner: u64,
    generation: u64,
    slot: u32,
    call: u32,
    /// What has to be the same, see [`Request`].
    like: u64,
    at: u64,
    bytes: u64,
    /// What the step before asked for; 0: none.
    before: u64,
    steps: [Step; STEPS],
}

/// Refusals of one kind from one place.
#[derive(Clone, Copy)]
#[repr(C)]
struct Step {
    /// Index of the group + 1; 0: unused.
    group: u32,
    /// Of the site, or [`sites::NONE`].
    place: u32,
    count: u64,
}

#[map]
static WAITING_TASKS: Array<Waiting> = Array::with_max_entries(WAITING, 0);

/// What a call wants.
#[derive(Clone, Copy)]
struct Request {
    /// Protection and flags.
    like: u64,
    /// Address, where it matters.
    at: u64,
    bytes: u64,
}

/// Index of a thread's entry.
#[inline(always)]
fn place_of(tid: u32) -> u32 {
    const SHIFT: u32 = 64 - WAITING.trailing_zeros();
    let place = u64::from(tid).wrapping_mul(config!(table_key) | 1) >> SHIFT;
    place as u32 & (WAITING - 1)
}

#[inline(always)]
fn of_task(tid: u32) -> Option<*mut Waiting> {
    WAITING_TASKS.get_ptr_mut(place_of(tid))
}

/// What the call of these registers wants; `ret`: its answer.
#[inline(always)]
fn request(id: Call, ret: u64, regs: u64) -> Request {
    const MAP_FIXED_OR_NOREPLACE: u64 = 0x10 | 0x10_0000;
    /// MAP_HUGETLB, and the size of the pages (include/uapi/asm-generic/mman-common.h, linux/mman.h).
    const SIZE: u64 = 0x3f << 26;
    const HUGE: u64 = 0x4_0000 | SIZE;
    /// SHM_HUGETLB, likewise (include/linux/shm.h, uapi/linux/shm.h).
    const SHM_HUGE: u64 = 0o4000 | SIZE;
    let [a0, a1, a2, a3] = kernel::first_arguments(regs);
    match id {
        call::MMAP => {
            let fixed = a3 & MAP_FIXED_OR_NOREPLACE != 0;
            Request { like: a2 << 32 | a3 & !HUGE & 0xffff_ffff, at: if fixed { a0 } else { 0 }, bytes: a1 }
        }
        call::MREMAP => Request { like: a3, at: a0, bytes: a2 },
        // From the break as it is: that of a refused call is its answer.
        call::BRK => Request { like: 0, at: ret, bytes: a0.wrapping_sub(ret) },
        call::CLONE | call::CLONE3 | call::FORK | call::VFORK => Request { like: 0, at: 0, bytes: 0 },
        call::SHMGET => Request { like: a2 & !SHM_HUGE & 0xffff_ffff, at: a0, bytes: a1 },
        _ => Request { like: a2, at: a0, bytes: a1 },
    }
}

/// Bytes that a refused call asked for, where an argument says so.
#[inline(always)]
pub fn asked_bytes(id: Call, ret: u64, regs: u64) -> u64 {
    let [_, a1, a2, _] = kernel::first_arguments(regs);
    match id {
        call::MREMAP => a2.saturating_sub(a1),
        call::BRK => request(id, ret, regs).bytes,
        call::CLONE | call::CLONE3 | call::FORK | call::VFORK | call::EXECVE | call::EXECVEAT => 0,
        call::PRCTL | call::IOCTL | call::MLOCKALL | call::SHMAT | call::IO_SETUP => 0,
        _ => a1,
    }
}

/// The request goes on from what this thread was refused before.
#[inline(always)]
fn goes_on(waiting: *mut Waiting, id: Call, wanted: Request) -> bool {
    // SAFETY: points into the map; the entry is this thread's.
    let (call, like, at, bytes) =
        unsafe { ((*waiting).call as Call, (*waiting).like, (*waiting).at, (*waiting).bytes) };
    if call == call::BRK && id == call::MMAP {
        // Private, anonymous, readable and writable, as a heap is; other flags do not matter.
        const KIND: u64 = 0x7 << 32 | 0x2f;
        return wanted.like & KIND == 0x3 << 32 | 0x22 && wanted.bytes >= bytes;
    }
    if call != id {
        return false;
    }
    if id == call::BRK {
        // What was asked for in all, above the break at that time.
        let grown = wanted.bytes.wrapping_add(wanted.at).wrapping_sub(at);
        return (grown as i64) > 0 && grown >= bytes / 4;
    }
    like == wanted.like && at == wanted.at && wanted.bytes >= bytes / 4
}

/// malloc was refused the reservations for a heap of this thread's own, and takes memory by mmap instead.
///
/// The GNU C library asks for twice 64 MiB and then for 64 MiB without access, and without either falls back at once to a
/// mapping of what it needs (malloc/arena.c:alloc_new_heap, malloc/malloc.c:sysmalloc, 2.35 to 2.42; with 4-byte words
/// 1 MiB).
#[inline(always)]
fn malloc_goes_on(waiting: *mut Waiting, id: Call, wanted: Request) -> bool {
    /// No access; MAP_PRIVATE, MAP_ANONYMOUS and MAP_NORESERVE.
    const RESERVATION: u64 = 0x4022;
    /// Readable and writable; MAP_PRIVATE and MAP_ANONYMOUS, nothing else.
    const MEMORY: u64 = 0x3 << 32 | 0x22;
    const HEAPS: [u64; 2] = [64 << 20, 1 << 20];
    // SAFETY: points into the map; the entry is this thread's.
    let (call, like, at, bytes, before) = unsafe {
        ((*waiting).call as Call, (*waiting).like, (*waiting).at, (*waiting).bytes, (*waiting).before)
    };
    let heap = bytes == HEAPS[0] || bytes == HEAPS[1];
    heap && call == call::MMAP
        && id == call
        && before == 2 * bytes
        && like == RESERVATION
        && at == 0
        && wanted.like == MEMORY
        && wanted.at == 0
}

/// A memory call of `current` was refused, and is counted in group `n` of this slot and at `place`.
#[inline(always)]
pub fn refused(tid: u32, (index, slot): (u32, Slot), n: usize, place: u32, failed: &FailedCall) {
    let FailedCall { id, ret, regs, .. } = *failed;
    if n >= GROUPS {
        return;
    }
    let Some(waiting) = of_task(tid) else { return };
    let wanted = request(id, ret, regs);
    // SAFETY: points into the map, here and below; who finds another's entry takes it over, and what that one was refused
    // stays refused.
    let (owner, generation) = unsafe { ((*waiting).owner, (*waiting).generation) };
    let same = owner == u64::from(tid) && generation == slot.generation();
    if !same {
        if owner != 0 {
            release(waiting);
        }
        slot.waiting().add(1);
        // SAFETY: as above.
        unsafe {
            (*waiting).owner = u64::from(tid);
            (*waiting).generation = slot.generation();
            (*waiting).slot = index;
        }
    }
    let goes_on = same && goes_on(waiting, id, wanted);
    if !goes_on {
        clear(waiting);
    }
    // SAFETY: as above.
    unsafe {
        (*waiting).before = if goes_on { (*waiting).bytes } else { 0 };
        (*waiting).call = u32::from(id);
        (*waiting).like = wanted.like;
        (*waiting).at = wanted.at;
        (*waiting).bytes = wanted.bytes;
        let group = n as u32 + 1;
        for i in 0..STEPS {
            let step = (&raw mut (*waiting).steps).cast::<Step>().add(i);
            if (*step).group == 0 {
                (*step).group = group;
                (*step).place = place;
            }
            if (*step).group == group && (*step).place == place {
                (*step).count += 1;
                break;
            }
        }
    }
}

#[inline(always)]
fn clear(waiting: *mut Waiting) {
    for i in 0..STEPS {
        // SAFETY: points into the map.
        unsafe {
            let step = (&raw mut (*waiting).steps).cast::<Step>().add(i);
            (*step).group = 0;
            (*step).count = 0;
        }
    }
}

/// The entry is free; its address space has one that waits less.
#[inline(always)]
fn release(waiting: *mut Waiting) {
    // SAFETY: points into the map.
    let (index, generation) = unsafe { ((*waiting).slot, (*waiting).generation) };
    if let Some(slot) = Slot::at(index)
        && slot.generation() == generation
    {
        slot.waiting().add(1u64.wrapping_neg());
    }
    // SAFETY: points into the map, which 64-bit words begin.
    unsafe { Word::new(&raw mut (*waiting).owner) }.write(0);
}

/// Counts the refusals of the thread at this index as recovered, if what was granted now (see [`Request`]) goes on from
/// them.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn need_met(index: u32, id: u32, like: u64, at: u64, bytes: u64) -> u64 {
    let Some(waiting) = WAITING_TASKS.get_ptr_mut(index) else { return 0 };
    let (id, wanted) = (id as Call, Request { like, at, bytes });
    if !goes_on(waiting, id, wanted) && !malloc_goes_on(waiting, id, wanted) {
        return 0;
    }
    // SAFETY: points into the map.
    let (index, generation) = unsafe { ((*waiting).slot, (*waiting).generation) };
    let Some(slot) = Slot::at(index) else { return 0 };
    for i in 0..STEPS {
        // SAFETY: as above.
        let Step { group, place, count } =
            unsafe { (&raw const (*waiting).steps).cast::<Step>().add(i).read() };
        if group == 0 {
            continue;
        }
        if let Some(group) = slot.group(group as usize - 1) {
            group.recovered().add(count);
        }
        if let Some(site) = sites::Entry::at(place)
            && site.generation().read() == generation
        {
            site.recovered().add(count);
        }
    }
    0
}

/// A call of this address space returned to the current task, and was not refused for want of memory; called only where
/// some thread waits. `CAS`: the kernel has compare-and-swap.
#[inline(always)]
pub fn granted<const CAS: bool>(slot: Slot, returned: &ReturnedCall) {
    let ReturnedCall { id, ret, regs, .. } = *returned;
    let (tgid, _) = kernel::ids();
    if slot.tgid() == tgid {
        granted_in(slot, returned);
    } else if CAS {
        lodger_granted(u32::from(id), ret as u64);
    } else {
        lodger_granted_without_cas(u32::from(id), ret as u64, regs);
    }
}

/// The same for a process that lives in another's address space.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for the next.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lodger_granted(id: u32, ret: u64) -> u64 {
    let task = kernel::Current::task().address();
    let returned = ReturnedCall { id: id as Call, ret: ret as i64, regs: kernel::registers(), task };
    granted_to_lodger::<true>(&returned);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lodger_granted_without_cas(id: u32, ret: u64, regs: u64) -> u64 {
    let returned = ReturnedCall { id: id as Call, ret: ret as i64, regs, task: kernel::current() };
    granted_to_lodger::<false>(&returned);
    0
}

#[inline(always)]
fn granted_to_lodger<const CAS: bool>(returned: &ReturnedCall) {
    let (tgid, _) = kernel::ids();
    let Some(index) = lodgers::index_of(tgid, kernel::leader_of(kernel::current())) else { return };
    let Some(slot) = Slot::at(index) else { return };
    if may_downgrade(returned.id) {
        counters::given_back::<CAS>(slot, returned);
    }
    if slot.waiting().read() != 0 {
        granted_in(slot, returned);
    }
}

#[inline(always)]
fn granted_in(slot: Slot, returned: &ReturnedCall) {
    let ReturnedCall { id, ret, regs, .. } = *returned;
    let (_, tid) = kernel::ids();
    let ret = ret as u64;
    const MEMORY: u64 = call::LOCKING
        | 1 << call::MLOCK
        | 1 << call::MLOCK2
        | 1 << call::MLOCKALL
        | 1 << call::CLONE
        | 1 << call::CLONE3
        | 1 << call::FORK
        | 1 << call::VFORK;
    let Some(waiting) = of_task(tid) else { return };
    // SAFETY: points into the map.
    let (owner, generation, call) =
        unsafe { ((*waiting).owner, (*waiting).generation, (*waiting).call as Call) };
    if owner != u64::from(tid) || generation != slot.generation() {
        return;
    }
    if MEMORY >> (id & 63) & 1 == 0 && id != call {
        return;
    }
    // A break that was granted is its own answer: what counts is how far it went.
    let failed = ret > u64::MAX - 4095;
    if !failed {
        let Request { like, at, bytes } = request(id, if id == call::BRK { 0 } else { ret }, regs);
        need_met(place_of(tid), u32::from(id), like, at, bytes);
    }
    clear(waiting);
    release(waiting);
}

/// A task is gone.
#[inline(always)]
pub fn forget(tid: u32) {
    if let Some(waiting) = of_task(tid)
        // SAFETY: points into the map.
        && unsafe { (*waiting).owner } == u64::from(tid)
    {
        clear(waiting);
        release(waiting);
    }
}
