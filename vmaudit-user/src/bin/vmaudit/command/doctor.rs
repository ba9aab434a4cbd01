//! `vmaudit doctor`: what this kernel, these rights and this build allow, hook by hook, in sentences.

use std::process::ExitCode;

use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::source::doctor;

use crate::cli::doctor::DoctorArgs;
use crate::outputs::{Asked, Outputs};

/// Runs the command: 0 when there is eBPF here, 1 when only /proc is left.
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Doctor })?;
    let found = doctor::look();
    outputs.write(&Document::Doctor(&found), usize::MAX)?;
    Ok(if found.reason.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
