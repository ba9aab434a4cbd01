//! The clock that the kernel's records go by.

use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, ns.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| u64::try_from(t.num_nanoseconds()).unwrap_or(0))
}
