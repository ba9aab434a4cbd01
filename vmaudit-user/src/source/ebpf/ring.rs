//! The ring buffer of the programs' records (kernel/bpf/ringbuf.c), of which only the piece that is being read is mapped: all
//! that is mapped counts as resident, and twice, since the kernel shows the data a second time behind their end.

use std::{
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    slice,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};

use anyhow::{Context as _, anyhow};
use aya::maps::{Map, MapData};

use crate::source::ebpf::page_size;
use crate::source::ebpf::shared_memory::Window;

/// Bytes mapped at one time, if a record is no longer.
const WINDOW: usize = 1 << 17;
/// Bytes before each record: its length with these bits, and where it lies (struct bpf_ringbuf_hdr).
const HEAD: usize = 8;
/// It is being written.
const BUSY: u32 = 1 << 31;
/// It is none.
const DISCARDED: u32 = 1 << 30;

/// See the head of this file.
pub struct Ring<M = Records> {
    map: M,
    /// Bytes of data, a power of two.
    bytes: usize,
    /// The reader's position, then the writers': a page each.
    read: Window,
    written: Window,
    /// A piece of the data, and where it begins.
    piece: Option<(usize, Window)>,
    /// The next record.
    position: usize,
    /// Where records ended when that was looked at last.
    end: usize,
    /// The programs may not have seen yet how far was read, and wake nobody.
    unseen: bool,
}

/// The object's map.
pub struct Records(MapData);

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd().as_fd()
    }
}

impl Ring {
    /// A ring buffer of the object. Error: it is another kind of map, or cannot be mapped.
    pub fn of_object(map: Map) -> anyhow::Result<Self> {
        let Map::RingBuf(data) = map else { return Err(anyhow!("the map of records is no ring buffer")) };
        let bytes = data.info().context("the ring buffer does not say how large it is")?.max_entries();
        Self::new(Records(data), bytes as usize)
    }
}

impl<M: AsFd> Ring<M> {
    fn new(map: M, bytes: usize) -> anyhow::Result<Self> {
        if !bytes.is_power_of_two() {
            return Err(anyhow!("a ring buffer of {bytes} bytes"));
        }
        let page = page_size() as usize;
        let mapped =
            |from, writes| Window::new(map.as_fd(), from, page, writes).context("cannot map the ring buffer");
        let (read, written) = (mapped(0, true)?, mapped(page, false)?);
        let position = word(&read).load(Ordering::Acquire);
        let end = word(&written).load(Ordering::Acquire);
        Ok(Self { map, bytes, read, written, piece: None, position, end, unseen: false })
    }

    /// The next record; `None`: there is none yet, and the descriptor tells when there is. What was read is given back when it
    /// is dropped.
    pub fn next(&mut self) -> Option<Record<'_, M>> {
        loop {
            if self.position == self.end {
                self.look_again();
                self.end = word(&self.written).load(Ordering::Acquire);
                if self.position == self.end {
                    return None;
                }
            }
            let head = self.reach(HEAD)?.cast::<u32>().cast_mut();
            // SAFETY: mapped, and aligned as records are; the kernel's last write to it tells that the record is whole
            // (kernel/bpf/ringbuf.c:bpf_ringbuf_commit).
            let head = unsafe { AtomicU32::from_ptr(head) }.load(Ordering::Acquire);
            let length = (head & !(BUSY | DISCARDED)) as usize;
            if head & BUSY != 0 {
                if !self.unseen {
                    return None;
                }
                self.look_again();
            } else if head & DISCARDED != 0 {
                self.pass(length);
            } else {
                let at = self.reach(HEAD + length)?.wrapping_add(HEAD);
                return Some(Record { at, length, ring: self });
            }
        }
    }

    /// A program that writes after this sees what was read and wakes us, or what it wrote is seen here.
    fn look_again(&mut self) {
        if self.unseen {
            fence(Ordering::SeqCst);
            self.unseen = false;
        }
    }

    /// Gives a record back to the programs.
    fn pass(&mut self, length: usize) {
        self.position = self.position.wrapping_add((HEAD + length).next_multiple_of(HEAD));
        // After it was read (kernel/bpf/ringbuf.c:__bpf_ringbuf_reserve).
        word(&self.read).store(self.position, Ordering::Release);
        self.unseen = true;
    }

    /// The next `length` bytes, mapped; `None`: there is no room for them in our memory now.
    fn reach(&mut self, length: usize) -> Option<*const u8> {
        let start = self.position & (self.bytes - 1);
        let within = |(from, piece): &(usize, Window)| {
            let byte = start.checked_sub(*from)?;
            (byte + length <= piece.bytes()).then(|| piece.at(byte).cast_const())
        };
        if let Some(at) = self.piece.as_ref().and_then(within) {
            return Some(at);
        }
        let page = page_size() as usize;
        let from = start & !(page - 1);
        let wanted = WINDOW.max(start - from + length).next_multiple_of(page);
        // Behind the pages of the positions.
        let bytes = wanted.min((2 * self.bytes).checked_sub(from)?);
        self.piece = None;
        self.piece = Some((from, Window::new(self.map.as_fd(), 2 * page + from, bytes, false).ok()?));
        self.piece.as_ref().and_then(within)
    }
}

/// A position, at the front of its page.
fn word(page: &Window) -> &AtomicUsize {
    // SAFETY: mapped as long as `page`, and aligned; both sides change it atomically.
    unsafe { AtomicUsize::from_ptr(page.at(0).cast()) }
}

impl<M: AsFd> AsFd for Ring<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A record where it lies.
pub struct Record<'a, M: AsFd = Records> {
    ring: &'a mut Ring<M>,
    at: *const u8,
    length: usize,
}

impl<M: AsFd> Deref for Record<'_, M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped by `Ring::reach`, whose piece stays as long as the ring is borrowed here; nobody writes to a whole
        // record until it is given back.
        unsafe { slice::from_raw_parts(self.at, self.length) }
    }
}

impl<M: AsFd> Drop for Record<'_, M> {
    fn drop(&mut self) {
        self.ring.pass(self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{FromRawFd as _, OwnedFd};
    use std::os::unix::fs::FileExt as _;

    const BYTES: usize = 1 << 18;

    /// What the kernel side does, by hand.
    struct Writer {
        file: File,
        end: usize,
    }

    impl Writer {
        fn begin() -> (Self, Ring<OwnedFd>) {
            // SAFETY: a name that ends with 0; the descriptor is fresh, and nobody else owns it.
            let file = File::from(unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"ring".as_ptr(), 0)) });
            file.set_len(2 * page_size() + 2 * BYTES as u64).unwrap();
            let ring = Ring::new(file.try_clone().unwrap().into(), BYTES).unwrap();
            (Self { file, end: 0 }, ring)
        }

        /// Each byte, also behind the end, where the kernel shows the data again.
        fn put(&self, at: usize, bytes: &[u8]) {
            for (n, byte) in bytes.iter().enumerate() {
                let at = (at + n) % BYTES;
                for at in [at, at + BYTES] {
                    self.file.write_all_at(&[*byte], 2 * page_size() + at as u64).unwrap();
                }
            }
        }

        fn begin_record(&mut self, bits: u32, bytes: &[u8]) -> usize {
            let at = self.end;
            self.put(at + HEAD, bytes);
            self.set_head(at, bits | bytes.len() as u32);
            self.end += (HEAD + bytes.len()).next_multiple_of(HEAD);
            self.file.write_all_at(&self.end.to_ne_bytes(), page_size()).unwrap();
            at
        }

        fn set_head(&self, at: usize, head: u32) {
            self.put(at, &head.to_ne_bytes());
        }

        fn read_so_far(&self) -> usize {
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, 0).unwrap();
            usize::from_ne_bytes(word)
        }
    }

    #[test]
    fn records_come_whole_and_in_order_as_often_as_the_ring_goes_around() {
        let (mut writer, mut ring) = Writer::begin();
        assert!(ring.next().is_none());
        for n in 0..100u8 {
            let bytes = vec![n; 9_001 + usize::from(n)];
            writer.begin_record(0, &bytes);
            writer.begin_record(DISCARDED, &bytes);
            writer.begin_record(0, &[n]);
            assert_eq!(&*ring.next().unwrap(), bytes);
            assert_eq!(&*ring.next().unwrap(), [n]);
            assert!(ring.next().is_none());
            assert_eq!(writer.read_so_far(), writer.end, "all is given back");
        }
        assert!(writer.end > 3 * BYTES);
    }

    #[test]
    fn a_record_may_be_longer_than_what_is_mapped_at_one_time() {
        let (mut writer, mut ring) = Writer::begin();
        for n in 0..3 {
            let bytes: Vec<u8> = (0..WINDOW + 5_000).map(|at| (at + n) as u8).collect();
            writer.begin_record(0, &bytes);
            assert_eq!(&*ring.next().unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_being_written_is_waited_for() {
        let (mut writer, mut ring) = Writer::begin();
        writer.begin_record(0, &[1; 16]);
        let at = writer.begin_record(BUSY, &[2; 24]);
        writer.begin_record(0, &[3; 8]);
        assert_eq!(&*ring.next().unwrap(), [1; 16]);
        assert!(ring.next().is_none() && ring.next().is_none());
        assert_eq!(writer.read_so_far(), at);
        writer.set_head(at, 24);
        assert_eq!(&*ring.next().unwrap(), [2; 24]);
        assert_eq!(&*ring.next().unwrap(), [3; 8]);
        assert!(ring.next().is_none());
    }

    #[test]
    fn a_length_beyond_the_ring_is_no_record() {
        let (mut writer, mut ring) = Writer::begin();
        writer.begin_record(0, &[1; 8]);
        writer.set_head(0, DISCARDED - 1);
        assert!(ring.next().is_none());
        assert!(Ring::new(writer.file, 3 << 12).is_err());
    }
}
