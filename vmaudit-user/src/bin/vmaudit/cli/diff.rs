//! `vmaudit diff`.

use std::path::PathBuf;

use clap::Args;
use vmaudit_user::output::format::{Format, Kind, Named};

use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  vmaudit diff old.vma new.vma\n  \
    vmaudit diff old.json new.json --fail-over 10% --format github\n\n\
    Exit status: 0 fine; 86 something became worse by more than --fail-over, or is not shown not to have; 1 a file gives no \
    report; 2 wrongly called.";

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The session that is compared with: its recording, or its report in JSON
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The one that is judged
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Fail (86) if an application's peak, or its refused calls, grew by more than P percent, if it is newly stopped by the
    /// limit, and if that cannot be told from these figures [example: --fail-over 10%]
    #[arg(long, value_name = "P", value_parser = values::any_percent)]
    pub fail_over: Option<f64>,
    /// Peaks that differ by less than this, percent, are the same [example: --tolerance 2%]
    #[arg(long, value_name = "P", default_value = "5", value_parser = values::any_percent)]
    pub tolerance: f64,
    /// Peaks that differ by no more than so many VMAs are the same, whatever the percentage [example: --tolerance-vmas 50]
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = values::number)]
    pub tolerance_vmas: u64,
    /// Write the comparison to FILE instead of standard output; repeat it for several. Its ending says the format,
    /// FORMAT:FILE says it outright, - is standard output [example: -o diff.md]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Difference))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format github]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Difference))]
    pub format: Option<Format>,
    /// Rows in the table [example: --top 30]
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = values::rows)]
    pub top: usize,
    /// Also what is the same
    #[arg(short, long)]
    pub verbose: bool,
}
