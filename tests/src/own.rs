//! What the workload said about itself; see `src/bin/workload/own.rs`, which writes it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One process's line. Counts of VMAs.
#[derive(Clone, Debug, Deserialize)]
pub struct Own {
    /// Part it played.
    pub role: String,
    /// Process.
    pub pid: u32,
    /// Count after everything was prepared.
    pub base: u64,
    /// Largest count after any call; 0 = not known.
    pub peak: u64,
    /// Count at its end.
    #[serde(default)]
    pub last: Option<u64>,
    /// Count at its birth by fork.
    #[serde(default)]
    pub first: Option<u64>,
    /// Bytes that failed calls left mapped.
    pub leaked_bytes: u64,
    /// Its largest sizes, when they are known.
    #[serde(default)]
    pub sizes: Option<Sizes>,
    /// Calls from birth to end; empty = not known.
    pub calls: BTreeMap<String, Calls>,
    /// Refusals that it provoked.
    pub refused: Vec<Refused>,
}

/// Largest sizes of a process, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Sizes {
    /// All of it.
    pub address_space: u64,
    /// Private and writable.
    pub data: u64,
    /// Locked.
    pub locked: u64,
    /// Stacks that grow.
    pub stack: u64,
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Calls {
    /// Made.
    pub calls: u64,
    /// Refused.
    pub failed: u64,
}

/// Refusals of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Refused {
    /// The kernel's name of the call.
    pub syscall: String,
    /// Name of the errno.
    pub errno: String,
    /// The report's name of the cause.
    pub cause: String,
    /// How many.
    pub count: u64,
}

/// Reads the workload's stdout.
pub fn parse(stdout: &[u8]) -> Vec<Own> {
    let text = str::from_utf8(stdout).expect("the workload prints UTF-8");
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the workload's line {line}"))
    };
    text.lines().map(parse).collect()
}
