//! `vmaudit watch`.

use std::time::Duration;

use clap::Args;

use super::filters::Filters;
use super::flight::FlightArgs;
use super::reporting::Reporting;
use super::values::{self, Common};

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit watch -p PID -d 10s\n  sudo vmaudit watch --user root -d 5s\n  \
    sudo vmaudit watch -d 5s -o report.json\n  \
    sudo vmaudit watch --flight 10min --flight-dir /var/tmp --at 80\n\n\
    Figures of a process that ran before begin at the attach. SIGUSR1 gives a report of what was seen so far.\n\
    Exit status: 0 fine; 86 a budget was broken; 1 failure, also when no process fits; 2 wrongly called.";

/// Options of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Which processes; without any of these: all.
    #[command(flatten)]
    pub filters: Filters,
    /// Every process, as without any of these
    #[arg(
        long,
        conflicts_with_all = ["pid", "comm", "exe", "user", "cgroup", "unit", "container", "pod"]
    )]
    pub all: bool,
    /// Do not follow children, neither those that a process has nor those that it gets
    #[arg(long)]
    pub no_follow: bool,
    /// Wait for a first process that fits instead of ending at once when there is none
    #[arg(long)]
    pub wait: bool,
    /// End and report after this time; without it Ctrl-C does, or the end of the last process that fits [example: -d 60s]
    #[arg(short, long, value_parser = values::duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Write a line when a process has passed P percent of vm.max_map_count at its peak; repeat it for several
    /// [example: --at 80]
    #[arg(long, value_name = "P", value_parser = values::percent)]
    pub at: Vec<f64>,
    /// Run CMD when a process has passed the first of these, once for each: program and arguments, parted by spaces and run by
    /// no shell, with VMAUDIT_PID, VMAUDIT_COMM, VMAUDIT_PEAK, VMAUDIT_LIMIT and VMAUDIT_PERCENT in its environment
    /// [example: --at 80 --exec /usr/local/bin/page-me]
    #[arg(long, value_name = "CMD", requires = "at")]
    pub exec: Option<String>,
    /// What is kept of the last stretch.
    #[command(flatten)]
    pub flight: FlightArgs,
    /// What is watched, what must hold, where the report goes.
    #[command(flatten)]
    pub report: Reporting,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}
