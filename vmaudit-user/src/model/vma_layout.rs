//! What `explain` found: who owns the VMAs of a process, and why neighbours do not merge.

use serde::{Deserialize, Serialize};

/// Sum over mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tally {
    /// VMAs.
    pub vmas: u64,
    /// Bytes of address space.
    pub bytes: u64,
    /// Resident bytes; 0 when smaps was not read.
    pub resident_bytes: u64,
}

impl Tally {
    /// Adds a mapping of so many bytes, of which these are resident.
    pub fn add(&mut self, bytes: u64, resident_bytes: u64) {
        self.vmas += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.resident_bytes = self.resident_bytes.saturating_add(resident_bytes);
    }
}

/// A named row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Row {
    /// What.
    pub name: String,
    /// Its sum.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Boundaries of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BoundaryRow {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub title: String,
    /// Boundaries.
    pub boundaries: u64,
    /// Address of one of them, hexadecimal; null when it is not the caller's to know.
    pub example: Option<String>,
    /// What would help; null where nothing is known or nothing is wrong.
    pub cure: Option<String>,
}

/// Mappings of one object that follow each other without a wide hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Region {
    /// First address, hexadecimal; null when it is not the caller's to know.
    pub start: Option<String>,
    /// Length, bytes.
    pub bytes: u64,
    /// VMAs.
    pub vmas: u64,
    /// What it is: a file's name, or anonymous memory.
    pub name: String,
    /// Commonest size of a piece, bytes.
    pub piece_bytes: u64,
    /// Pieces of that size.
    pub pieces: u64,
    /// Commonest reasons between its pieces, at most three, with their boundaries.
    pub reasons: Vec<(Reason, u64)>,
    /// VMAs that are stacks or their guard pages.
    pub stacks: u64,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    /// `vmaudit.explain`.
    pub schema: String,
    /// 1.
    pub version: u32,
    /// Process, when it was a live one.
    pub pid: Option<u32>,
    /// Application or file.
    pub subject: String,
    /// VMAs.
    pub vmas: u64,
    /// These are all of them; false when reading ended early.
    pub complete: bool,
    /// vm.max_map_count here and now; null for a recorded file.
    pub max_map_count: Option<u64>,
    /// smaps was read: flags and resident memory are known.
    pub flags_seen: bool,
    /// Sentences about what could not be read.
    pub notes: Vec<String>,
    /// Damage of the input.
    pub damage: Damage,
    /// Bytes of address space, resident bytes.
    pub total: Tally,
    /// By kind.
    pub kinds: Vec<(Kind, Tally)>,
    /// By owner: file or name of memory.
    pub owners: Vec<Row>,
    /// By ending of the file's name.
    pub extensions: Vec<Row>,
    /// By permissions.
    pub permissions: Vec<Row>,
    /// By size.
    pub sizes: Vec<Row>,
    /// Boundaries by reason.
    pub boundaries: Vec<BoundaryRow>,
    /// Regions of most pieces.
    pub regions: Vec<Region>,
    /// The address space.
    pub picture: Vec<Cluster>,
    /// The verdict.
    pub verdict: Vec<String>,
}

impl Explanation {
    /// Takes out all addresses.
    pub fn hide_addresses(&mut self) {
        self.boundaries.iter_mut().for_each(|row| row.example = None);
        self.regions.iter_mut().for_each(|region| region.start = None);
        for row in &mut self.picture {
            (row.start, row.end) = (None, None);
        }
    }
}

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program or library (executable file or its segments).
    Library,
    /// Any other file.
    File,
    /// A file that was deleted.
    DeletedFile,
    /// memfd, /dev/shm, SysV, MAP_SHARED | MAP_ANONYMOUS.
    SharedMemory,
    /// A device.
    Device,
    /// `[heap]`: brk.
    Heap,
    /// `[stack]` of the first thread.
    MainStack,
    /// Memory behind a guard page: stacks of threads and fibers.
    Stack,
    /// A short range without access beside a longer one with it.
    Guard,
    /// glibc's malloc arenas: 64 MiB, aligned.
    Arena,
    /// Another range without access.
    Reserved,
    /// Anonymous memory with a name.
    Named,
    /// Anonymous memory that can be executed: compiled at run time.
    Jit,
    /// Other anonymous memory.
    Anonymous,
    /// vdso, vvar, uprobes.
    Kernel,
}

impl Kind {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Library => "programs and libraries",
            Self::File => "other files",
            Self::DeletedFile => "deleted files",
            Self::SharedMemory => "shared memory",
            Self::Device => "devices",
            Self::Heap => "heap (brk)",
            Self::MainStack => "main stack",
            Self::Stack => "stacks behind a guard page",
            Self::Guard => "guard pages",
            Self::Arena => "malloc arenas (glibc)",
            Self::Reserved => "ranges without access (reserved)",
            Self::Named => "named anonymous memory",
            Self::Jit => "executable anonymous memory",
            Self::Anonymous => "anonymous memory",
            Self::Kernel => "kernel-made (vdso, vvar)",
        }
    }
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The same part of the file again.
    Repeats,
    /// Backwards.
    Back,
    /// Forwards over a gap.
    Skips,
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

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cluster {
    /// First address; null when it is not the caller's to know.
    pub start: Option<u64>,
    /// Address behind the last byte; null as above.
    pub end: Option<u64>,
    /// From the first address to the last, bytes.
    pub bytes: u64,
    /// VMAs in it.
    pub vmas: u64,
    /// Bytes mapped.
    pub mapped_bytes: u64,
    /// Bytes of address space that one cell stands for.
    pub cell_bytes: u64,
    /// VMAs that begin in each cell.
    pub cells: Vec<u64>,
}

/// What a file held besides good mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Damage {
    /// Lines that are neither a mapping nor a field of one.
    pub lines: u64,
    /// Number of the first such line, counted from 1.
    pub first: Option<u64>,
    /// Lines cut because they were too long.
    pub cut: u64,
    /// The last line does not end in a newline: the file is not complete.
    pub truncated: bool,
}
