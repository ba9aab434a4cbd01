//! Commands and options, one file per command. No logic: what they do is in `command`.

pub mod doctor;
pub mod explain;
pub mod limit;
pub mod report;
pub mod run;
pub mod scan;
pub mod trace;
pub mod values;

use clap::{FromArgMatches as _, Parser, Subcommand};

/// Follows VMA counts exactly, says why memory calls fail, recommends vm.max_map_count.
///
/// Linux limits each process to vm.max_map_count mappings. At the limit mmap, munmap and even free() fail with ENOMEM
/// while the machine has plenty of memory. vmaudit runs beside a workload and knows the true peak, each failed call
/// and its cause.
#[derive(Debug, Parser)]
#[command(name = "vmaudit", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do; `scan` when nothing is said.
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// What to do. `vmaudit` alone is `vmaudit scan`.
    pub fn action(self) -> Command {
        self.command.unwrap_or_else(|| {
            let defaults = Command::augment_subcommands(clap::Command::new("vmaudit"));
            let matches = defaults.get_matches_from(["vmaudit", "scan"]);
            Command::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
        })
    }
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
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_written_is_a_wrong_call() {
        let refused = |words: &[&str]| Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(refused(&["vmaudit", "scan", "-o", "x.lgo"]).contains("no format has the ending .lgo"));
        assert!(refused(&["vmaudit", "doctor", "-o", "csv:x"]).contains("csv cannot show this"));
        assert!(refused(&["vmaudit", "doctor", "--format", "csv"]).contains("text, json"));
        assert!(refused(&["vmaudit", "trace"]).contains("<--pid <PID>|--all|CMD>"));
        assert!(Cli::try_parse_from(["vmaudit", "trace", "-p", "1", "--", "true"]).is_ok());
        assert!(Cli::try_parse_from(["vmaudit", "scan", "--format", "text", "--format", "csv"]).is_ok());
    }

    /// Each command's help ends with its examples.
    #[test]
    fn the_examples_are_in_the_help() {
        let mut whole = <Cli as clap::CommandFactory>::command();
        for command in whole.get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert_eq!(help.matches("Examples:\n").count(), 1, "{help}");
        }
    }
}
