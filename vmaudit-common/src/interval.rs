//! How high a count was in each of the last intervals.

use bytemuck::{Pod, Zeroable};

/// Intervals of which an address space keeps the peak: user space has read one before it begins the one that takes its
/// place.
pub const CELLS: usize = 4;

/// What one interval saw; that with the number `n` is in the cell `n % CELLS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Cell {
    /// Number of the interval, then in the low 32 bits the largest map_count in it: before or after one of its changes.
    /// Of an older interval it is smaller, whatever that one's peak was.
    pub highest: u64,
    /// map_count after its last change.
    pub last: u64,
}

impl Cell {
    /// The peak and the last count of the interval with this number; `None` if nothing changed in it.
    pub const fn of(self, interval: u64) -> Option<(u32, u32)> {
        if self.highest >> 32 == interval { Some((self.highest as u32, self.last as u32)) } else { None }
    }
}

const _: () = assert!(CELLS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_speaks_of_its_own_interval_only() {
        let cell = Cell { highest: 7 << 32 | 65_530, last: 12 };
        assert_eq!(cell.of(7), Some((65_530, 12)));
        assert_eq!((cell.of(3), cell.of(11), Cell::default().of(1)), (None, None, None));
    }
}
