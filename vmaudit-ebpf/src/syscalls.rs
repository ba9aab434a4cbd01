//! Exits of watched calls: how many there were, which were refused, and the evidence of a refusal.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{bpf_get_stack, bpf_ktime_get_ns},
    },
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use vmaudit_common::{
    ABSENT, CLASS_FIXED, CLASS_GROWS, CLASS_HEAP_REACHED, CLASS_LIMIT_POLLED, CLASS_MC1_SHIFT, CLASS_NO_HOLE,
    CLASS_OVER_AS, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK, CLASS_OVERCOMMIT_REFUSED, CLASS_SEARCH_LOST,
    CLASS_SEARCHED, CLASS_SECTION, CLASS_SECTION_LOST, Control, EXAMPLES_PER_GROUP, FailureGroup,
    FailureRecord, GROUPS, GroupKey, MmSlot, PROBE_HEAP_REACHED, PROBE_OVERCOMMIT_REFUSED, RECORD_FAILURE,
    RecordHeader, SECTIONS, STACK_FRAMES, Section,
    call::{self, CALL_COUNT, CALLS, Call, Refusal},
    relative_to_max,
};

use crate::{
    kernel, look,
    map_count::call_index,
    maps::{self, RECORDS, SECTION_OF_TASK, SLOTS, config, layout, lost},
};

const ENOMEM: i64 = 12;
const EAGAIN: i64 = 11;
const PR_SET_VMA: u64 = 0x5356_4d41;
/// Type byte of userfaultfd's ioctls (include/uapi/linux/userfaultfd.h:UFFDIO).
const UFFDIO: u64 = 0xaa;
const RLIMIT_DATA: u32 = 2;
const RLIMIT_STACK: u32 = 3;
const RLIMIT_MEMLOCK: u32 = 8;
const RLIMIT_AS: u32 = 9;

/// [`CALLS`]' refusals alone, so that no names travel into the object.
static REFUSALS: [u8; CALL_COUNT] = {
    let mut refusals = [0; CALL_COUNT];
    let mut id = 0;
    while id < CALL_COUNT {
        refusals[id] = CALLS[id].refusal as u8;
        id += 1;
    }
    refusals
};

/// match-proto: sys_exit(struct pt_regs *regs, long ret)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_raw(ctx: RawTracePointContext) -> i32 {
    // This runs at every system call of the machine: the number comes by plain loads, not by a reading helper.
    let id = kernel::call_by_number(u64::from(kernel::Current::task().call_number()));
    if id >= call::FIRST_REAL {
        returned::<true>(ctx.as_ptr(), id, ctx.arg::<u64>(1) as i64, ctx.arg(0));
    }
    0
}

/// As [`sys_exit_raw`], without looks at the ranges of refused calls, for kernels whose verifier does not get through
/// these.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_raw_plain(ctx: RawTracePointContext) -> i32 {
    let id = kernel::call_by_number(u64::from(kernel::Current::task().call_number()));
    if id >= call::FIRST_REAL {
        returned::<false>(ctx.as_ptr(), id, ctx.arg::<u64>(1) as i64, ctx.arg(0));
    }
    0
}

/// As [`sys_exit_classic`], without looks.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
pub fn sys_exit_classic_plain(ctx: TracePointContext) -> u32 {
    // SAFETY: as in `sys_exit_classic`.
    let (number, ret) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<i64>(16)) };
    let id = kernel::call_by_number(number.unwrap_or(u64::MAX));
    if id >= call::FIRST_REAL {
        returned::<false>(ctx.as_ptr(), id, ret.unwrap_or(0), kernel::registers());
    }
    0
}

/// Record: id at 8, ret at 16.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
pub fn sys_exit_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offsets inside the record (include/trace/events/syscalls.h, ABI in practice since 2.6.33).
    let (number, ret) = unsafe { (ctx.read_at::<u64>(8), ctx.read_at::<i64>(16)) };
    let id = kernel::call_by_number(number.unwrap_or(u64::MAX));
    if id >= call::FIRST_REAL {
        returned::<true>(ctx.as_ptr(), id, ret.unwrap_or(0), kernel::registers());
    }
    0
}

/// Inlined: verifiers before 6.5 cannot follow a number from a function to its caller and then track all numbers exactly
/// (kernel/bpf/verifier.c:backtrack_insn, mark_all_scalars_precise), which makes loading several times slower.
#[inline(always)]
fn returned<const LOOK: bool>(ctx: *mut core::ffi::c_void, id: Call, ret: i64, regs: u64) {
    let current = kernel::Current::task();
    let tid = current.tid();
    let section = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1));
    judge::<LOOK>(ctx, id, ret, regs, current, section);
    consume(section, tid);
}

/// The call is over.
#[inline(always)]
pub fn consume(section: Option<*mut Section>, tid: u32) {
    if let Some(section) = section {
        // What was kept belongs to this call only: the next one must not find it.
        // SAFETY: points into the map.
        unsafe {
            if (*section).tid == tid {
                (*section).call = u32::from(call::OTHER);
            }
            if (*section).searcher == tid {
                (*section).searched = 0;
            }
            if (*section).prober == tid {
                (*section).prober = 0;
            }
        }
    }
}

#[inline(always)]
fn judge<const LOOK: bool>(
    ctx: *mut core::ffi::c_void,
    id: Call,
    ret: i64,
    regs: u64,
    current: kernel::Current,
    section: Option<*mut Section>,
) {
    let tid = current.tid();
    // The lock section of this very call knows the slot; only calls without one have to look for it.
    let known = section.and_then(|section| {
        // SAFETY: points into the map; the entry is this task's own, and it is in no other call.
        let (owner, call, slot) = unsafe { ((*section).tid, (*section).call, (*section).slot) };
        if owner == tid && call == u32::from(id) { Some(slot) } else { None }
    });
    let Some(slot) = known.or_else(|| maps::index_of(current.mm())).and_then(|slot| SLOTS.get_ptr_mut(slot))
    else {
        return;
    };
    let made = Made { id, ret, regs, task: current.address(), compat: current.in_compat_call() };
    answered::<LOOK, false>(ctx, slot, &made, section);
}

/// A call that has returned.
pub struct Made {
    /// Which.
    pub id: Call,
    /// Its answer.
    pub ret: i64,
    /// Saved registers.
    pub regs: u64,
    /// Who made it.
    pub task: u64,
    /// Through the 32-bit entry.
    pub compat: bool,
}

/// Counts a call and its refusal. `PLAIN`: for kernels whose programs have no compare-and-swap.
#[inline(always)]
pub fn answered<const LOOK: bool, const PLAIN: bool>(
    ctx: *mut core::ffi::c_void,
    slot: *mut MmSlot,
    made: &Made,
    section: Option<*mut Section>,
) {
    let Made { id, ret, regs, task, compat } = *made;
    if compat {
        count(slot, call::COMPAT);
        return;
    }
    if ret == 0 && matches!(id, call::CLONE | call::CLONE3 | call::FORK | call::VFORK) {
        return; // the child's side of the call
    }
    if id == call::IOCTL && argument(regs, 1) >> 8 & 0xff != UFFDIO {
        return;
    }
    count(slot, id);
    if let Some(errno) = refusal(id, ret, regs, task) {
        refused::<LOOK, PLAIN>(ctx, slot, id, ret, errno, regs, task, section);
    } else if call::DOWNGRADING >> (id & 63) & 1 == 1 {
        given_back::<PLAIN>(slot, id, ret, regs);
    }
}

/// A task is gone: its entry in the table of lock sections speaks for nobody.
#[inline(always)]
pub fn forget(tid: u32) {
    if config!(calls) == 0 {
        return;
    }
    if let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) {
        // SAFETY: points into the map.
        unsafe {
            if (*section).tid == tid {
                (*section).tid = 0;
            }
            if (*section).searcher == tid {
                (*section).searcher = 0;
            }
            if (*section).prober == tid {
                (*section).prober = 0;
            }
        }
    }
}

#[inline(always)]
fn count(slot: *mut MmSlot, id: Call) {
    if let Some(index) = call_index(id) {
        // SAFETY: `index` is below CALL_COUNT.
        maps::add(
            unsafe {
                &raw mut (*(&raw mut (*slot).calls).cast::<vmaudit_common::CallStat>().add(index)).calls
            },
            1,
        );
    }
}

#[inline(always)]
fn argument(regs: u64, n: usize) -> u64 {
    kernel::read(regs, layout!(regs_args[n]))
}

/// The errno of a refusal for lack of memory or of a limit; `None` for success and for other errors.
#[inline(always)]
pub fn refusal(id: Call, ret: i64, regs: u64, task: u64) -> Option<u8> {
    let rule = REFUSALS[call_index(id)?];
    if rule == Refusal::Brk as u8 {
        return brk_refused(ret, regs, task);
    }
    let errno = -ret;
    let hit = (errno == ENOMEM && rule != Refusal::Never as u8)
        || (errno == EAGAIN && rule == Refusal::EnomemEagain as u8);
    if !hit || (id == call::PRCTL && argument(regs, 0) != PR_SET_VMA) {
        return None;
    }
    Some(errno as u8)
}

/// brk answers with the break it leaves behind; asking for another one and not getting it is the refusal. A request
/// below the start of the heap, brk(0) above all, is a question (mm/mmap.c:brk).
#[inline(always)]
fn brk_refused(ret: i64, regs: u64, task: u64) -> Option<u8> {
    let asked = argument(regs, 0);
    if ret < 0 || asked == ret as u64 || asked < start_brk(task) {
        return None;
    }
    Some(ENOMEM as u8)
}

#[inline(always)]
fn start_brk(task: u64) -> u64 {
    kernel::read(kernel::mm_of(task), layout!(mm_start_brk))
}

/// Calls that may look for a free range.
#[inline(always)]
fn searches(id: Call) -> bool {
    matches!(id, call::MMAP | call::MREMAP | call::SHMAT | call::IO_SETUP | call::MAP_SHADOW_STACK)
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
#[expect(clippy::too_many_arguments, reason = "all in registers: the function exists once, inlined")]
fn refused<const LOOK: bool, const PLAIN: bool>(
    ctx: *mut core::ffi::c_void,
    slot: *mut MmSlot,
    id: Call,
    ret: i64,
    errno: u8,
    regs: u64,
    task: u64,
    section: Option<*mut Section>,
) {
    let Some(control) = maps::control() else { return };
    let zero = maps::unknown_zero(control);
    let (max, mut class) = limit(control);
    let (tgid, tid) = kernel::ids();
    let mut evidence = Section::default();
    if let Some(section) = section {
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
    let (a0, a1, a2, a3) = (argument(regs, 0), argument(regs, 1), argument(regs, 2), argument(regs, 3));
    if id == call::MREMAP && a2 > a1 {
        class |= CLASS_GROWS;
    }
    if id == call::BRK && a0 > ret as u64 {
        class |= CLASS_GROWS;
    }
    class ^= zero;
    if class & CLASS_SECTION != 0 {
        class |= over_limits(id, &evidence, task, asked_pages(id, ret as u64, a0, a1, a2));
    }
    class ^= zero;
    class |= vmaudit_common::asked_for(id, a2, a3);
    class ^= zero;
    let mut hole = 0;
    // Without the kernel's count of write sections nothing would prove that the look holds. (Verifiers of such kernels,
    // before 6.4, do not get through it either.)
    if LOOK
        && layout!(mm_lock_seq) != ABSENT
        && class & CLASS_SECTION != 0
        && let Some((from, length)) = range_of(id, class, a0, a1, a2, a3)
    {
        let page = whole_pages(1);
        let (bits, first) =
            look::range(id, from & !(page - 1), whole_pages(from + length), a2, evidence.lock_sequence);
        class |= bits;
        hole = first;
    }
    if class & CLASS_SEARCHED == 0 {
        evidence.searched = 0;
    }
    let kept = kept(id, ret as u64, a0, a1, a2);
    // SAFETY: `slot` points into SLOTS and the index is below CALL_COUNT.
    if let Some(index) = call_index(id) {
        maps::add(
            unsafe {
                &raw mut (*(&raw mut (*slot).calls).cast::<vmaudit_common::CallStat>().add(index)).failed
            },
            1,
        );
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let before = book::<PLAIN>(slot, GroupKey { call: id, errno, class }.pack(), now, kept, zero);
    if before >= EXAMPLES_PER_GROUP && config!(stream_failures) == 0 {
        return;
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
        (*record).ret = ret;
        (*record).args = [a0, a1, a2, a3, argument(regs, 4), argument(regs, 5)];
        (*record).section = evidence;
        (*record).rlimits = [
            kernel::rlimit(task, RLIMIT_AS),
            kernel::rlimit(task, RLIMIT_DATA),
            kernel::rlimit(task, RLIMIT_MEMLOCK),
            kernel::rlimit(task, RLIMIT_STACK),
        ];
        (*record).start_brk = start_brk(task);
        (*record).hole = hole;
        (*record).comm = kernel::comm_of(task);
        (*record).stack_bytes = 0;
        (*record).caller = 0;
        if config!(failure_stacks) != 0 {
            (*record).caller = caller(regs);
            let taken = bpf_get_stack(
                ctx,
                (&raw mut (*record).stack).cast(),
                (STACK_FRAMES * 8) as u32,
                BPF_F_USER_STACK,
            );
            if taken < 0 {
                lost!(stack_missing);
            }
            (*record).stack_bytes = taken as i64;
        }
    }
    entry.submit(0);
}

/// The range whose mappings decide about the cause: start and length.
#[inline(always)]
fn range_of(id: Call, class: u32, a0: u64, a1: u64, a2: u64, a3: u64) -> Option<(u64, u64)> {
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

/// Return address of the function that holds the system call instruction, if it has no frame.
#[inline(always)]
fn caller(regs: u64) -> u64 {
    if layout!(regs_lr) != ABSENT {
        return kernel::read(regs, layout!(regs_lr));
    }
    let sp: u64 = kernel::read(regs, layout!(regs_sp));
    // SAFETY: the helper checks the address itself and never faults.
    unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or(0)
}

/// Pages by which the call would have made the address space (mlock: its locked part) larger.
#[inline(always)]
fn asked_pages(id: Call, ret: u64, a0: u64, a1: u64, a2: u64) -> u64 {
    let shift = config!(page_shift) & 31;
    match id {
        call::MREMAP if a2 > a1 => (whole_pages(a2) - whole_pages(a1)) >> shift,
        call::MREMAP => 0,
        call::BRK if a0 > ret => (whole_pages(a0) - whole_pages(ret)) >> shift,
        call::BRK => 0,
        _ => whole_pages(a1) >> shift,
    }
}

/// Which of the process's limits the request exceeds, by the kernel's own formulas (mm/mmap.c:may_expand_vm,
/// mm/mlock.c:do_mlock), on the figures of the lock section in which it was refused. Whether the kernel asks that
/// question for this kind of request is the diagnosis's to know.
#[inline(always)]
fn over_limits(id: Call, section: &Section, task: u64, pages: u64) -> u32 {
    let shift = config!(page_shift) & 31;
    let mut class = 0;
    if section.total_vm + pages > kernel::rlimit(task, RLIMIT_AS) >> shift {
        class |= CLASS_OVER_AS;
    }
    if section.data_vm + pages > kernel::rlimit(task, RLIMIT_DATA) >> shift {
        class |= CLASS_OVER_DATA;
    }
    let limit = kernel::rlimit(task, RLIMIT_MEMLOCK) >> shift;
    let locked = if id == call::MLOCKALL { section.total_vm } else { section.locked_vm + pages };
    if locked > limit && !kernel::may_lock_any(task) {
        class |= CLASS_OVER_MEMLOCK;
    }
    class
}

/// match-proto: vm_unmapped_area(unsigned long addr, struct vm_unmapped_area_info *info), all versions
#[raw_tracepoint(tracepoint = "vm_unmapped_area")]
pub fn searched_raw(ctx: RawTracePointContext) -> i32 {
    searched(ctx.arg(0));
    0
}

/// Record: addr at 8.
#[tracepoint(category = "mmap", name = "vm_unmapped_area")]
pub fn searched_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: offset inside the record (include/trace/events/mmap.h).
    if let Ok(addr) = unsafe { ctx.read_at::<u64>(8) } {
        searched(addr);
    }
    0
}

/// A search for a free range ended; the last one of a call counts. Only those of followed address spaces are kept:
/// the entries are shared by all tasks whose ids differ by a multiple of [`SECTIONS`].
#[inline(always)]
fn searched(addr: u64) {
    let task = kernel::Current::task();
    if follows_mm(task.mm()) {
        keep_search(task.tid(), addr);
    }
}

#[inline(always)]
pub fn follows_mm(mm: u64) -> bool {
    mm != 0 && maps::index_of(mm).is_some()
}

/// Keeps the result of a search for the refusal that may follow.
#[inline(always)]
pub fn keep_search(tid: u32, addr: u64) {
    if let Some(section) = SECTION_OF_TASK.get_ptr_mut(tid & (SECTIONS - 1)) {
        // SAFETY: points into the map.
        unsafe {
            (*section).searched = addr;
            (*section).searcher = tid;
        }
    }
}

const BPF_F_USER_STACK: u64 = 1 << 8;

/// What a refused call should have unmapped.
#[derive(Clone, Copy)]
struct Kept {
    bytes: u64,
    /// See [`MmSlot::kept_range`]; the low 4 bits are 0.
    mark: u64,
}

#[inline(always)]
fn kept(id: Call, ret: u64, a0: u64, a1: u64, a2: u64) -> Kept {
    let bytes = match id {
        call::MUNMAP => whole_pages(a1),
        call::MREMAP if a2 < a1 => whole_pages(a1) - whole_pages(a2),
        call::BRK if a0 < ret => whole_pages(ret) - whole_pages(a0),
        _ => 0,
    };
    Kept { bytes, mark: range_mark(id, a0, a1, a2) }
}

/// Tells the range of one call from that of another; mixed, so that both numbers fit one word (two ranges with the
/// same mark: 1 in 2^60).
#[inline(always)]
fn range_mark(id: Call, a0: u64, a1: u64, a2: u64) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let length = match id {
        call::MUNMAP => a1,
        call::MREMAP => a1 ^ a2.rotate_left(32),
        // A break that moved away leaves no trace of where it was.
        _ => 0,
    };
    let mixed = (a0 ^ length.wrapping_mul(SPREAD)).wrapping_mul(SPREAD) ^ u64::from(id);
    (mixed ^ mixed >> 32).wrapping_mul(SPREAD) & !0xf
}

/// A call that unmaps succeeded. If it is the retry of the last refused one, nothing was kept after all.
#[inline(always)]
fn given_back<const PLAIN: bool>(slot: *mut MmSlot, id: Call, ret: i64, regs: u64) {
    // SAFETY: `slot` points into SLOTS.
    let range = unsafe { core::ptr::read_volatile(&raw const (*slot).kept_range) };
    if range == 0 || ret < 0 {
        return;
    }
    let (a0, a1, a2) = (argument(regs, 0), argument(regs, 1), argument(regs, 2));
    if range_mark(id, a0, a1, a2) != range & !0xf {
        return;
    }
    let n = core::hint::black_box((range & 0xf) as usize);
    if n >= GROUPS {
        return;
    }
    // SAFETY: as above, and `n` is below GROUPS. Whoever clears the mark owns the bytes under it.
    unsafe {
        let ours = if PLAIN {
            // Two threads that retry the same range at once are not told apart.
            core::ptr::write_volatile(&raw mut (*slot).kept_range, 0);
            true
        } else {
            maps::claim(&raw mut (*slot).kept_range, range, 0).is_ok()
        };
        if ours {
            let group = (&raw mut (*slot).failures).cast::<FailureGroup>().add(n);
            let bytes = core::ptr::read_volatile(&raw const (*group).last_kept);
            maps::add(&raw mut (*group).kept_bytes, bytes.wrapping_neg());
        }
    }
}

#[inline(always)]
fn whole_pages(bytes: u64) -> u64 {
    let shift = config!(page_shift) & 31;
    let below = (1u64 << shift) - 1;
    (bytes + below) & !below
}

/// Adds what was not unmapped, unless this is the last refused range again. Sums stop far below where they would
/// begin at 0 again.
#[inline(always)]
fn keep(slot: *mut MmSlot, group: *mut FailureGroup, n: usize, kept: Kept) {
    const ENOUGH: u64 = 1 << 62;
    // SAFETY: both point into one value of SLOTS.
    unsafe {
        let range = core::ptr::read_volatile(&raw const (*slot).kept_range);
        if range & !0xf == kept.mark || core::ptr::read_volatile(&raw const (*group).kept_bytes) > ENOUGH {
            return;
        }
        maps::add(&raw mut (*group).kept_bytes, kept.bytes);
        (*group).last_kept = kept.bytes;
        core::ptr::write_volatile(&raw mut (*slot).kept_range, kept.mark | n as u64);
    }
}

/// Counts a failure under its kind; returns how many of the kind there were before.
#[inline(always)]
fn book<const PLAIN: bool>(slot: *mut MmSlot, key: u64, now: u64, kept: Kept, zero: u32) -> u64 {
    let mut found = GROUPS;
    for n in 0..GROUPS {
        // SAFETY: `n` is below GROUPS; `slot` points into SLOTS. Threads meet here, hence the atomics.
        unsafe {
            let group = (&raw mut (*slot).failures).cast::<FailureGroup>().add(n);
            let mut seen = core::ptr::read_volatile(&raw const (*group).key);
            if seen == 0 {
                let word = &raw mut (*group).key;
                let claimed = if PLAIN {
                    maps::claim_group_plainly((*slot).generation, n, word, key)
                } else {
                    maps::claim(word, 0, key)
                };
                match claimed {
                    Ok(()) => {
                        (*group).first_ns = now;
                        seen = key;
                    }
                    Err(other) => seen = other,
                }
            }
            if seen == key {
                found = n;
                break;
            }
        }
    }
    let n = found ^ zero as usize;
    if n >= GROUPS {
        lost!(groups_full);
        return EXAMPLES_PER_GROUP;
    }
    // SAFETY: as above.
    unsafe {
        let group = (&raw mut (*slot).failures).cast::<FailureGroup>().add(n);
        let before = core::ptr::read_volatile(&raw const (*group).count);
        maps::add(&raw mut (*group).count, 1);
        (*group).last_ns = now;
        if kept.bytes != 0 {
            keep(slot, group, n, kept);
        }
        before
    }
}
