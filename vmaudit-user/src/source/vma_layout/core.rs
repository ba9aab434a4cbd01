//! A core file: its segments are the mappings, its notes have the names of the files.
//!
//! Layout: fs/binfmt_elf.c:elf_core_dump, fill_files_note; include/uapi/linux/elf.h. The bytes are anybody's: each place
//! is read where the file says it is, by numbers that are checked, and what does not fit together stays without a name.
//! Nothing is kept of the file but one segment, one name and three buffers.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt;

use crate::domain::vma_layout::analysis::Mappings;
use crate::domain::vma_layout::maps_parser::{Mapping, Permissions, VSYSCALL};
use crate::model::vma_layout::Damage;

/// What such files begin with.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

const HEADER: usize = 64;
/// Bytes of a program header of 64 bits.
const SEGMENT: u64 = 56;
const ET_CORE: u16 = 4;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// More segments than fit into 16 bits: the number stands in the first section header.
const PN_XNUM: u64 = 0xffff;
const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_FILE: u32 = 0x4649_4c45;
/// Notes that are looked at: a thread has about six.
const MOST_NOTES: u64 = 4_000_000;
/// Bytes of a file's name that are kept.
const MOST_NAME: u64 = 16 << 10;

/// What the notes tell of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) pid: Option<u32>,
    pub(crate) comm: Option<String>,
    /// Threads; 0 = the notes were not found.
    pub(crate) threads: u64,
}

/// What can be read anywhere.
pub(crate) trait Anywhere {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Anywhere for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }
}

impl Anywhere for [u8] {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        (&*rest).read(buffer)
    }
}

/// A part of the file, read in order.
#[derive(Debug)]
struct Part<'a, F: ?Sized> {
    file: &'a F,
    at: u64,
    end: u64,
}

impl<F: Anywhere + ?Sized> Read for Part<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let read = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

/// A mapped file.
#[derive(Debug)]
struct Named {
    start: u64,
    end: u64,
    page: u64,
    name: String,
}

/// Entries and names of NT_FILE, side by side.
#[derive(Debug)]
struct Names<'a, F: ?Sized> {
    entries: BufReader<Part<'a, F>>,
    left: u64,
    names: BufReader<Part<'a, F>>,
    page_size: u64,
    next: Option<Named>,
}

/// Reads the mappings of a core.
#[derive(Debug)]
pub(crate) struct Core<'a, F: ?Sized> {
    segments: BufReader<Part<'a, F>>,
    left: u64,
    names: Option<Names<'a, F>>,
    pub(crate) facts: Facts,
    damage: Damage,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn part<F: ?Sized>(file: &F, at: u64, bytes: u64) -> Part<'_, F> {
    Part { file, at, end: at.saturating_add(bytes) }
}

/// As many bytes as there are.
fn some<const N: usize>(from: &mut impl Read) -> io::Result<([u8; N], usize)> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok((bytes, filled))
}

/// All of them, or `None`.
fn all<const N: usize>(from: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    some(from).map(|(bytes, filled)| (filled == N).then_some(bytes))
}

impl<'a, F: Anywhere + ?Sized> Core<'a, F> {
    /// Reads the headers and the notes. Errors: the system's, and a sentence about what is no core that can be read.
    pub(crate) fn new(file: &'a F) -> io::Result<Self> {
        let Some(header) = all::<HEADER>(&mut part(file, 0, HEADER as u64))? else {
            return Err(io::Error::other("it is an ELF file that ends in its header"));
        };
        if u16_at(&header, 16) != ET_CORE {
            return Err(io::Error::other("it is a program or a library, no core file"));
        }
        if header.get(4..6) != Some(&[2, 1]) || u64::from(u16_at(&header, 54)) != SEGMENT {
            let why =
                "it is a core file of another kind of machine: only 64 bits, little endian, are understood";
            return Err(io::Error::other(why));
        }
        let mut segments = u64::from(u16_at(&header, 56));
        if segments == PN_XNUM {
            let section = all::<HEADER>(&mut part(file, u64_at(&header, 40), HEADER as u64))?;
            segments = section.map_or(0, |section| u32_at(&section, 44).into());
        }
        let table = u64_at(&header, 32);
        let of_segments = || BufReader::new(part(file, table, segments.saturating_mul(SEGMENT)));
        let mut core = Self {
            segments: of_segments(),
            left: segments,
            names: None,
            facts: Facts::default(),
            damage: Damage::default(),
        };
        let mut look = of_segments();
        while let Some(segment) = all::<{ SEGMENT as usize }>(&mut look)? {
            if u32_at(&segment, 0) == PT_NOTE {
                core.read_notes(file, u64_at(&segment, 8), u64_at(&segment, 32))?;
                break;
            }
        }
        Ok(core)
    }

    fn read_notes(&mut self, file: &'a F, start: u64, bytes: u64) -> io::Result<()> {
        let end = start.saturating_add(bytes);
        let mut at = start;
        for _ in 0..MOST_NOTES {
            if end.saturating_sub(at) < 12 {
                break;
            }
            let Some(note) = all::<12>(&mut part(file, at, 12))? else { break };
            let (name, size) = (u64::from(u32_at(&note, 0)), u64::from(u32_at(&note, 4)));
            let holds = at.saturating_add(12).saturating_add(name.next_multiple_of(4));
            let next = holds.saturating_add(size.next_multiple_of(4));
            if next > end {
                break;
            }
            match u32_at(&note, 8) {
                NT_PRSTATUS => self.facts.threads += 1,
                NT_PRPSINFO if self.facts.comm.is_none() => {
                    // include/linux/elfcore.h:elf_prpsinfo of 64 bits; what follows the name are arguments.
                    let (info, filled) = some::<56>(&mut part(file, holds, size))?;
                    if filled == 56 {
                        self.facts.pid = Some(u32_at(&info, 24));
                        let comm = info.get(40..).unwrap_or_default();
                        let comm = comm.split(|&b| b == 0).next().unwrap_or_default();
                        self.facts.comm = Some(String::from_utf8_lossy(comm).into_owned());
                    }
                }
                NT_FILE if self.names.is_none() => self.names = Names::new(file, holds, size)?,
                _ => {}
            }
            at = next;
        }
        Ok(())
    }
}

impl<'a, F: Anywhere + ?Sized> Names<'a, F> {
    fn new(file: &'a F, at: u64, bytes: u64) -> io::Result<Option<Self>> {
        let Some(head) = all::<16>(&mut part(file, at, bytes))? else { return Ok(None) };
        let (left, page_size) = (u64_at(&head, 0), u64_at(&head, 8));
        let entries = left.saturating_mul(24);
        if entries > bytes.saturating_sub(16) {
            return Ok(None);
        }
        let names = at.saturating_add(16).saturating_add(entries);
        let mut found = Self {
            entries: BufReader::new(part(file, at.saturating_add(16), entries)),
            left,
            names: BufReader::new(part(file, names, at.saturating_add(bytes).saturating_sub(names))),
            page_size,
            next: None,
        };
        found.advance()?;
        Ok(Some(found))
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = None;
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let Some(entry) = all::<24>(&mut self.entries)? else {
            self.left = 0;
            return Ok(());
        };
        let mut name = Vec::new();
        (&mut self.names).take(MOST_NAME).read_until(0, &mut name)?;
        if name.last() == Some(&0) {
            name.pop();
        } else {
            self.names.skip_until(0)?;
        }
        // A newline is one character of a name in maps, too.
        let name = String::from_utf8_lossy(&name).replace('\n', "\\012");
        let (start, end, page) = (u64_at(&entry, 0), u64_at(&entry, 8), u64_at(&entry, 16));
        self.next = Some(Named { start, end, page, name });
        Ok(())
    }

    /// Names the mapping if its file comes next. Both rise in a real one.
    fn name(&mut self, mapping: &mut Mapping) -> io::Result<()> {
        while self.next.as_ref().is_some_and(|named| named.start < mapping.start) {
            self.advance()?;
        }
        if let Some(named) = self.next.take_if(|it| (it.start, it.end) == (mapping.start, mapping.end)) {
            let mut hasher = DefaultHasher::new();
            named.name.hash(&mut hasher);
            // Which file of that name is not told: one name is taken for one file.
            mapping.inode = hasher.finish() | 1;
            mapping.offset = named.page.saturating_mul(self.page_size);
            mapping.name = named.name;
            self.advance()?;
        }
        Ok(())
    }
}

impl<F: Anywhere + ?Sized> Mappings for Core<'_, F> {
    fn next_mapping(&mut self) -> io::Result<Option<Mapping>> {
        while self.left > 0 {
            let Some(segment) = all::<{ SEGMENT as usize }>(&mut self.segments)? else {
                self.damage.truncated = true;
                break;
            };
            self.left -= 1;
            let (start, bytes, flags) = (u64_at(&segment, 16), u64_at(&segment, 40), u32_at(&segment, 4));
            if u32_at(&segment, 0) != PT_LOAD || start == VSYSCALL {
                continue;
            }
            let Some(end) = start.checked_add(bytes).filter(|&end| end > start) else {
                self.damage.lines += 1;
                continue;
            };
            let permissions = Permissions {
                read: flags & 4 != 0,
                write: flags & 2 != 0,
                execute: flags & 1 != 0,
                shared: false,
            };
            let mut mapping = Mapping { start, end, permissions, ..Mapping::default() };
            if let Some(names) = &mut self.names {
                names.name(&mut mapping)?;
            }
            return Ok(Some(mapping));
        }
        Ok(None)
    }

    fn damage(&self) -> Damage {
        self.damage
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut note = [5u32, desc.len() as u32, kind].map(u32::to_le_bytes).concat();
        note.extend_from_slice(b"CORE\0\0\0\0");
        note.extend_from_slice(desc);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    /// A core of two threads with four segments, two of which map a file; `wide`: the number of segments stands in a
    /// section header.
    pub(crate) fn sample(wide: bool) -> Vec<u8> {
        let loads: [(u64, u64, u32); 5] = [
            (0x1000, 0x1000, 5),
            (0x2000, 0x1000, 4),
            (0x7000, 0x3000, 6),
            (0x7fff_0000, 0x2000, 6),
            (VSYSCALL, 0x1000, 1),
        ];
        let mut info = [0u8; 136];
        put(&mut info, 24, &812u32.to_le_bytes());
        put(&mut info, 40, b"java\0");
        put(&mut info, 56, b"java -Dsecret=1");
        let mut files: Vec<u8> =
            [2u64, 4096, 0x1000, 0x2000, 0, 0x2000, 0x3000, 7].iter().flat_map(|n| n.to_le_bytes()).collect();
        files.extend_from_slice(b"/srv/a b\0/srv/new\nline\0");
        let notes = [note(NT_PRSTATUS, &[0; 336]), note(NT_PRPSINFO, &info), note(NT_FILE, &files)];
        let notes = [notes.concat(), note(NT_PRSTATUS, &[0; 336])].concat();
        let (table, count) = (HEADER as u64, loads.len() as u64 + 1);
        let section = table + count * SEGMENT;
        let at = section + HEADER as u64;
        let mut core = vec![0; at as usize];
        put(&mut core, 0, b"\x7fELF\x02\x01\x01");
        put(&mut core, 16, &ET_CORE.to_le_bytes());
        put(&mut core, 32, &table.to_le_bytes());
        put(&mut core, 40, &section.to_le_bytes());
        put(&mut core, 54, &(SEGMENT as u16).to_le_bytes());
        put(&mut core, 56, &(if wide { PN_XNUM } else { count } as u16).to_le_bytes());
        put(&mut core, section as usize + 44, &(count as u32).to_le_bytes());
        put(&mut core, 64, &PT_NOTE.to_le_bytes());
        put(&mut core, 72, &at.to_le_bytes());
        put(&mut core, 96, &(notes.len() as u64).to_le_bytes());
        for (n, (start, bytes, flags)) in (1..).zip(loads) {
            let place = 64 + n * SEGMENT as usize;
            put(&mut core, place, &PT_LOAD.to_le_bytes());
            put(&mut core, place + 4, &flags.to_le_bytes());
            put(&mut core, place + 16, &start.to_le_bytes());
            put(&mut core, place + 40, &bytes.to_le_bytes());
        }
        core.extend_from_slice(&notes);
        core
    }

    #[test]
    fn segments_are_mappings_and_notes_name_them() {
        for wide in [false, true] {
            let bytes = sample(wide);
            let mut core = Core::new(bytes.as_slice()).unwrap();
            let facts = Facts { pid: Some(812), comm: Some("java".to_owned()), threads: 2 };
            assert_eq!(core.facts, facts);
            let mut all = Vec::new();
            while let Some(mapping) = core.next_mapping().unwrap() {
                all.push(mapping);
            }
            assert_eq!(all.len(), 4, "the gate page is no VMA");
            let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names, ["/srv/a b", "/srv/new\\012line", "", ""]);
            assert_eq!((all[1].offset, all[0].permissions.to_string()), (7 * 4096, "r-xp".to_owned()));
            assert!(all[0].has_file() && !all[2].has_file());
            assert_eq!(core.damage(), Damage::default());
        }
    }

    #[test]
    fn a_core_that_is_cut_is_said_to_be() {
        let bytes = sample(false);
        let mut core = Core::new(&bytes[..64 + 3 * 56]).unwrap();
        let mut segments = 0;
        while core.next_mapping().unwrap().is_some() {
            segments += 1;
        }
        assert!(core.damage().truncated);
        assert_eq!((segments, core.facts.threads), (2, 0));
    }
}
