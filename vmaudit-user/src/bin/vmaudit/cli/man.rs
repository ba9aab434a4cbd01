//! `vmaudit man`.

use std::path::PathBuf;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  vmaudit man .\n\n\
    One page for vmaudit and one for each command, as man(1) reads them: man ./vmaudit-run.1";

/// Options of `man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Folder that the pages are written to; it must be there
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
