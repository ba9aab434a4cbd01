//! Stretches that somebody named, in lanes below the curves; the table of marks has the same.

use std::io::{self, Write};

use super::escape::text;
use super::frame::Frame;
use crate::model::report::{Mark, Report};
use crate::output::text::marks::figures;
use crate::output::text::page::without_middle;
use crate::text::{clean, count};

/// From one lane to the next, pixels.
const LANE: f64 = 22.0;
/// Lanes: of marks within marks, or beside others, so many are drawn.
const LANES: usize = 3;
/// Marks drawn.
const MOST: usize = 200;
/// Of the line that says how many are not drawn, pixels.
const LINE: f64 = 18.0;
/// Of a character, pixels.
const CHARACTER: f64 = 7.6;

/// Pixels that lanes take.
pub(super) fn height(report: &Report) -> f64 {
    let placed = placed(report);
    of_lanes(&placed) + if left_out(report, &placed) > 0 { LINE } else { 0.0 }
}

fn of_lanes(placed: &[(usize, &Mark)]) -> f64 {
    let lanes = placed.iter().map(|(lane, _)| lane + 1).max().unwrap_or(0);
    lanes as f64 * LANE
}

fn left_out(report: &Report, placed: &[(usize, &Mark)]) -> u64 {
    report.marks.len().saturating_sub(placed.len()) as u64
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
    for &(lane, mark) in &placed {
        let (x, until) = (frame.x(mark.begun_s), frame.x(end(mark, report)));
        let (y, width) = (top + lane as f64 * LANE, (until - x).max(2.0));
        let bad = if refused(report, mark) { " hit" } else { "" };
        // As in the table: ~ at least.
        let [peak, _, _, failed] = figures(mark);
        let peak = mark.peak.map_or("not known".to_owned(), |vmas| {
            format!("peak {peak} {}", if vmas == 1 { "VMA" } else { "VMAs" })
        });
        let failed = mark.failed.map_or(String::new(), |_| format!(", {failed} refused"));
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
    let left_out = left_out(report, &placed);
    if left_out > 0 {
        writeln!(
            out,
            "<text class=\"tickr\" x=\"{:.1}\" y=\"{:.1}\">{} not drawn</text>",
            frame.right,
            top + of_lanes(&placed) + 11.0,
            count(left_out, "mark", "marks")
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
    use crate::model::memory::Accuracy;
    use crate::output::text::tests::clipped_run;

    fn mark(name: &str, begun_s: f64, ended_s: Option<f64>) -> Mark {
        Mark {
            name: name.into(),
            by_pid: Some(1),
            begun_s,
            ended_s,
            exact: true,
            peak: Some(7),
            peak_bound: Some(Accuracy::Exact),
            pid: None,
            comm: None,
            added: None,
            removed: None,
            failed: Some(0),
            processes: Vec::new(),
            processes_left_out: 0,
        }
    }

    const BOTTOM: f64 = 300.0;

    fn drawn(report: &Report) -> String {
        let frame = Frame {
            width: 1064.0,
            left: 58.0,
            right: 914.0,
            top: 22.0,
            bottom: BOTTOM,
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
        let picture = drawn(&report);
        assert!(picture.contains(">497 marks not drawn<"), "{picture}");
        // Below every lane, and within the picture.
        let said = picture.split(" y=\"").filter(|rest| rest.contains("not drawn"));
        let y: f64 = said.last().and_then(|rest| rest.split_once('"')).unwrap().0.parse().unwrap();
        let top = BOTTOM + 30.0;
        assert!(y > top + 3.0 * LANE && y < top + height(&report), "{y}");
    }

    #[test]
    fn a_figure_that_is_a_bound_says_so() {
        let mut report = clipped_run();
        let said = |of: Mark, report: &mut Report| {
            report.marks = vec![of];
            let picture = drawn(report);
            picture.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0.to_owned()
        };
        let sure = Mark { failed: Some(3), ..mark("a", 0.0, None) };
        assert_eq!(said(sure.clone(), &mut report), "a: peak 7 VMAs, 3 refused");
        let least = Mark { peak_bound: Some(Accuracy::AtLeast), ..sure.clone() };
        assert_eq!(said(least, &mut report), "a: peak ~7 VMAs, 3 refused");
        let doubtful = Mark { exact: false, peak: Some(1), ..sure };
        assert_eq!(said(doubtful.clone(), &mut report), "a: peak ~1 VMA, ~3 refused");
        let nothing = Mark { peak: None, failed: None, ..doubtful };
        assert_eq!(said(nothing, &mut report), "a: not known");
    }
}
