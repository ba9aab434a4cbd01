//! `cargo xtask bench`: what following costs the workload, measured against the untraced program in the same run, turn
//! by turn, so that a neighbour's load hits both.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::command::{TempDir, as_root, find, output, say, shown};
use crate::programs::{self, Linking};
use crate::python;

/// Processes of the rows on memory and on scanning.
const CROWD: usize = 1000;
/// VMAs of each of them, for scanning.
const CROWD_VMAS: usize = 1000;
/// The benchmarks of the bin `workload` (`workload bench NAME SECONDS` prints `NAME NS_PER_OPERATION`).
const WORKS: [(&str, &str); 7] = [
    ("pair", "mmap + munmap of a page"),
    ("threads", "4 threads mapping and faulting"),
    ("getppid", "getppid (not watched)"),
    ("fault", "page fault"),
    ("toggle", "mprotect of a page"),
    ("births", "vfork + exec + exit"),
    ("growth", "mmap up to 60,000 VMAs"),
];

/// How much to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Turns; each measures the untraced program and then every tracer
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only `vmaudit scan`, against the Python vmaudit
    #[arg(long)]
    scan: bool,
    /// Ratios without noise, by instructions that QEMU counts, on kernels of every arrangement of hooks
    #[arg(long, conflicts_with = "scan")]
    vm: bool,
}

/// Kernels of `--vm`: hooks as before 6.14, as before 6.18, as from then on, and as from 7.0 on.
const COUNTED_KERNELS: [&str; 5] = ["6.1", "6.12", "6.16", "6.18", "7.2"];

/// Another program that runs a command under it.
struct Tracer {
    name: &'static str,
    command: Box<dyn Fn() -> Command>,
    /// Where it writes vmaudit's report, if it is vmaudit.
    report: Option<PathBuf>,
}

impl Options {
    /// Measures and prints the tables.
    pub fn run(&self) -> Result<()> {
        if self.vm {
            return crate::vm::Options::counting(&COUNTED_KERNELS)?.run();
        }
        let vmaudit = programs::vmaudit(Linking::Usual)?;
        let workload = programs::of_tests(Linking::Usual, "workload")?;
        let folder = TempDir::new("bench")?;
        let report = folder.path().join("report.json");

        println!("{}\n", machine()?);
        if self.scan {
            println!("{}", self.scan(&vmaudit, &workload)?);
            return Ok(());
        }
        println!("| work | tracer | untraced | traced | ratio, median (min..max) |\n|--|--|--|--|--|");
        let tracers = tracers(&vmaudit, &report);
        let mut exact = (0, 0);
        for (name, title) in WORKS {
            for row in self.work(name, &workload, &tracers, &mut exact)? {
                println!("| {title} {row}");
            }
        }
        println!("\n| whole process | figure |\n|--|--|");
        println!("| runs whose peaks are all exact | {} of {} |", exact.0, exact.1);
        println!("{}", self.whole_process(&vmaudit, &report)?);
        println!("{}", memory(&vmaudit, &report)?);
        println!("\n{}", self.scan(&vmaudit, &workload)?);
        Ok(())
    }

    /// One benchmark, untraced and under each tracer, in turns.
    fn work(
        &self,
        name: &str,
        workload: &Path,
        tracers: &[Tracer],
        exact: &mut (u32, u32),
    ) -> Result<Vec<String>> {
        let seconds = self.seconds.to_string();
        let mut plain = Vec::new();
        let mut traced: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let mut broken = vec![false; tracers.len()];
        for round in 0..self.rounds {
            say!("{name}, turn {} of {}", round + 1, self.rounds);
            plain.push(nanoseconds(Command::new(workload).args(["bench", name, &seconds]), name)?);
            for (index, tracer) in tracers.iter().enumerate() {
                if broken[index] {
                    continue;
                }
                let mut command = (tracer.command)();
                let measured = nanoseconds(command.arg(workload).args(["bench", name, &seconds]), name);
                match (&tracer.report, measured) {
                    (Some(report), Ok(ns)) => {
                        exact.0 += u32::from(peaks_are_exact(report)?);
                        exact.1 += 1;
                        traced.entry(index).or_default().push(ns);
                    }
                    (None, Ok(ns)) => traced.entry(index).or_default().push(ns),
                    (Some(_), Err(error)) => return Err(error),
                    (None, Err(error)) => {
                        // A tool that does not work here has no row; the figures asked for are vmaudit's.
                        say!("{} is left out: {error:#}", tracer.name);
                        broken[index] = true;
                    }
                }
            }
        }
        let row = |(index, values): (usize, Vec<f64>)| {
            let ratios: Vec<f64> = values.iter().zip(&plain).map(|(traced, plain)| traced / plain).collect();
            let ratio = Spread::of(&ratios);
            format!(
                "| {} | {:.0} ns | {:.0} ns | {:.2}x ({:.2}..{:.2}) |",
                tracers[index].name,
                Spread::of(&plain).median,
                Spread::of(&values).median,
                ratio.median,
                ratio.min,
                ratio.max
            )
        };
        Ok(traced.into_iter().filter(|(index, _)| !broken[*index]).map(row).collect())
    }

    /// What vmaudit adds to a program that does nothing.
    fn whole_process(&self, vmaudit: &Path, report: &Path) -> Result<String> {
        let mut added = Vec::new();
        for _ in 0..self.rounds.max(10) {
            let plain = milliseconds(&mut Command::new("true"))?;
            added.push(milliseconds(vmaudit_run(vmaudit, report, &[]).arg("true"))? - plain);
        }
        let added = Spread::of(&added);
        let title = "`vmaudit run -- true` over `true`";
        Ok(format!("| {title} | {:.0} ms ({:.0}..{:.0}) |", added.median, added.min, added.max))
    }

    /// `vmaudit scan` against the Python tool, beside a crowd that stands still.
    fn scan(&self, vmaudit: &Path, workload: &Path) -> Result<String> {
        let package = python::package()?;
        let vmas = (CROWD * CROWD_VMAS).to_string();
        let mut crowd = Command::new(workload)
            .args(["crowd", &CROWD.to_string(), &CROWD_VMAS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = crowd.stdout.take().context("the crowd has a stdout")?;
        let standing = BufReader::new(told).lines().take(CROWD).collect::<std::io::Result<Vec<_>>>()?;
        if standing.len() < CROWD {
            bail!("only {} of {CROWD} processes stand", standing.len());
        }
        let python = || {
            let mut path = OsString::from("PYTHONPATH=");
            path.push(&package);
            let mut command = as_root("env");
            command.arg(path).args(["python3", "-m", "vmaudit"]);
            command
        };
        let ours = |source: &str| {
            let mut command = as_root(vmaudit);
            command.args(["scan", "--source", source]);
            command
        };
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..self.rounds {
            say!("scan, turn {} of {}", round + 1, self.rounds);
            for (times, mut command) in times.iter_mut().zip([python(), ours("ebpf"), ours("proc")]) {
                times.push(milliseconds(command.stdout(Stdio::null()))?);
            }
        }
        drop(crowd.stdin.take());
        crowd.wait()?;
        let [old, kernel, lines] = &times;
        let row = |title: &str, new: &[f64]| {
            let ratios: Vec<f64> = old.iter().zip(new).map(|(old, new)| old / new).collect();
            let (time, ratio) = (Spread::of(new), Spread::of(&ratios));
            format!(
                "| {title} | {:.0} ms ({:.0}..{:.0}) | {:.0}x ({:.0}..{:.0}) |",
                time.median, time.min, time.max, ratio.median, ratio.min, ratio.max
            )
        };
        let mut table = format!(
            "| scan of {CROWD} processes, {vmas} VMAs | time, median (min..max) | faster than Python |\n|--|--|--|\n"
        );
        table += &format!("{}\n", row("the Python vmaudit 1.0.1", old));
        table += &format!("{}\n", row("`vmaudit scan`", kernel));
        table += &row("`vmaudit scan --source proc` (without rights)", lines);
        Ok(table)
    }
}

/// Resident memory of vmaudit that follows many processes at once.
fn memory(vmaudit: &Path, report: &Path) -> Result<String> {
    let script = format!("i=0; while [ $i -lt {CROWD} ]; do sleep 5 & i=$((i+1)); done; wait");
    let mut command = vmaudit_run(vmaudit, report, &[]);
    let mut child = command.args(["sh", "-c", &script]).spawn()?;
    let mut peak_kib = None;
    while child.try_wait()?.is_none() {
        // Not the child itself when sudo stands between.
        let ours = std::iter::once(child.id()).chain(descendants(child.id()));
        let status_of = |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok();
        let vmaudit = ours.filter_map(status_of).find(|status| field(status, "Name:") == Some("vmaudit"));
        if let Some(kib) = vmaudit.as_deref().and_then(|status| field(status, "VmHWM:")?.parse::<u64>().ok())
        {
            peak_kib = Some(kib); // a high-water mark: the last one read is the one
        }
        thread::sleep(Duration::from_millis(100));
    }
    if !child.wait()?.success() {
        bail!("`{}` failed", shown(&command));
    }
    let processes = read_report(report)?["processes"].as_array().map_or(0, Vec::len);
    if processes < CROWD {
        bail!("vmaudit reports {processes} of {CROWD} processes");
    }
    let kib = peak_kib.context("vmaudit's resident memory could not be read")?;
    Ok(format!(
        "| resident memory of vmaudit, {processes} processes traced | {:.1} MiB |",
        kib as f64 / 1024.0
    ))
}

fn vmaudit_run(vmaudit: &Path, report: &Path, options: &[&str]) -> Command {
    let mut command = as_root(vmaudit);
    command.args(["run", "--source", "ebpf", "-o"]).arg(report).args(options).arg("--");
    command
}

/// vmaudit, and what people use instead, as far as it is installed.
fn tracers(vmaudit: &Path, report: &Path) -> Vec<Tracer> {
    let own = |name, options: &'static [&'static str]| {
        let (vmaudit, report) = (vmaudit.to_owned(), report.to_owned());
        let kept = report.clone();
        let command = Box::new(move || vmaudit_run(&vmaudit, &report, options));
        Tracer { name, command, report: Some(kept) }
    };
    let mut all = vec![own("`vmaudit run`", &[]), own("`vmaudit run --peaks-only`", &["--peaks-only"])];
    // What it costs to know who made the VMAs.
    let without = own("`vmaudit run` without makers", &[]);
    all.push(Tracer {
        command: Box::new(move || {
            let mut command = (without.command)();
            command.env("VMAUDIT_WITHOUT", "makers");
            command
        }),
        ..without
    });
    let other = |name, program: &'static str, args: &'static [&'static str]| {
        find(program)?;
        let command = Box::new(move || {
            let mut command = as_root(program);
            command.args(args).stderr(Stdio::null());
            command
        });
        Some(Tracer { name, command, report: None })
    };
    all.extend(other("`strace -f -e %memory`", "strace", &["-f", "-e", "trace=%memory", "-o", "/dev/null"]));
    all.extend(other(
        "`perf trace -e mmap,munmap`",
        "perf",
        &["trace", "-e", "mmap,munmap", "-o", "/dev/null", "--"],
    ));
    if find("bpftrace").is_some() {
        let name = "`bpftrace`, counting sys_exit_mmap and munmap";
        let command = Box::new(|| {
            // bpftrace wants the command as one word: a shell that runs what follows puts it there.
            let mut shell = as_root("sh");
            let probe = "tracepoint:syscalls:sys_exit_mmap,tracepoint:syscalls:sys_exit_munmap { @[probe] = count(); }";
            shell.args(["-c", &format!("exec bpftrace -e '{probe}' -c \"$*\""), "sh"]).stderr(Stdio::null());
            shell
        });
        all.push(Tracer { name, command, report: None });
    }
    all
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

fn read_report(report: &Path) -> Result<Value> {
    let text = fs::read_to_string(report)
        .with_context(|| format!("vmaudit wrote no report to {}", report.display()))?;
    serde_json::from_str(&text).context("vmaudit's report is not JSON")
}

/// Whether the run that was measured did what it is measured for.
fn peaks_are_exact(report: &Path) -> Result<bool> {
    let report = read_report(report)?;
    if report["source"] != "ebpf" {
        bail!("vmaudit did not use eBPF; nothing of that kind is measured here");
    }
    Ok(report["coverage"]["exact_peaks"] == true)
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

/// Children of a process, theirs, and so on.
fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    children.flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

/// The first word of a line of /proc/PID/status.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_middle_and_ends() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn a_benchmark_line_is_found_among_a_tracers_own() -> Result<()> {
        let mut echo = Command::new("echo");
        assert_eq!(nanoseconds(echo.arg("Attaching 2 probes...\npair 1234.5\n@[x]: 7"), "pair")?, 1234.5);
        let none = nanoseconds(Command::new("echo").arg("pairs 1"), "pair");
        assert!(none.is_err_and(|error| error.to_string().ends_with("printed no line `pair NS`")));
        Ok(())
    }
}
