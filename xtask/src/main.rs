//! Developer commands: `cargo xtask --help`.
#![expect(clippy::print_stdout, reason = "results (tables, closing lines) are for stdout")]

mod apt;
mod arch;
mod bench;
#[path = "../../vmaudit-user/bpf_digest.rs"]
mod bpf_digest;
mod command;
mod deny;
mod ebpf;
mod figures;
mod initramfs;
mod kernels;
mod package;
mod parity;
mod pinned;
mod programs;
mod python;
mod setup;
mod test;
mod tidy;
mod vm;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::command::{as_root, say, shown};
use crate::programs::Linking;

/// Developer commands of vmaudit.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build, or check, the eBPF object that is kept in the tree
    #[command(subcommand)]
    Ebpf(Ebpf),
    /// Check licences, versions, origin and known holes of what is linked in (cargo-deny, which is built when missing)
    Deny,
    /// Install what the other commands need (Debian; asks for sudo where root is needed)
    Setup(Setup),
    /// Build vmaudit as released and run it as root: `cargo xtask run -- CMD...` is `vmaudit run -- CMD...`
    Run {
        /// The program to follow, and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Hold the layers of vmaudit-user, the size of files and their heads
    Tidy,
    /// Build everything, run the unit tests, then the end-to-end tests as root on this kernel
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Everything that is too long for each change: all tests on all kernels, and what CI runs
    CheckAll,
    /// Measure what following costs the workload, beside other tracers; prints Markdown tables
    Bench(bench::Options),
    /// Make the packages that are given to users: .deb, .rpm, a static program, notices, a bill of materials
    Package {
        #[command(subcommand)]
        task: Option<package::Task>,
    },
    /// Compare vmaudit's counts of calls and refusals with strace's, of the same run of each program; prints a Markdown
    /// table
    Parity(parity::Options),
    /// Boot Debian kernels under QEMU and run the end-to-end tests in each
    Vm(Vm),
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Vm {
    #[command(subcommand)]
    task: Option<VmTask>,
    #[command(flatten)]
    options: vm::Options,
}

#[derive(Subcommand)]
enum VmTask {
    /// Bring kernels into the cache (.vm, or $VMAUDIT_VM_CACHE); without names, the small set
    #[command(after_help = kernels::listed())]
    Fetch {
        /// Kernels, by id
        #[arg(value_name = "KERNEL")]
        kernels: Vec<String>,
        /// All kernels
        #[arg(long)]
        all: bool,
        /// Whose kernels
        #[arg(long, default_value = "x86_64")]
        arch: arch::Arch,
    },
}

#[derive(Subcommand)]
enum Ebpf {
    /// Build vmaudit-user/bpf/vmaudit.bpf.o from vmaudit-ebpf
    Build(Arch),
    /// Fail unless a fresh build gives the bytes that are in the tree
    Check(Arch),
    /// Lint vmaudit-ebpf with clippy, warnings denied
    Lint(Arch),
}

#[derive(Args)]
struct Arch {
    /// Whose saved registers aya-ebpf's accessors know; we use none of them, so one object serves all architectures
    #[arg(long, default_value = "x86_64", value_parser = ["x86_64", "aarch64"])]
    arch: String,
}

#[derive(Args)]
struct Setup {
    /// The pinned toolchain of the eBPF object
    #[arg(long)]
    ebpf: bool,
    /// QEMU, for `cargo xtask vm`
    #[arg(long)]
    vm: bool,
    /// QEMU and a C compiler for `cargo xtask vm --arch arm64` (only when asked for)
    #[arg(long)]
    arm64: bool,
    /// What `cargo xtask package` and its checks need (only when asked for)
    #[arg(long)]
    packages: bool,
}

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Ebpf(Ebpf::Build(Arch { arch })) => ebpf::build(&arch),
        Task::Ebpf(Ebpf::Check(Arch { arch })) => ebpf::check(&arch),
        Task::Deny => deny::run_all(),
        Task::Ebpf(Ebpf::Lint(Arch { arch })) => ebpf::lint(&arch),
        Task::Setup(Setup { ebpf, vm, arm64, packages }) => {
            let all = !ebpf && !vm && !arm64 && !packages;
            if ebpf || all {
                setup::ebpf()?;
            }
            if vm || all {
                setup::vm()?;
            }
            if arm64 {
                setup::arm64()?;
            }
            if packages {
                setup::for_packages()?;
            }
            Ok(())
        }
        Task::Run { command } => {
            let mut vmaudit = as_root(programs::vmaudit(Linking::Usual)?);
            vmaudit.args(["run", "--"]).args(command);
            say!("{}", shown(&vmaudit));
            Err(vmaudit.exec()).context("cannot start vmaudit") // exit status and signals are vmaudit's own
        }
        Task::Tidy => tidy::run(),
        Task::CheckAll => check_all(),
        Task::Test { filter } => test::run(filter.as_deref()),
        Task::Package { task } => package::perform(task),
        Task::Parity(options) => options.run(),
        Task::Bench(options) => options.run(),
        Task::Vm(Vm { task: Some(VmTask::Fetch { kernels, all, arch }), .. }) => {
            kernels::fetch(&kernels::select(&kernels, all, arch)?, arch)?;
            // What the guests' programs are built of, so that no network is needed afterwards.
            command::run(command::cargo()?.args(["fetch", "--locked"]))
        }
        Task::Vm(Vm { task: None, options }) => options.run(),
    }
}

/// Run before an issue is called done; takes hours without hardware help.
fn check_all() -> Result<()> {
    let ci = command::workspace()?.join(".ci/run");
    command::run(std::process::Command::new("bash").arg(ci))?;
    kernels::fetch(&kernels::select(&[], true, arch::Arch::X86)?, arch::Arch::X86)?;
    let mut all = command::cargo()?;
    command::run(all.args(["xtask", "vm", "--all"]))
}
