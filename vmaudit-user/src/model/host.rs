//! Whose address space a process lives in.

use serde::{Deserialize, Serialize};

/// The address space that a process lives in without having one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The address space.
    pub generation: u64,
    /// Whose it is.
    pub tgid: u32,
}
