//! Events on their way into frames of a recording.

use std::io::{self, Write as _};

use flate2::{Compression, write::ZlibEncoder};

use super::format::{Head, Kind, MOST_PLAIN};
use super::packed::Packer;
use crate::model::event::Event;

/// The frame that is open.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    packer: Packer,
    too_long: u64,
}

impl Framer {
    /// Adds an event; gives the frame back when it is full. Errors: the event is none that can be packed.
    pub fn push(&mut self, event: &Event) -> io::Result<Option<Vec<u8>>> {
        if !self.packer.push(event, MOST_PLAIN / 2).map_err(io::Error::other)? {
            self.too_long += 1;
        }
        if self.packer.is_full() { self.close() } else { Ok(None) }
    }

    /// Closes the frame; `None`: it is empty.
    pub fn close(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.packer.is_empty() {
            return Ok(None);
        }
        framed(Kind::Packed, &self.packer.take()).map(Some)
    }

    /// Events that were left out because they were longer than a frame.
    pub fn too_long(&self) -> u64 {
        self.too_long
    }
}

/// These events in frames. Errors as for [`Framer::push`].
pub(crate) fn frames_of<'e>(events: impl Iterator<Item = &'e Event>) -> io::Result<Vec<Vec<u8>>> {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    for event in events {
        frames.extend(framer.push(event)?);
    }
    frames.extend(framer.close()?);
    Ok(frames)
}

/// A whole frame of these plain bytes. Error: there are too many.
pub(crate) fn framed(kind: Kind, plain: &[u8]) -> io::Result<Vec<u8>> {
    if plain.len() > MOST_PLAIN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than a frame"));
    }
    let mut zlib = ZlibEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    zlib.write_all(plain)?;
    let stored = zlib.finish()?;
    let mut whole = Head::of(kind, plain.len(), &stored).bytes().to_vec();
    whole.extend_from_slice(&stored);
    Ok(whole)
}
