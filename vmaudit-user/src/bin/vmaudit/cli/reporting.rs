//! What `run` and `watch` share: what is watched, what must hold, and where the report goes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmaudit_user::domain::recommend::{DEFAULT_HEADROOM, DEFAULT_ROUND};
use vmaudit_user::model::session;
use vmaudit_user::output::format::{Format, Kind, Named};
use vmaudit_user::output::text::page::FRAMES;

use super::values;

/// Which calls are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Calls {
    /// Those that take the lock of their address space, and near a limit on tasks those that make one, at no cost for
    /// other system calls; where the kernel cannot do that (before 6.18), all
    #[default]
    Locking,
    /// All, at a cost for each system call of the machine
    All,
}

/// What breaks the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A memory call failed
    Failure,
    /// A memory call was refused, also as an ordinary answer that broke nothing
    AnyRefusal,
    /// A peak reached the limit
    Peak,
    /// Something was lost or could not be seen
    Lost,
    /// A process died of a signal, the OOM killer's or another
    Killed,
}

impl FailOn {
    /// Whether it needs every refused call to be seen.
    pub const fn wants_all_calls(self) -> bool {
        matches!(self, Self::Failure | Self::AnyRefusal | Self::Lost)
    }
}

impl From<FailOn> for session::FailOn {
    fn from(asked: FailOn) -> Self {
        match asked {
            FailOn::Failure => Self::Failure,
            FailOn::AnyRefusal => Self::AnyRefusal,
            FailOn::Peak => Self::Peak,
            FailOn::Lost => Self::Lost,
            FailOn::Killed => Self::Killed,
        }
    }
}

/// Options of commands that end with a report.
#[derive(Debug, Args)]
pub struct Reporting {
    /// Write the report to FILE instead of the screen; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o report.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Report))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Report))]
    pub format: Option<Format>,
    /// Break the budget when a process has more than N VMAs at its peak, or when peaks are not exact and so cannot
    /// show that it holds [example: --max-peak 10000]
    #[arg(long, value_name = "N", value_parser = values::number)]
    pub max_peak: Option<u64>,
    /// Break the budget when a peak is more than P percent of vm.max_map_count [example: --max-percent 50]
    #[arg(long, value_name = "P", value_parser = values::percent)]
    pub max_percent: Option<f64>,
    /// Break the budget when a process grows steadily by more than this, in VMAs a second, or a minute or hour as 30/min or
    /// 5/h [example: --max-growth 10/s]
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    pub max_growth: Option<f64>,
    /// Break the budget when this happens (repeat or separate by commas) [example: --fail-on failure,lost]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub fail_on: Vec<FailOn>,
    /// Budgets of a file, by process: TOML with a `[[budget]]` for each row, which has `process` (a name or path, * and ?
    /// stand for any text and character), of `max_peak`, `max_percent` and `max_failures` at least one, and as wanted
    /// `reason`, `expires` (a day) and `optional`. Each process is held to the first row that fits it; a row that fits none, or
    /// has expired, is broken [example: --budget budgets.toml]
    #[arg(long, value_name = "FILE")]
    pub budget: Option<PathBuf>,
    /// Exit status of a broken budget; a command that failed keeps its own [example: --breach-exit-code 3]
    #[arg(long, default_value_t = 86, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub breach_exit_code: u8,
    /// Which calls to watch; a budget on failures watches all [example: --calls locking]
    #[arg(long, value_enum, default_value_t, value_name = "WHICH", conflicts_with = "peaks_only")]
    pub calls: Calls,
    /// Watch lock releases only: exact peaks at no cost for other system calls, but no failures and no call counts
    #[arg(long)]
    pub peaks_only: bool,
    /// Also put down each change of the count, up and down, with the call and the place that made it, as far as frame
    /// pointers tell; a program that maps and unmaps all the time runs slower
    #[arg(long)]
    pub stacks: bool,
    /// Show the arguments of the command, and of each process, in the report and the recording (they may hold secrets)
    #[arg(long)]
    pub show_args: bool,
    /// Leave users' names in paths, names of processes and arguments instead of writing <user>
    #[arg(long)]
    pub no_anonymize: bool,
    /// Leave the stacks of failed calls as addresses; by default the mappings and files of a process that failed are
    /// read for names
    #[arg(long)]
    pub no_symbols: bool,
    /// Factor between the peak and the recommended limit, at least 1.2 [example: --headroom 2]
    #[arg(long, default_value_t = DEFAULT_HEADROOM, value_name = "F")]
    pub headroom: f64,
    /// Round the recommended limit up to a multiple of this [example: --round 1000]
    #[arg(long, default_value_t = DEFAULT_ROUND, value_name = "N", value_parser = values::number)]
    pub round: u64,
    /// Give every process a row of its own in the report, up to 100,000. By default the 1,000 most remarkable ones have
    /// one, and the others are added up by name
    #[arg(long)]
    pub all_rows: bool,
    /// Rows in the table of processes [example: --top 30]
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = values::rows)]
    pub top: usize,
    /// Frames shown of each stack; JSON always holds all of them [example: --stack-depth 30]
    #[arg(long, default_value_t = FRAMES, value_name = "N", value_parser = values::rows)]
    pub stack_depth: usize,
    /// Also what touches nothing that is shown: every counter of losses, every kernel hook that is missing
    #[arg(short, long)]
    pub verbose: bool,
    /// Nothing on stderr but errors and broken budgets; what was lost is in the report of -o
    #[arg(short, long)]
    pub quiet: bool,
    /// Keep what the report is made of in FILE; `vmaudit report FILE` makes it again [example: --record tests.vma]
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}
