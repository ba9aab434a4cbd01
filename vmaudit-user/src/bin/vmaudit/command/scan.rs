//! `vmaudit scan`: every process now, what it counts, and what the limit should be.

use std::process::ExitCode;

use vmaudit_user::domain::process_filter::ProcessFilter;
use vmaudit_user::domain::recommend::Margin;
use vmaudit_user::domain::scan::ScanOptions;
use vmaudit_user::os::users;
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::source::{process_names, scan};

use crate::cli::scan::ScanArgs;
use crate::command::filters;
use crate::outputs::{Asked, Outputs};

/// Runs the command.
pub fn scan(args: ScanArgs) -> anyhow::Result<ExitCode> {
    let options = ScanOptions {
        margin: Margin::new(args.headroom, args.round)?,
        vma: args.vma,
        sort: args.sort.into(),
        reverse: args.reverse,
        show_args: args.show_args,
        top: args.top,
    };
    let outputs = Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Scan })?;
    let filter = ProcessFilter {
        pids: process_names::pids_of(&args.filters.pid).map_err(anyhow::Error::msg)?,
        ..filters::beside_pids(&args.filters)?
    };
    let anonymizer = users::anonymizer(args.no_anonymize);
    let details = outputs.more_than_text();
    let scan = scan::take(&filter, &options, args.source.into(), details, args.duration, &anonymizer)?;
    outputs.write(&Document::Scan(&scan), args.top)?;
    Ok(if scan.report.processes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
