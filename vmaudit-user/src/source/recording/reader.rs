//! Reads a recording. Its bytes may come from anybody: lengths are checked before memory is taken, a frame counts only
//! with its checksum, and nothing is read behind the first one that is not whole.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use flate2::read::ZlibDecoder;

use super::format::{self, HEAD, Head, Kind, MAGIC, MOST_PLAIN, MOST_STORED, VERSION};
use super::packed;
use crate::model::event::{Cut, Event, ProcessId};
use crate::model::session::Header;
use crate::source::Source;

/// Why a file is no recording that can be read.
#[derive(Debug)]
pub enum ReadError {
    /// It does not begin as recordings do.
    NotOne,
    /// A newer version of vmaudit wrote it.
    Newer(u8),
    /// Its header is damaged or missing.
    Header,
    /// The file cannot be read.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOne => write!(f, "it is no recording of vmaudit"),
            Self::Newer(version) => write!(
                f,
                "a newer vmaudit wrote it (format {version}; this one reads up to {VERSION}): read it with that one"
            ),
            Self::Header => write!(f, "its header is damaged or cut off"),
            Self::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// An open recording.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    header: Header,
    /// Bytes read and whole.
    whole: u64,
    cut: Option<Cut>,
    /// An event said that the session was over: it is the last one.
    ended: bool,
    /// Frames of a kind that this version does not know.
    unknown: u64,
    /// Why the file could not be read on.
    failed: Option<io::Error>,
    /// Bytes of text in the events that name something, and how many may be read.
    names: usize,
    most_names: usize,
    /// Plain bytes of frames of events.
    told: u64,
}

/// An audit keeps the names that it is told: a file of some KB can tell gigabytes of them, a session of nine million
/// processes has as many bytes.
const MOST_NAMES: usize = 512 << 20;

impl<R: Read> Reader<R> {
    /// Reads the header. Errors: see [`ReadError`].
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let mut magic = [0; MAGIC.len() + 1];
        if !read_all(&mut from, &mut magic)? || magic[..MAGIC.len()] != MAGIC {
            return Err(ReadError::NotOne);
        }
        match magic[MAGIC.len()] {
            0 => return Err(ReadError::NotOne),
            newer if newer > VERSION => return Err(ReadError::Newer(newer)),
            _ => {}
        }
        let mut whole = magic.len() as u64;
        let (kind, plain) =
            frame(&mut from, &mut whole)?.map_err(|_| ReadError::Header)?.ok_or(ReadError::Header)?;
        if kind != Kind::Header as u8 {
            return Err(ReadError::Header);
        }
        let mut header: Header = serde_json::from_slice(&plain).map_err(|_| ReadError::Header)?;
        header.host.cut_name();
        Ok(Self {
            from,
            header,
            whole,
            cut: None,
            ended: false,
            unknown: 0,
            failed: None,
            names: 0,
            most_names: MOST_NAMES,
            told: 0,
        })
    }

    /// The session's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Plain bytes of the events read so far, changes of the count left out.
    pub fn told_bytes(&self) -> u64 {
        self.told
    }

    /// Reads no further, because what was told takes too much memory: the recording is cut behind the last frame. One that
    /// has told the end of its session has no more to tell.
    pub fn stop(&mut self, sink: &mut dyn FnMut(Event)) {
        if self.cut.is_none() && !self.ended {
            let cut = Cut { too_much: true, ..Cut::at(self.whole) };
            self.cut = Some(cut);
            sink(Event::Cut(cut));
        }
    }

    /// Gives the events of the next frame to `sink`; `false` when there are no more. A recording that ends before its
    /// session did ends with [`Event::Cut`]. Errors: the file cannot be read.
    pub fn next_frame(&mut self, sink: &mut dyn FnMut(Event)) -> io::Result<bool> {
        if self.cut.is_some() {
            return Ok(false);
        }
        let more = self.read_frame(sink)?;
        if let Some(cut) = self.cut {
            sink(Event::Cut(cut));
        }
        Ok(more)
    }

    fn read_frame(&mut self, sink: &mut dyn FnMut(Event)) -> io::Result<bool> {
        let whole = self.whole;
        let (kind, plain) = match frame(&mut self.from, &mut self.whole)? {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if !self.ended {
                    self.cut = Some(Cut::at(whole));
                }
                return Ok(false);
            }
            Err(broken) => {
                self.cut = Some(Cut { damaged: broken == Broken::Damaged, ..Cut::at(whole) });
                return Ok(false);
            }
        };
        if kind != Kind::Changes as u8 {
            self.told = self.told.saturating_add(plain.len() as u64);
        }
        let (ended, names, most) = (&mut self.ended, &mut self.names, self.most_names);
        let mut out_of_place = false;
        let mut one = |event: Event, text: usize| {
            // Behind the end nothing happens, and only a reader tells of a cut.
            out_of_place |= *ended || matches!(event, Event::Cut(_));
            if out_of_place {
                return;
            }
            if names_something(&event) {
                *names = names.saturating_add(text);
            }
            if *names <= most {
                *ended = matches!(event, Event::End(_));
                sink(event);
            }
        };
        let read = match kind {
            kind if kind == Kind::Packed as u8 => packed::values(&plain, one),
            kind if kind == Kind::Events as u8 => events(&plain, &mut one),
            kind if kind == Kind::Changes as u8 => {
                format::changes(&plain, |change| sink(Event::Change(change)))
            }
            _ => {
                self.unknown += 1;
                Some(())
            }
        };
        // The checksum is right: somebody wrote it so.
        if read.is_none() || out_of_place {
            self.cut = Some(Cut { damaged: true, ..Cut::at(whole) });
            return Ok(false);
        }
        if self.names > self.most_names {
            self.cut = Some(Cut { too_many_names: true, ..Cut::at(whole) });
            return Ok(false);
        }
        Ok(true)
    }

    /// Where the recording ends before its session did; `None` when it is whole. To be asked when there are no more
    /// frames.
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Why the file could not be read to its end, if it could not.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    /// Frames of a kind that this version does not know.
    pub fn unknown_frames(&self) -> u64 {
        self.unknown
    }
}

impl<R: Read> Source for Reader<R> {
    fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn drain(&mut self, _: usize, sink: &mut dyn FnMut(Event)) -> bool {
        match self.next_frame(sink) {
            Ok(more) => more,
            Err(e) => {
                self.failed.get_or_insert(e);
                false
            }
        }
    }

    fn tick(&mut self, _: &mut dyn FnMut(Event)) -> Duration {
        Duration::MAX
    }

    fn living(&mut self) -> usize {
        0
    }

    fn living_processes(&mut self) -> HashSet<ProcessId> {
        HashSet::new()
    }

    fn lives(&self, _: u64) -> bool {
        false
    }

    fn awaited(&mut self, _: &mut dyn FnMut(Event)) -> HashSet<ProcessId> {
        HashSet::new()
    }

    fn finish(&mut self, _: &mut dyn FnMut(Event)) -> u64 {
        0
    }
}

/// The events of one whole frame that this program wrote.
pub(crate) fn of_frame(frame: &[u8], mut sink: impl FnMut(Event)) -> Option<()> {
    let (_, plain) = self::frame(&mut &*frame, &mut 0).ok()?.ok()??;
    packed::values(&plain, |event, _| sink(event))
}

fn events(plain: &[u8], sink: &mut dyn FnMut(Event, usize)) -> Option<()> {
    for line in plain.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        sink(serde_json::from_slice(line).ok()?, line.len());
    }
    Some(())
}

/// Whether an audit may keep text of it beyond what is bounded there.
fn names_something(event: &Event) -> bool {
    !matches!(
        event,
        Event::Mm(_)
            | Event::Interval(_)
            | Event::Sample(_)
            | Event::Change(_)
            | Event::Refused(_)
            | Event::Credit(_)
            | Event::Gone(_)
            | Event::StackPiece(_)
            | Event::Lost(_)
    )
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// The file ends in it.
    Short,
    /// Its bytes are not what was written.
    Damaged,
}

type Frame = Option<(u8, Vec<u8>)>;

/// The next frame, plain; `None` at the end of the file. `whole` counts the bytes of whole frames.
fn frame(from: &mut impl Read, whole: &mut u64) -> io::Result<Result<Frame, Broken>> {
    let mut bytes = [0; HEAD];
    match read_some(from, &mut bytes)? {
        0 => return Ok(Ok(None)),
        HEAD => {}
        _ => return Ok(Err(Broken::Short)),
    }
    let head = Head::read(&bytes);
    let (plain, stored) = (head.plain as usize, head.stored as usize);
    if plain > MOST_PLAIN || stored > MOST_STORED {
        return Ok(Err(Broken::Damaged));
    }
    let mut packed = vec![0; stored];
    if !read_all(from, &mut packed)? {
        return Ok(Err(Broken::Short));
    }
    if head.checksum(&packed) != head.crc {
        return Ok(Err(Broken::Damaged));
    }
    let mut unpacked = Vec::with_capacity(plain);
    // One byte more than said would show.
    let unzipped = ZlibDecoder::new(packed.as_slice()).take(plain as u64 + 1).read_to_end(&mut unpacked);
    if unzipped.is_err() || unpacked.len() != plain {
        return Ok(Err(Broken::Damaged));
    }
    *whole += (HEAD + stored) as u64;
    Ok(Ok(Some((head.kind, unpacked))))
}

/// `false`: the file ends before the buffer is full.
fn read_all(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    Ok(read_some(from, buffer)? == buffer.len())
}

/// How many bytes there were.
fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
