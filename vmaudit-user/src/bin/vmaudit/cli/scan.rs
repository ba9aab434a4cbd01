//! `vmaudit scan`.

use std::time::Duration;

use vmaudit_user::domain::recommend::{DEFAULT_HEADROOM, DEFAULT_ROUND};
use vmaudit_user::domain::scan::Key;
use vmaudit_user::output::format::{Format, Kind, Named};
use vmaudit_user::source::scan::Counter;

use super::filters::Filters;
use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  vmaudit scan --top 5\n  vmaudit scan --user postgres --sort app\n  \
    sudo vmaudit scan -d 10s\n  vmaudit scan --vma 200000 --headroom 1.25 --round 1\n  sudo vmaudit scan -o now.json";

/// Options of `scan`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    /// How many processes to show; JSON and CSV always hold all of them [example: --top 5]
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = values::rows)]
    pub top: usize,
    /// Factor between the largest count and the recommended limit, at least 1.2 [example: --headroom 1.25]
    #[arg(long, value_name = "F", default_value_t = DEFAULT_HEADROOM)]
    pub headroom: f64,
    /// Round the recommended limit up to a multiple of this many VMAs; 1 = do not round [example: --round 1000]
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ROUND, value_parser = values::number)]
    pub round: u64,
    /// Also say what a process of N VMAs would need [example: --vma 200000]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub vma: Option<u64>,
    /// Look for so long first, and say who grows [example: -d 10s]
    #[arg(short, long, value_name = "TIME", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Order of the processes [example: --sort app]
    #[arg(long, value_name = "KEY", value_enum, default_value_t = Sort::Count)]
    pub sort: Sort,
    /// Turn the order around
    #[arg(long)]
    pub reverse: bool,
    /// Show command lines. They may hold secrets: look through them before you share the output
    #[arg(long)]
    pub show_args: bool,
    /// Leave users' names in paths, names of processes and arguments instead of writing <user>
    #[arg(long)]
    pub no_anonymize: bool,
    /// Where counts come from [example: --source proc]
    #[arg(long, value_enum, default_value_t = Source::Auto, value_name = "SOURCE")]
    pub source: Source,
    /// Which processes; without any of these: all.
    #[command(flatten)]
    pub filters: Filters,
    /// Write to FILE instead of standard output; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o now.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Scan))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Scan))]
    pub format: Option<Format>,
}

/// Order of processes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Sort {
    /// Most VMAs first
    Count,
    /// Process id
    Pid,
    /// Application
    App,
    /// Name
    Comm,
    /// Owner
    User,
}

impl From<Sort> for Key {
    fn from(asked: Sort) -> Self {
        match asked {
            Sort::Count => Self::Count,
            Sort::Pid => Self::Pid,
            Sort::App => Self::App,
            Sort::Comm => Self::Comm,
            Sort::User => Self::User,
        }
    }
}

/// Where counts come from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Source {
    /// The kernel's own counter through eBPF where that is allowed (root), else /proc
    Auto,
    /// The kernel's own counter, or an error
    Ebpf,
    /// The lines of /proc/PID/maps
    Proc,
}

impl From<Source> for Counter {
    fn from(asked: Source) -> Self {
        match asked {
            Source::Auto => Self::Auto,
            Source::Ebpf => Self::Ebpf,
            Source::Proc => Self::Proc,
        }
    }
}
