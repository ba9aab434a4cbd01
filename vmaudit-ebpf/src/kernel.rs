//! The only code that reads kernel structures, by the offsets in `LAYOUT`.
//!
//! Two ways: [`Current`] and what hangs on it are read by plain loads, because the verifier knows the type of what
//! `bpf_get_current_task_btf` returns and makes such loads safe; that is what the hot path uses. Everything else
//! (another task, another address space) goes through [`read`], a helper call.

use core::{ffi::c_void, ptr::NonNull};

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
    generated::{self as helpers, bpf_get_current_task_btf, bpf_task_pt_regs},
};
use vmaudit_common::{
    ABSENT, COMM_LEN, NUMBERS_MASK, Sizes,
    call::{self, Call},
};

use crate::control::{config, layout, lost};

/// Reads a `T` at `base + offset` in kernel memory; 0 (counted) when the kernel refuses.
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    let at = (base + u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address itself and never faults.
    match unsafe { bpf_probe_read_kernel(at) } {
        Ok(value) => value,
        Err(_) => {
            lost!(read_failed);
            T::default()
        }
    }
}

/// Reads a `T`; `None`, which is no loss, when the kernel refuses or has no such member.
#[inline(always)]
pub fn peek<T>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address itself and never faults.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Reads words at `base` + each of `offsets`; 0 (counted) where the kernel refuses. One branch for all: before 6.3 the
/// verifier follows both ways of each branch to the end of the program.
#[inline(always)]
pub fn read_words<const N: usize>(base: u64, offsets: [u32; N]) -> [u64; N] {
    let mut refused = 0;
    // Not a loop: `map` of so few is none.
    let words = offsets.map(
        #[inline(always)]
        |offset| {
            let mut word = 0u64;
            let at = (base + u64::from(offset)) as *const c_void;
            // SAFETY: the helper checks the address itself and never faults; where it fails it writes zeroes
            // (kernel/trace/bpf_trace.c:bpf_probe_read_kernel_common, 5.5 and later).
            refused |= unsafe { helpers::bpf_probe_read_kernel((&raw mut word).cast(), 8, at) };
            word
        },
    );
    if refused != 0 {
        lost!(read_failed);
    }
    words
}

/// The number of VMAs of an address space.
#[inline(always)]
pub fn map_count(mm: u64) -> u32 {
    read(mm, layout!(mm_map_count))
}

/// Number of the write section of an address space, 0 where the kernel does not count them.
#[inline(always)]
pub fn lock_sequence(mm: u64) -> u32 {
    let offset = layout!(mm_lock_seq);
    if offset == ABSENT { 0 } else { read(mm, offset) }
}

/// A pointer whose type the verifier knows. Not null, so that "none" is a null in the same register and not an unset one,
/// which the verifier refuses to see saved.
#[derive(Clone, Copy)]
pub struct Typed(NonNull<u8>);

impl Typed {
    /// # Safety
    /// The verifier knows the type of `pointer`, which a helper has given or passed.
    #[inline(always)]
    pub const unsafe fn new(pointer: *const u8) -> Self {
        // SAFETY: what helpers give as a typed pointer is not null.
        Self(unsafe { NonNull::new_unchecked(pointer.cast_mut()) })
    }

    /// A plain load at a constant offset.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier accepts only offsets of members of the type; a bad pointer reads as 0.
        unsafe { core::ptr::read_volatile(self.0.as_ptr().add(offset as usize).cast::<T>()) }
    }
}

/// `current`, known by type (5.11 and later; older kernels get other programs).
#[derive(Clone, Copy)]
pub struct Current(Typed);

/// The address space of [`Current`], known by type as well.
#[derive(Clone, Copy)]
pub struct OwnMm(Typed);

/// Saved user registers of [`Current`], known by type as well.
#[derive(Clone, Copy)]
pub struct Registers {
    at: Typed,
    /// The call came through the 32-bit entry.
    compat: bool,
}

impl Registers {
    /// Argument `n` of the call.
    #[inline(always)]
    pub fn argument(self, n: usize) -> u64 {
        if self.compat {
            return u64::from(self.at.load::<u32>(layout!(regs_compat_args[n])));
        }
        self.at.load(layout!(regs_args[n]))
    }

    /// Where the task goes on.
    #[inline(always)]
    pub fn ip(self) -> u64 {
        self.at.load(layout!(regs_ip))
    }

    /// The answer of the call.
    #[inline(always)]
    pub fn answer(self) -> i64 {
        self.at.load(layout!(regs_ret))
    }
}

/// Context of a task iterator: `meta`, `task` (include/linux/bpf.h, kernel/bpf/task_iter.c).
#[repr(C)]
pub struct TaskIterContext {
    _meta: *const u64,
    task: *const u64,
}

impl TaskIterContext {
    /// The task that the walk has come to; `None` after the last one.
    ///
    /// # Safety
    /// `context` is what the kernel has passed to an iterator's program.
    #[inline(always)]
    pub unsafe fn task(context: *const Self) -> Option<u64> {
        // SAFETY: the kernel passes a valid context.
        let task = unsafe { (*context).task };
        if task.is_null() { None } else { Some(task as u64) }
    }
}

impl Current {
    /// The task that runs.
    #[inline(always)]
    pub fn task() -> Self {
        // SAFETY: no preconditions; the verifier knows the type of what it gives.
        Self(unsafe { Typed::new(bpf_get_current_task_btf().cast::<u8>()) })
    }

    /// Its address as a number, for [`read`].
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0.0.as_ptr() as u64
    }

    /// Its address as what the verifier knows it to be.
    #[inline(always)]
    pub fn typed(self) -> *const u8 {
        self.0.0.as_ptr()
    }

    /// Its address space, if that is `mm`.
    #[inline(always)]
    pub fn own(self, mm: u64) -> Option<OwnMm> {
        let own: *const u8 = self.0.load(layout!(task_mm));
        // The barrier keeps the compiler from using `mm`, a mere number, in place of the typed pointer it equals.
        let own = if own as u64 == mm { core::hint::black_box(own) } else { return None };
        NonNull::new(own.cast_mut()).map(|own| OwnMm(Typed(own)))
    }

    /// Its address space as a plain number, 0 for a kernel thread or past exit_mm.
    #[inline(always)]
    pub fn mm(self) -> u64 {
        mm_of(self.address())
    }

    /// Task id in the initial pid namespace.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.0.load(layout!(task_pid))
    }

    /// Its saved registers; with them goes only what the call that it is in was given, and, at its end, its answer.
    #[inline(always)]
    pub fn registers(self) -> Registers {
        // SAFETY: a valid task; the helper exists since 5.15.
        let at = unsafe { Typed::new(bpf_task_pt_regs(self.0.0.as_ptr().cast()) as *const u8) };
        Registers { at, compat: self.in_compat_call() }
    }

    /// The number of the system call it is in, as its saved registers have it.
    #[inline(always)]
    pub fn call_number(self) -> u32 {
        // SAFETY: as in `registers`.
        let at = unsafe { Typed::new(bpf_task_pt_regs(self.0.0.as_ptr().cast()) as *const u8) };
        at.load(layout!(regs_nr))
    }

    /// Its name, in words.
    #[inline(always)]
    pub fn name(self) -> [u64; 2] {
        let at = layout!(task_comm);
        [self.0.load(at), self.0.load(at + 8)]
    }

    /// The task is on its way out: what it does is not the call's any more that its registers still name.
    #[inline(always)]
    pub fn is_ending(self) -> bool {
        // PF_EXITING, PF_DUMPCORE, PF_SIGNALED (include/linux/sched.h, the same in 5.10 to 7.3).
        const ENDING: u32 = 0x4 | 0x200 | 0x400;
        self.0.load::<u32>(layout!(task_flags)) & ENDING != 0
    }

    /// The task is inside a 32-bit system call, whose numbers are another table's.
    #[inline(always)]
    pub fn in_compat_call(self) -> bool {
        let offset = layout!(task_compat);
        offset != ABSENT && self.0.load::<u32>(offset) & layout!(compat_mask) != 0
    }

    /// The watched call that it is in.
    ///
    /// The number stands in the saved registers until the return to user space. After a page fault or an interrupt
    /// the field is -1, no call's number (arch/x86/entry/entry_64.S:idtentry_body, arch/arm64/kernel/entry.S:
    /// kernel_entry with NO_SYSCALL).
    #[inline(always)]
    pub fn call(self) -> Call {
        let number = u64::from(self.call_number());
        if self.in_compat_call() { compat_call_by_number(number) } else { call_by_number(number) }
    }
}

impl OwnMm {
    /// The number of VMAs.
    #[inline(always)]
    pub fn map_count(self) -> u32 {
        self.0.load(layout!(mm_map_count))
    }

    /// Number of the write section, 0 where the kernel does not count them.
    #[inline(always)]
    pub fn lock_sequence(self) -> u32 {
        let offset = layout!(mm_lock_seq);
        if offset == ABSENT { 0 } else { self.0.load(offset) }
    }

    /// Its sizes, pages.
    #[inline(always)]
    pub fn sizes(self) -> Sizes {
        Sizes {
            total: self.total_vm(),
            data: self.0.load(layout!(mm_data_vm)),
            locked: self.0.load(layout!(mm_locked_vm)),
            stack: self.0.load(layout!(mm_stack_vm)),
        }
    }

    /// Pages of it all.
    #[inline(always)]
    pub fn total_vm(self) -> u64 {
        self.0.load(layout!(mm_total_vm))
    }

    /// Pages that may be executed and not written.
    #[inline(always)]
    pub fn exec_vm(self) -> u64 {
        self.0.load(layout!(mm_exec_vm))
    }

    /// Start and end of the heap.
    #[inline(always)]
    pub fn heap(self) -> (u64, u64) {
        (self.0.load(layout!(mm_start_brk)), self.0.load(layout!(mm_brk)))
    }
}

/// `current`, as a number.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: no arguments, no preconditions.
    unsafe { bpf_get_current_task() }
}

/// (tgid, tid) of `current` in the initial pid namespace.
#[inline(always)]
pub fn ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// Address space of a task, 0 for a kernel thread or a task past exit_mm.
#[inline(always)]
pub fn mm_of(task: u64) -> u64 {
    read(task, layout!(task_mm))
}

/// Saved user registers of `current`.
#[inline(always)]
pub fn registers() -> u64 {
    // SAFETY: `bpf_get_current_task_btf` returns a valid task; both helpers exist since 5.15, and programs that call
    // this are not loaded on older kernels.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
}

/// `current` is in an exec.
#[inline(always)]
pub fn in_exec() -> bool {
    matches!(Current::task().call(), call::EXECVE | call::EXECVEAT)
}

/// The watched call with this number.
#[inline(always)]
pub fn call_by_number(number: u64) -> Call {
    if number > u64::from(NUMBERS_MASK) {
        return call::OTHER;
    }
    config!(call_by_number[(number & u64::from(NUMBERS_MASK)) as usize])
}

/// The watched call with this number of the 32-bit entry.
#[inline(always)]
fn compat_call_by_number(number: u64) -> Call {
    if number > u64::from(NUMBERS_MASK) {
        return call::OTHER;
    }
    config!(compat_call_by_number[(number & u64::from(NUMBERS_MASK)) as usize])
}

/// The watched call that `current` is in, whose saved registers these are; for programs that know no task by type.
#[inline(always)]
pub fn call_of(regs: u64) -> Call {
    let number = u64::from(read::<u32>(regs, layout!(regs_nr)));
    if in_compat_call() { compat_call_by_number(number) } else { call_by_number(number) }
}

/// `current` is inside a 32-bit system call.
#[inline(always)]
fn in_compat_call() -> bool {
    let offset = layout!(task_compat);
    offset != ABSENT && read::<u32>(current(), offset) & layout!(compat_mask) != 0
}

/// Argument `n` of the call of `current`, whose saved registers these are.
#[inline(always)]
pub fn argument(regs: u64, n: usize) -> u64 {
    argument_of(regs, n, compat_bits())
}

/// All bits set inside a 32-bit system call of `current`, else none: without a branch, of which the verifier would follow
/// both ways for each argument.
#[inline(always)]
fn compat_bits() -> u32 {
    let offset = layout!(task_compat);
    if offset == ABSENT {
        return 0;
    }
    let flag = read::<u32>(current(), offset) & layout!(compat_mask);
    ((flag | flag.wrapping_neg()) as i32 >> 31) as u32
}

/// These bits inside a 32-bit system call of `current`, else none.
#[inline(always)]
pub fn if_compat(bits: u64) -> u64 {
    bits & (i64::from(compat_bits() as i32) as u64)
}

#[inline(always)]
fn argument_of(regs: u64, n: usize, compat: u32) -> u64 {
    let (usual, other) = (layout!(regs_args[n]), layout!(regs_compat_args[n]));
    let at = usual ^ (usual ^ other) & compat;
    read::<u64>(regs, at) & !(u64::from(compat) << 32)
}

/// The first four of them.
#[inline(always)]
pub fn first_arguments(regs: u64) -> [u64; 4] {
    let compat = compat_bits();
    let at = |n| argument_of(regs, n, compat);
    [at(0), at(1), at(2), at(3)]
}

/// All six.
#[inline(always)]
pub fn arguments(regs: u64) -> [u64; 6] {
    let [a0, a1, a2, a3] = first_arguments(regs);
    [a0, a1, a2, a3, argument(regs, 4), argument(regs, 5)]
}

/// Start of the heap of `current`.
#[inline(always)]
pub fn start_brk(task: u64) -> u64 {
    read(mm_of(task), layout!(mm_start_brk))
}

/// Bytes rounded up to whole pages.
#[inline(always)]
pub fn whole_pages(bytes: u64) -> u64 {
    let shift = config!(page_shift) & 31;
    let below = (1u64 << shift) - 1;
    (bytes + below) & !below
}

/// Copies a task's name.
#[inline(always)]
pub fn comm_of(task: u64) -> [u8; COMM_LEN] {
    read(task, layout!(task_comm))
}

/// The same, in words.
#[inline(always)]
pub fn name_of(task: u64) -> [u64; 2] {
    read(task, layout!(task_comm))
}

/// Process id of a task's parent.
#[inline(always)]
pub fn parent_of(task: u64) -> u32 {
    read(read(task, layout!(task_real_parent)), layout!(task_tgid))
}

/// Leader of the task's thread group.
#[inline(always)]
pub fn leader_of(task: u64) -> u64 {
    read(task, layout!(task_group_leader))
}

/// The last thread of the group is on its way out.
///
/// `live` is decremented early in do_exit, before sched_process_exit (kernel/exit.c:do_exit, all versions). Two last
/// threads may both see 0; what follows must bear that.
#[inline(always)]
pub fn group_is_dead(task: u64) -> bool {
    read::<u32>(read(task, layout!(task_signal)), layout!(signal_live)) == 0
}

/// `current` has CAP_IPC_LOCK, so RLIMIT_MEMLOCK does not bind it (mm/mlock.c:can_do_mlock; asked of the initial user
/// namespace, as capable() does).
#[inline(always)]
pub fn may_lock_any(task: u64) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let cred = read(task, layout!(task_cred));
    read::<u32>(cred, layout!(cred_cap_effective)) >> CAP_IPC_LOCK & 1 == 1 && in_first_user_namespace(cred)
}

/// These credentials are of the initial user namespace: elsewhere capabilities have no power over what is the machine's.
#[inline(always)]
pub fn in_first_user_namespace(cred: u64) -> bool {
    let (namespace, level) = (layout!(tasks.cred_user_ns), layout!(tasks.user_ns_level));
    namespace == ABSENT || level == ABSENT || read::<u32>(read(cred, namespace), level) == 0
}

/// Real user id of a task, as the initial user namespace knows it.
#[inline(always)]
pub fn uid_of(task: u64) -> u32 {
    read(read(task, layout!(task_cred)), layout!(cred_uid))
}

/// Soft limit number `which` of `current`, bytes.
#[inline(always)]
pub fn rlimit(task: u64, which: u32) -> u64 {
    read(read(task, layout!(task_signal)), layout!(signal_rlim) + which * 16)
}

/// Soft limits of `current` with these numbers, bytes.
#[inline(always)]
pub fn rlimits<const N: usize>(task: u64, which: [u32; N]) -> [u64; N] {
    let rlim = layout!(signal_rlim);
    read_words(read(task, layout!(task_signal)), which.map(|which| rlim + which * 16))
}

/// Copies a kernel string.
#[inline(always)]
pub fn read_str(at: u64, into: &mut [u8]) {
    // SAFETY: the helper checks the address and writes at most `into.len()` bytes.
    if unsafe { bpf_probe_read_kernel_str_bytes(at as *const u8, into) }.is_err() {
        lost!(read_failed);
    }
}
