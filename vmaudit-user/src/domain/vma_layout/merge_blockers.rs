//! Why two mappings that follow each other are two. Pure.
//!
//! The conditions are those of `is_mergeable_vma` and its callers (mm/mmap.c up to 6.9, mm/vma.c since 6.10), as far as
//! maps and smaps show them. What they do not show (another open of the same file, pages faulted apart, a fork, a
//! userfaultfd) is said to be hidden, never guessed.

use std::collections::BTreeSet;

use crate::domain::vma_layout::maps_parser::{Flag, Mapping, Permissions};
use crate::domain::vma_layout::shared_memory::shared_memory;
use crate::model::vma_layout::{Reason, Step};

/// Holes up to this many bytes between equal mappings count as punched.
const SMALL_HOLE: u64 = 1 << 20;

/// Bits that mark mappings which never merge (VM_SPECIAL).
const SPECIAL: [Flag; 4] = [Flag(*b"io"), Flag(*b"de"), Flag(*b"pf"), Flag(*b"mm")];

/// Flags that do not keep neighbours apart (soft dirty; guard regions since 6.19), and those that only repeat the
/// permission column.
const IGNORED: [Flag; 10] = [
    Flag(*b"sd"),
    Flag(*b"gu"),
    Flag(*b"rd"),
    Flag(*b"wr"),
    Flag(*b"ex"),
    Flag(*b"sh"),
    Flag(*b"mr"),
    Flag(*b"mw"),
    Flag(*b"me"),
    Flag(*b"ms"),
];

/// The two map the same object, or are both plain anonymous memory.
pub fn same_object(a: &Mapping, b: &Mapping) -> bool {
    a.device == b.device
        && a.inode == b.inode
        && a.has_file() == b.has_file()
        && (!a.has_file() || a.name == b.name)
}

/// Why `a` and the next mapping `b` are two. Policies are those of numa_maps, `None` = the default or not known;
/// `segments`: they may be segments of a program, of which there are few.
pub fn why(a: &Mapping, b: &Mapping, policies: (Option<&str>, Option<&str>), segments: bool) -> Reason {
    if b.start > a.end {
        let punched = b.start - a.end <= SMALL_HOLE
            && same_object(a, b)
            && a.permissions == b.permissions
            // Pieces of a file that were one mapping lie as far apart in the file as in memory.
            && (!a.has_file() || (!(segments && may_be_segments(a)) && b.offset.wrapping_sub(a.offset) == b.start - a.start))
            && !special(a)
            && !special(b);
        return Reason::Hole { punched };
    }
    if special(a) || special(b) {
        return Reason::Special;
    }
    if !same_object(a, b) {
        let no_file = |m: &Mapping| m.has_file() && shared_memory(&m.name).is_some();
        return if no_file(a) && no_file(b) {
            Reason::SharedObjects { permissions_differ: a.permissions != b.permissions }
        } else {
            Reason::Object
        };
    }
    // Pieces whose offsets do not continue stay apart whatever else becomes equal, so no other reason is told for them.
    let continues = !a.has_file() || a.offset.wrapping_add(a.bytes()) == b.offset;
    if a.permissions != b.permissions {
        if segments && may_be_segments(a) {
            return Reason::Segments;
        }
        if !continues {
            return Reason::Offset { step: step(a, b) };
        }
        return Reason::Permissions { pair: pair(a.permissions, b.permissions) };
    }
    let (da, db) = (a.details.as_ref(), b.details.as_ref());
    let flags_seen = da.is_some_and(|d| d.has_flags) && db.is_some_and(|d| d.has_flags);
    if let (true, Some(da), Some(db)) = (flags_seen, da, db) {
        let (fa, fb): (BTreeSet<Flag>, BTreeSet<Flag>) =
            (da.flags.iter().copied().collect(), db.flags.iter().copied().collect());
        let differ: Vec<&str> =
            fa.symmetric_difference(&fb).filter(|flag| !IGNORED.contains(flag)).map(Flag::name).collect();
        // The loader makes the end of a library read-only after writing to it, which leaves a flag behind (RELRO).
        if !differ.is_empty() && segments && may_be_segments(a) {
            return Reason::Segments;
        }
        if continues && !differ.is_empty() {
            return Reason::Flags { flags: differ.join(" ") };
        }
        if continues && da.protection_key != db.protection_key {
            return Reason::ProtectionKey;
        }
    }
    if !continues {
        if segments && may_be_segments(a) && is_library(&a.name) {
            return Reason::Segments;
        }
        return Reason::Offset { step: step(a, b) };
    }
    if given_name(a) != given_name(b) {
        return Reason::Name;
    }
    if policies.0 != policies.1 {
        return Reason::Policy;
    }
    Reason::Hidden { flags_seen, file: a.has_file() }
}

/// What the offsets do that do not continue.
fn step(a: &Mapping, b: &Mapping) -> Step {
    if a.offset == b.offset {
        Step::Repeats
    } else if b.offset.wrapping_add(b.bytes()) == a.offset {
        Step::Reversed
    } else if b.offset < a.offset {
        Step::Back
    } else {
        Step::Skips
    }
}

fn may_be_segments(mapping: &Mapping) -> bool {
    mapping.has_file() && !mapping.permissions.shared && mapping.name.starts_with('/')
}

/// A shared library by its name: `.so`, `.so.6`.
pub fn is_library(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.ends_with(".so") || file.contains(".so.")
}

/// A name that somebody gave by prctl; `[heap]` and `[stack]` are made up from addresses by the one who prints.
fn given_name(mapping: &Mapping) -> Option<&str> {
    Some(mapping.name.as_str()).filter(|name| name.starts_with("[anon"))
}

fn special(mapping: &Mapping) -> bool {
    match mapping.details.as_ref().filter(|details| details.has_flags) {
        Some(details) => details.flags.iter().any(|flag| SPECIAL.contains(flag)),
        None => kernel_made(&mapping.name),
    }
}

/// Mappings that the kernel puts into every process.
pub fn kernel_made(name: &str) -> bool {
    matches!(
        name,
        "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[uprobes]" | "[sigpage]" | "[vectors]" | "[vsyscall]"
    )
}

fn pair(a: Permissions, b: Permissions) -> String {
    let (first, second) = if a > b { (a, b) } else { (b, a) };
    format!("{first} | {second}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::vma_layout::maps_parser::Parser;

    fn two(text: &str) -> Reason {
        let mut parser = Parser::new(text.as_bytes());
        let a = parser.next_mapping().unwrap().unwrap();
        let b = parser.next_mapping().unwrap().unwrap();
        why(&a, &b, (None, None), true)
    }

    #[test]
    fn maps_alone() {
        let anon = "1000-2000 rw-p 00000000 00:00 0 \n";
        let is = |second: &str| two(&format!("{anon}{second}\n"));
        assert_eq!(is("3000-4000 rw-p 00000000 00:00 0 "), Reason::Hole { punched: true });
        assert_eq!(is("3000-4000 r--p 00000000 00:00 0 "), Reason::Hole { punched: false });
        assert_eq!(is("900000000-900001000 rw-p 0 00:00 0 "), Reason::Hole { punched: false });
        assert_eq!(
            is("2000-3000 ---p 00000000 00:00 0 "),
            Reason::Permissions { pair: "rw-p | ---p".into() }
        );
        assert_eq!(is("2000-3000 rw-p 00000000 00:00 0 "), Reason::Hidden { flags_seen: false, file: false });
        assert_eq!(
            is("2000-3000 rw-p 00000000 00:00 0 [heap]"),
            Reason::Hidden { flags_seen: false, file: false }
        );
        assert_eq!(is("2000-3000 rw-p 00000000 00:00 0 [anon:x]"), Reason::Name);
        assert_eq!(is("2000-3000 r-xp 00000000 00:00 0 [vdso]"), Reason::Special);
        assert_eq!(is("2000-3000 rw-p 00000000 08:01 7 /lib/x.so"), Reason::Object);
    }

    #[test]
    fn files_and_offsets() {
        let is = |second: &str| two(&format!("1000-2000 r--s 0 08:01 7 /data\n{second}\n"));
        assert_eq!(is("3000-4000 r--s 00002000 08:01 7 /data"), Reason::Hole { punched: true });
        assert_eq!(is("3000-4000 r--s 00009000 08:01 7 /data"), Reason::Hole { punched: false });
        let is = |second: &str| two(&format!("1000-3000 r--s 00002000 08:01 7 /data\n{second}\n"));
        assert_eq!(
            is("3000-4000 r--s 00004000 08:01 7 /data"),
            Reason::Hidden { flags_seen: false, file: true }
        );
        assert_eq!(is("3000-4000 r--s 00002000 08:01 7 /data"), Reason::Offset { step: Step::Repeats });
        assert_eq!(is("3000-4000 r--s 00001000 08:01 7 /data"), Reason::Offset { step: Step::Reversed });
        assert_eq!(is("3000-4000 r--s 00000000 08:01 7 /data"), Reason::Offset { step: Step::Back });
        // Equal permissions would not make them one.
        assert_eq!(is("3000-4000 rw-s 00002000 08:01 7 /data"), Reason::Offset { step: Step::Repeats });
        let pair = "rw-s | r--s".into();
        assert_eq!(is("3000-4000 rw-s 00004000 08:01 7 /data"), Reason::Permissions { pair });
        assert_eq!(is("3000-4000 r--s 00009000 08:01 7 /data"), Reason::Offset { step: Step::Skips });
        assert_eq!(is("3000-4000 r--s 00004000 08:01 8 /data"), Reason::Object);
        let text = "1000-2000 r--p 0 08:01 7 /lib/x.so\n2000-3000 r-xp 1000 08:01 7 /lib/x.so\n";
        assert_eq!(two(text), Reason::Segments);
        let text = "1000-2000 r--p 0 08:01 7 /x.so\nVmFlags: rd mr\n2000-3000 r--p 1000 08:01 7 /x.so\nVmFlags: rd mr ac\n";
        assert_eq!(two(text), Reason::Segments);
        let text =
            "1000-2000 rw-s 0 00:01 7 /dev/zero (deleted)\n2000-3000 rw-s 0 00:01 8 /dev/zero (deleted)\n";
        assert_eq!(two(text), Reason::SharedObjects { permissions_differ: false });
        let text =
            "1000-2000 rw-s 0 00:01 7 /memfd:a (deleted)\n2000-3000 r--s 0 00:01 8 /SYSV00000000 (deleted)\n";
        assert_eq!(two(text), Reason::SharedObjects { permissions_differ: true });
    }

    #[test]
    fn flags_of_smaps() {
        let is = |a: &str, b: &str| {
            two(&format!(
                "1000-2000 ---p 0 00:00 0 \nVmFlags: {a} \n2000-3000 ---p 0 00:00 0 \nVmFlags: {b} \n"
            ))
        };
        assert_eq!(is("mr mw me ac", "mr mw me"), Reason::Flags { flags: "ac".into() });
        assert_eq!(is("mr hg", "mr nh"), Reason::Flags { flags: "hg nh".into() });
        assert_eq!(is("mr sd", "mr"), Reason::Hidden { flags_seen: true, file: false });
        assert_eq!(is("mr pf", "mr"), Reason::Special);
        let cure = is("ac", "").cure().unwrap();
        assert!(cure.contains("MAP_NORESERVE"), "{cure}");
    }
}
