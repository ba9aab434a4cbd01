//! Releases of the mmap lock: the one place through which every change of map_count passes.
//!
//! `mmap_lock_released` fires before the lock is let go (include/linux/mmap_lock.h, 5.11 to 7.3), so the count read
//! here is the one that this section leaves behind. munmap, brk and mremap downgrade the lock first and end with a
//! *read* release; nobody can write in between, so comparing with the last value seen catches these too.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_ktime_get_ns,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use vmaudit_common::{
    ChangeRecord, MmSlot, RECORD_CHANGE, RecordHeader, SECTIONS,
    call::{self, Call},
};

use crate::{
    kernel::{self, Current, OwnMm},
    lifecycle,
    maps::{self, RECORDS, SECTION_OF_TASK, SLOTS, config},
    sections,
};

/// match-proto: mmap_lock_released(struct mm_struct *mm, bool write), 6.14 and later.
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn released_raw2(ctx: RawTracePointContext) -> i32 {
    released(&ctx, ctx.arg(0), ctx.arg::<u64>(1) & 0xff != 0);
    0
}

/// match-proto: mmap_lock_released(struct mm_struct *mm, const char *memcg_path, bool write), 5.11 to 6.13.
#[raw_tracepoint(tracepoint = "mmap_lock_released")]
pub fn released_raw3(ctx: RawTracePointContext) -> i32 {
    released(&ctx, ctx.arg(0), ctx.arg::<u64>(2) & 0xff != 0);
    0
}

/// Record format 6.14 and later: mm at 8, memcg_id at 16, write at 24.
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn released_classic24(ctx: TracePointContext) -> u32 {
    // SAFETY: offsets inside the record, checked against the format file by the loader.
    let (mm, write) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<u8>(24)) };
    released(&ctx, mm.unwrap_or(0), write.unwrap_or(0) != 0);
    0
}

/// Record format before 6.14: mm at 8, __data_loc memcg_path at 16, write at 20.
#[tracepoint(category = "mmap_lock", name = "mmap_lock_released")]
pub fn released_classic20(ctx: TracePointContext) -> u32 {
    // SAFETY: as above.
    let (mm, write) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<u8>(20)) };
    released(&ctx, mm.unwrap_or(0), write.unwrap_or(0) != 0);
    0
}

#[inline(always)]
fn released<C: EbpfContext>(ctx: &C, mm: u64, write: bool) {
    let task = Current::task();
    let own = task.own(mm);
    let mut known = maps::index_of(mm);
    if let Some(stale) = known
        && own.is_none()
        && write
        && lifecycle::is_making(task.call())
    {
        // Nobody can know an address space that is still being filled: the slot is of one that ended unseen.
        lifecycle::bury(stale, mm);
        known = None;
    }
    let Some(index) = known else {
        // A new address space shows itself by writing; readers of unknown ones are not ours.
        if write {
            lifecycle::adopt_current(ctx, mm);
        }
        return;
    };
    let Some(slot) = SLOTS.get_ptr_mut(index) else { return };
    let (count, sequence) = match own {
        Some(own) => (own.map_count(), own.lock_sequence()),
        None => (kernel::map_count(mm), kernel::lock_sequence(mm)),
    };
    // SAFETY: `slot` points into SLOTS; `last` is written under the mmap lock, or with an equal value.
    let before = unsafe { (*slot).last };
    let ended = sections::since(slot, sequence, write);
    if count == before && ended == 0 {
        return; // a reader, or the other of two programs on this event was first
    }
    let call = if own.is_some() { task.call() } else { call::FOREIGN };
    let writer = write || may_downgrade(call);
    // A fault that makes the stack grow ends with a reader's release too (mm/mmap.c:expand_stack, downgraded); the count
    // stays as it was, so whoever sees it first has seen all.
    if writer || count == before && ended == 1 {
        sections::saw(slot, sequence, write, ended);
    }
    if write
        && config!(calls) != 0
        && let Some(own) = own
    {
        remember_section(task, call, own, index, before, count);
    }
    if count == before {
        return;
    }
    // SAFETY: as above; a concurrent reader would store the same count.
    unsafe {
        if count > (*slot).peak {
            (*slot).peak = count;
            (*slot).peak_ns = bpf_ktime_get_ns();
        }
    }
    if !writer {
        // A reader that got in between the downgrade and the downgrader's own release, which will do the accounts.
        return;
    }
    account(slot, call, before, count);
    if config!(stream_changes) != 0 {
        stream(slot, call, before, count, task.address());
    }
}

/// See [`vmaudit_common::call::CallInfo::downgrades`].
#[inline(always)]
fn may_downgrade(call: Call) -> bool {
    call::DOWNGRADING >> (call & 63) & 1 == 1
}

/// Books a change under the call that made it. Runs under the mmap lock held for writing or just downgraded, so no
/// other accountant is at work on this slot.
#[inline(always)]
pub fn account(slot: *mut MmSlot, call: Call, before: u32, count: u32) {
    let Some(index) = call_index(call) else { return };
    // SAFETY: `index` is below CALL_COUNT.
    unsafe {
        let stat = (&raw mut (*slot).calls).cast::<vmaudit_common::CallStat>().add(index);
        if count > before {
            (*stat).added += u64::from(count - before);
        } else {
            (*stat).removed += u64::from(before - count);
        }
        (*slot).last = count;
        (*slot).changes += 1;
    }
}

/// The bound is for the verifier; the barrier keeps the compiler from checking one copy of the number and using another.
#[inline(always)]
pub fn call_index(call: Call) -> Option<usize> {
    let index = core::hint::black_box(usize::from(call));
    if index < call::CALL_COUNT { Some(index) } else { None }
}

/// Keeps the figures of this write section for the failure that sys_exit may report right after.
#[inline(always)]
fn remember_section(task: Current, call: Call, mm: OwnMm, slot: u32, mc0: u32, mc1: u32) {
    if call < call::FIRST_REAL {
        return;
    }
    let tid = task.tid();
    let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) else { return };
    let (total_vm, locked_vm, data_vm) = mm.pages();
    // SAFETY: `section` points into the map; torn entries are recognised by their `tid`, written last.
    unsafe {
        core::ptr::write_volatile(&raw mut (*section).tid, 0);
        (*section).call = u32::from(call);
        (*section).slot = slot;
        (*section).mc0 = mc0;
        (*section).mc1 = mc1;
        (*section).total_vm = total_vm;
        (*section).locked_vm = locked_vm;
        (*section).data_vm = data_vm;
        (*section).lock_sequence = mm.lock_sequence();
        core::ptr::write_volatile(&raw mut (*section).tid, tid);
    }
}

#[inline(always)]
pub fn stream(slot: *mut MmSlot, call: Call, before: u32, after: u32, task: u64) {
    let Some(mut entry) = RECORDS.reserve::<ChangeRecord>(0) else {
        maps::lost!(ring_full);
        return;
    };
    let (tgid, tid) = kernel::ids();
    // SAFETY: `slot` points into SLOTS.
    let generation = unsafe { (*slot).generation };
    entry.write(ChangeRecord {
        head: RecordHeader {
            kind: RECORD_CHANGE,
            tgid,
            tid,
            reserved: 0,
            // SAFETY: no preconditions.
            at_ns: unsafe { bpf_ktime_get_ns() },
            generation,
        },
        before,
        after,
        call: u32::from(call),
        reserved: 0,
        comm: kernel::comm_of(task),
    });
    entry.submit(maps::wake_rarely());
}
