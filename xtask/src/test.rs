//! `cargo xtask test`: unit tests as the caller, then the end-to-end tests as root, on the running kernel.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, cargo, find, output, quiet_output, say, shown};
use crate::programs::{self, Linking};
use crate::python;

/// Tests with this in their path change the machine, e.g. its lockdown mode.
const GUEST_ONLY: &str = "::guest_only::";
/// What tests with this in their path need.
const WITH: [(&str, Needs); 15] = [
    ("::with_chromium::", Needs::Programs(&["chromium"], "chromium")),
    ("::with_cxx::", Needs::Programs(&["g++"], "g++")),
    ("::with_duckdb::", Needs::Module("duckdb", "duckdb")),
    ("::with_gcc::", Needs::Programs(&["gcc"], "gcc")),
    ("::with_gdb::", Needs::Programs(&["gdb", "gcc"], "gdb")),
    ("::with_go::", Needs::Programs(&["go"], "golang-go")),
    ("::with_java::", Needs::Programs(&["java", "javac"], "default-jdk-headless")),
    ("::with_nextest::", Needs::Programs(&["cargo", "cargo-nextest"], "cargo-nextest (nexte.st)")),
    (
        "::with_perfetto::",
        Needs::Module("perfetto.protos.perfetto.trace.perfetto_trace_pb2", "perfetto protobuf"),
    ),
    ("::with_prometheus::", Needs::Programs(&["prometheus", "promtool"], "prometheus")),
    ("::with_python::", Needs::Programs(&["python3"], "python3")),
    // The version that has it first; later ones may, or may not.
    ("::with_python_perf::", Needs::Runs(&["python3.12", "-X", "perf", "-c", ""], "python3.12")),
    ("::with_pytest::", Needs::Programs(&["pytest-3"], "python3-pytest")),
    ("::with_tmux::", Needs::Programs(&["tmux"], "tmux")),
    (
        "::with_viztracer::",
        Needs::Runs(
            &["sh", "-c", "command -v node && python3 -c 'import viztracer'"],
            "nodejs, and pip install viztracer",
        ),
    ),
];

/// What a test needs that may not be installed.
enum Needs {
    /// Programs, of a Debian package.
    Programs(&'static [&'static str], &'static str),
    /// A command that has to succeed, of a Debian package.
    Runs(&'static [&'static str], &'static str),
    /// A module of Python's, of packages of PyPI.
    Module(&'static str, &'static str),
}

impl Needs {
    fn are_there(&self) -> bool {
        match self {
            Self::Programs(names, _) => names.iter().all(|name| find(name).is_some()),
            Self::Runs(words, _) => words
                .split_first()
                .is_some_and(|(program, words)| quiet_output(Command::new(program).args(words)).is_some()),
            Self::Module(name, _) => {
                quiet_output(Command::new("python3").args(["-c", &format!("import {name}")])).is_some()
            }
        }
    }

    fn install(&self) -> String {
        match self {
            Self::Programs(_, package) | Self::Runs(_, package) => format!("Debian's package {package}"),
            Self::Module(_, packages) => format!("pip install {packages}"),
        }
    }
}

/// What the summaries of test programs say, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?;
        let words: Vec<&str> = rest.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        let number = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
    }
}

/// Builds everything, runs the tests whose names contain `filter`, and says the totals in the last line.
pub fn run(filter: Option<&str>) -> Result<()> {
    let vmaudit = programs::vmaudit(Linking::Usual)?;
    let workload = programs::of_tests(Linking::Usual, "workload")?;
    let suites = programs::suites(Linking::Usual)?;

    let mut unit = cargo()?;
    unit.args(["test", "--no-fail-fast"]).args(filter);
    let mut total = follow(&mut unit)?;
    let (helpers, end_to_end): (Vec<_>, Vec<_>) = suites.iter().partition(|suite| !suite.end_to_end);
    for suite in helpers {
        total.add(follow(Command::new(&suite.path).args(filter))?);
    }
    let mut live = Totals::default();
    let mut guest_only = 0;
    let missing = WITH.iter().filter(|(_, needs)| !needs.are_there());
    let mut left_out: Vec<(&str, String, usize)> =
        missing.map(|(path, needs)| (*path, needs.install(), 0)).collect();
    for suite in end_to_end {
        let names = output(Command::new(&suite.path).args(["--list", "--format=terse"]))?;
        guest_only += names.lines().filter(|name| name.contains(GUEST_ONLY)).count();
        say!("end-to-end tests: {}", suite.name);
        let mut program = as_root("env"); // sudo may drop variables
        program.arg(assignment("VMAUDIT_BIN", &vmaudit)).arg(assignment("WORKLOAD_BIN", &workload));
        if suite.name == python::SUITE {
            program.arg(assignment("PYTHON_TOOL", python::package()?));
        }
        program.arg(assignment("RUST_BACKTRACE", env::var_os("RUST_BACKTRACE").unwrap_or_default()));
        program.arg(&suite.path).args(["--test-threads=2", "--skip", GUEST_ONLY]);
        for (path, _, count) in &mut left_out {
            *count += names.lines().filter(|name| name.contains(*path)).count();
            program.args(["--skip", path]);
        }
        live.add(follow(program.args(filter))?);
    }
    total.add(live);
    let verdict = judge(total, live, filter.is_some());
    say!("{guest_only} tests change the machine and run in VMs only (`cargo xtask vm`)");
    for (_, package, count) in left_out {
        say!("{count} tests did NOT run for want of what they need: {package}");
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    verdict
}

/// Ignored tests and tests that did not run must not look like passed ones.
fn judge(total: Totals, live: Totals, filtered: bool) -> Result<()> {
    if total.failed > 0 {
        bail!("tests failed");
    }
    if live.ignored > 0 {
        bail!("end-to-end tests were ignored: they have to run or to go");
    }
    if filtered && total.passed == 0 {
        bail!("no test has a name like that");
    }
    if !filtered && live.passed == 0 {
        bail!("no end-to-end test ran");
    }
    Ok(())
}

fn assignment(name: &str, value: impl AsRef<std::ffi::OsStr>) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

/// Runs test programs, passes their output on, adds up their summaries.
fn follow(command: &mut Command) -> Result<Totals> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let mut totals = Totals::default();
    let mut summaries = 0;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            if let Some(found) = Totals::parse(&line) {
                totals.add(found);
                summaries += 1;
            }
        }
    }
    let status = child.wait()?;
    if summaries == 0 || (!status.success() && totals.failed == 0) {
        say!("`{}` ended without a complete summary ({status})", shown(command));
        totals.failed += 1; // a suite that crashed, or did not compile, counts as one failure
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read_as_the_test_harness_writes_them() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(Totals::parse(line), Some(Totals { passed: 12, failed: 3, ignored: 1 }));
        assert_eq!(Totals::parse("test result_of_something ... ok"), None);
    }

    #[test]
    fn a_suite_that_says_nothing_counts_as_failed() -> Result<()> {
        let one_failed = Totals { failed: 1, ..Totals::default() };
        assert_eq!(follow(&mut Command::new("true"))?, one_failed);
        let good = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'";
        assert_eq!(follow(Command::new("sh").args(["-c", good]))?, Totals { passed: 2, ..Totals::default() });
        let crashed = Totals { passed: 2, ..one_failed };
        assert_eq!(follow(Command::new("sh").args(["-c", &format!("{good}; exit 101")]))?, crashed);
        Ok(())
    }

    #[test]
    fn nothing_run_is_not_success() {
        let ran = |passed| Totals { passed, ..Totals::default() };
        assert!(judge(ran(9), ran(0), false).is_err());
        assert!(judge(ran(9), ran(3), false).is_ok());
        assert!(judge(ran(9), ran(0), true).is_ok());
        assert!(judge(ran(0), ran(0), true).is_err());
        assert!(judge(ran(9), Totals { passed: 3, failed: 0, ignored: 1 }, false).is_err());
        assert!(judge(Totals { passed: 9, failed: 1, ignored: 0 }, ran(3), false).is_err());
    }
}
