//! The table of processes.

use std::cmp::Ordering;

use ratatui::style::{Color, Style};

use super::look::{Row, duration, growth};
use crate::output::text::page::column;
use crate::text::grouped;

/// A column, which is also an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Pid,
    Name,
    User,
    Unit,
    Vmas,
    Peak,
    Share,
    Growth,
    FullIn,
    Refused,
}

use Column::{FullIn, Growth, Name, Peak, Pid, Refused, Share, Unit, User, Vmas};

/// Orders, as `s` goes through them.
const ORDERS: [Column; 7] = [Vmas, Peak, Growth, FullIn, Refused, Name, Pid];

impl Column {
    pub fn next(self) -> Self {
        let at = ORDERS.iter().position(|order| *order == self).unwrap_or(0);
        ORDERS.get((at + 1) % ORDERS.len()).copied().unwrap_or(Vmas)
    }

    pub fn before(self) -> Self {
        let at = ORDERS.iter().position(|order| *order == self).unwrap_or(0);
        ORDERS.get((at + ORDERS.len() - 1) % ORDERS.len()).copied().unwrap_or(Vmas)
    }

    /// The most remarkable first.
    pub fn compare(self, a: &Row, b: &Row) -> Ordering {
        let float = |a: Option<f64>, b: Option<f64>| b.unwrap_or(f64::MIN).total_cmp(&a.unwrap_or(f64::MIN));
        match self {
            Pid => Ordering::Equal,
            Name => a.comm.cmp(&b.comm),
            User => a.user.cmp(&b.user),
            Unit => a.unit.cmp(&b.unit),
            // One that has ended stands where it stood.
            Vmas | Share => held(b).cmp(&held(a)),
            Peak => b.peak.cmp(&a.peak),
            Growth => float(a.per_s, b.per_s),
            FullIn => float(b.full_in_s.or(Some(f64::MAX)), a.full_in_s.or(Some(f64::MAX))),
            Refused => b.refused.cmp(&a.refused),
        }
    }

    /// Title, width, and whether it stands at the right.
    fn looks(self) -> (&'static str, usize, bool) {
        match self {
            Pid => ("PID", 7, true),
            Name => ("NAME", 13, false),
            User => ("USER", 9, false),
            Unit => ("UNIT", 16, false),
            Vmas => ("VMAs", 9, true),
            Peak => ("PEAK", 10, true),
            Share => ("% LIM", 5, true),
            Growth => ("GROWTH", 8, true),
            FullIn => ("FULL IN", 7, true),
            Refused => ("REFUSED", 7, true),
        }
    }

    /// As many as so many columns hold, the most important kept.
    pub fn that_fit(width: u16) -> Vec<Self> {
        const LEAST_IMPORTANT_FIRST: [Column; 9] =
            [User, Peak, FullIn, Unit, Growth, Refused, Pid, Share, Name];
        let mut columns = vec![Pid, Name, User, Unit, Vmas, Peak, Share, Growth, FullIn, Refused];
        for drop in LEAST_IMPORTANT_FIRST {
            let needed: usize = columns.iter().map(|it| it.looks().1 + 1).sum();
            if needed <= usize::from(width) {
                break;
            }
            columns.retain(|it| *it != drop);
        }
        columns
    }

    fn cell(self, row: &Row, depth: usize, limit: Option<u64>) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
        match self {
            Pid => row.which.pid.to_string(),
            Name => {
                let ended = if row.ended.is_some() { ENDED } else { "" };
                format!("{}{ended}{}", " ".repeat(depth.min(8)), row.comm)
            }
            User => row.user.clone().unwrap_or_default(),
            Unit => row.unit.clone().unwrap_or_default(),
            Vmas => number(row.now),
            Peak => {
                let before = if row.exact || row.peak.is_none() { "" } else { "~" };
                format!("{before}{}{}", number(row.peak), if row.clipped { "+" } else { "" })
            }
            Share => match (row.now, limit) {
                (Some(now), Some(limit @ 1..)) => format!("{:.1}", now as f64 * 100.0 / limit as f64),
                _ => "-".into(),
            },
            Growth | FullIn if row.ended.is_some() => if self == FullIn { "ended" } else { "" }.to_owned(),
            Growth => row.per_s.map_or_else(|| "new".into(), growth),
            FullIn => row.full_in_s.map(duration).unwrap_or_default(),
            Refused if row.refused == 0 => "·".into(),
            Refused if row.refused >= 1_000_000 => format!("{:.1}m", row.refused as f64 / 1e6),
            Refused => grouped(row.refused),
        }
    }
}

/// Before the name of a process that has ended.
const ENDED: &str = "\u{d7} ";

fn held(row: &Row) -> Option<u64> {
    if row.ended.is_some() { row.peak } else { row.now }
}

fn joined(columns: &[Column], cell: impl Fn(Column) -> String) -> String {
    let mut line = String::new();
    for one in columns {
        let (_, width, right) = one.looks();
        let text = column(&cell(*one), width);
        line.push(' ');
        if right {
            let shown = text.trim_end();
            line.push_str(&" ".repeat(text.len() - shown.len()));
            line.push_str(shown);
        } else {
            line.push_str(&text);
        }
    }
    line
}

/// The titles, with a mark at the order.
pub fn titles(columns: &[Column], sort: Column, reversed: bool) -> String {
    joined(columns, |one| {
        let mark = match one == sort {
            true if reversed => "↑",
            true => "↓",
            false => "",
        };
        format!("{}{mark}", one.looks().0)
    })
}

/// One row.
pub fn lines(row: &Row, depth: usize, columns: &[Column], chosen: bool, limit: Option<u64>) -> String {
    let line = joined(columns, |one| one.cell(row, depth, limit));
    if chosen { line.replacen(' ', "▸", 1) } else { line }
}

/// Its colour.
pub fn style(row: &Row, limit: Option<u64>) -> Style {
    let share = match (row.now, limit) {
        (Some(now), Some(limit @ 1..)) => now as f64 * 100.0 / limit as f64,
        _ => 0.0,
    };
    match () {
        () if share >= 90.0 || row.refused_at_limit > 0 => Style::new().fg(Color::Red),
        () if share >= 50.0 || row.full_in_s.is_some_and(|seconds| seconds < 3600.0) => {
            Style::new().fg(Color::Yellow)
        }
        () => Style::new(),
    }
}
