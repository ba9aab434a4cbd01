//! Programs and their names, the kernel's type information, records of the ring buffer.

use std::io::BufReader;

use object::Object as _;

use super::parsed;
use crate::enrich::symbols::cfi::Cfi;
use crate::enrich::symbols::demangle::{NAME, demangle};
use crate::enrich::symbols::registers::Registers;
use crate::enrich::symbols::stack_copy::StackCopy;
use crate::enrich::symbols::{debug_files, dwarf, elf, perf_map as perf};
use crate::model::event::Event;
use crate::os::btf::Btf;
use crate::source::ebpf::decode::{Decoded, decode};

/// Addresses that samples have something at, and others.
const ADDRESSES: [u64; 7] = [0, 0x100, 0x1000, 0x1008, 0x2001, 1 << 47, u64::MAX];

/// A perf map: a name for each address or none, of a bounded length; a later line wins.
pub fn perf_map(bytes: &[u8]) {
    let names = perf::names(bytes, &ADDRESSES);
    assert_eq!(names.len(), ADDRESSES.len());
    assert!(names.iter().flatten().all(|name| name.chars().count() <= NAME));
    assert_eq!(perf::names(BufReader::with_capacity(5, bytes), &ADDRESSES), names);
    let later = [bytes, b"\n0x1000 9 the last one\n"].concat();
    let now = perf::names(later.as_slice(), &ADDRESSES);
    for ((address, before), now) in ADDRESSES.iter().zip(names).zip(now) {
        let last = Some("the last one".to_owned());
        assert_eq!(now, if (0x1000..0x1009).contains(address) { last } else { before }, "{address:#x}");
    }
    // The same bytes as mappings of a process: both readers see them.
    let _ = parsed(bytes);
}

/// A program's file: as many answers as questions, and no name longer than the file; what it asks for is a plain name.
pub fn program(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return of_file(bytes) };
    assert!(demangle(text).chars().count() <= NAME);
    of_file(bytes);
}

fn of_file(bytes: &[u8]) {
    let Ok(file) = object::File::parse(bytes) else { return };
    let addresses = ADDRESSES.map(|at| elf::address(&file, at));
    let names = elf::names(&file, &addresses);
    assert_eq!(names.len(), addresses.len());
    for (name, address) in names.iter().zip(addresses) {
        let Some(name) = name else { continue };
        assert!(address.is_some(), "a name for no address");
        assert!(name.len() <= bytes.len() && demangle(name).chars().count() <= NAME);
    }
    assert!(elf::build_id(&file).is_none_or(|id| id.len() <= bytes.len()));
    assert!(elf::wanted(&file).link.is_none_or(|(name, _)| debug_files::plain(&name)));
    let _ = (dwarf::has(&file), file.gnu_debugaltlink());
    callers(&file, &addresses);
    let found = dwarf::find(&file, None, &addresses);
    assert!(found.is_empty() || found.len() == addresses.len());
}

/// From each address to its caller: an answer or a reason, whatever the file says.
fn callers(file: &object::File<'_>, addresses: &[Option<u64>]) {
    let words: Vec<u64> = (0..512).map(|n| 0x7000 + n % 64 * 8).collect();
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let stack = StackCopy::new(0x7000, vec![0x7010; 34], bytes);
    let cfi = Cfi::of(file);
    for at in addresses.iter().flatten().copied().chain(ADDRESSES) {
        let _ = cfi.above(at, &Registers::of_call(&stack.registers), &stack);
    }
}

/// Type information: an id is one of those that fit into the bytes, and what follows it makes no difference.
pub fn btf(bytes: &[u8]) {
    let names = ["s", "t", "f", "vm_area_struct", ""];
    let answers = |bytes: &[u8]| {
        let btf = Btf::parse(bytes, &names)?;
        Some((
            names.map(|name| btf.function(name)),
            names.map(|name| btf.tracepoint_arguments(name)),
            names.map(|name| (btf.member(name, "b"), btf.member(name, "nope"))),
            names.map(|name| (btf.nested(name, &["c", "y"]), btf.nested(name, &["b", "b"]))),
        ))
    };
    let found = answers(bytes);
    if let Some((functions, arguments, ..)) = found {
        assert!(functions.iter().flatten().all(|&id| id >= 1 && id as usize <= bytes.len() / 12));
        assert!(arguments.iter().flatten().all(|&n| (n as usize) < bytes.len() / 8));
        assert_eq!(answers(&[bytes, &[0xff; 64]].concat()), found);
    }
}

/// A record of the ring buffer: the event has bounded texts without a zero, and is written and read as the same.
pub fn ring_record(bytes: &[u8]) {
    let Some(decoded) = decode(bytes) else { return };
    let event = match decoded {
        Decoded::Event(event) => event,
        Decoded::PartOfPath(facts) => Event::Process(facts),
        Decoded::Dead(_) | Decoded::LimitNear | Decoded::Left(_) => return,
    };
    let texts: Vec<&str> = match &event {
        Event::Change(it) => vec![&it.comm],
        Event::Refused(it) => {
            assert!(it.stack.len() * 8 <= bytes.len() && !it.stack.contains(&0));
            vec![&it.comm]
        }
        Event::Credit(it) => {
            assert!(it.stack.len() * 8 <= bytes.len());
            Vec::new()
        }
        Event::StackPiece(it) => {
            assert!(it.bytes.len() <= bytes.len());
            Vec::new()
        }
        Event::Mapped(it) => it.file.iter().map(|file| file.path.as_str()).collect(),
        Event::Process(it) => it.exe.as_deref().into_iter().collect(),
        Event::Test(it) => vec![&it.test],
        Event::Ended(it) => vec![&it.comm],
        Event::OomVictim(_) => Vec::new(),
        other => panic!("no record gives {other:?}"),
    };
    assert!(texts.iter().all(|text| !text.contains('\0') && text.len() <= 3 * bytes.len() + 8), "{texts:?}");
    // The programs of this build write calls that it knows, and errnos and classes that are complete.
    let written = serde_json::to_vec(&event).expect("an event can be written");
    if let Ok(read) = serde_json::from_slice::<Event>(&written) {
        let again = serde_json::to_vec(&read).expect("an event can be written");
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&written));
    }
}
