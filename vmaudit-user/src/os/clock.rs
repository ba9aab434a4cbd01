//! The clock that the kernel's records go by.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// Names of the clocks in /proc/PID/timens_offsets; before 5.9 they are numbers.
const MONOTONIC: [&str; 2] = ["monotonic", "1"];
const BOOTTIME: [&str; 2] = ["boottime", "7"];

/// The kernel's own CLOCK_MONOTONIC, ns: programs in the kernel know no time namespaces (kernel/bpf/helpers.c:
/// bpf_ktime_get_ns).
pub fn now_ns() -> u64 {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let offset = *OFFSET_NS.get_or_init(|| offset_ns(&MONOTONIC));
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| u64::try_from(t.num_nanoseconds().saturating_sub(offset)).unwrap_or(0))
}

/// The kernel's own CLOCK_BOOTTIME, ns: starts of processes are told by it (kernel/fork.c:copy_process,
/// `start_boottime`).
pub fn boot_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |t| u64::try_from(t.num_nanoseconds().saturating_sub(boot_offset_ns())).unwrap_or(0))
}

/// What this process's time namespace adds to it, and to the starts that /proc shows, ns.
pub fn boot_offset_ns() -> i64 {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    *OFFSET_NS.get_or_init(|| offset_ns(&BOOTTIME))
}

/// A start that /proc shows, in clock ticks, is this one, CLOCK_BOOTTIME ns as the kernel has it.
pub fn same_start(ticks: u64, boot_ns: u64) -> bool {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let tick_ns = 1_000_000_000 / per_second.and_then(|n| u64::try_from(n).ok()).unwrap_or(100).max(1);
    // /proc rounds down, after it has added what the time namespace adds (fs/proc/array.c:do_task_stat, since 5.5).
    let shown = boot_ns.saturating_add_signed(boot_offset_ns()) / tick_ns;
    ticks == shown
}

/// Wall time where the machine is, `22:18:31.246`; UTC with a Z where its zone cannot be told.
pub fn time_of_day(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
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
fn offset_ns(clock: &[&str; 2]) -> i64 {
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let namespace = |name| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if namespace("time") != namespace("time_for_children") {
        return 0;
    }
    of_clock(clock, &text).unwrap_or(0)
}

/// `monotonic 86400 0` and its like.
fn of_clock(clock: &[&str; 2], text: &str) -> Option<i64> {
    let line = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let mut ours = line.filter(|words| words.first().is_some_and(|word| clock.contains(word)));
    let [_, seconds, nanos] = ours.next()?[..] else { return None };
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_that_of_the_monotonic_clock() {
        let text = "monotonic           1       500\nboottime            7         0\n";
        assert_eq!(of_clock(&MONOTONIC, text), Some(1_000_000_500));
        assert_eq!(of_clock(&BOOTTIME, text), Some(7_000_000_000));
        assert_eq!(of_clock(&MONOTONIC, "monotonic -1 0\n"), Some(-1_000_000_000));
        for strange in ["", "monotonic x 0", "monotonic 1", "monotonic 9223372036854775807 0"] {
            assert_eq!(of_clock(&MONOTONIC, strange), None, "{strange}");
        }
    }
}
