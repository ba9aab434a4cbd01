//! Developer commands: `cargo xtask --help`.
#![expect(clippy::print_stderr, reason = "a command line tool for developers; its own words go to stderr")]
#![expect(clippy::print_stdout, reason = "results (tables, closing lines) are for stdout")]

mod apt;
#[path = "../../vmaudit-user/bpf_digest.rs"]
mod bpf_digest;
mod command;
mod ebpf;
mod setup;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::command::say;

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
    /// Install what the other commands need (Debian; asks for sudo where root is needed)
    Setup(Setup),
}

#[derive(Subcommand)]
enum Ebpf {
    /// Build vmaudit-user/bpf/vmaudit.bpf.o from vmaudit-ebpf
    Build(Arch),
    /// Fail unless a fresh build gives the bytes that are in the tree
    Check(Arch),
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
        Task::Setup(Setup { ebpf, vm }) => {
            let all = !ebpf && !vm;
            if ebpf || all {
                setup::ebpf()?;
            }
            if vm || all {
                setup::vm()?;
            }
            Ok(())
        }
    }
}
