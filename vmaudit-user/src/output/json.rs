//! JSON, for programs: reports as one document, streams as one object a line.
//!
//! Names come from strangers, and people look at JSON in terminals too. serde_json escapes what JSON demands (below
//! U+0020); here everything that [`crate::text::clean`] makes visible is escaped, so the parsed text is the same.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::output::document::Document;
use crate::output::text::page::Style;

/// Writes `document`, indented, with a newline at its end.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    match document {
        Document::Report(it) => value(it, out),
        Document::Scan(it) => value(it, out),
        Document::Explanation(it, _) => value(it, out),
        Document::Limit(it) => value(it, out),
        Document::Plan(it, _) => value(it, out),
        Document::Known(it) => value(it, out),
        Document::Doctor(it) => value(it, out),
        Document::Difference(it) => value(it, out),
        Document::Fleet(it) => value(it, out),
    }
}

fn value(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *out, Escaping(PrettyFormatter::new())))?;
    out.write_all(b"\n")
}

/// A value on one line, without a newline.
pub fn line(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    // Neither a Vec nor the values used here (string keys, finite numbers) can fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, Escaping(CompactFormatter)));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A formatter that also escapes what steers a terminal.
struct Escaping<F>(F);

/// Passes methods on to the inner formatter.
macro_rules! as_inner {
    ($($method:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $method<W: ?Sized + Write>(&mut self, out: &mut W $(, $argument: $kind)*) -> io::Result<()> {
            self.0.$method(out $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for Escaping<F> {
    as_inner! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| crate::text::sanitize::steers(*c)) {
            let (plain, from) = rest.split_at(at);
            // All of them lie in the first plane.
            write!(out, "{plain}\\u{:04x}", u32::from(c))?;
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Report;
    use crate::output::text::tests::clipped_run;

    #[test]
    fn a_report_survives_json() {
        let report = clipped_run();
        let mut out = Vec::new();
        value(&report, &mut out).unwrap();
        assert!(out.ends_with(b"}\n"));
        let back: Report = serde_json::from_slice(&out).unwrap();
        assert_eq!(back, report);
    }

    #[test]
    fn unknown_is_null_and_a_hostile_name_stays_inside_its_string() {
        let mut report = clipped_run();
        report.processes[0].comm = "\x1b[2J\"\n".into();
        report.processes[0].app = Some("a\u{9b}31m\u{7f}ü\u{202e}".into());
        report.processes[0].exe = None;
        let mut out = Vec::new();
        value(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#""comm": "\u001b[2J\"\n""#));
        assert!(text.contains(r#""exe": null"#));
        assert!(text.contains(r#""app": "a\u009b31m\u007fü\u202e""#), "{text}");
        assert!(!text.chars().any(|c| c != '\n' && crate::text::sanitize::steers(c)));
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn a_line_is_one_line_and_says_the_same() {
        let value = serde_json::json!({"a": ["x\u{85}\ny", {"\u{200e}k": null}], "b": 1.5});
        let text = line(&value);
        assert_eq!(text.lines().count(), 1);
        assert!(!text.chars().any(crate::text::sanitize::steers));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
