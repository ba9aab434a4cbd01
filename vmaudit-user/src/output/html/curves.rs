//! Curves of the counts of notable processes over time, drawn for a wide page and for a narrow one, with a table of the same.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::escape::name;
use super::frame::Frame;
use super::lanes;
use crate::model::cause::reason;
use crate::model::report::{Process, Report, Series};
use crate::output::curve::corners;
use crate::text::{count, grouped, rate, total};

/// Curves of a picture.
const CURVES: usize = 5;
/// Curves where no process is notable.
const OF_NONE: usize = 3;
/// Share of the limit from which on a process is notable, percent; and below which the limit is out of the picture.
const NOTABLE_PERCENT: u64 = 5;
/// Rows of the table.
const STRETCHES: usize = 12;
/// Marks of refused calls.
const MARKS: usize = 12;
/// Times of loss.
const GAPS: usize = 100;

/// What a curve is called in picture and table.
const LETTERS: [&str; CURVES] = ["A", "B", "C", "D", "E"];

pub(super) struct Curve<'a> {
    pub(super) letter: &'static str,
    pub(super) process: &'a Process,
    series: &'a Series,
}

/// Writes pictures and table; nothing where nobody has a series.
pub(super) fn curves(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let curves = chosen(report);
    let Some(highest) = curves.iter().filter_map(|curve| curve.series.peak.iter().max()).max().copied()
    else {
        return Ok(());
    };
    let seconds = report.session.duration_s.max(0.001);
    let limit = report.limits.max_map_count.filter(|limit| *limit > 0);
    let shown = limit.filter(|limit| highest.saturating_mul(100) >= limit.saturating_mul(NOTABLE_PERCENT));
    writeln!(out, "<section id=\"time\"><h2>VMAs over time</h2>")?;
    if let (Some(limit), None) = (limit, shown) {
        let times = limit / highest.max(1);
        writeln!(
            out,
            "<p class=\"note\">The limit, {}, is {} times the largest peak, and not in the picture.</p>",
            grouped(limit),
            grouped(times)
        )?;
    }
    let most = (highest.max(shown.unwrap_or(0)).max(1) as f64) * 1.06;
    for narrow in [false, true] {
        let (width, left, room) = if narrow { (358.0, 54.0, 26.0) } else { (1064.0, 58.0, 150.0) };
        let frame = Frame {
            width,
            left,
            right: width - room,
            top: 22.0,
            bottom: if narrow { 200.0 } else { 300.0 },
            seconds,
            most,
            narrow,
        };
        picture(report, &curves, shown, &frame, out)?;
    }
    if curves.iter().any(|curve| !curve.series.exact) {
        writeln!(
            out,
            "<p class=\"note\">Thin dashes: not exact. Between two points the count may have been higher.</p>"
        )?;
    }
    lost(report, out)?;
    table(&curves, seconds, out)?;
    writeln!(out, "</section>")
}

/// What the hatched times are, in words.
fn lost(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let gaps = &report.coverage.gaps;
    let Some(longest) = gaps.iter().max_by(|a, b| a.lost.cmp(&b.lost)) else { return Ok(()) };
    let lost = total(gaps.iter().map(|gap| gap.lost));
    let more = gaps.len().saturating_sub(GAPS) as u64;
    let more = if more > 0 {
        format!("; {} not drawn", count(more, "more time is", "more times are"))
    } else {
        String::new()
    };
    let touched = if report.coverage.exact_peaks { "; no peak is touched by it" } else { "" };
    writeln!(
        out,
        "<p class=\"note\">Hatched: {} lost there, most of them between {:.2} s and {:.2} s{touched}{more}.</p>",
        count(lost, "event was", "events were"),
        longest.from_s,
        longest.to_s
    )
}

/// Curves of processes that matter.
pub(super) fn notable(report: &Report) -> Vec<Curve<'_>> {
    let limit = report.limits.max_map_count.unwrap_or(u64::MAX);
    let matters = |process: &Process| {
        let peak = process.map_count.peak.unwrap_or(0);
        process.map_count.clipped
            || u128::from(peak) * 100 >= u128::from(limit) * u128::from(NOTABLE_PERCENT)
            || process.growth.is_some_and(|growth| growth.foresees())
            || report.unrecovered().any(|failure| failure.is_of(process))
    };
    lettered(with_series(report).filter(|(process, _)| matters(process)))
}

/// Those, or the largest where none matters.
pub(super) fn chosen(report: &Report) -> Vec<Curve<'_>> {
    let some = notable(report);
    if some.is_empty() { lettered(with_series(report).take(OF_NONE)) } else { some }
}

fn with_series(report: &Report) -> impl Iterator<Item = (&Process, &Series)> {
    report
        .processes
        .iter()
        .filter_map(|process| Some((process, process.series.as_ref().filter(|it| !it.peak.is_empty())?)))
}

fn lettered<'a>(of: impl Iterator<Item = (&'a Process, &'a Series)>) -> Vec<Curve<'a>> {
    of.zip(LETTERS).map(|((process, series), letter)| Curve { letter, process, series }).collect()
}

fn picture(
    report: &Report,
    curves: &[Curve<'_>],
    limit: Option<u64>,
    frame: &Frame,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Frame { width, left, right, bottom, .. } = *frame;
    let (class, id) = if frame.narrow { ("curves narrow", "n") } else { ("curves wide", "w") };
    let height = bottom + 34.0 + lanes::height(report);
    writeln!(
        out,
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"c{id}t c{id}d\"><title id=\"c{id}t\">VMAs of \
         processes over time</title><desc id=\"c{id}d\">The table below has the same figures.</desc>"
    )?;
    let step = nice(frame.most, 5);
    for line in (0..).map(|n| f64::from(n) * step).take_while(|count| *count <= frame.most) {
        let y = frame.y(line);
        writeln!(
            out,
            "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/><text class=\"tickr\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 6.0,
            y + 4.0,
            grouped(line as u64)
        )?;
    }
    gaps(report, id, frame, out)?;
    let every = nice(frame.seconds, if frame.narrow { 3 } else { 8 });
    for at in (0..).map(|n| f64::from(n) * every).take_while(|at| *at <= frame.seconds) {
        let (x, y) = (frame.x(at), bottom + 18.0);
        let unit = if at == 0.0 { " s" } else { "" };
        writeln!(out, "<text class=\"tickm\" x=\"{x:.1}\" y=\"{y:.1}\">{}{unit}</text>", shortest(at))?;
    }
    if let Some(limit) = limit {
        let y = frame.y(limit as f64);
        writeln!(
            out,
            "<path class=\"limit\" d=\"M{left:.1} {y:.1}H{right:.1}\"/><text class=\"limitt\" x=\"{:.1}\" y=\"{:.1}\">limit {}</text>",
            right,
            y - 5.0,
            grouped(limit)
        )?;
    }
    for curve in curves {
        writeln!(out, "<path class=\"area f{}\" d=\"{}\"/>", curve.letter, area(curve, frame))?;
    }
    for curve in curves {
        let rough = if curve.series.exact { "" } else { " rough" };
        writeln!(out, "<path class=\"curve c{}{rough}\" d=\"{}\"/>", curve.letter, path(curve, frame))?;
    }
    labels(curves, limit, frame, out)?;
    // Without its line they stand at the top.
    marks(report, limit.map_or(frame.top + 12.0, |limit| frame.y(limit as f64)), frame, out)?;
    lanes::lanes(report, frame, out)?;
    writeln!(out, "</svg>")
}

/// From corner to corner.
fn path(curve: &Curve<'_>, frame: &Frame) -> String {
    let mut path = String::new();
    for (at_s, count) in corners(curve.process, curve.series) {
        let step = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{step}{:.1} {:.1}", frame.x(at_s), frame.y(count as f64));
    }
    path
}

/// The same down to the axis.
fn area(curve: &Curve<'_>, frame: &Frame) -> String {
    let series = curve.series;
    let end = series.ends_s.last().copied().unwrap_or(series.from_s);
    format!("{}V{:.1}H{:.1}Z", path(curve, frame), frame.bottom, frame.x(series.from_s.min(end)))
}

/// Hatched where something was lost.
fn gaps(report: &Report, id: &str, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    let gaps = &report.coverage.gaps;
    if gaps.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<pattern id=\"g{id}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <path class=\"hatch\" d=\"M0 0V6\"/></pattern>"
    )?;
    for gap in gaps.iter().take(GAPS) {
        let (from, to) = (frame.x(gap.from_s), frame.x(gap.to_s));
        writeln!(
            out,
            "<rect class=\"gap\" fill=\"url(#g{id})\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{} lost</title></rect>",
            frame.top,
            (to - from).max(3.0),
            frame.bottom - frame.top,
            grouped(gap.lost)
        )?;
    }
    Ok(())
}

/// Beside the end of each curve, none over another.
fn labels(curves: &[Curve<'_>], limit: Option<u64>, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    const APART: f64 = 15.0;
    let end = |curve: &Curve<'_>| {
        let last = curve.series.last.last().copied().unwrap_or(0);
        (frame.x(curve.series.ends_s.last().copied().unwrap_or(0.0)), frame.y(last as f64) + 4.0)
    };
    let mut places: Vec<(f64, f64, &Curve<'_>)> =
        curves.iter().map(|curve| (end(curve).0, end(curve).1, curve)).collect();
    places.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut free = frame.bottom + 4.0;
    for (x, y, curve) in places {
        let y = y.min(free);
        // Not on the line of the limit.
        let y = match limit.map(|limit| frame.y(limit as f64)) {
            Some(limit) if (y - 4.0 - limit).abs() < 8.0 => (limit + 16.0).min(free),
            _ => y,
        };
        free = y - APART;
        let letter = curve.letter;
        let (x, y) = (x.min(frame.right), y);
        let killed = curve.process.end.as_ref().is_some_and(|end| end.signal.is_some());
        if killed {
            let (at, level) = end(curve);
            let level = level - 4.0;
            writeln!(
                out,
                "<path class=\"killed\" d=\"M{:.1} {:.1}l8 8m0-8l-8 8\"><title>died of a signal</title></path>",
                at - 4.0,
                level - 4.0
            )?;
        }
        let called = if frame.narrow { String::new() } else { format!(" {}", plain(&curve.process.comm)) };
        writeln!(
            out,
            "<text class=\"label t{letter}\" x=\"{:.1}\" y=\"{y:.1}\"><tspan class=\"letter\">{letter}</tspan>{called}</text>",
            x + if killed { 9.0 } else { 5.0 }
        )?;
    }
    Ok(())
}

/// A name inside of a picture, where no element isolates its direction.
fn plain(comm: &str) -> String {
    super::escape::text(&crate::output::text::page::without_middle(&crate::text::clean(comm), 16))
}

/// Refused calls by their number in the list; near ones are one mark.
fn marks(report: &Report, limit_y: f64, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    const NEAR: f64 = 24.0;
    /// Room for words.
    const WORDS: f64 = 380.0;
    let mut marks: Vec<(f64, usize, usize)> = Vec::new();
    let mut at: Vec<(f64, usize)> = report
        .unrecovered()
        .enumerate()
        .filter_map(|(n, failure)| Some((frame.x(failure.first_at_s?), n + 1)))
        .collect();
    at.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (x, number) in at {
        match marks.last_mut() {
            Some((last, low, high)) if x - *last < NEAR => {
                (*low, *high) = ((*low).min(number), (*high).max(number));
            }
            _ => marks.push((x, number, number)),
        }
    }
    let xs: Vec<f64> = marks.iter().map(|(x, ..)| *x).collect();
    for (n, (x, low, high)) in marks.into_iter().take(MARKS).enumerate() {
        let said = if low == high { low.to_string() } else { format!("{low}\u{2013}{high}") };
        let half = 8.0 + 3.5 * said.chars().count() as f64 - 3.5;
        let top = (limit_y - 30.0).max(2.0);
        writeln!(
            out,
            "<path class=\"stem\" d=\"M{x:.1} {:.1}V{:.1}\"/><rect class=\"mark\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\" rx=\"8\"/>\
             <text class=\"markt\" x=\"{x:.1}\" y=\"{:.1}\">{said}</text>",
            top + 16.0,
            limit_y,
            x - half,
            half * 2.0,
            top + 12.0
        )?;
        let lasted = report.unrecovered().skip(low - 1).take(high + 1 - low);
        if let Some(until) = lasted.filter_map(|failure| failure.last_at_s).reduce(f64::max) {
            let end = frame.x(until).max(x + 3.0).min(frame.right.max(x + 3.0));
            writeln!(out, "<path class=\"lasted\" d=\"M{x:.1} {limit_y:.1}H{end:.1}\"/>")?;
        }
        // Words where nothing else stands.
        let free = |from: f64, to: f64| xs.iter().enumerate().all(|(m, at)| m == n || *at < from || *at > to);
        let (side, anchor) = if free(x, x + WORDS) && x + WORDS < frame.right {
            (x + half + 6.0, "start")
        } else if free(x - WORDS, x) && x - WORDS > frame.left {
            (x - half - 6.0, "end")
        } else {
            continue;
        };
        if let Some(failure) = report.unrecovered().nth(low - 1).filter(|_| low == high && !frame.narrow) {
            writeln!(
                out,
                "<text class=\"why {anchor}\" x=\"{side:.1}\" y=\"{:.1}\"><tspan class=\"letter\">{} {} refused in {}</tspan>: {}</text>",
                top + 12.0,
                grouped(failure.count),
                plain(&failure.syscall),
                plain(&failure.comm),
                super::escape::text(reason(failure))
            )?;
        }
    }
    Ok(())
}

/// The peak of each process in each of a few stretches of time.
fn table(curves: &[Curve<'_>], seconds: f64, out: &mut dyn Write) -> io::Result<()> {
    write!(
        out,
        "<details><summary>The same as a table</summary><div class=\"scroll\"><table><caption>Largest number of VMAs in each stretch of \
         time; a peak whose interval reaches over a border counts in both; \u{2013} before the process and after it.</caption><thead><tr><th>Until</th>"
    )?;
    for curve in curves {
        write!(
            out,
            "<th class=\"r\">{} {} (pid {})</th>",
            curve.letter,
            name(&curve.process.comm),
            curve.process.pid
        )?;
    }
    writeln!(out, "</tr></thead><tbody>")?;
    for n in 0..STRETCHES {
        let bound = |n: usize| seconds * n as f64 / STRETCHES as f64;
        let (from, until) = (bound(n), bound(n + 1));
        write!(out, "<tr><td>{until:.1} s</td>")?;
        for curve in curves {
            let peak = peak_between(curve.series, from, until).map_or("\u{2013}".to_owned(), grouped);
            write!(out, "<td class=\"r\">{peak}</td>")?;
        }
        writeln!(out, "</tr>")?;
    }
    let growth = |curve: &Curve<'_>| match curve.process.growth.filter(|growth| growth.steady) {
        Some(growth) => rate(growth.per_s),
        None => "not steady".to_owned(),
    };
    let cells: Vec<String> =
        curves.iter().map(|curve| format!("<td class=\"r\">{}</td>", growth(curve))).collect();
    writeln!(out, "<tr><td>Growth</td>{}</tr></tbody></table></div></details>", cells.concat())
}

/// Of the intervals that reach into a stretch.
fn peak_between(series: &Series, from_s: f64, until_s: f64) -> Option<u64> {
    let mut begin = series.from_s;
    let mut most = None;
    for (end_s, peak) in series.ends_s.iter().zip(&series.peak) {
        if *end_s > from_s && begin < until_s {
            most = most.max(Some(*peak));
        }
        begin = *end_s;
    }
    most
}

/// A step of 1, 2 or 5 times a power of ten, so that at most so many fit.
fn nice(most: f64, steps: u32) -> f64 {
    let least = (most / f64::from(steps)).max(1e-6);
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= least * 0.999).unwrap_or(most)
}

fn shortest(seconds: f64) -> String {
    let three = format!("{seconds:.3}");
    three.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::clean_run;

    fn series(peak: &[u64]) -> Series {
        Series {
            interval_s: 0.1,
            from_s: 0.0,
            ends_s: (1..=peak.len()).map(|n| n as f64 / 10.0).collect(),
            peak: peak.to_vec(),
            last: peak.iter().map(|peak| peak - 1).collect(),
            exact: true,
        }
    }

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        curves(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_highest_point_of_a_curve_is_in_its_path() {
        let mut report = clean_run();
        report.session.duration_s = 0.4;
        report.limits.max_map_count = Some(1000);
        report.processes[0].comm = "<b>\"".into();
        report.processes[0].series = Some(series(&[100, 900, 50, 50]));
        let page = page(&report);
        // 900 of 1,060, in the middle of the second interval.
        assert!(page.contains("L379.0 64.0"), "{page}");
        assert!(page.contains("limit 1,000") && !page.contains("<b>"), "{page}");
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<td class=\"r\">900</td>") && page.contains("counts in both"), "{page}");
        assert!(!page.contains("style=") && !page.contains(" on"), "{page}");
    }

    #[test]
    fn without_a_series_there_is_no_picture_and_a_far_limit_is_named() {
        let mut report = clean_run();
        report.processes.iter_mut().for_each(|process| process.series = None);
        assert_eq!(page(&report), "");
        report.processes[0].series = Some(series(&[136]));
        report.limits.max_map_count = Some(65_530);
        let page = page(&report);
        assert!(
            page.contains("is 481 times the largest peak") && !page.contains("class=\"limit\""),
            "{page}"
        );
    }

    #[test]
    fn what_was_lost_is_hatched_and_a_refusal_has_its_cause() {
        let mut report = crate::output::text::tests::clipped_run();
        report.session.duration_s = 4.0;
        report.failures[0].first_at_s = Some(0.4);
        report.failures[0].last_at_s = Some(2.0);
        report.failures[0].comm = "<b>".into();
        report.processes[0].series = Some(Series { ends_s: vec![2.0, 4.0], ..series(&[65_530, 65_530]) });
        assert!(!page(&report).contains("class=\"gap\""));
        report.coverage.gaps = vec![crate::model::report::Gap { from_s: 1.0, to_s: 2.0, lost: 1204 }];
        let page = page(&report);
        assert_eq!(page.matches("class=\"gap\"").count(), 2, "in both pictures: {page}");
        assert!(
            page.contains("Hatched: 1,204 events were lost there") && page.contains("fill=\"url(#gw)\""),
            "{page}"
        );
        assert!(
            page.contains("refused in &lt;b&gt;</tspan>: ") && page.contains("class=\"lasted\""),
            "{page}"
        );
        assert!(!page.contains("style=") && !page.contains("<b>"), "{page}");
    }

    #[test]
    fn steps_are_ones_that_people_count_in() {
        assert_eq!([nice(65_530.0, 5), nice(3.4, 8), nice(9.0, 3), nice(0.0, 5)], [20_000.0, 0.5, 5.0, 1e-6]);
        assert_eq!(["0.05", "2", "1.5"], [0.05, 2.0, 1.5].map(shortest));
    }
}
