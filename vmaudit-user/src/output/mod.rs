//! How documents are rendered. Nothing here opens a file or decides anything.

mod csv;
pub mod format;
pub mod json;
#[cfg(test)]
mod snapshots;
pub mod text;

use std::io::{self, Write};

use crate::model::report::Report;
use crate::text::clean;
pub use format::Format;
use text::page::Style;

// Where `session` and `trace` look for them; goes with the last who does.
pub(crate) use crate::os::destination::{self, Destination, Writing};
pub(crate) mod form;

/// Writes `report`, as [`format::write`] does.
pub fn write(report: &Report, format: Format, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    format::write(&format::Document::Report(report), format, style, out)
}

/// Says one line on standard error. Errors are ignored: there is nobody left to tell.
pub fn say(message: &str) {
    let line = format!("vmaudit: {}\n", clean(message));
    let _ = io::stderr().write_all(line.as_bytes());
}
