//! How documents are rendered. Nothing here opens a file or decides anything.

mod cases;
mod csv;
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

use crate::text::clean;

/// Says one line on standard error. Errors are ignored: there is nobody left to tell.
pub fn say(message: &str) {
    let line = format!("vmaudit: {}\n", clean(message));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Several lines on standard error, as they are but for what steers a terminal: words of a command line are strangers' too.
pub fn say_lines(text: &str) {
    let lines: String = text.lines().map(|line| clean(line) + "\n").collect();
    let _ = io::stderr().write_all(lines.as_bytes());
}
