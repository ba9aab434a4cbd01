//! Where the VMAs of address spaces lay, and whose are to be looked at when a session is over.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::domain::audit::{Audit, Process};
use crate::domain::vma_layout::address_map::{CELLS, ROWS};
use crate::model::event::Laid;
use crate::model::report::Layout;

/// Address spaces of which that is kept: more than a session looks at.
const MOST: usize = 64;
/// Processes looked at when a session is over.
const LAST: usize = 3;
/// From this share of the limit on, percent.
const LAST_PERCENT: u64 = 5;

/// By generation.
#[derive(Debug, Default)]
pub(super) struct Layouts(HashMap<u64, Layout>);

impl Layouts {
    pub(super) fn take(&mut self, laid: Laid) {
        let Laid { generation, mut layout } = laid;
        // A recording may be anybody's.
        layout.rows.truncate(ROWS);
        layout.rows.iter_mut().for_each(|row| row.cells.truncate(CELLS));
        if self.0.len() < MOST || self.0.contains_key(&generation) {
            self.0.insert(generation, layout);
        }
    }

    /// Of the newest image that was looked at.
    pub(super) fn of(&self, process: &Process) -> Option<Layout> {
        process.own().rev().find_map(|mm| self.0.get(&mm.generation)).cloned()
    }

    pub(super) fn retain(&mut self, keeps: &mut dyn FnMut(u64) -> bool) {
        self.0.retain(|generation, _| keeps(*generation));
    }
}

/// A process that lives at the end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its address space.
    pub generation: u64,
    /// Process id.
    pub tgid: u32,
    /// Name.
    pub comm: String,
    /// VMAs.
    pub vmas: u32,
}

impl Audit {
    /// Those that live with many VMAs, and were not looked at yet; most VMAs first.
    pub fn to_look_at_last(&self) -> Vec<Last> {
        let Some(limit) = self.limits.max_map_count.filter(|limit| *limit > 0) else { return Vec::new() };
        let mut all: Vec<Last> = self
            .processes
            .iter()
            .filter_map(|(id, process)| Some((id, process.own().next_back()?)))
            .filter(|(_, mm)| mm.dead_ns.is_none() && !self.layouts.0.contains_key(&mm.generation))
            .filter(|(_, mm)| u64::from(mm.last) * 100 >= limit.saturating_mul(LAST_PERCENT))
            .map(|(id, mm)| Last {
                generation: mm.generation,
                tgid: id.tgid,
                comm: mm.comm.clone(),
                vmas: mm.last,
            })
            .collect();
        all.sort_by_key(|it| (Reverse(it.vmas), it.tgid));
        all.truncate(LAST);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Moment;
    use crate::model::vma_layout::Cluster;

    #[test]
    fn anybodys_recording_takes_no_more_room_than_ours() {
        let row = Cluster {
            start: Some(0),
            end: Some(1),
            bytes: 1,
            vmas: 1,
            mapped_bytes: 1,
            cell_bytes: 1,
            cells: vec![1; 2 * CELLS],
        };
        let layout = Layout {
            at_s: 0.0,
            moment: Moment::Refusal,
            vmas_read: 1,
            complete: true,
            rows: vec![row; 2 * ROWS],
        };
        let mut layouts = Layouts::default();
        (0..1000).for_each(|generation| layouts.take(Laid { generation, layout: layout.clone() }));
        assert_eq!(layouts.0.len(), MOST);
        let one = &layouts.0[&0];
        assert_eq!((one.rows.len(), one.rows[0].cells.len()), (ROWS, CELLS));
    }
}
