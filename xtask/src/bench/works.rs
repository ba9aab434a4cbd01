//! Works under tracers, in turns: what each takes untraced, under vmaudit, and under what people use instead.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::command::{as_root, find, say};

use super::make::{self, Project};
use super::{Bench, Spread, nanoseconds, output_quietly};

const RUN: &str = "`vmaudit run`";
const STACKS: &str = "`vmaudit run --stacks`";
const WITHOUT_MAKERS: &str = "`vmaudit run` without makers";

/// One kind of work.
struct Work {
    title: &'static str,
    does: Does,
    /// Bars that the project has set itself, by tracer.
    bars: &'static [(&'static str, &'static str)],
}

/// What a work runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// A benchmark of the bin `workload` (`workload bench NAME SECONDS` prints `NAME NS_PER_OPERATION`).
    Bench(&'static str),
    /// `make` of small C files, the whole process.
    Make,
}

const PAIRS: &[(&str, &str)] = &[(RUN, "1.12x"), (STACKS, "1.5x")];
const WORKS: [Work; 9] = [
    Work { title: "mmap + munmap of a page, at given places", does: Does::Bench("pair"), bars: PAIRS },
    Work {
        title: "mmap + munmap of a page, where the kernel puts it",
        does: Does::Bench("pair-anywhere"),
        bars: PAIRS,
    },
    Work { title: "4 threads mapping and faulting", does: Does::Bench("threads"), bars: &[(RUN, "1.10x")] },
    Work { title: "getppid (not watched)", does: Does::Bench("getppid"), bars: &[(RUN, "1.02x")] },
    Work { title: "page fault", does: Does::Bench("fault"), bars: &[(RUN, "1.03x")] },
    Work { title: "mprotect of a page", does: Does::Bench("toggle"), bars: &[] },
    Work { title: "vfork + exec + exit", does: Does::Bench("births"), bars: &[(RUN, "1.05x")] },
    Work { title: "mmap up to 60,000 VMAs", does: GROWTH, bars: &[] },
    Work { title: "`make -B -j2` of 60 C files, whole run", does: Does::Make, bars: &[(RUN, "1.05x")] },
];
/// The work that shows what makers cost.
const GROWTH: Does = Does::Bench("growth");
/// Of [`RUN`] over [`WITHOUT_MAKERS`].
const MAKERS_BAR: &str = "1.10x";

/// A program that runs a command under it.
struct Tracer {
    name: &'static str,
    command: Box<dyn Fn(&Bench<'_>) -> Command>,
    /// It is vmaudit, which writes a report.
    own: bool,
}

/// Nanoseconds of one work, turn by turn.
struct Measured {
    plain: Vec<f64>,
    /// By the tracer's place in the list.
    traced: BTreeMap<usize, Vec<f64>>,
}

impl Bench<'_> {
    /// Prints the table, row by row as they are measured.
    pub(super) fn works(&mut self) -> Result<()> {
        println!("| work | tracer | untraced | traced | ratio, median (min..max) | bar |");
        println!("|--|--|--|--|--|--|");
        let project = Project::new(self.folder.path())?;
        let tracers = tracers();
        for work in &WORKS {
            let words = match (work.does, &project) {
                (Does::Bench(name), _) => {
                    let seconds = self.options.seconds.to_string();
                    vec![self.workload.clone().into(), "bench".into(), name.into(), seconds.into()]
                }
                (Does::Make, Some(project)) => project.words(),
                (Does::Make, None) => {
                    println!("| {} | {RUN} | - | - | not measured: {} | 1.05x |", work.title, make::MISSING);
                    continue;
                }
            };
            match self.work(work, &words, &tracers) {
                Ok(measured) => measured.print(work, &tracers),
                Err(error) => {
                    say!("{}: {error:#}", work.title);
                    self.failed += 1;
                    println!("| {} | {RUN} | - | - | not measured | - |", work.title);
                }
            }
        }
        println!();
        Ok(())
    }

    /// One work, untraced and under each tracer, in turns.
    fn work(&mut self, work: &Work, words: &[OsString], tracers: &[Tracer]) -> Result<Measured> {
        let (program, arguments) = words.split_first().context("a work is a program")?;
        let mut plain = Vec::new();
        let mut traced: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        // What others cost a build takes minutes to tell.
        let mut left_out: Vec<bool> =
            tracers.iter().map(|tracer| work.does == Does::Make && !tracer.own).collect();
        for round in 0..self.options.rounds {
            say!("{}, turn {} of {}", work.title, round + 1, self.options.rounds);
            plain.push(work.does.measure(Command::new(program).args(arguments))?);
            for (index, tracer) in tracers.iter().enumerate() {
                if left_out[index] {
                    continue;
                }
                let measured = work.does.measure((tracer.command)(self).args(words));
                if tracer.own {
                    traced.entry(index).or_default().push(measured?);
                    self.reported()?;
                    continue;
                }
                match measured {
                    Ok(ns) => traced.entry(index).or_default().push(ns),
                    Err(error) => {
                        // A tool that does not work here has no row; the figures asked for are vmaudit's.
                        say!("{} is left out: {error:#}", tracer.name);
                        left_out[index] = true;
                        traced.remove(&index);
                    }
                }
            }
        }
        Ok(Measured { plain, traced })
    }
}

impl Does {
    /// Nanoseconds of an operation, or of the whole.
    fn measure(self, command: &mut Command) -> Result<f64> {
        match self {
            Self::Bench(name) => nanoseconds(command, name),
            Self::Make => {
                let begin = Instant::now();
                output_quietly(make::alone(command))?;
                Ok(begin.elapsed().as_nanos() as f64)
            }
        }
    }
}

impl Measured {
    fn print(&self, work: &Work, tracers: &[Tracer]) {
        let row = |tracer: &str, base: &[f64], values: &[f64], bar: &str| {
            println!(
                "| {} | {tracer} | {} | {} | {} | {bar} |",
                work.title,
                time(Spread::of(base).median),
                time(Spread::of(values).median),
                Spread::of_ratios(values, base).shown(2, "x")
            );
        };
        for (index, values) in &self.traced {
            let name = tracers[*index].name;
            let bar = work.bars.iter().find(|(tracer, _)| *tracer == name).map_or("-", |(_, bar)| bar);
            row(name, &self.plain, values, bar);
        }
        let of = |name| self.traced.get(&tracers.iter().position(|tracer| tracer.name == name)?);
        if work.does == GROWTH
            && let (Some(with), Some(without)) = (of(RUN), of(WITHOUT_MAKERS))
        {
            row("makers: `vmaudit run` over it without", without, with, MAKERS_BAR);
        }
    }
}

/// Nanoseconds as they are read best.
fn time(ns: f64) -> String {
    if ns < 1e7 { format!("{ns:.0} ns") } else { format!("{:.0} ms", ns / 1e6) }
}

/// vmaudit, and what people use instead, as far as it is installed.
fn tracers() -> Vec<Tracer> {
    let own = |name, options: &'static [&'static str]| {
        let command = Box::new(move |bench: &Bench<'_>| bench.vmaudit_run(options));
        Tracer { name, command, own: true }
    };
    let mut all = vec![
        own(RUN, &[]),
        own("`vmaudit run --peaks-only`", &["--peaks-only"]),
        own(STACKS, &["--stacks"]),
        // What it costs to know who made the VMAs.
        Tracer {
            name: WITHOUT_MAKERS,
            command: Box::new(|bench| {
                let mut command = bench.vmaudit_run(&[]);
                command.env("VMAUDIT_WITHOUT", "makers");
                command
            }),
            own: true,
        },
    ];
    let other = |name, program: &'static str, args: &'static [&'static str]| {
        find(program)?;
        let command = Box::new(move |_: &Bench<'_>| {
            let mut command = as_root(program);
            command.args(args).stderr(Stdio::null());
            command
        });
        Some(Tracer { name, command, own: false })
    };
    all.extend(other("`strace -f -e %memory`", "strace", &["-f", "-e", "trace=%memory", "-o", "/dev/null"]));
    all.extend(other(
        "`perf trace -e mmap,munmap`",
        "perf",
        &["trace", "-e", "mmap,munmap", "-o", "/dev/null", "--"],
    ));
    if find("bpftrace").is_some() {
        let name = "`bpftrace`, counting sys_exit_mmap and munmap";
        let command = Box::new(|_: &Bench<'_>| {
            // bpftrace wants the command as one word: a shell that runs what follows puts it there.
            let mut shell = as_root("sh");
            let probe = "tracepoint:syscalls:sys_exit_mmap,tracepoint:syscalls:sys_exit_munmap { @[probe] = count(); }";
            shell.args(["-c", &format!("exec bpftrace -e '{probe}' -c \"$*\""), "sh"]).stderr(Stdio::null());
            shell
        });
        all.push(Tracer { name, command, own: false });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_belongs_to_a_tracer() {
        let tracers = tracers();
        let bars = WORKS.iter().flat_map(|work| work.bars);
        assert_eq!(bars.filter(|(name, _)| tracers.iter().any(|tracer| tracer.name == *name)).count(), 9);
        assert!(tracers.iter().any(|tracer| tracer.name == WITHOUT_MAKERS));
    }
}
