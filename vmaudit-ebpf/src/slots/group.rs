//! The counters of one kind of failure, in a slot.

use vmaudit_common::FailureGroup;

use crate::control::Word;

/// Failures of one kind in one address space.
#[derive(Clone, Copy)]
pub struct Group(pub(super) *mut FailureGroup);

impl Group {
    /// See [`FailureGroup`]; so for those that follow.
    #[inline(always)]
    pub fn key(self) -> Word {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).key) }
    }

    #[inline(always)]
    pub fn count(self) -> Word {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).count) }
    }

    #[inline(always)]
    pub fn leaked_bytes(self) -> Word {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).leaked_bytes) }
    }

    #[inline(always)]
    pub fn last_leaked(self) -> Word {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).last_leaked) }
    }

    #[inline(always)]
    pub fn recovered(self) -> Word {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).recovered) }
    }

    #[inline(always)]
    pub fn sites(self) -> Word {
        // SAFETY: points into SLOTS.
        unsafe { Word::new(&raw mut (*self.0).sites) }
    }

    /// See [`vmaudit_common::Needed`]: `which` of its words.
    #[inline(always)]
    pub fn needed(self, which: u32) -> Option<Word> {
        if which > 2 {
            return None;
        }
        // SAFETY: points into SLOTS, and there are three words.
        Some(unsafe { Word::new((&raw mut (*self.0).needed).cast::<u64>().add(which as usize)) })
    }

    #[inline(always)]
    pub fn set_first_ns(self, now: u64) {
        // SAFETY: points into SLOTS.
        unsafe { (*self.0).first_ns = now };
    }

    #[inline(always)]
    pub fn set_last_ns(self, now: u64) {
        // SAFETY: points into SLOTS.
        unsafe { (*self.0).last_ns = now };
    }
}
