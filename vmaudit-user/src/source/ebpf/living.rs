//! What lives: its figures as of now, and whether anything of it was missed.

use std::collections::VecDeque;
use std::io::Read as _;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use vmaudit_common::SLOT_LIVE;

use super::Live;
use crate::model::event::{Event, MmState};
use crate::os::rights;

impl Live {
    /// The table of followed processes is empty, and nobody was left out of it.
    pub(super) fn follows_nobody(&self) -> bool {
        let _rights = rights::raised(&rights::EBPF);
        self.control.read(0).lost.tree_full == 0 && self.followed.keys().next().is_none()
    }

    /// This address space has not ended.
    pub fn lives(&self, generation: u64) -> bool {
        let mut whose = self.whose.borrow_mut();
        if whose.ended.contains(&generation) {
            return false;
        }
        if let Some(index) = whose.slots.iter().position(|of| *of == generation) {
            // A slot has a generation once.
            return self.generation(index) == generation && self.state(index) == SLOT_LIVE;
        }
        let used = self.used();
        whose.slots.resize(used, 0);
        // Whoever asks has mostly just heard of it, and slots are taken one after the other.
        let cursor = self.cursor() as usize;
        let newest_first = (1..=used).map(|back| cursor.wrapping_sub(back) % used);
        for index in newest_first {
            let of = self.generation(index);
            whose.slots.get_mut(index).into_iter().for_each(|slot| *slot = of);
            if of == generation {
                return self.state(index) == SLOT_LIVE;
            }
        }
        false
    }

    /// Address spaces that are still alive.
    pub fn living(&self) -> usize {
        (0..self.used()).filter(|&index| self.is_alive(index)).count()
    }

    /// There is one.
    pub(super) fn anybody_lives(&self) -> bool {
        let used = self.used();
        let known = self.whose.borrow().alive;
        let found = (known..used).chain(0..known.min(used)).find(|&index| self.is_alive(index));
        found.into_iter().for_each(|index| self.whose.borrow_mut().alive = index);
        found.is_some()
    }

    /// An address space, not a process in that of another.
    fn is_alive(&self, index: usize) -> bool {
        // SAFETY: `index` is in bounds; the word is written by the kernel side when the slot is taken.
        self.state(index) == SLOT_LIVE
            && unsafe { ptr::read_volatile(&raw const (*self.slots.at(index)).host) } == 0
    }

    fn generation(&self, index: usize) -> u64 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*self.slots.at(index)).generation) }
    }

    /// The figures of every living address space, as of now.
    pub fn report_living(&self, sink: &mut dyn FnMut(Event)) {
        let doubt = self.open_end();
        for index in 0..self.used() {
            if self.state(index) == SLOT_LIVE {
                let open_end = doubt && !self.is_verified(index);
                sink(Event::Mm(Box::new(MmState { open_end, ..self.mm(index) })));
            }
        }
    }

    /// The same of those that are not as they were when this was asked last: most of a machine stands still.
    pub fn report_changed(&mut self, sink: &mut dyn FnMut(Event)) {
        let doubt = self.open_end();
        for index in 0..self.used() {
            if self.state(index) != SLOT_LIVE {
                continue;
            }
            let print = fingerprint(bytemuck::bytes_of(&self.slots.read(index)), doubt);
            if self.told.get(index) != Some(&print) {
                self.told.resize(self.told.len().max(index + 1), 0);
                self.told.get_mut(index).into_iter().for_each(|told| *told = print);
                sink(Event::Mm(Box::new(MmState { open_end: doubt, ..self.mm(index) })));
            }
        }
    }

    /// Looks once more at all tasks: where the last change of an address space is one that was seen, no event that the
    /// kernel did not show was its.
    pub(crate) fn look_last(&mut self) {
        let Some(mut file) = self.last_walk.take().filter(|_| self.open_end()) else { return };
        // SAFETY: the only value of CONTROL, mapped for the life of `self`; the word is written by us alone.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.control.at(0)).last_walk) }.store(1, Ordering::Release);
        let _rights = rights::raised(&rights::EBPF);
        // Without it the doubt stays.
        let _ = file.read_to_end(&mut Vec::new());
    }

    /// See [`Live::look_last`]. Later changes have shown by their numbers whether any was missed.
    fn is_verified(&self, index: usize) -> bool {
        let slot = self.slots.read(index);
        let seen = u32::try_from(slot.verified).ok().and_then(|it| it.checked_sub(1));
        seen.is_some_and(|seen| slot.sequence.wrapping_sub(seen).cast_signed() >= 0)
    }
}

/// Which address spaces lie where, as far as somebody asked: their slots are far apart, see [`super::Shared`].
#[derive(Debug, Default)]
pub(super) struct Whose {
    /// Generations by slot.
    slots: Vec<u64>,
    /// A slot that was found to be somebody's who lives.
    alive: usize,
    /// Those that have ended last.
    ended: VecDeque<u64>,
}

impl Whose {
    /// Ends that are kept in mind.
    const ENDED: usize = 256;

    /// Its slot is about to be free.
    pub(super) fn ended(&mut self, generation: u64) {
        if self.ended.len() >= Self::ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(generation);
    }
}

/// Tells states of a slot apart; never 0.
fn fingerprint(bytes: &[u8], doubt: bool) -> u64 {
    // As in FNV-1a, a word at a time. Nobody gains by two that look alike: the last word of a session has them all.
    let words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes));
    let sum = words.fold(0xcbf2_9ce4_8422_2325 ^ u64::from(doubt), |sum: u64, word| {
        (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    });
    sum | 1
}
