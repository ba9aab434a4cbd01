//! From where calls were refused: every refused call once, at its place or at none that is known. And what places are called.

use crate::model::report::{Failure, Frame, Report};
use crate::output::text::page::without_middle;
use crate::text::clean;

/// Columns of a name; demangled ones may be very long.
const NAME: usize = 512;

/// Refused calls of one kind from one place.
pub(crate) struct Place<'a> {
    /// The kind.
    pub(crate) failure: &'a Failure,
    /// The stack, innermost function first; empty where none was taken.
    pub(crate) stack: &'a [Frame],
    /// These calls came from several places of which none is known.
    pub(crate) unknown: bool,
    /// How many.
    pub(crate) count: u64,
    /// First and last, seconds since the session's start; `None` where it is only known for the kind.
    pub(crate) at_s: Option<(f64, f64)>,
}

/// All of them; the sum of their counts is that of the kinds.
pub(crate) fn places(report: &Report) -> impl Iterator<Item = Place<'_>> {
    report.failures.iter().flat_map(of_kind)
}

/// Those of one kind.
pub(crate) fn of_kind(failure: &Failure) -> Vec<Place<'_>> {
    // What belongs to no place that is known: the count may be more than their sum.
    let mut rest = failure.count;
    let mut all = Vec::new();
    for site in &failure.sites {
        let count = site.count.min(rest);
        rest -= count;
        let at_s = Some((site.first_at_s, site.last_at_s));
        all.push(Place { failure, stack: &site.stack, unknown: false, count, at_s });
    }
    let example = failure.example.as_ref().filter(|_| failure.sites.is_empty());
    let stack = example.map_or(&[][..], |example| &example.stack);
    all.push(Place { failure, stack, unknown: example.is_none(), count: rest, at_s: None });
    all.retain(|place| place.count > 0);
    all
}

/// In place of a stack that is not known.
pub(crate) const UNKNOWN: &str = "[places not known]";

/// A function, or where its code is.
pub(crate) fn function(frame: &Frame) -> String {
    let place = || {
        let module = frame.module.as_deref().map(file_name)?;
        Some(frame.offset.map_or_else(|| module.to_owned(), |offset| format!("{module}+{offset:#x}")))
    };
    let shown = frame.symbol.clone().or_else(place).or_else(|| frame.ip.clone());
    named(&shown.unwrap_or_else(|| "?".to_owned()))
}

/// A stranger's name, made safe, without its middle where it is long.
pub(crate) fn named(text: &str) -> String {
    without_middle(&clean(text), NAME)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Site;
    use crate::output::text::tests::clipped_run;

    fn site(count: u64) -> Site {
        Site {
            count,
            first_at_s: 0.1,
            last_at_s: 0.2,
            smallest_bytes: None,
            largest_bytes: None,
            stack: vec![Frame::bare(1)],
            stack_notes: Vec::new(),
        }
    }

    #[test]
    fn every_call_is_at_one_place_whatever_the_sites_say() {
        for (sites, counts) in [
            (vec![], vec![(23, false)]),
            (vec![20], vec![(20, false), (3, true)]),
            (vec![20, 3], vec![(20, false), (3, false)]),
            // A recording may hold any figures.
            (vec![20, u64::MAX], vec![(20, false), (3, false)]),
            (vec![0, 23, 1], vec![(23, false)]),
        ] {
            let mut report = clipped_run();
            report.failures.truncate(1);
            report.failures[0].sites = sites.into_iter().map(site).collect();
            let found: Vec<(u64, bool)> = places(&report).map(|it| (it.count, it.unknown)).collect();
            assert_eq!(found, counts);
        }
    }
}
