//! Where reports are rendered and where they go. Nothing here opens /proc or decides anything.

pub mod destination;
#[cfg(test)]
mod document_tests;
pub mod explain_text;
pub mod form;
pub mod json;
pub mod limit_text;
pub mod scan_text;
#[cfg(test)]
mod snapshots;
pub mod table;
pub mod text;

use std::io::{self, Write};

use crate::model::report::Report;
use crate::text::clean;
pub use destination::{Destination, Writing};
use text::page::Style;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Writes `report` in one piece, so that a report and the workload's own messages do not mix line by line.
pub fn write(report: &Report, format: Format, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut whole = Vec::new();
    match format {
        Format::Text => text::write(report, style, &mut whole)?,
        Format::Json => json::write(report, &mut whole)?,
    }
    out.write_all(&whole)?;
    out.flush()
}

/// Says one line on standard error. Errors are ignored: there is nobody left to tell.
pub fn say(message: &str) {
    let line = format!("vmaudit: {}\n", clean(message));
    let _ = io::stderr().write_all(line.as_bytes());
}
