//! A comparison as cells of a table.

use std::cmp::Reverse;

use crate::model::difference::{Figures, Row};
use crate::text::grouped;

/// Heading of [`added`].
pub(crate) const ADDED: &str = "What added the difference (VMAs added in all processes, by call)";

/// Application, old and new peak, their difference, refused calls before and now, verdict.
pub(crate) fn cells(row: &Row) -> [String; 7] {
    let peak = |it: &Option<Figures>| match it {
        Some(it) => it.peak.map_or("?".to_owned(), |peak| {
            let (before, behind) = (if it.exact { "" } else { "~" }, if it.clipped { "+" } else { "" });
            format!("{before}{}{behind}", grouped(peak))
        }),
        None => "-".to_owned(),
    };
    let failed = |it: &Option<Figures>| {
        it.as_ref().map_or("-".to_owned(), |it| it.failed.map_or("?".to_owned(), grouped))
    };
    let change = row.peak_percent.map_or(String::new(), |percent| format!("{percent:+.1} %"));
    let verdict = row.change.word().to_owned();
    [row.name(), peak(&row.old), peak(&row.new), change, failed(&row.old), failed(&row.new), verdict]
}

/// `mprotect +18,014 (from 12,000), mmap +20`; `None` when no call added more.
pub(crate) fn added(row: &Row) -> Option<String> {
    let (old, new) = (row.old.as_ref()?, row.new.as_ref()?);
    let before = |call: &str| old.added.get(call).copied().unwrap_or(0);
    let grown = new.added.iter().map(|(call, now)| (now.saturating_sub(before(call)), call));
    let mut grown: Vec<(u64, &String)> = grown.filter(|(more, _)| *more > 0).collect();
    grown.sort_by_key(|(more, call)| (Reverse(*more), *call));
    let told = |(more, call): &(u64, &String)| {
        format!("{call} +{} (from {})", grouped(*more), grouped(before(call)))
    };
    let told: Vec<String> = grown.iter().take(3).map(told).collect();
    (!told.is_empty()).then(|| told.join(", "))
}
