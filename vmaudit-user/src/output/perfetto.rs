//! A trace for ui.perfetto.dev: of each process its life and its number of VMAs, and the refused calls.
//!
//! The format: github.com/google/perfetto, protos/perfetto/trace/trace_packet.proto and track_event/; what is needed of it
//! is described in its documentation under "synthetic track events". Times are ns since the session's start; one packet says
//! which wall time that is.

use std::collections::HashMap;
use std::io::{self, Write};

use super::protobuf::Message;
use crate::model::report::{Accuracy, Failure, Process, Report, Since};
use crate::output::curve::corners;
use crate::output::document::Document;
use crate::output::places::{function, named, of_kind};
use crate::output::text::page::Style;
use crate::output::text::verdict;
use crate::text::{clean, count, time, total};

/// Refusals drawn; the rest is told in the last one.
const REFUSALS: usize = 20_000;
/// Corners of curves drawn; processes behind them have three points.
const CORNERS: usize = 200_000;
/// Times of loss.
const GAPS: usize = 1000;
/// Frames of a stack.
const FRAMES: usize = 32;
/// Kinds of a TrackEvent.
const BEGIN: u64 = 1;
const END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;
/// Clocks: the trace's own (CLOCK_BOOTTIME there), and wall time.
const OWN_CLOCK: u64 = 6;
const WALL_CLOCK: u64 = 1;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    let mut trace = Trace { out, tracks: 0, room: REFUSALS, undrawn: 0, corners: CORNERS, coarse: 0 };
    let session = trace.begin(report)?;
    trace.marks(report)?;
    trace.gaps(report)?;
    let mut of: HashMap<_, Vec<&Failure>> = HashMap::new();
    let whose = |pid: u32, started_s: Option<f64>| (pid, started_s.map(f64::to_bits));
    for failure in &report.failures {
        of.entry(whose(failure.pid, failure.started_s)).or_default().push(failure);
    }
    for process in &report.processes {
        let track = trace.process(process, report.session.duration_s)?;
        for failure in of.remove(&whose(process.pid, process.started_s)).unwrap_or_default() {
            trace.refusals(failure, track)?;
        }
    }
    let mut rest =
        report.failures.iter().filter(|it| of.contains_key(&whose(it.pid, it.started_s))).peekable();
    if rest.peek().is_some() {
        let track = trace.track("refused calls of processes without a row", None)?;
        rest.try_for_each(|failure| trace.refusals(failure, track))?;
    }
    if trace.undrawn > 0 {
        let left_out = count(trace.undrawn, "refused call is", "refused calls are");
        trace.says(session, &format!("{left_out} not drawn: the JSON has all"))?;
    }
    if trace.coarse > 0 {
        let of = count(trace.coarse, "process", "processes");
        trace.says(session, &format!("of {of} only three points are drawn: the JSON has all"))?;
    }
    Ok(())
}

/// A file that is being written, packet by packet.
struct Trace<'a> {
    out: &'a mut dyn Write,
    /// So many have a number.
    tracks: u64,
    /// So many more places of refused calls are drawn.
    room: usize,
    /// Refused calls that are not.
    undrawn: u64,
    /// So many more corners of curves are drawn.
    corners: usize,
    /// Processes whose curve found no room.
    coarse: u64,
}

/// What stands beside an event.
#[derive(Default)]
struct Notes(Vec<Message>);

impl Notes {
    fn text(mut self, name: &str, value: &str) -> Self {
        self.0.push(Message::default().text(10, name).text(6, value));
        self
    }

    fn number(mut self, name: &str, value: Option<u64>) -> Self {
        self.0.extend(value.map(|value| Message::default().text(10, name).number(3, value)));
        self
    }

    fn real(mut self, name: &str, value: Option<f64>) -> Self {
        self.0.extend(value.map(|value| Message::default().text(10, name).double(5, value)));
        self
    }

    fn truth(mut self, name: &str, value: bool) -> Self {
        self.0.push(Message::default().text(10, name).number(2, value.into()));
        self
    }
}

impl Trace<'_> {
    /// The clocks, and the verdict as the session's own slice.
    fn begin(&mut self, report: &Report) -> io::Result<u64> {
        let clock = |id, at| Message::default().number(1, id).number(2, at);
        let mut clocks = Message::default().message(1, &clock(OWN_CLOCK, 0));
        if let Some(at) = time::unix_ns(&report.session.started) {
            clocks = clocks.message(1, &clock(WALL_CLOCK, at));
        }
        let clocks = clocks.number(2, OWN_CLOCK);
        // A new sequence: nothing of an earlier one is meant.
        self.packet(Message::default().number(8, 0).message(6, &clocks).number(10, 1).number(13, 1))?;
        let track = self.track("vmaudit", None)?;
        let notes = Notes::default()
            .text("verdict", &clean(&verdict(report)))
            .text("vmaudit", &clean(&report.vmaudit))
            .text("started", &clean(&report.session.started))
            .number("max_map_count", report.limits.max_map_count)
            .truth("exact_peaks", report.coverage.exact_peaks)
            .number("lost", Some(total(report.coverage.lost.values().copied())));
        self.event(BEGIN, track, 0.0, Some("session"), notes)?;
        self.event(END, track, report.session.duration_s, None, Notes::default())?;
        Ok(track)
    }

    /// A track each: they may overlap in any way.
    fn marks(&mut self, report: &Report) -> io::Result<()> {
        for mark in report.marks.iter().take(REFUSALS) {
            let name = named(&mark.name);
            let track = self.track(&format!("mark {name}"), None)?;
            let notes = Notes::default()
                .number("peak", mark.peak)
                .text("peak_is", if mark.peak_bound == Some(Accuracy::Exact) { "exact" } else { "at least" })
                .number("added", mark.added)
                .number("removed", mark.removed)
                .number("refused", mark.failed)
                .truth("exact", mark.exact);
            let end = mark.ended_s.unwrap_or(report.session.duration_s).max(mark.begun_s);
            self.event(BEGIN, track, mark.begun_s, Some(&name), notes)?;
            self.event(END, track, end, None, Notes::default())?;
        }
        Ok(())
    }

    /// When something was lost, and how much.
    fn gaps(&mut self, report: &Report) -> io::Result<()> {
        if report.coverage.gaps.is_empty() {
            return Ok(());
        }
        let track = self.track("lost events", None)?;
        for gap in report.coverage.gaps.iter().take(GAPS) {
            let name = count(gap.lost, "event lost", "events lost");
            let notes = Notes::default()
                .number("lost", Some(gap.lost))
                .truth("exact_peaks", report.coverage.exact_peaks);
            self.event(BEGIN, track, gap.from_s, Some(&name), notes)?;
            self.event(END, track, gap.to_s.max(gap.from_s), None, Notes::default())?;
        }
        Ok(())
    }

    /// One sentence at the beginning.
    fn says(&mut self, track: u64, sentence: &str) -> io::Result<()> {
        self.event(INSTANT, track, 0.0, Some(sentence), Notes::default())
    }

    /// Returns the track of its refused calls.
    fn process(&mut self, process: &Process, end_s: f64) -> io::Result<u64> {
        let name = named(&process.comm);
        let own = self.next();
        let identity = Message::default().number(1, process.pid.into()).text(6, &name);
        // Numbers are used again: the start tells such processes apart.
        let identity = match process.started_s {
            Some(at) => identity.number(7, ns(at)),
            None => identity,
        };
        self.describe(Message::default().number(1, own).text(2, &name).message(3, &identity))?;
        let life = self.track("life", Some(own))?;
        let refusals = self.track("refused calls", Some(own))?;
        let began = process.started_s.unwrap_or(0.0);
        let ended = process.ended_s.unwrap_or(end_s).max(began);
        self.event(BEGIN, life, began, Some(&name), life_of(process))?;
        self.event(END, life, ended, None, Notes::default())?;
        self.counter(process, own, began, ended)?;
        Ok(refusals)
    }

    /// Its number of VMAs. A value holds until the next one, so the end of a life is one too.
    fn counter(&mut self, process: &Process, own: u64, began: f64, ended: f64) -> io::Result<()> {
        let series = process.series.as_ref();
        let curve: Vec<(f64, u64)> =
            series.map(|it| corners(process, it).take(self.corners + 1).collect()).unwrap_or_default();
        let fits = curve.len() <= self.corners;
        self.coarse += u64::from(!fits);
        let (name, points) = match series.filter(|_| fits && !curve.is_empty()) {
            Some(series) => {
                self.corners -= curve.len();
                (if series.exact { CURVE } else { INEXACT_CURVE }, curve)
            }
            None => (if process.map_count.exact { COUNT } else { SAMPLED }, points(process, began, ended)),
        };
        if points.is_empty() {
            return Ok(());
        }
        let counter = self.next();
        let unit = Message::default().text(6, "VMAs");
        let track = Message::default().number(1, counter).text(2, name).number(5, own);
        self.describe(track.message(8, &unit))?;
        let over = process.ended_s.map(|_| (points.last().map_or(ended, |(at, _)| at.max(ended)), 0));
        for (at, value) in points.into_iter().chain(over) {
            let event = Message::default().number(9, COUNTER).number(11, counter).number(30, value);
            self.at(at, event)?;
        }
        Ok(())
    }

    /// Of each place the first and the last.
    fn refusals(&mut self, failure: &Failure, track: u64) -> io::Result<()> {
        for place in of_kind(failure) {
            let whole = failure.first_at_s.zip(failure.last_at_s);
            let Some((first, last)) = place.at_s.or(whole) else { continue };
            if self.room == 0 {
                self.undrawn = self.undrawn.saturating_add(place.count);
                continue;
            }
            self.room -= 1;
            let stack: Vec<String> = place.stack.iter().take(FRAMES).map(function).collect();
            let notes = || {
                Notes::default()
                    .text("cause", failure.cause.name())
                    .truth("certain", failure.certain)
                    .text("outcome", failure.outcome.name())
                    .number("calls", Some(place.count))
                    .real("first_at_s", Some(first))
                    .real("last_at_s", Some(last))
                    .text("process", &named(&failure.comm))
                    .number("pid", Some(failure.pid.into()))
                    .number("processes", Some(failure.processes))
                    .text("sentence", &clean(&failure.sentence))
                    .text("stack", &stack.join(" < "))
            };
            let what = format!("{} {}", named(&failure.syscall), named(&failure.errno));
            let (head, tail) = match place.count {
                1 => (what, None),
                n => (format!("{what}, first of {n}"), Some(format!("{what}, last of {n}"))),
            };
            self.event(INSTANT, track, first, Some(&head), notes())?;
            if let Some(tail) = tail {
                self.event(INSTANT, track, last, Some(&tail), notes())?;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> u64 {
        self.tracks += 1;
        self.tracks
    }

    fn track(&mut self, name: &str, parent: Option<u64>) -> io::Result<u64> {
        let number = self.next();
        let track = Message::default().number(1, number).text(2, name);
        self.describe(match parent {
            Some(parent) => track.number(5, parent),
            None => track,
        })?;
        Ok(number)
    }

    fn describe(&mut self, track: Message) -> io::Result<()> {
        self.packet(Message::default().number(8, 0).message(60, &track).number(10, 1))
    }

    fn event(
        &mut self,
        kind: u64,
        track: u64,
        at_s: f64,
        name: Option<&str>,
        notes: Notes,
    ) -> io::Result<()> {
        let event = Message::default().number(9, kind).number(11, track);
        let event = name.into_iter().fold(event, |event, name| event.text(23, name));
        self.at(at_s, notes.0.iter().fold(event, |event, note| event.message(4, note)))
    }

    fn at(&mut self, at_s: f64, event: Message) -> io::Result<()> {
        self.packet(Message::default().number(8, ns(at_s)).message(11, &event).number(10, 1))
    }

    fn packet(&mut self, packet: Message) -> io::Result<()> {
        self.out.write_all(&Message::default().message(1, &packet).into_bytes())
    }
}

/// Of a counter that has the peak of each interval and the count at its end.
const CURVE: &str = "VMAs (peak and end of each interval)";
/// Likewise, and more may have been between them.
const INEXACT_CURVE: &str = "VMAs (not exact: looks, or changes are missing)";
/// Of a counter between whose points nothing is known; what it is at each point is exact.
const COUNT: &str = "VMAs (first, peak, last)";
/// Of one that is looked at now and then.
const SAMPLED: &str = "VMAs (first, largest sample, last)";

/// When how many.
fn points(process: &Process, began: f64, ended: f64) -> Vec<(f64, u64)> {
    let count = &process.map_count;
    let ends = [count.first.map(|first| (began, first)), count.last.map(|last| (ended, last))];
    let [first, last] = ends;
    let peak = count.peak_at_s.zip(count.peak).map(|(at, peak)| (at.clamp(began, ended), peak));
    first.into_iter().chain(peak).chain(last).collect()
}

fn life_of(process: &Process) -> Notes {
    let count = &process.map_count;
    let notes = Notes::default()
        .number("pid", Some(process.pid.into()))
        .number("first", count.first)
        .number("peak", count.peak)
        .real("peak_at_s", count.peak_at_s)
        .number("last", count.last)
        .truth("exact", count.exact)
        .truth("clipped", count.clipped)
        .real("percent_of_limit", count.percent_of_limit)
        .truth("start_seen", process.started_s.is_some() && process.since != Some(Since::Attach))
        .truth("end_seen", process.ended_s.is_some())
        .number("unmap_leaked_bytes", process.unmap_leaked_bytes);
    let words = [("user", &process.user), ("unit", &process.unit), ("exe", &process.exe)];
    let told = words.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let notes = told.fold(notes, |notes, (name, value)| notes.text(name, &named(value)));
    match &process.end {
        Some(end) => notes.text("end", &clean(&end.sentence)),
        None => notes,
    }
}

/// Never before the session's start: such times a trace has not.
fn ns(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Series;
    use crate::output::text::tests::{clean_run, clipped_run, nothing};

    fn written(report: &Report) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Document::Report(report), &Style::default(), &mut out).unwrap();
        out
    }

    #[test]
    fn names_are_made_safe_and_every_refusal_is_drawn() {
        let mut report = clipped_run();
        report.processes[0].comm = "x\u{1b}[2J".into();
        // Of nobody with a row.
        report.failures[0].pid = 77;
        let bytes = written(&report);
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!has("\u{1b}[2J") && has("x\\x1b[2J"));
        assert!(has("processes without a row") && has("munmap ENOMEM, first of 23"));
        for report in [clean_run(), nothing()] {
            assert!(!written(&report).is_empty());
        }
    }

    #[test]
    fn however_many_refusals_there_are_the_trace_is_bounded() {
        let mut report = clipped_run();
        let one = report.failures[0].clone();
        report.failures = vec![one; 2 * REFUSALS];
        let bytes = written(&report);
        assert!(bytes.len() < 64 << 20);
        assert!(says(&bytes, "not drawn: the JSON has all"));
    }

    #[test]
    fn a_curve_has_all_its_corners_and_curves_are_bounded() {
        let mut report = clipped_run();
        let intervals = 500_u64;
        let series = Series {
            interval_s: 0.1,
            from_s: 0.0,
            ends_s: (1..=intervals).map(|n| n as f64 / 10.0).collect(),
            peak: vec![7; intervals as usize],
            last: vec![5; intervals as usize],
            exact: true,
        };
        report.processes.truncate(1);
        report.processes[0].series = Some(series);
        let one = report.processes[0].clone();
        let whole = written(&report);
        assert!(says(&whole, CURVE) && !says(&whole, COUNT));
        report.processes[0].series.as_mut().unwrap().exact = false;
        assert!(says(&written(&report), INEXACT_CURVE));
        let corners = 2 * intervals as usize;
        assert!(whole.len() > corners * 15, "a peak and an end of each: {}", whole.len());
        report.processes = vec![one; CORNERS / corners + 3];
        let bytes = written(&report);
        assert!(bytes.len() < 64 << 20);
        assert!(says(&bytes, "of 3 processes only three points are drawn") && says(&bytes, COUNT));
    }

    fn says(bytes: &[u8], said: &str) -> bool {
        bytes.windows(said.len()).any(|window| window == said.as_bytes())
    }
}
