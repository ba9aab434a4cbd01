//! What the helper is asked and what it answers.

use serde::{Deserialize, Serialize};

use super::demangle::cut;

/// Inlined functions kept of one address.
pub const INLINED: usize = 16;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub symbol: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Functions that were inlined there, innermost first; these have none themselves.
    pub inlined: Vec<Self>,
}

impl Name {
    /// Without a place in a source.
    pub fn bare(symbol: String) -> Self {
        Self { symbol, file: None, line: None, inlined: Vec::new() }
    }

    /// Whoever wrote it, it is short.
    pub fn cut(&self) -> Self {
        let inlined =
            self.inlined.iter().take(INLINED).map(|name| Self { inlined: Vec::new(), ..name.cut() });
        Self {
            symbol: cut(&self.symbol),
            file: self.file.as_deref().map(cut),
            line: self.line,
            inlined: inlined.collect(),
        }
    }
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
