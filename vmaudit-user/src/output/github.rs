//! Annotations of GitHub Actions: commands that a step prints, which the run's page shows.
//!
//! It shows 10 of each kind and step and drops the rest without a word, so what is over is told in the last one.

use std::io::{self, Write};

use crate::model::breach::Breach;
use crate::model::report::Report;
use crate::output::cases::blamed;
use crate::output::difference;
use crate::output::document::Document;
use crate::output::text::page::Style;
use crate::output::text::verdict;
use crate::text::{clean, count};

/// Annotations of one kind in a step.
const MOST: usize = 10;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Report(report) => of_report(report, out),
        Document::Difference(it) => difference::annotations(it, out),
        _ => Err(io::Error::other("it is no report")),
    }
}

fn of_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let titles = report.breaches.iter().map(|breach: &Breach| (title(breach), breach.sentence.clone()));
    errors(titles.collect(), out)?;
    // One of each kind is left for the answer.
    for (task, sentence) in blamed(report).take(MOST - 1) {
        writeln!(out, "::warning title={}::{}", property(&format!("vmaudit: task {task}")), data(&sentence))?;
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

/// As many as are shown; the last one says how many are not.
pub(crate) fn errors(all: Vec<(String, String)>, out: &mut dyn Write) -> io::Result<()> {
    let shown = if all.len() > MOST { MOST - 1 } else { all.len() };
    for (title, sentence) in all.iter().take(shown) {
        writeln!(out, "::error title={}::{}", property(title), data(sentence))?;
    }
    match (all.len() - shown) as u64 {
        0 => Ok(()),
        more => {
            let more = format!(
                "{} not shown here: GitHub drops what is over 10",
                count(more, "more is", "more are")
            );
            writeln!(out, "::error title={}::{}", property("vmaudit"), data(&more))
        }
    }
}

/// A command's text: what ends it is written as its number.
pub(crate) fn data(text: &str) -> String {
    clean(text).replace('%', "%25")
}

/// A command's property: neither the end of it nor of the list.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_no_command_and_begin_none() {
        assert_eq!(data("100 %\n::error::x"), "100 %25\\x0a::error::x");
        assert_eq!(property("a: b, c"), "a%3A b%2C c");
    }

    #[test]
    fn no_more_than_are_shown_and_none_is_hidden_without_a_word() {
        for (all, lines) in [(0, 0), (10, 10), (11, 10), (500, 10)] {
            let mut out = Vec::new();
            errors(vec![("t".to_owned(), "s".to_owned()); all], &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), lines);
            assert_eq!(text.contains("not shown here"), all > 10, "{text}");
        }
    }
}
