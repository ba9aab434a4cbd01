//! `cargo xtask bench`: what following costs the workload, measured against the untraced program in the same run, turn
//! by turn, so that a neighbour's load hits both.

mod births;
mod idle;
mod make;
mod observed;
mod scan;
mod whole;
mod works;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::command::{TempDir, as_root, output, say, shown};
use crate::programs::{self, Linking};

/// How much to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Turns; each measures the untraced program and then every tracer
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Processes of the rows on a session with many short ones
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    short_processes: usize,
    /// Seconds that are looked at in the rows on an idle machine
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    idle: u64,
    /// Only the table of works under tracers
    #[arg(long, group = "part")]
    works: bool,
    /// Only the table of whole processes
    #[arg(long, group = "part")]
    whole: bool,
    /// Only `vmaudit scan`, against the Python vmaudit
    #[arg(long, group = "part")]
    scan: bool,
    /// Ratios without noise, by instructions that QEMU counts, on kernels of every arrangement of hooks
    #[arg(long, group = "part")]
    vm: bool,
}

/// Kernels of `--vm`: hooks as before 6.14, as before 6.18, as from then on, and as from 7.0 on.
const COUNTED_KERNELS: [&str; 5] = ["6.1", "6.12", "6.16", "6.18", "7.2"];

/// What all tables need.
struct Bench<'a> {
    options: &'a Options,
    vmaudit: PathBuf,
    workload: PathBuf,
    /// Goes away at the end.
    folder: TempDir,
    /// Of the runs that were measured, those whose peaks are all exact.
    exact: u32,
    /// Runs that were measured and have a report.
    reported: u32,
    /// Rows that have no figure because something failed.
    failed: u32,
}

impl Options {
    /// Measures and prints the tables.
    pub fn run(&self) -> Result<()> {
        if self.vm {
            return crate::vm::Options::counting(&COUNTED_KERNELS)?.run();
        }
        let mut bench = Bench {
            options: self,
            vmaudit: programs::vmaudit(Linking::Usual)?,
            workload: programs::of_tests(Linking::Usual, "workload")?,
            folder: TempDir::new("bench")?,
            exact: 0,
            reported: 0,
            failed: 0,
        };
        println!("{}; load {}\n", machine()?, load()?);
        let all = !self.works && !self.whole && !self.scan;
        if all || self.works {
            bench.works()?;
        }
        if all || self.whole {
            bench.whole()?;
        }
        if all || self.scan {
            println!("{}", bench.scan()?);
        }
        if bench.failed > 0 {
            bail!("{} rows could not be measured", bench.failed);
        }
        Ok(())
    }
}

impl Bench<'_> {
    /// Where vmaudit writes its report.
    fn report(&self) -> PathBuf {
        self.folder.path().join("report.json")
    }

    /// `vmaudit run OPTIONS --`.
    fn vmaudit_run(&self, options: &[&str]) -> Command {
        let mut command = as_root(&self.vmaudit);
        command.args(["run", "--source", "ebpf", "-o"]).arg(self.report()).args(options).arg("--");
        command
    }

    /// The last run's report, and whether that run did what it is measured for.
    fn reported(&mut self) -> Result<Value> {
        let path = self.report();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("vmaudit wrote no report to {}", path.display()))?;
        // That of the next run must be its own.
        fs::remove_file(&path)?;
        let report: Value = serde_json::from_str(&text).context("vmaudit's report is not JSON")?;
        if report["source"] != "ebpf" {
            bail!("vmaudit did not use eBPF; nothing of that kind is measured here");
        }
        self.reported += 1;
        if report["coverage"]["exact_peaks"] == true {
            self.exact += 1;
        } else {
            let lost = report["coverage"]["lost"].as_object().into_iter().flatten();
            let lost: Vec<String> =
                lost.filter(|(_, n)| **n != 0).map(|(why, n)| format!("{why} {n}")).collect();
            say!("not all peaks of this session are exact; lost: {}", lost.join(", "));
        }
        Ok(report)
    }

    /// A row of two columns and its bar; one that fails does not take the others along.
    fn print(&mut self, title: &str, measured: Result<String>, bar: &str) {
        let figure = measured.unwrap_or_else(|error| {
            say!("{title}: {error:#}");
            self.failed += 1;
            format!("not measured: {}", format!("{error:#}").replace('|', "/"))
        });
        println!("| {title} | {figure} | {bar} |");
    }
}

/// All processes of a report, with a row of their own or without.
fn processes(report: &Value) -> u64 {
    let rows = report["processes"].as_array().map_or(0, |rows| rows.len() as u64);
    let folded = report["folded"].as_array().into_iter().flatten();
    rows + folded.filter_map(|sum| sum["processes"].as_u64()).sum::<u64>()
}

/// Runs a benchmark and reads its line `NAME NS_PER_OPERATION`, between whatever a tracer prints.
fn nanoseconds(command: &mut Command, name: &str) -> Result<f64> {
    let printed = output_quietly(command)?;
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    printed
        .lines()
        .find_map(value)
        .with_context(|| format!("`{}` printed no line `{name} NS`", shown(command)))
}

/// As `output`, but the command keeps the stderr it was given.
fn output_quietly(command: &mut Command) -> Result<String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let done = child.with_context(|| format!("cannot start `{}`", shown(command)))?.wait_with_output()?;
    if !done.status.success() {
        bail!("`{}` failed ({})", shown(command), done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn milliseconds(command: &mut Command) -> Result<f64> {
    let begin = Instant::now();
    crate::command::run(command)?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// Middle and ends of measured values.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (at(middle.wrapping_sub(1)) + at(middle)) / 2.0
        } else {
            at(middle)
        };
        Self { median, min: at(0), max: at(sorted.len().wrapping_sub(1)) }
    }

    /// Middle and ends of `values[i] / base[i]`.
    fn of_ratios(values: &[f64], base: &[f64]) -> Self {
        Self::of(&values.iter().zip(base).map(|(value, base)| value / base).collect::<Vec<_>>())
    }

    /// `MEDIAN UNIT (MIN..MAX)`; the unit may be one that follows without a space.
    fn shown(&self, digits: usize, unit: &str) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$}{unit} ({min:.digits$}..{max:.digits$})")
    }
}

/// When, on what, and by which command.
pub fn machine() -> Result<String> {
    let date = output(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let cpus = thread::available_parallelism()?;
    let args: Vec<String> = env::args().skip(1).collect();
    Ok(format!(
        "{}, Linux {}, {cpus} x {model}: `cargo xtask {}`",
        date.trim(),
        kernel.trim(),
        args.join(" ")
    ))
}

/// What the machine has to do besides: processes that were ready to run in the last minute, on average.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_middle_and_ends() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
        assert_eq!(Spread::of_ratios(&[3.0, 8.0], &[2.0, 4.0]).shown(2, "x"), "1.75x (1.50..2.00)");
    }

    #[test]
    fn a_benchmark_line_is_found_among_a_tracers_own() -> Result<()> {
        let mut echo = Command::new("echo");
        assert_eq!(nanoseconds(echo.arg("Attaching 2 probes...\npair 1234.5\n@[x]: 7"), "pair")?, 1234.5);
        let none = nanoseconds(Command::new("echo").arg("pairs 1\npair-anywhere 1"), "pair");
        assert!(none.is_err_and(|error| error.to_string().ends_with("printed no line `pair NS`")));
        Ok(())
    }

    #[test]
    fn processes_without_a_row_count() {
        let report =
            serde_json::json!({"processes": [{}, {}], "folded": [{"processes": 40}, {"processes": 2}]});
        assert_eq!(processes(&report), 44);
        assert_eq!(processes(&serde_json::json!({"processes": [{}]})), 1);
    }
}
