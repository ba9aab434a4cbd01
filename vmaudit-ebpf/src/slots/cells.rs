//! How high a count was in each of the last intervals.

use vmaudit_common::{CELLS, Cell};

use super::Slot;
use crate::control::Page;

impl Slot {
    /// A change that has reached `highest` and leaves `last` behind, for the interval that runs.
    #[inline(always)]
    pub(super) fn count_in_interval(self, highest: u32, last: u32) {
        let interval = Page::get().interval().read();
        let at = interval as usize & (CELLS - 1);
        // SAFETY: points into SLOTS, and `at` is below CELLS.
        unsafe {
            let cell = (&raw mut (*self.0).cells).cast::<Cell>().add(at);
            // What an older interval has left is smaller.
            let highest = interval << 32 | u64::from(highest);
            if highest > (*cell).highest {
                (*cell).highest = highest;
            }
            (*cell).last = u64::from(last);
        }
    }
}
