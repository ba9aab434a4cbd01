//! The flight recorder: keeps the last stretch of a session in memory, and writes it down as a recording when something
//! happens. Memory, number and size of files are bounded; what cannot be written costs the session nothing.

mod kept;
mod triggers;
mod writing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::kept::Kept;
use self::triggers::Triggers;
use self::writing::Desk;
use super::Sink;
use crate::domain::audit::Audit;
use crate::model::event::Event;
use crate::model::session::{Header, Stretch};
use crate::os::clock::now_ns;
use crate::os::flight_folder::FlightFolder;
use crate::source::recording::format::{Kind, MAGIC, MOST_PLAIN, VERSION};
use crate::source::recording::packed::Packer;
use crate::source::recording::reader::of_frame;
use crate::source::recording::writer::framed;
use crate::text::MESSAGES;

/// Plain bytes at which a frame is closed.
const FRAME: usize = 64 << 10;
/// A frame is closed so often at the latest: it leaves the stretch as a whole.
const CLOSE: Duration = Duration::from_secs(1);
/// Between two clearings of what nobody needs any more.
const CLEAR: Duration = Duration::from_secs(5);
/// Most bytes of a stretch that is bounded by time.
const MOST: usize = 64 << 20;

/// How long a stretch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Bytes, as they lie in the file.
    Size(usize),
    /// So long ago it begins.
    Time(Duration),
}

/// Frames of the last stretch, and what has to be known besides.
pub struct Flight {
    header: Header,
    length: Length,
    /// Of the frame that is not closed yet.
    packer: Packer,
    closed: Instant,
    frames: VecDeque<Framed>,
    bytes: usize,
    /// Where the stretch begins, CLOCK_MONOTONIC ns.
    from_ns: u64,
    kept: Kept,
    cleared: Instant,
    triggers: Triggers,
    desk: Desk,
    /// The session has ended.
    over: bool,
}

struct Framed {
    bytes: Arc<[u8]>,
    end_ns: u64,
}

impl Flight {
    /// `at`: shares of the limit, percent, at which it is written.
    pub fn new(header: &Header, length: Length, at: &[f64], folder: FlightFolder) -> Self {
        Self {
            header: header.clone(),
            length,
            packer: Packer::default(),
            closed: Instant::now(),
            frames: VecDeque::new(),
            bytes: 0,
            from_ns: header.start_ns,
            kept: Kept::default(),
            cleared: Instant::now(),
            triggers: Triggers::new(at),
            desk: Desk::new(folder),
            over: false,
        }
    }

    /// Closes the frame that is open.
    fn close(&mut self) {
        self.closed = Instant::now();
        if !self.packer.is_empty() {
            let plain = self.packer.take();
            // What does not fit a frame was left out before.
            if let Ok(frame) = framed(Kind::Packed, &plain) {
                self.bytes += frame.len();
                self.frames.push_back(Framed { bytes: frame.into(), end_ns: now_ns() });
            }
        }
        self.shorten();
    }

    /// Drops what is older than the stretch; what has to be known of it stays.
    fn shorten(&mut self) {
        let (most, oldest_ns) = match self.length {
            Length::Size(most) => (most, 0),
            Length::Time(time) => {
                (MOST, now_ns().saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
            }
        };
        let past = |bytes: usize, first: &Framed| bytes > most || first.end_ns < oldest_ns;
        while self.frames.front().is_some_and(|first| past(self.bytes, first))
            && let Some(frame) = self.frames.pop_front()
        {
            self.bytes -= frame.bytes.len();
            self.from_ns = frame.end_ns;
            let kept = &mut self.kept;
            // It was packed here.
            let _ = of_frame(&frame.bytes, |event| kept.before(event));
        }
        if self.cleared.elapsed() >= CLEAR {
            self.cleared = Instant::now();
            self.kept.clear(self.from_ns);
        }
    }

    /// Hands the stretch to whoever writes it. `last`: what a session's end tells.
    fn write(&mut self, why: String, last: &[Event]) {
        self.close();
        let header = Header { stretch: Some(Stretch { from_ns: self.from_ns, why }), ..self.header.clone() };
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut begin = MAGIC.to_vec();
        begin.push(VERSION);
        let plain = serde_json::to_vec(&header).map_err(std::io::Error::other);
        match plain.and_then(|plain| framed(Kind::Header, &plain)) {
            Ok(frame) => begin.extend(frame),
            Err(e) => {
                return log::warn!(target: MESSAGES, "the flight recorder could not keep a stretch: {e}");
            }
        }
        parts.push(begin.into());
        let (carried, remarks) = (self.kept.carried(), self.kept.remarks());
        parts.extend(frames_of(self.kept.first().chain(&carried)));
        parts.extend(self.frames.iter().map(|frame| Arc::clone(&frame.bytes)));
        let end = [Event::FiguresEnd];
        let end = end.iter().chain(self.kept.end()).filter(|_| last.is_empty());
        parts.extend(frames_of(self.kept.latest().chain(&remarks).chain(last).chain(end)));
        self.desk.write(parts);
    }
}

/// These events in frames.
fn frames_of<'e>(events: impl Iterator<Item = &'e Event>) -> Vec<Arc<[u8]>> {
    let mut packer = Packer::default();
    let mut frames: Vec<Arc<[u8]>> = Vec::new();
    let mut close = |packer: &mut Packer| {
        if !packer.is_empty() {
            let plain = packer.take();
            frames.extend(framed(Kind::Packed, &plain).ok().map(Into::into));
        }
    };
    for event in events {
        // Longer ones are in no recording.
        let _ = packer.push(event, MOST_PLAIN / 2);
        if packer.len() >= FRAME {
            close(&mut packer);
        }
    }
    close(&mut packer);
    frames
}

impl Sink for Flight {
    fn event(&mut self, event: &Event, audit: &Audit) {
        self.triggers.take(event, audit);
        if !self.kept.take(event) {
            let _ = self.packer.push(event, MOST_PLAIN / 2);
            if self.packer.len() >= FRAME {
                self.close();
            }
        }
        if matches!(event, Event::End(_)) && !self.over {
            self.over = true;
            // Its last refusals were told after the last turn.
            if let Some(why) = self.triggers.left() {
                self.write(why, &[]);
            }
            self.desk.finish();
        }
    }

    fn turn(&mut self, _: &Audit, _: bool) {
        if self.closed.elapsed() >= CLOSE {
            self.close();
        }
        self.desk.turn();
    }

    fn checkpoints(&self) -> Option<Duration> {
        Some(CLOSE)
    }

    fn keeps(&self) -> bool {
        true
    }

    fn due(&self) -> bool {
        self.triggers.due() && self.desk.is_free()
    }

    fn keep(&mut self, asked: bool, last: &[Event]) {
        if let Some(why) = self.triggers.why(asked) {
            self.write(why, last);
        }
    }

    fn complaint(&self) -> Option<String> {
        self.desk.complaint()
    }
}

#[cfg(test)]
mod tests;
