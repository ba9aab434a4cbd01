//! Ends of processes: what the kernel side keeps of a signal, and the records about an end.

use bytemuck::{Pod, Zeroable};

use crate::{COMM_LEN, NAME_BYTES, PATH_BYTES, RecordHeader};

/// [`RecordHeader::kind`]: an [`EndRecord`], or a [`KilledRecord`] if the process died of a signal that was seen.
pub const RECORD_END: u32 = 16;
/// [`RecordHeader::kind`]: an [`OomRecord`].
pub const RECORD_OOM: u32 = 17;

/// [`SignalSeen::flags`]: the task that raised it is of the process itself, and what follows is of this task.
pub const SIGNAL_OWN: u32 = 1;
/// [`SignalSeen::flags`]: raised by the processor, at [`SignalSeen::address`].
pub const SIGNAL_FAULT: u32 = 2;
/// [`SignalSeen::flags`]: raised within an exec.
pub const SIGNAL_IN_EXEC: u32 = 4;
/// [`SignalSeen::flags`]: by the OOM killer.
pub const SIGNAL_OOM: u32 = 8;
/// [`SignalSeen::flags`]: somebody looked for the mapping of [`SignalSeen::address`], and found one or none.
pub const SIGNAL_LOOKED: u32 = 16;
/// [`SignalSeen::flags`]: it found one.
pub const SIGNAL_MAPPED: u32 = 32;
/// [`SignalSeen::flags`]: the mapping of the main stack was found.
pub const SIGNAL_STACK: u32 = 64;
/// [`SignalSeen::flags`]: the mapping is of a file, and what is told of that is valid.
pub const SIGNAL_FILE: u32 = 128;
/// [`SignalSeen::flags`]: [`SignalSeen::blocks`] is valid.
pub const SIGNAL_BLOCKS: u32 = 256;

/// A signal whose default action ends the process, as it was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SignalSeen {
    /// See [`crate::MmSlot::start_boottime_ns`]: whose it is.
    pub start_boottime_ns: u64,
    /// CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Number.
    pub signal: u32,
    /// siginfo's `si_code`.
    pub code: i32,
    /// `SIGNAL_*` bits.
    pub flags: u32,
    /// Task that it was raised for.
    pub tid: u32,
    /// Process and task that ran when it was raised.
    pub sender_tgid: u32,
    /// See [`SignalSeen::sender_tgid`].
    pub sender_tid: u32,
    /// Name of that task.
    pub sender_comm: [u8; COMM_LEN],
    /// With [`SIGNAL_FAULT`].
    pub address: u64,
    /// The user's stack pointer, with [`SIGNAL_OWN`]; 0 where it is not known.
    pub sp: u64,
    /// mm.total_vm, pages, with [`SIGNAL_OWN`].
    pub total_vm: u64,
    /// mm.stack_vm, pages, with [`SIGNAL_OWN`].
    pub stack_vm: u64,
    /// mm.start_stack, with [`SIGNAL_OWN`].
    pub start_stack: u64,
    /// mm.env_end, with [`SIGNAL_OWN`].
    pub env_end: u64,
    /// RLIMIT_STACK and RLIMIT_AS, soft, bytes.
    pub rlimits: [u64; 2],
    /// RLIMIT_CPU, soft and hard, seconds.
    pub rlimit_cpu: [u64; 2],
    /// CPU time that the kernel compares with it, ns; 0 where no CPU limit is in force.
    pub cpu_ns: u64,
    /// With [`SIGNAL_STACK`].
    pub stack_start: u64,
    /// With [`SIGNAL_STACK`].
    pub stack_end: u64,
    /// With [`SIGNAL_MAPPED`].
    pub vma_start: u64,
    /// With [`SIGNAL_MAPPED`].
    pub vma_flags: u64,
    /// With [`SIGNAL_FILE`]: of the address in the file, bytes.
    pub file_offset: u64,
    /// With [`SIGNAL_FILE`]: length of the file, bytes.
    pub file_size: u64,
    /// With [`SIGNAL_FILE`]: super_block.s_magic.
    pub file_magic: u64,
    /// Most blocks of the tmpfs that the file lies in, 0 for no limit.
    pub blocks: u64,
}

/// A process has ended.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EndRecord {
    /// Kind [`RECORD_END`].
    pub head: RecordHeader,
    /// See [`crate::MmSlot::start_boottime_ns`].
    pub start_boottime_ns: u64,
    /// As wait() gives it.
    pub status: u32,
    /// The parent's process id.
    pub ppid: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
}

/// A process has died of a signal that was seen.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KilledRecord {
    /// The end.
    pub end: EndRecord,
    /// The signal.
    pub signal: SignalSeen,
}

/// Memory cgroups of a victim that are told, from its own upwards; a power of two.
pub const OOM_LEVELS: usize = 16;
/// [`OomRecord::flags`]: all levels below the root are told.
pub const OOM_WHOLE: u32 = 1;
/// [`OomRecord::flags`]: this kernel says which cgroups have run out of memory just now ([`OomRecord::acting`]).
pub const OOM_SAYS: u32 = 2;
/// [`OomRecord::flags`]: the task that the OOM killer runs in lies within the outermost of these.
pub const OOM_INSIDE: u32 = 4;

/// The OOM killer has chosen a process.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct OomRecord {
    /// Kind [`RECORD_OOM`].
    pub head: RecordHeader,
    /// See [`crate::MmSlot::start_boottime_ns`].
    pub start_boottime_ns: u64,
    /// Inode of the folder of its memory cgroup; 0 where that is not known, and then nothing of what follows is.
    pub cgroup: u64,
    /// How many levels are told.
    pub levels: u32,
    /// `OOM_*` bits.
    pub flags: u32,
    /// Bit N: level N is in the hands of the OOM killer.
    pub acting: u32,
    /// Valid bytes of `path`.
    pub path_bytes: u32,
    /// From its own upwards, the root not counted.
    pub level: [OomLevel; OOM_LEVELS],
    /// Names of these levels, each with its `\0`; the record ends behind the last.
    pub path: [u8; PATH_BYTES + NAME_BYTES],
}

/// A memory cgroup's figures, pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OomLevel {
    /// memory.max, memory.limit_in_bytes.
    pub limit: u64,
    /// In use.
    pub used: u64,
}

/// Where the kernel keeps what [`SignalSeen`] and [`EndRecord`] tell; [`crate::ABSENT`] where it lacks a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndLayout {
    /// signal_struct.flags.
    pub signal_flags: u32,
    /// signal_struct.group_exit_code.
    pub group_exit_code: u32,
    /// signal_struct.cputimer.cputime_atomic.utime.
    pub cpu_user: u32,
    /// signal_struct.cputimer.cputime_atomic.stime.
    pub cpu_system: u32,
    /// task_struct.sighand.
    pub sighand: u32,
    /// sighand_struct.action.
    pub actions: u32,
    /// task_struct.stack: the kernel's.
    pub kernel_stack: u32,
    /// Bytes of pt_regs.
    pub regs_bytes: u32,
    /// pt_regs: the user's stack pointer.
    pub regs_user_sp: u32,
    /// mm_struct.start_stack.
    pub mm_start_stack: u32,
    /// mm_struct.env_start.
    pub mm_env_start: u32,
    /// mm_struct.env_end.
    pub mm_env_end: u32,
    /// inode.i_size.
    pub inode_size: u32,
    /// inode.i_sb.
    pub inode_sb: u32,
    /// super_block.s_magic.
    pub sb_magic: u32,
    /// super_block.s_fs_info.
    pub sb_info: u32,
    /// shmem_sb_info.max_blocks.
    pub shmem_max_blocks: u32,
    /// 1 if the event oom:mark_victim passes the task, 0 if it passes its number (before 6.9; stable kernels differ).
    pub victim_is_task: u32,
    /// css_set.subsys of the memory controller.
    pub cgroups_memory: u32,
    /// cgroup_subsys_state.cgroup.
    pub css_cgroup: u32,
    /// cgroup.kn.
    pub cgroup_kn: u32,
    /// kernfs_node.id, of which 64-bit kernels make the inode number.
    pub kn_id: u32,
    /// kernfs_node.name.
    pub kn_name: u32,
    /// mem_cgroup.memory.usage, from its css on.
    pub css_memory_used: u32,
    /// mem_cgroup.memory.max likewise.
    pub css_memory_limit: u32,
    /// mem_cgroup.oom_lock likewise.
    pub css_oom_lock: u32,
}

const _: () = assert!(OOM_LEVELS.is_power_of_two() && OOM_LEVELS < 32);
const _: () = assert!(size_of::<SignalSeen>() == 208);
