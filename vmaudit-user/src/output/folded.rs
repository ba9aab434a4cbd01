//! Folded stacks of refused calls, outermost function first, as flamegraph.pl, inferno and speedscope read them: a line a
//! place, with the number of its refusals at the end.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::report::Report;
use crate::output::document::Document;
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

fn stacks(report: &Report) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for place in places(report) {
        let names = names(&place).into_iter().map(|name| name.replace(';', ":"));
        let sum = all.entry(names.collect::<Vec<_>>().join(";")).or_default();
        *sum = sum.saturating_add(place.count);
    }
    all
}

/// The process, its functions from the outermost to the innermost, the call.
pub(crate) fn names(place: &Place<'_>) -> Vec<String> {
    let failure = place.failure;
    let unknown = place.unknown.then(|| UNKNOWN.to_owned());
    let frames = place.stack.iter().rev().map(function);
    [named(&failure.comm)].into_iter().chain(unknown).chain(frames).chain([named(&failure.syscall)]).collect()
}
