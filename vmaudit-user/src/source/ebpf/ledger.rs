//! Changes of the count by place, out of the programs' memory.

use std::{
    mem::size_of,
    ptr,
    sync::PoisonError,
    sync::atomic::{AtomicU64, Ordering},
};

use vmaudit_common::{LedgerEntry, MmSlot};

use crate::model::event::Entered;
use crate::source::ebpf::attach::put_in_place;
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
        let refused = programs.iter().find_map(|next| match hooks::left_out(next.program) {
            true => Some("left out on request".to_owned()),
            false => put_in_place(&mut ebpf, next).err().map(|e| refusal(&e)),
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

/// Entries of this address space, in the order of their keys.
pub fn entries_of(table: &Shared<LedgerEntry>, slot: &MmSlot) -> Vec<LedgerEntry> {
    if slot.ledger == 0 {
        return Vec::new();
    }
    let mut all: Vec<LedgerEntry> = places_of(table, slot.generation)
        .map(|index| table.read(index))
        .filter(|it| it.key != 0 && it.generation == slot.generation)
        .collect();
    all.sort_unstable_by_key(|it| it.key);
    all
}

/// Hands back the entries of an address space that is gone.
pub fn free(table: &Shared<LedgerEntry>, slot: &MmSlot) {
    if slot.ledger == 0 {
        return;
    }
    for index in places_of(table, slot.generation) {
        let entry = table.at(index);
        // SAFETY: in bounds; nobody counts in it any more: its address space has ended. The key comes last.
        unsafe {
            let rest = entry.cast::<u8>().add(size_of::<u64>());
            ptr::write_bytes(rest, 0, size_of::<LedgerEntry>() - size_of::<u64>());
            AtomicU64::from_ptr(entry.cast()).store(0, Ordering::Release);
        }
    }
}

fn places_of(table: &Shared<LedgerEntry>, generation: u64) -> impl Iterator<Item = usize> {
    (0..table.len()).filter(move |&index| {
        // SAFETY: `index` is in bounds; the word is written by the kernel side when the entry is taken.
        let of = unsafe { ptr::read_volatile(&raw const (*table.at(index)).generation) };
        of == generation
    })
}
