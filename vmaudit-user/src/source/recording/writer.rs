//! Writes a recording as a session goes on. What it cannot write costs the session nothing: it stops, and says so.

use std::io::{self, Write};

use super::format::{Changes, Kind, MAGIC, VERSION};
use super::framer::{Framer, framed};
use crate::model::{event::Event, session::Header};

/// A recording that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    events: Framer,
    changes: Changes,
    /// Bytes written so far.
    written: u64,
    /// Bytes beyond which changes are left out.
    most: Option<u64>,
    /// Changes that were left out.
    left_out: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording with its header. `most`: bytes beyond which changes of map_count are left out; figures go on.
    /// Errors: what `out` answers, and a header longer than a frame.
    pub fn new(mut out: W, header: &Header, most: Option<u64>) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&[VERSION])?;
        let mut writer = Self {
            out,
            events: Framer::default(),
            changes: Changes::default(),
            written: MAGIC.len() as u64 + 1,
            most,
            left_out: 0,
        };
        writer.frame(Kind::Header, &serde_json::to_vec(header)?)?;
        writer.out.flush()?;
        Ok(writer)
    }

    /// Adds one event. Errors: what the file answers; the recording ends before this event's frame then.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            // What the reports need of it is in the names of frames.
            Event::Mapped(_) | Event::StackPiece(_) => return Ok(()),
            Event::Change(change) => {
                if self.most.is_some_and(|most| self.written >= most) {
                    self.left_out += 1;
                    return Ok(());
                }
                self.changes.push(change);
                if self.changes.is_full() {
                    self.flush_changes()?;
                }
                return Ok(());
            }
            _ => {}
        }
        match self.events.push(event)? {
            Some(whole) => self.put(&whole),
            None => Ok(()),
        }
    }

    /// Writes out what waits, so that at most what comes later can be lost. To be called every second or so.
    pub fn flush(&mut self) -> io::Result<()> {
        self.flush_changes()?;
        self.flush_events()?;
        self.out.flush()
    }

    /// Changes of map_count that were left out for the size asked for.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Events that were left out because they were longer than a frame.
    pub fn too_long(&self) -> u64 {
        self.events.too_long()
    }

    /// What it writes to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn flush_changes(&mut self) -> io::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let plain = self.changes.take();
        self.frame(Kind::Changes, &plain)
    }

    fn flush_events(&mut self) -> io::Result<()> {
        match self.events.close()? {
            Some(whole) => self.put(&whole),
            None => Ok(()),
        }
    }

    fn frame(&mut self, kind: Kind, plain: &[u8]) -> io::Result<()> {
        self.put(&framed(kind, plain)?)
    }

    /// In one piece: a frame is there or is not.
    fn put(&mut self, whole: &[u8]) -> io::Result<()> {
        self.out.write_all(whole)?;
        self.written += whole.len() as u64;
        Ok(())
    }
}
