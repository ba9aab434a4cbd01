//! How processes end: of each followed one, the last signal that could end it, and its status when it has ended.
//!
//! A signal is looked at when it is raised, because then its sender is `current`, and because at a fault the stack and
//! the mappings are still as they were. It is told of only when the process has died of it: programs that handle their
//! faults (JVMs do so all the time) cost a look at their handler.

use aya_ebpf::{
    helpers::generated::{bpf_find_vma, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::map,
    maps::{HashMap, LruHashMap},
};
use core::{ffi::c_void, mem::MaybeUninit};
use vmaudit_common::{
    ABSENT, EndRecord, RECORD_END, RECORD_OOM, RecordHeader, SIGNAL_BLOCKS, SIGNAL_FAULT, SIGNAL_FILE,
    SIGNAL_IN_EXEC, SIGNAL_LOOKED, SIGNAL_MAPPED, SIGNAL_OOM, SIGNAL_OWN, SIGNAL_STACK, SignalSeen,
};

use crate::{
    control::{clear_words, config, count_lock_takes, layout, lost, zeroed},
    followed::follows,
    kernel::{self, Typed},
    oom, records, shares,
};

/// The last signal of a process, by tgid. Entries go with their processes.
#[map]
static SIGNALS: HashMap<u32, SignalSeen> = HashMap::with_max_entries(1024, 0);

/// Tasks that the kernel sent SIGKILL to: the OOM killer's event follows at once, and may name no more than the number.
#[map]
static KILLED: LruHashMap<u32, Killed> = LruHashMap::with_max_entries(256, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Killed {
    /// Address; 0 where the event does not tell.
    task: u64,
    tgid: u32,
    reserved: u32,
}

/// What a new entry begins with.
static NOTHING: SignalSeen = zeroed();

const BPF_ANY: u64 = 0;

const SIGKILL: u32 = 9;
const SIGSEGV: u32 = 11;
const SIGBUS: u32 = 7;
/// Signals up to 31 that end a process unless it handles them: all but CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
const ENDS: u32 =
    0xfffe_fffe & !(1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28);
/// include/uapi/asm-generic/siginfo.h, the same on all architectures.
const SI_KERNEL: i32 = 0x80;
/// include/linux/sched/signal.h, the same in 5.10 to 7.3.
const SIGNAL_GROUP_EXIT: u32 = 4;
/// struct siginfo: si_code, and si_addr of a fault (include/uapi/asm-generic/siginfo.h).
const CODE: u32 = 8;
const ADDRESS: u32 = 16;
/// Bytes of struct k_sigaction, whose first member is the handler (x86-64 and arm64, all versions).
const ACTION_BYTES: u32 = 32;
const SIG_DFL: u64 = 0;
/// arch/x86/include/asm/page_64_types.h, arch/arm64/include/asm/memory.h with pages of 4 KiB, without KASAN.
const KERNEL_STACK: u64 = 16384;
const RLIMIT_CPU: u32 = 0;
const RLIMIT_STACK: u32 = 3;
const RLIMIT_AS: u32 = 9;
const ENOENT: i64 = 2;
/// Below the end of the main stack nothing is mapped unasked (arch/x86/mm/mmap.c:mmap_base, MIN_GAP).
const MMAP_GAP: u64 = 128 << 20;
/// Below its start (mm/mmap.c:stack_guard_gap), and two pages for not knowing that exactly, pages.
const GUARD_GAP: u64 = 258;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A signal as an event shows it.
pub struct Raised {
    pub signal: u32,
    /// The task that it is for; 0 where the event does not tell.
    pub task: u64,
    /// Its process.
    pub tgid: u32,
    /// Its siginfo, or a number below 3 (include/linux/signal_types.h: SEND_SIG_NOINFO, SEND_SIG_PRIV).
    pub info: u64,
    /// Without `info`: the task's number.
    pub tid: u32,
    /// Without `info`: si_code.
    pub code: i32,
}

/// A process may die of such a signal. `result`: what became of it (include/trace/events/signal.h), 0 delivered, 4
/// delivered without its siginfo.
#[inline(always)]
pub fn may_end(signal: u32, result: u32) -> bool {
    signal < 32 && ENDS >> (signal & 31) & 1 == 1 && (result == 0 || result == 4)
}

/// Its end is to be told.
#[inline(always)]
pub fn concerns(tgid: u32) -> bool {
    // The sender may be out of sight, the process is not.
    config!(watch_all) != 0 && config!(pid_ns_level) != 0 || follows(tgid)
}

/// A read that may fail without anything being lost but this.
#[inline(always)]
fn try_read(base: u64, offset: u32) -> u64 {
    let mut value = 0u64;
    if offset != ABSENT {
        // SAFETY: the helper checks the address itself; on failure it writes zeros.
        unsafe {
            bpf_probe_read_kernel((&raw mut value).cast(), 8, (base + u64::from(offset)) as *const c_void)
        };
    }
    value
}

/// Keeps a signal. `LOOK`: the kernel lets us look at mappings, and knows `current` by type.
#[inline(always)]
pub fn raised<const LOOK: bool>(raised: &Raised) {
    let Raised { signal, task, tgid, info, tid, code } = *raised;
    if signal != SIGKILL && task != 0 && handler(task, signal) != SIG_DFL {
        return;
    }
    let (sender_tgid, sender_tid) = kernel::ids();
    let current = kernel::current();
    let has_info = info > 2;
    let (tid, code) = match (task, has_info) {
        (0, _) => (tid, code),
        // Of the classic event.
        _ if info == 0 && tid != 0 => (tid, code),
        (_, true) => (kernel::read(task, layout!(task_pid)), kernel::read::<i32>(info, CODE)),
        (_, false) => (kernel::read(task, layout!(task_pid)), if info == 1 { SI_KERNEL } else { 0 }),
    };
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    // The other of two programs saw it a moment ago, and knows more than a classic event tells.
    if !has_info
        && raised.tid != 0
        && let Some(known) = Seen::of(tgid)
        && known.is(signal, tid, at_ns)
    {
        return;
    }
    // Before anything of it is kept.
    if signal == SIGKILL && code == SI_KERNEL {
        let _ = KILLED.insert(tid, Killed { task, tgid, reserved: 0 }, BPF_ANY);
    }
    let Some(seen) = Seen::anew(tgid) else { return };
    let own = sender_tgid == tgid;
    let fault = own && has_info && code > 0 && code != SI_KERNEL && tid == sender_tid;
    let mut flags = 0;
    if own {
        flags |= SIGNAL_OWN;
        flags |= of_own::<LOOK>(seen, current);
    }
    let mut address = 0;
    if fault {
        flags |= SIGNAL_FAULT;
        address = kernel::read(info, ADDRESS);
        if LOOK && (signal == SIGSEGV || signal == SIGBUS) {
            flags |= look(seen, address, signal == SIGSEGV);
        }
    }
    let leader = if task == 0 { 0 } else { kernel::leader_of(task) };
    // SAFETY: points into the map; all signals of a process are raised under one lock (kernel/signal.c: siglock).
    unsafe {
        let seen = seen.0;
        (*seen).start_boottime_ns =
            if leader == 0 { 0 } else { kernel::read(leader, layout!(task_start_boottime)) };
        (*seen).at_ns = at_ns;
        (*seen).code = code;
        (*seen).tid = tid;
        (*seen).sender_tgid = sender_tgid;
        (*seen).sender_tid = sender_tid;
        (*seen).sender_comm = kernel::comm_of(current);
        (*seen).address = address;
        (*seen).flags = flags;
        (*seen).signal = signal;
    }
}

/// What is known of a process's last signal: a value of [`SIGNALS`], whose entries are preallocated.
#[derive(Clone, Copy)]
struct Seen(*mut SignalSeen);

impl Seen {
    #[inline(always)]
    fn of(tgid: u32) -> Option<Self> {
        SIGNALS.get_ptr_mut(tgid).map(Self)
    }

    /// With nothing known.
    #[inline(always)]
    fn anew(tgid: u32) -> Option<Self> {
        // By reference: the value is too large for the stack.
        let nothing: &SignalSeen = &NOTHING;
        if SIGNALS.insert(tgid, nothing, BPF_ANY).is_err() {
            lost!(signals_full);
        }
        Self::of(tgid)
    }

    #[inline(always)]
    fn is(self, signal: u32, tid: u32, now: u64) -> bool {
        // SAFETY: points into the map.
        unsafe { (*self.0).signal == signal && (*self.0).tid == tid && now - (*self.0).at_ns < 1_000_000 }
    }
}

/// What the process does with a signal: a handler, or how it is ignored, or [`SIG_DFL`].
#[inline(always)]
fn handler(task: u64, signal: u32) -> u64 {
    let (sighand, actions) = (layout!(end.sighand), layout!(end.actions));
    if sighand == ABSENT || actions == ABSENT {
        return SIG_DFL;
    }
    try_read(try_read(task, sighand), actions + (signal - 1) * ACTION_BYTES)
}

/// What is known of a task that raises a signal for its own process, be it by a fault. Returns more flags.
#[inline(always)]
fn of_own<const LOOK: bool>(seen: Seen, current: u64) -> u32 {
    let mm = kernel::mm_of(current);
    let signal = kernel::read::<u64>(current, layout!(task_signal));
    let seen = seen.0;
    let cpu = layout!(signal_rlim) + RLIMIT_CPU * 16;
    // SAFETY: points into the map; so below.
    unsafe {
        (*seen).rlimits = [kernel::rlimit(current, RLIMIT_STACK), kernel::rlimit(current, RLIMIT_AS)];
        (*seen).rlimit_cpu = [kernel::read(signal, cpu), kernel::read(signal, cpu + 8)];
        (*seen).cpu_ns = try_read(signal, layout!(end.cpu_user)) + try_read(signal, layout!(end.cpu_system));
    }
    if mm == 0 {
        return 0;
    }
    let registers = if LOOK {
        kernel::registers()
    } else {
        try_read(current, layout!(end.kernel_stack)) + KERNEL_STACK - u64::from(layout!(end.regs_bytes))
    };
    // SAFETY: as above.
    unsafe {
        (*seen).sp = try_read(registers, layout!(end.regs_user_sp));
        (*seen).total_vm = kernel::read(mm, layout!(mm_total_vm));
        (*seen).stack_vm = try_read(mm, layout!(mm_stack_vm));
        (*seen).start_stack = try_read(mm, layout!(end.mm_start_stack));
        (*seen).env_end = try_read(mm, layout!(end.mm_env_end));
    }
    if LOOK && kernel::in_exec() { SIGNAL_IN_EXEC } else { 0 }
}

/// What a look at a mapping finds. Lies in memory that callbacks write, so that the verifier knows none of the values.
#[repr(C)]
#[derive(Clone, Copy)]
struct Look {
    start: u64,
    end: u64,
    flags: u64,
    at: u64,
    /// [`SIGNAL_FILE`] and [`SIGNAL_BLOCKS`].
    file: u64,
    offset: u64,
    size: u64,
    magic: u64,
    blocks: u64,
}

/// Called by `bpf_find_vma` under the mmap lock; the verifier knows the type of `vma`. What the mapping is of lives as
/// long as the lock is held.
unsafe extern "C" fn found(_task: *mut c_void, vma: *const u8, look: *mut Look) -> i64 {
    // SAFETY: the verifier knows its type.
    let vma = unsafe { Typed::new(vma) };
    // SAFETY: the kernel passes what `find` passed: its caller's own live value.
    unsafe {
        (*look).start = vma.load(layout!(vma_start));
        (*look).end = vma.load(layout!(vma_end));
        (*look).flags = vma.load(layout!(vma_flags));
        if layout!(file.vma_file) == ABSENT || layout!(end.inode_sb) == ABSENT {
            return 0;
        }
        let file: u64 = vma.load(layout!(file.vma_file));
        if file == 0 {
            return 0;
        }
        let pages: u64 = vma.load(layout!(file.vma_pgoff));
        (*look).offset = (*look).at - (*look).start + pages * kernel::whole_pages(1);
        let inode = try_read(file, layout!(file.inode));
        let sb = try_read(inode, layout!(end.inode_sb));
        (*look).size = try_read(inode, layout!(end.inode_size));
        (*look).magic = try_read(sb, layout!(end.sb_magic));
        (*look).file = u64::from(SIGNAL_FILE);
        if (*look).magic == TMPFS_MAGIC && layout!(end.shmem_max_blocks) != ABSENT {
            (*look).blocks = try_read(try_read(sb, layout!(end.sb_info)), layout!(end.shmem_max_blocks));
            (*look).file |= u64::from(SIGNAL_BLOCKS);
        }
    }
    0
}

/// Looks at the mapping that a fault was in; for one near the main stack (`segment`: that can be) at the stack's, which
/// tells whether it should have grown. At one of them only: after a look with interrupts off, the next has to wait for
/// the lock to be let go. Returns more flags.
#[inline(always)]
fn look(seen: Seen, address: u64, segment: bool) -> u32 {
    let seen = seen.0;
    // SAFETY: as in `raised`; so below.
    let (top, pages) = unsafe { ((*seen).start_stack, (*seen).stack_vm) };
    let low = top.wrapping_sub(pages.wrapping_mul(kernel::whole_pages(1)));
    // Nothing else lies so near: see the kernel's gaps in vmaudit-user/src/domain/end.rs.
    let near = top.wrapping_sub(address) <= MMAP_GAP
        || low.wrapping_sub(address) <= kernel::whole_pages(1) * GUARD_GAP;
    let stack = segment && address < top && near;
    let mut look = MaybeUninit::<Look>::uninit();
    let look = look.as_mut_ptr();
    // SAFETY: it is made of words.
    unsafe {
        clear_words(look.cast(), size_of::<Look>() / 8);
        (*look).at = address;
    }
    let answer = find(if stack { top } else { address }, look);
    if answer == -ENOENT && !stack {
        return SIGNAL_LOOKED;
    }
    if answer != 0 {
        return 0;
    }
    // SAFETY: written by the callback; volatile because the compiler does not see that. The rest: as in `raised`.
    unsafe {
        let found = core::ptr::read_volatile(look);
        if stack {
            (*seen).stack_start = found.start;
            (*seen).stack_end = found.end;
            return SIGNAL_STACK;
        }
        (*seen).vma_start = found.start;
        (*seen).vma_flags = found.flags;
        (*seen).file_offset = found.offset;
        (*seen).file_size = found.size;
        (*seen).file_magic = found.magic;
        (*seen).blocks = found.blocks;
        SIGNAL_LOOKED | SIGNAL_MAPPED | found.file as u32
    }
}

/// Looks at the mapping at an address: 0, or a negative errno. Never waits: with interrupts off, as here, the lock is let
/// go a moment later (kernel/bpf/mmap_unlock_work.h).
#[inline(always)]
fn find(at: u64, look: *mut Look) -> i64 {
    // SAFETY: a valid task, a function of the prototype that the helper wants, and a value that outlives the call.
    let answer =
        unsafe { bpf_find_vma(bpf_get_current_task_btf(), at, found as *mut c_void, look.cast(), 0) };
    let answer = i64::from(answer as i32);
    if answer == -ENOENT || answer == 0 {
        count_lock_takes(1);
    }
    answer
}

/// The OOM killer has chosen a process: it has just sent SIGKILL, unless the process was ending anyway
/// (mm/oom_kill.c:__oom_kill_process, mark_oom_victim). `pid`: of a thread that still holds the address space; `task`: its
/// address, 0 where the event does not tell.
#[inline(always)]
pub fn chosen(pid: u32, task: u64) {
    // SAFETY: the value is copied at once; entries are preallocated.
    let killed = unsafe { KILLED.get(pid) }.copied();
    let (tgid, known) = killed.map_or((pid, 0), |killed| (killed.tgid, killed.task));
    let (tgid, task) = match task {
        0 => (tgid, known),
        task => (kernel::read(task, layout!(task_tgid)), task),
    };
    let Some(Seen(seen)) = Seen::of(tgid) else { return };
    // SAFETY: points into the map, whose entries are preallocated.
    let start_boottime_ns = unsafe {
        if (*seen).signal != SIGKILL || (*seen).code != SI_KERNEL || (*seen).flags & SIGNAL_OOM != 0 {
            return;
        }
        (*seen).flags |= SIGNAL_OOM;
        (*seen).start_boottime_ns
    };
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let head = RecordHeader { kind: RECORD_OOM, tgid, tid: pid, shown_tid: 0, at_ns, generation: 0 };
    oom::tell(head, start_boottime_ns, task);
}

/// The last task of `tgid`, `current`, is on its way out. `CAS`: the kernel has compare-and-swap.
#[inline(always)]
pub fn over<const CAS: bool>(task: u64, tgid: u32) {
    let leader = kernel::leader_of(task);
    let signal: u64 = kernel::read(task, layout!(task_signal));
    // kernel/exit.c:wait_task_zombie. Whoever was first to end of a group has set its own code by then.
    let group = layout!(end.signal_flags) != ABSENT
        && kernel::read::<u32>(signal, layout!(end.signal_flags)) & SIGNAL_GROUP_EXIT != 0;
    let status: u32 = if group {
        kernel::read(signal, layout!(end.group_exit_code))
    } else {
        kernel::read(leader, layout!(task_exit_code))
    };
    // SAFETY: no preconditions.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let end = EndRecord {
        head: records::head(RECORD_END, at_ns, 0),
        start_boottime_ns: kernel::read(leader, layout!(task_start_boottime)),
        status,
        ppid: kernel::parent_of(leader),
        comm: kernel::comm_of(leader),
    };
    // SAFETY: the value is copied before the entry goes; entries are preallocated.
    let seen = unsafe { SIGNALS.get(tgid) };
    let share = shares::of_user::<CAS>(kernel::uid_of(task));
    let Some(seen) = seen else { return records::ended(end, share) };
    let (number, started) = (seen.signal, seen.start_boottime_ns);
    if status & 0x7f == number && (started == 0 || started == end.start_boottime_ns) {
        records::killed(end, seen, share);
    } else {
        records::ended(end, share);
    }
    let _ = SIGNALS.remove(tgid);
}
