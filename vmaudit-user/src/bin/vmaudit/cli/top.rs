//! `vmaudit top`.

use clap::Args;

use super::filters::Filters;
use super::values::{self, Common};

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit top\n  sudo vmaudit top --user root\n\n\
    Nothing is changed and nobody is ended; `?` shows the keys. Without a terminal: vmaudit scan, vmaudit watch.\n\
    Exit status: 0 fine; 1 failure, also when there is no terminal; 2 wrongly called.";

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Which processes; without any of these: all.
    #[command(flatten)]
    pub filters: Filters,
    /// Do not follow children, neither those that a process has nor those that it gets
    #[arg(long)]
    pub no_follow: bool,
    /// Seconds between two looks: 1, 2, 5, 10 or 60 [example: --every 5]
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = ["1", "2", "5", "10", "60"])]
    pub every: String,
    /// Show user names in paths instead of <user>
    #[arg(long)]
    pub no_anonymize: bool,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}

impl TopArgs {
    /// Seconds between two looks.
    pub fn every_s(&self) -> u32 {
        values::number(&self.every).ok().and_then(|it| u32::try_from(it).ok()).unwrap_or(2)
    }
}
