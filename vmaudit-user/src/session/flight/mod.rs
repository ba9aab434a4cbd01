//! The flight recorder: keeps the last stretch of a session in memory, and writes it down as a recording when something
//! happens. Memory, number and size of files are bounded; what cannot be written costs the session nothing.

mod gone;
mod kept;
mod lives;
mod names;
mod remarks;
mod triggers;
mod writing;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::kept::Kept;
use self::triggers::{Triggers, Why};
use self::writing::Desk;
use super::Sink;
use crate::domain::audit::Audit;
use crate::model::event::Event;
use crate::model::session::{Header, Stretch};
use crate::os::clock::now_ns;
use crate::os::flight_folder::FlightFolder;
use crate::source::recording::format::{Kind, MAGIC, VERSION};
use crate::source::recording::framer::{Framer, framed, frames_of};
use crate::source::recording::reader::of_frame;
use crate::text::MESSAGES;

/// A frame is closed so often at the latest: it leaves the stretch as a whole.
const CLOSE: Duration = Duration::from_secs(1);
/// Between two clearings of what nobody needs any more.
const CLEAR: Duration = Duration::from_secs(5);
/// Most bytes of a stretch that is bounded by time, and most that one of a size has beyond it while what happened in it waits
/// for its file.
const MOST: usize = 64 << 20;
/// Longest size of a stretch: with what may wait and what is told besides it fits the folder.
pub const LONGEST: usize = 128_000_000;

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
    framer: Framer,
    closed: Instant,
    frames: VecDeque<Framed>,
    bytes: usize,
    /// Where the stretch begins, CLOCK_MONOTONIC ns.
    from_ns: u64,
    kept: Kept,
    cleared: Instant,
    triggers: Triggers,
    desk: Desk,
    /// Why events were left out that no frame could be made of: the first time, and how often.
    left_out: Option<(String, u64)>,
    /// What is being written happened then, CLOCK_MONOTONIC ns: it holds the stretch as what waits does.
    held_ns: Option<u64>,
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
            framer: Framer::default(),
            closed: Instant::now(),
            frames: VecDeque::new(),
            bytes: 0,
            from_ns: header.start_ns,
            kept: Kept::default(),
            cleared: Instant::now(),
            triggers: Triggers::new(at),
            desk: Desk::new(folder),
            left_out: None,
            held_ns: None,
            over: false,
        }
    }

    /// Closes the frame that is open.
    fn close(&mut self) {
        let frame = self.framer.close();
        self.closed(frame);
    }

    fn closed(&mut self, frame: io::Result<Option<Vec<u8>>>) {
        match frame {
            Ok(Some(frame)) => {
                self.bytes += frame.len();
                self.frames.push_back(Framed { bytes: frame.into(), end_ns: now_ns() });
            }
            Ok(None) => {}
            Err(e) => self.left_out.get_or_insert_with(|| (e.to_string(), 0)).1 += 1,
        }
        self.closed = Instant::now();
        self.shorten();
    }

    /// Where the stretch may begin at the earliest, bytes and CLOCK_MONOTONIC ns. What happened and waits for its file holds it.
    fn bounds(&self) -> (usize, u64) {
        let waits = self.triggers.waits_since().into_iter().chain(self.held_ns).min();
        match self.length {
            Length::Size(most) => (most + waits.map_or(0, |_| most.min(MOST)), 0),
            Length::Time(time) => {
                let end_ns = waits.unwrap_or_else(now_ns);
                (MOST, end_ns.saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Drops what is older than the stretch; what has to be known of it stays.
    fn shorten(&mut self) {
        let (most, oldest_ns) = self.bounds();
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
    fn write(&mut self, why: Why, last: &[Event]) {
        self.held_ns = why.at_ns;
        self.close();
        self.held_ns = None;
        self.kept.clear(self.from_ns);
        let why = if why.at_ns.is_some_and(|at_ns| at_ns < self.from_ns) {
            // It may be told again.
            self.triggers.untold(&why, self.from_ns);
            format!("{}, before this stretch begins: it had no room to wait for its file", why.words)
        } else {
            why.words
        };
        match self.parts(why, last) {
            Ok(parts) => self.desk.write(parts),
            Err(e) => log::warn!(target: MESSAGES, "the flight recorder could not keep a stretch: {e}"),
        }
    }

    fn parts(&self, why: String, last: &[Event]) -> io::Result<Vec<Arc<[u8]>>> {
        let stretch = Stretch { from_ns: self.from_ns, why, gone: self.kept.gone() };
        let header = Header { stretch: Some(stretch), ..self.header.clone() };
        let mut begin = MAGIC.to_vec();
        begin.push(VERSION);
        begin.extend(framed(Kind::Header, &serde_json::to_vec(&header)?)?);
        let mut parts: Vec<Arc<[u8]>> = vec![begin.into()];
        let mut remarks = self.kept.remarks();
        remarks.extend(self.left_out().map(Event::Note));
        let carried = self.kept.carried();
        parts.extend(frames_of(self.kept.first().chain(&carried))?.into_iter().map(Into::into));
        parts.extend(self.frames.iter().map(|frame| Arc::clone(&frame.bytes)));
        let end = [Event::FiguresEnd];
        let end = end.iter().chain(self.kept.end()).filter(|_| last.is_empty());
        let behind = self.kept.latest().chain(&remarks).chain(last).chain(end);
        parts.extend(frames_of(behind)?.into_iter().map(Into::into));
        Ok(parts)
    }

    /// What it would write of these events, none of which ends the session.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn kept_of(header: &Header, events: Vec<Event>) -> io::Result<Vec<u8>> {
        let folder = FlightFolder::open(&std::env::temp_dir())?;
        let mut flight = Self::new(header, Length::Size(2048), &[50.0], folder);
        let mut audit = Audit::of(header);
        for event in events.into_iter().filter(|event| !matches!(event, Event::End(_))) {
            flight.event(&event, &audit);
            audit.apply(event);
            // Each is a frame of its own, so that most leave the stretch.
            flight.close();
        }
        Ok(flight.parts("asked".into(), &[])?.concat())
    }

    /// What is missing in the stretch.
    fn left_out(&self) -> Option<String> {
        let too_long = self.framer.too_long();
        let (why, errors) = self.left_out.as_ref().map_or(("longer than a frame", 0), |(why, n)| (why, *n));
        let all = too_long + errors;
        let events = || crate::text::count(all, "event", "events");
        (all > 0).then(|| format!("The flight recorder left out {} since the session began: {why}", events()))
    }
}

impl Sink for Flight {
    fn event(&mut self, event: &Event, audit: &Audit) {
        self.triggers.take(event, audit);
        if !self.kept.take(event) {
            match self.framer.push(event) {
                Ok(None) => {}
                full => self.closed(full),
            }
        }
        if matches!(event, Event::End(_)) && !self.over {
            self.over = true;
            // Its last refusals were told after the last turn; an earlier file may still be on its way.
            if let Some(why) = self.triggers.left() {
                self.desk.finish();
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

    fn waits(&self) -> bool {
        self.triggers.waits_since().is_some()
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
