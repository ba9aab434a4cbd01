//! `vmaudit doctor`.

use vmaudit_user::output::format::{Format, Kind, Named};

use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit doctor\n  sudo vmaudit doctor -o doctor.json\n\n\
    Exit status: 0 when eBPF is to be had, 1 when only /proc is left.";

/// Options of `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Write to FILE instead of standard output; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o doctor.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Doctor))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Doctor))]
    pub format: Option<Format>,
}
