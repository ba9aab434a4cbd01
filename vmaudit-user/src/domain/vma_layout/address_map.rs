//! The address space in a few rows, made while mappings stream by: clusters of mappings with wide empty space between
//! them, each with a histogram that folds when its cluster outgrows it. Memory does not depend on the input.

use crate::model::vma_layout::Cluster;

/// Cells of one row.
pub const CELLS: usize = 48;

/// Rows at most.
pub const ROWS: usize = 12;

/// Empty space that begins a new row, bytes, at first.
const GAP: u64 = 1 << 30;

/// The same while mappings come.
#[derive(Clone, Debug)]
struct Row {
    start: u64,
    end: u64,
    vmas: u64,
    mapped_bytes: u64,
    cell_bytes: u64,
    cells: Vec<u64>,
}

/// Collects rows.
#[derive(Clone, Debug)]
pub struct Picture {
    rows: Vec<Row>,
    gap: u64,
}

impl Default for Picture {
    fn default() -> Self {
        Self { rows: Vec::new(), gap: GAP }
    }
}

impl Row {
    fn new(start: u64) -> Self {
        Self { start, end: start, vmas: 0, mapped_bytes: 0, cell_bytes: 4096, cells: vec![0; CELLS] }
    }

    fn cell(&self, address: u64) -> u64 {
        address.saturating_sub(self.start) / self.cell_bytes.max(1)
    }

    fn fold_for(&mut self, address: u64) {
        while self.cell(address) >= CELLS as u64 && self.cell_bytes < 1 << 62 {
            self.cells = self.cells.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.cells.resize(CELLS, 0);
            self.cell_bytes *= 2;
        }
    }

    fn note(&mut self, address: u64, vmas: u64) {
        let cell = self.cell(address) as usize;
        let last = self.cells.len().saturating_sub(1);
        if let Some(count) = self.cells.get_mut(cell.min(last)) {
            *count += vmas;
        }
    }

    fn take(&mut self, other: &Self) {
        self.end = self.end.max(other.end);
        self.fold_for(self.end.saturating_sub(1));
        for (place, &vmas) in (0u64..).zip(&other.cells) {
            if vmas > 0 {
                self.note(other.start.saturating_add(place.saturating_mul(other.cell_bytes)), vmas);
            }
        }
        self.vmas += other.vmas;
        self.mapped_bytes = self.mapped_bytes.saturating_add(other.mapped_bytes);
    }
}

impl Picture {
    /// Adds the next mapping. Addresses rise in a real file; a made-up one may do what it likes.
    pub fn add(&mut self, start: u64, end: u64) {
        let gap = self.gap;
        if self.rows.last().is_none_or(|row| start < row.start || start.saturating_sub(row.end) >= gap) {
            self.rows.push(Row::new(start));
        }
        if let Some(row) = self.rows.last_mut() {
            row.end = row.end.max(end);
            row.fold_for(row.end.saturating_sub(1));
            row.note(start, 1);
            row.vmas += 1;
            row.mapped_bytes = row.mapped_bytes.saturating_add(end.saturating_sub(start));
        }
        while self.rows.len() > ROWS {
            self.join();
        }
    }

    /// Joins rows whose distance is below the doubled gap.
    fn join(&mut self) {
        if self.gap >= 1 << 62 {
            // Addresses that fall: nothing to join by distance, so the two last rows become one.
            if let Some(last) = self.rows.pop()
                && let Some(row) = self.rows.last_mut()
            {
                row.start = row.start.min(last.start);
                row.take(&last);
            }
            return;
        }
        self.gap *= 2;
        let mut joined: Vec<Row> = Vec::with_capacity(self.rows.len());
        for row in self.rows.drain(..) {
            match joined.last_mut() {
                Some(before)
                    if row.start >= before.start && row.start.saturating_sub(before.end) < self.gap =>
                {
                    before.take(&row);
                }
                _ => joined.push(row),
            }
        }
        self.rows = joined;
    }

    /// The rows.
    pub fn finish(self) -> Vec<Cluster> {
        let cluster = |row: Row| Cluster {
            start: Some(row.start),
            end: Some(row.end),
            bytes: row.end.saturating_sub(row.start),
            vmas: row.vmas,
            mapped_bytes: row.mapped_bytes,
            cell_bytes: row.cell_bytes,
            cells: row.cells,
        };
        self.rows.into_iter().map(cluster).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_by_folding_and_joining() {
        let mut picture = Picture::default();
        for row in 0..40u64 {
            for piece in 0..100u64 {
                let start = (row << 36) + piece * 0x10_0000;
                picture.add(start, start + 4096);
            }
        }
        let rows = picture.finish();
        assert!(rows.len() <= ROWS);
        assert_eq!(rows.iter().map(|row| row.vmas).sum::<u64>(), 4000);
        assert_eq!(rows.iter().flat_map(|row| &row.cells).sum::<u64>(), 4000);
        assert_eq!(rows.iter().map(|row| row.mapped_bytes).sum::<u64>(), 4000 * 4096);
    }

    #[test]
    fn addresses_that_fall_and_ends_of_the_world() {
        let mut picture = Picture::default();
        for start in (0..1000u64).rev() {
            picture.add(start << 50, u64::MAX);
        }
        picture.add(0, u64::MAX);
        assert!(picture.finish().len() <= ROWS);
    }
}
