//! A comparison as cells of a table.

use std::cmp::Reverse;

use crate::model::difference::{Figures, Made, Row};
use crate::output::makers::where_from;
use crate::text::grouped;

/// Heading of [`added`].
pub(crate) const ADDED: &str = "What added the difference (VMAs added in all processes, by call)";

/// Heading of [`made`].
pub(crate) const MADE: &str = "Who made the difference (VMAs of the largest process of each application)";
/// Rows of it.
pub(crate) const MOST_MADE: usize = 12;

/// `java: mmap +18,000, at the peak (200 to 18,200, more)`, and from where; each function in at most so many columns.
pub(crate) fn made(row: &Made, room: usize) -> (String, String) {
    let name = if row.app == row.comm { row.comm.clone() } else { format!("{}: {}", row.app, row.comm) };
    let sign = if row.new < row.old { '-' } else { '+' };
    let of = if row.every_change { "added in all" } else { "at the peak" };
    let (perhaps, either) = match row.perhaps_freed() {
        true => (", perhaps all by what was freed", row.noise),
        false => ("", row.noise.saturating_add(row.freed)),
    };
    let either = if either > 0 { format!(", give or take {}", grouped(either)) } else { String::new() };
    let what = format!(
        "{name}: {} {sign}{} {of} ({} to {}{either}{perhaps}, {})",
        row.syscall,
        grouped(row.new.abs_diff(row.old)),
        grouped(row.old),
        grouped(row.new),
        row.change.word()
    );
    (what, where_from(&row.stack, room).join(" < "))
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::difference::MadeChange;

    #[test]
    fn how_far_a_difference_may_be_wrong_stands_behind_it() {
        let said = |old, new, noise, freed| {
            let (app, comm, syscall) = ("java".to_owned(), "java".to_owned(), "mmap".to_owned());
            let (change, stack, every_change) = (MadeChange::More, Vec::new(), false);
            made(&Made { app, comm, change, syscall, stack, old, new, noise, freed, every_change }, 40).0
        };
        assert_eq!(said(100, 200, 0, 0), "java: mmap +100 at the peak (100 to 200, more)");
        assert_eq!(said(100, 200, 20, 7), "java: mmap +100 at the peak (100 to 200, give or take 27, more)");
        let perhaps =
            "java: mmap +100 at the peak (100 to 200, give or take 20, perhaps all by what was freed, more)";
        assert_eq!(said(100, 200, 20, 80), perhaps);
    }
}
