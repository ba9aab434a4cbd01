//! The report as one JSON document, for programs. serde_json escapes control characters by itself.

use std::io::{self, Write};

use crate::report::Report;

/// Writes `report`, indented, with a newline at its end.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::clipped_run;

    #[test]
    fn a_report_survives_json() {
        let report = clipped_run();
        let mut out = Vec::new();
        write(&report, &mut out).unwrap();
        assert!(out.ends_with(b"}\n"));
        let back: Report = serde_json::from_slice(&out).unwrap();
        assert_eq!(back, report);
    }

    #[test]
    fn unknown_is_null_and_a_hostile_name_stays_inside_its_string() {
        let mut report = clipped_run();
        report.processes[0].comm = "\x1b[2J\"\n".into();
        report.processes[0].exe = None;
        let mut out = Vec::new();
        write(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#""comm": "\u001b[2J\"\n""#));
        assert!(text.contains(r#""exe": null"#));
        assert!(!text.contains('\x1b'));
    }
}
