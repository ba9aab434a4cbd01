//! `vmaudit explain`.

use std::path::PathBuf;

use vmaudit_user::output::format::{Format, Kind, Named};
use vmaudit_user::source::vma_layout::Details;

use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit explain 812\n  sudo vmaudit explain 812 --details always\n  \
    cat /proc/812/smaps > smaps.txt; vmaudit explain --smaps smaps.txt\n  vmaudit explain --maps maps.txt --format json";

/// Options of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The process
    #[arg(value_name = "PID", required_unless_present_any = ["maps", "smaps"])]
    pub pid: Option<u32>,
    /// A copy of /proc/PID/maps instead of a process; - is standard input [example: --maps maps.txt]
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub maps: Option<PathBuf>,
    /// A copy of /proc/PID/smaps; it holds all that maps holds, so it is used alone [example: --smaps smaps.txt]
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub smaps: Option<PathBuf>,
    /// A copy of /proc/PID/numa_maps beside it [example: --numa-maps numa.txt]
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub numa_maps: Option<PathBuf>,
    /// Whether to read smaps and numa_maps of the process, which walk its page tables [example: --details always]
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    pub details: When,
    /// Rows of each table [example: --top 30]
    #[arg(short = 'n', long, value_name = "N", default_value_t = 12)]
    pub top: usize,
    /// Stop reading after this many VMAs [example: --max-vmas 20000000]
    #[arg(long, value_name = "N", default_value_t = 4_000_000)]
    pub max_vmas: u64,
    /// Write to FILE instead of standard output; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o 812.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Explanation))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Explanation))]
    pub format: Option<Format>,
    /// Leave users' names in paths instead of writing <user>
    #[arg(long)]
    pub no_anonymize: bool,
}

/// When smaps is read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum When {
    /// When the process has at most 5,000 VMAs and 1 GiB of resident memory
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<When> for Details {
    fn from(asked: When) -> Self {
        match asked {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}
