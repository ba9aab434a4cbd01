//! One look at all processes, with what the looks before it add.

use std::collections::{HashMap, VecDeque};

use crate::model::report::{Cause, Failure, Outcome, Process};
use crate::output::makers::{self as maker, PLACES, rows};
use crate::text::{clean, grouped, total};

/// A process: numbers come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Which {
    /// Its number.
    pub pid: u32,
    /// When it was first seen, microseconds since the session's start.
    pub started_us: u64,
}

/// A process as it stands.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub which: Which,
    /// Its parent.
    pub ppid: Option<u32>,
    /// Name.
    pub comm: String,
    /// Executable.
    pub exe: Option<String>,
    /// Owner.
    pub user: Option<String>,
    /// systemd unit, else container.
    pub unit: Option<String>,
    /// VMAs.
    pub now: Option<u64>,
    /// Most VMAs.
    pub peak: Option<u64>,
    /// The limit stopped it.
    pub clipped: bool,
    /// The peak is exact.
    pub exact: bool,
    /// Its refused calls that were no questions, and those that vm.max_map_count refused.
    pub refused: u64,
    /// Of these the ones that vm.max_map_count refused.
    pub refused_at_limit: u64,
    /// The groups of refused calls.
    pub failures: Vec<Failure>,
    /// Growth over the last [`RATE_S`] seconds, VMAs a second; `None` before there are two looks.
    pub per_s: Option<f64>,
    /// Until the limit is reached, where the growth is steady.
    pub full_in_s: Option<f64>,
    /// Who made the VMAs, where that is looked at: what they are, then sentences about them.
    pub makers: Option<Makers>,
    /// When it ended, as a time of day, and how; `None`: it lives.
    pub ended: Option<String>,
    /// How the count went, by the peaks of intervals, else by the looks: seconds since the session's start, VMAs.
    pub history: Vec<(f64, u64)>,
}

impl Look {
    /// It is shown, and has ended.
    pub(super) fn has_ended(&self, which: Which) -> bool {
        self.rows.iter().any(|row| row.which == which && row.ended.is_some())
    }
}

/// Who made the VMAs of a process.
#[derive(Clone, Debug, Default)]
pub struct Makers {
    /// VMAs at the peak, their share, the call, the functions from the innermost on.
    pub rows: Vec<(u64, String, String, Vec<String>)>,
    /// Why something is not told.
    pub notes: Vec<String>,
}

impl Makers {
    /// As its row in a report has them.
    pub fn of(process: &Process) -> Self {
        let rows = rows(process, PLACES);
        let mut notes: Vec<String> = Vec::new();
        for note in rows.iter().flat_map(|row| &row.notes) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        let shown = |row: &maker::Row<'_>| (row.count, row.share(), clean(row.call()), row.place(NAME));
        Self { rows: rows.iter().map(shown).collect(), notes }
    }
}

/// Columns of a function's name.
const NAME: usize = 48;

/// All processes at one time.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The time of day.
    pub clock: String,
    /// vm.max_map_count.
    pub limit: Option<u64>,
    /// Refused calls are seen.
    pub sees_refusals: bool,
    /// What the figures rest on: `exact since 22:04:10 · nothing lost`.
    pub rests_on: String,
    /// Living processes, and some that ended a while ago.
    pub rows: Vec<Row>,
}

/// Growth is taken over so many seconds.
pub const RATE_S: f64 = 10.0;
/// Looks kept of a process.
const LOOKS: usize = 240;
/// Processes of which looks are kept.
const PROCESSES: usize = 4096;

/// The counts that looks have found.
#[derive(Debug, Default)]
pub struct History {
    of: HashMap<Which, VecDeque<(f64, u64)>>,
}

impl History {
    /// A row with what was seen of it before; `at_s`: seconds since the session's start.
    pub fn row(&mut self, process: &Process, refused: &[(Outcome, Failure)], at_s: f64) -> Row {
        let which =
            Which { pid: process.pid, started_us: (process.started_s.unwrap_or(0.0) * 1e6).max(0.0) as u64 };
        let now = process.map_count.last;
        if let Some(now) = now
            && (self.of.len() < PROCESSES || self.of.contains_key(&which))
        {
            let looks = self.of.entry(which).or_default();
            looks.push_back((at_s, now));
            if looks.len() > LOOKS {
                thin(looks);
            }
        }
        let looks: Vec<(f64, u64)> = self.of.get(&which).into_iter().flatten().copied().collect();
        let per_s = rate(&looks);
        // Peaks of intervals see what looks do not.
        let history = match process.series.as_ref().filter(|series| series.ends_s.len() > 1) {
            Some(series) => series.ends_s.iter().copied().zip(series.peak.iter().copied()).collect(),
            None => looks,
        };
        let failures: Vec<Failure> = refused
            .iter()
            .filter(|(outcome, _)| *outcome != Outcome::Ordinary)
            .map(|(_, failure)| failure.clone())
            .collect();
        let at_limit = failures.iter().filter(|it| it.cause == Cause::MaxMapCount);
        Row {
            which,
            ppid: process.ppid,
            comm: process.comm.clone(),
            exe: process.exe.clone(),
            user: process.user.clone().or_else(|| process.uid.map(|uid| uid.to_string())),
            unit: process.unit.clone().or_else(|| process.container.clone()),
            now,
            peak: process.map_count.peak,
            clipped: process.map_count.clipped,
            exact: process.map_count.exact,
            refused: total(failures.iter().map(|it| it.count)),
            refused_at_limit: total(at_limit.map(|it| it.count)),
            per_s,
            full_in_s: process
                .growth
                .filter(|growth| growth.foresees())
                .and_then(|growth| growth.reaches_limit_in_s),
            makers: None,
            ended: None,
            history,
            failures,
        }
    }

    /// Forgets all but these.
    pub fn keep(&mut self, rows: &[Row]) {
        let living: std::collections::HashSet<Which> = rows.iter().map(|row| row.which).collect();
        self.of.retain(|which, _| living.contains(which));
    }
}

/// Every second one of the older half goes: the curve keeps its whole length.
fn thin(looks: &mut VecDeque<(f64, u64)>) {
    let half = looks.len() / 2;
    let mut index = 0;
    looks.retain(|_| {
        index += 1;
        index > half || index % 2 == 1
    });
}

fn rate(history: &[(f64, u64)]) -> Option<f64> {
    let (end, now) = *history.last()?;
    let (start, before) = *history.iter().find(|(at, _)| end - at <= RATE_S)?;
    (end > start).then(|| (now as f64 - before as f64) / (end - start))
}

/// `+8,870/s`, `+41/min`; a dot where nothing moves.
pub fn growth(per_s: f64) -> String {
    let sign = if per_s < 0.0 { "-" } else { "+" };
    let size = per_s.abs();
    match () {
        () if size >= 1e9 => format!("{sign}>1g/s"),
        () if size >= 1e6 => format!("{sign}{:.0}m/s", size / 1e6),
        () if size >= 9999.5 => format!("{sign}{:.0}k/s", size / 1e3),
        () if size >= 0.95 => format!("{sign}{}/s", grouped(size.round() as u64)),
        () if size * 60.0 >= 0.95 => format!("{sign}{}/min", grouped((size * 60.0).round() as u64)),
        () => "·".into(),
    }
}

/// `4 s`, `12 min`, `19 h`, `3 d`.
pub fn duration(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 0.5 => "full".into(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s if s < 86_400.0 * 1000.0 => format!("{:.0} d", s / 86_400.0),
        _ => "> 1000 d".into(),
    }
}
