//! What vmaudit's eBPF programs and its user side must agree on: records, counters, layout of the shared maps.
//!
//! Deliberately absent: reading of kernel structures (vmaudit-ebpf), decoding and formatting (vmaudit-user).
//! Everything here is `repr(C)`, made of fixed-width integers, without padding and without enums, because the bytes
//! cross from the kernel through shared memory.

#![no_std]

pub mod call;

use bytemuck::{Pod, Zeroable};

use crate::call::{CALL_COUNT, NUMBERS};

/// Length of a task's name in the kernel, `\0` included (include/linux/sched.h:TASK_COMM_LEN).
pub const COMM_LEN: usize = 16;
/// How many distinct kinds of failure one address space keeps apart; more are counted in [`Lost::groups_full`].
pub const GROUPS: usize = 16;
/// Most frames kept of a user stack.
pub const STACK_FRAMES: usize = 48;
/// Mappings told of one stack at most.
pub const AREAS: usize = 8;
/// Bytes kept of a mapped file's path; names of its folders that lie further up are left out.
pub const PATH_BYTES: usize = 1024;
/// Longest name in a path with its `\0` (include/uapi/linux/limits.h:NAME_MAX).
pub const NAME_BYTES: usize = 256;
/// Slots of the table of lock sections; a power of two, indexed by `tid & (SECTIONS - 1)`.
pub const SECTIONS: u32 = 4096;
/// Mask for an index into [`Config::call_by_number`].
pub const NUMBERS_MASK: u32 = NUMBERS as u32 - 1;
/// Examples sent per failure group before only its counters go on.
pub const EXAMPLES_PER_GROUP: u64 = 8;

/// Slot free; only user space moves a slot from [`SLOT_DEAD`] to this.
pub const SLOT_FREE: u32 = 0;
/// Being filled in by the kernel side.
pub const SLOT_CLAIMED: u32 = 1;
/// Follows a living address space.
pub const SLOT_LIVE: u32 = 2;
/// The address space is gone and its figures are final; waits to be read and freed by user space.
pub const SLOT_DEAD: u32 = 3;

/// [`MmSlot::flags`]: followed from its first instruction (fork or exec was seen), not from an attach in its middle.
pub const MM_FROM_BIRTH: u32 = 1;
/// [`MmSlot::flags`]: made by exec (unset: by fork, or it was there before us).
pub const MM_FROM_EXEC: u32 = 2;
/// [`MmSlot::flags`]: its first count was read without the lock, at attach, while no writer held it.
pub const MM_FROM_SNAPSHOT: u32 = 4;

/// [`MmSlot::flags`]: followed by samples at call exits while several tasks could change it at the same time: a peak
/// between two samples can have been missed.
pub const MM_SHARED: u32 = 8;

/// What one call did to one address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CallStat {
    /// Calls that returned.
    pub calls: u64,
    /// VMAs that changes made within this call added, summed over lock sections with a gain.
    pub added: u64,
    /// VMAs removed, summed over lock sections with a loss.
    pub removed: u64,
    /// Calls refused for lack of memory or of a limit (see [`call::Refusal`]).
    pub failed: u64,
}

/// Failures of one kind in one address space, counted in the kernel so that no full buffer can lose them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FailureGroup {
    /// 0 = unused; else [`GroupKey::pack`].
    pub key: u64,
    /// Failures.
    pub count: u64,
    /// First, CLOCK_MONOTONIC ns.
    pub first_ns: u64,
    /// Last, CLOCK_MONOTONIC ns.
    pub last_ns: u64,
    /// Bytes that the refused calls should have unmapped and did not. A retry of the range refused last counts once,
    /// and takes its bytes back when it succeeds; memory that goes in another way later is not taken back.
    pub kept_bytes: u64,
    /// How much the last of them added to `kept_bytes`.
    pub last_kept: u64,
}

/// What makes two failures the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// Which call.
    pub call: call::Call,
    /// Positive errno (brk: ENOMEM by convention, the kernel gives none).
    pub errno: u8,
    /// `CLASS_*` bits.
    pub class: u32,
}

impl GroupKey {
    /// One word for a compare-and-swap; never 0.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        1 << 63 | (self.call as u64) << 40 | (self.errno as u64) << 32 | self.class as u64
    }

    /// Reads [`GroupKey::pack`] back; `None` for an unused entry.
    pub const fn unpack(key: u64) -> Option<Self> {
        if key >> 63 == 0 {
            return None;
        }
        Some(Self { call: (key >> 40) as u8, errno: (key >> 32) as u8, class: key as u32 })
    }
}

/// [`GroupKey::class`], low 4 bits: where map_count stood when the call took the lock, as [`relative_to_max`].
pub const CLASS_MC0_MASK: u32 = 0xf;
/// Next 4 bits: where it stood when the call let the lock go.
pub const CLASS_MC1_SHIFT: u32 = 4;
/// The call was seen to take the mmap lock for writing, and the figures of that section are the failure's own.
pub const CLASS_SECTION: u32 = 1 << 8;
/// mmap: MAP_FIXED or MAP_FIXED_NOREPLACE was asked for.
pub const CLASS_FIXED: u32 = 1 << 9;
/// mremap: MREMAP_MAYMOVE was given.
pub const CLASS_MAYMOVE: u32 = 1 << 10;
/// mremap: the new length is larger than the old one. brk: the break should grow.
pub const CLASS_GROWS: u32 = 1 << 11;
/// `total_vm` + the asked pages exceed RLIMIT_AS (mm/mmap.c:may_expand_vm).
pub const CLASS_OVER_AS: u32 = 1 << 12;
/// `data_vm` + the asked pages exceed RLIMIT_DATA.
pub const CLASS_OVER_DATA: u32 = 1 << 13;
/// `locked_vm` + the asked pages exceed RLIMIT_MEMLOCK.
pub const CLASS_OVER_MEMLOCK: u32 = 1 << 14;
/// The last search for a free range within the call found none (mmap:vm_unmapped_area).
pub const CLASS_NO_HOLE: u32 = 1 << 15;
/// A search for a free range was made within the call.
pub const CLASS_SEARCHED: u32 = 1 << 16;
/// Another thread used the section table's entry meanwhile: the figures of the lock section are lost.
pub const CLASS_SECTION_LOST: u32 = 1 << 17;
/// Another thread's search stands in the entry: whether this call made one is not known.
pub const CLASS_SEARCH_LOST: u32 = 1 << 18;
/// vm.max_map_count is the one that user space read last ([`Control::max_map_count`]), not the one of this moment.
pub const CLASS_LIMIT_POLLED: u32 = 1 << 19;

/// The range that the call was about was looked at, and is as it was when the call was refused.
pub const CLASS_LOOKED: u32 = 1 << 29;
/// It has a part that is not mapped.
pub const CLASS_GAP: u32 = 1 << 20;
/// Its start lies inside a mapping.
pub const CLASS_CUT_START: u32 = 1 << 21;
/// Its end lies inside a mapping.
pub const CLASS_CUT_END: u32 = 1 << 22;
/// It lies in a single mapping; with [`CLASS_GAP`]: nothing is mapped at its very start.
pub const CLASS_ONE: u32 = 1 << 23;
/// RLIMIT_DATA applies: mmap asks for private writable memory; the mapping that mremap should enlarge is such; none of
/// what mprotect makes writable was such.
pub const CLASS_COUNTS: u32 = 1 << 24;
/// The same for overcommit accounting.
pub const CLASS_CHARGED: u32 = 1 << 25;
/// All of it is already as the call wants it: mprotect's protection, locked, not locked. mremap: what follows the range
/// is mapped.
pub const CLASS_DONE: u32 = 1 << 26;
/// Overcommit accounting was seen to refuse the call.
pub const CLASS_OVERCOMMIT_REFUSED: u32 = 1 << 27;
/// brk was seen to come as far as making the heap larger, past the search for what is in its way.
pub const CLASS_HEAP_REACHED: u32 = 1 << 28;
/// mmap: MAP_HUGETLB was asked for.
pub const CLASS_HUGE: u32 = 1 << 31;
/// mremap: MREMAP_FIXED or MREMAP_DONTUNMAP was given.
pub const CLASS_TARGETED: u32 = 1 << 30;
/// mremap: MREMAP_DONTUNMAP was given. (The bit of [`CLASS_HUGE`]: other calls, other meaning.)
pub const CLASS_KEEPS: u32 = 1 << 31;

/// What the flags ask for, as far as it changes which checks the kernel makes: refusals that differ in it are of
/// different kinds. `a2`, `a3`: third and fourth argument.
#[inline(always)]
pub const fn asked_for(id: call::Call, a2: u64, a3: u64) -> u32 {
    const PROT_WRITE: u64 = 2;
    const MAP_TYPE: u64 = 0xf;
    const MAP_PRIVATE: u64 = 2;
    const MAP_FIXED_OR_NOREPLACE: u64 = 0x10 | 0x10_0000;
    const MAP_ANONYMOUS: u64 = 0x20;
    const MAP_GROWSDOWN: u64 = 0x100;
    const MAP_NORESERVE: u64 = 0x4000;
    const MAP_HUGETLB: u64 = 0x4_0000;
    const MREMAP_MAYMOVE: u64 = 1;
    const MREMAP_FIXED: u64 = 2;
    const MREMAP_DONTUNMAP: u64 = 4;
    let mut class = 0;
    if id == call::MMAP {
        if a3 & MAP_FIXED_OR_NOREPLACE != 0 {
            class |= CLASS_FIXED;
        }
        if a3 & MAP_HUGETLB != 0 {
            class |= CLASS_HUGE;
        }
        // mm/mmap.c:do_mmap, accountable_mapping. Strict accounting ignores MAP_NORESERVE: user space knows the mode.
        let private_writable = a3 & MAP_TYPE == MAP_PRIVATE && a2 & PROT_WRITE != 0;
        if private_writable && a3 & MAP_GROWSDOWN == 0 {
            class |= CLASS_COUNTS;
        }
        let shared_memory = a3 & MAP_TYPE != MAP_PRIVATE && a3 & MAP_ANONYMOUS != 0;
        if (private_writable || shared_memory) && a3 & (MAP_NORESERVE | MAP_HUGETLB) == 0 {
            class |= CLASS_CHARGED;
        }
    }
    if id == call::MREMAP {
        if a3 & MREMAP_MAYMOVE != 0 {
            class |= CLASS_MAYMOVE;
        }
        if a3 & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 {
            class |= CLASS_TARGETED;
        }
        if a3 & MREMAP_DONTUNMAP != 0 {
            class |= CLASS_KEEPS;
        }
    }
    class
}

/// `map_count` relative to the limit in 4 bits: 0 = 7 or more below max, 7 = at max, 8 = max + 1, 9 = more.
#[inline(always)]
pub const fn relative_to_max(map_count: u32, max: u32) -> u32 {
    if map_count + 7 <= max {
        0
    } else if map_count > max + 1 {
        9
    } else {
        map_count + 7 - max
    }
}

/// State of one address space, kept by the kernel side, read by user space through shared memory.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MmSlot {
    /// `SLOT_*`.
    pub state: u32,
    /// `MM_*` bits.
    pub flags: u32,
    /// Number of this use of a slot, unique in a session and rising: tells reused slots and mm addresses apart.
    pub generation: u64,
    /// Process (thread group) id in the initial pid namespace.
    pub tgid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// Start of the process, CLOCK_BOOTTIME ns (task_struct.start_boottime of the leader).
    pub start_boottime_ns: u64,
    /// Name of the process: at birth, after exec, and again at its end.
    pub comm: [u8; COMM_LEN],
    /// Real user id.
    pub uid: u32,
    /// map_count when first seen.
    pub first: u32,
    /// map_count after the last change.
    pub last: u32,
    /// Largest map_count that a completed change left behind.
    pub peak: u32,
    /// First seen, CLOCK_MONOTONIC ns.
    pub born_ns: u64,
    /// When the peak was reached, CLOCK_MONOTONIC ns.
    pub peak_ns: u64,
    /// When the address space was torn down, or 0; CLOCK_MONOTONIC ns.
    pub dead_ns: u64,
    /// Changes of map_count seen.
    pub changes: u64,
    /// The range that was refused to be unmapped last, as a mark, with the index of its [`FailureGroup`] in the low 4
    /// bits; 0 = none.
    pub kept_range: u64,
    /// How often a gap in the numbers of its write sections showed that a change of it was missed.
    pub gaps: u64,
    /// mm.mm_lock_seq after the last write section that was seen.
    pub sequence: u32,
    /// Not used; keeps what follows aligned.
    pub reserved: u32,
    /// What each call did.
    pub calls: [CallStat; CALL_COUNT],
    /// Failures by kind.
    pub failures: [FailureGroup; GROUPS],
}

/// Everything that can go missing, by reason; each counts occurrences since the session's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Lost {
    /// Records that found the ring buffer full (details only: peaks and counters are not in the ring).
    pub ring_full: u64,
    /// Address spaces that found no free slot: these are not in the report.
    pub table_full: u64,
    /// Failures beyond [`GROUPS`] kinds in one address space: counted per call, without a cause.
    pub groups_full: u64,
    /// Reads of kernel memory that failed.
    pub read_failed: u64,
    /// Failures whose lock section or search for addresses was overwritten by another thread.
    pub section_lost: u64,
    /// User stacks that could not be taken.
    pub stack_missing: u64,
    /// Processes that found the table of followed processes full.
    pub tree_full: u64,
    /// Address spaces whose end was not seen.
    pub death_missed: u64,
    /// Children whose birth was seen only by the program that cannot find their address space, and whose first count
    /// is therefore the one after their first change.
    pub birth_missed: u64,
    /// Gaps in the numbers that the kernel gives to the write sections of an address space: each stands for one or more
    /// releases of the lock that no program saw.
    pub changes_missed: u64,
}

/// One page shared between user space and the programs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Control {
    /// vm.max_map_count as user space last read it; see [`Config::max_map_count_at`].
    pub max_map_count: u32,
    /// Always 0, which the verifier does not know; see `unknown_zero` in vmaudit-ebpf.
    pub zero: u32,
    /// Uses of slots so far; the next one's generation.
    pub generation: u64,
    /// Where the next search for a free slot begins.
    pub cursor: u64,
    /// Loss counters.
    pub lost: Lost,
    /// How often the programs themselves took and released an mmap lock for reading.
    pub looks: u64,
}

/// Entry of the table of followed processes, by tgid.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Followed {
    /// `FOLLOW_*` bits.
    pub flags: u32,
    /// Not used; makes the value one word.
    pub reserved: u32,
}

/// [`Followed::flags`]: followed since its birth.
pub const FOLLOW_FROM_BIRTH: u32 = 1;
/// [`Followed::flags`]: our own child before its exec; its first image is not the workload's.
pub const FOLLOW_AFTER_EXEC: u32 = 2;
/// [`Followed::flags`]: followed since its birth, but the count that it was born with is not known. Ends with an exec.
pub const FOLLOW_LATE: u32 = 4;

/// The last lock section of a task, for the failure that may follow it at the call's exit.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Section {
    /// Task id that wrote the entry last, also after the end of its call, so that whoever wrote before it can tell;
    /// 0 = none.
    pub tid: u32,
    /// The call it was in; 0 after the end of that call.
    pub call: u32,
    /// map_count before the section.
    pub mc0: u32,
    /// map_count at its end.
    pub mc1: u32,
    /// mm.total_vm, pages.
    pub total_vm: u64,
    /// mm.locked_vm, pages.
    pub locked_vm: u64,
    /// mm.data_vm, pages.
    pub data_vm: u64,
    /// Result of the last search for a free range (negative errno or address); 0 = none made in this call.
    pub searched: u64,
    /// Index of the address space's slot.
    pub slot: u32,
    /// Task id that wrote `searched`, like `tid`; 0 = none.
    pub searcher: u32,
    /// mm.mm_lock_seq within the section, 0 where the kernel has none.
    pub lock_sequence: u32,
    /// `PROBE_*` bits seen by `prober`.
    pub probes: u32,
    /// Task id that wrote `probes`; 0 = none.
    pub prober: u32,
    /// The call it was in.
    pub probed_call: u32,
}

/// Byte offsets of kernel structure members, from BTF; [`ABSENT`] where this kernel lacks one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// mm_struct.map_count (or vma_count).
    pub mm_map_count: u32,
    /// mm_struct.total_vm.
    pub mm_total_vm: u32,
    /// mm_struct.locked_vm.
    pub mm_locked_vm: u32,
    /// mm_struct.data_vm.
    pub mm_data_vm: u32,
    /// mm_struct.mmap_lock.count (rw_semaphore); bit 0 = held for writing.
    pub mm_lock_count: u32,
    /// mm_struct.start_brk.
    pub mm_start_brk: u32,
    /// mm_struct.mm_users; [`ABSENT`] counts as several.
    pub mm_users: u32,
    /// task_struct.mm.
    pub task_mm: u32,
    /// task_struct.pid.
    pub task_pid: u32,
    /// task_struct.tgid.
    pub task_tgid: u32,
    /// task_struct.start_boottime.
    pub task_start_boottime: u32,
    /// task_struct.group_leader.
    pub task_group_leader: u32,
    /// task_struct.real_parent.
    pub task_real_parent: u32,
    /// task_struct.signal.
    pub task_signal: u32,
    /// task_struct.comm.
    pub task_comm: u32,
    /// task_struct.exit_code.
    pub task_exit_code: u32,
    /// Word whose [`Layout::compat_mask`] bits say that the task is in a 32-bit call.
    pub task_compat: u32,
    /// See [`Layout::task_compat`].
    pub compat_mask: u32,
    /// signal_struct.live.
    pub signal_live: u32,
    /// signal_struct.rlim.
    pub signal_rlim: u32,
    /// pt_regs: number of the system call.
    pub regs_nr: u32,
    /// pt_regs: the six arguments as they were passed.
    pub regs_args: [u32; 6],
    /// pt_regs: stack pointer, where x86 has the return address on entry to a function; [`ABSENT`] with `regs_lr`.
    pub regs_sp: u32,
    /// pt_regs: link register; [`ABSENT`] where there is none.
    pub regs_lr: u32,
    /// linux_binprm.filename.
    pub bprm_filename: u32,
    /// task_struct.cred.
    pub task_cred: u32,
    /// cred.cap_effective; its low word holds CAP_IPC_LOCK.
    pub cred_cap_effective: u32,
    /// mm_struct.mm_lock_seq: changes with each end of a write section (6.4 and later).
    pub mm_lock_seq: u32,
    /// 1 where mm_lock_seq changes with each begin of a write section as well (6.14 and later), else 0.
    pub mm_lock_seq_begins: u32,
    /// vm_area_struct.vm_start.
    pub vma_start: u32,
    /// vm_area_struct.vm_end.
    pub vma_end: u32,
    /// vm_area_struct.vm_flags.
    pub vma_flags: u32,
    /// What a mapped file is; all [`ABSENT`] if any is.
    pub file: FileLayout,
}

/// See [`Layout`]; for the mappings below stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FileLayout {
    /// vm_area_struct.vm_pgoff.
    pub vma_pgoff: u32,
    /// vm_area_struct.vm_file.
    pub vma_file: u32,
    /// file.f_path.mnt.
    pub mnt: u32,
    /// file.f_path.dentry.
    pub dentry: u32,
    /// file.f_inode.
    pub inode: u32,
    /// inode.i_ino.
    pub inode_number: u32,
    /// inode.i_ctime, seconds.
    pub inode_changed_s: u32,
    /// inode.i_ctime, nanoseconds.
    pub inode_changed_ns: u32,
    /// dentry.d_name.name.
    pub dentry_name: u32,
    /// dentry.d_parent.
    pub dentry_parent: u32,
    /// vfsmount.mnt_root.
    pub mnt_root: u32,
    /// mount.mnt.
    pub mount_mnt: u32,
    /// mount.mnt_parent.
    pub mount_parent: u32,
    /// mount.mnt_mountpoint.
    pub mount_mountpoint: u32,
}

/// [`Section::probes`]: overcommit accounting refused.
pub const PROBE_OVERCOMMIT_REFUSED: u32 = 1;
/// [`Section::probes`]: brk came as far as making the heap larger.
pub const PROBE_HEAP_REACHED: u32 = 2;

/// "This kernel does not have the member."
pub const ABSENT: u32 = u32::MAX;

/// Loader's choices, frozen before the programs load.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Where the kernel keeps vm.max_map_count; 0 = not known, [`Control::max_map_count`] has to do.
    pub max_map_count_at: u64,
    /// Follow every process instead of the table of followed ones.
    pub watch_all: u32,
    /// Children of followed processes are followed.
    pub follow_children: u32,
    /// Every change goes to the ring buffer.
    pub stream_changes: u32,
    /// Every failure goes to the ring buffer, not only the first [`EXAMPLES_PER_GROUP`] of a kind.
    pub stream_failures: u32,
    /// Slots in the table of address spaces, a power of two.
    pub slots: u32,
    /// Failing calls carry their user stack.
    pub failure_stacks: u32,
    /// Bytes per page as a shift.
    pub page_shift: u32,
    /// Which process ids must not be followed: our own.
    pub self_tgid: u32,
    /// Offset of `child_pid` in the record of sched:sched_process_fork, bytes (0 when that form is not used).
    pub fork_child_pid_offset: u32,
    /// The programs' own messages are wanted.
    pub debug: u32,
    /// Exits of calls are watched, so what they need is kept.
    pub calls: u32,
    /// Offset of `old_pid` in the record of sched:sched_process_exec, bytes (0 when that form is not used).
    pub exec_old_pid_offset: u32,
    /// System call number → [`call::Call`].
    pub call_by_number: [u8; NUMBERS],
}

/// [`RecordHeader::kind`]: a [`ChangeRecord`].
pub const RECORD_CHANGE: u32 = 1;
/// [`RecordHeader::kind`]: a [`FailureRecord`].
pub const RECORD_FAILURE: u32 = 2;
/// [`RecordHeader::kind`]: a [`TaskRecord`], a process was born.
pub const RECORD_FORK: u32 = 3;
/// [`RecordHeader::kind`]: a [`TaskRecord`], a process has a new image.
pub const RECORD_EXEC: u32 = 4;
/// [`RecordHeader::kind`]: a [`TaskRecord`], a process ended.
pub const RECORD_EXIT: u32 = 5;
/// [`RecordHeader::kind`]: a [`DeadRecord`], a slot waits to be read.
pub const RECORD_DEAD: u32 = 6;

/// [`RecordHeader::kind`]: an [`AreaRecord`].
pub const RECORD_AREA: u32 = 7;

/// Head of each record in the ring buffer.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RecordHeader {
    /// `RECORD_*`.
    pub kind: u32,
    /// Process id.
    pub tgid: u32,
    /// Task id.
    pub tid: u32,
    /// Not used.
    pub reserved: u32,
    /// CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// [`MmSlot::generation`] of the address space, or 0.
    pub generation: u64,
}

/// One change of map_count.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ChangeRecord {
    /// Kind [`RECORD_CHANGE`].
    pub head: RecordHeader,
    /// map_count before.
    pub before: u32,
    /// map_count after.
    pub after: u32,
    /// [`call::Call`].
    pub call: u32,
    /// Not used.
    pub reserved: u32,
    /// Name of the task that made the change.
    pub comm: [u8; COMM_LEN],
}

/// One refused call.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FailureRecord {
    /// Kind [`RECORD_FAILURE`].
    pub head: RecordHeader,
    /// [`call::Call`].
    pub call: u32,
    /// Positive errno.
    pub errno: u32,
    /// `CLASS_*`.
    pub class: u32,
    /// vm.max_map_count as the programs knew it.
    pub max_map_count: u32,
    /// Return value as the kernel gave it.
    pub ret: i64,
    /// The six arguments.
    pub args: [u64; 6],
    /// The lock section, valid with [`CLASS_SECTION`].
    pub section: Section,
    /// RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK soft limits, bytes.
    pub rlimits: [u64; 4],
    /// mm.start_brk, bytes.
    pub start_brk: u64,
    /// First address of the range that is not mapped, with [`CLASS_GAP`].
    pub hole: u64,
    /// Name of the task.
    pub comm: [u8; COMM_LEN],
    /// Where the wrapper of the call returns to, if it keeps nothing on the stack; else any word. 0 = not read. The
    /// walk over frame pointers misses this caller, because wrappers have no frame of their own.
    pub caller: u64,
    /// Bytes of `stack` that are valid, or a negative errno.
    pub stack_bytes: i64,
    /// User return addresses, innermost first.
    pub stack: [u64; STACK_FRAMES],
}

/// [`AreaRecord::flags`]: executable.
pub const AREA_EXECUTABLE: u32 = 1;
/// [`AreaRecord::flags`]: of a file.
pub const AREA_FILE: u32 = 2;
/// [`AreaRecord::flags`]: the path reaches up to the root of all mounts, or the file lies in no folder.
pub const AREA_WHOLE_PATH: u32 = 4;

/// What lies at an address of a refused call's stack. Comes before the [`FailureRecord`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct AreaRecord {
    /// Kind [`RECORD_AREA`].
    pub head: RecordHeader,
    /// First address; where nothing is mapped, the address asked for.
    pub start: u64,
    /// Address behind it.
    pub end: u64,
    /// Of `start` in the file, bytes.
    pub offset: u64,
    /// `AREA_*` bits.
    pub flags: u32,
    /// Bytes of `path`, which the record ends behind.
    pub path_bytes: u32,
    /// Of the file.
    pub inode: u64,
    /// When the inode was changed last, seconds of the file's own clock.
    pub changed_s: i64,
    /// Nanoseconds in the low 30 bits, the kernel's own above (fs/inode.c:I_CTIME_QUERIED, 6.13).
    pub changed_ns: u32,
    /// Not used.
    pub reserved: u32,
    /// Names, each with its `\0`: the file's, its folder's, and so on.
    pub path: [u8; PATH_BYTES + NAME_BYTES],
}

/// Birth, exec or end of a process.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TaskRecord {
    /// Kind [`RECORD_FORK`], [`RECORD_EXEC`] or [`RECORD_EXIT`].
    pub head: RecordHeader,
    /// Parent's process id.
    pub ppid: u32,
    /// Exit: the wait status as the kernel keeps it (`exit_code`: status << 8 | signal).
    pub exit_code: u32,
    /// See [`MmSlot::start_boottime_ns`].
    pub start_boottime_ns: u64,
    /// Name.
    pub comm: [u8; COMM_LEN],
    /// Exec: path as it was passed, `\0`-terminated, cut to fit.
    pub filename: [u8; 128],
}

/// A slot reached [`SLOT_DEAD`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct DeadRecord {
    /// Kind [`RECORD_DEAD`].
    pub head: RecordHeader,
    /// Index of the slot.
    pub slot: u64,
}

const _: () = assert!(size_of::<MmSlot>() == 120 + CALL_COUNT * 32 + GROUPS * 48);
const _: () = assert!(GROUPS <= 16, "an index into MmSlot::failures has 4 bits in MmSlot::kept_range");
const _: () = assert!(size_of::<MmSlot>().is_multiple_of(8));
const _: () = assert!(size_of::<Control>() <= 4096);
const _: () = assert!(size_of::<Section>() == 72);
const _: () = assert!(size_of::<RecordHeader>() == 32);
const _: () = assert!(size_of::<FailureRecord>().is_multiple_of(8));
const _: () = assert!(PATH_BYTES.is_power_of_two() && AREAS.is_power_of_two());
const _: () = assert!(SECTIONS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_keys_survive_packing() {
        let key = GroupKey { call: call::MUNMAP, errno: 12, class: CLASS_SECTION | 7 };
        assert_eq!(GroupKey::unpack(key.pack()), Some(key));
        assert_eq!(GroupKey::unpack(0), None);
    }

    #[test]
    fn the_distance_to_the_limit_keeps_every_step_that_decides() {
        let max = 65530;
        for (count, class) in
            [(1, 0), (65523, 0), (65524, 1), (65529, 6), (65530, 7), (65531, 8), (65532, 9), (90000, 9)]
        {
            assert_eq!(relative_to_max(count, max), class, "{count}");
        }
    }
}
