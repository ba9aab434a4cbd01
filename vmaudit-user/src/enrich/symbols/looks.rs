//! How often mappings are looked at.

use std::time::{Duration, Instant};

use super::Symbols;

/// Looks in one second, all processes together; those for credited calls take the second number of them at most.
pub(super) const LOOKS_PER_SECOND: (u32, u32) = (50, 25);
/// Looks in one session; so many again for credited calls, so that these leave refused ones theirs.
pub(super) const LOOKS: u32 = 2000;

impl Symbols {
    /// Looks may be spent anew, in a session that goes on for months.
    pub fn renew(&mut self) {
        (self.looks, self.code_looks) = (0, 0);
    }

    /// Takes one of this second's looks, of which there are so many.
    pub(super) fn may_look(&mut self, most: u32) -> bool {
        let now = Instant::now();
        let (_, used) = match &mut self.second {
            Some(second) if now.duration_since(second.0) < Duration::from_secs(1) => second,
            other => other.insert((now, 0)),
        };
        let free = *used < most;
        *used += u32::from(free);
        free
    }
}
