//! How a recording lies in its file.
//!
//! [`MAGIC`], then frames. A frame has a head of [`HEAD`] bytes (kind, plain length, stored length, CRC-32 of all that
//! and of the stored bytes; little endian) and stored bytes: zlib of the plain ones. The first frame is the header (one
//! JSON object). Frames of events hold them packed ([`super::packed`]), in version 1 as JSON, one a line; frames of changes
//! hold many changes of map_count as variable-length differences, because these are most of what a long recording holds. A
//! frame holds whole records and needs no frame before it but the header, so any prefix of a file is readable up to its last
//! whole frame.
//!
//! A reader passes over kinds of frames that it does not know, and refuses a newer version.

use vmaudit_common::call::{CALLS, Call};

use super::numbers::{add, difference, read_signed, read_unsigned, signed, unsigned};
use crate::model::event::Change;

/// First bytes of a recording; the line feeds show a file that went through a text mode. The version follows.
pub const MAGIC: [u8; 7] = *b"vma\r\n\x1a\n";
/// Version of the format, the byte behind [`MAGIC`]. 2: packed events.
pub const VERSION: u8 = 2;
/// Bytes of a frame's head.
pub const HEAD: usize = 13;
/// Most plain bytes of a frame.
pub const MOST_PLAIN: usize = 1 << 20;
/// Most stored bytes of a frame: zlib makes incompressible bytes a little longer.
pub const MOST_STORED: usize = MOST_PLAIN + MOST_PLAIN / 1000 + 64;
/// Longest name kept of a changing task, bytes; the kernel's are shorter, but names are made anonymous.
const NAME: usize = 255;
/// Most tasks named in one frame of changes.
const NAMES: usize = 4096;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The header.
    Header = b'H',
    /// Events, one JSON object a line: of version 1.
    Events = b'E',
    /// Events, packed.
    Packed = b'P',
    /// Changes of map_count.
    Changes = b'C',
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// [`Kind`] as a number.
    pub kind: u8,
    /// Plain bytes.
    pub plain: u32,
    /// Stored bytes.
    pub stored: u32,
    /// Of kind, lengths and stored bytes.
    pub crc: u32,
}

impl Head {
    /// The head of a frame of these stored bytes.
    pub fn of(kind: Kind, plain: usize, stored: &[u8]) -> Self {
        let mut head = Self { kind: kind as u8, plain: plain as u32, stored: stored.len() as u32, crc: 0 };
        head.crc = head.checksum(stored);
        head
    }

    /// What [`Head::crc`] has to be.
    pub fn checksum(&self, stored: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.bytes()[..HEAD - 4]);
        crc.update(stored);
        crc.finalize()
    }

    /// As it lies in the file.
    pub fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = self.kind;
        bytes[1..5].copy_from_slice(&self.plain.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.stored.to_le_bytes());
        bytes[9..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Reads it; nothing of it has been checked.
    pub fn read(bytes: &[u8; HEAD]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { kind: bytes[0], plain: word(1), stored: word(5), crc: word(9) }
    }
}

/// Changes on their way into a frame.
#[derive(Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    last: Last,
    names: Vec<String>,
}

/// What the next change is told relative to.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    at_ns: u64,
    generation: u64,
    tgid: u64,
    after: u64,
}

impl Changes {
    /// None was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// No further one can be added: the frame has to go first.
    pub fn is_full(&self) -> bool {
        self.names.len() >= NAMES || self.bytes.len() >= MOST_PLAIN / 4
    }

    /// Adds one.
    pub fn push(&mut self, change: &Change) {
        let Last { at_ns, generation, tgid, after } = self.last;
        signed(&mut self.bytes, difference(change.at_ns, at_ns));
        signed(&mut self.bytes, difference(change.generation, generation));
        signed(&mut self.bytes, difference(u64::from(change.tgid), tgid));
        signed(&mut self.bytes, i64::from(change.tid) - i64::from(change.tgid));
        signed(&mut self.bytes, difference(u64::from(change.before), after));
        signed(&mut self.bytes, i64::from(change.after) - i64::from(change.before));
        self.name(CALLS.get(usize::from(change.call)).map_or("", |call| call.name));
        self.name(&change.comm);
        self.last = Last {
            at_ns: change.at_ns,
            generation: change.generation,
            tgid: change.tgid.into(),
            after: change.after.into(),
        };
    }

    /// A name that was told before by its number, a new one with the next number and its text.
    fn name(&mut self, name: &str) {
        let mut end = name.len().min(NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let name = &name[..end];
        if let Some(at) = self.names.iter().rposition(|known| known == name) {
            unsigned(&mut self.bytes, at as u64);
            return;
        }
        unsigned(&mut self.bytes, self.names.len() as u64);
        unsigned(&mut self.bytes, name.len() as u64);
        self.bytes.extend_from_slice(name.as_bytes());
        self.names.push(name.to_owned());
    }

    /// The plain bytes; the next frame begins anew.
    pub fn take(&mut self) -> Vec<u8> {
        (self.last, self.names) = (Last::default(), Vec::new());
        std::mem::take(&mut self.bytes)
    }
}

/// Reads the changes of a frame; `false` from `sink` ends it. `None`: the bytes are not what a writer writes.
pub fn changes(mut bytes: &[u8], mut sink: impl FnMut(Change)) -> Option<()> {
    let mut last = Last::default();
    let mut names: Vec<String> = Vec::new();
    let from = &mut bytes;
    while !from.is_empty() {
        let at_ns = add(last.at_ns, read_signed(from)?);
        let generation = add(last.generation, read_signed(from)?);
        let tgid = u32::try_from(add(last.tgid, read_signed(from)?)).ok()?;
        let tid = u32::try_from(i64::from(tgid).checked_add(read_signed(from)?)?).ok()?;
        let before = u32::try_from(add(last.after, read_signed(from)?)).ok()?;
        let after = u32::try_from(i64::from(before).checked_add(read_signed(from)?)?).ok()?;
        let call = read_name(from, &mut names)?;
        let call = CALLS.iter().position(|info| info.name == call).and_then(|at| Call::try_from(at).ok())?;
        let comm = read_name(from, &mut names)?.to_owned();
        last = Last { at_ns, generation, tgid: tgid.into(), after: after.into() };
        sink(Change { at_ns, generation, tgid, tid, comm, before, after, call });
    }
    Some(())
}

fn read_name<'n>(from: &mut &[u8], names: &'n mut Vec<String>) -> Option<&'n str> {
    let at = usize::try_from(read_unsigned(from)?).ok()?;
    if at == names.len() {
        let length = usize::try_from(read_unsigned(from)?).ok().filter(|n| *n <= NAME)?;
        let (name, rest) = from.split_at_checked(length)?;
        *from = rest;
        // A change adds two names at most.
        (names.len() < NAMES + 2).then(|| names.push(String::from_utf8_lossy(name).into_owned()))?;
    }
    names.get(at).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: u64) -> Change {
        Change {
            at_ns: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            generation: n / 3,
            tgid: (n % 7) as u32,
            tid: (n % 11) as u32 * 400_000_000,
            comm: ["java", "", "größe", "a name that is longer than the kernel's"][n as usize % 4].into(),
            before: n as u32,
            after: u32::MAX - n as u32,
            call: (n % CALLS.len() as u64) as Call,
        }
    }

    #[test]
    fn changes_are_read_as_they_were_written() {
        let all: Vec<Change> = (0..1000).map(change).collect();
        let mut frame = Changes::default();
        all.iter().for_each(|change| frame.push(change));
        let bytes = frame.take();
        let mut read = Vec::new();
        assert_eq!(changes(&bytes, |change| read.push(change)), Some(()));
        assert_eq!(read, all);
        assert!(frame.is_empty() && frame.names.is_empty(), "the next frame needs nothing of this one");
    }

    #[test]
    fn usual_changes_take_few_bytes() {
        let mut frame = Changes::default();
        for n in 0..1000 {
            frame.push(&Change {
                at_ns: 1_000_000_000 + n * 1500,
                generation: 77 << 20,
                tgid: 4000,
                tid: 4000,
                comm: "rustc".into(),
                before: 100 + n as u32,
                after: 101 + n as u32,
                call: vmaudit_common::call::MMAP,
            });
        }
        assert!(frame.bytes.len() < 10 * 1000, "{}", frame.bytes.len());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut frame = Changes::default();
        (0..50).for_each(|n| frame.push(&change(n)));
        let bytes = frame.take();
        for at in 0..bytes.len() {
            let _ = changes(&bytes[..at], |_| {});
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let _ = changes(&flipped, |_| {});
            }
        }
    }
}
