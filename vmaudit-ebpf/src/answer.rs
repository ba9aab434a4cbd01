//! Which calls have succeeded, told at the releases of the mmap lock, and the answers of the others: so that no program
//! has to run at the exit of every system call of the machine.
//!
//! A call that has done what it was asked for shows it in the figures that its write section leaves behind, if nothing
//! else has changed them since the figures of the section before were read; the kernel's numbers of the sections say
//! whether. The other calls are asked: a task work (bpf_task_work_schedule_resume, 6.18 and later) runs in the task on its
//! way back to user space, when the answer stands in its saved registers and before it can make another call.
//!
//! What lets no lock go as its own is not seen here: it is not counted, and the loader says so.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_map_lookup_elem;
use vmaudit_common::{
    ABSENT, Figures, SeenInSection, Sizes,
    call::{self, Call},
};

use crate::{
    call::ReturnedCall,
    call_result,
    control::{config, layout, lost},
    current_call::{self, Entry, Question},
    failure::{failure, left, outcome},
    kernel::{self, Current, OwnMm, Registers},
    lock_sequence, lodgers, near,
    slots::{self, Slot},
};

/// The kernel's functions and the map that take part have no number before the loader knows the kernel: it puts them in
/// place of these (vmaudit-user/src/source/ebpf/placed.rs). A program that calls them is loaded nowhere else.
mod placed {
    use core::ffi::c_void;

    /// An array with a `struct bpf_task_work` for each place of [`crate::current_call`]. Not one of the object's: its type
    /// information is the kernel's own, and older kernels would refuse it.
    pub const WORKS: u64 = 0x7a5c_0df0_7a5c_0df1;
    const SCHEDULE: usize = 0x7a5c_0de1;
    const PREEMPT_DISABLE: usize = 0x7a5c_0de2;
    const PREEMPT_ENABLE: usize = 0x7a5c_0de3;

    /// What the kernel calls.
    pub type Callback = unsafe extern "C" fn(*mut c_void, *const u32, *mut c_void) -> i64;
    type Schedule = unsafe extern "C" fn(*const u8, *mut c_void, *mut c_void, Callback, u64) -> i32;

    /// bpf_task_work_schedule_resume_impl (6.18, 6.19); bpf_task_work_schedule_resume (7.0) has no fifth argument of ours.
    ///
    /// # Safety
    /// `work` is a value of `map`.
    #[inline(always)]
    pub unsafe fn schedule(task: *const u8, work: *mut c_void, map: *mut c_void, callback: Callback) -> i32 {
        // SAFETY: never called as it stands: the loader replaces the instruction.
        unsafe { core::mem::transmute::<usize, Schedule>(SCHEDULE)(task, work, map, callback, 0) }
    }

    /// bpf_preempt_disable (6.10).
    #[inline(always)]
    pub fn preempt_disable() {
        // SAFETY: as above.
        unsafe { core::mem::transmute::<usize, unsafe extern "C" fn()>(PREEMPT_DISABLE)() }
    }

    /// bpf_preempt_enable (6.10).
    #[inline(always)]
    pub fn preempt_enable() {
        // SAFETY: as above.
        unsafe { core::mem::transmute::<usize, unsafe extern "C" fn()>(PREEMPT_ENABLE)() }
    }
}

const PR_SET_VMA: u64 = 0x5356_4d41;
/// Type byte of userfaultfd's ioctls.
const UFFDIO: u64 = 0xaa;

/// The task lets the lock of its own address space go after writing. `before`: the count before; `sequence`:
/// mm.mm_lock_seq. Says whether [`go_on`] has something to do.
#[inline(always)]
pub fn write_release(
    task: Current,
    call: Call,
    own: OwnMm,
    (index, slot): (u32, Slot),
    before: u32,
    sequence: u32,
    sizes: Sizes,
) -> bool {
    let was = slot.figures();
    let now = figures(lock_sequence::ended(sequence, true), sizes, own);
    slot.set_figures(now);
    if call < call::FIRST_REAL {
        // Numbers that mean nothing here are also such of 32-bit calls that are of no interest; one such call says enough.
        if task.in_compat_call() {
            slot.count_call(call::COMPAT);
        }
        return false;
    }
    // One section lies between them: this one.
    let comparable =
        lock_sequence::between(was.sequence, now.sequence) == 1 && was.sequence != Figures::UNKNOWN;
    if comparable && has_succeeded(task, call, own, &was, &now, sizes.locked) {
        return succeeded(call, slot);
    }
    let counts = u64::from(before) << 32 | u64::from(own.map_count());
    unproven(u32::from(call), index, counts, sequence, sizes.locked) != 0
}

/// The section has not shown whether the call has succeeded: keeps its figures for the answer, which is to be asked for
/// unless this is 0. `counts`: before, in the upper half, and after; the pages are those that the slot has for this section,
/// and the locked ones.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unproven(call: u32, index: u32, counts: u64, sequence: u32, locked: u64) -> u64 {
    let (task, call) = (Current::task(), call as Call);
    let Some(slot) = Slot::at(index) else { return 0 };
    if task.is_ending() || !concerns_memory(task, call, slot) {
        return 0;
    }
    let Some((entry, new)) = wonder(task, call, index) else { return 0 };
    let (counts, figures) = (((counts >> 32) as u32, counts as u32), slot.figures());
    entry.keep_figures(call, index, counts, [figures.total_vm, locked, figures.data_vm], sequence);
    let seen = slot.seen();
    if seen.sequence == sequence && seen.tid == task.tid() {
        current_call::keep_seen(entry, call, seen);
    }
    u64::from(new)
}

/// The task lets the lock of its own address space go after reading. Says whether [`go_on`] has something to do.
///
/// A call that has unmapped something and let readers in before (munmap, brk and mremap that shrink) ends so, and nobody
/// can write before it does. What such a call maps in after that (mm_populate) would end in the same way: it is told apart
/// by the question that such a call has asked before, see [`has_succeeded`].
#[inline(always)]
pub fn read_release(task: Current, call: Call, own: OwnMm, index: u32, slot: Slot, sequence: u32) -> bool {
    match call {
        call::MUNMAP | call::BRK | call::MREMAP => {
            let ended = lock_sequence::ended(sequence, false);
            // Also for the other of two programs on this event. Whoever else looks at the process's mappings on the task's way
            // back lets the lock go for the same call, perhaps in the midst of what another thread unmaps.
            if slot.figures().sequence == ended || !is_in_call(task.registers()) {
                return false;
            }
            if call != call::MUNMAP && Entry::of(task.tid()).is_some_and(|entry| entry.question().is_some()) {
                return false;
            }
            slot.set_figures(figures(ended, own.sizes(), own));
            succeeded(call, slot)
        }
        // A range with a gap is refused without writing.
        call::MADVISE | call::PROCESS_MADVISE => {
            is_in_call(task.registers()) && question(u32::from(call), index) != 0
        }
        _ => false,
    }
}

/// The call has no answer yet: the register for it holds what the entry has put there (arch/x86/entry/entry_64.S: -ENOSYS),
/// or still the first argument (arch/arm64/kernel/syscall.c).
#[inline(always)]
fn is_in_call(regs: Registers) -> bool {
    const ENOSYS: i64 = 38;
    let before = if layout!(regs_lr) == ABSENT { -ENOSYS } else { regs.argument(0) as i64 };
    regs.answer() == before
}

#[inline(always)]
fn figures(sequence: u32, sizes: Sizes, own: OwnMm) -> Figures {
    let Sizes { total, data, .. } = sizes;
    Figures { sequence, reserved: 0, total_vm: total, data_vm: data, exec_vm: own.exec_vm() }
}

/// The release of an address space that had no slot. `adopted`: it is the task's own, and now has one. Says whether the
/// answer is to be asked for.
#[inline(always)]
pub fn first_sign(task: Current, mm: u64, adopted: bool) -> bool {
    let call = task.call();
    if call < call::FIRST_REAL || task.is_ending() {
        return false;
    }
    if adopted {
        return slots::index_of(mm).is_some_and(|index| question(u32::from(call), index) != 0);
    }
    // The address space of an image that may yet be refused.
    matches!(call, call::EXECVE | call::EXECVEAT)
        && index_of_own(task).is_some_and(|index| question(u32::from(call), index) != 0)
}

/// Opens the question whether this call is refused, if it is of a kind that is counted. 0: it was open, or is not wanted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn question(call: u32, index: u32) -> u64 {
    let (task, call) = (Current::task(), call as Call);
    let Some(slot) = Slot::at(index) else { return 0 };
    if !concerns_memory(task, call, slot) {
        return 0;
    }
    wonder(task, call, index).map_or(0, |(_, new)| u64::from(new))
}

/// The slot of the address space that the task has, if it has one.
#[inline(always)]
fn index_of_own(task: Current) -> Option<u32> {
    let mm = task.mm();
    if mm == 0 { None } else { slots::index_of(mm) }
}

/// A search for a free range has ended; it was made under the lock, for writing.
#[inline(always)]
pub fn searched(task: Current, mm: u64, addr: u64) {
    if let Some((slot, seen)) = in_section(task, mm) {
        slot.set_seen(SeenInSection { searched: addr, ..seen });
    }
}

/// A probe has seen something of the call that the task is in.
#[inline(always)]
pub fn probed(task: Current, mm: u64, bit: u32) {
    if let Some((slot, seen)) = in_section(task, mm) {
        slot.set_seen(SeenInSection { probes: seen.probes | bit, ..seen });
    }
}

/// What was seen so far in the write section that the task is in.
#[inline(always)]
fn in_section(task: Current, mm: u64) -> Option<(Slot, SeenInSection)> {
    if mm == 0 {
        return None;
    }
    let slot = slots::of_mm(mm)?;
    let sequence = task.own(mm)?.lock_sequence();
    // Nobody writes: what is seen is of no section.
    if sequence & 1 == 0 {
        return None;
    }
    let seen = slot.seen();
    let tid = task.tid();
    if seen.sequence == sequence && seen.tid == tid {
        Some((slot, seen))
    } else {
        Some((slot, SeenInSection { sequence, tid, ..SeenInSection::default() }))
    }
}

/// The call is one that is counted and can be refused for lack of memory; counts it if it is only the former.
#[inline(always)]
fn concerns_memory(task: Current, call: Call, slot: Slot) -> bool {
    if call == call::IOCTL {
        return task.registers().argument(1) >> 8 & 0xff == UFFDIO;
    }
    if call == call::PRCTL && task.registers().argument(0) != PR_SET_VMA {
        slot.count_call(call);
        return false;
    }
    true
}

/// The figures show that the call has done all that it was asked for. `was`, `now`: before and after its section, in which
/// nobody else can have changed them. `locked`: pages that are locked, or will be.
#[inline(always)]
fn has_succeeded(task: Current, call: Call, own: OwnMm, was: &Figures, now: &Figures, locked: u64) -> bool {
    const PROT_GROWS: u64 = 0x300_0000;
    let shift = config!(page_shift) & 31;
    let more = |now: u64, was: u64| now.wrapping_sub(was);
    match call {
        // What is mapped is accounted at the very end (mm/vma.c:__mmap_complete); in place of as much, it is of another kind.
        call::MMAP => {
            now.total_vm > was.total_vm
                || now.total_vm == was.total_vm && (now.data_vm != was.data_vm || now.exec_vm != was.exec_vm)
        }
        // All pages have changed sides (mm/mprotect.c:mprotect_fixup).
        call::MPROTECT | call::PKEY_MPROTECT => {
            let regs = task.registers();
            let pages = kernel::whole_pages(regs.argument(1)) >> shift;
            let moved = |now: u64, was: u64| more(now, was) == pages || more(was, now) == pages;
            pages != 0
                && regs.argument(2) & PROT_GROWS == 0
                && (moved(now.data_vm, was.data_vm) || moved(now.exec_vm, was.exec_vm))
        }
        // A break below the start of the heap is a question. Where something is locked the call may read again.
        call::BRK => {
            let (start, brk) = own.heap();
            let asked = task.registers().argument(0);
            locked == 0 && (brk == asked || asked < start)
        }
        call::MREMAP => {
            let regs = task.registers();
            let grown =
                kernel::whole_pages(regs.argument(2)).wrapping_sub(kernel::whole_pages(regs.argument(1)));
            locked == 0 && now.total_vm > was.total_vm && more(now.total_vm, was.total_vm) == grown >> shift
        }
        // munmap: what was unmapped ends with readers let in before (mm/vma.c:vms_complete_munmap_vmas).
        _ => false,
    }
}

/// The call has succeeded. Says whether that concerns what was refused before.
#[inline(always)]
fn succeeded(call: Call, slot: Slot) -> bool {
    slot.count_call(call);
    left::may_go(slot, call) || slot.waiting().read() != 0
}

/// The call that the task is in has succeeded, and what was refused before may be met by it, or gone.
#[inline(always)]
fn granted(task: Current, call: Call) {
    let Some(index) = index_of_own(task) else { return };
    let Some(slot) = Slot::at(index) else { return };
    if left::may_go(slot, call) {
        left::left_goes(index, u32::from(call));
    }
    if slot.waiting().read() != 0 {
        outcome::granted::<true>(slot, &returned(task, call, 0));
    }
}

#[inline(always)]
fn returned(task: Current, id: Call, ret: i64) -> ReturnedCall {
    ReturnedCall { id, ret, regs: kernel::registers(), task: task.address() }
}

/// The question whether the call is refused, and whether it is new: one for each call; the place of the call is the task's
/// until the answer.
#[inline(always)]
fn wonder(task: Current, id: Call, slot: u32) -> Option<(Entry, bool)> {
    let Some(entry) = current_call::entry_of(task.tid()) else {
        lost!(answers_lost);
        return None;
    };
    if entry.question().is_some() {
        return Some((entry, false));
    }
    entry.ask(Question { id, slot, ip: task.registers().ip() });
    Some((entry, true))
}

/// What is seldom to be done, by a program of its own, to which those on the releases, on births and on new images give over:
/// the kernel looks at it once, and meanwhile, on another processor, at the others.
#[inline(always)]
pub fn go_on() {
    let task = Current::task();
    match current_call::place_of(task.tid()) {
        Some((place, entry)) if entry.is_to_be_asked() => ask(task, place, entry),
        _ => match task.call() {
            call @ (call::MMAP
            | call::MUNMAP
            | call::MPROTECT
            | call::PKEY_MPROTECT
            | call::BRK
            | call::MREMAP) => granted(task, call),
            _ => near::look_at_tasks(),
        },
    }
}

/// Has the answer to the task's open question read at the end of the call.
#[inline(always)]
fn ask(task: Current, place: u32, entry: Entry) {
    let works = core::ptr::without_provenance_mut::<c_void>(placed::WORKS as usize);
    // SAFETY: the loader puts a map there.
    let work = unsafe { bpf_map_lookup_elem(works, (&raw const place).cast()) };
    entry.is_asked();
    // SAFETY: the work is of that map.
    if work.is_null() || unsafe { placed::schedule(task.typed(), work, works, answered) } != 0 {
        lost!(answers_lost);
        entry.end_call();
    }
}

/// Nobody asks.
#[inline(always)]
pub fn unasked() {
    if let Some(entry) = Entry::of(Current::task().tid())
        && entry.is_to_be_asked()
    {
        lost!(answers_lost);
        entry.end_call();
    }
}

/// Called in the task that has asked, on its way back to user space.
unsafe extern "C" fn answered(_works: *mut c_void, place: *const u32, _work: *mut c_void) -> i64 {
    // SAFETY: the kernel passes the key of the value that was asked with.
    let place = unsafe { *place };
    undisturbed(
        #[inline(always)]
        || judge(place),
    );
    0
}

/// Does this without being preempted: what a failure is put together in belongs to the CPU.
#[inline(always)]
pub fn undisturbed<T>(what: impl FnOnce() -> T) -> T {
    placed::preempt_disable();
    let done = what();
    placed::preempt_enable();
    done
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(place: u32) -> u64 {
    let task = Current::task();
    // Else the task is about to end.
    let Some(entry) = Entry::with_question(place, task.tid()) else { return 0 };
    if let Some(question) = entry.question() {
        judge_answer(task, question);
    }
    entry.end_call();
    0
}

#[inline(always)]
fn judge_answer(task: Current, Question { id, slot, ip }: Question) {
    let regs = task.registers();
    let ret = regs.answer();
    let same = regs.ip() == ip && task.call() == id;
    let index = if matches!(id, call::EXECVE | call::EXECVEAT) {
        // The image has changed, or it has not.
        let Some(index) = index_of_own(task) else { return };
        if !same {
            if let Some(slot) = Slot::at(index) {
                slot.count_call(id);
            }
            return;
        }
        index
    } else if same {
        slot
    } else {
        lost!(answers_lost);
        return;
    };
    let Some(slot) = Slot::at(index) else { return };
    if let Some(errno) = call_result::count::<true>(index, slot, &returned(task, id, ret)) {
        let index = lodgers::slot_of_caller(index) as u32;
        failure(index, u32::from(id), u32::from(errno), ret as u64);
    }
}
