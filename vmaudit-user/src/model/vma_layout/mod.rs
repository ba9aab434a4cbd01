//! What `explain` found: who owns the VMAs of a process, and why neighbours do not merge.

pub mod reason;

use serde::{Deserialize, Serialize};

pub use reason::{Reason, Step};

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

    /// Adds all mappings of another sum.
    pub fn join(&mut self, other: &Self) {
        self.vmas = self.vmas.saturating_add(other.vmas);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.resident_bytes = self.resident_bytes.saturating_add(other.resident_bytes);
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
    /// Different objects (inodes) of that name; null where they are not counted.
    #[serde(default)]
    pub objects: Option<u64>,
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

/// Stacks behind guard pages: of threads or fibers, by their shape and number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stacks {
    /// Stacks.
    pub stacks: u64,
    /// Alternate signal stacks behind guard pages of their own.
    pub signal_stacks: u64,
    /// Threads of the process; null where nobody tells.
    pub threads: Option<u64>,
    /// The program asked for them as stacks (MAP_STACK), or there are about as many threads; else only their shape says
    /// so.
    pub certain: bool,
}

/// Shared memory that is no file: MAP_SHARED | MAP_ANONYMOUS, memfd, System V.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SharedMemory {
    /// VMAs.
    pub vmas: u64,
    /// Objects that they map; at least so many when there are more than 100,000.
    pub objects: u64,
}

/// Large reservations of which a small beginning is accessible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heads {
    /// Reservations.
    pub reservations: u64,
    /// Bytes of address space of all of them.
    pub bytes: u64,
}

/// What somebody could do, and what it promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Advice {
    /// In words.
    pub text: String,
    /// VMAs fewer once it is followed everywhere; null where that depends.
    pub fewer: Option<u64>,
}

/// Where the mappings stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A living process.
    Process,
    /// A copy of its maps or smaps.
    #[default]
    Copy,
    /// The log that a JVM writes when it dies.
    JvmLog,
    /// A core file.
    Core,
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
    /// Where they stood.
    #[serde(default)]
    pub origin: Origin,
    /// vm.max_map_count: of a process here and now, of a file what it holds; null where it holds none.
    pub max_map_count: Option<u64>,
    /// Threads; null where nobody tells.
    #[serde(default)]
    pub threads: Option<u64>,
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
    /// Files by folder and pattern of their names: `/d/_*.dvd (deleted)`.
    #[serde(default)]
    pub patterns: Vec<Row>,
    /// By permissions.
    pub permissions: Vec<Row>,
    /// By size.
    pub sizes: Vec<Row>,
    /// Boundaries by reason.
    pub boundaries: Vec<BoundaryRow>,
    /// Regions of most pieces.
    pub regions: Vec<Region>,
    /// Stacks behind guard pages.
    #[serde(default)]
    pub stacks: Stacks,
    /// Shared memory that is no file.
    #[serde(default)]
    pub shared: SharedMemory,
    /// Large reservations with a small accessible beginning.
    #[serde(default)]
    pub heads: Heads,
    /// The address space.
    pub picture: Vec<Cluster>,
    /// The verdict.
    pub verdict: Vec<String>,
    /// What would help.
    #[serde(default)]
    pub advice: Vec<Advice>,
}

impl Explanation {
    /// Takes out all addresses.
    pub fn hide_addresses(&mut self) {
        self.boundaries.iter_mut().for_each(|row| row.example = None);
        self.regions.iter_mut().for_each(|region| region.start = None);
        self.picture.iter_mut().for_each(Cluster::hide_addresses);
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
    /// Small stacks behind guard pages, one for each thread: for handlers of signals.
    SignalStack,
    /// A short range without access beside a longer one with it.
    Guard,
    /// A short range without access inside other memory: decommitted or protected.
    Decommitted,
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
            Self::SignalStack => "alternate signal stacks",
            Self::Guard => "guard pages",
            Self::Decommitted => "short ranges without access inside memory",
            Self::Arena => "malloc arenas (glibc)",
            Self::Reserved => "ranges without access (reserved)",
            Self::Named => "named anonymous memory",
            Self::Jit => "executable anonymous memory",
            Self::Anonymous => "anonymous memory",
            Self::Kernel => "kernel-made (vdso, vvar)",
        }
    }
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

impl Cluster {
    /// Takes out its addresses.
    pub fn hide_addresses(&mut self) {
        (self.start, self.end) = (None, None);
    }
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
