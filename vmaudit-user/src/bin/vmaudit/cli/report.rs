//! `vmaudit report`.

use std::path::PathBuf;

use clap::Args;
use vmaudit_user::output::format::{Format, Kind, Named};
use vmaudit_user::output::text::page::FRAMES;

use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit run --record tests.vma -- ./tests\n  vmaudit report tests.vma\n  \
    vmaudit report tests.vma -o report.json\n  vmaudit report report.json -o report.md\n  \
    vmaudit report tests.vma report.json\n\n\
    Exit status: 0 fine, also of a recording that was cut off (the report says so); 1 it is damaged or cannot be read, \
    2 wrongly called.";

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A recording, or a report in JSON; - is standard input. Several: one summary by application and by file (text, json)
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Write the report to FILE instead of standard output; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o report.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Report))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Report))]
    pub format: Option<Format>,
    /// Rows in the table of processes [example: --top 30]
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = values::rows)]
    pub top: usize,
    /// Frames shown of each stack; JSON always holds all of them [example: --stack-depth 30]
    #[arg(long, default_value_t = FRAMES, value_name = "N", value_parser = values::rows)]
    pub stack_depth: usize,
    /// Also what touches nothing that is shown: every counter of losses, every kernel hook that is missing
    #[arg(short, long)]
    pub verbose: bool,
}
