//! The programs' memory, shared with them.

use std::{
    cell::{Cell, RefCell, UnsafeCell},
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
const WINDOW: usize = 1 << 17;
/// Such pieces of a table that is read here and there. Whoever looks through more, as each interval does, maps one after the other
/// anew: with 20 that begins beyond some 800 processes.
const WINDOWS: usize = 20;

/// An array map with BPF_F_MMAPABLE, read and written where it lies. Elements lie `size_of::<T>()` apart, which is a multiple
/// of 8 as the kernel requires.
///
/// It is mapped by windows, as they are asked for: all of a mapped piece counts as resident at once
/// (kernel/bpf/arraymap.c:array_map_mmap), and of the largest table hardly anything is looked at twice in a moment.
pub struct Shared<T> {
    map: Held,
    len: usize,
    /// Of the whole map.
    bytes: usize,
    /// The one asked for last comes first; at most so many.
    windows: RefCell<Vec<(usize, Window)>>,
    most: usize,
    /// A piece could not be mapped, and read as zeros.
    torn: Cell<bool>,
    /// What stands for elements of such a piece.
    nothing: Box<UnsafeCell<T>>,
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

/// A mapped piece of a map.
#[derive(Debug)]
pub struct Window {
    at: *mut libc::c_void,
    bytes: usize,
}

impl Window {
    /// `from`: a multiple of the page. Children that are forked do not have it: one that is left behind would hold the map's
    /// memory in the kernel.
    pub fn new(map: BorrowedFd<'_>, from: usize, bytes: usize, writes: bool) -> io::Result<Self> {
        let rights = if writes { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: fresh addresses; the kernel checks length and rights.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), bytes, rights, libc::MAP_SHARED, map.as_raw_fd(), from as libc::off_t)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made; where this fails, a child that is left behind costs its memory.
        unsafe { libc::madvise(at, bytes, libc::MADV_DONTFORK) };
        Ok(Self { at, bytes })
    }

    /// The address of this byte, which lies in it.
    pub fn at(&self, byte: usize) -> *mut u8 {
        debug_assert!(byte < self.bytes);
        self.at.cast::<u8>().wrapping_add(byte.min(self.bytes))
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used after this.
        unsafe { libc::munmap(self.at, self.bytes) };
    }
}

impl<T: Pod> Shared<T> {
    /// A map of the object, which stays mapped as far as it was asked for. Error: it is of another kind.
    pub fn of_object(map: Map, len: usize) -> anyhow::Result<Self> {
        let shared = Self::new(Held::OfObject(map), len, usize::MAX);
        shared.map.fd()?;
        Ok(shared)
    }

    /// One that was put into the object. Error: its beginning cannot be mapped.
    pub fn placed(map: OwnedFd, len: usize) -> anyhow::Result<Self> {
        let shared = Self::new(Held::Placed(map), len, WINDOWS);
        shared.open(0).context("cannot map the programs' memory")?;
        Ok(shared)
    }

    fn new(map: Held, len: usize, most: usize) -> Self {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = (size_of::<T>() * len).next_multiple_of(page_size() as usize);
        let nothing = Box::new(UnsafeCell::new(T::zeroed()));
        Self { map, len, bytes, windows: RefCell::default(), most, torn: Cell::new(false), nothing }
    }

    /// Maps this window, with what its last element has beyond its end.
    fn open(&self, number: usize) -> anyhow::Result<()> {
        let from = number * WINDOW;
        let behind = size_of::<T>().next_multiple_of(page_size() as usize);
        let window = Window::new(self.map.fd()?, from, (WINDOW + behind).min(self.bytes - from), true)?;
        let mut windows = self.windows.borrow_mut();
        windows.truncate(self.most - 1);
        windows.insert(0, (number, window));
        Ok(())
    }

    /// A part of it could not be mapped: what was read of that is not what the programs wrote.
    pub fn torn(&self) -> bool {
        self.torn.get()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of an element, which holds until another one is asked for. Callers stay below [`Shared::len`].
    pub fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.len);
        let start = index.min(self.len - 1) * size_of::<T>();
        let (number, byte) = (start / WINDOW, start % WINDOW);
        self.find(number, byte).unwrap_or_else(|| {
            if self.open(number).is_err() {
                self.torn.set(true);
            }
            self.find(number, byte).unwrap_or_else(|| self.nothing())
        })
    }

    /// Nothing of it stays mapped until it is asked for again.
    pub fn let_go(&self) {
        self.windows.borrow_mut().clear();
    }

    fn find(&self, number: usize, byte: usize) -> Option<*mut T> {
        let mut windows = self.windows.borrow_mut();
        let place = windows.iter().position(|(of, _)| *of == number)?;
        if let Some(before) = windows.get_mut(..=place) {
            before.rotate_right(1);
        }
        Some(windows.first()?.1.at(byte).cast())
    }

    /// Zeros; what is written there is lost.
    fn nothing(&self) -> *mut T {
        // SAFETY: our own, and nobody holds a reference to it.
        unsafe { self.nothing.get().write(T::zeroed()) };
        self.nothing.get()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd as _;

    const LEN: usize = 100_000;
    type Element = [u64; 9];

    /// A table of zeros, as a file.
    fn file() -> OwnedFd {
        // SAFETY: a name that ends with 0; the descriptor is fresh, and nobody else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"table".as_ptr(), 0)) };
        let file = File::from(file);
        file.set_len((LEN * size_of::<Element>()).next_multiple_of(page_size() as usize) as u64).unwrap();
        file.into()
    }

    fn put(table: &Shared<Element>, index: usize) {
        // SAFETY: in bounds by `at`.
        unsafe { ptr::write_volatile(table.at(index), [index as u64; 9]) };
    }

    #[test]
    fn all_of_a_table_is_reached_through_a_few_windows() {
        let table = Shared::<Element>::placed(file(), LEN).unwrap();
        assert!(table.bytes > 2 * WINDOWS * WINDOW);
        (0..LEN).for_each(|index| put(&table, index));
        for index in (0..LEN).rev().chain(0..LEN) {
            assert_eq!(table.read(index), [index as u64; 9]);
            assert!(table.windows.borrow().len() <= WINDOWS);
        }
        assert!(!table.torn());
        table.let_go();
        assert!(table.windows.borrow().is_empty());
        assert_eq!(table.read(7), [7; 9]);
    }

    #[test]
    fn an_address_holds_while_the_same_element_is_asked_for_again_and_after_as_many_others_as_there_are_windows()
     {
        let table = Shared::<Element>::placed(file(), LEN).unwrap();
        let far = |n: usize| n * WINDOW / size_of::<Element>();
        let first = table.at(5);
        for other in 1..WINDOWS {
            put(&table, far(other));
        }
        // SAFETY: its window is still there.
        unsafe { ptr::write_volatile(first, [7; 9]) };
        put(&table, far(WINDOWS));
        put(&table, far(WINDOWS + 1));
        assert_eq!(table.read(5), [7; 9]);
    }

    #[test]
    fn what_cannot_be_mapped_reads_as_nothing_and_is_told() {
        let file = file();
        let read_only = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert!(Shared::<Element>::placed(read_only.try_clone().unwrap().into(), LEN).is_err());
        let table = Shared::<Element>::new(Held::Placed(read_only.into()), LEN, WINDOWS);
        put(&table, 3);
        assert_eq!((table.read(3), table.torn()), ([0; 9], true));
    }
}
