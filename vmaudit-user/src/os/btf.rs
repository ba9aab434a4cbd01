//! A reader of the kernel's BTF (type information), for the few members and prototypes the programs need.
//!
//! aya can parse all of it into a graph, which takes longer than everything else vmaudit does at its start; this walks
//! the bytes once and keeps what was asked for. Format: Documentation/bpf/btf.rst. Input is checked at every step: a
//! short or odd file gives [`None`]s, never a panic.

use std::cell::Cell;
use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// Members that are looked at for all questions together. A task has some hundred; structs that hold each other without a
/// name would have no end.
const MOST_MEMBERS: u32 = 1_000_000;

/// The place of each so many-th type is kept; those between are walked to.
const STEP: u32 = 16;

/// The parts of a BTF blob that were asked for.
pub struct Btf<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Offset in `bytes` of each [`STEP`]th type, index 0 = type id 1; it may stop before the last one.
    types: Vec<u32>,
    /// Where the types end.
    end: u32,
    /// Type ids by name, for the names asked for.
    named: HashMap<(u32, &'a str), u32>,
    /// See [`MOST_MEMBERS`].
    left: Cell<u32>,
}

impl<'a> Btf<'a> {
    /// Walks `bytes` once and indexes structs, enums, typedefs and functions whose names are in `names`. `None` if it is no BTF that
    /// this reader knows.
    pub fn parse(bytes: &'a [u8], names: &[&'a str]) -> Option<Self> {
        Self::walk(bytes, names, |_| false)
    }

    /// The same for structs and one function, no further than they are found.
    pub fn of(bytes: &'a [u8], structs: &[&'a str], function: &'a str) -> Option<Self> {
        let names: Vec<&str> = structs.iter().copied().chain([function]).collect();
        Self::walk(bytes, &names, |named| {
            named.contains_key(&(KIND_FUNC, function))
                && structs.iter().all(|name| named.contains_key(&(KIND_STRUCT, *name)))
        })
    }

    /// `enough` is asked when one was found.
    fn walk(
        bytes: &'a [u8],
        names: &[&'a str],
        enough: impl Fn(&HashMap<(u32, &'a str), u32>) -> bool,
    ) -> Option<Self> {
        if u16_at(bytes, 0)? != MAGIC {
            return None;
        }
        let header = u32_at(bytes, 4)?;
        let (type_offset, type_len) = (u32_at(bytes, 8)?, u32_at(bytes, 12)?);
        let (string_offset, string_len) = (u32_at(bytes, 16)?, u32_at(bytes, 20)?);
        let start = header.checked_add(type_offset)?;
        let end = start.checked_add(type_len)?;
        let string_start = header.checked_add(string_offset)? as usize;
        let strings = bytes.get(string_start..string_start.checked_add(string_len as usize)?)?;
        let mut btf = Self {
            bytes,
            strings,
            types: Vec::new(),
            end,
            named: HashMap::new(),
            left: Cell::new(MOST_MEMBERS),
        };
        let wanted = Wanted::new(names);
        let (mut at, mut count) = (start, 0_u32);
        while at < end {
            let info = u32_at(bytes, at as usize + 4)?;
            let kind = info >> 24 & 0x1f;
            if count.is_multiple_of(STEP) {
                btf.types.push(at);
            }
            count += 1;
            if NAMED >> kind & 1 == 1
                && let Some(name) = wanted.at(strings, u32_at(bytes, at as usize)?)
            {
                // A struct may stand there as a forward declaration without members too; the first one wins.
                btf.named.entry((kind, name)).or_insert(count);
                if enough(&btf.named) {
                    break;
                }
            }
            at = at.checked_add(length(info)?)?;
        }
        Some(btf)
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or(&[]);
        rest.split(|&b| b == 0).next().unwrap_or(&[])
    }

    fn at(&self, id: u32) -> Option<usize> {
        let index = id.checked_sub(1)?;
        let kept = (index / STEP).min(u32::try_from(self.types.len()).ok()?.checked_sub(1)?);
        let further = index - kept * STEP;
        self.left.set(self.left.get().checked_sub(further / STEP)?);
        let mut at = *self.types.get(kept as usize)?;
        for _ in 0..further {
            at = at.checked_add(length(u32_at(self.bytes, at as usize + 4)?)?)?;
        }
        (at < self.end).then_some(at as usize)
    }

    /// Byte offset of a member, looked for in anonymous members too.
    pub fn member(&self, of: &'a str, member: &str) -> Option<u32> {
        self.member_of(*self.named.get(&(KIND_STRUCT, of))?, member, 0)
    }

    /// Byte offset of a member of a struct member, for example `thread_info.status` in a task.
    pub fn nested(&self, of: &'a str, path: &[&str]) -> Option<u32> {
        let mut id = *self.named.get(&(KIND_STRUCT, of))?;
        let mut offset = 0;
        for step in path {
            let (member_offset, member_type) = self.find(id, step, 0)?;
            offset = member_offset.checked_add(offset)?;
            id = self.strip(member_type);
        }
        Some(offset)
    }

    fn member_of(&self, id: u32, member: &str, depth: u32) -> Option<u32> {
        self.find(id, member, depth).map(|(offset, _)| offset)
    }

    fn find(&self, id: u32, member: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > 8 {
            return None;
        }
        let at = self.at(id)?;
        let info = u32_at(self.bytes, at + 4)?;
        if !matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let bitfields = info >> 31 == 1;
        for n in 0..(info & 0xffff) as usize {
            self.left.set(self.left.get().checked_sub(1)?);
            let entry = at + 12 + n * 12;
            let name = self.name(u32_at(self.bytes, entry)?);
            let kind = u32_at(self.bytes, entry + 4)?;
            let bits = u32_at(self.bytes, entry + 8)?;
            let offset = (if bitfields { bits & 0xff_ffff } else { bits }) / 8;
            if name == member.as_bytes() {
                return Some((offset, kind));
            }
            if name.is_empty()
                && let Some((inner, kind)) = self.find(kind, member, depth + 1)
            {
                return Some((offset.checked_add(inner)?, kind));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers to the type itself.
    fn strip(&self, mut id: u32) -> u32 {
        for _ in 0..16 {
            let Some(info) = self.at(id).and_then(|at| u32_at(self.bytes, at + 4)) else { return id };
            // typedef, volatile, const, restrict, type tag
            if !matches!(info >> 24 & 0x1f, KIND_TYPEDEF | 9 | 10 | 11 | 18) {
                return id;
            }
            match self.at(id).and_then(|at| u32_at(self.bytes, at + 8)) {
                Some(next) => id = next,
                None => return id,
            }
        }
        id
    }

    /// How many arguments a tracepoint passes (its `btf_trace_*` typedef has one more, the context).
    pub fn tracepoint_arguments(&self, typedef: &'a str) -> Option<u32> {
        let at = self.at(*self.named.get(&(KIND_TYPEDEF, typedef))?)?;
        let pointer = self.at(u32_at(self.bytes, at + 8)?)?;
        if u32_at(self.bytes, pointer + 4)? >> 24 & 0x1f != KIND_PTR {
            return None;
        }
        let proto = self.at(u32_at(self.bytes, pointer + 8)?)?;
        let info = u32_at(self.bytes, proto + 4)?;
        if info >> 24 & 0x1f != KIND_FUNC_PROTO {
            return None;
        }
        (info & 0xffff).checked_sub(1)
    }

    /// The number of a name in an enum, of which none is negative here.
    pub fn enumerator(&self, of: &'a str, name: &str) -> Option<u64> {
        let at = self.at(*self.named.get(&(KIND_ENUM, of))?)?;
        let info = u32_at(self.bytes, at + 4)?;
        for n in 0..(info & 0xffff) as usize {
            self.left.set(self.left.get().checked_sub(1)?);
            let entry = at + 12 + n * 8;
            if self.name(u32_at(self.bytes, entry)?) == name.as_bytes() {
                return u32_at(self.bytes, entry + 4).map(u64::from);
            }
        }
        None
    }

    /// Type id of a function, by which a program names what it attaches to.
    pub fn function(&self, name: &'a str) -> Option<u32> {
        self.named.get(&(KIND_FUNC, name)).copied()
    }
}

/// Kinds of types that are asked for by name, a bit each.
const NAMED: u32 = 1 << KIND_STRUCT | 1 << KIND_ENUM | 1 << KIND_TYPEDEF | 1 << KIND_FUNC;

const SLOTS: usize = 1 << 12;

/// The names that are asked for. There are some hundred thousand types: most are told by how their names begin.
struct Wanted<'n, 'a> {
    names: &'n [&'a str],
    /// By the first bytes.
    promising: [bool; SLOTS],
}

impl<'n, 'a> Wanted<'n, 'a> {
    fn new(names: &'n [&'a str]) -> Self {
        let mut promising = [false; SLOTS];
        for name in names {
            // Of a shorter one the 0 behind it, and no more, belongs to it.
            let mut first = [0; 4];
            first.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
            promising[Self::slot(first)] = true;
        }
        Self { names, promising }
    }

    /// Of the first four bytes of a name, as far as it has them.
    fn slot([a, b, c, d]: [u8; 4]) -> usize {
        let (c, d) = if b == 0 { (0, 0) } else { (c, if c == 0 { 0 } else { d }) };
        let first = u32::from_le_bytes([a, b, c, d]);
        (first.wrapping_mul(0x9e37_79b1) >> 20) as usize
    }

    fn at(&self, strings: &[u8], place: u32) -> Option<&'a str> {
        let place = place as usize;
        let first = strings.get(place..place.checked_add(4)?);
        if first
            .and_then(|first| first.try_into().ok())
            .is_some_and(|first| !self.promising[Self::slot(first)])
        {
            return None;
        }
        let rest = strings.get(place..)?;
        let is = |name: &str| rest.strip_prefix(name.as_bytes()).is_some_and(|end| end.first() == Some(&0));
        self.names.iter().find(|name| is(name)).copied()
    }
}

/// Bytes of a type, of which this is the second word; `None` of a kind that this reader does not know.
fn length(info: u32) -> Option<u32> {
    let (fixed, each) = *LENGTHS.get((info >> 24 & 0x1f) as usize)?;
    (fixed != 0).then_some(u32::from(fixed) + u32::from(each) * (info & 0xffff))
}

/// By kind: bytes of the type itself, and of each of its members, values or arguments.
const LENGTHS: [(u8, u8); 32] = {
    let mut lengths = [(0, 0); 32];
    let mut kind = 1;
    while kind <= 19 {
        lengths[kind] = match kind as u32 {
            1 | 14 | 17 => (16, 0),                         // int, var, decl tag
            3 => (24, 0),                                   // array
            KIND_STRUCT | KIND_UNION | 15 | 19 => (12, 12), // datasec, enum64
            KIND_ENUM | KIND_FUNC_PROTO => (12, 8),
            _ => (12, 0),
        };
        kind += 1;
    }
    lengths
};

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { int a; struct { int b; struct in c; }; }`, `struct in { int x; int y; }`,
    /// `typedef void (*t)(void *, int, int)`, `enum e { one = 1, two = 7 }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0c\0in\0x\0y\0t\0e\0one\0two\0";
        let name = |n: &str| {
            let needle = [b"\0", n.as_bytes(), b"\0"].concat();
            strings.windows(needle.len()).position(|w| w == needle).unwrap() as u32 + 1
        };
        let mut types: Vec<u32> = Vec::new();
        let info = |kind: u32, count: u32| kind << 24 | count;
        types.extend([name("int"), info(1, 0), 4, 32]); // 1
        types.extend([name("in"), info(4, 2), 8, name("x"), 1, 0, name("y"), 1, 32]); // 2
        types.extend([0, info(4, 2), 12, name("b"), 1, 0, name("c"), 2, 32]); // 3
        types.extend([name("s"), info(4, 2), 16, name("a"), 1, 0, 0, 3, 32]); // 4
        types.extend([0, info(13, 3), 0, 0, 0, 0, 1, 0, 1]); // 5
        types.extend([0, info(2, 0), 5]); // 6
        types.extend([name("t"), info(8, 0), 6]); // 7
        types.extend([name("e"), info(6, 2), 4, name("one"), 1, name("two"), 7]); // 8
        let body: Vec<u8> = types.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut blob = Vec::new();
        blob.extend(MAGIC.to_le_bytes());
        blob.extend([1, 0]);
        for word in [24, 0, body.len() as u32, body.len() as u32, strings.len() as u32] {
            blob.extend(word.to_le_bytes());
        }
        blob.extend(body);
        blob.extend(strings);
        blob
    }

    #[test]
    fn members_are_found_through_anonymous_structs_and_paths() {
        let blob = sample();
        let btf = Btf::parse(&blob, &["s", "t", "e"]).unwrap();
        assert_eq!((btf.enumerator("e", "two"), btf.enumerator("e", "none")), (Some(7), None));
        assert_eq!(btf.member("s", "a"), Some(0));
        assert_eq!(btf.member("s", "b"), Some(4));
        assert_eq!(btf.nested("s", &["c", "y"]), Some(12));
        assert_eq!(btf.member("s", "nope"), None);
        assert_eq!(btf.tracepoint_arguments("t"), Some(2));
    }

    #[test]
    fn what_is_found_early_knows_the_types_behind_it() {
        let many = 100;
        let strings = b"\0s\0f\0b\0later\0";
        // 1: `struct s { struct { struct { ... int b; }; }; }` by way of the last type, 2: `f`, then as many as it takes.
        let mut types: Vec<u32> = vec![1, 4 << 24 | 1, 8, 0, many + 3, 64, 3, 12 << 24, 0];
        (0..many).for_each(|_| types.extend([0, 2 << 24, 1]));
        types.extend([0, 4 << 24 | 1, 8, 5, 1, 32, 7, 4 << 24, 0]);
        let length = types.len() as u32 * 4;
        let words = [24, 0, length, length, strings.len() as u32].into_iter().chain(types);
        let words: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        let blob = [&MAGIC.to_le_bytes()[..], &[1, 0], &words, strings].concat();
        let (all, early) =
            (Btf::parse(&blob, &["s", "f", "later"]).unwrap(), Btf::of(&blob, &["s"], "f").unwrap());
        assert!(early.types.len() < all.types.len());
        for btf in [&all, &early] {
            assert_eq!((btf.member("s", "b"), btf.function("f")), (Some(12), Some(2)));
            assert_eq!(
                (btf.at(many + 4), btf.at(many + 5), btf.at(u32::MAX)),
                (Some(blob.len() - strings.len() - 12), None, None)
            );
        }
        assert!(Btf::of(&blob, &["s", "later"], "f").is_some_and(|btf| btf.types.len() == all.types.len()));
        assert!(Btf::of(&blob, &["s"], "later").is_some_and(|btf| btf.function("later").is_none()));
    }

    /// `struct s { struct s; struct s; ...; int b; }`, each at the largest offset.
    #[test]
    fn structs_that_hold_each_other_have_an_end_and_no_offset() {
        let strings = b"\0s\0b\0";
        for members in [1, 1000] {
            let mut types = vec![1, 4 << 24 | (members + 1), 8];
            (0..members).for_each(|_| types.extend([0, 1, u32::MAX]));
            types.extend([3, 1, u32::MAX]);
            let length = types.len() as u32 * 4;
            let words = [24, 0, length, length, strings.len() as u32].into_iter().chain(types);
            let words: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            let blob = [&MAGIC.to_le_bytes()[..], &[1, 0], &words, strings].concat();
            let btf = Btf::parse(&blob, &["s"]).unwrap();
            assert_eq!(btf.member("s", "b"), None, "{members}: the sum of nine is more than an offset");
            assert_eq!(btf.nested("s", &["nope"]), None);
        }
    }

    #[test]
    fn damaged_files_are_refused_quietly() {
        let blob = sample();
        for cut in 0..blob.len() {
            if let Some(btf) = Btf::parse(&blob[..cut], &["s", "t", "e"]) {
                let _ = (btf.nested("s", &["c", "y"]), btf.enumerator("e", "two"));
            }
        }
        for at in 0..blob.len() {
            let mut bad = blob.clone();
            bad[at] ^= 0xff;
            if let Some(btf) = Btf::of(&bad, &["in", "s"], "none") {
                let _ = btf.nested("s", &["c", "y"]);
            }
            if let Some(btf) = Btf::parse(&bad, &["s", "t", "e"]) {
                let _ =
                    (btf.nested("s", &["c", "y"]), btf.enumerator("e", "two"), btf.tracepoint_arguments("t"));
            }
        }
    }
}
