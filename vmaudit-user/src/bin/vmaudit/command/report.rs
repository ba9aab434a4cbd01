//! `vmaudit report`: what a session has left, rendered again.

use anyhow::Context as _;

use vmaudit_user::domain::fleet::Collected;
use vmaudit_user::model::event::Cut;
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::output::say;
use vmaudit_user::session::left::{self, Left};

use crate::cli::report::ReportArgs;
use crate::outputs::{Asked, Outputs, Shown};

/// Runs the command: 1 when the recording is damaged, after what it holds was shown.
pub fn show(args: &ReportArgs) -> anyhow::Result<i32> {
    let [file] = args.files.as_slice() else { return fleet(args) };
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Report })?;
    let shown = file.display();
    let Left { report, cut } = left::read(file).with_context(|| format!("cannot read {shown}"))?;
    outputs.write(
        &Document::Report(&report),
        Shown { frames: args.stack_depth, verbose: args.verbose, ..Shown::from(args.top) },
    )?;
    if let Some(cut) = cut {
        let why = if cut.leaves_some() { cut.what() } else { "ends before its session did" };
        say(&format!("{shown} {why}: the report holds what came before"));
    }
    Ok(i32::from(cut.is_some_and(Cut::leaves_some)))
}

/// Several as one summary: 1 when one of them cannot be read or is damaged, after the others were shown.
fn fleet(args: &ReportArgs) -> anyhow::Result<i32> {
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Fleet })?;
    let (mut collected, mut bad) = (Collected::default(), false);
    for file in &args.files {
        match left::read(file) {
            Ok(Left { report, cut }) => {
                bad |= cut.is_some_and(Cut::leaves_some);
                collected.take(&file.to_string_lossy(), &report, cut.is_some());
            }
            Err(e) => {
                say(&format!("cannot read {}: {e}", file.display()));
                bad = true;
            }
        }
    }
    outputs.write(&Document::Fleet(&collected.summary()), args.top)?;
    Ok(i32::from(bad))
}
