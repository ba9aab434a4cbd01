//! Options of `run` and `trace`; those of the other commands are in the program.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::domain::recommend::{DEFAULT_HEADROOM, DEFAULT_ROUND};
use crate::model::session;
use crate::trace::LEAST_BYTES;

/// Where figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// eBPF when possible, else /proc (says so)
    Auto,
    /// eBPF or nothing
    Ebpf,
    /// Looks at /proc: needs no rights, sees samples only
    Proc,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Text,
    /// For programs: the vmaudit.report schema
    Json,
}

/// What breaks the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A memory call failed
    Failure,
    /// A peak reached the limit
    Peak,
    /// Something was lost or could not be seen
    Lost,
}

impl From<FailOn> for session::FailOn {
    fn from(asked: FailOn) -> Self {
        match asked {
            FailOn::Failure => Self::Failure,
            FailOn::Peak => Self::Peak,
            FailOn::Lost => Self::Lost,
        }
    }
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Write the report to FILE instead of stderr; - is stdout [example: -o report.json]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Format of the -o at the same place; without one the file's name says it, and without -o the report goes to stderr
    /// [example: --format json -o report.txt]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Vec<ReportFormat>,
    /// Break the budget when a process has more than N VMAs at its peak, or when peaks are not exact and so cannot
    /// show that it holds [example: --max-peak 10000]
    #[arg(long, value_name = "N")]
    pub max_peak: Option<u64>,
    /// Break the budget when a peak is more than P percent of vm.max_map_count [example: --max-percent 50]
    #[arg(long, value_name = "P", value_parser = percent)]
    pub max_percent: Option<f64>,
    /// Break the budget when this happens (repeat or separate by commas) [example: --fail-on failure,lost]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub fail_on: Vec<FailOn>,
    /// Exit status of a broken budget, when the command itself succeeded
    #[arg(long, default_value_t = 86, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub breach_exit_code: u8,
    /// Run the command as this user [example: --user postgres]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Leave the command those ambient capabilities that vmaudit itself uses (CAP_BPF and its like); without this they
    /// are taken as meant for vmaudit alone
    #[arg(long)]
    pub keep_caps: bool,
    /// Follow the command alone, not its children
    #[arg(long)]
    pub no_follow: bool,
    /// Watch lock releases only: exact peaks at no cost for other system calls, but no failures and no call counts
    #[arg(long)]
    pub peaks_only: bool,
    /// Show the command's arguments in the report (they may hold secrets)
    #[arg(long)]
    pub show_args: bool,
    /// Leave users' names in paths, names of processes and arguments instead of writing <user>
    #[arg(long)]
    pub no_anonymize: bool,
    /// Leave the stacks of failed calls as addresses; by default the mappings and files of a process that failed are
    /// read for names
    #[arg(long)]
    pub no_symbols: bool,
    /// How long to wait for descendants that outlive the command [example: --linger 30s]
    #[arg(long, value_parser = duration, default_value = "1s", value_name = "TIME")]
    pub linger: Duration,
    /// Factor between the peak and the recommended limit, at least 1.2 [example: --headroom 2]
    #[arg(long, default_value_t = DEFAULT_HEADROOM, value_name = "F")]
    pub headroom: f64,
    /// Round the recommended limit up to a multiple of this [example: --round 1000]
    #[arg(long, default_value_t = DEFAULT_ROUND, value_name = "N")]
    pub round: u64,
    /// Give every process a row of its own in the report, up to 100,000. By default the 1,000 most remarkable ones have
    /// one, and the others are added up by name
    #[arg(long)]
    pub all_rows: bool,
    /// Rows in the table of processes
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    pub top: usize,
    /// Nothing on stderr but errors, unless the budget was broken; what was lost is in the report of -o
    #[arg(short, long)]
    pub quiet: bool,
    /// Keep what the report is made of in FILE; `vmaudit report FILE` makes it again [example: --record tests.vma]
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Options of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Follow this process and its future children (repeat or separate by commas) [example: -p 1234,5678]
    #[arg(short, long, value_delimiter = ',', value_name = "PID")]
    pub pid: Vec<u32>,
    /// Follow every process
    #[arg(long, conflicts_with = "pid")]
    pub all: bool,
    /// Only refused calls
    #[arg(short = 'Z', long = "failed")]
    pub failed: bool,
    /// Only these system calls [example: --call munmap,mprotect]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub call: Vec<String>,
    /// Only tasks with this name [example: --comm java]
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Stop after this time [example: -d 30s]
    #[arg(short, long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Write to FILE instead of stdout
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write a line for each change and each refused call. By default alike ones of one task (changes: one after the
    /// other) are written once, and then once a second with their number
    #[arg(long)]
    pub all_lines: bool,
    /// Write at most so much, and at the end how much was left out; k, M and G are powers of 1000 [example: --max-bytes 10M]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_bytes: Option<u64>,
    /// text: one line each; json: one JSON object a line
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub format: ReportFormat,
    /// Do not follow children
    #[arg(long)]
    pub no_follow: bool,
    /// Run the command as this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Leave the command those ambient capabilities that vmaudit itself uses (CAP_BPF and its like); without this they
    /// are taken as meant for vmaudit alone
    #[arg(long)]
    pub keep_caps: bool,
    /// Keep every change and what a report is made of in FILE; `vmaudit report FILE` makes it [example: --record t.vma]
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Leave changes of map_count out of the recording beyond this size; figures go on [example: --record-max 100m]
    #[arg(long, value_name = "SIZE", requires = "record", value_parser = crate::domain::requirements::parse_size)]
    pub record_max: Option<u64>,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// A command to run and follow
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the report to FILE instead of stdout [example: -o report.json]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Format of the -o at the same place; without one the file's name says it [example: --format json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Vec<ReportFormat>,
    /// Rows in the table of processes
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    pub top: usize,
}

/// Options that several commands share.
#[derive(Debug, Args)]
pub struct Common {
    /// Where figures come from
    #[arg(long, value_enum, default_value = "auto", value_name = "SOURCE")]
    pub source: Source,
    /// Size of the ring buffer for details, bytes; a power of two (peaks and counts do not pass through it)
    #[arg(long, value_name = "BYTES", hide = true, value_parser = ring_bytes)]
    pub ring_bytes: Option<u32>,
    /// Address spaces that can be followed at one time; a power of two
    #[arg(long, value_name = "N", hide = true, default_value_t = 8192, value_parser = slots)]
    pub slots: u32,
    /// Show the eBPF programs' own messages on stderr
    #[arg(long)]
    pub debug_bpf: bool,
}

/// Longest time that an option may name: a clock has an end, and no session comes near this one.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}; write for example 500ms, 30s, 5m or 1h")),
    };
    let seconds = digits.parse::<f64>().map_or(f64::NAN, |n| n * factor);
    if seconds > LONGEST.as_secs_f64() {
        return Err("more than 10 years".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "write for example 500ms, 30s, 5m or 1h".into())
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "k" | "K" | "kB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        unit => return Err(format!("unknown unit {unit:?}; write for example 500k, 10M or 1G")),
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
        Some(n) if n >= LEAST_BYTES => Ok(n),
        Some(_) => Err(format!("at least {LEAST_BYTES}")),
        None => Err("write for example 500k, 10M or 1G".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(p) if p.is_finite() && p > 0.0 => Ok(p),
        _ => Err("write a number above 0, for example 80".into()),
    }
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n >= 4096 => Ok(n),
        _ => Err("a power of two, at least 4096".into()),
    }
}

fn slots(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && (1..1 << 20).contains(&n) => Ok(n),
        _ => Err("a power of two below 1048576".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_known_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "s", "-1s", "1w", "1e999s", "inf", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_need_a_known_unit() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("10M"), Ok(10_000_000));
        for bad in ["", "M", "-1M", "1.5M", "10MiB", "4095", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    /// Added to the clock, they would be more than it can show.
    #[test]
    fn times_beyond_ten_years_are_refused() {
        assert_eq!(duration("87600h"), Ok(LONGEST));
        for bad in ["87601h", "1e19s", "1e300h"] {
            assert_eq!(duration(bad), Err("more than 10 years".into()), "{bad}");
        }
    }
}
