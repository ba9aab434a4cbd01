//! Releases of the mmap lock: the one place through which every change of map_count passes.
//!
//! `mmap_lock_released` fires before the lock is let go (include/linux/mmap_lock.h, 5.11 to 7.3), so the count read
//! here is the one that this section leaves behind. munmap, brk and mremap downgrade the lock first and end with a
//! *read* release; nobody can write in between, so comparing with the last value seen catches these too.

use aya_ebpf::{
    EbpfContext,
    macros::{map, raw_tracepoint, tracepoint},
    maps::ProgramArray,
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::debug;
use vmaudit_common::{ABSENT, Sizes, call};

use crate::{
    address_space, answer,
    call::{fills_another, may_downgrade},
    control::{config, layout},
    current_call,
    kernel::{self, Current, OwnMm},
    ledger, lock_sequence, makers, near, records, sizes,
    slots::{self, Slot},
    task_names,
};

/// match-proto: mmap_lock_released(struct mm_struct *mm, bool write), 6.14 and later.
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn released_raw2(ctx: RawTracePointContext) -> i32 {
    released::<false, _>(&ctx, ctx.arg(0), ctx.arg::<u64>(1) & 0xff != 0, &LEDGER_RAW);
    0
}

/// As [`released_raw2`], where nobody sees the exits of calls (see [`crate::answer`]).
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn asking_raw2(ctx: RawTracePointContext) -> i32 {
    if released::<true, _>(&ctx, ctx.arg(0), ctx.arg::<u64>(1) & 0xff != 0, &LEDGER_RAW) {
        give_over(&ctx, &ASK_RAW);
    }
    0
}

/// Where [`asking_raw2`] gives over to [`ask_raw`], and the raw programs of [`super::process`].
#[map]
pub static ASK_RAW: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// See [`answer::go_on`].
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn ask_raw(_ctx: RawTracePointContext) -> i32 {
    answer::go_on();
    0
}

/// Where a program on the lock event gives over to [`ledger_raw`], where that was asked for.
#[map]
static LEDGER_RAW: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// See [`ledger::put_down`].
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn ledger_raw(ctx: RawTracePointContext) -> i32 {
    if ledger::put_down(ctx.arg(0)) {
        give_over(&ctx, &ASK_RAW);
    }
    0
}

#[inline(always)]
fn give_over<C: EbpfContext>(ctx: &C, to: &ProgramArray) {
    // SAFETY: the program there is for the same event.
    unsafe { to.tail_call(ctx, 0) };
    answer::unasked();
}

/// match-proto: mmap_lock_released(struct mm_struct *mm, const char *memcg_path, bool write), 5.11 to 6.13.
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn released_raw3(ctx: RawTracePointContext) -> i32 {
    released::<false, _>(&ctx, ctx.arg(0), ctx.arg::<u64>(2) & 0xff != 0, &LEDGER_RAW);
    0
}

/// Record format 6.14 and later: mm at 8, memcg_id at 16, write at 24.
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn released_classic24(ctx: TracePointContext) -> u32 {
    // SAFETY: offsets inside the record, checked against the format file by the loader.
    let (mm, write) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<u8>(24)) };
    released::<false, _>(&ctx, mm.unwrap_or(0), write.unwrap_or(0) != 0, &LEDGER_CLASSIC);
    0
}

/// As [`released_classic24`], where nobody sees the exits of calls.
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn asking_classic24(ctx: TracePointContext) -> u32 {
    // SAFETY: as above.
    let (mm, write) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<u8>(24)) };
    if released::<true, _>(&ctx, mm.unwrap_or(0), write.unwrap_or(0) != 0, &LEDGER_CLASSIC) {
        give_over(&ctx, &ASK_CLASSIC);
    }
    0
}

/// Where [`asking_classic24`] gives over to [`ask_classic`], and the classic programs of [`super::process`].
#[map]
pub static ASK_CLASSIC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// See [`answer::go_on`].
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn ask_classic(_ctx: TracePointContext) -> u32 {
    answer::go_on();
    0
}

/// Where a program on the lock event gives over to [`ledger_classic`], where that was asked for.
#[map]
static LEDGER_CLASSIC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// See [`ledger::put_down`].
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn ledger_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: as above; the record begins the same everywhere.
    let mm = unsafe { ctx.read_at::<u64>(8) };
    if ledger::put_down(mm.unwrap_or(0)) {
        give_over(&ctx, &ASK_CLASSIC);
    }
    0
}

/// Record format before 6.14: mm at 8, __data_loc memcg_path at 16, write at 20.
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn released_classic20(ctx: TracePointContext) -> u32 {
    // SAFETY: as above.
    let (mm, write) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<u8>(20)) };
    released::<false, _>(&ctx, mm.unwrap_or(0), write.unwrap_or(0) != 0, &LEDGER_CLASSIC);
    0
}

#[inline(always)]
fn sizes_of(own: Option<OwnMm>, mm: u64) -> Sizes {
    match own {
        Some(own) => own.sizes(),
        None => sizes::of(mm),
    }
}

/// Where the write sections have no numbers, a fault that has made the stack grow is a reader's release like any other
/// (before 6.5 it may be one: mm/mmap.c:expand_stack).
#[inline(always)]
fn grown_by_fault(slot: Slot, write: bool, own: OwnMm) {
    if layout!(mm_lock_seq) == ABSENT && !write && slot.grows_to(own.total_vm()) {
        slot.was_of(own.sizes());
    }
}

/// Says whether [`answer::go_on`] has something to do. Where every change is put down with its place it may not return: the
/// program behind `ledger` goes on.
#[inline(always)]
fn released<const ASKS: bool, C: EbpfContext>(ctx: &C, mm: u64, write: bool, ledger: &ProgramArray) -> bool {
    let task = Current::task();
    let own = task.own(mm);
    let mut known = slots::index_of(mm);
    if let Some(stale) = known
        && own.is_none()
        && write
        && fills_another(task.call())
    {
        // Nobody can know an address space that is still being filled: the slot is of one that ended unseen.
        address_space::end_unseen(stale, mm);
        known = None;
    }
    if known.is_none() {
        // A new address space shows itself by writing; readers of unknown ones are not ours.
        if !write {
            return false;
        }
        let adopted = address_space::adopt_current(mm);
        if config!(debug) != 0 {
            debug!(ctx, "first sign: adopted {}", u32::from(adopted));
        }
        if adopted || own.is_none() {
            return ASKS && answer::first_sign(task, mm, adopted);
        }
        // The walk over all tasks may have been faster, by a moment, with the count of before.
        known = slots::index_of(mm);
    }
    let Some(index) = known else { return false };
    let Some(slot) = Slot::at(index) else { return false };
    // One that has no mapping left is torn down without the event for it (mm/mmap.c:exit_mmap, `goto destroy`).
    if write && own.is_none() && kernel::map_count(mm) == 0 {
        address_space::torn_down(mm);
        return false;
    }
    let (count, sequence) = match own {
        Some(own) => (own.map_count(), own.lock_sequence()),
        None => (kernel::map_count(mm), kernel::lock_sequence(mm)),
    };
    let call_of = |own: Option<OwnMm>| if own.is_some() { task.call() } else { call::FOREIGN };
    let known_call = if ASKS { call_of(own) } else { call::OTHER };
    let mut asks = false;
    if ASKS
        && !write
        && let Some(own) = own
    {
        asks = answer::read_release(task, known_call, own, index, slot, sequence);
    }
    // Written under the mmap lock, or with an equal value.
    let before = slot.last();
    let ended = lock_sequence::since(slot, sequence, write);
    if count == before && ended == 0 {
        // A reader, or the other of two programs on this event was first.
        if let Some(own) = own {
            grown_by_fault(slot, write, own);
        }
        return asks;
    }
    // What ends with a reader's release and has changed the count has unmapped something.
    let sizes = if write || count == before { sizes_of(own, mm) } else { Sizes::default() };
    slot.was_of(sizes);
    let call = if ASKS { known_call } else { call_of(own) };
    let writer = write || may_downgrade(call);
    // A fault that makes the stack grow ends with a reader's release too (mm/mmap.c:expand_stack, downgraded); the count
    // stays as it was, so whoever sees it first has seen all.
    if writer || count == before && ended == 1 {
        lock_sequence::saw(slot, sequence, write, ended);
    }
    if write
        && config!(calls) != 0
        && let Some(own) = own
    {
        if ASKS {
            asks = answer::write_release(task, call, own, (index, slot), before, sequence, sizes);
        } else {
            current_call::keep_section(task, call, own, index, before, count);
        }
    }
    if count == before {
        return asks;
    }
    let peak = slot.peak();
    // A concurrent reader would store the same count.
    slot.reached(count);
    if ASKS && count > before {
        near::look_at_count(count);
    }
    if !writer {
        // A reader that got in between the downgrade and the downgrader's own release, which will do the accounts.
        return asks;
    }
    slot.count_change(call, before, count);
    if own.is_some() {
        if config!(makers) != 0 {
            makers::changed(index, slot, call, count);
        }
        task_names::changed::<true>(index, slot, task.name(), before, count, peak);
    }
    if config!(stream_changes) != 0 {
        records::change(slot, call, before, count, task.address());
    }
    // While an exec fills the new image the registers are those of the one before: that has no place in it.
    if config!(ledger) != 0 && own.is_some() && !fills_another(call) {
        ledger::hand_on(slot, call, before, asks);
        // SAFETY: the program there is for the same event. Where it could not be loaded user space has said so.
        unsafe { ledger.tail_call(ctx, 0) };
    }
    asks
}
