//! Folded stacks, outermost function first, as flamegraph.pl, inferno and speedscope read them: refused calls, a line a place,
//! and the VMAs that processes had at their peaks, by who made them. The first frame says which of the two a line counts.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::report::Report;
use crate::output::document::Document;
use crate::output::makers;
use crate::output::places::{Place, UNKNOWN, function, named, places};
use crate::output::text::page::Style;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    for (stack, count) in stacks(report) {
        writeln!(out, "{stack} {count}")?;
    }
    Ok(())
}

/// What a line counts.
const REFUSED: &str = "[refused calls]";
const MADE: &str = "[VMAs at the peak]";

fn stacks(report: &Report) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |what: &str, names: Vec<String>, count: u64| {
        let names = names.into_iter().map(|name| name.replace(';', ":"));
        let stack: Vec<String> = [what.to_owned()].into_iter().chain(names).collect();
        let sum = all.entry(stack.join(";")).or_default();
        *sum = sum.saturating_add(count);
    };
    places(report).for_each(|place| add(REFUSED, names(&place), place.count));
    makers::stacks(report).for_each(|(names, count)| add(MADE, names, count));
    all
}

/// The process, its functions from the outermost to the innermost, the call.
pub(crate) fn names(place: &Place<'_>) -> Vec<String> {
    let failure = place.failure;
    let unknown = place.unknown.then(|| UNKNOWN.to_owned());
    let frames = place.stack.iter().rev().map(function);
    [named(&failure.comm)].into_iter().chain(unknown).chain(frames).chain([named(&failure.syscall)]).collect()
}
