//! Why two neighbours are two, in words, and what would make them one.
//!
//! Every cure here was tried by doing it: `tests/live/advice.rs` has each of them with a count before and after.

use serde::{Deserialize, Serialize};

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
    /// Two shared objects that are no files: each MAP_SHARED | MAP_ANONYMOUS, each memfd, each shmget makes one.
    SharedObjects {
        /// Their permissions differ as well.
        #[serde(default)]
        permissions_differ: bool,
    },
    /// Segments of one program or library.
    Segments,
    /// A guard page beside what it guards.
    Guard,
    /// A short range without access inside other memory.
    Decommitted,
    /// The used part of a glibc malloc arena beside the rest of it, or another arena.
    Arena,
    /// A large reservation beside its small accessible part.
    Head,
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
    /// The part that ends where the other begins: the two lie the wrong way round.
    Reversed,
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
            Self::SharedObjects { .. } => "pieces of shared memory, each an object of its own".to_owned(),
            Self::Segments => "segments of one program or library".to_owned(),
            Self::Guard => "a guard page beside what it guards".to_owned(),
            Self::Decommitted => "a short range without access inside memory".to_owned(),
            Self::Arena => "parts of glibc malloc arenas".to_owned(),
            Self::Head => "a large reservation beside its small accessible part".to_owned(),
            Self::Commit => "a reserved range beside its accessible part".to_owned(),
            Self::Permissions { pair } => format!("permissions {pair}"),
            Self::Flags { flags } => format!("flags differ: {flags}{}", meaning(flags)),
            Self::ProtectionKey => "protection keys differ".to_owned(),
            Self::Offset { step: Step::Repeats } => "the same part of the file mapped again".to_owned(),
            Self::Offset { step: Step::Reversed } => {
                "parts of the file in ascending order, each placed below the last".to_owned()
            }
            Self::Offset { step: Step::Back } => "file offset goes backwards".to_owned(),
            Self::Offset { step: Step::Skips } => "file offset skips".to_owned(),
            Self::Name => "names of anonymous memory differ".to_owned(),
            Self::Policy => "memory policies (NUMA) differ".to_owned(),
            Self::Hidden { flags_seen: true, .. } => "equal in everything that smaps shows".to_owned(),
            Self::Hidden { flags_seen: false, .. } => "equal in everything that maps shows".to_owned(),
        }
    }

    /// What would help, where something is known to.
    pub fn cure(&self) -> Option<String> {
        let text = match self {
            Self::Hole { punched: true } => {
                "free by madvise(MADV_DONTNEED), which keeps the mapping whole, or unmap larger pieces (allocators: a larger purge or retain unit)"
            }
            Self::SharedObjects { permissions_differ: false } => {
                "one larger shared mapping instead of many, or one memfd with parts of it at offsets"
            }
            Self::SharedObjects { permissions_differ: true } => {
                "one larger shared mapping for all parts of equal permissions"
            }
            Self::Guard => {
                "fewer threads or fibers, or on Linux 6.13 and later guards by madvise(MADV_GUARD_INSTALL), which need no VMA of their own"
            }
            Self::Decommitted => {
                "give memory back by madvise(MADV_DONTNEED) instead of mmap or mprotect with PROT_NONE, or in larger pieces (jemalloc does so with vm.overcommit_memory 0 or 1 and opt.retain)"
            }
            Self::Arena => "fewer arenas (MALLOC_ARENA_MAX=1 in the environment), or another allocator",
            Self::Head => {
                "fewer of them alive at a time, or memories mapped at their size (for WebAssembly in Node.js --disable-wasm-trap-handler together with a maximum equal to the initial size; a maximum alone changes nothing)"
            }
            Self::Commit => "make larger parts of a reservation accessible at once, one beside the other",
            Self::Permissions { .. } => {
                "mprotect in larger units: every change of protection inside a mapping costs one or two VMAs"
            }
            Self::Flags { flags } => return Some(flag_cure(flags)),
            Self::ProtectionKey => "give neighbours the same key",
            Self::Offset { step: Step::Repeats } => "share one mapping of that part",
            Self::Offset { step: Step::Reversed } => {
                "map larger pieces or the whole file at once (Lucene: a larger chunk size of MMapDirectory); mmap goes downward, so pieces mapped one by one merge only from the file's end to its beginning, or at addresses inside one reservation (MAP_FIXED)"
            }
            Self::Offset { .. } => "map the file as a whole, or in larger pieces",
            Self::Name => "name larger ranges, or give neighbours the same name (PR_SET_VMA_ANON_NAME)",
            Self::Policy => "bind larger ranges by one mbind, or the whole process (set_mempolicy, numactl)",
            Self::Hidden { flags_seen: false, .. } => {
                "look again with --details always (or give smaps and numa_maps): flags such as VM_ACCOUNT and memory policies are not shown in maps"
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

    /// Following the cure takes away each such boundary; of the others it depends.
    pub fn vanishes(&self) -> bool {
        !matches!(
            self,
            Self::Hidden { .. } | Self::Guard | Self::Arena | Self::Head | Self::Commit | Self::ProtectionKey
        ) && self.avoidable()
    }
}

/// What the mnemonics mean, for those that split most (fs/proc/task_mmu.c:show_smap_vma_flags).
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
    let text = if has("hg") || has("nh") {
        "advise huge pages for the whole region at once, or for the process by prctl(PR_SET_THP_DISABLE) or the system's setting"
    } else if has("lo") || has("lf") {
        "lock larger ranges, or all by mlockall"
    } else if has("dd") || has("rr") || has("sr") || has("dc") || has("wf") || has("mg") {
        "give the advice for larger ranges: each madvise that changes a flag splits at its ends"
    } else if has("nr") {
        "one side was mapped with MAP_NORESERVE and the other without: map both alike"
    } else if has("ac") {
        "memory that was once writable stays accounted (VM_ACCOUNT): give back by mmap(MAP_FIXED, PROT_NONE) instead of mprotect, or reserve with MAP_NORESERVE (no help before Linux 6.16 next to memory that was never touched, nor where vm.overcommit_memory is 2)"
    } else {
        "make the call that set the flag for a larger range"
    };
    text.to_owned()
}
