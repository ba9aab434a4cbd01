//! The programs' memory, shared with them.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader},
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{Ordering, fence},
};

use anyhow::{Context as _, anyhow};
use aya::maps::Map;
use bytemuck::Pod;

use crate::domain::vma_layout::maps_parser::Parser;
use crate::source::ebpf::page_size;

/// Bytes mapped at one time.
const WINDOW: usize = 1 << 20;

/// An array map with BPF_F_MMAPABLE, mapped for reading and writing. Elements lie `size_of::<T>()` apart, which is a
/// multiple of 8 as the kernel requires.
///
/// Its addresses are reserved from the start, and its memory is mapped as far as it is asked for: all of a mapped piece
/// counts as resident at once (kernel/bpf/arraymap.c:array_map_mmap), and most sessions need the first of it.
pub struct Shared<T> {
    base: *mut T,
    len: usize,
    bytes: usize,
    mapped: Cell<usize>,
    /// A piece could not be mapped, and reads as zeros.
    torn: Cell<bool>,
    map: Held,
}

/// Under the number that stands in programs that are loaded later.
enum Held {
    OfObject(Map),
    Placed(OwnedFd),
}

impl Held {
    fn fd(&self) -> anyhow::Result<BorrowedFd<'_>> {
        match self {
            Self::OfObject(Map::Array(data)) => Ok(data.fd().as_fd()),
            Self::OfObject(_) => Err(anyhow!("a shared map is no array")),
            Self::Placed(fd) => Ok(fd.as_fd()),
        }
    }
}

impl<T: Pod> Shared<T> {
    /// A map of the object. Error: it is of another kind, or its beginning cannot be mapped.
    pub fn of_object(map: Map, len: usize) -> anyhow::Result<Self> {
        Self::new(Held::OfObject(map), len)
    }

    /// One that was put into the object. Error: its beginning cannot be mapped.
    pub fn placed(map: OwnedFd, len: usize) -> anyhow::Result<Self> {
        Self::new(Held::Placed(map), len)
    }

    fn new(map: Held, len: usize) -> anyhow::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let page = page_size() as usize;
        let bytes = (size_of::<T>() * len).div_ceil(page) * page;
        // SAFETY: fresh addresses without memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the programs' memory");
        }
        let (mapped, torn) = (Cell::new(0), Cell::new(false));
        let shared = Self { base: base.cast(), len, bytes, mapped, torn, map };
        shared.map_up_to(1).context("cannot map the programs' memory")?;
        Ok(shared)
    }

    /// Maps windows until so many bytes are there.
    fn map_up_to(&self, wanted: usize) -> anyhow::Result<()> {
        let map = self.map.fd()?.as_raw_fd();
        let from = self.mapped.get();
        let to = wanted.next_multiple_of(WINDOW).min(self.bytes);
        let at = self.base.cast::<libc::c_void>().wrapping_byte_add(from);
        // SAFETY: the part of our own reservation that holds nothing yet; the kernel checks length and rights. What was
        // mapped before stays.
        let window = unsafe {
            libc::mmap(
                at,
                to - from,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                map,
                from as libc::off_t,
            )
        };
        if window == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the mapping just made; where this fails, a child that is left behind costs its memory.
        unsafe { libc::madvise(window, to - from, libc::MADV_DONTFORK) };
        self.mapped.set(to);
        Ok(())
    }

    /// As [`Shared::map_up_to`], with memory of our own where there is no other way.
    fn reach(&self, wanted: usize) {
        let from = self.mapped.get();
        if self.map_up_to(wanted).is_err() {
            self.torn.set(true);
            let at = self.base.cast::<libc::c_void>().wrapping_byte_add(from);
            // SAFETY: the part of our own reservation that holds nothing yet.
            unsafe { libc::mprotect(at, self.bytes - from, libc::PROT_READ | libc::PROT_WRITE) };
            self.mapped.set(self.bytes);
        }
    }

    /// A part of it could not be mapped: what is read of that is not what the programs wrote.
    pub fn torn(&self) -> bool {
        self.torn.get()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of an element, mapped. Callers stay below [`Shared::len`].
    pub fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.len);
        let index = index.min(self.len - 1);
        let end = (index + 1) * size_of::<T>();
        if end > self.mapped.get() {
            self.reach(end);
        }
        self.base.wrapping_add(index)
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
pub fn keep_from_children() -> io::Result<()> {
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
                return Err(io::Error::last_os_error());
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
