//! Where reports are rendered and where they go. Nothing here opens /proc or decides anything.

pub mod destination;
pub mod explain_text;
pub mod form;
pub mod json;
pub mod limit_text;
pub mod scan_text;
pub mod table;
pub mod text;

use std::io::{self, Write};

use crate::report::Report;
pub use destination::{Destination, Writing};
use text::Style;

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

/// `text` with everything that could steer a terminal (control characters, changes of writing direction) made visible.
/// Names of processes and files come from strangers; every one of them goes through here before it is shown.
pub fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !steers(c) => shown.push(c),
            '\0'..='\u{9f}' => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    shown
}

/// A character that a terminal obeys instead of showing it: controls of both sets, line and paragraph separators,
/// changes of writing direction.
pub fn steers(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// `number` for people: `65,530`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `bytes` for people: `92 KiB`, `1.5 MiB`; one decimal where it is not a whole number.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{} B", grouped(bytes));
    }
    let mut unit = 0;
    // Up a unit when rounding to one decimal would show 1024.0.
    while unit + 1 < UNITS.len() && bytes as f64 / 1024f64.powi(unit as i32 + 1) >= 1023.95 {
        unit += 1;
    }
    let tenths = (bytes as f64 / 1024f64.powi(unit as i32 + 1) * 10.0).round() as u64;
    let name = UNITS.get(unit).unwrap_or(&"EiB");
    if tenths.is_multiple_of(10) {
        format!("{} {name}", grouped(tenths / 10))
    } else {
        format!("{}.{} {name}", grouped(tenths / 10), tenths % 10)
    }
}

/// `one` or `many`, with the number before it: `1 call`, `23 calls`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        assert_eq!(clean("a\x1b[31mb\n\u{9b}c\x7f"), "a\\x1b[31mb\\x0a\\x9bc\\x7f");
        assert_eq!(clean("\u{202e}txt\u{2066}\u{2028}"), "\\u{202e}txt\\u{2066}\\u{2028}");
        assert_eq!(clean("größe 日本"), "größe 日本");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, shown) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (65530, "65,530"), (1234567, "1,234,567")]
        {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn bytes_have_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1,023 B"),
            (4096, "4 KiB"),
            (94208, "92 KiB"),
            (1536 * 1024, "1.5 MiB"),
            (1024 * 1024 - 1, "1 MiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (number, shown) in cases {
            assert_eq!(bytes(number), shown);
        }
    }
}
