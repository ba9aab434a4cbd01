//! Changes of the count by place, out of the programs' memory.

use std::{
    iter,
    mem::size_of,
    ptr,
    sync::PoisonError,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use vmaudit_common::{LedgerEntry, MmSlot};

use crate::model::event::Entered;
use crate::source::ebpf::attach::{load_next, put_in_place, take_out};
use crate::source::ebpf::hooks::{self, Form, Next, Via};
use crate::source::ebpf::refusal::refusal;
use crate::source::ebpf::shared_memory::Shared;
use crate::source::ebpf::{Live, Options};

const RAW: Next = Next { program: "ledger_raw", array: "LEDGER_RAW" };
const CLASSIC: Next = Next { program: "ledger_classic", array: "LEDGER_CLASSIC" };

/// What the programs of these forms give over to, where that is asked for.
pub fn wanted(forms: &[&Form], options: &Options) -> Vec<Next> {
    let of_lock = |via: &Via| match via {
        Via::Raw("mmap_lock_released") => Some(RAW),
        Via::Classic(_, "mmap_lock_released") => Some(CLASSIC),
        _ => None,
    };
    let mut all: Vec<Next> = forms.iter().filter_map(|form| of_lock(&form.via)).collect();
    all.sort_unstable_by_key(|next| next.program);
    all.dedup_by_key(|next| next.program);
    all.retain(|_| options.ledger);
    all
}

impl Live {
    /// Makes the programs ready, before those that give over to them; where that is not to be had no change has a place, and
    /// the session goes on.
    pub(super) fn open_ledger(&mut self, programs: &[Next]) {
        if self.ledger.is_none() {
            return;
        }
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        // All are loaded before one is put in its place: one alone would go on and write to a table that nobody reads.
        let loaded = programs.iter().find_map(|next| match hooks::left_out(next.program) {
            true => Some("left out on request".to_owned()),
            false => load_next(&mut ebpf, next).err().map(|e| refusal(&e)),
        });
        let refused = loaded.or_else(|| {
            let e = programs.iter().find_map(|next| put_in_place(&mut ebpf, next).err())?;
            programs.iter().for_each(|next| take_out(&mut ebpf, next));
            Some(refusal(&e))
        });
        drop(ebpf);
        if let Some(why) = refused {
            self.without_ledger(&why);
        }
    }

    /// There is none after all.
    pub(super) fn without_ledger(&mut self, why: &str) {
        if self.ledger.take().is_some() {
            self.no_ledger = Some(format!("--stacks: no change of a count has a place here ({why})"));
        }
    }

    /// Why changes have no places though they were asked for, as a sentence.
    pub fn no_ledger(&self) -> Option<&str> {
        self.no_ledger.as_deref()
    }
}

pub fn entered(entry: &LedgerEntry) -> Entered {
    let &LedgerEntry { key, added, removed, call, .. } = entry;
    Entered { key, call: call as u8, added, removed }
}

/// Entries of this address space, in the order of their keys. Of one that lives they are to be read before its slot: the
/// programs count a change there first, and a part is no more than its whole.
pub fn entries_of(table: &Shared<LedgerEntry>, slots: &Shared<MmSlot>, index: usize) -> Vec<LedgerEntry> {
    let slot = slots.at(index);
    // SAFETY: in bounds by `at`; the words are written by the kernel side.
    let generation = unsafe { ptr::read_volatile(&raw const (*slot).generation) };
    let taken = || {
        fence(Ordering::Acquire);
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*slot).ledger) }
    };
    let mut all: Vec<LedgerEntry> = places_of(table, generation, taken)
        .map(|index| table.read(index))
        .filter(|it| it.key != 0 && it.generation == generation)
        .collect();
    all.sort_unstable_by_key(|it| it.key);
    all
}

/// Hands back the entries of an address space that is gone.
pub fn free(table: &Shared<LedgerEntry>, slot: &MmSlot) {
    for index in places_of(table, slot.generation, || slot.ledger) {
        let entry = table.at(index);
        // SAFETY: in bounds; nobody counts in it any more: its address space has ended. The key comes last.
        unsafe {
            let rest = entry.cast::<u8>().add(size_of::<u64>());
            ptr::write_bytes(rest, 0, size_of::<LedgerEntry>() - size_of::<u64>());
            AtomicU64::from_ptr(entry.cast()).store(0, Ordering::Release);
        }
    }
}

/// Where its entries are, as far as so many are `taken` by then.
fn places_of(
    table: &Shared<LedgerEntry>,
    generation: u64,
    taken: impl Fn() -> u64,
) -> impl Iterator<Item = usize> {
    let mut all = (0..table.len()).filter(move |&index| {
        // SAFETY: `index` is in bounds; the word is written by the kernel side when the entry is taken.
        let of = unsafe { ptr::read_volatile(&raw const (*table.at(index)).generation) };
        of == generation
    });
    let mut found = 0;
    iter::from_fn(move || {
        if found >= taken() {
            return None;
        }
        found += 1;
        all.next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{FromRawFd as _, OwnedFd};

    /// As many elements, of zeros.
    fn shared<T: bytemuck::Pod>(len: usize) -> Shared<T> {
        // SAFETY: a name that ends with 0; the descriptor is fresh, and nobody else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"table".as_ptr(), 0)) };
        let file = std::fs::File::from(file);
        file.set_len((len * size_of::<T>()).next_multiple_of(1 << 20) as u64).unwrap();
        Shared::placed(file.into(), len).unwrap()
    }

    fn put<T: bytemuck::Pod>(table: &Shared<T>, index: usize, element: T) {
        // SAFETY: in bounds by `at`.
        unsafe { ptr::write_volatile(table.at(index), element) };
    }

    #[test]
    fn an_address_space_has_its_entries_as_far_as_it_has_taken_any() {
        let (table, slots) = (shared::<LedgerEntry>(1 << 15), shared::<MmSlot>(4));
        let entry = |generation, key| LedgerEntry { key, generation, added: key, ..LedgerEntry::default() };
        for (at, generation, key) in [(3, 7, 30), (4, 9, 40), (20_000, 7, 20), (32_767, 7, 10)] {
            put(&table, at, entry(generation, key));
        }
        let slot = |generation, ledger| {
            let mut slot: MmSlot = bytemuck::Zeroable::zeroed();
            (slot.generation, slot.ledger) = (generation, ledger);
            slot
        };
        // The last one's: of what it has not taken nothing is looked for.
        for (index, it) in [slot(7, 3), slot(9, 1), slot(0, 0), slot(7, 2)].into_iter().enumerate() {
            put(&slots, index, it);
        }
        let keys = |index| entries_of(&table, &slots, index).iter().map(|it| it.key).collect::<Vec<_>>();
        assert_eq!([0, 1, 2, 3].map(keys), [vec![10, 20, 30], vec![40], vec![], vec![20, 30]]);
        free(&table, &slot(7, 3));
        assert_eq!([0, 1].map(keys), [vec![], vec![40]]);
        assert_eq!(table.read(32_767), LedgerEntry::default(), "the next one finds it free");
    }
}
