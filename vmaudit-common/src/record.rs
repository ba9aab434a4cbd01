//! Records of the ring buffer.

use bytemuck::{Pod, Zeroable};

use crate::{COMM_LEN, NAME_BYTES, PATH_BYTES, STACK_FRAMES, Section, TASK_LIMITS};

/// [`RecordHeader::kind`]: a [`ChangeRecord`].
pub const RECORD_CHANGE: u32 = 1;
/// [`RecordHeader::kind`]: a [`FailureRecord`].
pub const RECORD_FAILURE: u32 = 2;
/// [`RecordHeader::kind`]: an [`ExecRecord`], a process has a new image.
pub const RECORD_EXEC: u32 = 4;
/// [`RecordHeader::kind`]: a [`DeadRecord`], a slot waits to be read.
pub const RECORD_DEAD: u32 = 6;

/// [`RecordHeader::kind`]: a [`MappingRecord`].
pub const RECORD_MAPPING: u32 = 7;

/// [`RecordHeader::kind`]: a [`StackRecord`].
pub const RECORD_STACK: u32 = 8;

/// [`RecordHeader::kind`]: a [`RecordHeader`] alone, see [`crate::LIMIT_NEAR`].
pub const RECORD_LIMIT_NEAR: u32 = 9;

/// [`RecordHeader::kind`]: a [`LeftRecord`].
pub const RECORD_LEFT: u32 = 10;

/// [`RecordHeader::kind`]: an [`EnvironmentRecord`].
pub const RECORD_ENVIRONMENT: u32 = 12;

/// [`LeftRecord::what`]: a call that should have unmapped the range was refused.
pub const LEFT_MAPPED: u32 = 0;
/// [`LeftRecord::what`]: the same, and the range lies in the heap.
pub const LEFT_IN_HEAP: u32 = 1;
/// [`LeftRecord::what`]: a brk was refused that should have made the heap so much smaller.
pub const LEFT_OF_HEAP: u32 = 2;
/// [`LeftRecord::what`]: a call has unmapped, replaced or moved the range.
pub const LEFT_GONE: u32 = 3;
/// [`LeftRecord::what`]: brk was granted, and the heap ends at `start`.
pub const LEFT_BREAK: u32 = 4;

/// A range that should have gone and is left, or one that goes later.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LeftRecord {
    /// Kind [`RECORD_LEFT`].
    pub head: RecordHeader,
    /// First address.
    pub start: u64,
    /// Address behind it.
    pub end: u64,
    /// `LEFT_*`.
    pub what: u32,
    /// Index of the [`crate::FailureGroup`] of a refused call; [`crate::GROUPS`]: it is in none.
    pub group: u32,
}

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
    /// Task id in vmaudit's own pid namespace; 0 where that is the machine's first one.
    pub shown_tid: u32,
    /// CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// [`crate::MmSlot::generation`] of the address space, or 0.
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
    /// [`crate::call::Call`].
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
    /// [`crate::call::Call`].
    pub call: u32,
    /// Positive errno.
    pub errno: u32,
    /// vm.max_map_count as the programs knew it.
    pub max_map_count: u32,
    /// Not used.
    pub reserved: u32,
    /// `CLASS_*`.
    pub class: u64,
    /// Return value as the kernel gave it.
    pub ret: i64,
    /// The six arguments.
    pub args: [u64; 6],
    /// The lock section, valid with [`crate::CLASS_SECTION`].
    pub section: Section,
    /// RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK soft limits, bytes.
    pub rlimits: [u64; 4],
    /// mm.start_brk, bytes.
    pub start_brk: u64,
    /// First address of the range that is not mapped, with [`crate::CLASS_GAP`].
    pub hole: u64,
    /// Calls that make a task: how many there are, see [`crate::TaskCount::pack`]. 0 = not read.
    pub tasks: [u64; TASK_LIMITS],
    /// Name of the task.
    pub comm: [u8; COMM_LEN],
    /// Where the wrapper of the call returns to, if it keeps nothing on the stack; else any word. 0 = not read. The
    /// walk over frame pointers misses this caller, because wrappers have no frame of their own.
    pub caller: u64,
    /// [`crate::Site::key`] of the place that it came from, or 0.
    pub site: u64,
    /// Bytes of `stack` that are valid, or a negative errno.
    pub stack_bytes: i64,
    /// User return addresses, innermost first.
    pub stack: [u64; STACK_FRAMES],
}

/// [`MappingRecord::flags`]: executable.
pub const MAPPING_EXECUTABLE: u32 = 1;
/// [`MappingRecord::flags`]: of a file.
pub const MAPPING_FILE: u32 = 2;
/// [`MappingRecord::flags`]: the path reaches up to the root of all mounts, or the file lies in no folder.
pub const MAPPING_WHOLE_PATH: u32 = 4;

/// What lies at an address of a refused call's stack. Comes before the [`FailureRecord`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MappingRecord {
    /// Kind [`RECORD_MAPPING`].
    pub head: RecordHeader,
    /// First address; where nothing is mapped, the address asked for.
    pub start: u64,
    /// Address behind it.
    pub end: u64,
    /// Of `start` in the file, bytes.
    pub offset: u64,
    /// `MAPPING_*` bits.
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

/// Registers of a [`StackRecord`]: `struct user_pt_regs` of arm64; `struct pt_regs` of x86 is shorter.
pub const REGISTERS: usize = 34;
/// Bytes of a stack in one [`StackRecord`].
pub const STACK_PIECE: usize = 4096;
/// [`StackRecord`]s of one stack at most: 32 KiB wherever in a page it begins.
pub const STACK_PIECES: usize = 9;

/// A piece of the user stack of a refused call, up to the end of a page. The pieces come in order, before the
/// [`FailureRecord`], and have its time and task.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct StackRecord {
    /// Kind [`RECORD_STACK`].
    pub head: RecordHeader,
    /// The stack pointer.
    pub sp: u64,
    /// Address of the first byte.
    pub start: u64,
    /// Bytes of `data`, which the record ends behind.
    pub bytes: u64,
    /// As the kernel keeps them.
    pub registers: [u64; REGISTERS],
    /// What the process keeps there.
    pub data: [u8; STACK_PIECE],
}

/// A process has a new image.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ExecRecord {
    /// Kind [`RECORD_EXEC`].
    pub head: RecordHeader,
    /// See [`crate::MmSlot::start_boottime_ns`].
    pub start_boottime_ns: u64,
    /// Path as it was passed, `\0`-terminated, cut to fit.
    pub filename: [u8; 128],
}

/// Room of the longest environment that is told, bytes; a power of two.
pub const ENVIRONMENT_BYTES: usize = 1 << 14;
/// Room of most; a power of two.
pub const USUAL_ENVIRONMENT_BYTES: usize = 1 << 12;

/// With what environment a new image begins, where a runner of tests is at work, in one of two sizes. Not told of a longer one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EnvironmentRecord<const ROOM: usize = ENVIRONMENT_BYTES> {
    /// Kind [`RECORD_ENVIRONMENT`].
    pub head: RecordHeader,
    /// See [`crate::MmSlot::start_boottime_ns`].
    pub start_boottime_ns: u64,
    /// As in [`ExecRecord`].
    pub filename: [u8; 128],
    /// Valid bytes of `data`; what follows them is anything.
    pub bytes: u64,
    /// `NAME=value`, each with its `\0`.
    pub data: [u8; ROOM],
}

/// A slot reached [`crate::SLOT_DEAD`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct DeadRecord {
    /// Kind [`RECORD_DEAD`].
    pub head: RecordHeader,
    /// Index of the slot.
    pub slot: u64,
}
