//! `vmaudit explain`: who owns the VMAs of one process, and why neighbours do not merge.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use vmaudit_user::domain::application::Anonymizer;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::os::users;
use vmaudit_user::output::format::{Document, Kind};
use vmaudit_user::output::say;
use vmaudit_user::output::text::page::shortened;
use vmaudit_user::source::vma_layout::{self, ExplainOptions, Match, Recorded};
use vmaudit_user::text::{clean, count, grouped};

use crate::cli::explain::{ExplainArgs, Target};
use crate::outputs::{Asked, Outputs};

/// Processes of one name that are listed.
const LISTED: usize = 20;

/// Runs the command.
pub fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let outputs =
        Outputs::open(&Asked { named: &args.output, screen: args.format, kind: Kind::Explanation })?;
    let anonymizer = users::anonymizer(args.no_anonymize);
    let options = ExplainOptions { details: args.details.into(), max_vmas: args.max_vmas };
    let files = |any| Recorded { any, maps: args.maps, smaps: args.smaps, numa_maps: args.numa_maps };
    let explanation = match args.target {
        Some(Target::Pid(pid)) => vma_layout::live(pid, &options, &anonymizer, &Patience::for_one())?,
        Some(Target::Name(name)) => match named(&name, &anonymizer)? {
            Some(pid) => vma_layout::live(pid, &options, &anonymizer, &Patience::for_one())?,
            None => return Ok(ExitCode::FAILURE),
        },
        Some(Target::File(path)) => vma_layout::recorded(&files(Some(path)), &options, &anonymizer)?,
        None => vma_layout::recorded(&files(None), &options, &anonymizer)?,
    };
    let top = args.top.unwrap_or(if args.verbose { 12 } else { 5 });
    outputs.write(&Document::Explanation(&explanation, args.verbose), top)?;
    Ok(ExitCode::SUCCESS)
}

/// The only process of that name; `None`: there are several, which have been listed. Errors: there is none.
fn named(name: &str, anonymizer: &Anonymizer) -> anyhow::Result<Option<u32>> {
    let found = vma_layout::find(name, anonymizer)?;
    match found.as_slice() {
        [] => {
            let file = std::path::Path::new(name).exists();
            let hint = if file { format!("; for the file say ./{name}") } else { String::new() };
            bail!("no process is named {name}{hint}")
        }
        [one] => Ok(Some(one.pid)),
        several => {
            list(name, several);
            Ok(None)
        }
    }
}

fn list(name: &str, found: &[Match]) {
    say(&format!("{} processes are named {name}; say one by its number:", grouped(found.len() as u64)));
    let mut text = String::new();
    for Match { pid, app, unit, vmas } in found.iter().take(LISTED) {
        let vmas = vmas.map_or_else(|| "may not be read".to_owned(), |vmas| count(vmas, "VMA", "VMAs"));
        let unit = shortened(&unit.as_deref().map(clean).unwrap_or_default(), 24);
        text.push_str(&format!("  {pid:>7}  {vmas:>15}  {unit:<24}  {}\n", clean(app)));
    }
    if let Some(more @ 1..) = found.len().checked_sub(LISTED) {
        text.push_str(&format!("  and {} with fewer VMAs\n", grouped(more as u64)));
    }
    let _ = io::stderr().write_all(text.as_bytes());
}
