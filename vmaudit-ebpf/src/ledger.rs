//! Every change of the count by the place that made it: what each call from each place added and removed.
//!
//! Only where somebody asked for it: a program of its own then, to which those on the lock event give over. A place is told from others by the program counter, the word on top of the stack and the
//! return addresses that frame pointers lead to. They are followed in a copy of the upper end of the stack: a read of user
//! memory for each frame would cost as much as all else. Where they lead to few, the words there that are addresses of
//! the program's own code count too. The stack of a place's first change is copied, to be followed without frame pointers. An
//! address space whose changes come from more places than have room has the rest by the program counter and the word on
//! top alone, and then not at all.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
    macros::map,
    maps::{Array, PerCpuArray},
};
use vmaudit_common::{
    ABSENT, LEDGER_PER_SLOT, LedgerEntry, MAKER_FRAMES, MAKER_WORDS, MakerRecord, RECORD_LEDGER, call::Call,
};

use crate::{
    control::{BPF_F_MMAPABLE, Word, config, layout, lost},
    failure::copy_stack,
    kernel, records,
    slots::{self, Slot},
};

const HEAD: usize = offset_of!(MakerRecord, words);
/// Bytes copied at a time.
const CHUNK: usize = 1024;
/// With fewer words of a stack than that, code that keeps no frame pointers is likely.
const POOR: u32 = 8;
/// So many words on top are looked at then.
const SCANNED: usize = 48;
/// Bytes copied of the stack of a place's first change.
const FIRST_COPY: u64 = 8192;
/// What that takes of a user's share of the ring buffer at most, about: each page is a record, and each byte counts twice, as
/// his and as no longer free.
const COPIED: u32 = FIRST_COPY as u32 / 4 * 10;
/// A place whose copy found no room is told again after so many VMAs, about.
const AGAIN: u64 = 256;
/// Copies of one stack at most.
const COPIES: u32 = MAKER_FRAMES as u32;
/// The first frame lies no farther from the top of the stack: the register may hold anything else.
const FIRST_FRAME: u64 = 1 << 20;
/// Offset of the frame pointer in `struct pt_regs` of x86, and in `struct user_pt_regs` of arm64.
const FRAME_POINTER: (u32, u32) = (4 * 8, 29 * 8);
/// User addresses are below, and nothing lies in the first page.
const HIGHEST: u64 = 1 << 56;
const LOWEST: u64 = 4096;
/// Entries looked at before there is no room.
const PROBES: u32 = 8;
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where the walk is. In a map, so that the verifier knows none of the values.
#[repr(C)]
struct Walk {
    record: MakerRecord,
    /// 1 while it is some task's.
    busy: u64,
    /// Where the program's own code lies, and the address space with this number that it is of.
    generation: u64,
    code: [u64; 2],
    /// Top of the stack.
    sp: u64,
    /// Where the next frame is.
    fp: u64,
    /// Where the copy begins, and how long it is.
    base: u64,
    length: u64,
    /// Of the place so far; of what every stack has.
    key: u64,
    shallow_key: u64,
    /// One word more than is copied, for an index that the verifier sees in bounds.
    copy: [u64; CHUNK / 8 + 1],
}

#[map]
static LEDGER_WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// User space reads it, and clears the entries of address spaces that are gone. The loader makes it as large as it has to be.
#[map]
static LEDGER: Array<LedgerEntry> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[inline(always)]
const fn mix(key: u64, word: u64) -> u64 {
    let mixed = (key ^ word).wrapping_mul(SPREAD);
    mixed ^ mixed >> 29
}

/// What [`put_down`] has to know of a change of the count, by a call of the task's own, beside the count as it is now.
#[inline(always)]
pub fn hand_on(slot: Slot, call: Call, before: u32, asks: bool) {
    slot.ledger_change().write(u64::from(before) << 32 | u64::from(call) << 8 | u64::from(asks));
}

/// Puts the change down that was handed on, under the same lock. Says whether [`crate::answer::go_on`] has something to do.
#[inline(always)]
pub fn put_down(mm: u64) -> bool {
    let Some(index) = slots::index_of(mm) else { return false };
    let Some(slot) = Slot::at(index) else { return false };
    let change = slot.ledger_change().read();
    let counts = change >> 32 << 32 | u64::from(slot.last());
    // Programs can be preempted (7.0 and later), and so a walk of another task's may be under way here.
    if let Some(walk) = LEDGER_WALK.get_ptr_mut(0) {
        // SAFETY: points into the map, at a word.
        let busy = unsafe { Word::new(&raw mut (*walk).busy) };
        if busy.claim(0, 1).is_ok() {
            enter_in_ledger(index, (change >> 8) as u32 & 0xff, counts);
            busy.write(0);
        } else {
            lost!(ledger_disturbed);
        }
    }
    change & 1 != 0
}

/// `counts`: before, in the upper half, and after.
// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enter_in_ledger(index: u32, call: u32, counts: u64) -> u64 {
    let (Some(slot), Some(walk)) = (Slot::at(index), LEDGER_WALK.get_ptr_mut(0)) else { return 0 };
    // SAFETY: points into the map; so below.
    unsafe {
        (*walk).record.call = call;
        let generation = slot.generation();
        (*walk).key = mix(mix(config!(table_key), generation), u64::from(call));
        // Of an image that is being built it is not known yet.
        if (*walk).generation != generation || (*walk).code[1] == 0 {
            (*walk).generation = generation;
            (*walk).code = own_code();
        }
    }
    begin();
    for _ in 0..COPIES {
        if follow() == 0 {
            break;
        }
    }
    // SAFETY: as above.
    if unsafe { ptr::read_volatile(&raw const (*walk).record.used) } < POOR {
        scan();
    }
    // SAFETY: as above; volatile because the functions have written it.
    let (key, shallow) = unsafe {
        (ptr::read_volatile(&raw const (*walk).key), ptr::read_volatile(&raw const (*walk).shallow_key))
    };
    let mut place = find(index, key | 1, LEDGER_PER_SLOT);
    if place == 0 {
        // SAFETY: as above.
        unsafe { (*walk).record.used = 2 };
        place = find(index, shallow | 1, 2 * LEDGER_PER_SLOT);
    }
    let entry = if place == 0 { None } else { LEDGER.get_ptr_mut(place as u32 - 1) };
    let Some(entry) = entry else {
        lost!(ledger_full);
        return 0;
    };
    let (before, after) = ((counts >> 32) as u32, counts as u32);
    let changed = u64::from(before.abs_diff(after));
    // SAFETY: points into the table; under the lock of the address space nobody else writes to an entry of it.
    unsafe {
        (*entry).call = call;
        (*entry).added += u64::from(after.saturating_sub(before));
        (*entry).removed += u64::from(before.saturating_sub(after));
        let told = (*entry).told;
        let size = (*entry).added + (*entry).removed;
        let again = told == LedgerEntry::TOLD && size / AGAIN != (size - changed) / AGAIN;
        if told == 0 || again {
            let (now, room) = (bpf_ktime_get_ns(), records::has_room_for_copy(slot, COPIED));
            let copied = room && copy_stack(index, now, FIRST_COPY) != 0;
            if (room || !again) && tell(index, (*entry).key, now) != 0 {
                if !room {
                    lost!(stack_copy_missing);
                }
                (*entry).told = if copied { LedgerEntry::TOLD_WITH_COPY } else { LedgerEntry::TOLD };
            }
        }
    }
    0
}

#[inline(always)]
fn own_code() -> [u64; 2] {
    let (start, end) = (layout!(mm_start_code), layout!(mm_end_code));
    if start == ABSENT || end == ABSENT {
        return [0; 2];
    }
    kernel::read_words(kernel::mm_of(kernel::current()), [start, end])
}

/// The program counter, the word on top of the stack, and where the first frame is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin() -> u64 {
    let Some(walk) = LEDGER_WALK.get_ptr_mut(0) else { return 0 };
    let regs = kernel::registers();
    let arm64 = layout!(regs_lr) != ABSENT;
    // SAFETY: points into the map; the helper checks the address and never faults.
    unsafe {
        let sp: u64 = kernel::read(regs, layout!(regs_sp));
        let ip: u64 = kernel::read(regs, layout!(regs_ip));
        let fp = kernel::read::<u64>(regs, if arm64 { FRAME_POINTER.1 } else { FRAME_POINTER.0 });
        (*walk).sp = sp;
        copy(walk, sp & !7);
        let caller: u64 = match (arm64, (*walk).length >= 8) {
            (true, _) => kernel::read(regs, layout!(regs_lr)),
            (false, true) => (*walk).copy[0],
            (false, false) => 0,
        };
        (*walk).record.words[0] = caller;
        (*walk).record.words[1] = ip;
        (*walk).record.used = 2;
        (*walk).fp = if fp.wrapping_sub(sp) < FIRST_FRAME { fp } else { 0 };
        let key = mix(mix((*walk).key, ip), caller);
        (*walk).key = key;
        (*walk).shallow_key = mix(key, SPREAD);
    }
    0
}

/// Copies what lies at this address.
// SAFETY of use: `walk` points into the map.
#[inline(always)]
unsafe fn copy(walk: *mut Walk, base: u64) {
    const PAGE: u64 = 4096;
    // SAFETY: as the caller says; the helper checks the address and never faults.
    unsafe {
        let to = (&raw mut (*walk).copy).cast::<c_void>();
        (*walk).base = base;
        (*walk).length = CHUNK as u64;
        if bpf_probe_read_user(to, CHUNK as u32, base as *const c_void) != 0 {
            // Not over the end of the page, behind which nothing may be.
            let rest = (PAGE - (base & (PAGE - 1))) & (CHUNK as u64 - 1);
            (*walk).length = rest;
            if bpf_probe_read_user(to, rest as u32 & (CHUNK as u32 - 1), base as *const c_void) != 0 {
                (*walk).length = 0;
            }
        }
    }
}

/// Follows the frames as far as the copy goes, and makes the next one; 0 ends it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow() -> u64 {
    let Some(walk) = LEDGER_WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map; indices are masked.
    unsafe {
        let (mut fp, mut key) = ((*walk).fp, (*walk).key);
        let used = &raw mut (*walk).record.used;
        let (base, length) = ((*walk).base, (*walk).length);
        let mut more = 0;
        for _ in 0..MAKER_FRAMES {
            let full = ptr::read_volatile(used) as usize >= MAKER_FRAMES;
            if fp & 7 != 0 || !(LOWEST..HIGHEST).contains(&fp) || full {
                more = 0;
                break;
            }
            let offset = fp.wrapping_sub(base);
            more = 1;
            if offset.wrapping_add(16) > length || offset > length {
                break;
            }
            let at = (offset >> 3) as usize & (CHUNK / 8 - 1);
            let words = (&raw const (*walk).copy).cast::<u64>().add(at);
            let (next, ip) = (ptr::read_volatile(words), ptr::read_volatile(words.add(1)));
            more = 0;
            // Data, or a frame that points to itself.
            if !(LOWEST..HIGHEST).contains(&ip) {
                break;
            }
            // Read again: of what the compiler knows it makes pointers that the verifier does not see in bounds.
            let n = ptr::read_volatile(used);
            let word = (&raw mut (*walk).record.words).cast::<u64>().add(n as usize & (MAKER_WORDS - 1));
            word.write(ip);
            ptr::write_volatile(used, n + 1);
            key = mix(key, ip);
            if next == fp {
                break;
            }
            fp = next;
        }
        (*walk).fp = fp;
        (*walk).key = key;
        if more != 0 {
            copy(walk, fp);
            more = u64::from((*walk).length >= 16);
        }
        more
    }
}

/// Mixes the addresses of the program's own code that lie on top of the stack into the key.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan() -> u64 {
    let Some(walk) = LEDGER_WALK.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map.
    unsafe {
        let [start, end] = ptr::read_volatile(&raw const (*walk).code);
        let size = end.wrapping_sub(start);
        let top = (*walk).sp & !7;
        if (*walk).base != top {
            copy(walk, top);
        }
        let words = ((*walk).length / 8) as usize;
        let mut key = (*walk).key;
        for n in 1..SCANNED {
            if n >= words {
                break;
            }
            let word = ptr::read_volatile(&raw const (*walk).copy[n]);
            if word.wrapping_sub(start) < size {
                key = mix(key, word);
            }
        }
        (*walk).key = key;
    }
    0
}

/// The number + 1 of the entry with this key, which may be new if the address space has fewer than so many; 0: there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find(index: u32, key: u64, most: u64) -> u64 {
    let Some(slot) = Slot::at(index) else { return 0 };
    let begin = (key >> 32) as u32;
    for n in 0..PROBES {
        let place = begin.wrapping_add(n) & (config!(ledger).wrapping_sub(1));
        let Some(entry) = LEDGER.get_ptr_mut(place) else { break };
        // SAFETY: points into the table, whose entries 64-bit words begin.
        let word = unsafe { Word::new(&raw mut (*entry).key) };
        let mut seen = word.read();
        if seen == 0 {
            let taken = slot.ledger();
            if taken.read() >= most {
                break;
            }
            match word.claim(0, key) {
                Ok(()) => {
                    taken.write(taken.read() + 1);
                    // SAFETY: as above.
                    unsafe { (*entry).generation = slot.generation() };
                    seen = key;
                }
                Err(other) => seen = other,
            }
        }
        if seen == key {
            return u64::from(place) + 1;
        }
    }
    0
}

/// Sends the place of this key; 0: there was no room, so that the next change tries again. A place that is never told is no
/// loss of its own: its row says so.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(index: u32, key: u64, now: u64) -> u64 {
    let (Some(slot), Some(walk)) = (Slot::at(index), LEDGER_WALK.get_ptr_mut(0)) else { return 0 };
    // SAFETY: points into the map.
    unsafe {
        let record = &raw mut (*walk).record;
        (*record).head = records::head(RECORD_LEDGER, now, slot.generation());
        (*record).base = key as u32;
        (*record).level = (key >> 32) as u32;
        let used = ptr::read_volatile(&raw const (*record).used) as usize & (MAKER_WORDS - 1);
        let bytes = core::slice::from_raw_parts(record.cast::<u8>(), HEAD + used * 8);
        u64::from(records::ledger(slot, bytes, now))
    }
}
