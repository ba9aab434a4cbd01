//! What lies in the range of a refused call.
//!
//! Whether the range has a gap, whether one of its edges cuts a mapping in two, and what the mapping allows decides
//! between causes that share an errno. The look is taken right after the refusal, at the call's exit, and holds only if
//! nobody has written to the address space since the call let its lock go: the kernel's own count of write sections
//! tells (6.4 and later).

use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_get_current_task_btf, bpf_loop};
use core::{ffi::c_void, mem::MaybeUninit};
use vmaudit_common::{
    ABSENT, CLASS_CHARGED, CLASS_CLOSED, CLASS_COUNTS, CLASS_CUT_END, CLASS_CUT_START, CLASS_DONE,
    CLASS_FIXED, CLASS_GAP, CLASS_LOOKED, CLASS_OF_FILES, CLASS_ONE, CLASS_PAST_FILE, call,
};

use crate::{
    control::{clear_words, config, count_lock_takes, layout},
    kernel::{self, Typed, whole_pages},
};

/// Mappings looked at; a range of more is not judged.
const STEPS: u32 = 32;
const ENOENT: i64 = 2;
/// The lowest class bit that a look sets; the answer of [`look_at_range`] has them moved down to 0.
const SHIFT: u32 = CLASS_GAP.trailing_zeros();
/// Bits of the answer that are class bits; above them is the address of the first gap, in pages.
const BITS: u32 = 13;

// include/linux/mm.h, the same in 5.10 to 7.3.
const VM_ACCESS: u64 = 0x7;
const VM_WRITE: u64 = 0x2;
const VM_PROTECTION: u64 = 0x7;
const VM_SHARED: u64 = 0x8;
const VM_GROWSDOWN: u64 = 0x100;
const VM_LOCKED: u64 = 0x2000;
/// VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP, VM_HUGETLB.
const VM_SPECIAL: u64 = 0x4000 | 0x4_0000 | 0x400 | 0x1000_0000 | 0x40_0000;
const VM_ACCOUNT: u64 = 0x10_0000;
const VM_NORESERVE: u64 = 0x20_0000;

/// A walk over the mappings of a range. All of it lies in memory that callbacks write, so that the verifier knows none of
/// the values and looks at one step instead of every possible walk.
#[repr(C)]
struct Walk {
    /// Where the next mapping must begin or go on.
    cursor: u64,
    /// End of the range.
    end: u64,
    /// Start of the first mapping.
    start: u64,
    /// All bits until the first mapping was met, then none.
    first: u64,
    /// Flags that all mappings have.
    all: u64,
    /// Flags that any has.
    any: u64,
    /// Of the last look.
    answer: i64,
    /// Mappings met.
    steps: u64,
    /// Bits of what mlock cannot fill with memory: [`CLASS_CLOSED`], [`CLASS_PAST_FILE`], [`CLASS_OF_FILES`].
    unfit: u64,
}

/// Called by `bpf_find_vma` under the mmap lock; the verifier knows the type of `vma`.
unsafe extern "C" fn found(_task: *mut c_void, vma: *const u8, walk: *mut Walk) -> i64 {
    // SAFETY: the verifier knows its type.
    let vma = unsafe { Typed::new(vma) };
    let start: u64 = vma.load(layout!(vma_start));
    let flags: u64 = vma.load(layout!(vma_flags));
    let end: u64 = vma.load(layout!(vma_end));
    let mut unfit = if flags & VM_ACCESS == 0 { CLASS_CLOSED } else { 0 };
    if layout!(kind.vma_file) != ABSENT {
        let file: u64 = vma.load(layout!(kind.vma_file));
        if file != 0 {
            unfit |= CLASS_OF_FILES;
            let shift = config!(page_shift) & 31;
            let pages: u64 = vma.load(layout!(kind.vma_pgoff));
            let size: u64 = kernel::read(kernel::read(file, layout!(kind.inode)), layout!(kind.size));
            // SAFETY: as below.
            let last = unsafe { if end < (*walk).end { end } else { (*walk).end } };
            if (pages << shift) + (last - start) > whole_pages(size) {
                unfit |= CLASS_PAST_FILE;
            }
        }
    }
    // SAFETY: the kernel passes what `find` passed: its caller's own live value.
    unsafe {
        (*walk).unfit |= unfit;
        (*walk).start |= start & (*walk).first;
        (*walk).first = 0;
        (*walk).cursor = end;
        (*walk).all &= flags;
        (*walk).any |= flags;
        (*walk).steps += 1;
    }
    0
}

/// Called by `bpf_loop`; 1 ends it.
unsafe extern "C" fn step(_index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: the kernel passes what `look_at_range` passed: its own live value.
    unsafe {
        (*walk).answer = find((*walk).cursor, walk);
        if (*walk).answer != 0 || (*walk).cursor >= (*walk).end { 1 } else { 0 }
    }
}

/// Class bits and the address of the first gap, 0 for none. `class`: what is known so far.
#[inline(always)]
pub fn look(id: call::Call, class: u64, lock_sequence: u32) -> (u64, u64) {
    let answer = look_at_range(u32::from(id), class, lock_sequence);
    ((answer & ((1 << BITS) - 1)) << SHIFT, answer >> BITS << 12)
}

// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at_range(id: u32, known: u64, lock_sequence: u32) -> u64 {
    let arguments = kernel::first_arguments(kernel::registers());
    let Some((from, length)) = range_of(id as call::Call, known, arguments) else { return 0 };
    let protection = arguments[2];
    let at = from & !(whole_pages(1) - 1);
    let end = whole_pages(from + length);
    let mut walk = MaybeUninit::<Walk>::uninit();
    let walk = walk.as_mut_ptr();
    // SAFETY: projects into `walk`, which outlives the call; a function of the prototype that the helper wants.
    unsafe {
        clear_words(walk.cast(), size_of::<Walk>() / 8);
        (*walk).cursor = at;
        (*walk).end = end;
        (*walk).first = u64::MAX;
        (*walk).all = u64::MAX;
        bpf_loop(STEPS, step as *mut c_void, walk.cast(), 0);
    }
    // Each member is read where it is needed: a copy of all would need the stack that the callbacks need.
    // SAFETY: a member of `walk`, written by the callbacks; volatile because the compiler does not see that.
    let now = |member: *const u64| unsafe { member.read_volatile() };
    // SAFETY: projects into `walk`; so below.
    let (answer, cursor, steps, start) = unsafe {
        (
            now((&raw const (*walk).answer).cast()),
            now(&raw const (*walk).cursor),
            now(&raw const (*walk).steps),
            now(&raw const (*walk).start),
        )
    };
    let mut class = walk_class(answer, steps, start.wrapping_sub(at), cursor, end);
    // SAFETY: as above.
    unsafe {
        class |= now(&raw const (*walk).unfit) & if_not_0(class);
        class = judge_range(id, protection, now(&raw const (*walk).all), now(&raw const (*walk).any), class);
    }
    if id == u32::from(call::MREMAP) && class != 0 && (cursor > end || find(end, walk) == 0) {
        class |= CLASS_DONE;
    }
    if class == 0 || !unchanged(lock_sequence) {
        return 0;
    }
    class >> SHIFT | if class & CLASS_GAP != 0 { cursor >> 12 << BITS } else { 0 }
}

/// All bits if it is not 0. Without a branch, of which the verifier would follow both ways.
#[inline(always)]
fn if_not_0(value: u64) -> u64 {
    ((value | value.wrapping_neg()) as i64 >> 63) as u64
}

/// The class bits that the walk over a range has shown; 0: it has not come to an end. `before`: where the first mapping
/// starts, from where the range does. Global: the verifier would else follow every combination to the end of the look.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_class(answer: u64, steps: u64, before: u64, cursor: u64, end: u64) -> u64 {
    let answer = answer as i64;
    let gap = answer == -ENOENT;
    if !gap && (answer != 0 || cursor < end) {
        return 0;
    }
    let mut class = CLASS_LOOKED;
    if gap {
        class |= CLASS_GAP;
    } else if cursor > end {
        class |= CLASS_CUT_END;
    }
    if steps > 0 && (before as i64) < 0 {
        class |= CLASS_CUT_START;
    }
    if gap && steps == 0 || !gap && steps == 1 {
        class |= CLASS_ONE;
    }
    class
}

/// The class bits of a range whose mappings have these flags, all and any of them; `found`: those known without them, with
/// those of what mlock cannot fill. 0: the range is not to be judged. Apart from the walk, whose callbacks need the stack.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_range(id: u32, protection: u64, all: u64, any: u64, found: u64) -> u64 {
    const UNFIT: u64 = CLASS_CLOSED | CLASS_PAST_FILE | CLASS_OF_FILES;
    let mut class = found & !UNFIT;
    if class == 0 {
        return 0;
    }
    match id as call::Call {
        call::MLOCK | call::MLOCK2 | call::MUNLOCK => {
            if any & VM_SPECIAL != 0 {
                return 0; // left alone (mm/mlock.c:mlock_fixup)
            }
            let done =
                if id == u32::from(call::MUNLOCK) { any & VM_LOCKED == 0 } else { all & VM_LOCKED != 0 };
            if done {
                class |= CLASS_DONE;
            }
            class |= found & UNFIT;
        }
        call::MPROTECT | call::PKEY_MPROTECT => {
            let wanted = protection & VM_PROTECTION;
            if id == u32::from(call::MPROTECT)
                && all & VM_PROTECTION == wanted
                && any & VM_PROTECTION == wanted
            {
                class |= CLASS_DONE;
            }
            // mm/mprotect.c:mprotect_fixup
            let becomes_writable = wanted & VM_WRITE != 0;
            if becomes_writable && any & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == 0 {
                class |= CLASS_COUNTS;
            }
            if becomes_writable && any & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE | VM_SPECIAL) == 0
            {
                class |= CLASS_CHARGED;
            }
        }
        call::MREMAP => {
            if any & VM_SPECIAL != 0 {
                return 0;
            }
            // mm/mmap.c:is_data_mapping
            if any & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE {
                class |= CLASS_COUNTS;
            }
            if any & VM_ACCOUNT != 0 {
                class |= CLASS_CHARGED;
            }
        }
        _ => {}
    }
    class
}

/// The range whose mappings decide about the cause: start and length.
#[inline(always)]
fn range_of(id: call::Call, class: u64, [a0, a1, a2, a3]: [u64; 4]) -> Option<(u64, u64)> {
    match id {
        call::MPROTECT
        | call::PKEY_MPROTECT
        | call::MLOCK
        | call::MLOCK2
        | call::MUNLOCK
        | call::MSEAL
        | call::MADVISE
        | call::REMAP_FILE_PAGES
        | call::MREMAP => Some((a0, a1)),
        call::MMAP if class & CLASS_FIXED != 0 => Some((a0, a1)),
        call::PRCTL => Some((a2, a3)),
        _ => None,
    }
}

/// Looks at the mapping at an address: 0, or a negative errno.
#[inline(always)]
fn find(at: u64, walk: *mut Walk) -> i64 {
    // SAFETY: a valid task, a function of the prototype that the helper wants, and a value that outlives the call.
    let answer =
        unsafe { bpf_find_vma(bpf_get_current_task_btf(), at, found as *mut c_void, walk.cast(), 0) };
    let answer = i64::from(answer as i32);
    // Another error means that the lock was not to be had.
    if answer == -ENOENT || answer == 0 {
        count_lock_takes(1);
    }
    answer
}

/// Nobody has written to the address space since the section with this number.
///
/// The number is raised when a section ends (include/linux/mmap_lock.h:vma_end_write_all; from 6.14 on when it begins
/// as well), after the event in which it was read.
#[inline(always)]
fn unchanged(lock_sequence: u32) -> bool {
    let mm = kernel::Current::task().mm();
    kernel::read::<u32>(mm, layout!(mm_lock_seq)) == lock_sequence.wrapping_add(1)
}
