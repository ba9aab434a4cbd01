//! A refused call: what it asked for and which limits that exceeds ([`evidence`]), what the kernel showed during the call
//! ([`crate::current_call`]), what lies in its range ([`range`]) and behind its descriptor ([`file_kind`]), how many tasks
//! there were ([`tasks`]), how many of its kind there were ([`counters`]), from where it was called ([`place`], [`sites`],
//! [`stack`], [`top`], [`stack_mappings`], [`stack_copy`]), what became of the need ([`outcome`]); and its record, which puts these
//! together.
//!
//! For the verifier, the parts are global functions of plain numbers: each is looked at once, without what its callers
//! know. The price is that each begins with asking for the current call anew.

pub mod counters;
mod evidence;
mod file_kind;
pub mod left;
mod needed;
pub mod outcome;
mod place;
mod range;
mod sites;
mod stack;
mod stack_copy;
mod stack_mappings;
pub mod tasks;
mod top;

pub use self::stack_copy::{copy_stack, copy_stack_by_registers};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use vmaudit_common::{
    ABSENT, CLASS_SECTION, EXAMPLES_PER_GROUP, GroupKey, RECORD_FAILURE, STACK_PIECE, STACK_PIECES, Section,
    TASK_LIMITS, call::Call,
};

use self::{
    counters::{Counted, Leaked},
    needed::Asked,
    stack::Stack,
};
use crate::{
    call::FailedCall,
    control::{Page, config, layout},
    current_call, kernel, records,
    slots::Slot,
    task_names,
};

const EAGAIN: u32 = 11;
/// Bytes copied of a stack at most.
pub const COPY: u64 = (STACK_PIECES * STACK_PIECE) as u64;

/// The parts of an examination that differ between newer and older kernels.
trait Variant {
    /// What the call asks for, as class bits.
    fn request(&self, failed: &FailedCall) -> u64;
    /// Limits that it exceeds, as class bits.
    fn exceeded(&self, failed: &FailedCall, section: &Section) -> u64;
    /// What lies in its range: class bits, and the address of the first gap.
    fn range(&self, failed: &FailedCall, class: u64, lock_sequence: u32) -> (u64, u64);
    /// Counts it under its kind; says in which group, and how many of the kind there were before.
    fn count(&self, failed: &FailedCall, key: u64, now: u64) -> Counted;
    /// Keeps what it would have needed of the limits on the process; it was counted in this group.
    fn needed(&self, failed: &FailedCall, group: usize, class: u64, section: &Section);
    /// Tells what it has left mapped; it was counted in this group.
    fn stays(&self, failed: &FailedCall, group: usize);
    /// Counts it in this group under the place that it came from.
    fn site(&self, n: usize, stack: u64, bytes: u64, now: u64) -> sites::Counted;
    /// Takes the user stack.
    fn stack(&self, regs: u64) -> Option<Stack>;
    /// Reports the mappings that the stack lies in.
    fn mappings(&self, regs: u64);
    /// Sends a copy of the stack.
    fn copy(&self, regs: u64, now: u64);
    /// Bytes that the call asked for.
    fn asked_bytes(&self, failed: &FailedCall) -> u64;
    /// Keeps in mind that the thread was refused this; counted in a group and at a place.
    fn need(&self, failed: &FailedCall, group: usize, place: u32);
}

/// With the index of the address space's slot.
struct Modern(u32);

impl Variant for Modern {
    #[inline(always)]
    fn request(&self, failed: &FailedCall) -> u64 {
        failure_request(u32::from(failed.id), failed.ret)
    }

    #[inline(always)]
    fn exceeded(&self, failed: &FailedCall, section: &Section) -> u64 {
        let Section { total_vm, data_vm, locked_vm, .. } = *section;
        failure_exceeded(u32::from(failed.id), failed.ret, total_vm, data_vm, locked_vm)
    }

    #[inline(always)]
    fn needed(&self, failed: &FailedCall, group: usize, class: u64, section: &Section) {
        let Section { total_vm, data_vm, locked_vm, .. } = *section;
        let asked = Asked::packed(self.0, group, failed, class);
        failure_needed(asked, failed.ret, total_vm, data_vm, locked_vm);
    }

    #[inline(always)]
    fn range(&self, failed: &FailedCall, class: u64, lock_sequence: u32) -> (u64, u64) {
        // Without the kernel's count of write sections nothing would prove that the look holds.
        if layout!(mm_lock_seq) == ABSENT {
            return (0, 0);
        }
        range::look(failed.id, class, lock_sequence)
    }

    #[inline(always)]
    fn count(&self, _: &FailedCall, key: u64, now: u64) -> Counted {
        Counted::unpack(failure_count(self.0, key, now))
    }

    #[inline(always)]
    fn stays(&self, failed: &FailedCall, group: usize) {
        failure_stays(self.0, group as u32, u32::from(failed.id), failed.ret);
    }

    #[inline(always)]
    fn site(&self, n: usize, stack: u64, bytes: u64, now: u64) -> sites::Counted {
        sites::count(true, self.0, n, stack, bytes, now)
    }

    #[inline(always)]
    fn stack(&self, regs: u64) -> Option<Stack> {
        Stack::take(regs)
    }

    #[inline(always)]
    fn mappings(&self, _: u64) {
        if layout!(file.vma_file) != ABSENT {
            stack_mappings::report_mappings(self.0);
        }
    }

    #[inline(always)]
    fn copy(&self, _: u64, now: u64) {
        copy_stack(self.0, now, COPY);
    }

    #[inline(always)]
    fn asked_bytes(&self, failed: &FailedCall) -> u64 {
        failure_asked_bytes(u32::from(failed.id), failed.ret)
    }

    #[inline(always)]
    fn need(&self, failed: &FailedCall, group: usize, place: u32) {
        failure_need(self.0, group as u32, place, u32::from(failed.id), failed.ret);
    }
}

/// For `hooks::sampled`: no looks, no task known by type, so that what needs one is in the program itself. What a call has
/// left mapped is added up in its group, and what it would have needed is not kept: 5.10's verifier would follow all the ways
/// through [`left`] and [`needed`] for minutes. With the
/// program's context and the slot's index.
struct Legacy(*mut core::ffi::c_void, u32);

impl Variant for Legacy {
    #[inline(always)]
    fn request(&self, failed: &FailedCall) -> u64 {
        evidence::request(failed)
    }

    #[inline(always)]
    fn exceeded(&self, failed: &FailedCall, section: &Section) -> u64 {
        evidence::exceeded(failed, section)
    }

    #[inline(always)]
    fn needed(&self, _: &FailedCall, _: usize, _: u64, _: &Section) {}

    #[inline(always)]
    fn range(&self, _: &FailedCall, _: u64, _: u32) -> (u64, u64) {
        (0, 0)
    }

    #[inline(always)]
    fn count(&self, failed: &FailedCall, key: u64, now: u64) -> Counted {
        let Leaked { bytes, mark } = counters::leaked_by(failed);
        Counted::unpack(failure_count_without_cas(self.1, key, now, bytes, mark))
    }

    #[inline(always)]
    fn stays(&self, _: &FailedCall, _: usize) {}

    #[inline(always)]
    fn site(&self, n: usize, stack: u64, bytes: u64, now: u64) -> sites::Counted {
        sites::count(false, self.1, n, stack, bytes, now)
    }

    #[inline(always)]
    fn stack(&self, regs: u64) -> Option<Stack> {
        Stack::take_by_context(self.0, regs)
    }

    #[inline(always)]
    fn mappings(&self, regs: u64) {
        if layout!(file.vma_file) != ABSENT && layout!(file.mm_tree) != ABSENT {
            stack_mappings::report_mappings_by_tree(self.1, regs);
        }
    }

    #[inline(always)]
    fn copy(&self, regs: u64, now: u64) {
        copy_stack_by_registers(self.1, regs, now, COPY);
    }

    #[inline(always)]
    fn asked_bytes(&self, failed: &FailedCall) -> u64 {
        outcome::asked_bytes(failed.id, failed.ret, failed.regs)
    }

    #[inline(always)]
    fn need(&self, failed: &FailedCall, group: usize, place: u32) {
        if let Some(slot) = Slot::at(self.1) {
            let (_, tid) = kernel::ids();
            outcome::refused(tid, (self.1, slot), group, place, failed);
        }
    }
}

/// The refused call of `current` that this is about.
#[inline(always)]
fn of_current(id: u32, errno: u32, ret: u64) -> FailedCall {
    FailedCall {
        id: id as Call,
        errno: errno as u8,
        ret,
        regs: kernel::registers(),
        task: kernel::Current::task().address(),
    }
}

/// A call of `current` was refused: `index` is the slot that it belongs into.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn failure(index: u32, id: u32, errno: u32, ret: u64) -> u64 {
    if let Some(slot) = Slot::at(index) {
        examine(slot, &of_current(id, errno, ret), &Modern(index));
    }
    0
}

/// See [`Variant::request`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_request(id: u32, ret: u64) -> u64 {
    evidence::request(&of_current(id, 0, ret))
}

/// See [`Variant::exceeded`]; pages.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_exceeded(id: u32, ret: u64, total_vm: u64, data_vm: u64, locked_vm: u64) -> u64 {
    let section = Section { total_vm, data_vm, locked_vm, ..Section::default() };
    evidence::exceeded(&of_current(id, 0, ret), &section)
}

/// See [`Variant::needed`]; pages.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_needed(asked: u64, ret: u64, total_vm: u64, data_vm: u64, locked_vm: u64) -> u64 {
    let section = Section { total_vm, data_vm, locked_vm, ..Section::default() };
    let arguments = kernel::first_arguments(kernel::registers());
    needed::keep(Asked::unpack(asked), ret, kernel::current(), arguments, &section);
    0
}

/// See [`Variant::count`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_count(index: u32, key: u64, now: u64) -> u64 {
    match Slot::at(index) {
        Some(slot) => {
            task_names::refused::<true>(slot, kernel::Current::task().name());
            counters::count::<true>(slot, key, now, Leaked::NOTHING).pack()
        }
        None => Counted::NOWHERE.pack(),
    }
}

/// See [`Variant::stays`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_stays(index: u32, group: u32, id: u32, ret: u64) -> u64 {
    if let Some(slot) = Slot::at(index) {
        let arguments = kernel::first_arguments(kernel::registers());
        left::stays(slot, group as usize, id as Call, ret, arguments);
    }
    0
}

/// See [`Variant::asked_bytes`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_asked_bytes(id: u32, ret: u64) -> u64 {
    outcome::asked_bytes(id as Call, ret, kernel::registers())
}

/// See [`Variant::need`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_need(index: u32, group: u32, place: u32, id: u32, ret: u64) -> u64 {
    if let Some(slot) = Slot::at(index) {
        let (_, tid) = kernel::ids();
        outcome::refused(tid, (index, slot), group as usize, place, &of_current(id, 0, ret));
    }
    0
}

/// As [`failure_count`], without compare-and-swap.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn failure_count_without_cas(index: u32, key: u64, now: u64, bytes: u64, mark: u64) -> u64 {
    match Slot::at(index) {
        Some(slot) => {
            task_names::refused::<false>(slot, kernel::name_of(kernel::current()));
            counters::count::<false>(slot, key, now, Leaked { bytes, mark }).pack()
        }
        None => Counted::NOWHERE.pack(),
    }
}

/// As [`failure`], for the programs of `hooks::sampled`.
#[inline(always)]
pub fn legacy_failure(ctx: *mut core::ffi::c_void, index: u32, slot: Slot, failed: &FailedCall) {
    examine(slot, failed, &Legacy(ctx, index));
}

#[inline(always)]
fn examine(slot: Slot, failed: &FailedCall, parts: &impl Variant) {
    let FailedCall { id, errno, ret, regs, task } = *failed;
    let page = Page::get();
    let zero = page.unknown_zero();
    let (max, polled) = evidence::max_map_count(page);
    let (_, tid) = kernel::ids();
    let (seen, section, lock_sequence) = current_call::seen(tid, id, max);
    let mut class = (polled | seen) ^ u64::from(zero);
    class |= parts.request(failed);
    let mut hole = 0;
    if class & CLASS_SECTION != 0 {
        class |= parts.exceeded(failed, &section);
        let (bits, first) = parts.range(failed, class, lock_sequence);
        class |= bits;
        hole = first;
    }
    let mut counts = [0; TASK_LIMITS];
    if tasks::makes_one(id) {
        if u32::from(errno) == EAGAIN {
            for (which, count) in counts.iter_mut().enumerate() {
                *count = tasks::count_tasks(which as u32);
            }
            class |= tasks::class(&counts);
        } else {
            class |= tasks::init_ended();
        }
    }
    class ^= u64::from(zero);
    slot.count_refusal(id);
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Counted { group, before } = parts.count(failed, GroupKey { call: id, errno, class }.pack(), now);
    // Both look themselves whether they are concerned: a branch here is one that older verifiers follow to the end.
    parts.needed(failed, group, class, &section);
    parts.stays(failed, group);
    let stack = if config!(failure_stacks) != 0 { parts.stack(regs) } else { None };
    let identity = stack.map_or(0, |_| place::identity(regs, task));
    let site = parts.site(group, identity, parts.asked_bytes(failed), now);
    parts.need(failed, group, site.place);
    if before >= EXAMPLES_PER_GROUP && !site.new && config!(stream_failures) == 0 {
        return;
    }
    // Names are looked up for the first stack from a place.
    if (before == 0 || site.new) && stack.is_some() {
        parts.mappings(regs);
        parts.copy(regs, now);
    }
    let Some(mut entry) = records::failure(slot) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points at reserved memory of this size; every field is written before it is submitted, but for
    // the frames, of which `stack_bytes` tells how many there are.
    unsafe {
        (*record).head = records::head(RECORD_FAILURE, now, slot.generation());
        (*record).call = u32::from(id);
        (*record).errno = u32::from(errno);
        (*record).class = class;
        (*record).reserved = 0;
        (*record).max_map_count = max;
        (*record).ret = ret as i64;
        (*record).args = kernel::arguments(regs);
        (*record).section = section;
        (*record).rlimits = evidence::rlimits(task);
        (*record).start_brk = kernel::start_brk(task);
        (*record).hole = hole;
        (*record).tasks = counts;
        (*record).comm = kernel::comm_of(task);
        (*record).stack_bytes = 0;
        (*record).caller = 0;
        (*record).site = site.key();
        if let Some(stack) = stack {
            (*record).caller = stack.word(0);
            (*record).stack_bytes = stack.bytes();
            stack.copy_frames((&raw mut (*record).stack).cast());
        }
    }
    records::submit_failure(entry);
}
