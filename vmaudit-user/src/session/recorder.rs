//! Writes a session's events down as they come. What it cannot write costs the session nothing.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::Sink;
use crate::domain::audit::Audit;
use crate::model::event::Event;
use crate::model::session::Header;
use crate::source::recording::Writer;

/// Between two times at which what waits is written out: so much a sudden end costs at most.
const FLUSH: Duration = Duration::from_secs(1);
/// Between two tellings of figures of the living.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// A recording of the session at work.
pub struct Recorder {
    writer: Writer<Box<dyn Write>>,
    next: Instant,
    /// What the file answered first; nothing is written after it.
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins the file. `most`: bytes beyond which changes of map_count are left out. Errors: what the file answers.
    pub fn new(out: Box<dyn Write>, header: &Header, most: Option<u64>) -> io::Result<Self> {
        Ok(Self { writer: Writer::new(out, header, most)?, next: Instant::now() + FLUSH, failed: None })
    }

    fn note(&mut self, outcome: io::Result<()>) {
        if let Err(e) = outcome {
            self.failed.get_or_insert(e);
        }
    }
}

impl Sink for Recorder {
    fn event(&mut self, event: &Event, _: &Audit) {
        if self.failed.is_none() {
            let outcome = self.writer.event(event);
            self.note(outcome);
        }
        if matches!(event, Event::End(_)) && self.failed.is_none() {
            let outcome = self.writer.flush();
            self.note(outcome);
        }
    }

    fn turn(&mut self, _: &Audit, _: bool) {
        if self.failed.is_none() && Instant::now() >= self.next {
            self.next = Instant::now() + FLUSH;
            let outcome = self.writer.flush();
            self.note(outcome);
        }
    }

    /// What it has may be all that is left when vmaudit is killed.
    fn checkpoints(&self) -> Option<Duration> {
        Some(CHECKPOINT)
    }

    fn complaint(&self) -> Option<String> {
        let (left_out, too_long) = (self.writer.left_out(), self.writer.too_long());
        match &self.failed {
            Some(e) => Some(format!("the recording ends before the session does: {e}")),
            None if left_out > 0 => Some(format!(
                "the recording reached --record-max: {left_out} changes of map_count are not in it, all figures are"
            )),
            None if too_long > 0 => Some(format!("{too_long} events were too long for the recording")),
            None => None,
        }
    }
}
