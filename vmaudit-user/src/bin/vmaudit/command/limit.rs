//! `vmaudit limit`: the running limit, who sets it at boot, what it costs, what software is said to need, and how to change
//! it.

use std::process::ExitCode;

use vmaudit_user::domain::limit::LimitOptions;
use vmaudit_user::domain::requirements;
use vmaudit_user::os::users;
use vmaudit_user::output::format::{Document, Done, Kind};
use vmaudit_user::source::limit_survey::{self, Machine};

use crate::cli::limit::LimitArgs;
use crate::outputs::{Asked, Outputs};

/// Somebody else than root is told what he would have to type, instead of what the system answered.
fn needs_root(error: anyhow::Error, right: &str) -> anyhow::Error {
    if nix::unistd::geteuid().is_root() {
        return error;
    }
    anyhow::anyhow!("changing the limit needs root: sudo vmaudit limit {right}")
}

/// Rows of its tables are never left out.
const ALL: usize = usize::MAX;

/// Runs the command.
pub fn limit(args: LimitArgs) -> anyhow::Result<ExitCode> {
    let known = requirements::known()?;
    // A wrong name is found before anything is read.
    for name in &args.software {
        requirements::named(&known, name)?;
    }
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: args.kind() })?;
    if args.kind() == Kind::Known {
        outputs.write(&Document::Known(&known), ALL)?;
        return Ok(ExitCode::SUCCESS);
    }
    let machine = Machine::look();
    if args.kind() == Kind::Plan {
        let plan = match args.asked() {
            Some(value) => machine.plan_apply(value)?,
            None => machine.plan_undo()?,
        };
        let done = if args.only_shown() { Done::Not } else { Done::Yes };
        if done == Done::Yes {
            let right = args.apply.map_or_else(|| "--undo".into(), |value| format!("--apply {value}"));
            machine.carry_out(&plan).map_err(|error| needs_root(error, &right))?;
        }
        outputs.write(&Document::Plan(&plan, done), ALL)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = LimitOptions { software: args.software, heap: args.heap, items: args.items };
    let anonymizer = users::anonymizer(args.no_anonymize);
    let report = limit_survey::report(&machine, &known, &options, &anonymizer);
    outputs.write(&Document::Limit(&report), ALL)?;
    Ok(ExitCode::SUCCESS)
}
