//! Copies of the user stacks of refused calls, put together from the pieces that the kernel side sends.
//!
//! They hold whatever the process keeps on its stack, so they are in memory only: never in a recording, never in a
//! report, and gone when the stack is followed.

use std::collections::VecDeque;
use std::mem::take;

use super::registers::Registers;
use crate::model::event::{Refused, StackPiece};

/// Copies kept, all processes together.
const COPIES: usize = 200;
/// Bytes of them.
const BYTES: usize = 4 << 20;
/// Copies whose refused call has not been heard of yet; it follows its pieces at once, or was lost.
const WAITING: usize = 16;
/// Bytes of one copy: what the programs send at most.
pub const MOST: usize = 36 << 10;

/// The stack from the stack pointer on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackCopy {
    /// Address of the first byte.
    pub sp: u64,
    /// As the kernel keeps them.
    pub registers: Vec<u64>,
    bytes: Vec<u8>,
}

impl StackCopy {
    /// A whole one.
    pub fn new(sp: u64, registers: Vec<u64>, bytes: Vec<u8>) -> Self {
        Self { sp, registers, bytes }
    }

    /// The next instruction.
    pub fn ip(&self) -> Option<u64> {
        Some(Registers::of_call(&self.registers).ip).filter(|&ip| ip != 0)
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Address behind the last byte.
    pub fn end(&self) -> u64 {
        self.sp.saturating_add(self.bytes.len() as u64)
    }

    /// `size` bytes at an address as a number; `None` where they were not copied.
    pub fn read(&self, at: u64, size: usize) -> Option<u64> {
        let start = usize::try_from(at.checked_sub(self.sp)?).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(size)?)?;
        let mut word = [0; 8];
        word.get_mut(..size)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }

    /// All its words, from the inside on.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let behind = (self.sp.wrapping_neg() & 7) as usize;
        let aligned = self.bytes.get(behind..).unwrap_or_default();
        aligned.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes)
    }
}

/// A copy to be kept for long, in less room: most words on a stack are small numbers or addresses, whose upper bytes are 0.
#[derive(Clone, Debug)]
pub struct Packed {
    sp: u64,
    /// Words that are registers, and bytes of the copy behind them.
    registers: u32,
    bytes: u32,
    /// How many bytes of each word are kept, of two words in a byte, before those bytes.
    words: Box<[u8]>,
}

impl StackCopy {
    /// The same, packed.
    pub fn pack(&self) -> Packed {
        // One comes with each credit: a few microseconds for some thousand bytes.
        let (whole, rest) = self.bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let last = (!rest.is_empty()).then_some(last);
        let of_bytes = whole.iter().copied().chain(last).map(u64::from_le_bytes);
        let mut words = Vec::with_capacity((self.registers.len() + whole.len()) * 5);
        let mut first_of_two = None;
        for word in self.registers.iter().copied().chain(of_bytes) {
            let length = 8 - word.leading_zeros() as usize / 8;
            match first_of_two.take() {
                None => {
                    first_of_two = Some(words.len());
                    words.push(length as u8);
                }
                Some(at) => {
                    words.get_mut(at).into_iter().for_each(|both: &mut u8| *both |= (length as u8) << 4)
                }
            }
            words.extend_from_slice(word.to_le_bytes().get(..length).unwrap_or_default());
        }
        let (registers, bytes) = (self.registers.len() as u32, self.bytes.len() as u32);
        Packed { sp: self.sp, registers, bytes, words: words.into() }
    }
}

impl Packed {
    /// As it was.
    pub fn unpack(&self) -> StackCopy {
        let mut rest = self.words.iter().copied();
        let (registers, bytes) = (self.registers as usize, self.bytes as usize);
        let mut all = Vec::with_capacity(registers + bytes.div_ceil(8) + 1);
        while let Some(lengths) = rest.next() {
            for length in [lengths & 15, lengths >> 4] {
                let mut word = [0; 8];
                word.iter_mut().take(length.into()).zip(&mut rest).for_each(|(to, from)| *to = from);
                all.push(u64::from_le_bytes(word));
            }
        }
        let words = all.split_off(registers.min(all.len()));
        let bytes = words.into_iter().flat_map(u64::to_le_bytes).take(bytes).collect();
        StackCopy::new(self.sp, all, bytes)
    }

    /// Bytes that the copy takes when it is unpacked.
    pub fn size(&self) -> usize {
        self.bytes as usize
    }
}

/// Which refused call a piece belongs to: address space, task, time.
pub type Call = (u64, u32, u64);

/// All copies of a session.
#[derive(Debug, Default)]
pub struct Copies {
    waiting: VecDeque<(Call, StackCopy)>,
    kept: usize,
    bytes: usize,
}

impl Copies {
    /// Adds a piece to its copy; pieces come in order, and what follows a lost one is of no use.
    pub fn piece(&mut self, piece: &mut StackPiece) {
        let call = (piece.generation, piece.tid, piece.at_ns);
        match self.waiting.iter_mut().find(|(of, _)| *of == call) {
            Some((_, copy)) => {
                let next = copy.end() == piece.start;
                let fits = copy.bytes.len() + piece.bytes.len() <= MOST;
                if next && fits {
                    copy.bytes.reserve_exact(piece.bytes.len());
                    copy.bytes.extend_from_slice(&piece.bytes);
                }
            }
            None if piece.start == piece.sp => {
                if self.waiting.len() >= WAITING {
                    self.waiting.pop_front();
                }
                let (registers, bytes) = (take(&mut piece.registers), take(&mut piece.bytes));
                let copy = StackCopy::new(piece.sp, registers, bytes);
                self.waiting.push_back((call, copy));
            }
            None => {}
        }
    }

    /// The copy for this call; its room is taken until [`Copies::release`].
    pub fn take(&mut self, refused: &Refused) -> Option<StackCopy> {
        let mut copy = self.of((refused.generation, refused.tid, refused.at_ns))?;
        if self.kept >= COPIES || self.bytes + copy.bytes.len() > BYTES {
            return None;
        }
        copy.bytes.shrink_to_fit();
        self.kept += 1;
        self.bytes += copy.bytes.len();
        Some(copy)
    }

    /// The copy of this address space, task and time, which takes no room here.
    pub fn of(&mut self, call: Call) -> Option<StackCopy> {
        let at = self.waiting.iter().position(|(of, _)| *of == call)?;
        self.waiting.remove(at).map(|(_, copy)| copy)
    }

    /// This copy is no longer kept.
    pub fn release(&mut self, copy: Option<&StackCopy>) {
        if let Some(copy) = copy {
            self.kept = self.kept.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(copy.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, bytes: &[u8]) -> StackPiece {
        StackPiece {
            generation: 5,
            tid: 6,
            at_ns: 7,
            sp: 0x1003,
            start,
            registers: vec![9],
            bytes: bytes.to_vec(),
        }
    }

    fn refused() -> Refused {
        Refused { generation: 5, tid: 6, at_ns: 7, ..Refused::example() }
    }

    #[test]
    fn pieces_in_order_make_a_copy() {
        let mut copies = Copies::default();
        copies.piece(&mut piece(0x1003, &[1, 2, 3, 4, 5]));
        copies.piece(&mut piece(0x1008, &[6, 0, 0, 0, 0, 0, 0, 0]));
        copies.piece(&mut piece(0x1018, &[7; 8]));
        let copy = copies.take(&refused()).unwrap();
        assert_eq!((copy.sp, copy.end(), copy.registers.as_slice()), (0x1003, 0x1010, &[9][..]));
        assert_eq!(copy.words().collect::<Vec<_>>(), [6]);
        assert_eq!(
            (copy.read(0x1003, 2), copy.read(0x1002, 1), copy.read(0x1009, 8)),
            (Some(0x201), None, None)
        );
        assert_eq!((copy.read(u64::MAX, 8), copy.read(0x1003, usize::MAX)), (None, None));
        assert!(copies.take(&refused()).is_none(), "once");
    }

    #[test]
    fn what_is_packed_comes_back_as_it_was_in_less_room() {
        let words = [0u64, 1, 0xff, 0x100, 0x7ffd_1234_5678, u64::MAX, 1 << 63, 0, 0, 0x5555_0000_1000];
        let bytes: Vec<u8> = words.iter().cycle().take(500).flat_map(|word| word.to_le_bytes()).collect();
        for registers in 0..4 {
            for length in [0, 1, 7, 8, 9, 15, 16, 17, bytes.len()] {
                let copy = StackCopy::new(0x1003, words[..registers].to_vec(), bytes[..length].to_vec());
                assert_eq!(copy.pack().unpack(), copy);
                assert_eq!(copy.pack().size(), copy.size());
            }
        }
        let copy = StackCopy::new(0x1003, words.to_vec(), bytes);
        assert!(copy.pack().words.len() < copy.size() * 3 / 5);
    }

    #[test]
    fn a_copy_without_its_beginning_is_none() {
        let mut copies = Copies::default();
        copies.piece(&mut piece(0x2000, &[1; 8]));
        assert!(copies.take(&refused()).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut copies = Copies::default();
        let big = vec![0; 4096];
        for n in 0..1000 {
            for page in 0..20 {
                copies.piece(&mut StackPiece { tid: n, sp: 0, ..piece(page * 4096, &big) });
            }
            if n % 2 == 0 {
                copies.take(&Refused { tid: n, ..refused() });
            }
        }
        assert!(copies.waiting.len() <= WAITING && copies.kept <= COPIES && copies.bytes <= BYTES);
        assert!(copies.waiting.iter().all(|(_, copy)| copy.bytes.len() <= MOST));
        let kept = (copies.kept, copies.bytes);
        copies.release(Some(&StackCopy::new(0, Vec::new(), vec![0; MOST])));
        assert_eq!((copies.kept, copies.bytes), (kept.0 - 1, kept.1 - MOST));
    }
}
