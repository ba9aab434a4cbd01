//! `vmaudit report`: the report of a recording, again.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::cli::{ReportArgs, ReportFormat};
use crate::domain::report;
use crate::output::destination::open_each;
use crate::output::form::Form;
use crate::output::text::page::Style;
use crate::output::{self, Destination, Format};
use crate::session::replay::replay;
use crate::source::recording::Reader;

/// `vmaudit report`. Returns the exit status: 1 when the recording is damaged or cut, after what it holds was shown.
pub fn show(args: &ReportArgs) -> anyhow::Result<i32> {
    let formats: Vec<Format> = args
        .format
        .iter()
        .map(|format| match format {
            ReportFormat::Json => Format::Json,
            ReportFormat::Text => Format::Text,
        })
        .collect();
    let of_name = |file: Option<&Path>| match file.map(Form::of) {
        Some(Form::Json) => Format::Json,
        _ => Format::Text,
    };
    let mut outputs = open_each(&formats, &args.output, of_name, || Destination::Stdout)?;
    let shown = args.file.display();
    let recording =
        Reader::new(BufReader::new(open(&args.file)?)).with_context(|| format!("cannot read {shown}"))?;
    let (header, audit) = replay(recording).with_context(|| format!("cannot read {shown}"))?;
    let report = report::report(&header, &audit)?;
    for (format, destination, _) in &mut outputs {
        let style = Style {
            colour: destination.colour(),
            width: destination.columns().unwrap_or(100),
            top: args.top,
        };
        output::write(&report, *format, &style, destination).context("the report could not be written")?;
    }
    if let Some(cut) = audit.cut() {
        let why = if cut.damaged { "is damaged" } else { "ends before its session did" };
        output::say(&format!("{shown} {why}: the report holds what came before"));
    }
    Ok(i32::from(audit.cut().is_some_and(|cut| cut.damaged)))
}

/// Opens a regular file and nothing that could make us wait.
fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if !file.metadata()?.is_file() {
        bail!("{} is no file that a recording can be in", path.display());
    }
    Ok(file)
}
