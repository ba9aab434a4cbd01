//! ELF files as bytes: symbols by address, sections, also compressed ones. Everything here comes from a stranger; what
//! is read is bounded by the file's size, what is inflated by [`INFLATED`] and [`RATIO`].

use std::{
    borrow::Cow,
    cell::Cell,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use memmap2::{Mmap, MmapOptions};
use object::{
    CompressionFormat, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind,
    SymbolSection,
};

use super::debug_files::{Wanted, plain};

/// Bytes that the compressed sections of one program may inflate to, all together.
const INFLATED: u64 = 256 << 20;
/// How many bytes one byte may become. Compilers' sections stay below 10; DEFLATE itself goes to 1032.
const RATIO: u64 = 16;
/// Sections up to this size may be denser.
const SMALL: u64 = 1 << 20;

/// A file in memory, as far as it is looked at.
pub struct Program(Mmap);

impl Program {
    pub fn new(mut file: &File) -> Option<Self> {
        let length = usize::try_from(file.seek(SeekFrom::End(0)).ok()?).ok()?;
        file.seek(SeekFrom::Start(0)).ok()?;
        // SAFETY: a private mapping without write access. When the file changes, other bytes are read, which are not
        // trusted anyway; when it shrinks, SIGBUS ends this process, which exists for that.
        unsafe { MmapOptions::new().len(length).map(file) }.ok().map(Self)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.len() as u64
    }

    /// `None`: no ELF file.
    pub fn object(&self) -> Option<object::File<'_>> {
        object::File::parse(&*self.0).ok()
    }
}

/// The address of a place in the file, as its symbols count.
pub fn address(object: &object::File<'_>, in_file: u64) -> Option<u64> {
    object.segments().find_map(|segment| {
        let (start, size) = segment.file_range();
        let inside = in_file.checked_sub(start).filter(|&inside| inside < size)?;
        segment.address().checked_add(inside)
    })
}

/// What a program says of debug information in other files.
pub fn wanted(object: &object::File<'_>) -> Wanted {
    let link = object.gnu_debuglink().ok().flatten();
    Wanted {
        build_id: build_id(object),
        link: link.and_then(|(name, sum)| {
            let name = std::str::from_utf8(name).ok().filter(|name| plain(name))?;
            Some((name.to_owned(), sum))
        }),
    }
}

/// As its note says.
pub fn build_id(object: &object::File<'_>) -> Option<Vec<u8>> {
    object.build_id().ok().flatten().map(<[u8]>::to_vec)
}

/// A symbol that holds an address.
#[derive(Clone, Copy)]
struct Symbol<'a> {
    start: u64,
    /// 0: unknown.
    size: u64,
    name: &'a str,
}

impl Symbol<'_> {
    /// The better of two that hold an address: the nearest, one that says where it ends, the one for users.
    fn rank(&self) -> (u64, bool, bool, std::cmp::Reverse<usize>, std::cmp::Reverse<&str>) {
        let name = without_version(self.name);
        let inner = name.starts_with("__");
        (self.start, self.size > 0, !inner, std::cmp::Reverse(name.len()), std::cmp::Reverse(self.name))
    }
}

/// A symbol's name without the version of the library that it came with.
pub fn without_version(name: &str) -> &str {
    name.split_once('@').map_or(name, |(plain, _)| if plain.is_empty() { name } else { plain })
}

/// Raw names of the functions at these addresses, by .symtab, else by .dynsym. One pass over the symbols, whatever their
/// number; nothing is kept of those that no address lies in.
pub fn names(object: &object::File<'_>, addresses: &[Option<u64>]) -> Vec<Option<String>> {
    let mut sorted: Vec<u64> = addresses.iter().copied().flatten().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let all = holders(object.symbols(), &sorted, true);
    let dynamic = holders(object.dynamic_symbols(), &sorted, false);
    let name = |at: &Option<u64>| {
        let index = sorted.binary_search(&(*at)?).ok()?;
        let symbol = all.get(index).copied().flatten().or_else(|| dynamic.get(index).copied().flatten());
        Some(symbol?.name.to_owned())
    };
    addresses.iter().map(name).collect()
}

/// The symbol of each address. A symbol of unknown size holds what follows it up to the next symbol, in a table of all
/// symbols; where most are left out, only its first byte.
fn holders<'a>(
    symbols: impl Iterator<Item = object::Symbol<'a, 'a>>,
    sorted: &[u64],
    all: bool,
) -> Vec<Option<Symbol<'a>>> {
    let mut best: Vec<Option<Symbol<'a>>> = vec![None; sorted.len()];
    // The last symbol of unknown size, and the last start of any, before each address.
    let mut open: Vec<Option<Symbol<'a>>> = vec![None; sorted.len()];
    let mut starts: Vec<u64> = vec![0; sorted.len()];
    for symbol in symbols {
        if symbol.is_undefined() || !matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown) {
            continue;
        }
        let (start, size) = (symbol.address(), symbol.size());
        let named = || symbol.name().ok().filter(|name| !name.is_empty());
        // No place in a program, or a mark of the assembler between code and data.
        if size == 0
            && (symbol.section() == SymbolSection::Absolute
                || named().is_none_or(|name| name.starts_with('$')))
        {
            continue;
        }
        let first = sorted.partition_point(|&at| at < start);
        let Some(nearest) = sorted.get(first) else { continue };
        if let Some(last) = starts.get_mut(first) {
            *last = start.max(*last);
        }
        if *nearest - start >= size.max(1) && !(size == 0 && all) {
            continue;
        }
        let Some(name) = named() else { continue };
        let symbol = Symbol { start, size, name };
        let better = |slot: &mut Option<Symbol<'a>>| {
            if slot.is_none_or(|other| symbol.rank() > other.rank()) {
                *slot = Some(symbol);
            }
        };
        if size == 0 {
            open.get_mut(first).map(better);
        } else {
            let inside = sorted.iter().zip(&mut best).skip(first).take_while(|&(&at, _)| at - start < size);
            inside.for_each(|(_, slot)| better(slot));
        }
    }
    let (mut nearest, mut start) = (None::<Symbol<'a>>, 0);
    for (((slot, open), starts), &at) in best.iter_mut().zip(open).zip(starts).zip(sorted) {
        start = starts.max(start);
        if open.is_some_and(|open| nearest.is_none_or(|other| open.rank() > other.rank())) {
            nearest = open;
        }
        let reaches = |symbol: &Symbol<'_>| symbol.start == start && (all || symbol.start == at);
        if slot.is_none() {
            *slot = nearest.filter(reaches);
        }
    }
    best
}

/// What may still be inflated.
pub struct Room(Cell<u64>);

impl Default for Room {
    fn default() -> Self {
        Self(Cell::new(INFLATED))
    }
}

/// Bytes of a section; `None` when there is none or it is not to be had within the bounds.
pub fn section<'a>(object: &object::File<'a>, name: &str, room: &Room) -> Option<Cow<'a, [u8]>> {
    let section = object.section_by_name(name)?;
    let (start, _) = section.file_range()?;
    let range = section.compressed_file_range().ok()?;
    let header = usize::try_from(range.offset.checked_sub(start)?).ok()?;
    let whole = section.data().ok()?.get(header..)?;
    match range.format {
        CompressionFormat::None => Some(Cow::Borrowed(whole)),
        CompressionFormat::Zlib => {
            let (size, stored) = (range.uncompressed_size, whole.len() as u64);
            let left = room.0.get().checked_sub(size)?;
            if size > SMALL.max(stored.saturating_mul(RATIO)) {
                return None;
            }
            room.0.set(left);
            inflate(whole, size).map(Cow::Owned)
        }
        _ => None,
    }
}

fn inflate(stored: &[u8], size: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).ok()?).ok()?;
    flate2::read::ZlibDecoder::new(stored).take(size).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == size).then_some(bytes)
}
