//! `vmaudit run`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::reporting::Reporting;
use super::values::{self, Common};

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit run -- make -j8\n  \
    sudo vmaudit run -o report.json --fail-on failure -- ./tests\n\n\
    Exit status: the command's own (its signal if it died by one); 86 when a budget was broken and the command \
    itself succeeded; 125 vmaudit failed or was called wrongly, 126 the command cannot be run, 127 it was not found.";

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What is watched, what must hold, where the report goes.
    #[command(flatten)]
    pub report: Reporting,
    /// Run the command as this user, by name or number [example: --as postgres]
    #[arg(long = "as", value_name = "USER")]
    pub run_as: Option<String>,
    /// Let the command name stretches of time, as tests are, by `vmaudit mark` or the socket in VMAUDIT_MARKS; the report
    /// has peak, added and removed VMAs and refused calls of each
    #[arg(long)]
    pub marks: bool,
    /// Leave the command those ambient capabilities that vmaudit itself uses (CAP_BPF and its like); without this they
    /// are taken as meant for vmaudit alone
    #[arg(long)]
    pub keep_caps: bool,
    /// Follow the command alone, not its children
    #[arg(long)]
    pub no_follow: bool,
    /// How long to wait for descendants that outlive the command [example: --linger 30s]
    #[arg(long, value_parser = values::duration, default_value = "1s", value_name = "TIME")]
    pub linger: Duration,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// The command: the first word that is no option, or what follows --. All behind it is the command's own
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}
