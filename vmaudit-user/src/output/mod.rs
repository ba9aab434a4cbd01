//! How documents are rendered. Nothing here opens a file or decides anything.

mod csv;
mod document;
#[cfg(test)]
mod document_tests;
pub mod format;
pub mod json;
mod markdown;
#[cfg(test)]
mod snapshots;
pub mod text;

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
