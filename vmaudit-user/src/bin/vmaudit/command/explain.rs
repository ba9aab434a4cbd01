//! `vmaudit explain`: who owns the VMAs of one process, and why neighbours do not merge.

use std::process::ExitCode;

use vmaudit_user::os::users;
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::source::vma_layout::{self, ExplainOptions, Recorded};

use crate::cli::explain::ExplainArgs;
use crate::outputs::{Asked, Outputs};

/// Runs the command.
pub fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let outputs =
        Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Explanation })?;
    let anonymizer = users::anonymizer(args.no_anonymize);
    let options = ExplainOptions { details: args.details.into(), max_vmas: args.max_vmas };
    let explanation = match args.pid {
        Some(pid) => vma_layout::live(pid, &options, &anonymizer)?,
        None => {
            let files = Recorded { maps: args.maps, smaps: args.smaps, numa_maps: args.numa_maps };
            vma_layout::recorded(&files, &options, &anonymizer)?
        }
    };
    outputs.write(&Document::Explanation(&explanation), args.top)?;
    Ok(if explanation.vmas > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
