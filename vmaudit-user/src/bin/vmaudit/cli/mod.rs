//! Commands and options, one file per command. No logic: what they do is in `command`.

pub mod completions;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod filters;
pub mod flight;
pub mod limit;
pub mod man;
pub mod mark;
mod mistakes;
pub mod report;
pub mod reporting;
pub mod run;
pub mod scan;
pub mod serve;
pub mod top;
pub mod trace;
pub mod values;
pub mod watch;

use std::ffi::OsString;

use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Shown below the commands.
const EXAMPLES: &str = "Examples:\n  sudo vmaudit\n  sudo vmaudit run ./tests\n  sudo vmaudit trace -Z --all -d 1m\n  \
    sudo vmaudit explain 812\n  sudo vmaudit limit 262144\n\n\
    Numbers may be written 1,048,576, 10k or 1m. --json is short for --format json.";

/// Follows VMA counts exactly, says why memory calls fail, recommends vm.max_map_count.
///
/// Linux limits each process to vm.max_map_count mappings. At the limit mmap, munmap and even free() fail with ENOMEM
/// while the machine has plenty of memory. vmaudit runs beside a workload and knows the true peak, each failed call
/// and its cause.
#[derive(Debug, Parser)]
#[command(name = "vmaudit", version, about, max_term_width = 100, subcommand_required = true, after_help = EXAMPLES)]
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

/// An owner of processes is asked for, and there is a command, which is to run as somebody.
fn or_user(trace: clap::Command) -> clap::Command {
    trace.mut_arg("user", |arg| arg.conflicts_with("command"))
}

/// All commands; those with `--format` have `--json` too.
pub fn definition() -> clap::Command {
    Cli::command().mut_subcommand("trace", or_user).mut_subcommands(|command| {
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
    /// Attach to what already runs, report at the end; the processes live on
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Show live which process nears the limit, on a terminal
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArgs),
    /// Print each change and failure as it happens
    #[command(after_help = trace::EXAMPLES)]
    Trace(trace::TraceArgs),
    /// Say who owns a process's VMAs, and why neighbours do not merge
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Show the limit: who sets it, what it costs, what software needs; change it
    #[command(after_help = limit::EXAMPLES)]
    Limit(limit::LimitArgs),
    /// Show the report of a recording, or of a report in JSON, in any format
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Say what changed between two sessions, by application; as a gate, fail when something became worse
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::DiffArgs),
    /// Within `run --marks`: name a stretch of time, for figures of its own
    #[command(after_help = mark::EXAMPLES)]
    Mark(mark::MarkArgs),
    /// Serve the figures of running processes to Prometheus
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::ServeArgs),
    /// Say what this kernel, these rights and this build allow, hook by hook
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Print the words that a shell completes
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
    /// Write a manual page for each command
    #[command(after_help = man::EXAMPLES)]
    Man(man::ManArgs),
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

    /// Words as a shell takes them, as far as examples need it.
    fn words(line: &str) -> Vec<OsString> {
        let plain = line.replace(['\'', '"'], "");
        plain.split_whitespace().filter(|word| *word != "sudo").map(Into::into).collect()
    }

    /// Every option that takes a value has its example in one form, and the example is one.
    #[test]
    fn the_example_of_each_option_can_be_typed() {
        for command in definition().get_subcommands() {
            let takes_value = |arg: &&Arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
            for arg in command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let example = help.split_once("[example: ").and_then(|(_, rest)| rest.split_once(']'));
                let Some((example, _)) = example else {
                    assert!(
                        !takes_value(&arg),
                        "{} {}: no example in {help:?}",
                        command.get_name(),
                        arg.get_id()
                    );
                    continue;
                };
                // With what else the command needs.
                let tails: [&[&str]; 7] = [
                    &["a", "b"],
                    &[],
                    &["true"],
                    &["--all"],
                    &["1"],
                    &["--maps", "m"],
                    &["--record", "r", "true"],
                ];
                let whole = |tail: &[&str]| -> Vec<OsString> {
                    let start = ["vmaudit", command.get_name()].map(OsString::from);
                    start.into_iter().chain(words(example)).chain(tail.iter().map(Into::into)).collect()
                };
                let taken = tails.iter().any(|tail| parse(whole(tail)).is_ok());
                assert!(taken, "{} {example}: is refused", command.get_name());
            }
        }
    }

    /// Lines of help and README that begin with vmaudit are calls of it. `tests/live/examples.rs` runs them.
    #[test]
    fn every_example_can_be_typed() {
        let readme = include_str!("../../../../../README.md");
        // What stands between fences, and behind the heading of each help.
        let mut text: String = readme.split("```").skip(1).step_by(2).collect();
        let whole = definition();
        for command in whole.get_subcommands().chain([&whole]) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            text.extend(after.split("\n\n").next());
            text.push('\n');
        }
        let calls: Vec<&str> = text
            .lines()
            .flat_map(|line| line.split(';'))
            .map(str::trim)
            .filter(|line| line.starts_with("vmaudit ") || line.starts_with("sudo vmaudit"))
            .collect();
        assert!(calls.len() > 25, "{calls:?}");
        for call in calls {
            // A number stands for a process's.
            let typed = call.replace("PID", "812");
            assert!(parse(words(&typed)).is_ok(), "{call}");
        }
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
