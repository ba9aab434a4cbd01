//! `vmaudit diff`: what changed between two sessions.

use std::path::Path;

use anyhow::Context as _;

use vmaudit_user::domain::compare::{self, compare};
use vmaudit_user::model::difference::Tolerance;
use vmaudit_user::model::report::Report;
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::output::say;
use vmaudit_user::session::left::{self, Left};

use crate::cli::diff::DiffArgs;
use crate::outputs::{Asked, Outputs, Shown};

/// Of a gate that is closed.
const CLOSED: i32 = 86;

/// Runs the command: 86 when the gate is closed.
pub fn diff(args: &DiffArgs) -> anyhow::Result<i32> {
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Difference })?;
    let (old, new) = (report(&args.old)?, report(&args.new)?);
    let tolerance = Tolerance { percent: args.tolerance, vmas: args.tolerance_vmas };
    let asked = compare::Asked { tolerance, fail_over: args.fail_over };
    let [old_name, new_name] = [&args.old, &args.new].map(|path| path.to_string_lossy());
    let difference = compare((&old_name, &old), (&new_name, &new), &asked);
    // On the screen they are in the text.
    if outputs.named() {
        for breach in &difference.breaches {
            say(&format!("gate closed (exit status {CLOSED}): {}", breach.sentence));
        }
    }
    outputs.write(
        &Document::Difference(&difference),
        Shown { verbose: args.verbose, ..Shown::from(args.top) },
    )?;
    Ok(if difference.breaches.is_empty() { 0 } else { CLOSED })
}

fn report(path: &Path) -> anyhow::Result<Report> {
    let Left { report, cut } = left::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if cut.is_some() {
        say(&format!(
            "{} ends before its session did, or is damaged: what came before is compared",
            path.display()
        ));
    }
    Ok(report)
}
