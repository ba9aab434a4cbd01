//! `vmaudit trace`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use vmaudit_user::domain::requirements;
use vmaudit_user::output::format::{Format, Kind, Named};

use super::filters::Filters;
use super::values::{self, Common};

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit trace -p 1234 -d 10s\n  sudo vmaudit trace -Z -- ./server\n  sudo vmaudit trace -c -p 1234 -d 10s\n  \
    sudo vmaudit trace --all --call munmap --format json\n\n\
    Exit status: 0 fine, whatever the command's own was; 1 failure, 2 wrongly called; 126 the command cannot be \
    run, 127 it was not found.";

/// Options of `trace`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true).multiple(true).args(["pid", "all", "user", "comm", "exe", "cgroup", "unit", "container", "pod", "command"]))]
pub struct TraceArgs {
    /// Which processes.
    #[command(flatten)]
    pub filters: Filters,
    /// Follow every process
    #[arg(long, conflicts_with = "pid")]
    pub all: bool,
    /// Only refused calls
    #[arg(short = 'Z', long = "failed")]
    pub failed: bool,
    /// Only these system calls [example: --call munmap,mprotect]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub call: Vec<String>,
    /// No lines, only the sum at the end: refused calls by process and cause, changes by call
    #[arg(short, long = "summary-only", conflicts_with_all = ["all_lines", "max_bytes"])]
    pub count: bool,
    /// Take stacks, too, and show at the end from where calls were refused
    #[arg(short = 'k', long)]
    pub stacks: bool,
    /// Stop after this time [example: -d 30s]
    #[arg(short, long, value_parser = values::duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Write to FILE instead of standard output. Its ending says the format, FORMAT:FILE says it outright, - is standard
    /// output [example: -o lines.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Stream))]
    pub output: Option<Named>,
    /// Write a line for each change and each refused call. By default alike ones of one task (changes: one after the
    /// other) are written once, and then once a second with their number
    #[arg(long)]
    pub all_lines: bool,
    /// Write at most so much, and at the end how much was left out; k, M and G are powers of 1000 [example: --max-bytes 10M]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub max_bytes: Option<u64>,
    /// Format on the screen: text has one line each, json one object a line; that of a file is said by -o [default: text]
    /// [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Stream))]
    pub format: Option<Format>,
    /// Wait for a first process that fits instead of ending at once when there is none
    #[arg(long, conflicts_with = "command")]
    pub wait: bool,
    /// Do not follow children
    #[arg(long)]
    pub no_follow: bool,
    /// Run the command as this user, by name or number [example: --as postgres]
    #[arg(long = "as", value_name = "USER", requires = "command")]
    pub run_as: Option<String>,
    /// Leave the command those ambient capabilities that vmaudit itself uses (CAP_BPF and its like); without this they
    /// are taken as meant for vmaudit alone
    #[arg(long)]
    pub keep_caps: bool,
    /// Keep every change and what a report is made of in FILE; `vmaudit report FILE` makes it [example: --record t.vma]
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Leave changes of map_count out of the recording beyond this size; figures go on [example: --record-max 100m]
    #[arg(long, value_name = "SIZE", requires = "record", value_parser = requirements::parse_size)]
    pub record_max: Option<u64>,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
    /// A command to run and follow: the first word that is no option, or what follows --. All behind it is the command's own
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl TraceArgs {
    /// Of what is followed only a part is shown.
    pub fn narrows(&self) -> bool {
        !self.call.is_empty() || !self.filters.comm.is_empty()
    }
}
