//! What the helper is asked and what it answers.

/// An address to name.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub at: u64,
    pub in_file: u64,
    pub module: Option<usize>,
    pub generation: u64,
    pub jitted: bool,
}

/// What an address is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub symbol: String,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// One piece of work, after which the child says that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// ELF symbols: cheap, so of all files first.
    Elf(usize),
    PerfMap(u64),
    /// ELF symbols, DWARF lines.
    Dwarf(usize),
}

impl Task {
    /// The same for all tasks on one file.
    pub fn file(self) -> Self {
        match self {
            Self::Dwarf(module) => Self::Elf(module),
            other => other,
        }
    }

    /// It is about this address.
    pub fn concerns(self, address: &Address) -> bool {
        match self {
            Self::Elf(module) | Self::Dwarf(module) => address.module == Some(module),
            Self::PerfMap(generation) => address.jitted && address.generation == generation,
        }
    }
}
