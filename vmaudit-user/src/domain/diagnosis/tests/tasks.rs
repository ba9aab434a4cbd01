//! Calls that make a task: which limit, and a pid namespace that has ended.

use super::*;
use crate::model::shortage::{TaskFigure, Tasks};

const ALL_READ: u64 = CLASS_TASKS_READ * 0b1111;

fn reached(which: usize) -> u64 {
    ALL_READ | CLASS_TASKS_REACHED << which
}

fn tasks() -> Tasks {
    let figure = |count, limit| Some(TaskFigure { count, limit, level: 0 });
    Tasks {
        user: figure(20, Some(20)),
        machine: figure(194, Some(63_432)),
        machine_at_most: true,
        numbers: figure(194, Some(4_194_304)),
        cgroup: figure(25, Some(100)),
        cgroup_path: Some("/box".into()),
        exempt: false,
    }
}

fn no_task(class: u64, tasks: Option<Tasks>) -> Refused {
    Refused { tasks: tasks.map(Box::new), ..refused(call::CLONE3, EAGAIN, class | CLASS_ASKED, 0, [0; 6]) }
}

fn verdict(class: u64, tasks: Option<Tasks>) -> Verdict {
    with(&no_task(class, tasks), &limits(0), &seeing("6.18.44"))
}

#[test]
fn the_one_limit_that_is_reached_is_certain() {
    for (which, cause) in [
        (TASKS_OF_USER, Cause::RlimitNproc),
        (TASKS_OF_MACHINE, Cause::ThreadsMax),
        (TASK_NUMBERS, Cause::PidMax),
        (TASKS_OF_CGROUP, Cause::PidsMax),
    ] {
        let alone = bare(call::CLONE, EAGAIN, reached(which), &kernel("5.10.0"));
        is(&alone, cause, true);
        assert!(alone.limit_excluded && alone.cure.is_some(), "{alone:?}");
        is(&verdict(reached(which), Some(tasks())), cause, true);
    }
    let verdict = verdict(reached(TASKS_OF_USER), Some(tasks()));
    assert_eq!(
        verdict.sentence,
        "clone3() was refused because its user had 20 tasks, and RLIMIT_NPROC allows 20. Beside it: \
         kernel.threads-max at most 194 of 63,432; kernel.pid_max 194 of 4,194,304; pids.max of the cgroup /box 25 of \
         100."
    );
    let figures = [("user_tasks", 20), ("rlimit_nproc", 20), ("threads_at_most", 194), ("pids_max", 100)];
    for (name, value) in figures {
        assert_eq!(verdict.evidence.get(name), Some(&value), "{name}");
    }
}

#[test]
fn two_limits_that_are_reached_are_both_named() {
    let both = reached(TASKS_OF_USER) | reached(TASKS_OF_CGROUP);
    let verdict = verdict(both, Some(tasks()));
    is(&verdict, Cause::RlimitNproc, false);
    assert!(
        verdict.sentence.contains("Not certain: pids.max = 100 of a cgroup would look the same."),
        "{verdict:?}"
    );
}

#[test]
fn a_limit_that_was_not_read_takes_certainty_from_those_behind_it() {
    let unread = reached(TASKS_OF_CGROUP) & !(CLASS_TASKS_READ << TASKS_OF_MACHINE);
    is(&verdict(unread, Some(tasks())), Cause::PidsMax, false);
    // The kernel would have looked at RLIMIT_NPROC before.
    let unread = reached(TASKS_OF_USER) & !(CLASS_TASKS_READ << TASKS_OF_MACHINE);
    is(&verdict(unread, Some(tasks())), Cause::RlimitNproc, true);
}

#[test]
fn no_limit_that_is_reached_any_more_is_said_with_the_figures() {
    let verdict = verdict(ALL_READ, Some(tasks()));
    is(&verdict, Cause::Unknown, false);
    assert!(verdict.limit_excluded || verdict.cause == Cause::Unknown);
    assert!(
        verdict.sentence.contains("none of them was reached any more: RLIMIT_NPROC 20 of 20; "),
        "{verdict:?}"
    );
    let exempt = Tasks { exempt: true, user: None, cgroup_path: None, ..tasks() };
    let verdict = self::verdict(reached(TASKS_OF_CGROUP), Some(exempt));
    assert!(verdict.sentence.contains("its cgroup had 25 tasks, and its pids.max allows 100"), "{verdict:?}");
    assert!(verdict.sentence.contains("RLIMIT_NPROC does not bind it"), "{verdict:?}");
}

#[test]
fn a_pid_namespace_without_its_first_process_takes_nobody() {
    let rules = seeing("6.18.44");
    let ended = at(20) | CLASS_ASKED | CLASS_INIT_LOOKED | CLASS_NO_INIT;
    let fork = |call, class| with(&refused(call, ENOMEM, class, 20, [0; 6]), &limits(0), &rules);
    is(&fork(call::CLONE, ended), Cause::PidNamespaceEnded, true);
    is(&fork(call::FORK, ended), Cause::PidNamespaceEnded, true);
    // One of its own is made for the child.
    is(&fork(call::CLONE, ended | CLASS_SECOND), Cause::KernelMemory, false);
    // It lives.
    let verdict = fork(call::CLONE, at(20) | CLASS_ASKED | CLASS_INIT_LOOKED);
    is(&verdict, Cause::KernelMemory, false);
    // Strict accounting comes before.
    let example = refused(call::FORK, ENOMEM, ended, 20, [0; 6]);
    is(&with(&example, &limits(2), &rules), Cause::PidNamespaceEnded, false);
}
