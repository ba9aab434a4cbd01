//! `vmaudit mark`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use vmaudit_user::os::mark_socket::{self, VARIABLE};

use crate::cli::mark::{Boundary, MarkArgs};

/// Asks the session around it for a boundary, and waits until it is set.
pub fn mark(args: &MarkArgs) -> anyhow::Result<ExitCode> {
    let path = std::env::var_os(VARIABLE)
        .with_context(|| format!("{VARIABLE} is not set: this is not within vmaudit run --marks"))?;
    let what = match args.boundary {
        Boundary::Begin => "begin",
        Boundary::End => "end",
    };
    let answer = mark_socket::ask(Path::new(&path), &format!("{what} {}", args.name))?;
    match answer.strip_prefix("error: ") {
        Some(why) => bail!("{why}"),
        None => Ok(ExitCode::SUCCESS),
    }
}
