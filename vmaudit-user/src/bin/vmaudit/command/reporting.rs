//! The end of a session that is reported: budgets, outputs, and what could not be written.

use std::path::Path;

use anyhow::{Context as _, anyhow};

use vmaudit_user::domain::audit::Audit;
use vmaudit_user::domain::budget::file;
use vmaudit_user::domain::report;
use vmaudit_user::model::session::{Budget, BudgetRow, Header};
use vmaudit_user::os::input;
use vmaudit_user::output::format::Document;
use vmaudit_user::output::{Weight, say_as};
use vmaudit_user::session::Sink as _;
use vmaudit_user::session::recorder::Recorder;

use crate::cli::reporting::{Calls, Reporting};
use crate::outputs::{Outputs, Shown};

/// Bytes of a budgets file.
const MOST_BUDGETS: u64 = 1 << 20;

/// What must hold. Errors: a budgets file cannot be read, or is wrong, with line and column.
pub fn budget(args: &Reporting) -> anyhow::Result<Budget> {
    Ok(Budget {
        max_peak: args.max_peak,
        max_percent: args.max_percent,
        max_growth: args.max_growth,
        fail_on: args.fail_on.iter().map(|asked| (*asked).into()).collect(),
        rows: args.budget.as_deref().map(rows).transpose()?.unwrap_or_default(),
    })
}

fn rows(path: &Path) -> anyhow::Result<Vec<BudgetRow>> {
    let text = input::text(path, MOST_BUDGETS)
        .with_context(|| format!("cannot read the budgets in {}", path.display()))?;
    file::rows(&text).map_err(|why| anyhow!("{}: {why}", path.display()))
}

/// Every watched call has to be seen.
pub fn wants_all_calls(args: &Reporting, budget: &Budget) -> bool {
    args.calls == Calls::All
        || args.fail_on.iter().any(|asked| asked.wants_all_calls())
        || budget.rows.iter().any(|row| row.max_failures.is_some())
}

/// How much of a report is shown. `echoed`: the terminal stands behind the echo of a key.
pub fn shown(args: &Reporting, echoed: bool) -> Shown {
    Shown { rows: args.top, frames: args.stack_depth, verbose: args.verbose, echoed }
}

/// How a session came out.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// A budget was broken.
    pub breached: bool,
    /// The report or the recording could not be written.
    pub lost: bool,
}

/// Makes the report and writes it. `counts`: a broken budget decides the exit status. Errors: the margin is refused.
pub fn conclude(
    args: &Reporting,
    (header, audit): (&Header, &Audit),
    outputs: Outputs,
    recorder: Option<Recorder>,
    echoed: bool,
    counts: bool,
) -> anyhow::Result<Outcome> {
    let report = report::report(header, audit)?;
    // A report on the screen has them in it.
    if outputs.named() || args.quiet {
        let status = if counts { format!(" (exit status {})", args.breach_exit_code) } else { String::new() };
        for breach in &report.breaches {
            say_as(Weight::Error, &format!("budget broken{status}: {}", breach.sentence));
        }
    }
    let mut lost = false;
    if !args.quiet || outputs.named() {
        for e in outputs.write_each(&Document::Report(&report), shown(args, echoed)) {
            say_as(Weight::Error, &format!("the report could not be written: {e}"));
            lost = true;
        }
    }
    if let Some(complaint) = recorder.and_then(|it| it.complaint()) {
        say_as(Weight::Error, &complaint);
        lost = true;
    }
    Ok(Outcome { breached: !report.breaches.is_empty(), lost })
}
