//! The evidence of a refused call: what it asked for, what the kernel showed during the call, which limits it exceeds,
//! and what lies in its range.

use aya_ebpf::helpers::{
    bpf_probe_read_kernel, bpf_probe_read_user,
    generated::{bpf_get_current_task_btf, bpf_get_stack, bpf_get_task_stack, bpf_ktime_get_ns},
};
use vmaudit_common::{
    ABSENT, CLASS_GROWS, CLASS_HEAP_REACHED, CLASS_LIMIT_POLLED, CLASS_MC1_SHIFT, CLASS_NO_HOLE,
    CLASS_OVER_AS, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK, CLASS_OVERCOMMIT_REFUSED, CLASS_SEARCH_LOST,
    CLASS_SEARCHED, CLASS_SECTION, CLASS_SECTION_LOST, Control, EXAMPLES_PER_GROUP, FailureRecord, GroupKey,
    MmSlot, PROBE_HEAP_REACHED, PROBE_OVERCOMMIT_REFUSED, RECORD_FAILURE, RecordHeader, SECTIONS,
    STACK_FRAMES, Section,
    call::{self, Call},
    relative_to_max,
};

use crate::{
    areas,
    booking::{self, Kept},
    kernel::{self, whole_pages},
    look,
    maps::{self, RECORDS, SECTION_OF_TASK, SLOTS, config, layout, lost},
};

const RLIMIT_DATA: u32 = 2;
const RLIMIT_STACK: u32 = 3;
const RLIMIT_MEMLOCK: u32 = 8;
const RLIMIT_AS: u32 = 9;
pub const BPF_F_USER_STACK: u64 = 1 << 8;

/// A refused call.
pub struct Refused {
    /// Which.
    pub id: Call,
    /// The errno that it was refused with.
    pub errno: u8,
    /// Its answer.
    pub ret: u64,
    /// Saved registers.
    pub regs: u64,
    /// Who made it.
    pub task: u64,
}

/// The parts of an examination that exist in two manners.
trait Manner {
    /// What the call asks for, as class bits.
    fn request(&self, it: &Refused) -> u32;
    /// Limits that it exceeds, as class bits.
    fn exceeded(&self, it: &Refused, section: &Section) -> u32;
    /// What lies in its range: class bits, and the address of the first gap.
    fn range(&self, it: &Refused, class: u32, lock_sequence: u32) -> (u32, u64);
    /// Counts it; says how many of the kind there were before.
    fn book(&self, it: &Refused, key: u64, now: u64) -> u64;
    /// Takes the user stack: bytes, or a negative errno.
    fn stack(&self, into: *mut u8, size: u32) -> i64;
    /// Tells the mappings that it lies in.
    fn areas(&self);
}

/// Each part is a global function of numbers: the verifier looks at it once, without what its callers know. Holds the
/// index of the address space's slot.
struct Apart(u32);

impl Manner for Apart {
    #[inline(always)]
    fn request(&self, it: &Refused) -> u32 {
        refused_request(u32::from(it.id), it.ret) as u32
    }

    #[inline(always)]
    fn exceeded(&self, it: &Refused, section: &Section) -> u32 {
        let Section { total_vm, data_vm, locked_vm, .. } = *section;
        refused_exceeded(u32::from(it.id), it.ret, total_vm, data_vm, locked_vm) as u32
    }

    #[inline(always)]
    fn range(&self, it: &Refused, class: u32, lock_sequence: u32) -> (u32, u64) {
        // Without the kernel's count of write sections nothing would prove that the look holds.
        if layout!(mm_lock_seq) == ABSENT {
            return (0, 0);
        }
        look::range(it.id, class, lock_sequence)
    }

    #[inline(always)]
    fn book(&self, it: &Refused, key: u64, now: u64) -> u64 {
        refused_book(self.0, key, now, u32::from(it.id), it.ret)
    }

    #[inline(always)]
    fn stack(&self, into: *mut u8, size: u32) -> i64 {
        // SAFETY: a valid task; the helper checks the rest.
        unsafe { bpf_get_task_stack(bpf_get_current_task_btf(), into.cast(), size, BPF_F_USER_STACK) }
    }

    #[inline(always)]
    fn areas(&self) {
        if layout!(file.vma_file) != ABSENT {
            areas::refused_areas(self.0);
        }
    }
}

/// For `fallback`: no looks, no task known by type, so that what needs one is in the program itself. Holds the program's
/// context and the slot's index.
struct Plain(*mut core::ffi::c_void, u32);

impl Manner for Plain {
    #[inline(always)]
    fn request(&self, it: &Refused) -> u32 {
        request(it)
    }

    #[inline(always)]
    fn exceeded(&self, it: &Refused, section: &Section) -> u32 {
        exceeded(it, section.total_vm, section.data_vm, section.locked_vm)
    }

    #[inline(always)]
    fn range(&self, _: &Refused, _: u32, _: u32) -> (u32, u64) {
        (0, 0)
    }

    #[inline(always)]
    fn book(&self, it: &Refused, key: u64, now: u64) -> u64 {
        let Kept { bytes, mark } = booking::kept(it);
        refused_book_plainly(self.1, key, now, bytes, mark)
    }

    #[inline(always)]
    fn stack(&self, into: *mut u8, size: u32) -> i64 {
        // SAFETY: the program's own context; the helper checks the rest.
        i64::from(unsafe { bpf_get_stack(self.0, into.cast(), size, BPF_F_USER_STACK) } as i32)
    }

    #[inline(always)]
    fn areas(&self) {}
}

/// The refused call of `current` that this is about.
#[inline(always)]
fn of_current(id: u32, errno: u32, ret: u64) -> Refused {
    Refused {
        id: id as Call,
        errno: errno as u8,
        ret,
        regs: kernel::registers(),
        task: kernel::Current::task().address(),
    }
}

/// A call of `current` was refused: `index` is the slot of its address space.
// SAFETY: no other symbol of the object has this name; so for those that follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refused(index: u32, id: u32, errno: u32, ret: u64) -> u64 {
    if let Some(slot) = SLOTS.get_ptr_mut(index) {
        examine(slot, &of_current(id, errno, ret), &Apart(index));
    }
    0
}

/// See [`Manner::request`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refused_request(id: u32, ret: u64) -> u64 {
    u64::from(request(&of_current(id, 0, ret)))
}

/// See [`Manner::exceeded`]; pages.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refused_exceeded(id: u32, ret: u64, total_vm: u64, data_vm: u64, locked_vm: u64) -> u64 {
    u64::from(exceeded(&of_current(id, 0, ret), total_vm, data_vm, locked_vm))
}

/// See [`Manner::book`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refused_book(index: u32, key: u64, now: u64, id: u32, ret: u64) -> u64 {
    match SLOTS.get_ptr_mut(index) {
        Some(slot) => booking::book::<false>(slot, key, now, booking::kept(&of_current(id, 0, ret))),
        None => EXAMPLES_PER_GROUP,
    }
}

/// As [`refused_book`], without compare-and-swap.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refused_book_plainly(index: u32, key: u64, now: u64, bytes: u64, mark: u64) -> u64 {
    match SLOTS.get_ptr_mut(index) {
        Some(slot) => booking::book::<true>(slot, key, now, Kept { bytes, mark }),
        None => EXAMPLES_PER_GROUP,
    }
}

/// As [`refused`], for the programs of `fallback`.
#[inline(always)]
pub fn refused_plainly(ctx: *mut core::ffi::c_void, index: u32, slot: *mut MmSlot, it: &Refused) {
    examine(slot, it, &Plain(ctx, index));
}

/// vm.max_map_count now, or as user space last saw it; and the class bit that tells which.
#[inline(always)]
fn limit(control: *mut Control) -> (u32, u32) {
    let at = config!(max_map_count_at);
    if at != 0 {
        // SAFETY: the helper checks the address itself and never faults.
        match unsafe { bpf_probe_read_kernel(at as *const u32) } {
            Ok(limit) => return (limit, 0),
            Err(_) => lost!(read_failed),
        }
    }
    // SAFETY: points at the shared page; user space writes the whole word.
    (unsafe { core::ptr::read_volatile(&raw const (*control).max_map_count) }, CLASS_LIMIT_POLLED)
}

#[inline(always)]
fn examine(slot: *mut MmSlot, it: &Refused, parts: &impl Manner) {
    let Refused { id, errno, ret, regs, task } = *it;
    let Some(control) = maps::control() else { return };
    let zero = maps::unknown_zero(control);
    let (max, mut class) = limit(control);
    let (tgid, tid) = kernel::ids();
    let mut evidence = Section::default();
    if let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) {
        // SAFETY: points into the map; the copy is checked below.
        let seen = unsafe { core::ptr::read_volatile(section) };
        if seen.searcher == tid {
            if seen.searched != 0 {
                class |= CLASS_SEARCHED;
            }
            // An address is never this large: the kernel's half of the address space is out of reach.
            if (seen.searched as i64) < 0 {
                class |= CLASS_NO_HOLE;
            }
        } else if seen.searcher != 0 && searches(id) {
            class |= CLASS_SEARCH_LOST;
            lost!(section_lost);
        }
        if seen.prober == tid && seen.probed_call == u32::from(id) {
            if seen.probes & PROBE_OVERCOMMIT_REFUSED != 0 {
                class |= CLASS_OVERCOMMIT_REFUSED;
            }
            if seen.probes & PROBE_HEAP_REACHED != 0 && id == call::BRK {
                class |= CLASS_HEAP_REACHED;
            }
        }
        if seen.tid == tid && seen.call == u32::from(id) {
            class |= CLASS_SECTION
                | relative_to_max(seen.mc0, max)
                | relative_to_max(seen.mc1, max) << CLASS_MC1_SHIFT;
            evidence = seen;
        } else if seen.tid != 0 && seen.tid != tid {
            class |= CLASS_SECTION_LOST;
            lost!(section_lost);
        }
    }
    class ^= zero;
    class |= parts.request(it);
    let mut hole = 0;
    if class & CLASS_SECTION != 0 {
        class |= parts.exceeded(it, &evidence);
        let (bits, first) = parts.range(it, class, evidence.lock_sequence);
        class |= bits;
        hole = first;
    }
    class ^= zero;
    if class & CLASS_SEARCHED == 0 {
        evidence.searched = 0;
    }
    // SAFETY: `slot` points into SLOTS and the index is below CALL_COUNT.
    if let Some(index) = crate::map_count::call_index(id) {
        maps::add(
            unsafe {
                &raw mut (*(&raw mut (*slot).calls).cast::<vmaudit_common::CallStat>().add(index)).failed
            },
            1,
        );
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let before = parts.book(it, GroupKey { call: id, errno, class }.pack(), now);
    if before >= EXAMPLES_PER_GROUP && config!(stream_failures) == 0 {
        return;
    }
    // Names are looked up for the first stack of a kind.
    if before == 0 && config!(failure_stacks) != 0 {
        parts.areas();
    }
    let Some(mut entry) = RECORDS.reserve::<FailureRecord>(0) else {
        lost!(ring_full);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points at reserved memory of this size; every field is written before it is submitted.
    unsafe {
        (*record).head = RecordHeader {
            kind: RECORD_FAILURE,
            tgid,
            tid,
            reserved: 0,
            at_ns: now,
            generation: (*slot).generation,
        };
        (*record).call = u32::from(id);
        (*record).errno = u32::from(errno);
        (*record).class = class;
        (*record).max_map_count = max;
        (*record).ret = ret as i64;
        (*record).args = kernel::arguments(regs);
        (*record).section = evidence;
        (*record).rlimits = [
            kernel::rlimit(task, RLIMIT_AS),
            kernel::rlimit(task, RLIMIT_DATA),
            kernel::rlimit(task, RLIMIT_MEMLOCK),
            kernel::rlimit(task, RLIMIT_STACK),
        ];
        (*record).start_brk = kernel::start_brk(task);
        (*record).hole = hole;
        (*record).comm = kernel::comm_of(task);
        (*record).stack_bytes = 0;
        (*record).caller = 0;
        if config!(failure_stacks) != 0 {
            (*record).caller = caller(regs);
            let taken = parts.stack((&raw mut (*record).stack).cast(), (STACK_FRAMES * 8) as u32);
            if taken < 0 {
                lost!(stack_missing);
            }
            (*record).stack_bytes = taken;
        }
    }
    entry.submit(0);
}

/// Return address of the function that holds the system call instruction, if it has no frame.
#[inline(always)]
pub fn caller(regs: u64) -> u64 {
    if layout!(regs_lr) != ABSENT {
        return kernel::read(regs, layout!(regs_lr));
    }
    let sp: u64 = kernel::read(regs, layout!(regs_sp));
    // SAFETY: the helper checks the address itself and never faults.
    unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or(0)
}

/// What the call asks for.
#[inline(always)]
fn request(it: &Refused) -> u32 {
    let [a0, a1, a2, a3] = kernel::first_arguments(it.regs);
    let grows = match it.id {
        call::MREMAP => a2 > a1,
        call::BRK => a0 > it.ret,
        _ => false,
    };
    vmaudit_common::asked_for(it.id, a2, a3) | if grows { CLASS_GROWS } else { 0 }
}

/// Pages by which the call would have made the address space (mlock: its locked part) larger.
#[inline(always)]
fn asked_pages(it: &Refused) -> u64 {
    let [a0, a1, a2, _] = kernel::first_arguments(it.regs);
    let shift = config!(page_shift) & 31;
    match it.id {
        call::MREMAP if a2 > a1 => (whole_pages(a2) - whole_pages(a1)) >> shift,
        call::MREMAP => 0,
        call::BRK if a0 > it.ret => (whole_pages(a0) - whole_pages(it.ret)) >> shift,
        call::BRK => 0,
        _ => whole_pages(a1) >> shift,
    }
}

/// Which of the process's limits the request exceeds, by the kernel's own formulas (mm/mmap.c:may_expand_vm,
/// mm/mlock.c:do_mlock), on the figures (pages) of the lock section in which it was refused. Whether the kernel asks that
/// question for this kind of request is the diagnosis's to know.
#[inline(always)]
fn exceeded(it: &Refused, total_vm: u64, data_vm: u64, locked_vm: u64) -> u32 {
    let pages = asked_pages(it);
    let shift = config!(page_shift) & 31;
    let mut class = 0;
    if total_vm + pages > kernel::rlimit(it.task, RLIMIT_AS) >> shift {
        class |= CLASS_OVER_AS;
    }
    if data_vm + pages > kernel::rlimit(it.task, RLIMIT_DATA) >> shift {
        class |= CLASS_OVER_DATA;
    }
    let limit = kernel::rlimit(it.task, RLIMIT_MEMLOCK) >> shift;
    let locked = if it.id == call::MLOCKALL { total_vm } else { locked_vm + pages };
    if locked > limit && !kernel::may_lock_any(it.task) {
        class |= CLASS_OVER_MEMLOCK;
    }
    class
}

/// Calls that may look for a free range.
#[inline(always)]
fn searches(id: Call) -> bool {
    matches!(id, call::MMAP | call::MREMAP | call::SHMAT | call::IO_SETUP | call::MAP_SHADOW_STACK)
}
