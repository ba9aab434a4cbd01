//! What refused calls have left mapped in each address space, as a set of ranges: whatever overlaps counts once, and what
//! a later call has unmapped, replaced or moved is taken out again.

use std::collections::{BTreeMap, HashMap};

use vmaudit_common::{
    GROUPS, LEFT_BREAK, LEFT_GONE, LEFT_IN_HEAP, LEFT_MAPPED, LEFT_OF_HEAP, LeftRecord, MmSlot,
};

use crate::model::event::Kept;

/// Ranges kept in all address spaces together; about as many VMAs as a process has at the default limit, twice.
const MOST: usize = 131_072;
/// Address spaces with such ranges. A record that comes after the end of its own would else be kept for ever.
const MOST_SPACES: usize = 8192;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct LeftRanges {
    spaces: HashMap<u64, Space>,
    /// Ranges of all of them.
    ranges: usize,
}

/// Of one address space.
#[derive(Debug, Default)]
struct Space {
    /// By first address; none overlaps another.
    ranges: BTreeMap<u64, Range>,
    /// Records that have arrived and could be kept: of ranges that stay, and of ranges that went.
    stay: u64,
    went: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    /// Address behind it.
    end: u64,
    /// Index of the group of the call that was refused last.
    group: u32,
    /// `LEFT_*`: of what kind.
    what: u32,
}

impl LeftRanges {
    /// Takes one record.
    pub fn take(&mut self, record: &LeftRecord) {
        let known = self.spaces.contains_key(&record.head.generation);
        if !known && self.spaces.len() >= MOST_SPACES {
            return; // as one that was never sent
        }
        let space = self.spaces.entry(record.head.generation).or_default();
        let before = space.ranges.len();
        match record.what {
            LEFT_GONE => {
                space.cut(record.start, record.end, |_| true);
                space.went += 1;
            }
            LEFT_BREAK => {
                // The program knows again what of its heap there is: below the new end it has it, above it is gone.
                space.ranges.retain(|_, range| range.what != LEFT_OF_HEAP);
                space.cut(record.start, u64::MAX, |range| range.what == LEFT_IN_HEAP);
                space.went += 1;
            }
            LEFT_MAPPED | LEFT_IN_HEAP | LEFT_OF_HEAP if self.ranges < MOST => {
                space.stays(record);
                space.stay += 1;
            }
            // As one that was never sent.
            _ => {}
        }
        self.ranges = (self.ranges + space.ranges.len()).saturating_sub(before);
    }

    /// What is left in the address space of this slot.
    pub fn of(&self, slot: &MmSlot) -> Kept {
        let space = self.spaces.get(&slot.generation);
        let (stay, went) = space.map_or((0, 0), |space| (space.stay, space.went));
        Kept {
            ranges_lost: slot.left_records.saturating_sub(stay),
            went_lost: slot.gone_records.saturating_sub(went),
        }
    }

    /// Bytes of it by group.
    pub fn bytes(&self, generation: u64) -> [u64; GROUPS] {
        let mut bytes = [0u64; GROUPS];
        for (start, range) in self.spaces.get(&generation).into_iter().flat_map(|space| &space.ranges) {
            if let Some(sum) = bytes.get_mut(range.group as usize) {
                *sum = sum.saturating_add(range.end - start);
            }
        }
        bytes
    }

    /// The address space is gone.
    pub fn forget(&mut self, generation: u64) {
        if let Some(space) = self.spaces.remove(&generation) {
            self.ranges = self.ranges.saturating_sub(space.ranges.len());
        }
    }
}

impl Space {
    fn stays(&mut self, record: &LeftRecord) {
        let LeftRecord { start, end, group, what, .. } = *record;
        if start >= end {
            return;
        }
        self.cut(start, end, |_| true);
        let mut first = start;
        let mut range = Range { end, group, what };
        // Neighbours of the same kind are one.
        if let Some((&before, left)) = self.ranges.range(..start).next_back()
            && *left == (Range { end: start, ..range })
        {
            first = before;
        }
        if let Some(right) = self.ranges.get(&end).copied()
            && right == (Range { end: right.end, ..range })
        {
            self.ranges.remove(&end);
            range.end = right.end;
        }
        self.ranges.insert(first, range);
    }

    /// Takes these addresses out of the ranges that are meant.
    fn cut(&mut self, start: u64, end: u64, meant: impl Fn(&Range) -> bool) {
        if start >= end {
            return;
        }
        let reaching = self.ranges.range(..start).next_back().filter(|(_, range)| range.end > start);
        let met: Vec<(u64, Range)> = reaching
            .into_iter()
            .chain(self.ranges.range(start..end))
            .filter(|(_, range)| meant(range))
            .map(|(first, range)| (*first, *range))
            .collect();
        for (first, range) in met {
            self.ranges.remove(&first);
            if first < start {
                self.ranges.insert(first, Range { end: start, ..range });
            }
            if range.end > end {
                self.ranges.insert(end, range);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use vmaudit_common::RecordHeader;

    use super::*;

    const PAGE: u64 = 4096;

    fn record(what: u32, start: u64, pages: u64) -> LeftRecord {
        let head = RecordHeader { generation: 7, ..RecordHeader::zeroed() };
        LeftRecord { head, start: start * PAGE, end: (start + pages) * PAGE, what, group: 0 }
    }

    fn slot(stay: u64, went: u64) -> MmSlot {
        MmSlot { generation: 7, left_records: stay, gone_records: went, ..MmSlot::zeroed() }
    }

    fn left(records: &[LeftRecord]) -> u64 {
        let mut ranges = LeftRanges::default();
        records.iter().for_each(|record| ranges.take(record));
        let all: usize = ranges.spaces.values().map(|space| space.ranges.len()).sum();
        assert_eq!(ranges.ranges, all);
        ranges.bytes(7).iter().sum::<u64>() / PAGE
    }

    #[test]
    fn what_was_refused_twice_counts_once() {
        let two = |n| [record(LEFT_MAPPED, 10, 1), record(LEFT_MAPPED, 20, 1)].repeat(n);
        assert_eq!(left(&two(1)), 2);
        assert_eq!(left(&two(50)), 2);
        assert_eq!(left(&[record(LEFT_MAPPED, 10, 2), record(LEFT_MAPPED, 11, 2)]), 3, "they overlap");
        assert_eq!(
            left(&[record(LEFT_MAPPED, 10, 10), record(LEFT_MAPPED, 12, 2)]),
            10,
            "one holds the other"
        );
        assert_eq!(left(&[record(LEFT_MAPPED, 12, 2), record(LEFT_MAPPED, 10, 10)]), 10);
    }

    #[test]
    fn what_goes_later_is_not_left() {
        let refused = record(LEFT_MAPPED, 10, 4);
        assert_eq!(left(&[refused, record(LEFT_GONE, 10, 4)]), 0);
        assert_eq!(left(&[refused, record(LEFT_GONE, 0, 100)]), 0, "with all around it");
        assert_eq!(left(&[refused, record(LEFT_GONE, 12, 1)]), 3, "a hole");
        assert_eq!(left(&[refused, record(LEFT_GONE, 8, 3)]), 3, "an edge");
        assert_eq!(left(&[refused, record(LEFT_GONE, 13, 9)]), 3);
        assert_eq!(left(&[refused, record(LEFT_GONE, 14, 9), record(LEFT_GONE, 9, 1)]), 4, "its neighbours");
        assert_eq!(left(&[refused, record(LEFT_GONE, 10, 4), refused]), 4, "refused again");
    }

    #[test]
    fn a_break_that_is_granted_settles_the_heap() {
        let heap = [record(LEFT_OF_HEAP, 10, 4), record(LEFT_IN_HEAP, 2, 2), record(LEFT_MAPPED, 900, 1)];
        let with = |last| left(&[&heap[..], &[last]].concat());
        assert_eq!(with(record(LEFT_BREAK, 20, 0)), 3, "it has what it grew over");
        assert_eq!(with(record(LEFT_BREAK, 3, 0)), 2, "what lies above is gone");
        assert_eq!(with(record(LEFT_GONE, 12, 1)), 6);
    }

    #[test]
    fn kinds_are_told_apart_and_neighbours_become_one() {
        let mut ranges = LeftRanges::default();
        let of = |group, start| LeftRecord { group, ..record(LEFT_MAPPED, start, 1) };
        for start in 0..1000 {
            ranges.take(&of(1, start));
        }
        assert_eq!(ranges.ranges, 1);
        ranges.take(&of(2, 500));
        assert_eq!(
            (ranges.bytes(7)[1], ranges.bytes(7)[2]),
            (999 * PAGE, PAGE),
            "the last one who was refused"
        );
        ranges.take(&of(GROUPS as u32, 2000));
        assert_eq!(ranges.bytes(7).iter().sum::<u64>(), 1000 * PAGE, "of no kind that is kept");
        ranges.forget(7);
        assert_eq!((ranges.ranges, ranges.bytes(7)), (0, [0; GROUPS]));
    }

    #[test]
    fn what_was_lost_is_known() {
        let mut ranges = LeftRanges::default();
        assert_eq!(ranges.of(&slot(0, 0)), Kept::default());
        ranges.take(&record(LEFT_MAPPED, 1, 1));
        ranges.take(&record(LEFT_GONE, 1, 1));
        assert_eq!(ranges.of(&slot(1, 1)), Kept::default());
        assert_eq!(ranges.of(&slot(3, 2)), Kept { ranges_lost: 2, went_lost: 1 });
        let mut full = LeftRanges::default();
        for n in 0..=MOST as u64 {
            full.take(&record(LEFT_MAPPED, 2 * n, 1));
        }
        assert_eq!(full.of(&slot(MOST as u64 + 1, 0)).ranges_lost, 1);
        assert_eq!(full.ranges, MOST);
    }
}
