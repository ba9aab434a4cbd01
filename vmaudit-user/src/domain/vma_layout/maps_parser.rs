//! Parser of /proc/PID/maps and /proc/PID/smaps, live or recorded.
//!
//! The input is hostile: anybody may send a file, and a process chooses the names in its own. So a line is read up to
//! a bound and cut there, a damaged line is counted and skipped, and one mapping is held at a time whatever the length
//! of the file. Nothing panics.

use crate::model::vma_layout::Damage;
use std::fmt;
use std::io::{self, BufRead};

/// Bytes of a line that are kept. A path has at most 4,095 bytes, each of which may be written as four.
const MAX_LINE: usize = 20 * 1024;

/// Where x86-64 has its gate page (arch/x86/include/uapi/asm/vsyscall.h:VSYSCALL_ADDR).
pub(crate) const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// Mnemonics kept of one VmFlags line; the kernel has fewer bits than that.
const MAX_FLAGS: usize = 64;

/// One mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last byte.
    pub end: u64,
    /// Permissions.
    pub permissions: Permissions,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Device, major and minor as printed.
    pub device: (u32, u32),
    /// Inode on that device; 0 = no file.
    pub inode: u64,
    /// Name as printed, a newline in it still written as `\012`; empty for plain anonymous memory.
    pub name: String,
    /// What only smaps tells; `None` when the input is maps.
    pub details: Option<Details>,
}

/// Permissions of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permissions {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// MAP_SHARED.
    pub shared: bool,
}

/// The part of smaps that decides whether neighbours merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Resident, bytes.
    pub rss_bytes: u64,
    /// Anonymous pages, bytes; above 0 the mapping was written to.
    pub anonymous_bytes: u64,
    /// Swapped out, bytes.
    pub swap_bytes: u64,
    /// Protection key.
    pub protection_key: Option<u32>,
    /// Mnemonics of VmFlags, sorted.
    pub flags: Vec<Flag>,
    /// The VmFlags line was there.
    pub has_flags: bool,
}

/// A mnemonic of VmFlags: two letters, `??` when that kernel had no name for the bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flag(pub [u8; 2]);

impl Flag {
    /// Its letters.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pick = |on, letter| if on { letter } else { '-' };
        write!(
            f,
            "{}{}{}{}",
            pick(self.read, 'r'),
            pick(self.write, 'w'),
            pick(self.execute, 'x'),
            if self.shared { 's' } else { 'p' }
        )
    }
}

impl Mapping {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// No access at all.
    pub fn inaccessible(&self) -> bool {
        !self.permissions.read && !self.permissions.write && !self.permissions.execute
    }

    /// Backed by a file, a memfd, a device or a shared-memory object.
    pub fn has_file(&self) -> bool {
        self.inode != 0 || self.device != (0, 0)
    }
}

/// Lines of any length, of which a beginning is kept.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    /// Lines that were too long.
    cut: u64,
    /// The last one does not end in a newline.
    truncated: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0, cut: 0, truncated: false }
    }

    /// The last one that was read, without its newline.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The last one does not end in a newline.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    /// Reads one; false at the end.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        self.line.clear();
        let (mut any, mut long) = (false, false);
        loop {
            let available = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                self.truncated |= any;
                break;
            }
            any = true;
            let end = available.iter().position(|&b| b == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let space = MAX_LINE - self.line.len().min(MAX_LINE);
            long |= part.len() > space;
            self.line.extend_from_slice(part.get(..space.min(part.len())).unwrap_or_default());
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.number += u64::from(any);
        self.cut += u64::from(long);
        Ok(any)
    }
}

/// Reads mappings one after the other. smaps or maps: told apart line by line.
#[derive(Debug)]
pub struct Parser<R> {
    lines: Lines<R>,
    pending: Option<Mapping>,
    /// Lines that were not understood, and the first of them.
    wrong: u64,
    first: Option<u64>,
}

impl<R: BufRead> Parser<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self { lines: Lines::new(reader), pending: None, wrong: 0, first: None }
    }

    /// What was wrong so far.
    pub fn damage(&self) -> Damage {
        let Lines { cut, truncated, .. } = self.lines;
        Damage { lines: self.wrong, first: self.first, cut, truncated }
    }

    /// The next mapping; `None` at the end. An error of the reader ends the file where it is.
    pub fn next_mapping(&mut self) -> io::Result<Option<Mapping>> {
        loop {
            if !self.lines.read()? {
                return Ok(self.pending.take());
            }
            let line = self.lines.line();
            if let Some(mapping) = parse_header(line) {
                let kept = Some(mapping).filter(is_vma);
                if let Some(done) = std::mem::replace(&mut self.pending, kept) {
                    return Ok(Some(done));
                }
            } else if let Some(known) = self.pending.as_mut().map(|mapping| parse_field(line, mapping)) {
                if !known {
                    self.note_damage();
                }
            } else if !looks_like_field(line) && !line.iter().all(u8::is_ascii_whitespace) {
                self.note_damage();
            }
        }
    }

    fn note_damage(&mut self) {
        self.wrong += 1;
        self.first.get_or_insert(self.lines.number);
    }
}

/// `[vsyscall]` is printed and is no VMA of the process.
pub(crate) fn is_vma(mapping: &Mapping) -> bool {
    mapping.start != VSYSCALL || mapping.name != "[vsyscall]"
}

/// `start-end perms offset major:minor inode   name`
pub(crate) fn parse_header(line: &[u8]) -> Option<Mapping> {
    let (start, rest) = hex(line)?;
    let (end, rest) = hex(rest.strip_prefix(b"-")?)?;
    let rest = rest.strip_prefix(b" ")?;
    let permissions = parse_permissions(rest.get(..4)?)?;
    let (offset, rest) = hex(rest.get(4..)?.strip_prefix(b" ")?)?;
    let (major, rest) = hex(rest.strip_prefix(b" ")?)?;
    let (minor, rest) = hex(rest.strip_prefix(b":")?)?;
    let rest = rest.strip_prefix(b" ")?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let inode = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    let name = rest.get(digits..)?;
    if end <= start || !(name.is_empty() || name.starts_with(b" ") || name.starts_with(b"\t")) {
        return None;
    }
    // The name is set off by blanks; blanks behind it belong to it, because a path may end in one.
    let name = name.get(name.iter().position(|&b| b != b' ' && b != b'\t').unwrap_or(name.len())..)?;
    Some(Mapping {
        start,
        end,
        permissions,
        offset,
        device: (u32::try_from(major).ok()?, u32::try_from(minor).ok()?),
        inode,
        name: String::from_utf8_lossy(name).into_owned(),
        details: None,
    })
}

fn parse_permissions(letters: &[u8]) -> Option<Permissions> {
    let [r, w, x, s] = *letters else { return None };
    let bit = |letter: u8, on: u8| match letter {
        b'-' => Some(false),
        letter if letter == on => Some(true),
        _ => None,
    };
    Some(Permissions {
        read: bit(r, b'r')?,
        write: bit(w, b'w')?,
        execute: bit(x, b'x')?,
        shared: match s {
            b's' | b'S' => true,
            b'p' => false,
            _ => return None,
        },
    })
}

fn hex(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut digits = 0;
    for &b in bytes {
        let Some(digit) = char::from(b).to_digit(16) else { break };
        digits += 1;
        if digits > 16 {
            return None;
        }
        value = value << 4 | u64::from(digit);
    }
    if digits == 0 { None } else { Some((value, bytes.get(digits..)?)) }
}

/// `Key:` at the start of a line.
fn looks_like_field(line: &[u8]) -> bool {
    key(line).is_some()
}

fn key(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().take(40).position(|&b| b == b':')?;
    let key = line.get(..colon)?;
    let named = !key.is_empty() && key.iter().all(|b| b.is_ascii_alphanumeric() || b"_-()".contains(b));
    if named { Some((key, line.get(colon + 1..)?)) } else { None }
}

/// Takes a field of smaps into its mapping; false when the line is none.
fn parse_field(line: &[u8], mapping: &mut Mapping) -> bool {
    let Some((key, value)) = key(line) else { return line.iter().all(u8::is_ascii_whitespace) };
    let details = mapping.details.get_or_insert_default();
    let number = || -> Option<u64> {
        std::str::from_utf8(value).ok()?.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = || number().unwrap_or(0).saturating_mul(1024);
    match key {
        b"Rss" => details.rss_bytes = bytes(),
        b"Anonymous" => details.anonymous_bytes = bytes(),
        b"Swap" => details.swap_bytes = bytes(),
        b"ProtectionKey" => details.protection_key = number().and_then(|key| u32::try_from(key).ok()),
        b"VmFlags" => {
            details.has_flags = true;
            details.flags.clear();
            details.flags.extend(
                value
                    .split(u8::is_ascii_whitespace)
                    .filter_map(|flag| <[u8; 2]>::try_from(flag).ok())
                    .filter(|flag| flag.iter().all(u8::is_ascii_graphic))
                    .map(Flag)
                    .take(MAX_FLAGS),
            );
            details.flags.sort_unstable();
        }
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> (Vec<Mapping>, Damage) {
        let mut parser = Parser::new(text);
        let mut all = Vec::new();
        while let Some(mapping) = parser.next_mapping().unwrap() {
            all.push(mapping);
        }
        (all, parser.damage())
    }

    #[test]
    fn names_of_every_kind() {
        let text = b"\
00400000-00401000 r-xp 00001000 fe:01 1234                               /bin/a b (deleted)\n\
7f0000000000-7f0000001000 rw-s 00000000 00:01 77 /dev/zero (deleted)\n\
7f0000001000-7f0000002000 ---p 00000000 00:00 0 \n\
7f0000002000-7f0000003000 rw-p 00000000 00:00 0                          [anon:[x] \x1b[31m:]\n\
7f0000003000-7f0000004000 rw-p 00000000 00:00 0                          [stack]\n\
7f0000004000-7f0000005000 rw-p 00000000 00:00 0\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
        let (all, damage) = parse(text);
        assert_eq!(damage, Damage::default());
        let names: Vec<&str> = all.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(
            names,
            ["/bin/a b (deleted)", "/dev/zero (deleted)", "", "[anon:[x] \u{1b}[31m:]", "[stack]", ""]
        );
        assert_eq!(all[0].device, (0xfe, 1));
        assert_eq!((all[0].offset, all[0].inode, all[0].bytes()), (0x1000, 1234, 4096));
        assert_eq!(all[1].permissions.to_string(), "rw-s");
        assert!(all[2].inaccessible());
    }

    #[test]
    fn smaps_fields_belong_to_the_mapping_above() {
        let text = b"\
1000-2000 rw-p 00000000 00:00 0 \nSize:                  4 kB\nRss:                   4 kB\n\
Anonymous:             4 kB\nProtectionKey:         3\nVmFlags: wr rd mr ?? ac \n\
2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd\n";
        let (all, damage) = parse(text);
        assert_eq!(damage.lines, 0);
        let details = all[0].details.as_ref().unwrap();
        assert_eq!(
            (details.rss_bytes, details.anonymous_bytes, details.protection_key),
            (4096, 4096, Some(3))
        );
        assert_eq!(format!("{:?}", details.flags), "[??, ac, mr, rd, wr]");
        assert_eq!(all[1].details.as_ref().unwrap().flags.len(), 1);
    }

    #[test]
    fn damage_is_counted_and_skipped() {
        let text =
            b"hello\n1000-2000 rw-p 0 0:0 0 \n\xff\xfe\n3000-2000 rw-p 0 0:0 0\n2000-3000 rw-p 0 0:0 0 /x";
        let (all, damage) = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!(damage, Damage { lines: 3, first: Some(1), cut: 0, truncated: true });
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut text = b"1000-2000 rw-p 00000000 00:00 0 /".to_vec();
        text.extend(std::iter::repeat_n(b'a', 5_000_000));
        text.extend(b"\n2000-3000 rw-p 00000000 00:00 0 \n");
        let (all, damage) = parse(&text);
        assert_eq!((all.len(), damage.cut), (2, 1));
        assert!(all[0].name.len() <= MAX_LINE);
    }
}
