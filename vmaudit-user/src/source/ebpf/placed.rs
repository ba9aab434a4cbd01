//! What the programs take part in and the loader has no name for: the page of counters at its own address
//! (vmaudit-ebpf/src/control.rs), the map of slots, which is made while the loader reads the object, and for those that ask
//! (vmaudit-ebpf/src/answer.rs) calls of the kernel's own functions, and a map whose values hold a `struct bpf_task_work`.
//!
//! aya 0.14 knows the address of a value only for sections of data, which user space cannot map; it relocates no calls of
//! kernel functions, and a map of the object would have to bear its type on kernels that do not know it. So the object
//! has placeholders, which are replaced in its bytes before it is loaded. Those of the asking programs stay on all other
//! kernels, in programs that are never loaded.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};
use vmaudit_common::{Control, MmSlot};

use crate::os::kernel::TaskWork;

/// An array with room for a task work in each value, made for [`patched`]; the kernel gives up open works when nobody in
/// user space holds it any more.
pub struct Works(OwnedFd);

/// The map whose only value is the page of counters; see [`patched`].
pub struct Page(OwnedFd);

/// The map of slots; see [`patched`]. The kernel clears 26 MB for it, which takes as long as reading the object: it can be
/// made beside, for its number, which stands in the programs, is taken before.
pub struct Slots(OwnedFd);

// As in vmaudit-ebpf/src/control.rs.
const PAGE: u64 = 0x7a5c_0df2_4000_0000;
// As in vmaudit-ebpf/src/answer.rs.
const WORKS: u64 = 0x7a5c_0df0_7a5c_0df1;
// As in vmaudit-ebpf/src/slots.rs.
const SLOTS: u64 = 0x7a5c_0df0_7a5c_0df5;
const SCHEDULE: u32 = 0x7a5c_0de1;
const PREEMPT_DISABLE: u32 = 0x7a5c_0de2;
const PREEMPT_ENABLE: u32 = 0x7a5c_0de3;

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_BTF_LOAD: libc::c_int = 18;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// Opcode of a call, and what its source register says when it is one of the kernel's own functions.
const CALL: u8 = 0x85;
const KERNEL_FUNCTION: u8 = 2;
/// Opcode of the load of 64 bits, and what its source register says when they stand for a map.
const LOAD_64: u8 = 0x18;
const MAP_DESCRIPTOR: u8 = 1;
const MAP_VALUE: u8 = 2;
/// A map that user space may map into its memory (5.5 and later).
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Bytes of an instruction.
const INSTRUCTION: usize = 8;

impl Works {
    /// So many works.
    pub fn new(entries: u32) -> std::io::Result<Self> {
        let types = type_information();
        // union bpf_attr of BPF_BTF_LOAD: address, room for messages, length.
        let attr = [types.as_ptr() as u64, 0, types.len() as u64];
        let types = bpf(BPF_BTF_LOAD, bytemuck::bytes_of(&attr))?;
        // union bpf_attr of BPF_MAP_CREATE: type, bytes of a key, of a value, entries, flags, inner map, node, name (4 words),
        // device, descriptor of the types, type of the key, of the value.
        let mut attr = [0u32; 15];
        attr[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, WORK_BYTES, entries]);
        attr[12..].copy_from_slice(&[types.as_raw_fd() as u32, TYPE_OF_KEY, TYPE_OF_VALUE]);
        bpf(BPF_MAP_CREATE, bytemuck::bytes_of(&attr)).map(Self)
    }
}

impl Page {
    /// All zeros.
    pub fn new() -> std::io::Result<Self> {
        // union bpf_attr of BPF_MAP_CREATE: type, bytes of a key, of a value, entries, flags.
        let attr = [BPF_MAP_TYPE_ARRAY, 4, size_of::<Control>() as u32, 1, BPF_F_MMAPABLE];
        bpf(BPF_MAP_CREATE, bytemuck::bytes_of(&attr)).map(Self)
    }

    /// To be mapped.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl Slots {
    /// Takes the number: until [`Slots::make`] it stands for `page`, and no program may be loaded.
    pub fn announce(page: &Page) -> std::io::Result<Self> {
        page.0.try_clone().map(Self)
    }

    /// Makes so many, all zeros.
    pub fn make(&self, entries: u32) -> std::io::Result<()> {
        let attr = [BPF_MAP_TYPE_ARRAY, 4, size_of::<MmSlot>() as u32, entries, BPF_F_MMAPABLE];
        let made = bpf(BPF_MAP_CREATE, bytemuck::bytes_of(&attr))?;
        // SAFETY: both are ours; what the number stood for is closed by this.
        if unsafe { libc::dup3(made.as_raw_fd(), self.0.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    }

    /// To be mapped.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// The object with the placeholders replaced.
pub fn patched(object: &[u8], page: &Page, slots: &Slots, asking: Option<(TaskWork, &Works)>) -> Vec<u8> {
    let asking = asking.map(|(kernel, works)| (kernel, works.0.as_raw_fd()));
    patch(object, (page.0.as_raw_fd(), slots.0.as_raw_fd()), asking)
}

fn patch(object: &[u8], (page, slots): (RawFd, RawFd), asking: Option<(TaskWork, RawFd)>) -> Vec<u8> {
    let mut bytes = object.to_vec();
    let mut rest = bytes.as_mut_slice();
    while let Some((instruction, after)) = rest.split_first_chunk_mut::<INSTRUCTION>() {
        let [opcode, registers, _, _, immediate @ ..] = instruction;
        let value = u32::from_le_bytes(*immediate);
        if *opcode == CALL
            && *registers >> 4 == 0
            && let Some((kernel, _)) = asking
        {
            let function = match value {
                SCHEDULE => Some(kernel.schedule),
                PREEMPT_DISABLE => Some(kernel.preempt_disable),
                PREEMPT_ENABLE => Some(kernel.preempt_enable),
                _ => None,
            };
            if let Some(function) = function {
                *registers |= KERNEL_FUNCTION << 4;
                *immediate = function.to_le_bytes();
            }
        } else if *opcode == LOAD_64
            && let Some([_, _, _, _, upper @ ..]) = after.first_chunk_mut::<INSTRUCTION>()
        {
            let constant = u64::from(u32::from_le_bytes(*upper)) << 32 | u64::from(value);
            let within_page = constant.checked_sub(PAGE).filter(|&at| at < size_of::<Control>() as u64);
            if let Some(at) = within_page {
                *registers |= MAP_VALUE << 4;
                *immediate = page.to_le_bytes();
                *upper = (at as u32).to_le_bytes();
            }
            let map = match constant {
                SLOTS => Some(slots),
                WORKS => asking.map(|(_, works)| works),
                _ => None,
            };
            if let Some(map) = map {
                *registers |= MAP_DESCRIPTOR << 4;
                *immediate = map.to_le_bytes();
                *upper = [0; 4];
            }
        }
        rest = after;
    }
    bytes
}

/// Makes the loader overlook programs: it takes each function in a section of programs for one, and copies all that it
/// calls into it, which for all programs of the object takes as long as the verifier does for most of them.
pub fn leave_out(object: &mut [u8], left_out: impl Fn(&str) -> bool) {
    // Elf64_Sym: the name, then type and binding in one byte; type 0 is none.
    const SYMBOL: usize = 24;
    const INFO: usize = 4;
    let Ok(file) = object::File::parse(&*object) else { return };
    let Some((table, _)) = file.section_by_name(".symtab").and_then(|section| section.file_range()) else {
        return;
    };
    let in_programs = |symbol: &object::Symbol<'_, '_>| {
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        section.is_some_and(|section| section.kind() == SectionKind::Text && section.name() != Ok(".text"))
    };
    let infos: Vec<usize> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.name().is_ok_and(&left_out))
        .filter(in_programs)
        .map(|symbol| table as usize + symbol.index().0 * SYMBOL + INFO)
        .collect();
    for at in infos {
        if let Some(info) = object.get_mut(at) {
            *info &= 0xf0;
        }
    }
}

/// Takes the lines of the sources out, which only the verifier's messages name: the loader copies all of them for each
/// function.
pub fn leave_out_lines(object: &mut [u8]) {
    // struct btf_ext_header: magic, version, flags, hdr_len, func_info_off, func_info_len, line_info_off, line_info_len
    // (Documentation/bpf/btf.rst).
    const LENGTH: std::ops::Range<usize> = 20..24;
    let Ok(file) = object::File::parse(&*object) else { return };
    let at = file.section_by_name(".BTF.ext").and_then(|section| section.file_range());
    if let Some((at, _)) = at
        && let Some(header) = object.get_mut(at as usize..)
        && let Some(length) = header.get_mut(LENGTH)
    {
        length.fill(0);
    }
}

const WORK_BYTES: u32 = 8;
const TYPE_OF_KEY: u32 = 1;
const TYPE_OF_VALUE: u32 = 4;

/// The types of the array's keys and values (Documentation/bpf/btf.rst). The kernel knows its work by the name of the
/// struct (kernel/bpf/btf.c:btf_get_field_type, 6.18).
fn type_information() -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const STRUCT: u32 = 4 << 24;
    const STRINGS: &[u8] = b"\0u32\0u64\0bpf_task_work\0opaque\0work\0";
    let name = |name: &str| {
        let with_ends = [b"\0", name.as_bytes(), b"\0"].concat();
        let at = STRINGS.windows(with_ends.len()).position(|window| window == with_ends);
        at.map_or(0, |at| at as u32 + 1)
    };
    let types: Vec<u32> = [
        vec![name("u32"), INT, 4, 32],
        vec![name("u64"), INT, 8, 64],
        // struct bpf_task_work { u64 opaque; }
        vec![name("bpf_task_work"), STRUCT | 1, 8, name("opaque"), 2, 0],
        // struct work { struct bpf_task_work work; }
        vec![name("work"), STRUCT | 1, WORK_BYTES, name("work"), 3, 0],
    ]
    .concat();
    let length = (types.len() * 4) as u32;
    // Magic and version, bytes of the header; where types begin and their length; the same of strings.
    let head = [0x1_eb9f, 24, 0, length, length, STRINGS.len() as u32];
    let words = head.iter().chain(&types).flat_map(|word| word.to_le_bytes());
    words.chain(STRINGS.iter().copied()).collect()
}

/// A bpf() call that makes something.
fn bpf(command: libc::c_int, attr: &[u8]) -> std::io::Result<OwnedFd> {
    // SAFETY: `attr` has the size it is said to have; what it points at outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), attr.len()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::btf::Btf;

    const KERNEL: TaskWork = TaskWork { schedule: 0x11, preempt_disable: 0x22, preempt_enable: 0x33 };

    #[test]
    fn placeholders_are_replaced_and_nothing_else() {
        let call = |number: u32| [&[CALL, 0, 0, 0], &number.to_le_bytes()[..]].concat();
        let load = |lower: u32, upper: u32| {
            [&[LOAD_64, 1, 0, 0], &lower.to_le_bytes()[..], &[0; 4], &upper.to_le_bytes()[..]].concat()
        };
        let others = [
            call(5),
            load(WORKS as u32, 9),
            load(PAGE as u32 + size_of::<Control>() as u32, (PAGE >> 32) as u32),
            vec![0; 8],
            vec![CALL, 0x10, 0, 0],
            vec![0xe1, 0x0d, 0x5c, 0x7a],
        ];
        let others = others.concat();
        assert_eq!(patch(&others, (8, 9), Some((KERNEL, 7))), others);
        let whole =
            [call(SCHEDULE), call(PREEMPT_ENABLE), load(WORKS as u32, (WORKS >> 32) as u32), vec![1, 2, 3]];
        let made = patch(&whole.concat(), (8, 9), Some((KERNEL, 7)));
        assert_eq!(made[..8], [CALL, 0x20, 0, 0, 0x11, 0, 0, 0]);
        assert_eq!(made[8..16], [CALL, 0x20, 0, 0, 0x33, 0, 0, 0]);
        assert_eq!(made[16..32], [LOAD_64, 0x11, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(made[32..], [1, 2, 3], "a file may end anywhere");
        let counter = load(PAGE as u32 + 24, (PAGE >> 32) as u32);
        let slots = load(SLOTS as u32, (SLOTS >> 32) as u32);
        let asks = [counter, slots, call(SCHEDULE)].concat();
        let made = patch(&asks, (8, 9), None);
        assert_eq!(made[..16], [LOAD_64, 0x21, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0]);
        assert_eq!(made[16..32], [LOAD_64, 0x11, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(made[32..], asks[32..], "those of the asking programs stay");
    }

    #[test]
    fn the_object_has_each_placeholder() {
        let object = crate::source::ebpf::load::OBJECT;
        let changed = |made: &[u8]| object.iter().zip(made).filter(|(before, after)| before != after).count();
        let page = changed(&patch(object, (8, 9), None));
        assert!(page > 100 * 8, "{page} bytes changed");
        let all = changed(&patch(object, (8, 9), Some((KERNEL, 7))));
        assert!(all >= page + 3 * 4 + 8, "{all} bytes changed, {page} of them for the page");
        let [one, other] = [9, 10].map(|slots| patch(object, (8, slots), None));
        let of_slots = one.iter().zip(&other).filter(|(one, other)| one != other).count();
        assert!(of_slots > 10, "{of_slots} numbers of the table of slots");
    }

    #[test]
    fn programs_are_left_out_by_name() {
        let programs = |object: &[u8]| {
            let file = object::File::parse(object).unwrap();
            let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
            functions.map(|symbol| symbol.name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = programs(crate::source::ebpf::load::OBJECT);
        let mut object = crate::source::ebpf::load::OBJECT.to_vec();
        leave_out(&mut object, |name| name != "fork_raw");
        let left = programs(&object);
        assert!(left.contains(&"fork_raw".into()) && !left.contains(&"exec_raw".into()));
        assert!(left.contains(&"failure".into()), "what programs call stays: {left:?}");
        assert!(left.len() > all.len() / 2, "{} of {}", left.len(), all.len());
    }

    #[test]
    fn the_types_are_what_the_kernel_looks_for() {
        let types = type_information();
        let types = Btf::parse(&types, &["work", "bpf_task_work"]).unwrap();
        assert_eq!(types.nested("work", &["work", "opaque"]), Some(0));
    }
}
