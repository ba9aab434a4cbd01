//! Stretches that somebody named, in lanes below the curves; the table of marks has the same.

use std::io::{self, Write};

use super::escape::text;
use super::frame::Frame;
use crate::model::report::{Mark, Report};
use crate::output::text::page::without_middle;
use crate::text::{clean, count, grouped};

/// From one lane to the next, pixels.
const LANE: f64 = 22.0;
/// Lanes: of marks within marks, or beside others, so many are drawn.
const LANES: usize = 3;
/// Marks drawn.
const MOST: usize = 200;
/// Of a character, pixels.
const CHARACTER: f64 = 7.6;

/// Pixels that lanes take.
pub(super) fn height(report: &Report) -> f64 {
    let lanes = placed(report).iter().map(|(lane, _)| lane + 1).max().unwrap_or(0);
    lanes as f64 * LANE
}

fn end(mark: &Mark, report: &Report) -> f64 {
    mark.ended_s.unwrap_or(report.session.duration_s).max(mark.begun_s)
}

/// Each in the first lane that is free.
fn placed(report: &Report) -> Vec<(usize, &Mark)> {
    let mut free = [f64::NEG_INFINITY; LANES];
    let mut placed = Vec::new();
    for mark in report.marks.iter().take(MOST) {
        if let Some((lane, until)) = free.iter_mut().enumerate().find(|(_, until)| **until <= mark.begun_s) {
            *until = end(mark, report);
            placed.push((lane, mark));
        }
    }
    placed
}

/// Draws them.
pub(super) fn lanes(report: &Report, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    let placed = placed(report);
    if placed.is_empty() {
        return Ok(());
    }
    let top = frame.bottom + 30.0;
    writeln!(
        out,
        "<text class=\"tickr\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        frame.left - 6.0,
        top + 13.0,
        if frame.narrow { "" } else { "Marks" }
    )?;
    for (lane, mark) in placed {
        let (x, until) = (frame.x(mark.begun_s), frame.x(end(mark, report)));
        let (y, width) = (top + lane as f64 * LANE, (until - x).max(2.0));
        let bad = if refused(report, mark) { " hit" } else { "" };
        let peak =
            mark.peak.map_or("not known".to_owned(), |peak| format!("peak {}", count(peak, "VMA", "VMAs")));
        let failed = mark.failed.map_or(String::new(), |calls| format!(", {} refused", grouped(calls)));
        write!(
            out,
            "<g><title>{}: {peak}{failed}</title><rect class=\"lane{bad}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"18\"/>",
            text(&without_middle(&clean(&mark.name), 64))
        )?;
        let columns = ((width - 8.0) / CHARACTER).max(0.0) as usize;
        if columns >= 3 {
            // What stands behind the file and the module tells a test from others.
            let last = mark.name.rsplit("::").next().filter(|last| !last.is_empty()).unwrap_or(&mark.name);
            let shown = text(&without_middle(&clean(last), columns));
            write!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{shown}</text>", x + 4.0, y + 13.0)?;
        }
        writeln!(out, "</g>")?;
    }
    let left_out = report.marks.len().saturating_sub(self::placed(report).len()) as u64;
    if left_out > 0 {
        writeln!(
            out,
            "<text class=\"tickr\" x=\"{:.1}\" y=\"{:.1}\">{} not drawn</text>",
            frame.width - 2.0,
            top + 13.0,
            grouped(left_out)
        )?;
    }
    Ok(())
}

/// A call was refused in it whose need was not met otherwise.
fn refused(report: &Report, mark: &Mark) -> bool {
    let (from, to) = (mark.begun_s, end(mark, report));
    let within = |first: f64, last: f64| first <= to && last >= from;
    mark.failed.is_some_and(|calls| calls > 0)
        && report
            .unrecovered()
            .any(|it| it.first_at_s.zip(it.last_at_s).is_some_and(|(first, last)| within(first, last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::clipped_run;

    fn mark(name: &str, begun_s: f64, ended_s: Option<f64>) -> Mark {
        Mark {
            name: name.into(),
            by_pid: Some(1),
            begun_s,
            ended_s,
            exact: true,
            peak: Some(7),
            peak_bound: None,
            pid: None,
            comm: None,
            added: None,
            removed: None,
            failed: Some(0),
            processes: Vec::new(),
            processes_left_out: 0,
        }
    }

    fn drawn(report: &Report) -> String {
        let frame = Frame {
            width: 1064.0,
            left: 58.0,
            right: 914.0,
            top: 22.0,
            bottom: 300.0,
            seconds: report.session.duration_s,
            most: 100.0,
            narrow: false,
        };
        let mut out = Vec::new();
        lanes(report, &frame, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn marks_beside_each_other_share_a_lane_and_those_within_have_another() {
        let mut report = clipped_run();
        assert_eq!((drawn(&report), height(&report)), (String::new(), 0.0));
        let end = report.session.duration_s;
        report.marks =
            vec![mark("<a>\u{202e}", 0.0, None), mark("b", 0.1, Some(0.2)), mark("c", 0.2, Some(end))];
        report.marks[0].failed = Some(3);
        let picture = drawn(&report);
        assert!(picture.contains("<title>&lt;a&gt;\\u{202e}: peak 7 VMAs, 3 refused</title>"), "{picture}");
        assert_eq!((picture.matches("class=\"lane\"").count(), picture.matches("lane hit").count()), (2, 1));
        assert_eq!(height(&report), 2.0 * LANE);
        report.marks = vec![mark("a", 0.0, None); 500];
        assert!(drawn(&report).contains(">497 not drawn<") && height(&report) == 3.0 * LANE);
    }
}
