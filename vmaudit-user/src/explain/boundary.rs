//! Why two mappings that follow each other are two. Pure.
//!
//! The conditions are those of `is_mergeable_vma` and its callers (mm/mmap.c up to 6.9, mm/vma.c since 6.10), as far as
//! maps and smaps show them. What they do not show (another open of the same file, pages faulted apart, a fork, a
//! userfaultfd) is said to be hidden, never guessed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::maps::{Flag, Mapping, Permissions};

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Not neighbours: nothing is mapped in between.
    Hole {
        /// Both sides are of one kind with equal permissions, and the hole is small: something was unmapped there.
        punched: bool,
    },
    /// One of them never merges: a device, a mapping that must not expand, a page range without struct page.
    Special,
    /// Different objects: another file, or a file beside anonymous memory.
    Object,
    /// Two shared objects without a name: each MAP_SHARED | MAP_ANONYMOUS makes one.
    SharedObjects,
    /// Segments of one program or library.
    Segments,
    /// A guard page beside what it guards.
    Guard,
    /// The used part of a glibc malloc arena beside the rest of it, or another arena.
    Arena,
    /// A reserved range beside a part of it that was made accessible.
    Commit,
    /// Permissions differ.
    Permissions {
        /// Of the two, in a fixed order.
        pair: String,
    },
    /// Other flags differ.
    Flags {
        /// Mnemonics of VmFlags that one side has, sorted.
        flags: String,
    },
    /// Protection keys differ.
    ProtectionKey,
    /// The same file, and its offsets do not continue.
    Offset {
        /// What they do instead.
        step: Step,
    },
    /// Names given to anonymous memory differ.
    Name,
    /// NUMA policies differ.
    Policy,
    /// Equal in everything that can be seen.
    Hidden {
        /// Flags were seen as well (smaps), not only the columns of maps.
        flags_seen: bool,
        /// They map a file.
        file: bool,
    },
}

/// What the offsets of two mappings of one file do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The same part of the file again.
    Repeats,
    /// Backwards.
    Back,
    /// Forwards over a gap.
    Skips,
}

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
        let nameless = |m: &Mapping| m.permissions.shared && m.name.starts_with("/dev/zero");
        return if nameless(a) && nameless(b) { Reason::SharedObjects } else { Reason::Object };
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

impl Reason {
    /// For people: what keeps the two apart.
    pub fn title(&self) -> String {
        match self {
            Self::Hole { punched: true } => "a small hole between equal mappings".to_owned(),
            Self::Hole { punched: false } => "unmapped space between them".to_owned(),
            Self::Special => "a mapping that never merges (device, vdso, VM_SPECIAL)".to_owned(),
            Self::Object => "different objects".to_owned(),
            Self::SharedObjects => "shared anonymous objects, each its own".to_owned(),
            Self::Segments => "segments of one program or library".to_owned(),
            Self::Guard => "a guard page beside what it guards".to_owned(),
            Self::Arena => "parts of glibc malloc arenas".to_owned(),
            Self::Commit => "a reserved range beside its accessible part".to_owned(),
            Self::Permissions { pair } => format!("permissions {pair}"),
            Self::Flags { flags } => format!("flags differ: {flags}{}", meaning(flags)),
            Self::ProtectionKey => "protection keys differ".to_owned(),
            Self::Offset { step: Step::Repeats } => "the same part of the file mapped again".to_owned(),
            Self::Offset { step: Step::Back } => "file offset goes backwards".to_owned(),
            Self::Offset { step: Step::Skips } => "file offset skips".to_owned(),
            Self::Name => "names of anonymous memory differ".to_owned(),
            Self::Policy => "NUMA policies differ".to_owned(),
            Self::Hidden { flags_seen: true, .. } => "equal in everything that smaps shows".to_owned(),
            Self::Hidden { flags_seen: false, .. } => "equal in everything that maps shows".to_owned(),
        }
    }

    /// What would help, where something is known to.
    pub fn cure(&self) -> Option<String> {
        let text = match self {
            Self::Hole { punched: true } => {
                "pieces were unmapped: free by madvise(MADV_DONTNEED), which keeps the mapping whole, or unmap larger pieces (allocators: a larger purge or retain unit)"
            }
            Self::SharedObjects => "one larger MAP_SHARED object, or one memfd with parts of it at offsets",
            Self::Guard => {
                "fewer threads or fibers; from Linux 6.13 on madvise(MADV_GUARD_INSTALL) guards without a VMA of its own"
            }
            Self::Arena => "fewer arenas: MALLOC_ARENA_MAX, or another allocator",
            Self::Commit => {
                "make larger parts of a reservation accessible at once; a part that is given back by mprotect may stay apart (VM_ACCOUNT), so reserve with MAP_NORESERVE"
            }
            Self::Permissions { .. } => {
                "mprotect in larger units: every change of protection inside a mapping costs one or two VMAs"
            }
            Self::Flags { flags } => return Some(flag_cure(flags)),
            Self::ProtectionKey => "give neighbours the same key",
            Self::Offset { step: Step::Repeats } => "the file is mapped more than once: share one mapping",
            Self::Offset { .. } => "map the file in the order of its offsets, or as a whole",
            Self::Name => "name larger ranges, or give neighbours the same name (PR_SET_VMA_ANON_NAME)",
            Self::Policy => "bind larger ranges (mbind, numactl), or the whole process",
            Self::Hidden { flags_seen: false, .. } => {
                "run it with --details always (or give smaps): flags such as VM_ACCOUNT are not shown in maps"
            }
            Self::Hidden { file: true, .. } => {
                "another open() of the same file, another userfaultfd, or a neighbour that no call touched since"
            }
            Self::Hidden { file: false, .. } => {
                "pages faulted in apart, moved by mremap, or inherited over fork: map it as one piece before it is first used"
            }
            Self::Hole { punched: false } | Self::Special | Self::Object | Self::Segments => return None,
        };
        Some(text.to_owned())
    }

    /// Somebody could have had one mapping here.
    pub fn avoidable(&self) -> bool {
        self.cure().is_some()
    }
}

/// What the mnemonics mean, for those that split most.
fn meaning(flags: &str) -> String {
    let words: Vec<&str> = flags
        .split(' ')
        .filter_map(|flag| {
            Some(match flag {
                "ac" => "VM_ACCOUNT",
                "nr" => "MAP_NORESERVE",
                "hg" => "MADV_HUGEPAGE",
                "nh" => "MADV_NOHUGEPAGE or MAP_STACK",
                "mg" => "MADV_MERGEABLE",
                "dd" => "MADV_DONTDUMP",
                "rr" => "MADV_RANDOM",
                "sr" => "MADV_SEQUENTIAL",
                "dc" => "MADV_DONTFORK",
                "wf" => "MADV_WIPEONFORK",
                "lo" => "mlock",
                "lf" => "mlock on fault",
                "sl" => "mseal",
                "gd" => "grows down",
                "ht" => "huge pages",
                "um" | "uw" | "ui" => "userfaultfd",
                _ => return None,
            })
        })
        .collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn flag_cure(flags: &str) -> String {
    let has = |flag: &str| flags.split(' ').any(|it| it == flag);
    let text = if has("ac") || has("nr") {
        "memory that was once writable stays accounted (VM_ACCOUNT): reserve with MAP_NORESERVE, or give back by mmap(MAP_FIXED, PROT_NONE) instead of mprotect"
    } else if has("hg") || has("nh") {
        "advise huge pages for the whole region at once, or for the process by prctl(PR_SET_THP_DISABLE) or the system's setting"
    } else if has("lo") || has("lf") {
        "lock larger ranges, or all by mlockall"
    } else if has("dd") || has("rr") || has("sr") || has("dc") || has("wf") || has("mg") {
        "give the advice for larger ranges: each madvise that changes a flag splits at its ends"
    } else {
        "make the call that set the flag for a larger range"
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::Parser;

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
        assert_eq!(is("3000-4000 r--s 00001000 08:01 7 /data"), Reason::Offset { step: Step::Back });
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
        assert_eq!(two(text), Reason::SharedObjects);
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
