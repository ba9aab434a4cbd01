//! What there was, and what was allowed, where a refused call met a limit that is not its process's alone.

use serde::{Deserialize, Serialize};
use vmaudit_common::{
    TASK_LIMITS, TASK_NUMBERS, TASKS_OF_CGROUP, TASKS_OF_MACHINE, TASKS_OF_USER, TaskCount,
};

/// Tasks beside what limits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFigure {
    /// Tasks, or process numbers given out.
    pub count: u64,
    /// The most of them; `None`: any number.
    pub limit: Option<u64>,
    /// How far up it was found: 0 is the process's own cgroup or namespace.
    #[serde(default)]
    pub level: u64,
}

/// How many tasks there were right after a call was refused that makes one. `None` in a field: not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// Of the process's user: RLIMIT_NPROC.
    pub user: Option<TaskFigure>,
    /// That limit does not bind the process: it is root's, or has CAP_SYS_RESOURCE or CAP_SYS_ADMIN.
    #[serde(default)]
    pub exempt: bool,
    /// Of the machine: kernel.threads-max.
    pub machine: Option<TaskFigure>,
    /// The machine has at most so many as its `count`: that is one of process numbers.
    #[serde(default)]
    pub machine_at_most: bool,
    /// Process numbers: kernel.pid_max.
    pub numbers: Option<TaskFigure>,
    /// Of the cgroup that leaves least room: pids.max.
    pub cgroup: Option<TaskFigure>,
    /// That cgroup; `None`: it could not be looked up in time.
    #[serde(default)]
    pub cgroup_path: Option<String>,
}

impl Tasks {
    /// From the words of a record; `None`: nothing was read.
    pub fn of(words: &[u64; TASK_LIMITS]) -> Option<Self> {
        let read = |which: usize| words.get(which).and_then(|word| TaskCount::unpack(*word));
        let figure = |which: usize| {
            read(which).map(|TaskCount { count, limit, level, .. }| TaskFigure {
                count,
                limit: (limit != u64::MAX).then_some(limit),
                level,
            })
        };
        let special = |which: usize| read(which).is_some_and(|count| count.special);
        words.iter().any(|word| *word != 0).then(|| Self {
            user: figure(TASKS_OF_USER),
            exempt: special(TASKS_OF_USER),
            machine: figure(TASKS_OF_MACHINE),
            machine_at_most: special(TASKS_OF_MACHINE),
            numbers: figure(TASK_NUMBERS),
            cgroup: figure(TASKS_OF_CGROUP),
            cgroup_path: None,
        })
    }
}

/// What all processes together were promised, read soon after a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// CommitLimit, bytes.
    pub limit_bytes: u64,
    /// Committed_AS, bytes.
    pub committed_bytes: u64,
    /// How long after the refusal, µs.
    pub after_us: u64,
}

impl Commit {
    /// Bytes by which `asked` exceeds what was left, as far as that was still so when it was read.
    pub fn missing(&self, asked: u64) -> Option<u64> {
        let wanted = self.committed_bytes.saturating_add(asked);
        wanted.checked_sub(self.limit_bytes).filter(|missing| *missing > 0)
    }
}
