//! The status line of a session on a terminal.

use std::time::{Duration, Instant};

use vmaudit_user::domain::audit::{Audit, Now};
use vmaudit_user::model::event::Event;
use vmaudit_user::os::destination::Destination;
use vmaudit_user::os::status_line::StatusLine;
use vmaudit_user::output::text::page::shortened;
use vmaudit_user::session::Sink;
use vmaudit_user::text::{clean, count, grouped};

/// A shorter session has none.
const AFTER: Duration = Duration::from_secs(3);
/// Between two figures.
const EVERY: Duration = Duration::from_secs(2);
/// Between two looks at the terminal.
const LOOK: Duration = Duration::from_millis(100);

/// Draws it now and then.
pub struct Status {
    line: StatusLine,
    began: Instant,
    looked: Instant,
    drawn: Option<Instant>,
}

impl Status {
    /// `None` where nobody would see it.
    pub fn new() -> Option<Self> {
        let now = Instant::now();
        StatusLine::new().map(|line| Self { line, began: now, looked: now, drawn: None })
    }
}

impl Sink for Status {
    fn event(&mut self, _: &Event, _: &Audit) {}

    fn turn(&mut self, audit: &Audit, over: bool) {
        if over {
            return self.line.clear();
        }
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        self.line.look();
        let due = self.began.elapsed() >= AFTER && self.drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY);
        if due && self.line.is_free() {
            self.drawn = Some(Instant::now());
            let columns = Destination::Stderr.columns().unwrap_or(80).saturating_sub(1);
            self.line.draw(&shortened(&text(&audit.now(), self.began.elapsed()), columns));
        }
    }

    fn stopping(&mut self) {
        self.line.clear();
    }

    fn checkpoints(&self) -> Option<Duration> {
        Some(EVERY)
    }
}

/// `vmaudit 0:12: 61 processes, largest java 41,022 VMAs (62.6 %), 0 calls refused`.
fn text(now: &Now<'_>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let largest = now.largest.map_or(String::new(), |(comm, vmas)| {
        let share = now.limit.filter(|limit| *limit > 0);
        let share =
            share.map_or(String::new(), |limit| format!(" ({:.1} %)", vmas as f64 * 100.0 / limit as f64));
        format!(", largest {} {} VMAs{share}", clean(comm), grouped(vmas))
    });
    let refused =
        now.refused.map_or(String::new(), |refused| format!(", {} refused", count(refused, "call", "calls")));
    let processes = count(now.living, "process", "processes");
    format!("vmaudit {}:{:02}: {processes}{largest}{refused}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_processes_the_largest_and_refusals_and_no_strangers_escapes() {
        let now =
            Now { living: 61, largest: Some(("ja\x1bva", 41_022)), limit: Some(65_530), refused: Some(0) };
        assert_eq!(
            text(&now, Duration::from_secs(72)),
            "vmaudit 1:12: 61 processes, largest ja\\x1bva 41,022 VMAs (62.6 %), 0 calls refused"
        );
        let sampled = Now { living: 0, largest: None, limit: None, refused: None };
        assert_eq!(text(&sampled, Duration::ZERO), "vmaudit 0:00: 0 processes");
    }
}
