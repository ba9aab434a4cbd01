//! The mappings that the stack of a refused call lies in.
//!
//! A process that ends right after its refusal (abort, exit) has no /proc/PID/maps left when user space hears of it, so
//! what the file would have said of the stack's addresses is read here: range, offset, and which file, by its path,
//! its inode and the time of the inode's last change. Once for each kind of refusal.
//!
//! Most code keeps no frame pointers, so the callers that a walk finds are few. Where the others lie, the words on top of
//! the stack tell: what looks like an address is looked up too.

use aya_ebpf::{
    helpers::generated::{
        bpf_find_vma, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_loop, bpf_probe_read_kernel,
        bpf_probe_read_kernel_str,
    },
    macros::map,
    maps::PerCpuArray,
};
use core::ffi::c_void;
use vmaudit_common::{
    MAPPING_EXECUTABLE, MAPPING_FILE, MAPPING_WHOLE_PATH, MAPPINGS, MappingRecord, NAME_BYTES, PATH_BYTES,
    RECORD_MAPPING, STACK_FRAMES,
};

use crate::{
    control::{clear_words, config, count_lock_takes, layout},
    failure::{
        stack::{Stack, WORDS},
        top::{self, TOP},
    },
    kernel::{self, Typed},
    records,
    slots::Slot,
};

const ENOENT: i64 = 2;
/// include/linux/mm.h, the same in 5.10 to 7.3.
const VM_EXEC: u64 = 0x4;
/// Looks that may find the lock taken for writing, all together; each is much shorter than a write section.
const BUSY: u32 = 64;
/// Of the words on top of the stack, so many looks at most.
const LOOKS: u64 = 64;
/// All words.
const ALL: u32 = (STACK_FRAMES + 1 + TOP) as u32;
/// Mappings that are remembered, reported or not.
const KNOWN: usize = 32;
/// User addresses lie between these: the first that may be mapped by others than root, and all of x86-64 and most of arm64.
const LOWEST: u64 = 4096;
const ADDRESS_BITS: u32 = 48;
/// Folders above a file, mounts included.
const FOLDERS: u32 = 48;
/// Steps down a tree of mappings: it is balanced, and there are no more than 2^31.
const TREE: u32 = 64;
const HEAD: usize = core::mem::offset_of!(MappingRecord, path);

/// What one report works on. Lies in a map, so that the verifier knows none of the values and looks at one step instead
/// of every possible walk; each CPU has its own, as in [`super::stack`].
#[repr(C)]
struct Work {
    record: MappingRecord,
    /// Index of the address space's slot.
    slot: u32,
    /// Number of the last word of the stack that is valid.
    last: u64,
    /// The next one to look at; behind the last one the words on top of the stack follow.
    index: u64,
    /// How many of these there are.
    words: u64,
    /// Looks at such words that may be had yet.
    looks: u64,
    /// Seen so far: first address and the one behind.
    known: [[u64; 2]; KNOWN],
    seen: u64,
    reported: u64,
    /// Answers of the lock's.
    takes: u64,
    /// Of the mapping: a `struct file`.
    file: u64,
    /// The way up from the file: a `struct vfsmount`, a `struct dentry`, and the bytes of path so far.
    mnt: u64,
    dentry: u64,
    at: u64,
}

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

const _: () = assert!(WORDS.is_power_of_two() && KNOWN.is_power_of_two());
const _: () = assert!(KNOWN > MAPPINGS);

/// Reports each mapping of code that the stack taken last, its caller or words on top of it lie in, once; `index` is the
/// address space's slot.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_mappings(index: u32) -> u64 {
    let Some(work) = begin(index, top::words_of_current()) else { return 0 };
    // SAFETY: points into the map; the helpers check the rest.
    unsafe {
        bpf_loop(ALL + BUSY, step as *mut c_void, core::ptr::null_mut(), 0);
        count_lock_takes((*work).takes);
    }
    0
}

/// The same for kernels without a helper that finds mappings and without one that loops (before 5.17), which keep mappings
/// in a tree that can be walked by address; `regs` are the saved registers. Nobody is kept from changing it meanwhile: a mapping counts that is one of this
/// address space and holds the address, be it one that went a moment ago.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_mappings_by_tree(index: u32, regs: u64) -> u64 {
    if begin(index, top::words_at(regs)).is_some() {
        for _ in 0..ALL {
            if step_by_tree() != 0 {
                break;
            }
        }
    }
    0
}

#[inline(always)]
fn begin(index: u32, words: u64) -> Option<*mut Work> {
    let (Some(work), Some(slot), Some(stack)) = (WORK.get_ptr_mut(0), Slot::at(index), Stack::last()) else {
        return None;
    };
    let taken = stack.bytes();
    if taken < 0 {
        return None;
    }
    // SAFETY: points into the map; the helpers check the rest.
    unsafe {
        (*work).words = words;
        (*work).looks = LOOKS;
        (*work).seen = 0;
        (*work).takes = 0;
        clear_words((&raw mut (*work).known).cast(), 2 * KNOWN);
        (*work).record.head = records::head(RECORD_MAPPING, bpf_ktime_get_ns(), slot.generation());
        (*work).slot = index;
        (*work).last = taken as u64 / 8;
        (*work).index = 0;
        (*work).reported = 0;
    }
    Some(work)
}

/// The address that is next to be looked at; `Err` says what becomes of the loop instead.
///
/// # Safety
/// `work` is the value of the map.
#[inline(always)]
unsafe fn next(work: *mut Work) -> Result<u64, i64> {
    let Some(stack) = Stack::last() else { return Err(1) };
    // SAFETY: points into the map; each index is masked.
    unsafe {
        let (index, last) = ((*work).index, (*work).last);
        let full = (*work).reported >= MAPPINGS as u64 || (*work).seen >= KNOWN as u64;
        if index > last + (*work).words || full || (*work).looks == 0 {
            return Err(1);
        }
        // Inside the instruction that it is behind.
        let at = word(stack, index, last).wrapping_sub(1);
        // By sign bits and not by branches, of which the verifier would follow each combination: an address is inside if
        // it is not below the start and below the end.
        let mut inside = 0;
        for n in 0..KNOWN {
            // Volatile, so that no more than one is held at a time: the frame must be small.
            let mapping = (&raw const (*work).known).cast::<[u64; 2]>().add(n);
            let start = (&raw const (*mapping)[0]).read_volatile();
            inside |= !at.wrapping_sub(start) & at.wrapping_sub((&raw const (*mapping)[1]).read_volatile());
        }
        let on_top = index > last;
        if inside >> 63 == 1 || on_top && (at < LOWEST || at >> ADDRESS_BITS != 0) {
            (*work).index = index + 1;
            return Err(0);
        }
        (*work).looks -= u64::from(on_top);
        Ok(at)
    }
}

/// Word number `index` of the stack that was taken, or behind its `last` one of those on top of it.
#[inline(always)]
fn word(stack: Stack, index: u64, last: u64) -> u64 {
    if index <= last {
        return stack.word(index);
    }
    top::word(index.wrapping_sub(last + 1))
}

/// Nothing is mapped there.
///
/// # Safety
/// As for [`next`]; so for the next.
#[inline(always)]
unsafe fn no_mapping(work: *mut Work, at: u64) {
    // SAFETY: points into the map.
    unsafe {
        (*work).record.start = at;
        (*work).record.end = at.wrapping_add(1);
        (*work).record.flags = 0;
        (*work).file = 0;
    }
}

/// The record holds the mapping of the address that was next. Says whether it is to be reported: of what words on top of the
/// stack lie in, code alone.
#[inline(always)]
unsafe fn remember(work: *mut Work) -> bool {
    // SAFETY: points into the map; the index is masked.
    unsafe {
        let on_top = (*work).index > (*work).last;
        (*work).index += 1;
        let mapped = (*work).record.end.wrapping_sub((*work).record.start) > 1;
        if on_top && !mapped {
            return false;
        }
        let n = (*work).seen as usize & (KNOWN - 1);
        let mapping = (&raw mut (*work).known).cast::<[u64; 2]>().add(n);
        (*mapping)[0] = (*work).record.start;
        (*mapping)[1] = (*work).record.end;
        (*work).seen += 1;
        if on_top && (*work).record.flags & MAPPING_EXECUTABLE == 0 {
            return false;
        }
        (*work).reported += 1;
    }
    true
}

/// Looks at one address; 1 ends it.
unsafe extern "C" fn step(_index: u32, _: *mut c_void) -> i64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: points into the map.
    unsafe {
        let at = match next(work) {
            Ok(at) => at,
            Err(answer) => return answer,
        };
        let answer =
            bpf_find_vma(bpf_get_current_task_btf(), at, found as *mut c_void, core::ptr::null_mut(), 0);
        let answer = i64::from(answer as i32);
        if answer == -ENOENT {
            no_mapping(work, at);
        } else if answer != 0 {
            // Somebody writes: this address again.
            return 0;
        }
        (*work).takes += 1;
        if remember(work) {
            report_mapping();
        }
    }
    0
}

/// The same by the tree.
// Global, as the next two: looked at once by the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_by_tree() -> u64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: points into the map.
    unsafe {
        let at = match next(work) {
            Ok(at) => at,
            Err(answer) => return answer as u64,
        };
        let mm = kernel::mm_of(kernel::current());
        (*work).dentry = peek(mm, layout!(file.mm_tree));
        no_mapping(work, at);
        for _ in 0..TREE {
            if descend(at, mm) != 0 {
                break;
            }
        }
        if remember(work) {
            report_mapping_by_steps();
        }
    }
    0
}

/// One step down the tree, whose node is kept where a way up begins later; 1 ends it (mm/mmap.c:find_vma, before 6.1).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn descend(at: u64, mm: u64) -> u64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: points into the map.
    unsafe {
        let node = (*work).dentry;
        if node == 0 {
            return 1;
        }
        let vma = node.wrapping_sub(u64::from(layout!(file.vma_node)));
        let (start, end): (u64, u64) = (peek(vma, layout!(vma_start)), peek(vma, layout!(vma_end)));
        if at >= end {
            (*work).dentry = peek(node, layout!(file.node_right));
            return 0;
        }
        if at < start {
            (*work).dentry = peek(node, layout!(file.node_left));
            return 0;
        }
        if peek::<u64>(vma, layout!(file.vma_mm)) == mm {
            let (flags, pages): (u64, u64) =
                (peek(vma, layout!(vma_flags)), peek(vma, layout!(file.vma_pgoff)));
            (*work).record.start = start;
            (*work).record.end = end;
            (*work).record.offset = pages << (config!(page_shift) & 31);
            (*work).record.flags = if flags & VM_EXEC != 0 { MAPPING_EXECUTABLE } else { 0 };
            (*work).file = peek(vma, layout!(file.vma_file));
        }
    }
    1
}

/// Called by `bpf_find_vma` under the mmap lock; the verifier knows the type of `vma`.
unsafe extern "C" fn found(_task: *mut c_void, vma: *const u8, _: *mut c_void) -> i64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
    // SAFETY: the verifier knows its type.
    let vma = unsafe { Typed::new(vma) };
    let flags: u64 = vma.load(layout!(vma_flags));
    let pages: u64 = vma.load(layout!(file.vma_pgoff));
    let file: u64 = vma.load(layout!(file.vma_file));
    let executable = if flags & VM_EXEC != 0 { MAPPING_EXECUTABLE } else { 0 };
    // SAFETY: points into the map.
    unsafe {
        (*work).record.start = vma.load(layout!(vma_start));
        (*work).record.end = vma.load(layout!(vma_end));
        (*work).record.offset = pages << (config!(page_shift) & 31);
        (*work).record.flags = executable;
        (*work).file = file;
    }
    0
}

/// Reports the mapping that was found last. The lock was let go, but what is read of the file stays memory of its kind until
/// the program ends (RCU), and user space believes only a path that leads to the inode in the record.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_mapping() -> u64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map.
    unsafe {
        if of_file(work) {
            bpf_loop(FOLDERS, climb as *mut c_void, core::ptr::null_mut(), 0);
        }
        send(work)
    }
}

/// The same without a helper that loops.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_mapping_by_steps() -> u64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map.
    unsafe {
        if of_file(work) {
            for _ in 0..FOLDERS {
                if climb_once() != 0 {
                    break;
                }
            }
        }
        send(work)
    }
}

/// The mapping is code of a file, whose path is to be found.
///
/// # Safety
/// As for [`next`]; so for the next.
#[inline(always)]
unsafe fn of_file(work: *mut Work) -> bool {
    // SAFETY: points into the map.
    unsafe {
        (*work).at = 0;
        let file = (*work).file;
        if file == 0 || (*work).record.flags & MAPPING_EXECUTABLE == 0 {
            return false;
        }
        (*work).record.flags |= MAPPING_FILE;
        let inode: u64 = peek(file, layout!(file.inode));
        (*work).record.inode = peek(inode, layout!(file.inode_number));
        (*work).record.changed_s = peek::<u64>(inode, layout!(file.inode_changed_s)) as i64;
        (*work).record.changed_ns = peek(inode, layout!(file.inode_changed_ns));
        (*work).mnt = peek(file, layout!(file.mnt));
        (*work).dentry = peek(file, layout!(file.dentry));
    }
    true
}

#[inline(always)]
unsafe fn send(work: *mut Work) -> u64 {
    // SAFETY: points into the map; the length is masked and stays below that of the record.
    unsafe {
        let bytes = core::ptr::read_volatile(&raw const (*work).at) as usize & (2 * PATH_BYTES - 1);
        if bytes > PATH_BYTES + NAME_BYTES {
            return 0;
        }
        (*work).record.path_bytes = bytes as u32;
        let record = core::slice::from_raw_parts((&raw const (*work).record).cast::<u8>(), HEAD + bytes);
        if let Some(slot) = Slot::at((*work).slot) {
            records::mapping(slot, record);
        }
    }
    0
}

/// One step from a file towards the root; 1 ends it.
unsafe extern "C" fn climb(_index: u32, _: *mut c_void) -> i64 {
    up() as i64
}

/// The same for whoever has no helper that loops.
// Global: looked at once by the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn climb_once() -> u64 {
    up()
}

/// See [`climb`].
#[inline(always)]
fn up() -> u64 {
    let Some(work) = WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: points into the map; a name begins below PATH_BYTES and has NAME_BYTES room.
    unsafe {
        let (mnt, dentry, at) = ((*work).mnt, (*work).dentry, (*work).at);
        if dentry == peek::<u64>(mnt, layout!(file.mnt_root)) {
            let mount = mnt.wrapping_sub(u64::from(layout!(file.mount_mnt)));
            let parent: u64 = peek(mount, layout!(file.mount_parent));
            if parent == mount {
                (*work).record.flags |= MAPPING_WHOLE_PATH;
                return 1;
            }
            (*work).dentry = peek(mount, layout!(file.mount_mountpoint));
            (*work).mnt = parent.wrapping_add(u64::from(layout!(file.mount_mnt)));
            return 0;
        }
        if at >= PATH_BYTES as u64 {
            return 1;
        }
        let name: u64 = peek(dentry, layout!(file.dentry_name));
        let into = (&raw mut (*work).record.path).cast::<u8>().add(at as usize & (PATH_BYTES - 1));
        let length = bpf_probe_read_kernel_str(into.cast(), NAME_BYTES as u32, name as *const c_void);
        if length <= 0 {
            return 1;
        }
        (*work).at = at + length as u64;
        let parent: u64 = peek(dentry, layout!(file.dentry_parent));
        if parent == dentry {
            // A file without a folder, as memfd_create makes.
            (*work).record.flags |= MAPPING_WHOLE_PATH;
            return 1;
        }
        (*work).dentry = parent;
    }
    0
}

/// As [`crate::kernel::read`], but 0 that is not counted: what was unmapped meanwhile is no loss.
#[inline(always)]
fn peek<T: Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the address itself, never faults, and writes zeroes when it fails.
    unsafe {
        let size = size_of::<T>() as u32;
        bpf_probe_read_kernel((&raw mut value).cast(), size, (base + u64::from(offset)) as *const c_void);
    }
    value
}
