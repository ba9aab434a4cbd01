//! ELF files made for tests: sections that lie, symbols and lines that are known. Little endian, 64 bits.

/// A section to be added.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// With its dot.
    pub name: &'static str,
    /// `sh_type`; 1: contents.
    pub kind: u32,
    /// `sh_flags`; 0x800: compressed.
    pub flags: u64,
    /// `sh_entsize`.
    pub entry: u64,
    /// Which of the added ones `sh_link` is.
    pub link: Option<usize>,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Section {
    /// With contents.
    pub fn new(name: &'static str, data: Vec<u8>) -> Self {
        Self { name, kind: 1, data, ..Self::default() }
    }

    /// What `SHF_COMPRESSED` with zlib says: `size` bytes when inflated.
    pub fn compressed(name: &'static str, size: u64, stream: &[u8]) -> Self {
        let mut data = [1u32.to_le_bytes(), [0; 4]].concat();
        data.extend_from_slice(&size.to_le_bytes());
        data.extend_from_slice(&1u64.to_le_bytes());
        data.extend_from_slice(stream);
        Self { flags: 0x800, ..Self::new(name, data) }
    }
}

/// A file with these sections; its bytes are at the addresses of their places in it.
pub fn file(sections: &[Section]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(16, &3u16.to_le_bytes()); // ET_DYN
    put(18, &62u16.to_le_bytes()); // EM_X86_64
    put(20, &1u32.to_le_bytes());
    put(32, &64u64.to_le_bytes()); // e_phoff
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(58, &64u16.to_le_bytes());
    put(64, &1u32.to_le_bytes()); // PT_LOAD, readable and executable
    put(68, &5u32.to_le_bytes());
    for (at, value) in [(96, 0x1000u64), (104, 0x1000), (112, 0x1000)] {
        put(at, &value.to_le_bytes());
    }
    with(&bytes, sections)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte))
}

/// The file with these sections added, and new names for all; what is loaded stays as it is.
pub fn with(file: &[u8], sections: &[Section]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let (table, old) = (number(file, 40, 8) as usize, number(file, 60, 2) as usize);
    let mut headers = match old {
        0 => vec![0; 64],
        _ => file[table..table + old * 64].to_vec(),
    };
    let first = headers.len() / 64;
    let mut names = match old {
        0 => vec![0],
        _ => {
            let header = &headers[number(file, 62, 2) as usize * 64..];
            let (at, size) = (number(header, 24, 8) as usize, number(header, 32, 8) as usize);
            file[at..at + size].to_vec()
        }
    };
    let mut add = |bytes: &mut Vec<u8>, section: &Section, data: &[u8], name: usize| {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let link = section.link.map_or(0, |link| (first + link) as u32);
        headers.extend_from_slice(&(name as u32).to_le_bytes());
        headers.extend_from_slice(&section.kind.to_le_bytes());
        for value in [section.flags, 0, bytes.len() as u64, data.len() as u64] {
            headers.extend_from_slice(&value.to_le_bytes());
        }
        headers.extend_from_slice(&link.to_le_bytes());
        headers.extend_from_slice(&0u32.to_le_bytes());
        for value in [1, section.entry] {
            headers.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(data);
    };
    for section in sections {
        let name = names.len();
        names.extend_from_slice(section.name.as_bytes());
        names.push(0);
        add(&mut bytes, section, &section.data, name);
    }
    let strings = Section { kind: 3, ..Section::default() };
    add(&mut bytes, &strings, &names, 0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let (table, count) = (bytes.len() as u64, headers.len() / 64);
    bytes.extend_from_slice(&headers);
    bytes[40..48].copy_from_slice(&table.to_le_bytes());
    bytes[60..62].copy_from_slice(&(count as u16).to_le_bytes());
    bytes[62..64].copy_from_slice(&(count as u16 - 1).to_le_bytes());
    bytes
}

/// `.symtab` and its names, to be added first: name, address, size, and `st_info` (2: function, 0: of no kind).
pub fn symbols(all: &[(&str, u64, u64, u8)]) -> [Section; 2] {
    let (mut table, mut names) = (vec![0; 24], vec![0]);
    for &(name, start, size, info) in all {
        table.extend_from_slice(&(names.len() as u32).to_le_bytes());
        // Of the first section, whatever that is.
        table.extend_from_slice(&[info, 0, 1, 0]);
        table.extend_from_slice(&start.to_le_bytes());
        table.extend_from_slice(&size.to_le_bytes());
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    let table = Section { kind: 2, entry: 24, link: Some(1), ..Section::new(".symtab", table) };
    [table, Section { kind: 3, ..Section::new(".strtab", names) }]
}

/// DWARF 4 that says of all addresses below `end`: `made.c`, this line.
pub fn lines(end: u64, line: u8) -> [Section; 3] {
    assert!(line < 64);
    // A compile unit without children: low_pc, high_pc, stmt_list.
    let abbreviations = vec![1, 0x11, 0, 0x11, 1, 0x12, 7, 0x10, 0x17, 0, 0, 0];
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8, 1];
    unit.extend_from_slice(&[0; 8]);
    unit.extend_from_slice(&end.to_le_bytes());
    unit.extend_from_slice(&[0; 4]);
    let mut header = vec![1, 1, 1, 251, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0];
    header.extend_from_slice(b"made.c\0\0\0\0\0");
    // set_address 0; advance_line; copy; advance_pc; end_sequence.
    let mut program = vec![0, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, line - 1, 1, 2];
    let mut rest = end;
    while rest > 0x7f {
        program.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    program.extend_from_slice(&[rest as u8, 0, 1, 1]);
    let mut table = vec![4, 0];
    table.extend_from_slice(&(header.len() as u32).to_le_bytes());
    table.extend_from_slice(&header);
    table.extend_from_slice(&program);
    let sized = |bytes: Vec<u8>| [(bytes.len() as u32).to_le_bytes().to_vec(), bytes].concat();
    [
        Section::new(".debug_abbrev", abbreviations),
        Section::new(".debug_info", sized(unit)),
        Section::new(".debug_line", sized(table)),
    ]
}

/// `.gnu_debuglink`.
pub fn debug_link(name: &[u8], sum: u32) -> Section {
    let mut data = [name, b"\0"].concat();
    data.resize(data.len().next_multiple_of(4), 0);
    data.extend_from_slice(&sum.to_le_bytes());
    Section::new(".gnu_debuglink", data)
}

/// `.gnu_debugaltlink`.
pub fn debug_altlink(name: &[u8], build_id: &[u8]) -> Section {
    Section::new(".gnu_debugaltlink", [name, b"\0", build_id].concat())
}

/// CRC-32 as `.gnu_debuglink` has it.
pub fn sum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ ((sum & 1) * 0xedb8_8320))
    })
}
