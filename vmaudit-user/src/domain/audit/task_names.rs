//! What the tasks of each name did in a process, and which test processes belong to.

use std::cmp::Reverse;

use crate::domain::audit::{Audit, Process};
use crate::domain::task_names::NAMES;
use crate::model::task_names::{TaskFigures, TaskName, TaskNames};
use crate::model::test::{TestOf, WithoutTest};

/// The same of many processes that have no rows of their own.
const NAMES_OF_MANY: usize = 16;

/// Adds what tasks did in one process to what others of their names did in others.
pub fn add_all(sum: &mut Vec<TaskFigures>, others: Vec<TaskFigures>) {
    let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    for mut other in others {
        let known = |sum: &[TaskFigures], name: &Option<String>| sum.iter().position(|it| it.name == *name);
        let mut place = known(sum, &other.name);
        if place.is_none() && other.name.is_some() && sum.len() >= NAMES_OF_MANY {
            (other.name, other.peak) = (None, None);
            place = known(sum, &None);
        }
        match place.and_then(|at| sum.get_mut(at)) {
            Some(it) => {
                it.added = both(it.added, other.added);
                it.removed = both(it.removed, other.removed);
                it.failed = both(it.failed, other.failed);
                it.peak = it.peak.zip(other.peak).map(|(a, b)| a.max(b));
            }
            None => sum.push(other),
        }
    }
}

impl Process {
    /// Nobody knows to which test it belongs, if to any.
    pub(super) fn lacks_its_test(&self) -> bool {
        self.test_unknown && self.test.is_none()
    }
}

impl Audit {
    /// Of a process that has been added up since no test is kept; a session tells before.
    pub(super) fn took_test(&mut self, it: TestOf) {
        let process = self.processes.get_mut(&it.process);
        match (it.without, process) {
            (None, Some(process)) => process.test = Some(it.test),
            // One that has a name may have been asked again, at its next image.
            (Some(WithoutTest::Unknown), Some(process)) => process.test_unknown = true,
            (Some(WithoutTest::Unknown), None) => {
                self.tests_unknown = self.tests_unknown.saturating_add(1);
            }
            (None, None) | (Some(WithoutTest::None), _) => {}
        }
    }

    /// Processes of which nobody knows to which test they belong.
    pub(super) fn tests_unknown(&self) -> u64 {
        let here = self.processes.values().filter(|process| process.lacks_its_test()).count();
        self.tests_unknown.saturating_add(here as u64)
    }

    /// By name, those that did most first, over all address spaces of a process of which at least one had tasks of several
    /// names.
    pub(super) fn tasks_of(&self, process: &Process) -> Vec<TaskFigures> {
        let mut all = TaskNames::default();
        for names in process.mms.iter().filter_map(|mm| mm.tasks.as_deref()) {
            all.take_all(names, NAMES);
        }
        let TaskNames { mut names, others, sampled } = all;
        names.sort_by(|a, b| {
            let order = |it: &TaskName| Reverse(it.added.saturating_add(it.failed));
            order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name))
        });
        let changes = |count: u64| (self.sight.changes && !sampled).then_some(count);
        let figures = |name: Option<String>, it: &TaskName| TaskFigures {
            name,
            added: changes(it.added),
            removed: changes(it.removed),
            failed: self.sight.calls().then_some(it.failed),
            peak: changes(it.peak.into()).filter(|peak| *peak > 0 && !it.overlapped),
        };
        let rest = others.added | others.removed | others.failed != 0;
        names
            .iter()
            .map(|it| figures(Some(it.name.clone()), it))
            .chain(rest.then(|| figures(None, &others)))
            .collect()
    }
}
