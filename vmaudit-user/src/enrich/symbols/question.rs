//! What the helper is asked and what it answers.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Image;
use super::demangle::cut;
use super::unwind::{Followed, Stack};
pub use crate::model::stack::INLINED;

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

/// All that may be asked.
pub struct Work<'w> {
    /// Addresses to name.
    pub addresses: &'w [Address],
    /// Stacks to follow.
    pub stacks: &'w [Stack],
    /// The mappings that they lie in.
    pub images: &'w HashMap<u64, Image>,
}

/// A line of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// By index of the address.
    Name(usize, Name),
    /// By index of the stack.
    Stack(usize, Followed),
    /// A task is done.
    Done,
}

/// One piece of work, after which the child says that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The stack of this index, of a process with this address space.
    Stack(usize, u64),
    /// ELF symbols: cheap, so of all files first.
    Elf(usize),
    PerfMap(u64),
    /// ELF symbols, DWARF lines.
    Dwarf(usize),
}

impl Task {
    /// The same for all tasks on one file, or on one process's stacks.
    pub fn file(self) -> Self {
        match self {
            Self::Dwarf(module) => Self::Elf(module),
            Self::Stack(_, generation) => Self::Stack(0, generation),
            other => other,
        }
    }

    /// It is about this address.
    pub fn concerns(self, address: &Address) -> bool {
        match self {
            Self::Elf(module) | Self::Dwarf(module) => address.module == Some(module),
            Self::Stack(..) => false,
            Self::PerfMap(generation) => address.jitted && address.generation == generation,
        }
    }
}
