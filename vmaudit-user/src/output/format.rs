//! The formats: one table of their names, endings and of the documents that each can show; and what `-o` asks for.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

pub use super::document::{Document, Done, Kind};
use super::text::page::Style;
use super::{csv, folded, github, html, json, junit, markdown, prom, tap, text};
use crate::text::clean;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one document with its schema.
    Json,
    /// For spreadsheets.
    Csv,
    /// For comments and issues.
    Markdown,
    /// For node_exporter's textfile collector.
    Prom,
    /// For CI systems, as a test report.
    Junit,
    /// The same for test harnesses.
    Tap,
    /// Annotations of a run of GitHub Actions.
    Github,
    /// Stacks of refused calls, for flame graphs.
    Folded,
    /// A page in one file.
    Html,
}

type Writer = fn(&Document<'_>, &Style, &mut dyn Write) -> io::Result<()>;

struct Row {
    format: Format,
    name: &'static str,
    /// Of files; the empty one is a name without any.
    endings: &'static [&'static str],
    shows: &'static [Kind],
    writer: Writer,
}

const ALL: &[Kind] = &[
    Kind::Report,
    Kind::Stream,
    Kind::Scan,
    Kind::Explanation,
    Kind::Limit,
    Kind::Plan,
    Kind::Known,
    Kind::Doctor,
    Kind::Difference,
];

/// The table.
const FORMATS: [Row; 10] = [
    Row { format: Format::Text, name: "text", endings: &["", "txt"], shows: ALL, writer: text::document },
    Row { format: Format::Json, name: "json", endings: &["json"], shows: ALL, writer: json::write },
    Row {
        format: Format::Csv,
        name: "csv",
        endings: &["csv"],
        shows: &[Kind::Report, Kind::Scan, Kind::Explanation, Kind::Limit],
        writer: csv::write,
    },
    Row {
        format: Format::Markdown,
        name: "markdown",
        endings: &["md"],
        shows: &[Kind::Report, Kind::Difference],
        writer: markdown::write,
    },
    of_reports(Format::Prom, "prom", &["prom"], prom::write),
    of_reports(Format::Junit, "junit", &["xml"], junit::write),
    of_reports(Format::Tap, "tap", &["tap"], tap::write),
    Row {
        shows: &[Kind::Report, Kind::Difference],
        ..of_reports(Format::Github, "github", &[], github::write)
    },
    of_reports(Format::Html, "html", &["html"], html::write),
    of_reports(Format::Folded, "folded", &["folded"], folded::write),
];

const fn of_reports(
    format: Format,
    name: &'static str,
    endings: &'static [&'static str],
    writer: Writer,
) -> Row {
    Row { format, name, endings, shows: &[Kind::Report], writer }
}

/// Names of the formats in which `kind` can be shown.
pub fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    FORMATS.iter().filter(move |row| row.shows.contains(&kind)).map(|row| row.name)
}

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.name == name).map(|row| row.format)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.name)
    }

    /// It can show such a document. Errors: a sentence that says which formats can.
    pub fn must_show(self, kind: Kind) -> Result<(), String> {
        if self.row().is_some_and(|row| row.shows.contains(&kind)) {
            return Ok(());
        }
        Err(format!("{} cannot show this; {} can", self.name(), among(kind)))
    }

    /// All that can show a report.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_reports() -> impl Iterator<Item = Self> {
        FORMATS.iter().filter(|row| row.shows.contains(&Kind::Report)).map(|row| row.format)
    }

    fn row(self) -> Option<&'static Row> {
        FORMATS.iter().find(|row| row.format == self)
    }
}

/// Writes `document` in one piece, so that it does not mix line by line with what others write. Errors: those of `out`,
/// and a format that cannot show it.
pub fn write(document: &Document<'_>, format: Format, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut whole = Vec::new();
    if let Some(row) = format.row() {
        (row.writer)(document, style, &mut whole)?;
    }
    out.write_all(&whole)?;
    out.flush()
}

/// What one `-o` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Said outright or by the file's ending; `None` for `-`, which is the screen.
    pub format: Option<Format>,
    /// Where; `-` is standard output.
    pub file: PathBuf,
}

/// Understands `FILE`, `FORMAT:FILE` and `-`. Errors, as a sentence: no file, an ending that no format has, a format that
/// cannot show such a document.
pub fn named(asked: &OsStr, kind: Kind) -> Result<Named, String> {
    let outright = FORMATS.iter().find_map(|row| {
        let rest = asked.as_bytes().strip_prefix(row.name.as_bytes())?.strip_prefix(b":")?;
        Some((row.format, Path::new(OsStr::from_bytes(rest))))
    });
    let (format, file) = match outright {
        Some((format, file)) => (Some(format), file),
        None if asked == "-" => (None, Path::new(asked)),
        None => (Some(by_ending(Path::new(asked), kind)?), Path::new(asked)),
    };
    if file.as_os_str().is_empty() {
        return Err("which file?".into());
    }
    if let Some(format) = format {
        format.must_show(kind)?;
    }
    Ok(Named { format, file: file.to_owned() })
}

fn by_ending(file: &Path, kind: Kind) -> Result<Format, String> {
    let ending = file.extension().map(OsStr::to_string_lossy).unwrap_or_default();
    let has = |row: &&Row| row.endings.iter().any(|known| known.eq_ignore_ascii_case(&ending));
    FORMATS.iter().find(has).map(|row| row.format).ok_or_else(|| {
        let (ending, file) = (clean(&ending), clean(&file.to_string_lossy()));
        format!("no format has the ending .{ending}; say which one: {}, as in text:{file}", among(kind))
    })
}

/// `text, json or csv`.
fn among(kind: Kind) -> String {
    let mut names: Vec<&str> = names(kind).collect();
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last.into() } else { format!("{} or {last}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(asked: &str, kind: Kind) -> Result<Option<Format>, String> {
        named(OsStr::new(asked), kind).map(|named| named.format)
    }

    #[test]
    fn the_ending_says_the_format_and_a_name_before_a_colon_says_it_outright() {
        for (asked, format) in [
            ("now", Format::Text),
            ("a.d/now", Format::Text),
            (".hidden", Format::Text),
            ("now.txt", Format::Text),
            ("now.json", Format::Json),
            ("now.JSON", Format::Json),
            ("now.csv", Format::Csv),
            ("csv:now.json", Format::Csv),
            ("json:-", Format::Json),
            ("text:now.log", Format::Text),
            // No format of that name: a file's name.
            ("a:b.json", Format::Json),
            ("/dev/fd/9", Format::Text),
        ] {
            assert_eq!(format_of(asked, Kind::Scan), Ok(Some(format)), "{asked}");
        }
        assert_eq!(named(OsStr::new("csv:a:b"), Kind::Scan).unwrap().file, Path::new("a:b"));
        assert_eq!(format_of("-", Kind::Scan), Ok(None));
    }

    #[test]
    fn what_nobody_knows_or_nothing_can_show_is_refused_with_what_can() {
        let ending = format_of("x\u{1b}.lgo", Kind::Scan).unwrap_err();
        assert_eq!(
            ending,
            "no format has the ending .lgo; say which one: text, json or csv, as in text:x\\x1b.lgo"
        );
        for asked in ["a.csv", "csv:a"] {
            assert!(format_of(asked, Kind::Doctor).unwrap_err().starts_with("csv cannot show this; "));
            assert_eq!(format_of(asked, Kind::Known).unwrap_err(), "csv cannot show this; text or json can");
        }
        assert_eq!(format_of("json:", Kind::Scan).unwrap_err(), "which file?");
    }

    #[test]
    fn names_and_endings_are_each_one_formats() {
        let mut words: Vec<&str> = FORMATS.iter().flat_map(|row| row.endings).copied().collect();
        words.sort_unstable();
        let all = words.len();
        words.dedup();
        assert_eq!(words.len(), all);
        for row in &FORMATS {
            assert_eq!(Format::named(row.name), Some(row.format));
            assert_eq!(row.format.name(), row.name);
        }
    }
}
