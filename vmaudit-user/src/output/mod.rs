//! How documents are rendered. Nothing here opens a file or decides anything.

mod cases;
mod csv;
mod curve;
pub(crate) mod difference;
mod document;
#[cfg(test)]
mod document_tests;
mod exposition;
mod flame;
mod folded;
pub mod format;
mod github;
mod html;
pub mod json;
mod junit;
mod makers;
mod markdown;
pub mod metrics;
mod perfetto;
mod places;
mod pprof;
mod prom;
mod protobuf;
#[cfg(test)]
mod snapshots;
mod svg;
mod tap;
pub mod text;
pub mod top;
mod xml;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::text::clean;

/// Lines on standard error bear their weight for the journal.
static FOR_THE_JOURNAL: AtomicBool = AtomicBool::new(false);

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It is good to know.
    Note,
    /// Something is missing.
    Warning,
    /// It ends.
    Error,
}

/// From now on lines bear their weight as the journal reads it (sd-daemon(3)): `journalctl -p warning` finds them.
pub fn speak_to_the_journal() {
    FOR_THE_JOURNAL.store(true, Ordering::Relaxed);
}

/// Says one line on standard error. Errors are ignored: there is nobody left to tell.
pub fn say(message: &str) {
    say_as(Weight::Note, message);
}

/// The same, with its weight.
pub fn say_as(weight: Weight, message: &str) {
    let _ = io::stderr().write_all(line(FOR_THE_JOURNAL.load(Ordering::Relaxed), weight, message).as_bytes());
}

fn line(for_the_journal: bool, weight: Weight, message: &str) -> String {
    format!("{}vmaudit: {}\n", priority(for_the_journal, weight), clean(message))
}

fn priority(for_the_journal: bool, weight: Weight) -> &'static str {
    match weight {
        _ if !for_the_journal => "",
        Weight::Note => "<6>",
        Weight::Warning => "<4>",
        Weight::Error => "<3>",
    }
}

/// Several lines on standard error, as they are but for what steers a terminal: words of a command line are strangers' too.
pub fn say_lines(weight: Weight, text: &str) {
    let priority = priority(FOR_THE_JOURNAL.load(Ordering::Relaxed), weight);
    let lines: String = text.lines().map(|line| format!("{priority}{}\n", clean(line))).collect();
    let _ = io::stderr().write_all(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_reads_what_a_line_weighs_and_nobody_else_does() {
        assert_eq!(line(true, Weight::Error, "a\n<0>b"), "<3>vmaudit: a\\x0a<0>b\n");
        assert_eq!(line(true, Weight::Note, "a"), "<6>vmaudit: a\n");
        assert_eq!(line(false, Weight::Error, "a"), "vmaudit: a\n");
    }
}
