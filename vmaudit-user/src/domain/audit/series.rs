//! How the count of each process went, from what intervals told of its address spaces.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::domain::audit::minutes::Minutes;
use crate::domain::audit::{Audit, Process};
use crate::domain::growth;
use crate::domain::series::{Point, Series};
use crate::model::event::{Interval, MmState, ProcessId, Reached, Sample};
use crate::model::report::{self, Growth};

/// Processes that all have their series in a report; of more, those with the largest counts, and those that grow steadily.
const FEW: usize = 60;
/// How many these are.
const OF_MANY: usize = 30;

/// Who lives with so much of the limit still stands at it: between two refusals a few are freed.
const STANDS_PERCENT: u8 = 99;

/// Of an older image and a newer one: their generations, and the series of both.
pub(super) type Joined = (u64, u64, Series);

impl Audit {
    /// An interval is over.
    pub(super) fn interval(&mut self, interval: &Interval) {
        self.every_ns = interval.every_ns;
        self.marks.interval(interval);
        for &Reached(generation, peak, last) in &interval.of {
            let new = || Box::new(Series::new(interval.from_ns, 0, interval.every_ns));
            let series = self.series.entry(generation).or_insert_with(new);
            series.push(interval.from_ns, Point { end_ns: interval.to_ns, peak, last });
            let minutes = self.minutes.entry(generation);
            minutes
                .and_modify(|minutes| minutes.add(interval.to_ns, peak, last))
                .or_insert_with(|| Minutes::new(interval.to_ns, peak, last));
        }
    }

    /// The series of two images that become one, the older, with their generations.
    pub(super) fn joined_series(&self, older: &MmState, newer: &MmState) -> Joined {
        let mut series = self.series_of(older);
        series.append(&self.series_of(newer));
        (older.generation, newer.generation, series)
    }

    /// Keeps it.
    pub(super) fn join_series(&mut self, joined: Option<Joined>) {
        if let Some((older, newer, series)) = joined {
            self.series.remove(&newer);
            self.series.insert(older, Box::new(series));
            if let Some(mut minutes) = self.minutes.remove(&newer) {
                if let Some(older) = self.minutes.get(&older) {
                    minutes.join(older);
                }
                self.minutes.insert(older, minutes);
            }
        }
    }

    /// What is known of an address space, from its birth to its end, or to the last event.
    fn series_of(&self, mm: &MmState) -> Series {
        let end_ns = mm.dead_ns.unwrap_or_else(|| self.end.map_or(self.seen_ns, |end| end.at_ns));
        let every_ns = self.every_ns;
        let told = self.series.get(&mm.generation);
        let first = told.map(|told| told.from_ns).or(mm.untold.first().map(|untold| untold.from_ns));
        if let Some(from_ns) = self.stretch_ns.filter(|from_ns| mm.born_ns < *from_ns) {
            // How it went before is not known: without a change since then, the count is the last one.
            let mut series = Series::new(first.unwrap_or(from_ns), mm.last, every_ns);
            self.rest_of_series(&mut series, mm, end_ns);
            return series;
        }
        let mut series = Series::new(mm.born_ns, mm.first, every_ns);
        match first {
            // All changes lie in this time.
            None => series.push(mm.born_ns, Point { end_ns, peak: mm.peak, last: mm.last }),
            Some(first) if first > mm.born_ns => {
                series.rest_until(first);
            }
            Some(_) => {}
        }
        self.rest_of_series(&mut series, mm, end_ns);
        series
    }

    /// What was told, and how it went on.
    fn rest_of_series(&self, series: &mut Series, mm: &MmState, end_ns: u64) {
        if let Some(told) = self.series.get(&mm.generation) {
            series.append(told);
        }
        let told_until = series.end_ns();
        for untold in mm.untold.iter().filter(|untold| untold.to_ns > told_until) {
            series.push(untold.from_ns, Point { end_ns: untold.to_ns, peak: untold.peak, last: untold.last });
        }
        series.rest_until(end_ns);
        if mm.dead_ns.is_some() {
            series.cut(end_ns);
        }
    }

    /// The series of a process over all its images; `None`: nobody looked, or not at an address space of its own.
    pub(super) fn whole_series(&self, process: &Process) -> Option<Series> {
        let mut whole: Option<Series> = None;
        for mm in process.own() {
            let series = self.series_of(mm);
            match &mut whole {
                Some(whole) => whole.append(&series),
                None => whole = Some(series),
            }
        }
        let sampled = || process.looks.as_deref().filter(|looks| looks.end_ns() > looks.from_ns).cloned();
        whole.or_else(sampled)
    }

    /// The same for the report. `exact`: the process's peak is.
    pub(super) fn shown_series(&self, process: &Process, exact: bool) -> Option<report::Series> {
        let series = self.whole_series(process)?;
        let points = series.points();
        let peak = points.iter().map(|point| point.peak).max();
        let counts = |of: fn(&Point) -> u32| points.iter().map(|point| of(point).into()).collect();
        Some(report::Series {
            interval_s: series.interval_ns as f64 / 1e9,
            from_s: self.short_seconds(series.from_ns),
            ends_s: points.iter().map(|point| self.short_seconds(point.end_ns)).collect(),
            peak: counts(|point| point.peak),
            last: counts(|point| point.last),
            exact: exact && process.joined() == 0 && peak.map(u64::from) == process.peak(),
        })
    }

    /// How its count grows; `peak`: its largest.
    pub(super) fn growth(&self, process: &Process, peak: Option<u64>) -> Option<Growth> {
        let series = self.whole_series(process)?;
        let reached = self.stopped_at(process, peak);
        let image = process.own().next_back().filter(|_| reached.is_none());
        let asked = growth::Asked {
            from_ns: image.map_or(0, |image| image.born_ns),
            limit_at_ns: reached,
            limit: self.limit.at(process.ended_ns.unwrap_or(u64::MAX)),
        };
        growth::growth(&series, &asked)
    }

    /// When it reached the limit that was in force then. Of who lives what it does now counts, if it has let go of the limit
    /// again, or that was raised.
    fn stopped_at(&self, process: &Process, peak: Option<u64>) -> Option<u64> {
        let mut own = process.own();
        let top = own.find(|mm| Some(u64::from(mm.peak)) == peak).map(|mm| mm.peak_ns);
        let at_ns = top.or(process.samples.map(|seen| seen.peak_ns))?;
        if peak? < self.limit.at(at_ns)? {
            return None;
        }
        let last = process.own().next_back().map(|mm| mm.last).or(process.samples.map(|seen| seen.last));
        let stands = self.limit.at(u64::MAX).zip(last).is_some_and(|(limit, last)| {
            u128::from(last) * 100 >= u128::from(limit) * u128::from(STANDS_PERCENT)
        });
        (process.ended_ns.is_some() || stands).then_some(at_ns)
    }

    /// Processes whose series is shown: all of a few, of many those that are remarkable.
    pub(super) fn with_series(&self) -> HashSet<ProcessId> {
        let few = self.processes.len() <= FEW;
        let mut all: Vec<(ProcessId, &Process)> =
            self.processes.iter().map(|(id, it)| (*id, &**it)).collect();
        all.sort_by_cached_key(|(id, it)| {
            let special = self.at_limit(it.peak()) || it.refused() > 0;
            (Reverse((special, it.peak())), *id)
        });
        all.into_iter().take(if few { FEW } else { OF_MANY }).map(|(id, _)| id).collect()
    }

    /// Seconds since the session's start, to a microsecond: there are many of them.
    fn short_seconds(&self, at_ns: u64) -> f64 {
        (at_ns.saturating_sub(self.start_ns) as f64 / 1e3).round() / 1e6
    }
}

impl Process {
    /// A look from outside.
    pub(super) fn looked(&mut self, sample: &Sample, count: u32) {
        let point = Point { end_ns: sample.at_ns, peak: count, last: count };
        let looks = self.looks.get_or_insert_with(|| Box::new(Series::new(sample.at_ns, count, 0)));
        looks.push(looks.end_ns(), point);
    }
}
