//! How many tasks there were, and were allowed, when a call that makes one was refused.

/// [`TaskCount::pack`]: the figure was read.
const READ: u64 = 1 << 63;
/// See [`TaskCount::special`].
const SPECIAL: u64 = 1 << 62;
/// Bits of a count, and of a limit; a limit of all ones is none.
const BITS: u32 = 28;
const MASK: u64 = (1 << BITS) - 1;
/// Bits of a level.
const LEVELS: u64 = 0x3f;

/// The limits on tasks, in the order in which the kernel looks at them (kernel/fork.c:copy_process; the last in
/// cgroup_can_fork).
pub const TASK_LIMITS: usize = 4;
/// Of the user: RLIMIT_NPROC.
pub const TASKS_OF_USER: usize = 0;
/// Of the machine: kernel.threads-max.
pub const TASKS_OF_MACHINE: usize = 1;
/// Process numbers: kernel.pid_max.
pub const TASK_NUMBERS: usize = 2;
/// Of a cgroup: pids.max.
pub const TASKS_OF_CGROUP: usize = 3;
/// Numbers below this one are given out only once, soon after boot (kernel/pid.c:RESERVED_PIDS).
pub const RESERVED_NUMBERS: u64 = 300;

/// A count of tasks beside its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskCount {
    /// Tasks.
    pub count: u64,
    /// Most of them; `u64::MAX`: any number.
    pub limit: u64,
    /// How far up it was found: 0 is the process's own cgroup, user namespace or pid namespace.
    pub level: u64,
    /// [`TASKS_OF_USER`]: the process is exempt. [`TASKS_OF_MACHINE`]: the count is one of process numbers, so there
    /// are at most so many tasks.
    pub special: bool,
}

impl TaskCount {
    /// One word; never 0.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        let least = |figure: u64| if figure < MASK { figure } else { MASK };
        let level = if self.level < LEVELS { self.level } else { LEVELS };
        READ | if self.special { SPECIAL } else { 0 }
            | level << (2 * BITS)
            | least(self.limit) << BITS
            | least(self.count)
    }

    /// What [`TaskCount::pack`] has made; `None`: it was not read.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Option<Self> {
        if word & READ == 0 {
            return None;
        }
        let limit = word >> BITS & MASK;
        Some(Self {
            count: word & MASK,
            limit: if limit == MASK { u64::MAX } else { limit },
            level: word >> (2 * BITS) & LEVELS,
            special: word & SPECIAL != 0,
        })
    }

    /// No task more is allowed by the limit `which`.
    #[inline(always)]
    pub const fn reached(self, which: usize) -> bool {
        self.room(which) == 0
    }

    /// Tasks that the limit `which` still allows; `u64::MAX`: any number.
    #[inline(always)]
    pub const fn room(self, which: usize) -> u64 {
        let reserved = if which == TASK_NUMBERS { RESERVED_NUMBERS } else { 0 };
        let exempt = which == TASKS_OF_USER && self.special;
        if exempt || self.limit == u64::MAX {
            return u64::MAX;
        }
        self.limit.saturating_sub(self.count + reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_survives_packing() {
        let all = [
            TaskCount { count: 20, limit: 20, level: 0, special: false },
            TaskCount { count: 0, limit: u64::MAX, level: 63, special: true },
            TaskCount { count: 4_194_304, limit: 4_194_304, level: 3, special: false },
        ];
        for count in all {
            assert_eq!(TaskCount::unpack(count.pack()), Some(count));
        }
        assert_eq!(TaskCount::unpack(0), None);
        let huge = TaskCount { count: u64::MAX, limit: 1 << 60, level: 99, special: false }.pack();
        assert_eq!(TaskCount::unpack(huge).map(|count| (count.limit, count.level)), Some((u64::MAX, 63)));
    }

    #[test]
    fn a_limit_is_reached_as_the_kernel_compares_it() {
        let of = |count, limit, special| TaskCount { count, limit, level: 0, special };
        assert!(of(20, 20, false).reached(TASKS_OF_USER) && of(21, 20, false).reached(TASKS_OF_USER));
        assert!(!of(19, 20, false).reached(TASKS_OF_USER) && !of(20, 20, true).reached(TASKS_OF_USER));
        assert!(of(20, 20, true).reached(TASKS_OF_MACHINE));
        assert!(!of(5, u64::MAX, false).reached(TASKS_OF_CGROUP));
        assert!(
            of(32_468, 32_768, false).reached(TASK_NUMBERS)
                && !of(32_467, 32_768, false).reached(TASK_NUMBERS)
        );
    }
}
