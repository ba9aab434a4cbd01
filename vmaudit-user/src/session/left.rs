//! What a session has left in a file: its recording, or its report as JSON. Either may come from anybody.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::path::Path;

use serde::Deserialize;

use super::replay::replay;
use crate::domain::recommend::MarginError;
use crate::domain::report::report;
use crate::model::event::Cut;
use crate::model::report::{Process, Report, SCHEMA, VERSION};
use crate::model::unreadable::NotCounted;
use crate::os::input::{self, Input};
use crate::source::recording::{ReadError, Reader};

/// Bytes of a JSON report; one of 100,000 rows has half of it.
const MOST_JSON: u64 = 256 << 20;
/// Bytes of memory that it may take; one of 100,000 rows takes half of it, and `{}` as a list's element many times its own
/// two.
const MOST: u64 = 1 << 30;
/// Of an object, and of a value in a list or an object, about.
const OBJECT: u64 = 150;
const VALUE: u64 = 32;

/// A report, and what is missing from it.
#[derive(Debug)]
pub struct Left {
    /// The report.
    pub report: Report,
    /// Where the recording ends before its session did.
    pub cut: Option<Cut>,
}

/// Why a file gives no report.
#[derive(Debug)]
pub enum NoReport {
    /// The file cannot be read.
    Io(io::Error),
    /// It begins as a recording, and is none that can be read.
    Recording(ReadError),
    /// It begins as JSON, and is no report: the sentence says what it is.
    Json(String),
    /// Its header asks for a margin that is refused.
    Margin(MarginError),
    /// It is neither.
    Other,
}

impl fmt::Display for NoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "{e}"),
            Self::Recording(e) => write!(f, "{e}"),
            Self::Json(why) => write!(f, "{why}"),
            Self::Margin(e) => write!(f, "{e}"),
            Self::Other => write!(f, "it is no recording of vmaudit, and no report of it in JSON"),
        }
    }
}

impl std::error::Error for NoReport {}

impl From<io::Error> for NoReport {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Reads `file` (`-` is standard input), whatever its name. Errors: see [`NoReport`].
pub fn read(file: &Path) -> Result<Left, NoReport> {
    let (Input::File(file) | Input::Stream(file)) = input::open(file)?;
    let mut bytes = BufReader::new(file);
    match bytes.fill_buf()?.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {
            let mut text = Vec::new();
            bytes.take(MOST_JSON + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MOST_JSON {
                return Err(NoReport::Json("it is larger than any report: more than 256 MiB of JSON".into()));
            }
            if taken(&text) > MOST {
                let why = "it is no report: what it tells takes more than 1 GiB of memory";
                return Err(NoReport::Json(why.into()));
            }
            of_json(&text).map(|report| Left { report, cut: None })
        }
        _ => of_recording(bytes),
    }
}

fn of_recording(bytes: impl Read) -> Result<Left, NoReport> {
    let recording = Reader::new(bytes).map_err(|e| match e {
        ReadError::NotOne => NoReport::Other,
        ReadError::Io(e) => NoReport::Io(e),
        e => NoReport::Recording(e),
    })?;
    let (header, audit) = replay(recording)?;
    let report = report(&header, &audit).map_err(NoReport::Margin)?;
    Ok(Left { report, cut: audit.cut() })
}

/// Bytes of memory that a document takes, about.
fn taken(text: &[u8]) -> u64 {
    let (mut bytes, mut in_string, mut escaped) = (text.len() as u64, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => bytes += OBJECT,
            b',' if !in_string => bytes += VALUE,
            _ => {}
        }
    }
    bytes
}

/// What a document says of itself.
#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
    version: Option<u32>,
    /// Only a scan has it.
    total_vmas: Option<u64>,
}

/// Understands a report of this version or an older one. Errors: [`NoReport::Json`].
pub fn of_json(text: &[u8]) -> Result<Report, NoReport> {
    let broken = |e: serde_json::Error| {
        NoReport::Json(if e.is_eof() {
            format!("its JSON is cut off (line {}, column {})", e.line(), e.column())
        } else {
            format!("it is no report of vmaudit in JSON: {e}")
        })
    };
    let Head { schema, version, total_vmas } = serde_json::from_slice(text).map_err(broken)?;
    let wrong = match (schema.as_deref(), version) {
        (Some(SCHEMA), _) if total_vmas.is_some() => {
            "it is what scan found at one moment, no report of a session: jq reads it".to_owned()
        }
        (Some(SCHEMA), Some(version)) if version <= VERSION => String::new(),
        (Some(SCHEMA), Some(version)) => {
            format!(
                "a newer vmaudit wrote it (version {version}; this one reads up to {VERSION}): read it with that one"
            )
        }
        (Some(other), _) => format!("it is JSON of another kind ({other}), no {SCHEMA}"),
        (None, _) => format!("it is JSON of another kind, no {SCHEMA}"),
    };
    if !wrong.is_empty() {
        return Err(NoReport::Json(wrong));
    }
    let mut report: Report = serde_json::from_slice(text).map_err(broken)?;
    report.host.cut_name();
    modernise(&mut report);
    Ok(report)
}

/// In version 1 processes that could not be counted had rows without figures.
fn modernise(report: &mut Report) {
    if report.version >= 2 {
        return;
    }
    report.version = VERSION;
    let uncounted = |row: &Process| row.map_count.peak.is_none() && row.unreadable.is_some();
    let (without, with) = mem::take(&mut report.processes).into_iter().partition(uncounted);
    report.processes = with;
    let rows: Vec<Process> = without;
    report.not_counted.extend(rows.into_iter().map(|row| NotCounted {
        pid: row.pid,
        comm: Some(row.comm),
        uid: row.uid,
        user: row.user,
        reason: row.unreadable.unwrap_or_default(),
        forbidden: false,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::format::{Document, Format, write};
    use crate::output::text::page::Style;
    use crate::output::text::tests::{
        budget_broken, clean_run, clipped_run, nothing, other_cause, proc_source,
    };

    fn rendered(report: &Report, format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Document::Report(report), format, &Style::default(), &mut out).unwrap();
        out
    }

    fn said(text: &str) -> String {
        of_json(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_report_in_json_gives_the_same_bytes_in_every_format() {
        for report in [budget_broken(), clean_run(), clipped_run(), nothing(), other_cause(), proc_source()] {
            let again = of_json(&rendered(&report, Format::Json)).unwrap();
            for format in Format::of_reports() {
                assert_eq!(rendered(&again, format), rendered(&report, format), "{format:?}");
            }
        }
    }

    #[test]
    fn a_name_that_no_machine_has_is_cut() {
        let mut report = clean_run();
        report.host.name = Some("n".repeat(1000));
        let again = of_json(&rendered(&report, Format::Json)).unwrap();
        assert_eq!(again.host.name, Some("n".repeat(255)));
    }

    /// Two bytes can be a frame of a stack: a file of some MB would be told as gigabytes.
    #[test]
    fn what_a_document_takes_is_weighed_before_it_is_understood() {
        let frames = |n: usize| format!(r#"{{"stack":[{}]}}"#, vec!["{}"; n].join(","));
        let frame = size_of::<crate::model::report::Frame>() as u64;
        let taken_by = |n: usize| taken(frames(n).as_bytes());
        assert!(
            (1000 * frame..2 * 1000 * frame).contains(&(taken_by(1001) - taken_by(1))),
            "{}",
            taken_by(1001)
        );
        assert_eq!(taken(br#"{"a":"{{,,\"{,\\","b":1}"#), 24 + OBJECT + VALUE, "not within texts");
        let report = rendered(&budget_broken(), Format::Json);
        assert!(taken(&report) < 5 * report.len() as u64, "{} of {}", taken(&report), report.len());
        let file = std::env::temp_dir().join(format!("vmaudit-heavy-{}", std::process::id()));
        std::fs::write(&file, frames(MOST as usize / (OBJECT + VALUE) as usize)).unwrap();
        let said = read(&file).unwrap_err().to_string();
        assert_eq!(said, "it is no report: what it tells takes more than 1 GiB of memory");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn rows_without_figures_of_version_1_are_not_counted() {
        let mut report = clean_run();
        report.processes.truncate(2);
        report.version = 1;
        report.processes[1].map_count = Default::default();
        report.processes[1].unreadable = Some("may not be read".into());
        let mut old = serde_json::to_value(&report).unwrap();
        old.as_object_mut().unwrap().remove("not_counted");
        let again = of_json(old.to_string().as_bytes()).unwrap();
        assert_eq!((again.processes.len(), again.version), (1, VERSION));
        assert_eq!(again.not_counted[0].reason, "may not be read");
    }

    #[test]
    fn what_is_no_report_is_told_what_it_is() {
        assert_eq!(
            said(r#"{"schema":"vmaudit.limit"}"#),
            "it is JSON of another kind (vmaudit.limit), no vmaudit.report"
        );
        assert_eq!(said(r#"{"a":1}"#), "it is JSON of another kind, no vmaudit.report");
        assert!(
            said(r#"{"schema":"vmaudit.report","version":3}"#)
                .starts_with("a newer vmaudit wrote it (version 3;")
        );
        assert!(
            said(r#"{"schema":"vmaudit.report","version":2,"total_vmas":1}"#)
                .starts_with("it is what scan found")
        );
        assert!(
            said(r#"{"schema":"vmaudit.report","version":2"#).starts_with("its JSON is cut off (line 1, ")
        );
        assert!(said(r#"{"schema":"vmaudit.report","version":2}"#).contains("missing field"));
        let folder = std::env::temp_dir().join(format!("vmaudit-left-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("x");
        std::fs::write(&file, "hello").unwrap();
        let no = |path: &Path| read(path).unwrap_err().to_string();
        assert_eq!(no(&file), "it is no recording of vmaudit, and no report of it in JSON");
        assert_eq!(no(&folder), "it is a directory, no regular file");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
