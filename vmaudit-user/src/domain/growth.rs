//! Whether a count grows steadily, how fast, and when it reaches the limit. Pure.
//!
//! The rule: a window that ends at the end is cut into [`PARTS`] parts of equal length. The growth is steady if the peak of
//! each part is larger than anything that was before it, no step from one to the next is more than half of the growth, the
//! last half of the parts has at least [`LATE_PERCENT`] % of it, and it is at least [`LEAST`] VMAs. Windows of
//! [`SHORTEST_NS`] and more are tried; the longest that fits is told, if it is at least half as long as the longest in which
//! each part is a record, even or not.
//!
//! So a leak is told after 4 s. A saw-tooth is not, because its teeth were as high before; nor is noise around a level, in
//! which eight records in a row do not come; nor a jump; nor a start that levels off: over the time since it began its last
//! half adds little, and a stretch that is short beside that time looks straight on any curve.

use crate::domain::series::{Point, Series};
use crate::model::report::Growth;

/// Parts of a window.
const PARTS: usize = 8;
/// The shortest window, ns.
const SHORTEST_NS: u64 = 4_000_000_000;
/// Each window that is tried is longer than the one before by this, percent.
const LONGER_PERCENT: u64 = 140;
/// Share of the growth that the last half of the parts must have; even growth has 57 %.
const LATE_PERCENT: u64 = 45;
/// Least growth, VMAs.
const LEAST: u32 = 32;

/// What is asked of a series.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What lies before is another image's, CLOCK_MONOTONIC ns.
    pub from_ns: u64,
    /// The time at which the limit was reached; `None`: it was not.
    pub limit_at_ns: Option<u64>,
    /// vm.max_map_count, VMAs; `None` where it is not known.
    pub limit: Option<u64>,
}

/// How it grows; `None`: there is nothing to compare.
pub fn growth(series: &Series, asked: &Asked) -> Option<Growth> {
    let end_ns = asked.limit_at_ns.unwrap_or_else(|| series.end_ns()).min(series.end_ns());
    let from_ns = asked.from_ns.max(series.from_ns);
    let span = end_ns.checked_sub(from_ns).filter(|span| *span > 0)?;
    let points = Pieces::of(series.from_ns, series.first, series.points(), end_ns);
    let newest = series.newest().next();
    let newest = newest.map(|it| Pieces::of(it.end_ns, it.last, series.newest().skip(1), end_ns));
    let records = windows(span).filter_map(|width| {
        let begin = end_ns - width;
        let fine = newest.as_ref().filter(|newest| newest.from_ns <= begin).unwrap_or(&points);
        let steps = Steps::of(&fine.parts(begin, width)?, points.highest_before(begin, from_ns))?;
        Some((width, steps))
    });
    let records: Vec<(u64, Steps)> = records.collect();
    let longest = records.last().map_or(0, |(width, _)| *width);
    let steady = records.iter().rev().find(|(_, steps)| steps.even());
    let steady = steady.filter(|(width, _)| *width >= longest / 2);
    let last = points.pieces.last().map_or(series.first, |piece| piece.last);
    let Some((width, steps)) = steady else {
        let first = points.pieces.iter().find(|piece| piece.end_ns > from_ns)?.before;
        let per_s = (f64::from(last) - f64::from(first)) / (span as f64 / 1e9);
        return Some(Growth { per_s: rounded(per_s), steady: false, over_s: None, reaches_limit_in_s: None });
    };
    let width = *width;
    let per_s = f64::from(steps.total) / (PARTS - 1) as f64 / (width as f64 / PARTS as f64) * 1e9;
    let left = |limit: u64| match asked.limit_at_ns {
        Some(_) => 0.0,
        None => limit.saturating_sub(last.into()) as f64 / per_s,
    };
    Some(Growth {
        per_s: rounded(per_s),
        steady: true,
        over_s: Some(rounded(width as f64 / 1e9)),
        reaches_limit_in_s: asked.limit.map(left).map(rounded),
    })
}

/// Three decimals are more than a rate is good for; of a slow one, three digits.
fn rounded(value: f64) -> f64 {
    let first = value.abs().log10().floor();
    // Of 0 the logarithm is none.
    let decimals = if first.is_finite() { (2.0 - first).clamp(3.0, 300.0) } else { 3.0 };
    let factor = 10_f64.powf(decimals);
    (value * factor).round() / factor
}

/// Lengths of windows, the shortest first, up to the whole; of a recording that tells of hundreds of years, not so far.
fn windows(span: u64) -> impl Iterator<Item = u64> {
    let longer = |width: &u64| Some(width.checked_mul(LONGER_PERCENT)? / 100);
    let widths = std::iter::successors(Some(SHORTEST_NS), longer);
    widths.take_while(move |width| *width <= span)
}

/// How the peaks of parts rise, each of which is a record.
struct Steps {
    total: u32,
    largest: u32,
    /// In the last half.
    late: u32,
}

impl Steps {
    /// `before`: the largest count until then.
    fn of(parts: &[u32; PARTS], before: u32) -> Option<Self> {
        let [first, .., last] = *parts;
        let steps = parts.windows(2).map(|two| match two {
            [one, next] => next.checked_sub(*one).filter(|step| *step > 0),
            _ => None,
        });
        let largest = steps.collect::<Option<Vec<u32>>>()?.into_iter().max()?;
        let late = last - parts.get(PARTS / 2 - 1)?;
        (first > before).then_some(Self { total: last - first, largest, late })
    }

    fn even(&self) -> bool {
        self.total >= LEAST
            && u64::from(self.largest) * 2 <= u64::from(self.total)
            && u64::from(self.late) * 100 >= u64::from(self.total) * LATE_PERCENT
    }
}

/// An interval with its beginning.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from_ns: u64,
    end_ns: u64,
    before: u32,
    peak: u32,
    last: u32,
}

impl Piece {
    /// Nothing changes in it.
    fn rests(&self) -> bool {
        self.before == self.peak && self.peak == self.last
    }
}

struct Pieces {
    from_ns: u64,
    pieces: Vec<Piece>,
}

impl Pieces {
    fn of<'p>(from_ns: u64, first: u32, points: impl IntoIterator<Item = &'p Point>, end_ns: u64) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        for point in points {
            let (from_ns, before) =
                pieces.last().map_or((from_ns, first), |piece| (piece.end_ns, piece.last));
            if from_ns >= end_ns {
                break;
            }
            // Times of a recording need not be in order.
            let end_ns = point.end_ns.min(end_ns).max(from_ns);
            pieces.push(Piece { from_ns, end_ns, before, peak: point.peak, last: point.last });
        }
        Self { from_ns, pieces }
    }

    /// The largest count of `from_ns` to `until_ns`; of an interval that reaches beyond, what it began with.
    fn highest_before(&self, until_ns: u64, from_ns: u64) -> u32 {
        let within = self.pieces.iter().filter(|piece| piece.end_ns > from_ns && piece.from_ns < until_ns);
        within
            .map(|piece| match piece.end_ns <= until_ns || piece.rests() {
                true => piece.peak,
                false => piece.before,
            })
            .max()
            .unwrap_or(0)
    }

    /// The peak of each part of a window; `None`: the intervals are too long to tell.
    fn parts(&self, begin_ns: u64, width_ns: u64) -> Option<[u32; PARTS]> {
        let mut parts = [0; PARTS];
        let part = (width_ns / PARTS as u64).max(1);
        let place = |at_ns: u64| (at_ns.saturating_sub(begin_ns) / part).min(PARTS as u64 - 1) as usize;
        for piece in self.pieces.iter().filter(|piece| piece.end_ns > begin_ns) {
            let end = place(piece.end_ns - 1);
            // What rests is as high in all of them.
            let changes = !piece.rests();
            if changes && piece.end_ns - piece.from_ns > part {
                return None;
            }
            let first = if changes { end } else { place(piece.from_ns) };
            for peak in parts.iter_mut().take(end + 1).skip(first) {
                *peak = piece.peak.max(*peak);
            }
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests;
