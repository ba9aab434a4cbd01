//! Commands and options, one file per command. No logic: what they do is in `command`.

pub mod doctor;
pub mod explain;
pub mod limit;
mod mistakes;
pub mod report;
pub mod run;
pub mod scan;
pub mod trace;
pub mod values;

use std::ffi::OsString;

use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Follows VMA counts exactly, says why memory calls fail, recommends vm.max_map_count.
///
/// Linux limits each process to vm.max_map_count mappings. At the limit mmap, munmap and even free() fail with ENOMEM
/// while the machine has plenty of memory. vmaudit runs beside a workload and knows the true peak, each failed call
/// and its cause.
#[derive(Debug, Parser)]
#[command(name = "vmaudit", version, about, max_term_width = 100, subcommand_required = true)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// Why a command line is no call of a command.
#[derive(Debug)]
pub enum Wrong {
    /// As clap tells it; also help and version, which are asked for.
    Clap(clap::Error),
    /// A habit from elsewhere: the sentence that says the right command.
    Habit(String),
}

/// What is asked for by these words, the program's name first. Without a command it is `scan`, also with scan's options.
pub fn parse(mut words: Vec<OsString>) -> Result<Command, Wrong> {
    let own = ["-h", "--help", "-V", "--version"];
    let bare =
        |word: &OsString| word.to_string_lossy().starts_with('-') && !own.iter().any(|own| word == own);
    if words.get(1).is_none_or(bare) {
        words.insert(words.len().min(1), "scan".into());
    }
    let typed: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let wrong = |error: clap::Error| match mistakes::sentence(&typed, &error) {
        Some(sentence) => Wrong::Habit(sentence),
        None => Wrong::Clap(error),
    };
    let matches = definition().try_get_matches_from(words).map_err(wrong)?;
    let Cli { command } = Cli::from_arg_matches(&matches).map_err(Wrong::Clap)?;
    let to_run = match &command {
        Command::Run(args) => args.command.as_slice(),
        Command::Trace(args) => args.command.as_slice(),
        _ => &[],
    };
    match mistakes::number_for_command(&typed, to_run) {
        Some(sentence) => Err(Wrong::Habit(sentence)),
        None => Ok(command),
    }
}

/// All commands; those with `--format` have `--json` too.
fn definition() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        if command.get_arguments().all(|arg| arg.get_id() != "format") {
            return command;
        }
        let json = Arg::new("json").long("json").action(ArgAction::SetTrue).overrides_with("format");
        command
            .mut_arg("format", |arg| arg.default_value_if("json", "true", "json").overrides_with("json"))
            .arg(json.help("The same as --format json"))
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every process now: count, share of the limit, application, recommendation (also without a command)
    #[command(after_help = scan::EXAMPLES)]
    Scan(scan::ScanArgs),
    /// Run a command, follow its whole process tree, report at its end
    #[command(after_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Print each change and failure as it happens
    #[command(after_help = trace::EXAMPLES)]
    Trace(trace::TraceArgs),
    /// Say who owns a process's VMAs, and why neighbours do not merge
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Show the limit: who sets it, what it costs, what software needs; change it
    #[command(after_help = limit::EXAMPLES)]
    Limit(limit::LimitArgs),
    /// Make the report of a recording again
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Say what this kernel, these rights and this build allow, hook by hook
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn what_cannot_be_written_is_a_wrong_call() {
        let parsed = |words: &[&str]| parse(words.iter().map(Into::into).collect());
        let refused = |words: &[&str]| match parsed(words) {
            Err(Wrong::Clap(error)) => error.to_string(),
            Err(Wrong::Habit(sentence)) => sentence,
            Ok(command) => panic!("{command:?}"),
        };
        assert!(refused(&["vmaudit", "scan", "-o", "x.lgo"]).contains("no format has the ending .lgo"));
        assert!(refused(&["vmaudit", "doctor", "-o", "csv:x"]).contains("csv cannot show this"));
        assert!(refused(&["vmaudit", "doctor", "--format", "csv"]).contains("text, json"));
        assert!(refused(&["vmaudit", "trace"]).starts_with("say what to follow: "));
        assert!(parsed(&["vmaudit", "trace", "-p", "1", "--", "true"]).is_ok());
        assert!(parsed(&["vmaudit", "scan", "--format", "text", "--format", "csv"]).is_ok());
    }

    /// Each command's help ends with its examples.
    #[test]
    fn the_examples_are_in_the_help() {
        let mut whole = definition();
        for command in whole.get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert_eq!(help.matches("Examples:\n").count(), 1, "{help}");
        }
    }
}
