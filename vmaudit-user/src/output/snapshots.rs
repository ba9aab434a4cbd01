//! Each document in each format, as it is kept in `snapshots/`. A change of them is a change that users and scripts see:
//! `INSTA_UPDATE=always cargo test snapshots` writes them anew, and the difference is read before it is committed.

use super::format::{Document, Format, write};
use super::makers::tests::grown_run;
use super::text::page::Style;
use super::text::tests::{budget_broken, clean_run, clipped_run, nothing, other_cause, proc_source};
use crate::model::report::Report;

fn reports() -> [(&'static str, Report); 6] {
    [
        ("clean", clean_run()),
        ("at the limit", clipped_run()),
        ("another cause", other_cause()),
        ("budget broken", budget_broken()),
        ("sampled", proc_source()),
        ("nothing measured", nothing()),
    ]
}

fn rendered(report: &Report, format: Format, width: usize) -> String {
    let mut out = Vec::new();
    write(&Document::Report(report), format, &Style { width, ..Style::default() }, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn reports_as_text_at_the_widths_of_terminals_and_of_a_pipe() {
    for (name, report) in reports() {
        for width in [80, 100, 120] {
            insta::assert_snapshot!(format!("{name} {width}"), rendered(&report, Format::Text, width));
        }
    }
}

#[test]
fn who_made_the_vmas() {
    for format in [Format::Text, Format::Markdown, Format::Folded, Format::Svg] {
        insta::assert_snapshot!(format!("makers {}", format.name()), rendered(&grown_run(), format, 80));
    }
}

#[test]
fn reports_as_json() {
    for (name, report) in reports() {
        insta::assert_snapshot!(format!("{name} json"), rendered(&report, Format::Json, 100));
    }
}

#[test]
fn reports_as_markdown() {
    for (name, report) in reports() {
        insta::assert_snapshot!(format!("{name} markdown"), rendered(&report, Format::Markdown, 100));
    }
}

/// The small formats; JSON, text and Markdown have tests of their own.
#[test]
fn reports_in_the_formats_of_other_tools() {
    for (name, mut report) in reports() {
        report.processes.truncate(3);
        for format in [Format::Csv, Format::Prom, Format::Junit, Format::Tap, Format::Github, Format::Folded]
        {
            insta::assert_snapshot!(format!("{name} {}", format.name()), rendered(&report, format, 100));
        }
    }
}
