//! What vmaudit's eBPF programs and its user side must agree on: records, counters, layout of the shared maps.
//!
//! Deliberately absent: reading of kernel structures (vmaudit-ebpf), decoding and formatting (vmaudit-user).
//! Everything here is `repr(C)`, made of fixed-width integers, without padding and without enums, because the bytes
//! cross from the kernel through shared memory.

#![no_std]

pub mod call;
mod class;
mod end;
mod interval;
mod ledger;
mod load;
mod makers;
mod record;
mod site;
mod task_name;
mod tasks;

use bytemuck::{Pod, Zeroable};

use crate::call::{CALL_COUNT, NUMBERS};
pub use crate::{
    class::*, end::*, interval::*, ledger::*, load::*, makers::*, record::*, site::*, task_name::*, tasks::*,
};

/// Length of a task's name in the kernel, `\0` included (include/linux/sched.h:TASK_COMM_LEN).
pub const COMM_LEN: usize = 16;
/// Places for what calls in progress show; see vmaudit-ebpf/src/current_call.rs.
pub const PLACES: u32 = 8192;
/// How many distinct kinds of failure one address space keeps apart; more are counted in [`Lost::groups_full`].
pub const GROUPS: usize = 16;
/// Most frames kept of a user stack.
pub const STACK_FRAMES: usize = 48;
/// Mappings told of one stack at most.
pub const MAPPINGS: usize = 16;
/// Bytes kept of a mapped file's path; names of its folders that lie further up are left out.
pub const PATH_BYTES: usize = 1024;
/// Longest name in a path with its `\0` (include/uapi/linux/limits.h:NAME_MAX).
pub const NAME_BYTES: usize = 256;
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
/// [`MmSlot::flags`]: processes without an address space of their own have lived in it.
pub const MM_LODGERS: u32 = 16;

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
    /// Where the lock events are not to be had, bytes that the refused calls should have unmapped and did not: a sum, in which
    /// a retry of the range refused last counts once, and takes its bytes back when it succeeds.
    pub leaked_bytes: u64,
    /// How much the last of them added to `leaked_bytes`.
    pub last_leaked: u64,
    /// Of them, those after which the same thread got the like.
    pub recovered: u64,
    /// Places in the table of [`Site`]s that it has taken.
    pub sites: u64,
    /// The largest sizes that they would have needed, where that is more than a limit allows.
    pub needed: Needed,
}

/// What makes two failures the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// Which call.
    pub call: call::Call,
    /// Positive errno (brk: ENOMEM by convention, the kernel gives none).
    pub errno: u8,
    /// `CLASS_*` bits.
    pub class: u64,
}

impl GroupKey {
    /// One word for a compare-and-swap; never 0.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        1 << 63
            | (self.call as u64) << 56
            | (self.errno as u64) << CLASS_BITS
            | self.class & ((1 << CLASS_BITS) - 1)
    }

    /// Reads [`GroupKey::pack`] back; `None` for an unused entry.
    pub const fn unpack(key: u64) -> Option<Self> {
        if key >> 63 == 0 {
            return None;
        }
        Some(Self {
            call: (key >> 56) as u8 & 0x3f,
            errno: (key >> CLASS_BITS) as u8,
            class: key & ((1 << CLASS_BITS) - 1),
        })
    }
}
/// Sizes of an address space when a write section ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Figures {
    /// Number of the section as [`MmSlot::sequence`]; [`Figures::UNKNOWN`]: not known.
    pub sequence: u32,
    /// Not used.
    pub reserved: u32,
    /// mm.total_vm, pages.
    pub total_vm: u64,
    /// mm.data_vm, pages.
    pub data_vm: u64,
    /// mm.exec_vm, pages.
    pub exec_vm: u64,
}

impl Figures {
    /// No section has such a number: that of one that has ended is even.
    pub const UNKNOWN: u32 = 1;
}

/// Sizes of an address space that have limits of their own, pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sizes {
    /// mm.total_vm; RLIMIT_AS.
    pub total: u64,
    /// mm.data_vm; RLIMIT_DATA.
    pub data: u64,
    /// mm.locked_vm; RLIMIT_MEMLOCK.
    pub locked: u64,
    /// mm.stack_vm; RLIMIT_STACK limits each stack that grows, this is the sum of all.
    pub stack: u64,
}

/// The largest sizes that refused calls would have needed, each call by itself: what was in use and what was asked for,
/// pages; 0 = none was refused for more than the limit allows. What a call would have replaced is counted too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Needed {
    /// RLIMIT_AS.
    pub total: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_MEMLOCK.
    pub locked: u64,
}

/// Bits of an address below the units of a hull.
const HULL_SHIFT: u32 = 16;

/// From where to where the addresses `start` up to `end` lie, in one word for a compare-and-swap: the first and the last
/// unit of 64 KiB. Never 0.
#[inline(always)]
pub const fn hull_of(start: u64, end: u64) -> u64 {
    let first = least_32_bits(start >> HULL_SHIFT);
    let last = least_32_bits(end.wrapping_sub(1) >> HULL_SHIFT);
    first << 32 | last | 1
}

/// The number, or all 32 bits set if it is larger. Without a branch, of which older verifiers follow both ways to the end.
#[inline(always)]
const fn least_32_bits(number: u64) -> u64 {
    // All bits set where there is more.
    let more = ((number >> 32).wrapping_neg() as i64 >> 63) as u64;
    (number | more) & 0xffff_ffff
}

/// The hull of both; 0: of none.
#[inline(always)]
pub const fn hull_of_both(one: u64, other: u64) -> u64 {
    if one == 0 {
        return other;
    }
    let (first, last) = (one >> 32, one & 0xffff_ffff);
    let (other_first, other_last) = (other >> 32, other & 0xffff_ffff);
    let first = if other_first < first { other_first } else { first };
    first << 32 | if other_last > last { other_last } else { last }
}

/// Whether two hulls have something in common; with 0 nothing has.
#[inline(always)]
pub const fn hulls_meet(one: u64, other: u64) -> bool {
    one != 0 && other != 0 && one >> 32 <= other & 0xffff_ffff && other >> 32 <= one & 0xffff_ffff
}

/// What a task was seen to do within one write section of its own address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SeenInSection {
    /// mm.mm_lock_seq within the section, which is odd; 0: nothing was seen yet.
    pub sequence: u32,
    /// Id of the task.
    pub tid: u32,
    /// What the probes saw.
    pub probes: u32,
    /// Not used.
    pub reserved: u32,
    /// Result of the last search for a free range; 0: none was made.
    pub searched: u64,
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
    /// Where the lock events are not to be had, the range that was refused to be unmapped last, as a mark, with the index of
    /// its [`FailureGroup`] in the low 4 bits; 0 = none.
    pub leaked_range: u64,
    /// From where to where ranges lie that were refused to be unmapped, see [`hull_of`]; 0 = there are none.
    pub left_hull: u64,
    /// [`LeftRecord`]s about it that were due, sent or not: of ranges that a refused call left mapped.
    pub left_records: u64,
    /// Likewise, of ranges that went away behind that.
    pub gone_records: u64,
    /// How often a gap in the numbers of its write sections showed that a change of it was missed.
    pub gaps: u64,
    /// mm.mm_lock_seq after the last write section that was seen.
    pub sequence: u32,
    /// Whose share of the table it counts in: index in the table of [`Share`]s + 1, or 0 for nobody's.
    pub share: u32,
    /// Threads whose last memory call was refused, at least: it may count some that are past that. Processes that live in it
    /// count too.
    pub waiting: u64,
    /// What `mm` had at the end of the write section with the number `figures_sequence`, pages; see
    /// vmaudit-ebpf/src/answer.rs.
    pub figures: Figures,
    /// The largest sizes that were seen, each by itself.
    pub most: Sizes,
    /// What was seen in one write section, and by whom.
    pub seen: SeenInSection,
    /// Of a process that lives in the address space of another, the generation of that one: this slot has its refusals, and
    /// no changes. 0: an address space.
    pub host: u64,
    /// Index of the host's slot.
    pub host_slot: u32,
    /// Process id of the host.
    pub host_tgid: u32,
    /// Process id in vmaudit's own pid namespace; 0 where that is the machine's first one.
    pub shown_tgid: u32,
    /// The parent's, likewise; 0 also where that is outside.
    pub shown_ppid: u32,
    /// `sequence` as the last walk over all tasks found it to be the true one, + 1; 0: it did not.
    pub verified: u64,
    /// Who is credited with what it has.
    pub makers: Makers,
    /// Which names its tasks have.
    pub names: Names,
    /// Entries of the table of [`LedgerEntry`]s that were taken.
    pub ledger: u64,
    /// Between two programs, under the lock: the count before a change in the upper half, in the second byte the call, and in
    /// the first one whether its answer is to be asked for.
    pub ledger_change: u64,
    /// How high the count was in each of the last intervals.
    pub cells: [Cell; CELLS],
    /// What each call did.
    pub calls: [CallStat; CALL_COUNT],
    /// Failures by kind.
    pub failures: [FailureGroup; GROUPS],
}

/// Everything that can go missing, by reason; each counts occurrences since the session's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Lost {
    /// Records that found the ring buffer full, or their user's share of it (details only: peaks and counters are not in
    /// the ring).
    pub ring_full: u64,
    /// Address spaces that found no free slot, or none in their user's share: these are not in the report. One that changes
    /// tries again, and is counted again.
    pub table_full: u64,
    /// Failures beyond [`GROUPS`] kinds in one address space: counted per call, without a cause.
    pub groups_full: u64,
    /// Reads of kernel memory that failed.
    pub read_failed: u64,
    /// Failures of which it is not known whether they had a lock section or a search for addresses: both places for what
    /// a call shows were taken when it, or another task of the same set, had something to keep.
    pub section_lost: u64,
    /// User stacks that could not be taken.
    pub stack_missing: u64,
    /// Copies of user stacks that were left out or cut short because the ring buffer is needed for other records.
    pub stack_copy_missing: u64,
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
    /// Calls of which it is not known whether they were refused: their answer could not be asked for, or what came was not
    /// theirs.
    pub answers_lost: u64,
    /// Signals that found the table of last signals full: who sent them is not known.
    pub signals_full: u64,
    /// [`MakerRecord`]s that found the ring buffer full, or their user's share of it: what they would have credited is
    /// nobody's.
    pub credits_lost: u64,
    /// Changes that found no room among the [`LedgerEntry`]s.
    pub ledger_full: u64,
    /// Changes whose place was not found because another task took the processor meanwhile.
    pub ledger_disturbed: u64,
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
    /// Slots that are not free.
    pub slots_in_use: u64,
    /// Slots that wait to be read and freed by user space.
    pub slots_dead: u64,
    /// When the reader was last woken for news that can wait, CLOCK_MONOTONIC ns.
    pub woken_ns: u64,
    /// How often the programs themselves took and released an mmap lock for reading.
    pub looks: u64,
    /// kernel.threads-max as user space last read it, 0: not known.
    pub max_threads: u32,
    /// kernel.pid_max likewise.
    pub pid_max: u32,
    /// Slots of processes that live in the address space of another.
    pub lodgers: u64,
    /// `LIMIT_*` bits, set by the programs.
    pub limits_met: u32,
    /// Set by user space when refusals that let no lock go are watched, see `LIMIT_NEAR`.
    pub watched: u32,
    /// Set by user space before the last walk over all tasks, which begins nothing and only looks, see
    /// [`MmSlot::verified`].
    pub last_walk: u64,
    /// Number of the interval that runs, see [`Cell`]; user space begins the next one. From 1 on.
    pub interval: u64,
}

/// [`Control::limits_met`]: a limit is near whose refusals let no lock go, so that answers must be watched at the exits of
/// calls.
pub const LIMIT_NEAR: u32 = 1;
/// [`Control::limits_met`]: such a limit on tasks was reached before that.
pub const LIMIT_ON_TASKS_MET: u32 = 2;
/// [`Control::limits_met`]: vm.max_map_count was, in a kernel whose mremap checks it without the lock.
pub const LIMIT_ON_VMAS_MET: u32 = 4;

/// What one user has taken of the table of address spaces and of the ring buffer, which all users share when every
/// process is followed. As long as others are there too, nobody gets more than half of what they leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Share {
    /// Real user id + 1; 0 = unused. The first entry is that of all users who found no other.
    pub user: u64,
    /// Slots that are not free.
    pub slots: u64,
    /// Bytes of the ring buffer that may not have been read yet.
    pub ring_bytes: u64,
    /// Position in the ring buffer behind the last of them.
    pub ring_end: u64,
    /// How often an address space was not followed because the user had as many slots as were free. Each change of one
    /// that is not followed tries again.
    pub slots_denied: u64,
    /// Records that were dropped because the user had as much of the ring buffer as was free.
    pub records_denied: u64,
}

/// Entries of the table of [`Share`]s.
pub const SHARES: u32 = 256;

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

/// What a refused call has shown: its last write section of the mmap lock, and its last search for a free range.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Section {
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
}

const _: () = assert!(size_of::<MmSlot>() == 432 + CALL_COUNT * 32 + GROUPS * 88);
const _: () = assert!(GROUPS <= 16, "an index into MmSlot::failures has 4 bits in MmSlot::leaked_range");
const _: () = assert!(size_of::<MmSlot>().is_multiple_of(8));
const _: () = assert!(size_of::<Control>() <= 4096);
const _: () = assert!(size_of::<Section>() == 40);
const _: () = assert!(size_of::<RecordHeader>() == 32);
const _: () = assert!(size_of::<FailureRecord>().is_multiple_of(8));
const _: () = assert!(STACK_PIECE.is_power_of_two());
const _: () = assert!(PATH_BYTES.is_power_of_two() && MAPPINGS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_keys_survive_packing() {
        let key = GroupKey { call: call::ARCH_PRCTL, errno: 133, class: CLASS_SECTION | CLASS_ASKED | 7 };
        assert_eq!(GroupKey::unpack(key.pack()), Some(key));
        assert_eq!(GroupKey::unpack(0), None);
    }

    #[test]
    fn hulls_hold_what_they_are_made_of() {
        const PAGE: u64 = 4096;
        let low = hull_of(0x1000, 0x2000);
        let high = hull_of(0x7fff_ffff_0000, 0x7fff_ffff_0000 + PAGE);
        let beyond = hull_of(1 << 56, (1 << 56) + PAGE);
        assert!([low, high, beyond].into_iter().all(|hull| hull != 0 && hulls_meet(hull, hull)));
        assert!(!hulls_meet(low, high) && !hulls_meet(0, low) && !hulls_meet(low, 0));
        let both = hull_of_both(hull_of_both(0, high), low);
        assert!(
            hulls_meet(both, low) && hulls_meet(both, high) && hulls_meet(both, hull_of(1 << 40, 1 << 41))
        );
        assert!(!hulls_meet(both, hull_of(0x7fff_ffff_0000 + (1 << 16), u64::MAX)));
        assert!(hulls_meet(beyond, hull_of(1 << 20, u64::MAX)));
    }
}
