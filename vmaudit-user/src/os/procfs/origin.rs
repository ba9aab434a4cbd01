//! What a process began with, and where.

use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;

use nix::fcntl::readlinkat;

use super::Handle;

/// Bytes of an environment: exec takes no more by default (a quarter of 8 MiB of stack).
const MOST: u64 = 2 << 20;

impl Handle {
    /// What it began with in its environment, as it stands in memory, as far as that is bounded.
    pub fn environment(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file("environ").ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Its working directory.
    pub fn directory(&self) -> Option<String> {
        let target = readlinkat(&self.directory, "cwd").ok()?;
        Some(String::from_utf8_lossy(&target.into_vec()).into_owned())
    }
}
