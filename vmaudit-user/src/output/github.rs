//! Annotations of GitHub Actions: commands that a step prints, which the run's page shows.
//!
//! It shows 10 of each kind and step and drops the rest without a word, so what is over is told in the last one.

mod command;
mod difference;

use std::io::{self, Write};

use self::command::{MOST, data, errors, property};

use crate::model::breach::Breach;
use crate::model::report::Report;
use crate::output::cases::{blamed, blamed_marks, blamed_tests};
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::output::text::verdict;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Report(report) => of_report(report, out),
        Document::Difference(it) => difference::write(it, out),
        _ => Err(io::Error::other("it is no report")),
    }
}

fn of_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let titles = report.breaches.iter().map(|breach: &Breach| (title(breach), breach.sentence.clone()));
    errors(titles.collect(), out)?;
    // One of each kind is left for the answer.
    let marks = blamed_marks(report).map(|(name, sentence)| (format!("vmaudit: {name}"), sentence));
    let tasks = blamed(report).map(|(name, sentence)| (format!("vmaudit: task {name}"), sentence));
    let tests = blamed_tests(report).map(|(name, sentence)| (format!("vmaudit: test {name}"), sentence));
    for (title, sentence) in marks.chain(tests).chain(tasks).take(MOST - 1) {
        writeln!(out, "::warning title={}::{}", property(&title), data(&sentence))?;
    }
    let kind = if report.unrecovered().next().is_some() { "warning" } else { "notice" };
    writeln!(out, "::{kind} title={}::{}", property("vmaudit"), data(&verdict(report)))
}

fn title(breach: &Breach) -> String {
    let what = if breach.shown { "budget broken" } else { "budget not shown to hold" };
    match &breach.comm {
        Some(comm) => format!("vmaudit: {what} by {comm}"),
        None => format!("vmaudit: {what}"),
    }
}
