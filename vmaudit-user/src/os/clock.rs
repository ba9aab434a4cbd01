//! The clock that the kernel's records go by.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// The kernel's own CLOCK_MONOTONIC, ns: programs in the kernel know no time namespaces (kernel/bpf/helpers.c:
/// bpf_ktime_get_ns).
pub fn now_ns() -> u64 {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let offset = *OFFSET_NS.get_or_init(offset_ns);
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| u64::try_from(t.num_nanoseconds().saturating_sub(offset)).unwrap_or(0))
}

/// Wall time where the machine is, `22:18:31.246`; UTC with a Z where its zone cannot be told.
pub fn time_of_day(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(0);
    let mut parts = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call; the answer is null or the second of them, filled.
    let known = unsafe { !libc::localtime_r(&raw const seconds, parts.as_mut_ptr()).is_null() };
    let millis = since.subsec_millis();
    if known {
        // SAFETY: filled, see above.
        let parts = unsafe { parts.assume_init() };
        return format!("{:02}:{:02}:{:02}.{millis:03}", parts.tm_hour, parts.tm_min, parts.tm_sec);
    }
    let day = seconds.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}.{millis:03}Z", day / 3600, day / 60 % 60, day % 60)
}

/// What this process's time namespace adds to it. The file tells of the namespace of its children (kernel/time/
/// namespace.c:proc_timens_show_offsets), which is another only between an unshare and the next exec or fork.
fn offset_ns() -> i64 {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let namespace = |name| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if namespace("time") != namespace("time_for_children") {
        return 0;
    }
    of_monotonic(&text).unwrap_or(0)
}

/// `monotonic 86400 0` and its like; before 5.9 the clock is a number.
fn of_monotonic(text: &str) -> Option<i64> {
    let line = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let mut ours = line.filter(|words| matches!(words.first(), Some(&"monotonic" | &"1")));
    let [_, seconds, nanos] = ours.next()?[..] else { return None };
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_that_of_the_monotonic_clock() {
        let text = "monotonic           1       500\nboottime            7         0\n";
        assert_eq!(of_monotonic(text), Some(1_000_000_500));
        assert_eq!(of_monotonic("monotonic -1 0\n"), Some(-1_000_000_000));
        for strange in ["", "monotonic x 0", "monotonic 1", "monotonic 9223372036854775807 0"] {
            assert_eq!(of_monotonic(strange), None, "{strange}");
        }
    }
}
