//! The report for people: one screen, the verdict first.
//!
//! Order: what happened in one sentence; the processes; what failed and why; what is no incident; what was lost; what
//! to do. Every string that comes from a process goes through [`clean`].

mod coverage;
mod crowd;
mod failures;
mod headline;
pub mod page;
mod processes;

use std::io::{self, Write};

use crate::model::report::Report;
use crate::output::text::page::{DIM, Page, RED, Style};
use crate::text::clean;

/// Writes `report` for people.
pub fn write(report: &Report, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.width.max(40) };
    let (colour, verdict) = headline::verdict(report);
    page.paragraph("vmaudit: ", "  ", &verdict, Some(colour))?;
    if let Some(breach) = &report.session.breach {
        page.paragraph("Budget broken: ", "  ", &clean(breach), Some(RED))?;
    }
    page.paragraph("", "  ", &headline::circumstances(report), Some(DIM))?;
    processes::processes(report, &mut page)?;
    failures::failures(report, &mut page)?;
    page.blank()?;
    if let Some(answers) = failures::ordinary_answers(report) {
        page.paragraph("No incidents, ordinary answers: ", "  ", &answers, None)?;
    }
    coverage::coverage(report, &mut page)?;
    coverage::recommendation(report, &mut page)
}

#[cfg(test)]
pub(crate) mod tests;
