//! `vmaudit completions`: the words of the command line for a shell, from the definition of the command line.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use vmaudit_user::os::destination::{Destination, Writing};
use vmaudit_user::os::rights;

use crate::cli;
use crate::cli::completions::CompletionsArgs;

/// Runs the command.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    rights::finish(&[]);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::definition(), "vmaudit", &mut script);
    let mut screen = Destination::open(Path::new("-"), Writing::Whole)?;
    screen.write_all(&script)?;
    screen.flush()?;
    Ok(ExitCode::SUCCESS)
}
