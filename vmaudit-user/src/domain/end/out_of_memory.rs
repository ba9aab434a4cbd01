//! Which shortage made the OOM killer choose a process: by what the kernel side saw of its memory cgroups as it was chosen, and
//! by their counters.

use super::Verdict;
use crate::model::end::{CgroupLevel, EndCause, OomCgroups};
use crate::text::{bytes, clean};

/// Which shortage made the OOM killer act.
enum Responsible<'a> {
    /// Of this cgroup; for certain or not.
    Cgroup(&'a CgroupLevel, bool),
    Machine,
    /// Of one that cannot be seen, perhaps.
    Unseen,
}

fn rose(level: &CgroupLevel) -> bool {
    level.out_of_memory > level.out_of_memory_before.unwrap_or(0)
}

/// Its use was at its limit when the choice was made: what is charged at once stays below this (mm/memcontrol.c:
/// MEMCG_CHARGE_BATCH, by every processor), and a huge page is asked for again as small ones.
fn near(level: &CgroupLevel) -> bool {
    const SLACK: u64 = 4 << 20;
    match (level.limit_bytes, level.used_bytes) {
        (Some(limit), Some(used)) => used.saturating_add(SLACK) >= limit,
        (limit, _) => limit.is_some(),
    }
}

fn responsible(cgroups: &OomCgroups) -> Responsible<'_> {
    let levels = &cgroups.levels;
    // At its limit, and gone before its counters could be read.
    let unread = |level: &CgroupLevel| level.used_bytes.is_some() && level.killed.is_none() && near(level);
    // Its limit is not what was met: it was not near, or has not met it since it was known.
    let excluded = |level: &CgroupLevel| !near(level) || level.out_of_memory_before.is_some() && !rose(level);
    // The kernel said it. Of those it marks, one is in it and the others lie within; two marks at a time are possible, when
    // two run out at once.
    if let Some(n) = levels.iter().rposition(|level| level.acting == Some(true)) {
        let mut others = levels.iter().enumerate().filter(|(other, _)| *other != n);
        let certain = cgroups.inside && cgroups.complete && others.all(|(_, it)| excluded(it));
        return levels.get(n).map_or(Responsible::Unseen, |level| Responsible::Cgroup(level, certain));
    }
    let says = levels.iter().all(|level| level.acting == Some(false));
    if says && cgroups.complete && levels.iter().all(excluded) {
        return Responsible::Machine;
    }
    // By counters. Nearest first: what is above it counts what is below.
    let limited = |level: &CgroupLevel| level.limit_bytes.is_some();
    match levels.iter().find(|level| rose(level) && (!level.v1 || limited(level))) {
        Some(level) => {
            // Version 1 counts how often the limit was met, also when reclaim helped; another limit above may have been
            // met too.
            let met = levels.iter().filter(|other| rose(other) && limited(other)).count();
            let alone = !level.v1 || met == 1 && cgroups.complete;
            Responsible::Cgroup(level, level.out_of_memory_before.is_some() && alone)
        }
        None => match levels.iter().find(|level| unread(level)) {
            Some(level) => Responsible::Cgroup(level, false),
            None if cgroups.complete => Responsible::Machine,
            None => Responsible::Unseen,
        },
    }
}

/// Why a process died that it has chosen.
pub(super) fn explain(cgroups: Option<&OomCgroups>) -> Verdict {
    let Some(cgroups) = cgroups else {
        return Verdict::unknown(
            "the OOM killer chose it; whether a memory cgroup or the machine ran out of memory could not be read",
        );
    };
    let (level, certain) = match responsible(cgroups) {
        Responsible::Cgroup(level, certain) => (level, certain),
        Responsible::Machine => {
            return Verdict::of(
                EndCause::OomGlobal,
                "the OOM killer chose it, because the machine ran out of memory (none of its memory cgroups did)",
            );
        }
        Responsible::Unseen => {
            return Verdict::unknown(
                "the OOM killer chose it; none of its memory cgroups that can be seen ran out of memory, but those above \
                 cannot be seen",
            );
        }
    };
    let file = if level.v1 { "memory.limit_in_bytes" } else { "memory.max" };
    let reached = match level.limit_bytes {
        // Not its memory alone is limited: with swap, of the kernel.
        Some(_) if level.used_bytes.is_some() && !near(level) => "ran out of memory".to_owned(),
        Some(limit) => format!("reached {file} = {}", bytes(limit)),
        None => "ran out of memory".to_owned(),
    };
    let killed = level.killed.map(|killed| format!("; oom_kill {killed}")).unwrap_or_default();
    let hedge = if certain { "" } else { " (probably: its figures leave room for another)" };
    let mut verdict = Verdict::of(
        EndCause::OomCgroup,
        format!(
            "the OOM killer chose it, because its memory cgroup {} {reached}{hedge}{killed}",
            clean(&level.path)
        ),
    )
    .likely(certain);
    verdict.cgroup = Some(level.path.clone());
    for (name, value) in [("limit_bytes", level.limit_bytes), ("oom_kill", level.killed)] {
        if let Some(value) = value {
            verdict.evidence.insert(name.into(), value);
        }
    }
    verdict
}
