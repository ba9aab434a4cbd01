//! What the tasks of each name did in a process.

use std::cmp::Reverse;

use crate::domain::audit::{Audit, Process};
use crate::model::task_names::{TaskFigures, TaskName, TaskNames};

/// Names kept apart of one process.
pub const NAMES: usize = 129;

impl Audit {
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
