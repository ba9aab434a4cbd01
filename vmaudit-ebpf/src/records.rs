//! Everything that is written to the ring buffer. Losing a record costs no figure: peaks and counters are in the slots.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
    macros::map,
    maps::{RingBuf, ring_buf::RingBufEntry},
};
use vmaudit_common::{
    ABSENT, ChangeRecord, DeadRecord, ENVIRONMENT_BYTES, EndRecord, EnvironmentRecord, ExecRecord,
    FailureRecord, KilledRecord, LeftRecord, MAKERS_COPIES, RECORD_CHANGE, RECORD_DEAD, RECORD_ENVIRONMENT,
    RECORD_EXEC, RECORD_LEFT, RECORD_LIMIT_NEAR, RecordHeader, SignalSeen, USUAL_ENVIRONMENT_BYTES,
    call::Call,
};

use crate::{
    control::{Page, clear_words, config, layout, lost},
    kernel, namespace,
    shares::Share,
    slots::Slot,
};

/// Details for user space.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Wakes the reader if it waits.
const WAKE: u64 = 0;
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

// include/uapi/linux/bpf.h
const BPF_RB_AVAIL_DATA: u64 = 0;
const BPF_RB_RING_SIZE: u64 = 1;
const BPF_RB_CONS_POS: u64 = 2;
const BPF_RB_PROD_POS: u64 = 3;

/// Bytes before each record (include/uapi/linux/bpf.h: BPF_RINGBUF_HDR_SZ).
const HEADER: u64 = 8;

/// How to submit a record of a stream: the reader comes by itself every few milliseconds and is woken only when a quarter
/// of the buffer is full. Waking it for each record costs the traced program more than the record.
#[inline(always)]
fn wake_rarely() -> u64 {
    let full = RECORDS.query(BPF_RB_AVAIL_DATA) >= RECORDS.query(BPF_RB_RING_SIZE) / 4;
    if full { FORCE_WAKEUP } else { NO_WAKEUP }
}

/// How to submit the record of a birth or an end: the reader hears of the first one at once, so that it finds the process
/// in /proc, and of what follows it within a few milliseconds together. Of many short processes each would else pay
/// for a wake-up.
#[inline(always)]
fn wake_now_and_then(now: u64) -> u64 {
    const PAUSE_NS: u64 = 5_000_000;
    let page = Page::get();
    let dead = page.slots_dead().read();
    // A reader that does not come leaves the dead where births need their places.
    if dead >= u64::from(config!(slots)) / 4 {
        return FORCE_WAKEUP;
    }
    // A session may end with the last address space.
    if dead == page.slots_in_use().read() {
        return WAKE;
    }
    if now.wrapping_sub(page.woken_ns().read()) < PAUSE_NS {
        return wake_rarely();
    }
    page.woken_ns().write(now);
    WAKE
}

/// Whether the user whose address space this is may have so many more bytes of the buffer; counted if not.
#[inline(always)]
fn may_write(slot: Slot, bytes: usize) -> bool {
    config!(watch_all) == 0 || share_may_write(slot.share(), bytes as u32) != 0
}

// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn share_may_write(number: u32, bytes: u32) -> u64 {
    let Some(share) = Share::number(number) else { return 1 };
    let (read, end) = (RECORDS.query(BPF_RB_CONS_POS), RECORDS.query(BPF_RB_PROD_POS));
    let may = share.may_write(u64::from(bytes) + HEADER, read, end, RECORDS.query(BPF_RB_RING_SIZE));
    if !may {
        lost!(ring_full);
    }
    u64::from(may)
}

/// The same, not counted: who may not tries again.
#[inline(always)]
fn may_write_by_and_by(slot: Slot, bytes: u32) -> bool {
    config!(watch_all) == 0 || share_has_room(slot.share(), bytes) != 0
}

// SAFETY: as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn share_has_room(number: u32, bytes: u32) -> u64 {
    let Some(share) = Share::number(number) else { return 1 };
    let (read, end) = (RECORDS.query(BPF_RB_CONS_POS), RECORDS.query(BPF_RB_PROD_POS));
    u64::from(share.has_room(u64::from(bytes) + HEADER, read, end, RECORDS.query(BPF_RB_RING_SIZE)))
}

/// Head of a record about `current`.
#[inline(always)]
pub fn head(kind: u32, at_ns: u64, generation: u64) -> RecordHeader {
    let (tgid, tid) = kernel::ids();
    RecordHeader { kind, tgid, tid, shown_tid: namespace::shown(kernel::current()), at_ns, generation }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// A change of the count.
#[inline(always)]
pub fn change(slot: Slot, call: Call, before: u32, after: u32, task: u64) {
    if !may_write(slot, size_of::<ChangeRecord>()) {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<ChangeRecord>(0) else {
        lost!(ring_full);
        return;
    };
    entry.write(ChangeRecord {
        head: head(RECORD_CHANGE, now(), slot.generation()),
        before,
        after,
        call: u32::from(call),
        reserved: 0,
        comm: kernel::comm_of(task),
    });
    entry.submit(wake_rarely());
}

/// `current` has a new image, of the file with this name (an address in the kernel; 0: not known, no record). `slot`: of
/// its address space.
#[inline(always)]
pub fn new_image(slot: Option<Slot>, task: u64, filename: u64) {
    if filename == 0 || slot.is_some_and(|slot| !may_write(slot, size_of::<ExecRecord>())) {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<ExecRecord>(0) else {
        lost!(ring_full);
        return;
    };
    let record = entry.as_mut_ptr();
    let now = now();
    // SAFETY: `record` points at reserved memory of this size; every byte is written before it is submitted.
    unsafe {
        (*record).head = head(RECORD_EXEC, now, 0);
        (*record).start_boottime_ns = kernel::read(kernel::leader_of(task), layout!(task_start_boottime));
        clear_words((&raw mut (*record).filename).cast(), size_of_val(&(*record).filename) / 8);
        kernel::read_str(filename, &mut (*record).filename);
    }
    // SAFETY: as above.
    let path = unsafe { &(*record).filename };
    // Of a path that is relative, or too long, the rest is in /proc, as long as the process is there.
    let whole = path[0] == b'/' && path[path.len() - 2] == 0;
    entry.submit(if whole { wake_now_and_then(now) } else { WAKE });
}

/// With what environment `current` begins its new image, of the file with this name. Only a hint: of a process that is not
/// told of user space asks /proc, and may come too late there.
#[inline(always)]
pub fn environment(task: u64, filename: u64) {
    let (from, to) = (layout!(end.mm_env_start), layout!(end.mm_env_end));
    // Worth more than who made what, which leaves a quarter.
    let room = RECORDS.query(BPF_RB_AVAIL_DATA) < RECORDS.query(BPF_RB_RING_SIZE) / 8 * 7;
    if from == ABSENT || to == ABSENT || !room {
        return;
    }
    let mm = kernel::mm_of(task);
    let start: u64 = kernel::read(mm, from);
    let bytes = kernel::read::<u64>(mm, to).wrapping_sub(start);
    if bytes < USUAL_ENVIRONMENT_BYTES as u64 {
        environment_in::<USUAL_ENVIRONMENT_BYTES>(task, filename, start, bytes);
    } else if bytes < ENVIRONMENT_BYTES as u64 {
        environment_in::<ENVIRONMENT_BYTES>(task, filename, start, bytes);
    }
}

#[inline(always)]
fn environment_in<const ROOM: usize>(task: u64, filename: u64, start: u64, bytes: u64) {
    let bytes = bytes & (ROOM as u64 - 1);
    let Some(mut entry) = RECORDS.reserve::<EnvironmentRecord<ROOM>>(0) else { return };
    let record = entry.as_mut_ptr();
    let now = now();
    // SAFETY: `record` points at reserved memory of this size, which holds `bytes`; of the data nothing else is read.
    let failed = unsafe {
        (*record).head = head(RECORD_ENVIRONMENT, now, 0);
        (*record).start_boottime_ns = kernel::read(kernel::leader_of(task), layout!(task_start_boottime));
        clear_words((&raw mut (*record).filename).cast(), size_of_val(&(*record).filename) / 8);
        kernel::read_str(filename, &mut (*record).filename);
        (*record).bytes = bytes;
        let data = (&raw mut (*record).data).cast::<c_void>();
        bpf_probe_read_user(data, bytes as u32, start as *const c_void)
    };
    // A page that is not in memory.
    if failed == 0 {
        entry.submit(wake_now_and_then(now));
    } else {
        entry.discard(NO_WAKEUP);
    }
}

/// A slot waits to be read. Only a hint to look soon: a full ring loses nothing here, user space also looks by itself.
#[inline(always)]
pub fn dead(index: u32, tgid: u32, generation: u64) {
    let Some(mut entry) = RECORDS.reserve::<DeadRecord>(0) else { return };
    let now = now();
    entry.write(DeadRecord {
        head: RecordHeader { kind: RECORD_DEAD, tgid, tid: 0, shown_tid: 0, at_ns: now, generation },
        slot: u64::from(index),
    });
    entry.submit(wake_now_and_then(now));
}

/// See [`crate::near`]: the reader has to act at once.
#[inline(always)]
pub fn limit_near() {
    let Some(mut entry) = RECORDS.reserve::<RecordHeader>(0) else { return };
    entry.write(head(RECORD_LIMIT_NEAR, now(), 0));
    entry.submit(FORCE_WAKEUP);
}

/// Room for the record of a call that was refused in this address space.
#[inline(always)]
pub fn failure(slot: Slot) -> Option<RingBufEntry<FailureRecord>> {
    if !may_write(slot, size_of::<FailureRecord>()) {
        return None;
    }
    let entry = RECORDS.reserve::<FailureRecord>(0);
    if entry.is_none() {
        lost!(ring_full);
    }
    entry
}

/// All of it is written.
#[inline(always)]
pub fn submit_failure(entry: RingBufEntry<FailureRecord>) {
    entry.submit(WAKE);
}

/// Whether a copy of a stack may be sent. Copies are large, and other records are worth more: so they have what half of the
/// buffer leaves free.
#[inline(always)]
fn room_for_stacks() -> bool {
    RECORDS.query(BPF_RB_AVAIL_DATA) < RECORDS.query(BPF_RB_RING_SIZE) / 2
}

/// The same; counted if not.
#[inline(always)]
pub fn has_room_for_stacks() -> bool {
    let room = room_for_stacks();
    if !room {
        lost!(stack_copy_missing);
    }
    room
}

/// A piece of the stack of a call that was refused in this address space: the bytes of a `StackRecord` up to the end of its
/// data. `false`, and counted: there was no room.
#[inline(always)]
pub fn stack_piece(slot: Slot, bytes: &[u8]) -> bool {
    if !may_write(slot, bytes.len()) {
        return false;
    }
    // The record of the call itself follows and wakes the reader.
    let written = RECORDS.output::<[u8]>(bytes, NO_WAKEUP).is_ok();
    if !written {
        lost!(stack_copy_missing);
    }
    written
}

/// Who is credited up to this level of this address space: the bytes of a `MakerRecord` up to the end of its words.
#[inline(always)]
pub fn maker(slot: Slot, bytes: &[u8], level: u32, now: u64) {
    const PAUSE_NS: u64 = 500_000;
    // The first that comes with a copy of the whole stack: whose code it is is looked up while there are few mappings.
    let first = (MAKERS_COPIES..MAKERS_COPIES + MAKERS_COPIES / 64).contains(&level);
    // Copies are large, and lie in half of the buffer. A reader that is at work need not be woken each time.
    let full = RECORDS.query(BPF_RB_AVAIL_DATA) >= RECORDS.query(BPF_RB_RING_SIZE) / 16;
    let woken = Page::get().woken_ns();
    let wakes = (first || full) && now.wrapping_sub(woken.read()) >= PAUSE_NS;
    if wakes {
        woken.write(now);
    }
    let how = if wakes { FORCE_WAKEUP } else { NO_WAKEUP };
    let room = RECORDS.query(BPF_RB_AVAIL_DATA) < RECORDS.query(BPF_RB_RING_SIZE) / 4 * 3;
    if !room || !may_write(slot, bytes.len()) || RECORDS.output::<[u8]>(bytes, how).is_err() {
        lost!(credits_lost);
    }
}

/// Whether a copy of so many bytes of a stack may be sent of this address space, which is asked again and again: no loss.
#[inline(always)]
pub fn has_room_for_copy(slot: Slot, bytes: u32) -> bool {
    room_for_stacks() && may_write_by_and_by(slot, bytes)
}

/// The place of an entry of the ledger: the bytes of a `MakerRecord` up to the end of its words. `false`: there was no room,
/// which is no loss yet.
#[inline(always)]
pub fn ledger(slot: Slot, bytes: &[u8], now: u64) -> bool {
    const PAUSE_NS: u64 = 500_000;
    let room = RECORDS.query(BPF_RB_AVAIL_DATA) < RECORDS.query(BPF_RB_RING_SIZE) / 4 * 3;
    if !room || !may_write_by_and_by(slot, bytes.len() as u32) {
        return false;
    }
    let woken = Page::get().woken_ns();
    let wakes = now.wrapping_sub(woken.read()) >= PAUSE_NS;
    if wakes {
        woken.write(now);
    }
    let how = if wakes { FORCE_WAKEUP } else { NO_WAKEUP };
    may_write(slot, bytes.len()) && RECORDS.output::<[u8]>(bytes, how).is_ok()
}

/// Whether a range that went may be told: there can be many, and other records are worth more. Copies of stacks are worth
/// less, and so is who made what: they leave a quarter of the buffer to all else.
#[inline(always)]
pub fn has_room_for_left() -> bool {
    RECORDS.query(BPF_RB_AVAIL_DATA) < RECORDS.query(BPF_RB_RING_SIZE) / 8 * 7
}

/// A range that a refused call has left mapped in this address space, or one that went later. If there is no room, whoever
/// counts the records misses it.
#[inline(always)]
pub fn left(slot: Slot, start: u64, end: u64, what: u32, group: u32) {
    if !may_write(slot, size_of::<LeftRecord>()) {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<LeftRecord>(0) else { return };
    entry.write(LeftRecord { head: head(RECORD_LEFT, now(), slot.generation()), start, end, what, group });
    entry.submit(wake_rarely());
}

/// A mapping of the stack of a call that was refused in this address space: the bytes of a `MappingRecord` up to the end
/// of its path.
#[inline(always)]
pub fn mapping(slot: Slot, bytes: &[u8]) {
    if may_write(slot, bytes.len()) && RECORDS.output::<[u8]>(bytes, WAKE).is_err() {
        lost!(ring_full);
    }
}

/// A process of the user with this share has ended, of no signal that was seen.
#[inline(always)]
pub fn ended(end: EndRecord, share: u32) {
    if share_may_write(share, size_of::<EndRecord>() as u32) == 0 {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<EndRecord>(0) else {
        lost!(ring_full);
        return;
    };
    entry.write(end);
    entry.submit(wake_rarely());
}

/// One has died of a signal.
#[inline(always)]
pub fn killed(end: EndRecord, signal: &SignalSeen, share: u32) {
    if share_may_write(share, size_of::<KilledRecord>() as u32) == 0 {
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<KilledRecord>(0) else {
        lost!(ring_full);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points at reserved memory of this size; both fields are written before it is submitted.
    unsafe {
        (*record).end = end;
        (*record).signal = *signal;
    }
    entry.submit(wake_rarely());
}

/// The OOM killer has chosen a process: the reader looks at its cgroup at once.
#[inline(always)]
pub fn oom(bytes: &[u8]) {
    if RECORDS.output::<[u8]>(bytes, WAKE).is_err() {
        lost!(ring_full);
    }
}
