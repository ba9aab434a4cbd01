//! The formats: one table of their names, endings and of the documents that each can show; and what `-o` asks for.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

pub use super::document::{Document, Done, Kind};
use super::text::page::Style;
use super::{csv, folded, github, html, json, junit, markdown, perfetto, pprof, prom, svg, tap, text};
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
    /// The same stacks as a picture.
    Svg,
    /// The same as a profile for pprof.
    Pprof,
    /// A trace for ui.perfetto.dev.
    Perfetto,
}

type Writer = fn(&Document<'_>, &Style, &mut dyn Write) -> io::Result<()>;

struct Row {
    format: Format,
    name: &'static str,
    /// Of files; the empty one is a name without any.
    endings: &'static [&'static str],
    shows: &'static [Kind],
    /// People can read it, at least in part.
    text: bool,
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
    Kind::Fleet,
];

/// The table.
const FORMATS: [Row; 13] = [
    Row { shows: ALL, ..of_reports(Format::Text, "text", &["", "txt"], text::document) },
    Row { shows: ALL, ..of_reports(Format::Json, "json", &["json"], json::write) },
    Row {
        shows: &[Kind::Report, Kind::Scan, Kind::Explanation, Kind::Limit],
        ..of_reports(Format::Csv, "csv", &["csv"], csv::write)
    },
    Row {
        shows: &[Kind::Report, Kind::Difference],
        ..of_reports(Format::Markdown, "markdown", &["md"], markdown::write)
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
    of_reports(Format::Svg, "svg", &["svg"], svg::write),
    Row { text: false, ..of_reports(Format::Pprof, "pprof", &["pb.gz"], pprof::write) },
    Row { text: false, ..of_reports(Format::Perfetto, "perfetto", &["perfetto-trace"], perfetto::write) },
];

const fn of_reports(
    format: Format,
    name: &'static str,
    endings: &'static [&'static str],
    writer: Writer,
) -> Row {
    Row { format, name, endings, shows: &[Kind::Report], text: true, writer }
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

    /// People can read it, at least in part; else it is no use on a terminal.
    pub fn is_text(self) -> bool {
        self.row().is_none_or(|row| row.text)
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

/// The same piece by piece, to where nobody sees any of it before its end.
pub fn write_unseen(
    document: &Document<'_>,
    format: Format,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    /// Bytes kept until they are written: of a thousand processes the whole has millions.
    const PIECE: usize = 1 << 16;
    let mut out = BufWriter::with_capacity(PIECE, out);
    if let Some(row) = format.row() {
        (row.writer)(document, style, &mut out)?;
    }
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
    let found = FORMATS.iter().find(|row| row.endings.iter().any(|ending| has_ending(file, ending)));
    found.map(|row| row.format).ok_or_else(|| {
        let ending = clean(&file.extension().map(OsStr::to_string_lossy).unwrap_or_default());
        let file = clean(&file.to_string_lossy());
        format!("no format has the ending .{ending}; say which one: {}, as in text:{file}", among(kind))
    })
}

/// Its name ends so; the empty ending is a name without any.
fn has_ending(file: &Path, ending: &str) -> bool {
    let Some(name) = file.file_name().filter(|_| !ending.is_empty()) else {
        return file.extension().is_none();
    };
    let Some(length) = name.len().checked_sub(ending.len() + 1).filter(|length| *length > 0) else {
        return false;
    };
    let (_, last) = name.as_bytes().split_at(length);
    last.split_first().is_some_and(|(dot, last)| *dot == b'.' && last.eq_ignore_ascii_case(ending.as_bytes()))
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
            // Two words, or one with a dash.
            ("a.pb.gz", Format::Pprof),
            ("a.b.PB.GZ", Format::Pprof),
            ("a.perfetto-trace", Format::Perfetto),
            // No format of that name: a file's name.
            ("a:b.json", Format::Json),
            ("/dev/fd/9", Format::Text),
        ] {
            let kind = if format.must_show(Kind::Scan).is_ok() { Kind::Scan } else { Kind::Report };
            assert_eq!(format_of(asked, kind), Ok(Some(format)), "{asked}");
        }
        for asked in ["a.gz", ".pb.gz", "pb.gz", "xpb.gz"] {
            assert!(format_of(asked, Kind::Report).is_err(), "{asked}");
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
