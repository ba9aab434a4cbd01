//! One process: its figures, its curve with the limit, its refused calls.

use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget as _};

use super::look::{Look, Row, duration, growth};
use super::{Alarm, Canvas};
use crate::output::text::page::{shortened, wrapped};
use crate::text::{clean, grouped};

/// Before what goes on of a place.
const INDENT: &str = "                     ";
/// Lines of figures above the curve.
const HEAD: u16 = 4;

pub(super) fn draw(row: &Row, look: &Look, from: usize, mut page: Canvas<'_>) {
    let name = format!("{} (pid {})", clean(&row.comm), row.which.pid);
    let (answer, alarm) = answer(row, look, &name);
    page.first(&answer, &look.clock, alarm.style());
    let facts = [
        row.unit.as_deref().map(clean),
        row.user.as_deref().map(|user| format!("user {}", clean(user))),
        row.exe.as_deref().map(clean),
        row.ended.clone(),
        Some(if row.exact { "peak exact".into() } else { "peak sampled, not exact".into() }),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    page.line(1, &facts.join(" · "), Style::new().add_modifier(Modifier::DIM));
    page.line(2, &figures(row, look), Style::new());
    let room = page.area.height.saturating_sub(HEAD + 1);
    let curve = if room >= 8 && page.area.width >= 40 { (room / 2).min(14) } else { 0 };
    if curve > 0 {
        let area = Rect { y: page.area.y + HEAD, height: curve, ..page.area };
        draw_curve(row, look.limit, area, &mut page);
    }
    let width = usize::from(page.area.width);
    let mut text = makers(row, width);
    text.extend(refusals(row, look.sees_refusals, width));
    let below = room.saturating_sub(curve);
    for (y, line) in (0..below).zip(text.iter().skip(from.min(text.len().saturating_sub(1)))) {
        page.line(HEAD + curve + y, line, Style::new());
    }
    let height = page.area.height;
    page.line(
        height.saturating_sub(1),
        "↑↓ scroll  e explain  m makers  space pause  Esc back  ? help  q quit",
        Style::new().add_modifier(Modifier::DIM),
    );
}

fn answer(row: &Row, look: &Look, name: &str) -> (String, Alarm) {
    let Some(limit @ 1..) = look.limit else { return (name.to_owned(), Alarm::None) };
    if row.refused_at_limit > 0 {
        let calls = grouped(row.refused_at_limit);
        return (format!("{name} hit the limit: {calls} calls refused"), Alarm::Much);
    }
    let share = row.now.unwrap_or(0) as f64 * 100.0 / limit as f64;
    let refused = match row.refused {
        0 => String::new(),
        calls => format!("; {} calls refused for other reasons", grouped(calls)),
    };
    (format!("{name} has {share:.1} % of the VMAs that the limit allows{refused}"), Alarm::of(share))
}

fn figures(row: &Row, look: &Look) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
    let clipped = if row.clipped { "+" } else { "" };
    let mut line = format!(
        "now {}   peak {}{clipped}   limit {}",
        number(row.now),
        number(row.peak),
        number(look.limit)
    );
    if let Some(per_s) = row.per_s {
        line.push_str(&format!("   growth {}", growth(per_s)));
    }
    if let Some(seconds) = row.full_in_s {
        match duration(seconds).as_str() {
            "full" => line.push_str("   full"),
            time => line.push_str(&format!("   full in {time}")),
        }
    }
    line
}

/// The counts that the looks found, and the limit where it is in sight.
fn draw_curve(row: &Row, limit: Option<u64>, area: Rect, page: &mut Canvas<'_>) {
    let points: Vec<(f64, f64)> = row.history.iter().map(|(at, count)| (*at, *count as f64)).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let (start, end) = (first.0, last.0.max(first.0 + 1.0));
    let largest = points.iter().map(|point| point.1).fold(1.0, f64::max);
    let limit = limit.map(|limit| limit as f64).filter(|limit| largest * 3.0 >= *limit);
    let top = limit.map_or(largest * 1.2, |limit| limit.max(largest) * 1.05);
    let line: Vec<(f64, f64)> = limit.map(|limit| vec![(start, limit), (end, limit)]).unwrap_or_default();
    let curve = |data, colour| {
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(colour))
            .data(data)
    };
    let sets = vec![curve(line.as_slice(), Color::Red), curve(points.as_slice(), Color::Cyan)];
    let labels = |texts: [String; 2]| texts.map(Line::from).to_vec();
    let ago = format!("{} ago", duration(end - start).replace("full", "0 s"));
    Chart::new(sets)
        .x_axis(Axis::default().bounds([start, end]).labels(labels([ago, "now".into()])))
        .y_axis(Axis::default().bounds([0.0, top]).labels(labels(["0".into(), grouped(top as u64)])))
        .render(area, page.buffer);
}

/// From where its VMAs came, a line a place.
fn makers(row: &Row, width: usize) -> Vec<String> {
    let Some(makers) = row.makers.as_ref().filter(|makers| !makers.rows.is_empty()) else {
        return Vec::new();
    };
    let head = |count: &str, share: &str, call: &str| format!("{count:>9} {share:>7}  {call:<9} ");
    let mut lines = vec![shortened(&(head("AT PEAK", "SHARE", "CALL") + "WHERE (innermost first)"), width)];
    for (count, share, call, place) in &makers.rows {
        let place = place.join(" < ");
        lines.extend(wrapped(&head(&grouped(*count), share, call), INDENT, &place, width));
    }
    for note in &makers.notes {
        lines.extend(wrapped("  ", "  ", note, width));
    }
    lines.push(String::new());
    lines
}

fn refusals(row: &Row, seen: bool, width: usize) -> Vec<String> {
    if row.failures.is_empty() {
        return vec![
            if seen { "No memory call of it was refused." } else { "Refused calls are not seen." }.into(),
        ];
    }
    let mut lines = Vec::new();
    for failure in &row.failures {
        let outcome =
            if failure.outcome == crate::model::report::Outcome::Recovered { ", recovered" } else { "" };
        lines.push(format!(
            "{} x {} {}, cause {}{}{outcome}",
            grouped(failure.count),
            clean(&failure.syscall),
            clean(&failure.errno),
            failure.cause.name(),
            if failure.certain { "" } else { " (not certain)" }
        ));
        lines.extend(wrapped("  ", "  ", &clean(&failure.sentence), width));
        if let Some(cure) = &failure.cure {
            lines.extend(wrapped("  Cure: ", "  ", &clean(cure), width));
        }
    }
    lines
}
