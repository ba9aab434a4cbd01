//! Limits on the number of tasks: which one a call has met, its figures and its words.

use vmaudit_common::{CLASS_TASKS_REACHED, TASK_NUMBERS, TASKS_OF_CGROUP, TASKS_OF_MACHINE, TASKS_OF_USER};

use crate::domain::diagnosis::facts::Facts;
use crate::domain::diagnosis::{Checks, Finding, Reason};
use crate::model::shortage::{TaskFigure, Tasks};
use crate::text::{count, grouped};

/// In the order in which the kernel looks at them (kernel/fork.c:copy_process).
const LIMITS: [(Reason, usize); 4] = [
    (Reason::UserTasks, TASKS_OF_USER),
    (Reason::MachineTasks, TASKS_OF_MACHINE),
    (Reason::TaskNumbers, TASK_NUMBERS),
    (Reason::CgroupTasks, TASKS_OF_CGROUP),
];

/// The limits that allowed no task more when the call had just been refused.
pub(super) fn judge(facts: &Facts<'_>, checks: &mut Checks) {
    let reached = |which: usize| facts.has(CLASS_TASKS_REACHED << which);
    let all = LIMITS.iter().filter(|(_, which)| reached(*which)).count();
    for (reason, which) in LIMITS {
        let finding = match (reached(which), all) {
            // Something refused the call, and nothing else did.
            (true, 1) => Finding::Met,
            (true, _) => Finding::Likely,
            (false, 0) => Finding::No,
            // Looked at before the one that is reached, and not known.
            (false, _) if !facts.tasks_read(which) => Finding::Unlikely,
            (false, _) => Finding::No,
        };
        checks.add(reason, finding);
    }
    if all == 0 {
        checks.add(Reason::Tasks, Finding::Met);
    }
}

/// The figures by name.
pub(super) fn evidence(tasks: &Tasks) -> Vec<(&'static str, Option<u64>)> {
    let both = |figure: Option<TaskFigure>, of: &'static str, limit: &'static str| {
        [(of, figure.map(|figure| figure.count)), (limit, figure.and_then(|figure| figure.limit))]
    };
    let threads = if tasks.machine_at_most { "threads_at_most" } else { "threads" };
    let cgroup = tasks.cgroup.filter(|figure| figure.limit.is_some());
    [
        both(tasks.user, "user_tasks", "rlimit_nproc"),
        both(tasks.machine, threads, "threads_max"),
        both(tasks.numbers, "pids", "pid_max"),
        both(cgroup, "cgroup_tasks", "pids_max"),
    ]
    .concat()
}

/// The verdict in words; `name`: of the call.
pub(super) fn sentence(facts: &Facts<'_>, name: &str, reason: Reason) -> String {
    let Some(tasks) = facts.tasks() else {
        return match reason {
            Reason::Tasks => format!(
                "{name} was refused by a limit on the number of tasks: RLIMIT_NPROC, kernel.threads-max, \
                 kernel.pid_max or pids.max of a cgroup. Which of them cannot be told; vm.max_map_count is \
                 none of them."
            ),
            _ => format!("{name} was refused by a limit on the number of tasks: {}.", phrase(facts, reason)),
        };
    };
    let others: Vec<String> = LIMITS
        .iter()
        .filter(|(other, _)| *other != reason)
        .filter_map(|(other, _)| distance(tasks, *other))
        .collect();
    if reason == Reason::Tasks {
        return format!(
            "{name} was refused by a limit on the number of tasks, and right after that none of them was reached any \
             more: {}. vm.max_map_count is none of them.",
            others.join("; ")
        );
    }
    let mut text = format!("{name} was refused because {}.", reached(tasks, reason));
    if !others.is_empty() {
        text.push_str(&format!(" Beside it: {}.", others.join("; ")));
    }
    text
}

/// "the user had 20 tasks, and RLIMIT_NPROC allows 20".
fn reached(tasks: &Tasks, reason: Reason) -> String {
    let of = |figure: Option<TaskFigure>| {
        let TaskFigure { count, limit, level } =
            figure.unwrap_or(TaskFigure { count: 0, limit: None, level: 0 });
        (count, limit.map_or("any number".to_owned(), grouped), level)
    };
    match reason {
        Reason::UserTasks => {
            let (had, limit, level) = of(tasks.user);
            let whose = match level {
                0 => "its user".into(),
                up => format!("the user who made its user namespace{}", above(up - 1)),
            };
            format!("{whose} had {}, and RLIMIT_NPROC allows {limit}", count(had, "task", "tasks"))
        }
        Reason::MachineTasks => {
            let (had, limit, _) = of(tasks.machine);
            let most = if tasks.machine_at_most { "up to " } else { "" };
            format!(
                "the machine had {most}{}, and kernel.threads-max allows {limit}",
                count(had, "task", "tasks")
            )
        }
        Reason::TaskNumbers => {
            let (had, limit, level) = of(tasks.numbers);
            format!(
                "{} process numbers were in use{}, and kernel.pid_max = {limit} leaves no other (those below 300 are \
                 given out only once)",
                grouped(had),
                if level == 0 {
                    String::new()
                } else {
                    format!(" in the pid namespace {level} above its own")
                }
            )
        }
        _ => {
            let (had, limit, _) = of(tasks.cgroup);
            format!("{} had {}, and its pids.max allows {limit}", cgroup(tasks), count(had, "task", "tasks"))
        }
    }
}

/// A limit that was not reached, with its figures.
fn distance(tasks: &Tasks, reason: Reason) -> Option<String> {
    let most = |figure: TaskFigure| {
        figure.limit.map(|limit| format!("{} of {}", grouped(figure.count), grouped(limit)))
    };
    match reason {
        Reason::UserTasks if tasks.exempt => Some("RLIMIT_NPROC does not bind it".into()),
        Reason::UserTasks => {
            Some(format!("RLIMIT_NPROC {}", most(tasks.user?).unwrap_or_else(|| "is unlimited".into())))
        }
        Reason::MachineTasks => {
            let at_most = if tasks.machine_at_most { "at most " } else { "" };
            Some(format!("kernel.threads-max {at_most}{}", most(tasks.machine?)?))
        }
        Reason::TaskNumbers => Some(format!("kernel.pid_max {}", most(tasks.numbers?)?)),
        Reason::CgroupTasks => Some(match most(tasks.cgroup?) {
            Some(most) => format!("pids.max of {} {most}", cgroup(tasks)),
            None => "pids.max is not set".into(),
        }),
        _ => None,
    }
}

/// Which cgroup.
fn cgroup(tasks: &Tasks) -> String {
    match (&tasks.cgroup_path, tasks.cgroup.map_or(0, |figure| figure.level)) {
        (Some(path), _) => format!("the cgroup {path}"),
        (None, 0) => "its cgroup".into(),
        (None, level) => format!("the cgroup {level} above its own"),
    }
}

fn above(levels: u64) -> String {
    if levels == 0 { String::new() } else { format!(", {levels} above") }
}

/// The limit in a list of candidates.
pub(super) fn phrase(facts: &Facts<'_>, reason: Reason) -> String {
    let limit = |figure: fn(&Tasks) -> Option<TaskFigure>| {
        let figure = facts.tasks().and_then(figure).and_then(|figure| figure.limit);
        figure.map_or(String::new(), |limit| format!(" = {}", grouped(limit)))
    };
    match reason {
        Reason::UserTasks => format!("RLIMIT_NPROC{}", limit(|tasks| tasks.user)),
        Reason::MachineTasks => format!("kernel.threads-max{}", limit(|tasks| tasks.machine)),
        Reason::TaskNumbers => format!("kernel.pid_max{}", limit(|tasks| tasks.numbers)),
        Reason::CgroupTasks => format!("pids.max{} of a cgroup", limit(|tasks| tasks.cgroup)),
        _ => "a limit on tasks".into(),
    }
}

/// What would help.
pub(super) fn cure(facts: &Facts<'_>, reason: Reason) -> String {
    match reason {
        Reason::UserTasks => {
            "Raise RLIMIT_NPROC (ulimit -u, LimitNPROC= of systemd), or run fewer threads and \
                              processes as this user: those of all its sessions count."
                .into()
        }
        Reason::MachineTasks => {
            "Raise kernel.threads-max (sysctl -w kernel.threads-max=N), or run fewer threads.".into()
        }
        Reason::TaskNumbers => {
            "Raise kernel.pid_max (sysctl -w kernel.pid_max=4194304), or run fewer threads and processes."
                .into()
        }
        Reason::CgroupTasks => format!(
            "Raise pids.max of {} (TasksMax= of its systemd unit, --pids-limit of the container), or run fewer \
             threads and processes in it.",
            facts.tasks().map_or("the cgroup".into(), cgroup)
        ),
        _ => "Compare ulimit -u, kernel.threads-max, kernel.pid_max and pids.max of the cgroup with the \
              tasks running."
            .into(),
    }
}
