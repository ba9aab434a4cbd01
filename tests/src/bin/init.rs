//! PID 1 of the test VMs: mounts what a machine has, runs each test alone, prints markers that `cargo xtask vm` reads,
//! powers off.
//!
//! Markers are lines `vmaudit-vm: ...` of their own: `init`, `facts JSON`, `native-only N`, `plan N`, then `begin TEST` and
//! `pass|fail TEST SECONDS` per test, and at last `verdict pass N fail M`. Without the last one the run does not count.
#![expect(clippy::print_stdout, reason = "the serial console is how results leave the guest")]

use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What is mounted, in this order: source and type, target, options. All targets are made; a kernel without one of the
/// types says so in the log, and the tests show what is lost.
const MOUNTS: [(&str, &str, &str); 11] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/tmp", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", TRACEFS, ""),
];
/// Left out with `vmaudit.notracefs` on the kernel's command line; debugfs too, as it would mount tracefs by itself.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Suites that need more than a guest has (Python and pip).
const NATIVE_ONLY: [&str; 1] = ["against_python"];

/// Whether a test needs what a guest does not have: its module says so, by `native_only`, by the program it runs with
/// (`with_pytest`), or by `lock_events_only` where this kernel has none.
fn is_native_only(suite: &str, test: &str) -> bool {
    let lacks = |module: &str| match module {
        "native_only" => true,
        "lock_events_only" => !vmaudit_tests::has_lock_events(),
        module => module.starts_with("with_"),
    };
    NATIVE_ONLY.contains(&suite) || test.rsplit("::").skip(1).any(lacks)
}

fn main() {
    if std::process::id() != 1 {
        println!("this is the first process of a test VM; start it with `cargo xtask vm`");
        std::process::exit(2);
    }
    // The first line is glued to what the firmware printed.
    marker("init");
    let outcome = prepare().and_then(|settings| match settings {
        Settings { shell: true, .. } => shell(),
        Settings { counted: true, .. } => run_benchmarks(&settings),
        _ => run_tests(&settings),
    });
    if let Err(error) = outcome {
        marker(&format!("error {error:#}"));
    }
    power_off();
}

/// What the host asks for, from `/vm.conf`: lines `key=value`.
#[derive(Debug, Default)]
struct Settings {
    suites: Vec<String>,
    filters: Vec<String>,
    environment: Vec<(String, String)>,
    test_limit: Duration,
    shell: bool,
    counted: bool,
}

fn prepare() -> Result<Settings> {
    mount("proc", "/proc", "")?;
    let cmdline = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    let without_tracefs = cmdline.split_whitespace().any(|word| word == "vmaudit.notracefs");
    for (kind, target, options) in &MOUNTS[1..] {
        if without_tracefs && matches!(*kind, "tracefs" | "debugfs") {
            continue;
        }
        if let Err(error) = mount(kind, target, options) {
            println!("init: {error:#}");
        }
    }
    if fs::exists("/bin/busybox")? {
        Command::new("/bin/busybox").args(["--install", "-s", "/bin"]).status()?;
    }
    loopback_up().context("cannot bring up the loopback interface")?;

    let mut settings = Settings { test_limit: Duration::from_secs(60), ..Settings::default() };
    for line in fs::read_to_string("/vm.conf").context("cannot read /vm.conf")?.lines() {
        match line.split_once('=').with_context(|| format!("/vm.conf: no `=` in {line}"))? {
            ("suite", name) => settings.suites.push(name.to_owned()),
            ("filter", word) => settings.filters.push(word.to_owned()),
            ("env", variable) => {
                let (name, value) = variable.split_once('=').context("/vm.conf: env without a value")?;
                settings.environment.push((name.to_owned(), value.to_owned()));
            }
            ("test_limit_s", seconds) => settings.test_limit = Duration::from_secs(seconds.parse()?),
            ("counted", value) => settings.counted = value == "1",
            ("shell", value) => settings.shell = value == "1",
            (key, _) => bail!("/vm.conf: unknown key {key}"),
        }
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let facts = serde_json::json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "version": read("/proc/sys/kernel/version"),
        "cpus": thread::available_parallelism()?.get(),
        "cmdline": cmdline.trim(),
        "btf": fs::exists("/sys/kernel/btf/vmlinux")?,
        "tracefs": fs::exists("/sys/kernel/tracing/events")?,
    });
    marker(&format!("facts {facts}"));
    Ok(settings)
}

fn run_tests(settings: &Settings) -> Result<()> {
    let mut planned = Vec::new();
    let mut native_only = 0;
    for suite in &settings.suites {
        for test in list(settings, suite, &[])? {
            // They need what a guest does not have; they are no part of its plan.
            if is_native_only(suite, &test) {
                native_only += 1;
            } else {
                planned.push((suite, test));
            }
        }
        // An ignored test would pass by doing nothing.
        if let Some(test) = list(settings, suite, &["--ignored"])?.first() {
            bail!("{suite}: {test} is marked as ignored");
        }
    }
    // What they do to the machine would be the end of the others.
    planned.sort_by_key(|(_, test)| test.split("::").any(|part| part == "irreversible"));
    marker(&format!("native-only {native_only}"));
    marker(&format!("plan {}", planned.len()));
    let (mut passed, mut failed) = (0, 0);
    for (suite, test) in &planned {
        marker(&format!("begin {suite}::{test}"));
        let begin = Instant::now();
        let status = run_one(settings, suite, test);
        let seconds = begin.elapsed().as_secs_f64();
        let ok = match status {
            Ok(status) => status.success(),
            Err(error) => {
                println!("init: {error:#}");
                false
            }
        };
        *if ok { &mut passed } else { &mut failed } += 1;
        marker(&format!("{} {suite}::{test} {seconds:.2}", if ok { "pass" } else { "fail" }));
        clear_processes();
    }
    marker(&format!("verdict pass {passed} fail {failed}"));
    Ok(())
}

/// The benchmarks of the bin `workload`, and what they run under.
const BENCHMARKS: [&str; 6] = ["pair", "pair-anywhere", "getppid", "fault", "toggle", "births"];
const UNDER: [(&str, Option<&[&str]>); 4] = [
    ("untraced", None),
    ("run", Some(&[])),
    ("run --calls all", Some(&["--calls", "all"])),
    ("run --peaks-only", Some(&["--peaks-only"])),
];
/// Of one benchmark; the guest's clock counts instructions.
const SECONDS: &str = "0.1";
/// Each is measured so often, by turns; the least counts.
const ROUNDS: u32 = 3;

fn run_benchmarks(settings: &Settings) -> Result<()> {
    let mut count = 0;
    for work in BENCHMARKS {
        let mut least = [f64::INFINITY; UNDER.len()];
        for _ in 0..ROUNDS {
            for ((_, options), least) in UNDER.iter().zip(&mut least) {
                *least = least.min(measured(settings, work, *options)?);
            }
        }
        for ((under, _), ns) in UNDER.iter().zip(least) {
            marker(&format!("figure {work} {} {ns}", under.replace(' ', "_")));
            count += 1;
        }
    }
    marker(&format!("verdict pass {count} fail 0"));
    Ok(())
}

/// Instructions of one operation.
fn measured(settings: &Settings, work: &str, options: Option<&[&str]>) -> Result<f64> {
    let mut command = test_program(settings, if options.is_some() { "vmaudit" } else { "workload" });
    if let Some(options) = options {
        command.args(["run", "-q"]).args(options).args(["--", "/bin/workload"]);
    }
    let done = command.args(["bench", work, SECONDS]).output()?;
    let printed = String::from_utf8_lossy(&done.stdout);
    let ns = printed.lines().find_map(|line| line.strip_prefix(work)?.trim().parse().ok());
    ns.with_context(|| format!("{work} under {options:?}: {done:?}"))
}

/// The tests of a suite that match the filters.
fn list(settings: &Settings, suite: &str, more: &[&str]) -> Result<Vec<String>> {
    let done = test_program(settings, suite)
        .args(&settings.filters)
        .args(["--list", "--format=terse"])
        .args(more)
        .output()
        .with_context(|| format!("cannot start /bin/{suite}"))?;
    if !done.status.success() {
        bail!("/bin/{suite} --list failed ({})", done.status);
    }
    let names = String::from_utf8_lossy(&done.stdout);
    Ok(names.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// One test in a process of its own, so that it can neither hang nor break the others.
fn run_one(settings: &Settings, suite: &str, test: &str) -> Result<ExitStatus> {
    let limit = settings.test_limit;
    let child = test_program(settings, suite)
        .args(["--exact", test, "--test-threads=1"])
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start /bin/{suite}"))?;
    let pid = child.id().cast_signed();
    let begin = Instant::now();
    loop {
        match reap() {
            Reaped::Ended(found, status) if found == pid => return Ok(status),
            Reaped::Ended(..) => {} // an orphan; PID 1 inherits them all
            _ if begin.elapsed() > limit => bail!("{test} took longer than {} s", limit.as_secs()),
            _ => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn test_program(settings: &Settings, suite: &str) -> Command {
    let mut command = Command::new(format!("/bin/{suite}"));
    command
        .env_clear()
        .env("PATH", "/bin")
        .env("HOME", "/root")
        .env("TMPDIR", "/tmp")
        .env("RUST_BACKTRACE", "1")
        .env("VMAUDIT_BIN", "/bin/vmaudit")
        .env("WORKLOAD_BIN", "/bin/workload")
        .envs(settings.environment.iter().cloned());
    command
}

/// What `waitpid` says of PID 1's children, which all orphans are.
enum Reaped {
    Ended(libc::pid_t, ExitStatus),
    StillRunning,
    Nobody,
}

fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::StillRunning,
        pid if pid > 0 => Reaped::Ended(pid, ExitStatus::from_raw(status)),
        _ => Reaped::Nobody,
    }
}

/// Ends whatever a test left behind. That nobody is left, only `waitpid` tells: `kill(-1)` finds kernel threads too and
/// goes on succeeding.
fn clear_processes() {
    for _ in 0..1000 {
        // SAFETY: plain system call; from PID 1 it reaches everything but PID 1 itself.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        loop {
            match reap() {
                Reaped::Ended(..) => {}
                Reaped::StillRunning => break,
                Reaped::Nobody => return,
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn shell() -> Result<()> {
    if !fs::exists("/bin/busybox")? {
        bail!("there is no /bin/busybox in this guest");
    }
    println!(
        "vmaudit, workload and the test programs are in /bin; leave with `exit`, or kill QEMU with Ctrl-A x"
    );
    // cttyhack gives the shell job control on the serial line.
    let mut shell = Command::new("/bin/busybox");
    shell.args(["setsid", "-c", "cttyhack", "/bin/busybox", "sh"]);
    shell.env_clear().env("PATH", "/bin").env("HOME", "/root").env("TERM", "linux");
    shell.env("VMAUDIT_BIN", "/bin/vmaudit").env("WORKLOAD_BIN", "/bin/workload");
    shell.status().context("cannot start /bin/busybox")?;
    Ok(())
}

fn mount(kind: &str, target: &str, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
    let (kind, folder, data) = (CString::new(kind)?, CString::new(target)?, CString::new(options)?);
    // SAFETY: all strings are zero-terminated and live through the call.
    let done = unsafe { libc::mount(kind.as_ptr(), folder.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
    let error = io::Error::last_os_error();
    // EBUSY: already there, as /dev on some configurations and tracefs under debugfs.
    if done != 0 && error.raw_os_error() != Some(libc::EBUSY) {
        return Err(error).with_context(|| format!("cannot mount {target}"));
    }
    Ok(())
}

fn loopback_up() -> Result<()> {
    // SAFETY: plain system call.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char; // signed or not, by architecture
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: `request` is a complete ifreq, the descriptor is ours.
    let done = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let error = io::Error::last_os_error();
    // SAFETY: nobody else has the descriptor.
    unsafe { libc::close(socket) };
    if done == 0 { Ok(()) } else { Err(error.into()) }
}

/// Prints a marker on a line of its own, whatever a test left on the current one.
fn marker(text: &str) {
    println!("\nvmaudit-vm: {text}");
    drop(io::stdout().flush()); // without a console there is nobody to tell
}

fn power_off() -> ! {
    // SAFETY: plain system calls.
    unsafe {
        libc::sync();
        libc::tcdrain(1); // the last marker leaves the serial line before the machine goes
        libc::reboot(libc::RB_POWER_OFF);
    }
    // Reached only if the kernel refuses; QEMU's time limit ends it then.
    loop {
        thread::park();
    }
}
