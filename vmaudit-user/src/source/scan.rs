//! One scan: counts from the kernel's own walk or from /proc, put in order by [`crate::domain::scan`].

mod looks;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use self::looks::Looks;
use crate::domain::application::Anonymizer;
use crate::domain::process_filter::ProcessFilter;
use crate::domain::recommend::delays;
use crate::domain::scan::{self, Facts, ScanOptions};
use crate::domain::vma_cost;
use crate::model::report::{Action, Report};
use crate::model::scan::Scan;
use crate::os::procfs::{Proc, host};
use crate::os::rights;
use crate::os::users::user_name;
use crate::source::ebpf::task_iter::Census;
use crate::source::process_list::{self, Walk, Wanted};
use crate::text::time::rfc3339;
use anyhow::Context as _;

/// Why nothing is known of growth.
const NO_LOOKS: &str = "Who grows is not known: that takes many looks, for which only the kernel's own walk is fast enough (root)";

/// Where counts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The kernel where it allows, else /proc.
    Auto,
    /// The kernel's task iterator, or an error.
    Ebpf,
    /// /proc.
    Proc,
}

/// Looks at the machine once, after it has looked at growth for the time of `watched`. `details`: parent, name, executable and cgroup of each process, which the text does not show.
/// Errors: /proc cannot be read; the kernel cannot count and was to.
pub fn take(
    filter: &ProcessFilter,
    options: &ScanOptions,
    counter: Counter,
    details: bool,
    watched: Option<Duration>,
    anonymizer: &Anonymizer,
) -> anyhow::Result<Scan> {
    let (census, refused) = match counter {
        Counter::Ebpf => {
            (Some(Census::open().map_err(|reason| anyhow::anyhow!("--source ebpf: {reason}"))?), None)
        }
        Counter::Auto => match Census::open() {
            Ok(census) => (Some(census), None),
            Err(reason) => (None, Some(reason)),
        },
        Counter::Proc => (None, None),
    };
    let walk = census.as_ref().map(|census| || census.take());
    let walk: Option<Walk<'_>> = walk.as_ref().map(|walk| walk as Walk<'_>);
    // Where people look at the largest, only these are asked for more.
    let units = if options.largest_first() { options.top } else { usize::MAX };
    let wanted = Wanted { filter, details, units };
    let looks = match (watched, walk) {
        (Some(time), Some(walk)) => {
            Some(Looks::take(walk, time).context("the kernel's task iterator failed")?)
        }
        _ => None,
    };
    let mut scan = from(&wanted, options, &Proc::new("/proc"), walk, anonymizer)?;
    match (watched, looks) {
        (Some(_), Some(looks)) => {
            looks.tell(&mut scan.report);
            let Report { processes, recommendation, .. } = &mut scan.report;
            if let Some((_, delays)) = delays::of_growth(processes, recommendation) {
                recommendation.sentences.insert(0, delays);
                // What is enough for now is not enough soon.
                if recommendation.action == Action::Leave {
                    recommendation.action = Action::WillNotHelp;
                }
            }
        }
        (Some(_), None) => scan.report.coverage.notes.push(NO_LOOKS.to_owned()),
        (None, _) => {}
    }
    if let Some(reason) = refused.filter(|_| nix::unistd::geteuid().is_root()) {
        scan.report
            .coverage
            .notes
            .push(format!("Counted by the lines of /proc/PID/maps, not by the kernel: {reason}."));
    }
    Ok(scan)
}

fn from(
    wanted: &Wanted<'_>,
    options: &ScanOptions,
    proc: &Proc,
    walk: Option<Walk<'_>>,
    anonymizer: &Anonymizer,
) -> anyhow::Result<Scan> {
    let began = SystemTime::now();
    let (rows, slab, object_sizes) = {
        let _rights = rights::raised(&rights::PROCESSES);
        let rows = process_list::read(wanted, proc, walk)?;
        (rows, proc.slab(vma_cost::CACHES[0]), proc.object_sizes(&vma_cost::CACHES))
    };
    let mut users = BTreeMap::new();
    for uid in rows.iter().filter_map(|row| row.uid) {
        users.entry(uid).or_insert_with(|| user_name(uid));
    }
    let facts = Facts {
        limits: proc.limits(),
        slab,
        object_sizes,
        by_kernel: walk.is_some(),
        root: nix::unistd::geteuid().is_root(),
        host: host(),
        started: rfc3339(began),
        duration_s: began.elapsed().unwrap_or_default().as_secs_f64(),
        users,
        own: std::process::id(),
    };
    Ok(scan::build(options, facts, rows, anonymizer))
}

#[cfg(test)]
mod tests;
