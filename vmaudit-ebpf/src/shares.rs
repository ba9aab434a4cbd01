//! What each user has taken of the table of address spaces and of the ring buffer. Where every process is followed, a
//! user who makes thousands of processes or refused calls must not make the others' invisible: as long as others are
//! there, whoever has as much as is free gets no more. So nobody has more than half of what the others leave, and there
//! is always room for one who comes new (dynamic thresholds, as in the shared buffers of switches). What that costs is
//! counted with whose it was.
//!
//! User space takes a freed slot out of its share by writing to the same memory.

use aya_ebpf::{macros::map, maps::Array};
use vmaudit_common::{SHARES, Share as Entry};

use crate::control::{BPF_F_MMAPABLE, Page, Word, config};

/// By user, from a place on that depends on the key that is drawn at load time.
#[map]
static USER_SHARES: Array<Entry> = Array::with_max_entries(SHARES, BPF_F_MMAPABLE);

const _: () = assert!(SHARES.is_power_of_two());
/// How many places are looked at for a user's.
const PROBES: u32 = 8;
/// The place of all who found none of their own.
const REST: u32 = 0;

/// One user's share.
#[derive(Clone, Copy)]
pub struct Share(*mut Entry);

macro_rules! words {
    ($($name:ident)+) => {
        $(
            #[inline(always)]
            fn $name(self) -> Word {
                // SAFETY: points into the map, and all members are u64.
                unsafe { Word::new(&raw mut (*self.0).$name) }
            }
        )+
    };
}

impl Share {
    words! { user slots ring_bytes ring_end slots_denied records_denied }

    /// The share with this number, as [`admit`] gives it; 0: none.
    #[inline(always)]
    pub fn number(number: u32) -> Option<Self> {
        let index = number.wrapping_sub(1);
        if index < SHARES { USER_SHARES.get_ptr_mut(index).map(Self) } else { None }
    }

    /// It has nothing, and nothing of it was denied: another user may have its place.
    #[inline(always)]
    fn is_idle(self) -> bool {
        self.slots().read() | self.slots_denied().read() | self.records_denied().read() == 0
    }

    /// Other users have address spaces too.
    #[inline(always)]
    fn has_company(self) -> bool {
        Page::get().slots_in_use().read() > self.slots().read()
    }

    /// Whether [`Self::may_write`] would say so; changes nothing.
    #[inline(always)]
    pub fn has_room(self, bytes: u64, read: u64, end: u64, size: u64) -> bool {
        let used = if read >= self.ring_end().read() { 0 } else { self.ring_bytes().read() };
        let free = size.saturating_sub(end.wrapping_sub(read));
        used + bytes <= free || !self.has_company()
    }

    /// Whether so many bytes of the ring buffer may go to this user. `read`: up to where the buffer was read; `end`: to
    /// where it is written. What was dropped is counted.
    #[inline(always)]
    pub fn may_write(self, bytes: u64, read: u64, end: u64, size: u64) -> bool {
        if read >= self.ring_end().read() {
            self.ring_bytes().write(0); // all of its records have been read
        }
        let free = size.saturating_sub(end.wrapping_sub(read));
        if self.ring_bytes().read() + bytes > free && self.has_company() {
            self.records_denied().add(1);
            return false;
        }
        self.ring_bytes().add(bytes);
        self.ring_end().write(end + bytes);
        true
    }
}

/// The number of the user's share in which one more slot is counted; `None`, and counted, if he has as many as are free. 0
/// where shares do not matter.
#[inline(always)]
pub fn admit<const CAS: bool>(uid: u32) -> Option<u32> {
    if config!(watch_all) == 0 {
        return Some(0);
    }
    let number = if CAS { share_of_user(uid) } else { share_of_user_without_cas(uid) } as u32;
    let Some(share) = Share::number(number) else { return Some(0) };
    let used = Page::get().slots_in_use().read();
    if share.slots().read() + used >= u64::from(config!(slots)) && share.has_company() {
        share.slots_denied().add(1);
        return None;
    }
    share.slots().add(1);
    Some(number)
}

/// The number of this user's share, for what belongs to no slot; 0 where shares do not matter.
#[inline(always)]
pub fn of_user<const CAS: bool>(uid: u32) -> u32 {
    if config!(watch_all) == 0 {
        return 0;
    }
    (if CAS { share_of_user(uid) } else { share_of_user_without_cas(uid) }) as u32
}

/// The slot was not used after all.
#[inline(always)]
pub fn give_back(number: u32) {
    if let Some(share) = Share::number(number) {
        share.slots().add(1u64.wrapping_neg());
    }
}

// Global: looked at once by the verifier, whoever calls it.
// SAFETY: no other symbol of the object has this name; so for the next.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn share_of_user(uid: u32) -> u64 {
    u64::from(find::<true>(uid))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn share_of_user_without_cas(uid: u32) -> u64 {
    u64::from(find::<false>(uid))
}

#[inline(always)]
fn find<const CAS: bool>(uid: u32) -> u32 {
    const SHIFT: u32 = 64 - SHARES.trailing_zeros();
    let first = (u64::from(uid).wrapping_mul(config!(table_key) | 1) >> SHIFT) as u32;
    let user = u64::from(uid) + 1;
    // Its own place may lie behind one that has become free.
    for n in 0..PROBES {
        let number = place(first, n) + 1;
        if Share::number(number).is_some_and(|share| share.user().read() == user) {
            return number;
        }
    }
    for n in 0..PROBES {
        let number = place(first, n) + 1;
        let Some(share) = Share::number(number) else { break };
        let before = share.user().read();
        if before != 0 && !share.is_idle() {
            continue;
        }
        if CAS {
            if share.user().claim(before, user).is_ok() {
                return number;
            }
        } else {
            share.user().write(user);
            return number;
        }
    }
    REST + 1
}

/// All but [`REST`].
#[inline(always)]
fn place(first: u32, n: u32) -> u32 {
    let place = first.wrapping_add(n) & (SHARES - 1);
    if place == REST { 1 } else { place }
}
