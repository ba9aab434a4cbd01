//! Two images of a process that become one.

use crate::domain::task_names::NAMES;
use crate::model::event::{MmState, RefusalGroup, Sizes};

/// Places kept apart of a kind of refusal in images that were put together.
const MAX_SITES: usize = 16;

/// Adds `newer` to `older`, the image before it: the sums of both, and the larger peak. Returns the kinds of refusal that found
/// `most_kinds` reached; the sums of calls have them.
pub fn join(older: &mut MmState, newer: MmState, most_kinds: usize) -> Vec<RefusalGroup> {
    if newer.peak > older.peak {
        (older.peak, older.peak_ns, older.comm) = (newer.peak, newer.peak_ns, newer.comm);
    }
    // Its series, where it has one, has all of both.
    older.untold.clear();
    older.last = newer.last;
    older.dead_ns = newer.dead_ns;
    // Each has the places of its own image: of one that is two no change has any.
    older.ledger = older.ledger.take().or(newer.ledger).map(|_| Vec::new());
    older.from_exec |= newer.from_exec;
    older.shared |= newer.shared;
    older.open_end |= newer.open_end;
    older.most = older.most.into_iter().chain(newer.most).reduce(Sizes::or);
    older.kept = older.kept.zip(newer.kept).map(|(older, newer)| older.and(newer));
    older.gaps = older.gaps.into_iter().chain(newer.gaps).reduce(u64::saturating_add);
    for (call, stat) in newer.calls {
        match older.calls.iter_mut().find(|(known, _)| *known == call) {
            Some((_, sum)) => {
                sum.calls = sum.calls.saturating_add(stat.calls);
                sum.added = sum.added.saturating_add(stat.added);
                sum.removed = sum.removed.saturating_add(stat.removed);
                sum.failed = sum.failed.saturating_add(stat.failed);
            }
            None => older.calls.push((call, stat)),
        }
    }
    if let Some(names) = newer.tasks {
        older.tasks.get_or_insert_default().take_all(&names, NAMES);
    }
    if let Some(joined) = newer.joined {
        older.joined.get_or_insert_default().add(*joined);
    }
    let mut no_room = Vec::new();
    for kind in newer.refusals {
        let full = older.refusals.len() >= most_kinds;
        match older.refusals.iter_mut().find(|known| same(known, &kind)) {
            Some(sum) => add(sum, &kind),
            None if !full => older.refusals.push(kind),
            None => no_room.push(kind),
        }
    }
    no_room
}

/// Refusals of one kind.
pub fn same(one: &RefusalGroup, other: &RefusalGroup) -> bool {
    let of = |kind: &RefusalGroup| (kind.call, kind.errno, kind.class);
    of(one) == of(other)
}

fn add(sum: &mut RefusalGroup, kind: &RefusalGroup) {
    sum.count = sum.count.saturating_add(kind.count);
    sum.first_ns = sum.first_ns.min(kind.first_ns);
    sum.last_ns = sum.last_ns.max(kind.last_ns);
    sum.kept_bytes = sum.kept_bytes.saturating_add(kind.kept_bytes);
    sum.recovered = sum.recovered.saturating_add(kind.recovered);
    sum.needed = sum.needed.or(kind.needed);
    sum.sites.extend(&kind.sites);
    sum.sites.sort_by_key(|site| std::cmp::Reverse((site.count, site.last_ns)));
    sum.sites.truncate(MAX_SITES);
}
