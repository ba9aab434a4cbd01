//! An example of a refused call, and where it was made: its stack.

use serde::{Deserialize, Serialize};

/// Functions of one stack that are kept, where it was followed.
pub const FUNCTIONS: usize = 128;
/// Functions that the compiler put into one, of those that are kept.
pub const INLINED: usize = 16;
/// Sentences about one stack.
pub const STACK_NOTES: usize = 8;

/// One failing call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Example {
    /// Task id.
    pub tid: u32,
    /// Arguments by name: addresses and flags as hexadecimal strings, lengths as numbers; null for an address that is
    /// not the caller's to know.
    pub args: serde_json::Map<String, serde_json::Value>,
    /// User stack, innermost first; empty when it was not taken.
    pub stack: Vec<Frame>,
    /// Sentences about the stack: where and why it is cut, what may be missing, how names could be had.
    #[serde(default)]
    pub stack_notes: Vec<String>,
}

/// One frame of a user stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Frame {
    /// Return address, hexadecimal; null when it is not the caller's to know.
    pub ip: Option<String>,
    /// Function; null when unresolved.
    pub symbol: Option<String>,
    /// Mapped file; null for anonymous memory.
    pub module: Option<String>,
    /// Offset in the module's file, bytes.
    #[serde(default)]
    pub offset: Option<u64>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// The compiler put this function into the next one, whose code (`ip`, `offset`) it shares; `file` and `line` are
    /// its own.
    #[serde(default)]
    pub inlined: bool,
}

impl Frame {
    /// An address of which nothing is known.
    pub fn bare(ip: u64) -> Self {
        let ip = Some(format!("{ip:#x}"));
        Self { ip, symbol: None, module: None, offset: None, file: None, line: None, inlined: false }
    }

    /// The same line of the same function; where it has no name, the same address.
    pub fn is_like(&self, other: &Self) -> bool {
        let known = (&self.symbol, &self.module, &self.file, self.line, self.inlined)
            == (&other.symbol, &other.module, &other.file, other.line, other.inlined);
        known && (self.symbol.is_some() || (&self.ip, self.offset) == (&other.ip, other.offset))
    }
}

/// A part of a thread's user stack, as it was when its call was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackPiece {
    /// Address space.
    pub generation: u64,
    /// Task id.
    pub tid: u32,
    /// [`crate::model::event::Refused::at_ns`] of the call.
    pub at_ns: u64,
    /// The stack pointer.
    pub sp: u64,
    /// Address of the first byte.
    pub start: u64,
    /// The registers in the kernel's order.
    #[serde(skip)]
    pub registers: Vec<u64>,
    /// What the process keeps there, which is nobody's to read.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

/// See [`crate::model::event::Event::Stack`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowedStack {
    /// Address space.
    pub generation: u64,
    /// [`crate::model::event::Refused::tid`] of the call.
    pub tid: u32,
    /// [`crate::model::event::Refused::at_ns`] of the call.
    pub at_ns: u64,
    /// The program counter, then return addresses, innermost first; empty where [`crate::model::event::Refused::stack`] has to do.
    pub addresses: Vec<u64>,
    /// Sentences: where and why it is cut, and how its names could be had.
    pub notes: Vec<String>,
    /// It is that of a credited call, from this [`crate::model::event::Place`]; `None`: of a refused one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
    /// Callers are missing at its outer end, or may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A mapping, or an address where nothing is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// Address space.
    pub generation: u64,
    /// First address.
    pub start: u64,
    /// Address behind it.
    pub end: u64,
    /// Of `start` in the file, bytes.
    pub offset: u64,
    /// Code may run there.
    pub executable: bool,
    /// `None` for memory without a file, and where it is not executable.
    pub file: Option<MappedFile>,
}

/// A mapped file, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedFile {
    /// From the root of all mounts that the process sees; begins with `.../` where it is not known up to there.
    pub path: String,
    /// Inode number.
    pub inode: u64,
    /// Last change of the inode: seconds and nanoseconds. No one can set it, so together with the number it tells the file
    /// from any other that stood or will stand there.
    pub changed: (i64, u32),
}

/// See [`crate::model::event::Event::StackEnds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackEnds {
    /// Address space.
    pub generation: u64,
    /// The word.
    pub ip: u64,
}

/// The name of an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackName {
    /// Address space.
    pub generation: u64,
    /// The address as it stands on the stack.
    pub ip: u64,
    /// What it is called.
    pub frame: Frame,
    /// Functions that were inlined into it there, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inlined: Vec<Frame>,
}
