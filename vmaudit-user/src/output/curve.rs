//! The curve of a count over time, the same in every picture.

use crate::model::report::{Process, Series};

/// Times of a series are rounded, seconds.
const ROUNDED: f64 = 2e-6;

/// Its corners, seconds and VMAs: the count that it begins with, then of each interval the peak, where it was higher than at
/// both ends, and the count at its end. Within an interval nobody knows when its peak was, but for the largest of all; the
/// others stand in the middle. Where nobody knows with what it began, that is the peak of the first interval.
pub(crate) fn corners<'a>(process: &'a Process, series: &'a Series) -> impl Iterator<Item = (f64, u64)> + 'a {
    let largest = process.map_count.peak.zip(process.map_count.peak_at_s);
    let intervals = series.ends_s.iter().zip(&series.peak).zip(&series.last);
    let whole = process.started_s.is_some_and(|at_s| (at_s - series.from_s).abs() <= ROUNDED);
    let first = process.map_count.first.filter(|_| whole);
    let begins =
        series.peak.first().map(|peak| (series.from_s, first.map_or(*peak, |first| first.min(*peak))));
    let mut before: (f64, Option<u64>) = (series.from_s, first);
    let corners = intervals.flat_map(move |((end_s, peak), last)| {
        let (from_s, first) = std::mem::replace(&mut before, (*end_s, Some(*last)));
        let top = first.filter(|first| *peak > *first.max(last)).map(|_| {
            let known = largest.filter(|(count, at_s)| count == peak && (from_s..=*end_s).contains(at_s));
            (known.map_or(f64::midpoint(from_s, *end_s), |(_, at_s)| at_s), *peak)
        });
        top.into_iter().chain([(*end_s, *last)])
    });
    begins.into_iter().chain(corners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::clipped_run;

    #[test]
    fn no_peak_is_left_out_and_the_largest_stands_where_it_was() {
        let mut process = clipped_run().processes.remove(0);
        let series = Series {
            interval_s: 0.1,
            from_s: 1.0,
            ends_s: vec![2.0, 3.0, 4.0, 5.0],
            peak: vec![50, 90, 40, 95],
            last: vec![40, 40, 30, 95],
            exact: true,
        };
        (process.map_count.peak, process.map_count.peak_at_s) = (Some(90), Some(2.9));
        let drawn: Vec<_> = corners(&process, &series).collect();
        let rest = [(3.0, 40), (4.0, 30), (5.0, 95)];
        assert_eq!(drawn, [&[(1.0, 50), (2.0, 40), (2.9, 90)][..], &rest].concat());
        (process.started_s, process.map_count.first) = (Some(1.0), Some(20));
        let begins: Vec<_> = corners(&process, &series).take(3).collect();
        assert_eq!(begins, [(1.0, 20), (1.5, 50), (2.0, 40)]);
        process.started_s = Some(0.5);
        assert_eq!(corners(&process, &series).next(), Some((1.0, 50)), "of a stretch that begins later");
        process.map_count.peak_at_s = Some(4.5);
        assert!(corners(&process, &series).any(|corner| corner == (2.5, 90)), "that was another one");
        let nothing = Series { ends_s: Vec::new(), ..series };
        assert_eq!(corners(&process, &nothing).count(), 1);
    }
}
