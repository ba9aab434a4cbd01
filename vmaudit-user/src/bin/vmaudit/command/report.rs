//! `vmaudit report`: the report of a recording, again.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use vmaudit_user::domain::report;
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::output::say;
use vmaudit_user::session::replay::replay;
use vmaudit_user::source::recording::Reader;

use crate::cli::report::ReportArgs;
use crate::outputs::{Asked, Outputs, Shown};

/// Runs the command: 1 when the recording is damaged, after what it holds was shown.
pub fn show(args: &ReportArgs) -> anyhow::Result<i32> {
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Report })?;
    let shown = args.file.display();
    let recording =
        Reader::new(BufReader::new(open(&args.file)?)).with_context(|| format!("cannot read {shown}"))?;
    let (header, audit) = replay(recording).with_context(|| format!("cannot read {shown}"))?;
    let report = report::report(&header, &audit)?;
    outputs.write(
        &Document::Report(&report),
        Shown { frames: args.stack_depth, verbose: args.verbose, ..Shown::from(args.top) },
    )?;
    if let Some(cut) = audit.cut() {
        let why = if cut.damaged { "is damaged" } else { "ends before its session did" };
        say(&format!("{shown} {why}: the report holds what came before"));
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
