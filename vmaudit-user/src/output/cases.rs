//! A session as cases that pass or fail, as test reports have them: one for each demand.

use crate::model::breach::{Breach, Demand};
use crate::model::report::Report;
use crate::text::clean;

/// One case.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    /// Why it failed; empty: it passed.
    pub(crate) broken: Vec<&'a Breach>,
}

/// One for each demand; where nothing was demanded, one that passes: that a session was watched.
pub(crate) fn cases(report: &Report) -> Vec<Case<'_>> {
    let of = |demand: &Demand| Case {
        name: demand.option.clone(),
        broken: report.breaches.iter().filter(|breach| demand.is_broken_by(breach)).collect(),
    };
    let mut all: Vec<Case<'_>> = report.budgets.iter().map(of).collect();
    // Of reports that do not list what held.
    let listed = |breach: &&Breach| report.budgets.iter().any(|demand| demand.is_broken_by(breach));
    for breach in report.breaches.iter().filter(|breach| !listed(breach)) {
        all.push(Case { name: breach.budget.clone(), broken: vec![breach] });
    }
    if all.is_empty() {
        all.push(Case { name: "session watched, nothing demanded".into(), broken: Vec::new() });
    }
    for case in &mut all {
        case.name = clean(&case.name);
    }
    all
}
