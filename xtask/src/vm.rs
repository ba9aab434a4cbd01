//! Boots test kernels under QEMU and runs the end-to-end tests in them. No root, and no network at run time.
//!
//! What counts is what the guest's init (tests/src/bin/init.rs) says on the serial console; a guest that says nothing,
//! or not everything, has failed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use nix::fcntl::{Flock, FlockArg};

use crate::arch::Arch;
use crate::command::{find, quiet_output, run, say, shown, target_dir};
use crate::figures::{self, Figure};
use crate::initramfs::Initramfs;
use crate::kernels::{self, Kernel};
use crate::programs::{self, Linking};
use crate::python;

/// How the tests are to be run.
#[derive(Args, Debug)]
pub struct Options {
    /// Kernels, by id (see `cargo xtask vm fetch --help`); without any: a small set
    #[arg(value_name = "KERNEL")]
    pub kernels: Vec<String>,
    /// All kernels
    #[arg(long)]
    all: bool,
    /// The guests' processor; another than this machine's is emulated (needs `cargo xtask setup --arm64`)
    #[arg(long, default_value = "x86_64")]
    arch: Arch,
    /// Emulation, or the processor itself (needs a working /dev/kvm)
    #[arg(long, env = "VMAUDIT_VM_ACCEL", default_value = "tcg")]
    accel: Accel,
    /// The few tests that show in minutes whether a kernel is followed at all, in place of all of them
    #[arg(long, conflicts_with = "filters")]
    quick: bool,
    /// Processors of a VM; losses by preemption are strongest on 1, races between processors need 2
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// VMs at one time; without it, one per processor of this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Words for the kernel's command line, e.g. `preempt=full` or `vmaudit.notracefs`
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Wall-clock limit of one VM, in seconds: a backstop, several times what a quiet machine takes [default: 3600, with
    /// --quick 600]
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Wall-clock limit of one test, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    test_limit: u64,
    /// Environment of the tests, e.g. `VMAUDIT_CHILDREN=200`; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Benchmarks in place of the tests, and instructions in place of time: the guest's clock goes on by a nanosecond
    /// with each, so figures have no noise; see `cargo xtask bench --vm`
    #[arg(long, conflicts_with_all = ["filters", "quick"])]
    pub counted: bool,
    /// A shell on the serial console instead of the tests (one kernel)
    #[arg(long)]
    shell: bool,
    /// Only tests whose name contains one of these
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// What `--quick` runs, by name: tracing works at all, both kinds of lock release, threads, families, exec, and refusals by
/// the limit and by other things.
const QUICK: [&str; 10] = [
    "preamble::the_machine_can_trace",
    "preamble::the_default_source",
    "peaks::holes_punched",
    "peaks::several_threads",
    "peaks::pairs_of_mmap",
    "processes::a_child_killed",
    "processes::a_process_that_execs_itself",
    "at_the_limit::munmap",
    "for_another_reason::rlimit_as",
    "failures::guest_only::a_memory_cgroup_that_ran_out",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Accel {
    Tcg,
    Kvm,
}

impl Options {
    /// Benchmarks on these kernels, with instructions counted.
    pub fn counting(kernels: &[&str]) -> Result<Self> {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        let words = ["vm", "--counted"].iter().chain(kernels);
        Ok(<Alone as clap::Parser>::try_parse_from(words)?.options)
    }

    /// Boots what was asked for, and prints the table.
    pub fn run(&self) -> Result<()> {
        let kernels = kernels::select(&self.kernels, self.all, self.arch)?;
        if find(self.arch.qemu()).is_none() {
            let option = if self.arch == Arch::X86 { "--vm" } else { "--arm64" };
            bail!("{} is missing: run `cargo xtask setup {option}`", self.arch.qemu());
        }
        // All images are asked for before the first boot.
        let images = kernels.iter().map(|kernel| kernel.image(self.arch)).collect::<Result<Vec<_>>>()?;
        // Below the target folder, not in the cache: several checkouts may share one.
        let folder = target_dir()?.join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let _alone = alone(&folder, self.arch)?;
        let initramfs = folder.join(format!("{}.cpio", self.arch.debian()));
        fs::write(&initramfs, self.initramfs()?)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        if self.shell {
            let [image] = images.as_slice() else { bail!("--shell wants one kernel") };
            return run(self.qemu(image, &initramfs).args(["-serial", "mon:stdio"]));
        }
        let begin = Instant::now();
        let work: Vec<_> = kernels.into_iter().zip(&images).collect();
        let runs = self.boot_all(&work, &initramfs, &folder)?;
        if self.counted {
            let of_kernels =
                runs.iter().map(|run| (run.kernel, run.version.as_str(), run.log.figures.as_slice()));
            println!("\n{}", figures::table(of_kernels));
        } else {
            println!("\n{}", table(&runs));
        }
        println!("\n{}", totals(&runs, begin.elapsed()));
        let failed: Vec<&str> =
            runs.iter().filter(|run| run.log.complaint().is_some()).map(|run| run.kernel).collect();
        if !failed.is_empty() {
            bail!("{} of {} kernels failed: {}", failed.len(), runs.len(), failed.join(" "));
        }
        Ok(())
    }

    /// Boots each kernel once, some at a time; results in the order asked for.
    fn boot_all(
        &self,
        work: &[(&'static Kernel, &PathBuf)],
        initramfs: &Path,
        folder: &Path,
    ) -> Result<Vec<Run>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or(processors, |jobs| jobs as usize).min(work.len());
        let next = AtomicUsize::new(0);
        let worker = || -> Vec<(usize, Result<Run>)> {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((kernel, image)) = work.get(index) else { return done };
                done.push((index, self.boot(kernel, image, initramfs, folder)));
            }
        };
        let mut all: Vec<(usize, Result<Run>)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        });
        all.sort_by_key(|(index, _)| *index);
        if all.len() != work.len() {
            bail!("only {} of {} kernels have a result", all.len(), work.len());
        }
        all.into_iter().map(|(_, run)| run).collect()
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        say!("building the guest's programs");
        let mut archive = Initramfs::default();
        // Without it the kernel gives init no console.
        archive.device("dev/console", 5, 1);
        for folder in ["bin", "proc", "sys", "tmp", "var/tmp", "root"] {
            archive.folder(folder);
        }
        archive.text("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
        archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
        let mut put = |path: &str, file: &Path| -> Result<()> {
            let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            archive.program(path, &content);
            Ok(())
        };
        put("init", &programs::of_tests(Linking::Guest(self.arch), "init")?)?;
        put("bin/workload", &programs::of_tests(Linking::Guest(self.arch), "workload")?)?;
        put("bin/vmaudit", &programs::vmaudit(Linking::Guest(self.arch))?)?;
        let mut conf = format!(
            "test_limit_s={}\nshell={}\ncounted={}\n",
            self.test_limit,
            u8::from(self.shell),
            u8::from(self.counted)
        );
        let mut suites = 0;
        // A guest has no Python.
        let fits = |suite: &&programs::Suite| suite.end_to_end && suite.name != python::SUITE;
        for suite in programs::suites(Linking::Guest(self.arch))?.iter().filter(fits) {
            put(&format!("bin/{}", suite.name), &suite.path)?;
            conf += &format!("suite={}\n", suite.name);
            suites += 1;
        }
        if suites == 0 {
            bail!("the package vmaudit-tests has no end-to-end tests");
        }
        // Tests start shells and what they call.
        put("bin/busybox", &busybox(self.arch)?)?;
        conf += "env=VMAUDIT_CHILDREN=400\n"; // an emulated machine is ten times slower; --env may say otherwise
        for variable in &self.env {
            if !variable.contains('=') {
                bail!("--env wants NAME=VALUE, not {variable}");
            }
            conf += &format!("env={variable}\n");
        }
        let quick = QUICK.iter().copied().filter(|_| self.quick);
        for filter in self.filters.iter().map(String::as_str).chain(quick) {
            conf += &format!("filter={filter}\n");
        }
        archive.text("vm.conf", &conf);
        Ok(archive.finish())
    }

    fn qemu(&self, image: &Path, initramfs: &Path) -> Command {
        let (accel, processor) = match self.accel {
            Accel::Tcg => ("tcg", self.arch.emulated()),
            // Alone: as a fallback list, a /dev/kvm that opens but does not work hangs in the firmware.
            Accel::Kvm => ("kvm", "host"),
        };
        let mut qemu = Command::new(self.arch.qemu());
        qemu.args(["-accel", accel, "-machine", self.arch.machine(), "-cpu", processor]);
        qemu.args(["-m", "1024", "-smp", &self.smp.to_string()]);
        if self.counted {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.args(["-display", "none", "-no-reboot", "-nic", "none"]);
        qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
        // The kernel's tests of its own ciphers go on for seconds after the start, and all instructions count.
        let alone = if self.counted { "cryptomgr.notests" } else { "" };
        // panic=-1: reboot at once, which -no-reboot turns into the end.
        let words = format!("console={} quiet loglevel=3 panic=-1 {alone}", self.arch.console());
        qemu.arg("-append").arg(format!("{words} {}", self.append));
        qemu
    }

    fn boot(&self, kernel: &'static Kernel, image: &Path, initramfs: &Path, folder: &Path) -> Result<Run> {
        let of = if self.arch == Arch::X86 { "" } else { "arm64-" };
        let console = folder.join(format!("{of}{}.log", kernel.id));
        let limit = Duration::from_secs(self.limit.unwrap_or(if self.quick { 600 } else { 3600 }));
        say!("{}: {}, log in {}", kernel.id, kernel.package(self.arch)?, console.display());
        let begin = Instant::now();
        for attempt in 1..=2 {
            drop(fs::remove_file(&console)); // an earlier run's verdict must not count for this one
            let mut qemu = self.qemu(image, initramfs);
            qemu.args(["-monitor", "none", "-serial"]).arg(format!("file:{}", console.display()));
            let end = within(&mut qemu, limit)?;
            let text = fs::read(&console).unwrap_or_default();
            let log = Log::parse(&String::from_utf8_lossy(&text), end);
            if !log.reached_init && attempt == 1 {
                let kept = console.with_extension("first.log");
                fs::rename(&console, &kept)?;
                say!("{}: init was not reached, see {}; once more", kernel.id, kept.display());
                continue;
            }
            let version = kernel.package(self.arch)?.split(' ').nth(1).unwrap_or_default().to_owned();
            let run = Run { kernel: kernel.id, version, seconds: begin.elapsed().as_secs_f64(), log };
            run.tell();
            return Ok(run);
        }
        bail!("{}: not booted", kernel.id)
    }
}

/// Held by the one run that writes the guests' programs and logs of an architecture there.
fn alone(folder: &Path, arch: Arch) -> Result<Flock<File>> {
    let path = folder.join(format!("{}.lock", arch.debian()));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        anyhow!("another `cargo xtask vm` of this checkout has to end first ({}: {errno})", path.display())
    })
}

/// A statically linked busybox: this machine's, or the one that came with the kernels.
fn busybox(arch: Arch) -> Result<PathBuf> {
    if let Some(busybox) = kernels::foreign_busybox(arch)? {
        if !busybox.is_file() {
            bail!("{} is missing: run `cargo xtask vm fetch --arch {}`", busybox.display(), arch.debian());
        }
        return Ok(busybox);
    }
    let sentence =
        "a static busybox is missing: run `cargo xtask setup --vm`, or install the package busybox-static";
    let busybox = find("busybox").context(sentence)?;
    // ldd fails for a static program.
    if quiet_output(Command::new("ldd").arg(&busybox)).is_some() {
        bail!(sentence);
    }
    Ok(busybox)
}

/// Runs to the end or to the limit; says how it ended, unless well.
pub(crate) fn within(command: &mut Command, limit: Duration) -> Result<Option<String>> {
    let begin = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((!status.success()).then(|| format!("QEMU failed ({status})")));
        }
        if begin.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("stopped at the time limit of {} s", limit.as_secs())));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[derive(Debug)]
struct Run {
    kernel: &'static str,
    /// Of Debian's package.
    version: String,
    seconds: f64,
    log: Log,
}

impl Run {
    fn tell(&self) {
        let Some(complaint) = self.log.complaint() else {
            say!("{}: {} tests passed in {:.0} s", self.kernel, self.log.tests.len(), self.seconds);
            return;
        };
        for test in self.log.tests.iter().filter(|test| !test.passed) {
            say!("{}: FAILED {}\n{}", self.kernel, test.name, test.output.trim());
        }
        if self.log.verdict.is_none() {
            say!("{}: last lines of the console:\n{}", self.kernel, self.log.last_lines);
        }
        say!("{}: {complaint}", self.kernel);
    }
}

/// What a serial console tells about a run.
#[derive(Debug, Default, PartialEq)]
struct Log {
    reached_init: bool,
    /// How QEMU ended, unless well.
    end: Option<String>,
    error: Option<String>,
    facts: Option<String>,
    planned: Option<usize>,
    /// Tests that a guest cannot run, left out of its list.
    native_only: usize,
    tests: Vec<Test>,
    /// Of benchmarks.
    figures: Vec<Figure>,
    verdict: Option<(usize, usize)>,
    last_lines: String,
}

#[derive(Debug, Default, PartialEq)]
struct Test {
    name: String,
    passed: bool,
    seconds: f64,
    output: String,
}

impl Log {
    fn parse(text: &str, end: Option<String>) -> Self {
        let mut log = Self { end, ..Self::default() };
        let mut output = String::new();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        for line in &lines {
            let Some(marker) = line.strip_prefix("vmaudit-vm: ") else {
                output += line;
                output.push('\n');
                continue;
            };
            let words: Vec<&str> = marker.split(' ').collect();
            match words.as_slice() {
                ["init"] => log.reached_init = true,
                ["facts", ..] => log.facts = Some(marker["facts ".len()..].to_owned()),
                ["plan", number] => log.planned = number.parse().ok(),
                ["native-only", number] => log.native_only = number.parse().unwrap_or(0),
                ["begin", _] => output.clear(),
                [word @ ("pass" | "fail"), name, seconds] => log.tests.push(Test {
                    name: (*name).to_owned(),
                    passed: *word == "pass",
                    seconds: seconds.parse().unwrap_or(0.0),
                    output: std::mem::take(&mut output),
                }),
                ["figure", work, under, ns] => log.figures.extend(ns.parse().ok().map(|ns| Figure {
                    work: (*work).to_owned(),
                    under: (*under).to_owned(),
                    ns,
                })),
                ["verdict", "pass", passed, "fail", failed] => {
                    log.verdict = passed.parse().ok().zip(failed.parse().ok());
                }
                ["error", ..] => log.error = Some(marker["error ".len()..].to_owned()),
                _ => {}
            }
        }
        log.last_lines = lines[lines.len().saturating_sub(50)..].join("\n");
        log
    }

    /// Why the run does not count as passed.
    fn complaint(&self) -> Option<String> {
        let passed = self.tests.iter().filter(|test| test.passed).count();
        let failed = self.tests.len() - passed;
        if !self.reached_init {
            return Some("the kernel never reached init".to_owned());
        }
        if let Some(error) = &self.error {
            return Some(error.clone());
        }
        let Some(verdict) = self.verdict else {
            let end = self.end.as_deref().unwrap_or("the VM ended");
            return Some(format!(
                "no verdict: {end} after {} of {} tests",
                self.tests.len(),
                self.planned.unwrap_or(0)
            ));
        };
        if self.tests.is_empty() && self.figures.is_empty() {
            return Some("no test ran".to_owned());
        }
        if !self.figures.is_empty() {
            let agree = self.tests.is_empty() && verdict == (self.figures.len(), 0);
            return (!agree).then(|| "verdict and figures do not agree".to_owned());
        }
        if verdict != (passed, failed) || self.planned != Some(self.tests.len()) {
            return Some("verdict, plan and results do not agree".to_owned());
        }
        (failed > 0).then(|| format!("{failed} of {} tests failed", self.tests.len()))
    }

    /// Passed, all and seconds of each group of tests: all but the last part of their names.
    fn groups(&self) -> BTreeMap<&str, (usize, usize, f64)> {
        let mut groups = BTreeMap::new();
        for test in &self.tests {
            let group = test.name.rsplit_once("::").map_or(test.name.as_str(), |(group, _)| group);
            let (passed, all, seconds) = groups.entry(group).or_insert((0, 0, 0.0));
            *passed += usize::from(test.passed);
            *all += 1;
            *seconds += test.seconds;
        }
        groups
    }
}

/// Kernels by test groups, in Markdown.
fn table(runs: &[Run]) -> String {
    let mut names: Vec<&str> =
        runs.iter().flat_map(|run| run.log.groups().into_keys().collect::<Vec<_>>()).collect();
    names.sort_unstable();
    names.dedup();
    let mut lines =
        vec![format!("| kernel | {} | verdict |", names.join(" | ")), "|--".repeat(names.len() + 2) + "|"];
    for run in runs {
        let groups = run.log.groups();
        let cell = |name: &&str| match groups.get(name) {
            None => "-".to_owned(),
            Some((passed, all, seconds)) if passed == all => format!("{all} passed, {seconds:.1} s"),
            Some((passed, all, seconds)) => format!("**{} of {all} failed**, {seconds:.1} s", all - passed),
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        let verdict = run.log.complaint().map_or("ok".to_owned(), |complaint| format!("**{complaint}**"));
        let kernel = format!("{} ({})", run.kernel, run.version);
        lines.push(format!("| {kernel} | {} | {verdict}, {:.0} s |", cells.join(" | "), run.seconds));
    }
    lines.retain(|line| !line.is_empty());
    lines.join("\n").replace("|  |", "|")
}

/// What the table adds up to.
fn totals(runs: &[Run], took: Duration) -> String {
    let tests: Vec<&Test> = runs.iter().flat_map(|run| &run.log.tests).collect();
    let passed = tests.iter().filter(|test| test.passed).count();
    let missing: usize =
        runs.iter().map(|run| run.log.planned.unwrap_or(0).saturating_sub(run.log.tests.len())).sum();
    let native_only = runs.iter().map(|run| run.log.native_only).max().unwrap_or(0);
    format!(
        "{} kernels in {:.0} s: {passed} tests passed, {} failed, {missing} without a result; {native_only} run \
         natively only",
        runs.len(),
        took.as_secs_f64(),
        tests.len() - passed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SeaBIOS\x1b[2J\nvmaudit-vm: init\r\n\nvmaudit-vm: facts {\"kernel\": \"6.1\"}\n\nvmaudit-vm: plan 2\n\n\
                        vmaudit-vm: begin live::exact::burst\nrunning 1 test\nok\n\nvmaudit-vm: pass live::exact::burst 1.25\n\
                        \nvmaudit-vm: begin live::tree::exec\nhalf a line\nvmaudit-vm: pass live::tree::exec 0.50\n\
                        \nvmaudit-vm: verdict pass 2 fail 0\n";

    #[test]
    fn two_runs_do_not_write_over_each_other() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vmaudit-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let first = alone(&folder, Arch::X86)?;
        assert!(alone(&folder, Arch::X86).is_err());
        assert!(alone(&folder, Arch::Arm).is_ok(), "its files have other names");
        drop(first);
        assert!(alone(&folder, Arch::X86).is_ok());
        fs::remove_dir_all(&folder)?;
        Ok(())
    }

    #[test]
    fn a_complete_log_passes() {
        let log = Log::parse(GOOD, None);
        assert_eq!(log.complaint(), None);
        assert_eq!(log.facts.as_deref(), Some("{\"kernel\": \"6.1\"}"));
        assert_eq!(log.groups()["live::exact"], (1, 1, 1.25));
        assert_eq!(log.tests[1].output, "half a line\n");
    }

    #[test]
    fn whatever_is_missing_is_a_failure() {
        for (from, to, complaint) in [
            ("vmaudit-vm: init", "vmaudit-vm: ", "the kernel never reached init"),
            (
                "vmaudit-vm: verdict pass 2 fail 0",
                "Kernel panic",
                "no verdict: the VM ended after 2 of 2 tests",
            ),
            ("verdict pass 2 fail 0", "verdict pass 3 fail 0", "verdict, plan and results do not agree"),
            ("plan 2", "plan 3", "verdict, plan and results do not agree"),
            (
                "vmaudit-vm: plan 2",
                "vmaudit-vm: error live: a is marked as ignored",
                "live: a is marked as ignored",
            ),
        ] {
            assert_eq!(Log::parse(&GOOD.replace(from, to), None).complaint().as_deref(), Some(complaint));
        }
        let failing =
            GOOD.replace("pass live::tree", "fail live::tree").replace("pass 2 fail 0", "pass 1 fail 1");
        assert_eq!(Log::parse(&failing, None).complaint().as_deref(), Some("1 of 2 tests failed"));
        let empty = "\nvmaudit-vm: init\nvmaudit-vm: plan 0\nvmaudit-vm: verdict pass 0 fail 0\n";
        assert_eq!(Log::parse(empty, None).complaint().as_deref(), Some("no test ran"));
        let late = Log::parse("", Some("stopped at the time limit of 300 s".to_owned()));
        assert_eq!(late.complaint().as_deref(), Some("the kernel never reached init"));
    }

    #[test]
    fn the_table_has_a_row_per_kernel_and_a_column_per_group() {
        let failing =
            GOOD.replace("pass live::tree", "fail live::tree").replace("pass 2 fail 0", "pass 1 fail 1");
        let run = |kernel, text: &str| Run {
            kernel,
            version: format!("{kernel}.9-1"),
            seconds: 4.2,
            log: Log::parse(text, None),
        };
        let runs = [run("6.1", GOOD), run("6.12", &failing), run("7.2", "")];
        assert_eq!(
            totals(&runs, Duration::from_secs(9)),
            "3 kernels in 9 s: 3 tests passed, 1 failed, 0 without a result; 0 run natively only"
        );
        assert_eq!(
            table(&runs),
            "| kernel | live::exact | live::tree | verdict |\n\
             |--|--|--|--|\n\
             | 6.1 (6.1.9-1) | 1 passed, 1.2 s | 1 passed, 0.5 s | ok, 4 s |\n\
             | 6.12 (6.12.9-1) | 1 passed, 1.2 s | **1 of 1 failed**, 0.5 s | **1 of 2 tests failed**, 4 s |\n\
             | 7.2 (7.2.9-1) | - | - | **the kernel never reached init**, 4 s |"
        );
    }
}
