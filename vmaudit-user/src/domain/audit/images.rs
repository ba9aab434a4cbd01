//! Images of a process of which more were seen than are kept apart.

use crate::domain::audit::{Examples, MAX_KINDS, MAX_SITES, Process, places, task_names};
use crate::model::event::{MmState, RefusalGroup, Refused, Sizes};

impl Process {
    /// What it was refused in the address space of another stays apart.
    fn at_oldest(&self) -> usize {
        usize::from(self.mms.first().is_some_and(|mm| mm.host.is_some()))
    }

    /// The two oldest images.
    pub(super) fn oldest(&self) -> Option<(&MmState, &MmState)> {
        let at = self.at_oldest();
        Some((self.mms.get(at)?, self.mms.get(at + 1)?))
    }

    /// Makes one of the two oldest images: the older one, with the sums of both and the larger peak.
    pub(super) fn fold_oldest(&mut self, examples: &mut Examples) {
        let at = self.at_oldest();
        if self.mms.len() < at + 2 {
            return;
        }
        let newer = self.mms.remove(at + 1);
        let Some(older) = self.mms.get_mut(at) else { return };
        self.images_folded += 1;
        if newer.peak > older.peak {
            (older.peak, older.peak_ns, older.comm) = (newer.peak, newer.peak_ns, newer.comm);
        }
        // Its series has all of both.
        older.untold.clear();
        older.last = newer.last;
        older.dead_ns = newer.dead_ns;
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
            older.tasks.get_or_insert_default().take_all(&names, task_names::NAMES);
        }
        for kind in newer.refusals {
            let found: Vec<Refused> =
                places(newer.generation, &kind).filter_map(|place| examples.remove(&place)).collect();
            let of = |kind: &RefusalGroup| (kind.call, kind.errno, kind.class);
            let full = older.refusals.len() >= MAX_KINDS;
            match older.refusals.iter_mut().find(|known| of(known) == of(&kind)) {
                Some(sum) => {
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
                None if !full => older.refusals.push(kind),
                // The sums above have its calls; they become a row without a cause.
                None => {
                    self.kept_bytes = self.kept_bytes.saturating_add(kind.kept_bytes);
                    continue;
                }
            }
            for example in found {
                let place = (older.generation, example.call, example.errno, example.class, example.site);
                examples.entry(place).or_insert(example);
            }
        }
    }
}
