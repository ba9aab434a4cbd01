//! Looks at every count for a while, to see which grow.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use crate::domain::growth::{Asked, growth};
use crate::domain::series::{Point, Series};
use crate::model::report::{Growth, Report};
use crate::os::clock::now_ns;
use crate::source::process_list::Walk;

/// How often is looked, whatever the time; the rule for growth wants several looks in each of its eight parts.
const LOOKS: u32 = 48;
/// Between two looks at least, and at most.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Samples of each process, by its number; with its start, CLOCK_BOOTTIME ns.
pub(super) struct Looks(HashMap<u32, (u64, Series)>);

impl Looks {
    /// Takes so long. Errors: the kernel's walk failed.
    pub(super) fn take(walk: Walk<'_>, time: Duration) -> std::io::Result<Self> {
        let (least, most) = BETWEEN;
        let between = (time / LOOKS).clamp(least, most);
        let until = now_ns() + time.as_nanos() as u64;
        let mut looks = Self(HashMap::new());
        loop {
            let now = now_ns();
            let seen = walk()?.into_iter().filter_map(|task| Some((task.pid, task.start_ns, task.vmas?)));
            looks.add(now, seen);
            let left = Duration::from_nanos(until.saturating_sub(now_ns()));
            if left.is_zero() {
                return Ok(looks);
            }
            thread::sleep(between.min(left));
        }
    }

    /// One look: processes with start and count. Who is gone is forgotten.
    fn add(&mut self, at_ns: u64, seen: impl Iterator<Item = (u32, u64, u64)>) {
        let mut before = std::mem::take(&mut self.0);
        for (pid, start_ns, count) in seen {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let known = before.remove(&pid).filter(|(start, _)| *start == start_ns);
            let (_, mut series) = known.unwrap_or_else(|| (start_ns, Series::new(at_ns, count, 0)));
            let from_ns = series.end_ns();
            series.push(from_ns, Point { end_ns: at_ns, peak: count, last: count });
            self.0.insert(pid, (start_ns, series));
        }
    }

    fn growth(&self, pid: u32, limit: Option<u64>) -> Option<Growth> {
        let (_, series) = self.0.get(&pid)?;
        growth(series, &Asked { from_ns: 0, limit_at_ns: None, limit })
    }

    /// Puts what was seen into the rows.
    pub(super) fn tell(&self, report: &mut Report) {
        let limit = report.limits.max_map_count;
        for process in &mut report.processes {
            process.growth = self.growth(process.pid, limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let mut looks = Looks(HashMap::new());
        for n in 0..60_u64 {
            let second = if n < 30 { 7 } else { 8 };
            looks.add(n * 100_000_000, [(1, 5, 100 + n * 20), (2, second, 100 + n * 20)].into_iter());
        }
        let grown = looks.growth(1, Some(65_530)).unwrap();
        assert!(grown.steady && (grown.per_s - 200.0).abs() < 10.0, "{grown:?}");
        assert!(!looks.growth(2, None).unwrap().steady, "another one, for 3 s");
        assert_eq!(looks.growth(3, None), None);
        looks.add(7_000_000_000, std::iter::empty());
        assert_eq!(looks.growth(1, None), None);
    }
}
