//! The `vmaudit` binary: parses, runs, turns the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use vmaudit_user::{
    cli::{Cli, Command},
    doctor, explain,
    launch::child as command,
    limit,
    os::rights,
    output, recorded, run, scan, trace,
};

fn main() -> ExitCode {
    // Before anything else: what the caller named is looked at with the caller's rights.
    let rights = rights::begin();
    let runs_a_command = std::env::args_os().nth(1).is_some_and(|first| first == "run");
    if let Err(why) = rights {
        output::say(&why);
        return code(if runs_a_command { command::EXIT_OWN_FAILURE } else { 1 });
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            let usage = if runs_a_command { command::EXIT_OWN_FAILURE } else { 2 };
            return code(if e.use_stderr() { usage } else { 0 });
        }
    };
    let mut failure = 1;
    let outcome = match cli.action() {
        Command::Scan(args) => scan::scan_command(&args),
        Command::Explain(args) => explain::explain_command(&args),
        Command::Limit(args) => limit::limit_command(&args),
        Command::Run(args) => {
            failure = command::EXIT_OWN_FAILURE;
            run::run(args).map(code)
        }
        Command::Report(args) => recorded::show(&args).map(code),
        Command::Trace(args) => trace::trace(args).map(code),
        Command::Doctor(args) => doctor::doctor(&args).map(code),
    };
    match outcome {
        Ok(status) => status,
        // Whoever reads our output has seen enough.
        Err(e) if is_broken_pipe(&e) => code(0),
        Err(e) => {
            output::say(&format!("{e:#}"));
            code(failure)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
