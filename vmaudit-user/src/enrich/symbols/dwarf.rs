//! Functions, files and lines by DWARF.

use std::borrow::Cow;

use addr2line::Context;
use gimli::{DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use object::{Object as _, ObjectSection as _};

use super::elf::{self, Room};
use super::question::INLINED;

/// A function at an address, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// As the linker knows it, or else as the source does.
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// There is something to find.
pub fn has(object: &object::File<'_>) -> bool {
    object
        .section_by_name(".debug_info")
        .is_some_and(|section| section.file_range().is_some_and(|(_, size)| size > 0))
}

/// For each address: the functions that were inlined into each other there, innermost first, and last the one that has
/// code of its own. `supplement`: what dwz moved out of this file and others.
pub fn find(
    object: &object::File<'_>,
    supplement: Option<&object::File<'_>>,
    addresses: &[Option<u64>],
) -> Vec<Vec<Found>> {
    let room = Room::default();
    let sections = sections(object, &room);
    let supplement = supplement.map(|other| self::sections(other, &room));
    let endian = if object.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let dwarf = sections.borrow_with_sup(supplement.as_ref(), |bytes| EndianSlice::new(bytes, endian));
    let Ok(context) = Context::from_dwarf(dwarf) else { return Vec::new() };
    addresses.iter().map(|at| at.map(|at| look_up(&context, at)).unwrap_or_default()).collect()
}

/// Those that tell of functions and lines; of variables, nothing is asked.
fn sections<'a>(object: &object::File<'a>, room: &Room) -> DwarfSections<Cow<'a, [u8]>> {
    let load = |id: SectionId| {
        let bytes = match id {
            SectionId::DebugAbbrev
            | SectionId::DebugAddr
            | SectionId::DebugAranges
            | SectionId::DebugInfo
            | SectionId::DebugLine
            | SectionId::DebugLineStr
            | SectionId::DebugRanges
            | SectionId::DebugRngLists
            | SectionId::DebugStr
            | SectionId::DebugStrOffsets
            | SectionId::DebugTypes => elf::section(object, id.name(), room),
            _ => None,
        };
        Ok::<_, std::convert::Infallible>(bytes.unwrap_or_default())
    };
    match DwarfSections::load(load) {
        Ok(sections) => sections,
        Err(never) => match never {},
    }
}

type Bytes<'a> = EndianSlice<'a, RunTimeEndian>;

fn look_up(context: &Context<Bytes<'_>>, at: u64) -> Vec<Found> {
    let mut all = Vec::new();
    let Ok(mut frames) = context.find_frames(at).skip_all_loads() else { return all };
    while let Ok(Some(frame)) = frames.next() {
        // A made file nests them without end; the outermost has the symbol's name all the same.
        if all.len() > INLINED {
            all.pop();
        }
        let function = frame.function.and_then(|name| name.raw_name().ok().map(Cow::into_owned));
        let location = frame.location.as_ref();
        all.push(Found {
            function: function.filter(|name| !name.is_empty()),
            file: location.and_then(|location| location.file).map(str::to_owned),
            line: location.and_then(|location| location.line),
        });
    }
    all
}
