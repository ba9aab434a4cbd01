//! The report for people: one screen, the verdict first.
//!
//! Order: what happened in one sentence; the processes; what failed and why; what is no incident; what was lost; what
//! to do. Every string that comes from a process goes through [`clean`].

mod changes;
pub(crate) mod coverage;
mod crowd;
mod difference;
mod doctor;
mod ends;
mod failures;
mod fleet;
pub(crate) mod growth;
pub(crate) mod headline;
mod limit;
mod makers;
pub(crate) mod marks;
mod memory;
pub mod page;
pub(crate) mod processes;
mod scan;
mod scan_headline;
pub(crate) mod stack;
mod tests_named;
mod vma_layout;

use std::io::{self, Write};

use crate::model::report::Report;
use crate::output::document::{Document, Done};
use crate::output::text::page::{Colour, Page, Style};
use crate::text::clean;

/// Writes `document` for people.
pub(crate) fn document(document: &Document<'_>, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Report(it) => write(it, style, out),
        Document::Scan(it) => scan::write(it, style, out),
        Document::Explanation(it, verbose) => vma_layout::write(it, *verbose, style, out),
        Document::Limit(it) => limit::write(it, style, out),
        Document::Plan(it, done) => limit::plan(it, *done == Done::Not, style, out),
        Document::Known(it) => limit::known(it, style, out),
        Document::Doctor(it) => doctor::write(it, style, out),
        Document::Difference(it) => difference::write(it, style, out),
        Document::Fleet(it) => fleet::write(it, style, out),
    }
}

/// What a report says first.
pub fn verdict(report: &Report) -> String {
    headline::verdict(report).1
}

/// Which calls were refused, why and from where: a part of a report. Errors: none but those of memory.
pub fn refusals(report: &Report, style: &Style) -> io::Result<String> {
    let mut out = Vec::new();
    let mut page = Page { out: &mut out, style: *style, width: style.width.max(40) };
    failures::failures(report, &mut page)?;
    String::from_utf8(out).map_err(io::Error::other)
}

/// Writes `report` for people.
fn write(report: &Report, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.width.max(40) };
    let (colour, verdict) = headline::verdict(report);
    page.paragraph("vmaudit: ", "  ", &verdict, Some(colour))?;
    for breach in headline::more_breaches(report) {
        page.paragraph("Budget broken: ", "  ", &clean(&breach.sentence), Some(Colour::Red))?;
    }
    page.paragraph("", "  ", &headline::circumstances(report), Some(Colour::Dim))?;
    processes::processes(report, &mut page)?;
    memory::memory(report, &mut page)?;
    ends::ends(report, &mut page)?;
    failures::failures(report, &mut page)?;
    makers::makers(report, &mut page)?;
    changes::changes(report, &mut page)?;
    marks::marks(report, &mut page)?;
    tests_named::tests_named(report, &mut page)?;
    page.blank()?;
    if let Some(answers) = failures::ordinary_answers(report) {
        page.paragraph("No incidents, ordinary answers: ", "  ", &answers, None)?;
    }
    if let Some(recovered) = failures::recovered(report) {
        page.paragraph("Refused and done without, no incidents: ", "  ", &recovered, None)?;
    }
    coverage::coverage(report, &mut page)?;
    coverage::recommendation(report, &mut page)
}

#[cfg(test)]
pub(crate) mod tests;
