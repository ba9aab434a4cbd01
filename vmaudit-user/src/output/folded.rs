//! Folded stacks of refused calls, outermost function first, as flamegraph.pl, inferno and speedscope read them: a line a
//! place, with the number of its refusals at the end.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::report::{Frame, Report};
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::text::clean;

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
    for failure in &report.failures {
        let mut add = |stack: &[Frame], more: Option<&str>, count: u64| {
            let frames = stack.iter().rev().map(name);
            let parts = [name_of(&failure.comm)].into_iter().chain(more.map(str::to_owned)).chain(frames);
            let line = parts.chain([name_of(&failure.syscall)]).collect::<Vec<_>>().join(";");
            let sum = all.entry(line).or_default();
            *sum = sum.saturating_add(count);
        };
        // What belongs to no place that is known: the count may be more than their sum.
        let mut rest = failure.count;
        for site in &failure.sites {
            let count = site.count.min(rest);
            rest -= count;
            add(&site.stack, None, count);
        }
        match (&failure.example, failure.sites.is_empty()) {
            (Some(example), true) => add(&example.stack, None, rest),
            (_, false) if rest == 0 => {}
            _ => add(&[], Some("[places not known]"), rest),
        }
    }
    all.retain(|_, count| *count > 0);
    all
}

/// A function, or where its code is.
fn name(frame: &Frame) -> String {
    let place = || {
        let module = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path))?;
        Some(frame.offset.map_or_else(|| module.to_owned(), |offset| format!("{module}+{offset:#x}")))
    };
    let shown = frame.symbol.clone().or_else(place).or_else(|| frame.ip.clone());
    name_of(&shown.unwrap_or_else(|| "?".to_owned()))
}

/// Nothing that ends a frame or begins the number.
fn name_of(text: &str) -> String {
    clean(text).replace(';', ":")
}
