//! A count over time: the exact peak of each interval, of bounded number. Pure.

use std::collections::VecDeque;

use crate::model::event::INTERVAL_NS;

/// Points of a series at most; of more, neighbours become one, twice as long.
pub const MOST: usize = 128;
/// Points at the end that are also kept as they came, but for those that a mark's boundary has cut.
const NEWEST: usize = 64;

/// An interval; it begins where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// CLOCK_MONOTONIC ns.
    pub end_ns: u64,
    /// Largest count, the one that it began with included.
    pub peak: u32,
    /// Count at its end.
    pub last: u32,
}

/// How a count went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// How long an interval is in which something changed, ns.
    pub interval_ns: u64,
    /// How long those are that come, ns.
    told_ns: u64,
    /// Where the first begins, CLOCK_MONOTONIC ns.
    pub from_ns: u64,
    /// Count at that time, as far as it is known.
    pub first: u32,
    points: Vec<Point>,
    newest: VecDeque<Point>,
}

impl Series {
    /// One without an interval, from this time and this count on. `told_ns`: how long the intervals are that will come; 0:
    /// as usual.
    pub fn new(from_ns: u64, first: u32, told_ns: u64) -> Self {
        let told_ns = if told_ns == 0 { INTERVAL_NS } else { told_ns };
        Self { interval_ns: told_ns, told_ns, from_ns, first, points: Vec::new(), newest: VecDeque::new() }
    }

    /// Its intervals, in order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The newest of them, as they came.
    pub fn newest(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.newest.iter()
    }

    /// Bytes of its points.
    pub fn bytes(&self) -> usize {
        (self.points.capacity() + self.newest.capacity()) * size_of::<Point>()
    }

    /// Where it ends.
    pub fn end_ns(&self) -> u64 {
        self.points.last().map_or(self.from_ns, |point| point.end_ns)
    }

    /// Adds an interval that begins at `from_ns`; until then nothing has changed. One that lies before the end, as that of an
    /// exec's new image does, counts to the last.
    pub fn push(&mut self, from_ns: u64, point: Point) {
        self.rest_until(from_ns);
        self.add(point);
    }

    /// Nothing has changed up to this time.
    pub fn rest_until(&mut self, end_ns: u64) {
        if end_ns > self.end_ns() {
            let level = self.points.last().map_or(self.first, |point| point.last);
            self.add(Point { end_ns, peak: level, last: level });
        }
    }

    fn add(&mut self, point: Point) {
        // Times of a recording need not be in order.
        let point = Point { end_ns: point.end_ns.max(self.from_ns), ..point };
        // Of intervals cut at boundaries there may be any number in a moment.
        let multiple = |end_ns: u64| end_ns.saturating_sub(1) / self.told_ns;
        match self.newest.back_mut() {
            Some(last) if point.end_ns <= last.end_ns => {}
            Some(last) if multiple(point.end_ns) == multiple(last.end_ns) => {
                *last = Point { peak: last.peak.max(point.peak), ..point };
            }
            _ => self.newest.push_back(point),
        }
        while self.newest.len() > NEWEST {
            self.newest.pop_front();
        }
        let every = if self.interval_ns > self.told_ns { self.interval_ns } else { 0 };
        let (from_ns, first) = (self.from_ns, self.first);
        join(&mut self.points, point, every, (from_ns, first));
        while self.points.len() > MOST {
            self.interval_ns = self.interval_ns.saturating_mul(2);
            let mut fewer: Vec<Point> = Vec::with_capacity(MOST + 1);
            for point in self.points.drain(..) {
                join(&mut fewer, point, self.interval_ns, (from_ns, first));
            }
            self.points = fewer;
        }
    }

    /// Puts what came later behind it.
    pub fn append(&mut self, later: &Self) {
        self.interval_ns = self.interval_ns.max(later.interval_ns);
        let newest_from = later.newest.len();
        let mut from_ns = later.from_ns;
        for point in &later.points {
            self.push(from_ns, *point);
            from_ns = point.end_ns;
        }
        // As they came, and not as they were made fewer.
        if newest_from == NEWEST {
            self.newest.clone_from(&later.newest);
        }
    }

    /// Drops what lies behind this time.
    pub fn cut(&mut self, end_ns: u64) {
        let end_ns = end_ns.max(self.from_ns);
        clip(&mut self.points, end_ns);
        let mut newest: Vec<Point> = std::mem::take(&mut self.newest).into();
        clip(&mut newest, end_ns);
        self.newest = newest.into();
    }
}

/// Intervals behind the end belong to the one that reaches it.
fn clip(points: &mut Vec<Point>, end_ns: u64) {
    while let [.., before, last] = points.as_mut_slice()
        && before.end_ns >= end_ns
    {
        *before = Point { peak: before.peak.max(last.peak), ..*last };
        points.pop();
    }
    if let Some(last) = points.last_mut() {
        last.end_ns = last.end_ns.min(end_ns);
    }
}

/// Puts a point behind others, together with the last one if both end within the same multiple of `every_ns` (0: never),
/// or nothing changes in either. `begin`: time and count at which the first begins.
fn join(points: &mut Vec<Point>, point: Point, every_ns: u64, begin: (u64, u32)) {
    let before = match points.as_slice() {
        [.., before, _] => (before.end_ns, before.last),
        _ => begin,
    };
    let Some(last) = points.last_mut() else { return points.push(point) };
    let rests = before.1 == last.peak && last.peak == last.last;
    if point.end_ns <= last.end_ns {
        last.peak = last.peak.max(point.peak);
        last.last = point.last;
        return;
    }
    if rests && point.peak == last.last && point.last == last.last {
        last.end_ns = point.end_ns;
        return;
    }
    let multiple = |end_ns: u64| end_ns.saturating_sub(1).checked_div(every_ns);
    let (same, other) = (multiple(point.end_ns), multiple(last.end_ns));
    let Some(same) = same.filter(|same| Some(*same) == other) else { return points.push(point) };
    let begins = same * every_ns;
    // A rest ends where it likes: it does not make a change look longer.
    if rests && before.0.saturating_add(every_ns) <= begins {
        last.end_ns = begins;
        let peak = last.last.max(point.peak);
        points.push(Point { peak, ..point });
    } else {
        *last = Point { peak: last.peak.max(point.peak), ..point };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = INTERVAL_NS;

    fn point(end: u64, peak: u32, last: u32) -> Point {
        Point { end_ns: end * STEP, peak, last }
    }

    #[test]
    fn stretches_without_a_change_are_one_interval() {
        let mut series = Series::new(0, 0, STEP);
        series.push(0, point(1, 9, 5));
        series.push(7 * STEP, point(8, 30, 30));
        series.rest_until(9 * STEP);
        series.rest_until(20 * STEP);
        assert_eq!(series.points(), [point(1, 9, 5), point(7, 5, 5), point(8, 30, 30), point(20, 30, 30)]);
        series.push(19 * STEP, point(20, 44, 6));
        assert_eq!(series.points().last(), Some(&point(20, 44, 6)), "the new image of an exec");
    }

    #[test]
    fn the_number_is_bounded_and_no_peak_and_no_last_count_is_lost() {
        let mut series = Series::new(0, 0, STEP);
        let mut book: Vec<Point> = Vec::new();
        for n in 0..200_000_u64 {
            // A few stretches of rest.
            if n % 1000 < 700 {
                let before = book.last().map_or(0, |point| point.last);
                let peak = before.max((n.wrapping_mul(2_654_435_761) % 60_000) as u32 + 10);
                let last = peak - peak.min(n as u32 % 50_000);
                book.push(point(n + 1, peak, last));
                series.push(n * STEP, point(n + 1, peak, last));
            }
            if n % 777 == 0 {
                let (mut from, mut at) = (0, 0);
                assert!(series.points().len() <= MOST);
                for kept in series.points() {
                    let upto = book.partition_point(|it: &Point| it.end_ns <= kept.end_ns);
                    let within = book.get(at..upto).unwrap_or_default();
                    if let Some(last) = within.last() {
                        let peak = within.iter().map(|it| it.peak).max();
                        assert_eq!((Some(kept.peak), kept.last), (peak, last.last));
                    } else {
                        assert_eq!((kept.peak, kept.last), (from, from), "a stretch of rest");
                    }
                    (from, at) = (kept.last, upto);
                }
                assert_eq!(at, book.len());
            }
        }
        let shortest = series.interval_ns / STEP;
        assert!(shortest.is_power_of_two() && shortest <= 200_000 / 32, "{shortest}");
        assert!(series.points().len() > MOST / 4);
    }

    /// Each interval cut twice: the newest reach as far back as without, with the same peaks.
    #[test]
    fn boundaries_of_marks_do_not_shorten_what_is_kept_fine() {
        let (mut whole, mut cut) = (Series::new(0, 0, STEP), Series::new(0, 0, STEP));
        for n in 0..200_u64 {
            let peak = (n as u32 % 7) * 100 + n as u32;
            whole.push(n * STEP, point(n + 1, peak, n as u32));
            for (part, peak) in [(1, 3), (2, peak), (3, 5)] {
                let end_ns = n * STEP + part * STEP / 3;
                cut.push(end_ns - STEP / 3, Point { end_ns, peak: peak.max(n as u32), last: n as u32 });
            }
        }
        let ends = |series: &Series| -> Vec<(u64, u32)> {
            series.newest().map(|it| (it.end_ns.div_ceil(STEP), it.peak)).collect()
        };
        assert_eq!(ends(&cut), ends(&whole));
        assert_eq!(cut.newest().count(), NEWEST);
    }

    #[test]
    fn what_a_dead_one_was_told_of_ends_with_it() {
        let mut series = Series::new(0, 0, STEP);
        series.push(0, point(1, 9, 5));
        series.push(STEP, point(2, 8, 7));
        series.push(2 * STEP, point(3, 99, 4));
        series.cut(STEP + 5);
        let end = Point { end_ns: STEP + 5, peak: 99, last: 4 };
        assert_eq!(series.points(), [point(1, 9, 5), end]);
        let mut whole = Series::new(0, 0, STEP);
        whole.append(&series);
        assert_eq!(whole.points(), series.points());
    }
}
