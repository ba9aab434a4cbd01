//! The only code that reads kernel structures, by the offsets in `LAYOUT`.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes,
    generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
};
use vmaudit_common::{
    ABSENT, COMM_LEN, NUMBERS_MASK,
    call::{self, Call},
};

use crate::maps::{config, layout, lost};

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

/// The number of VMAs of an address space.
#[inline(always)]
pub fn map_count(mm: u64) -> u32 {
    read(mm, layout!(mm_map_count))
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

/// The watched call with this number.
#[inline(always)]
pub fn call_by_number(number: u64) -> Call {
    if number > u64::from(NUMBERS_MASK) {
        return call::OTHER;
    }
    config!(call_by_number[(number & u64::from(NUMBERS_MASK)) as usize])
}

/// The task is inside a 32-bit system call, whose numbers are another table's.
#[inline(always)]
pub fn in_compat_call(task: u64) -> bool {
    let offset = layout!(task_compat);
    offset != ABSENT && read::<u32>(task, offset) & layout!(compat_mask) != 0
}

/// The watched call that `current` is in.
///
/// The number stands in the saved registers until the return to user space. After a page fault the field holds the
/// fault's error code, which for faults from user space always has bit 2 set and never equals the number of a watched
/// call (arch/x86/include/asm/trap_pf.h; checked for every entry of `call::CALLS` below 64).
#[inline(always)]
pub fn current_call(task: u64) -> Call {
    let id = call_by_number(u64::from(read::<u32>(registers(), layout!(regs_nr))));
    if id >= call::FIRST_REAL && in_compat_call(task) { call::COMPAT } else { id }
}

/// Copies a task's name.
#[inline(always)]
pub fn comm_of(task: u64) -> [u8; COMM_LEN] {
    read(task, layout!(task_comm))
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

/// Soft limit number `which` of `current`, bytes.
#[inline(always)]
pub fn rlimit(task: u64, which: u32) -> u64 {
    read(read(task, layout!(task_signal)), layout!(signal_rlim) + which * 16)
}

/// Copies a kernel string.
#[inline(always)]
pub fn read_str(at: u64, into: &mut [u8]) {
    // SAFETY: the helper checks the address and writes at most `into.len()` bytes.
    if unsafe { bpf_probe_read_kernel_str_bytes(at as *const u8, into) }.is_err() {
        lost!(read_failed);
    }
}
