//! The `vmaudit` binary: parses, runs, turns the outcome into an exit status.

mod cli;
mod command;
mod outputs;

use std::process::ExitCode;

use vmaudit_user::launch::exit_status::EXIT_OWN_FAILURE;
use vmaudit_user::launch::last_resort;
use vmaudit_user::os::{inherited, rights, service_manager};
use vmaudit_user::output::{self, Weight, say_as};
use vmaudit_user::text::MESSAGES;

use cli::{Command, Wrong};

/// A command that waits for vmaudit runs also when vmaudit gets no memory.
#[global_allocator]
static MEMORY: last_resort::Memory = last_resort::Memory;

/// Of a wrong call, but for `run`.
const EXIT_USAGE: i32 = 2;

fn main() -> ExitCode {
    if inherited::plain_command().is_some() {
        last_resort::arm();
    }
    if service_manager::journal_reads_stderr() {
        output::speak_to_the_journal();
    }
    if log::set_logger(&Messages).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    // Before anything else: what the caller named is looked at with the caller's rights.
    let rights = rights::begin();
    let runs_a_command = std::env::args_os().nth(1).is_some_and(|first| first == "run");
    if let Err(why) = rights {
        say_as(Weight::Error, &why);
        return code(if runs_a_command { EXIT_OWN_FAILURE } else { 1 });
    }
    let usage = if runs_a_command { EXIT_OWN_FAILURE } else { EXIT_USAGE };
    let command = match cli::parse(std::env::args_os().collect()) {
        Ok(command) => command,
        Err(Wrong::Clap(e)) if e.use_stderr() => {
            output::say_lines(Weight::Error, &e.render().to_string());
            return code(usage);
        }
        Err(Wrong::Clap(e)) => {
            return code(match e.print() {
                Ok(()) if !inherited::closed_descriptors().any(|fd| fd == 1) => 0,
                // Help that nobody saw.
                Ok(()) => 1,
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => 0,
                Err(_) => 1,
            });
        }
        Err(Wrong::Habit(sentence)) => {
            say_as(Weight::Error, &sentence);
            return code(usage);
        }
    };
    let outcome = match command {
        Command::Scan(args) => command::scan::scan(args),
        Command::Explain(args) => command::explain::explain(args),
        Command::Limit(args) => command::limit::limit(args),
        Command::Run(args) => command::run::run(args).map(code),
        Command::Watch(args) => command::watch::watch(args).map(code),
        Command::Diff(args) => command::diff::diff(&args).map(code),
        Command::Top(args) => command::top::top(&args).map(code),
        Command::Serve(args) => command::serve::serve(&args).map(code),
        Command::Report(args) => command::report::show(&args).map(code),
        Command::Trace(args) => command::trace::trace(args).map(code),
        Command::Doctor(args) => command::doctor::doctor(&args),
        Command::Completions(args) => command::completions::completions(&args),
        Command::Mark(args) => command::mark::mark(&args),
        Command::Man(args) => command::man::man(&args),
    };
    match outcome {
        Ok(status) => status,
        // Whoever reads our output has seen enough.
        Err(e) if is_broken_pipe(&e) => code(0),
        Err(e) => {
            say_as(Weight::Error, &format!("{e:#}"));
            code(match () {
                () if runs_a_command => EXIT_OWN_FAILURE,
                () if e.is::<outputs::Usage>() => EXIT_USAGE,
                () => 1,
            })
        }
    }
}

/// Prints what the library has to tell people while it works.
struct Messages;

impl log::Log for Messages {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == MESSAGES
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let weight = match record.level() {
                log::Level::Error => Weight::Error,
                log::Level::Warn => Weight::Warning,
                _ => Weight::Note,
            };
            say_as(weight, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
