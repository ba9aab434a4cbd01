//! An example of a refused call, and where it was made.

use serde::{Deserialize, Serialize};

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
}

/// One frame of a user stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}
