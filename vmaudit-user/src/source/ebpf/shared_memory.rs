//! The programs' memory, shared with them.

use std::{
    fs::File,
    io::BufReader,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{Ordering, fence},
};

use anyhow::{Context as _, anyhow};
use aya::maps::Map;
use bytemuck::Pod;

use crate::domain::vma_layout::maps_parser::Parser;
use crate::source::ebpf::page_size;

/// An array map with BPF_F_MMAPABLE, mapped for reading and writing. Elements lie `size_of::<T>()` apart, which is a
/// multiple of 8 as the kernel requires.
pub struct Shared<T> {
    base: *mut T,
    len: usize,
    bytes: usize,
    _map: Map,
}

impl<T: Pod> Shared<T> {
    pub fn new(map: Map, len: usize) -> anyhow::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let Map::Array(data) = &map else { return Err(anyhow!("a shared map is no array")) };
        let page = page_size() as usize;
        let bytes = (size_of::<T>() * len).div_ceil(page) * page;
        // SAFETY: a fresh mapping of a map's memory; the kernel checks length and rights.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("cannot map the programs' memory");
        }
        Ok(Self { base: base.cast(), len, bytes, _map: map })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Callers stay below [`Shared::len`].
    pub fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.len);
        self.base.wrapping_add(index.min(self.len - 1))
    }

    /// A copy. Words may be from slightly different moments while the kernel side writes; each is whole by itself.
    pub fn read(&self, index: usize) -> T {
        fence(Ordering::Acquire);
        // SAFETY: in bounds by `at`; any bytes are a valid `T` (Pod); volatile because the kernel writes too.
        unsafe { ptr::read_volatile(self.at(index)) }
    }
}

/// Keeps the programs' memory, the ring buffer's too, out of children that are forked from now on: one that is left
/// behind would hold it in the kernel.
pub fn keep_from_children() -> std::io::Result<()> {
    let mut maps = Parser::new(BufReader::new(File::open("/proc/self/maps")?));
    while let Some(mapping) = maps.next_mapping()? {
        if mapping.name.starts_with("anon_inode:bpf") {
            // SAFETY: a mapping of ours as it stands; its memory and its use here do not change.
            let done = unsafe {
                libc::madvise(
                    mapping.start as *mut libc::c_void,
                    mapping.bytes() as usize,
                    libc::MADV_DONTFORK,
                )
            };
            if done != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used after this.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}
