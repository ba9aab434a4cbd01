//! `vmaudit report`: what a session has left, rendered again.

use anyhow::Context as _;

use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::output::say;
use vmaudit_user::session::left::{self, Left};

use crate::cli::report::ReportArgs;
use crate::outputs::{Asked, Outputs, Shown};

/// Runs the command: 1 when the recording is damaged, after what it holds was shown.
pub fn show(args: &ReportArgs) -> anyhow::Result<i32> {
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Report })?;
    let shown = args.file.display();
    let Left { report, cut } = left::read(&args.file).with_context(|| format!("cannot read {shown}"))?;
    outputs.write(
        &Document::Report(&report),
        Shown { frames: args.stack_depth, verbose: args.verbose, ..Shown::from(args.top) },
    )?;
    if let Some(cut) = cut {
        let why = if cut.damaged { "is damaged" } else { "ends before its session did" };
        say(&format!("{shown} {why}: the report holds what came before"));
    }
    Ok(i32::from(cut.is_some_and(|cut| cut.damaged)))
}
