//! Who grows steadily, and when that ends at the limit.

use crate::model::report::{Growth, Process, Report};
use crate::output::text::page::name_pid;
use crate::text::{ahead, grouped, rate, total};

/// Processes that will be at the limit soon, the first one first.
fn nearing(report: &Report) -> Vec<(&Process, Growth, f64)> {
    let near = |process: &'_ Process| {
        let growth = process.growth.filter(Growth::foresees)?;
        Some((growth, growth.reaches_limit_in_s.filter(|left| *left > 0.0)?))
    };
    let mut all: Vec<_> = report
        .processes
        .iter()
        .filter_map(|process| near(process).map(|(growth, left)| (process, growth, left)))
        .collect();
    all.sort_by(|a, b| a.2.total_cmp(&b.2));
    all
}

/// For the verdict; `None` where nobody does. `looks`: figures are of a few looks.
pub(crate) fn headline(report: &Report, looks: bool) -> Option<String> {
    let all = nearing(report);
    let (process, growth, left) = all.first()?;
    let limit = report.limits.max_map_count.map_or("the limit".to_owned(), grouped);
    let more = match all.len() - 1 {
        0 => String::new(),
        1 => " 1 other process grows too.".to_owned(),
        others => format!(" {} other processes grow too.", grouped(total([others as u64]))),
    };
    let sampled = if process.map_count.exact && !looks { "" } else { "about " };
    let (grows, full) = match process.ended_s {
        None => ("grows", "it reaches"),
        Some(_) => ("grew", "it would have reached"),
    };
    Some(format!(
        "{} {grows} steadily, by {sampled}{} for {}{}; at that rate {full} {limit} in {}.{more}",
        name_pid(process.peak_comm(), process.pid),
        rate(growth.per_s),
        ahead(growth.over_s.unwrap_or(0.0)),
        if process.ended_s.is_some() { " until it ended" } else { "" },
        ahead(*left),
    ))
}

/// Some process has a figure.
pub(crate) fn known(report: &Report) -> bool {
    report.processes.iter().any(|process| process.growth.is_some())
}

/// `+1,712/s`; empty where nothing grows steadily.
pub(crate) fn cell(process: &Process) -> String {
    process.growth.filter(|growth| growth.steady).map_or(String::new(), |growth| {
        let (factor, unit) = if growth.per_s >= 2.0 { (1.0, "s") } else { (60.0, "min") };
        format!("+{}/{unit}", grouped((growth.per_s * factor).round() as u64))
    })
}
