//! What the tasks of each name did, out of the programs' memory.

use std::{mem::size_of, ptr, sync::atomic::AtomicU64, sync::atomic::Ordering};

use vmaudit_common::{MM_SHARED, MmSlot, NAMES_PER_SLOT, TaskName as Entry, call};

use crate::model::task_names::{TaskName, TaskNames};
use crate::source::ebpf::shared_memory::Shared;
use crate::text::until_zero;

/// Names of an address space: those of the table, and the first one's.
const MOST: usize = NAMES_PER_SLOT as usize + 1;

/// What the tasks of this address space did; `None` where they have one name. `entries`: of the table, those that are its own.
pub fn task_names<'a>(slot: &MmSlot, entries: impl Iterator<Item = &'a Entry>) -> Option<Box<TaskNames>> {
    let of = &slot.names;
    if of.taken == 0 && of.others_added | of.others_removed | of.others_failed == 0 {
        return None;
    }
    let mut names = TaskNames {
        others: TaskName {
            added: of.others_added,
            removed: of.others_removed,
            failed: of.others_failed,
            ..TaskName::default()
        },
        sampled: slot.flags & MM_SHARED != 0,
        ..TaskNames::default()
    };
    for it in entries {
        let name = TaskName {
            name: until_zero(bytemuck::bytes_of(&it.comm)),
            added: it.added,
            removed: it.removed,
            failed: it.failed,
            peak: it.peak,
            overlapped: it.overlapped != 0,
        };
        names.take(&name, MOST);
    }
    // The first one did what is left. What others than the process's own tasks did is nobody's.
    let own = slot.calls.iter().enumerate().filter(|(id, _)| *id != usize::from(call::FOREIGN));
    let mut first = own.fold(TaskName::default(), |mut sum, (_, stat)| {
        sum.added = sum.added.saturating_add(stat.added);
        sum.removed = sum.removed.saturating_add(stat.removed);
        sum.failed = sum.failed.saturating_add(stat.failed);
        sum
    });
    for it in names.names.iter().chain([&names.others]) {
        first.added = first.added.saturating_sub(it.added);
        first.removed = first.removed.saturating_sub(it.removed);
        first.failed = first.failed.saturating_sub(it.failed);
    }
    if of.known != 0 {
        first.name = until_zero(bytemuck::bytes_of(&of.first));
        first.peak = of.first_peak;
        first.overlapped = of.first_overlapped != 0;
        names.take(&first, MOST);
    }
    names.names.shrink_to_fit();
    Some(Box::new(names))
}

/// Entries of this address space, in the order of the table; none where the slot has taken none.
pub fn entries_of(table: &Shared<Entry>, slot: &MmSlot) -> Vec<Entry> {
    if slot.names.taken == 0 {
        return Vec::new();
    }
    places_of(table, slot.generation).map(|index| table.read(index)).filter(|it| it.key != 0).collect()
}

/// Hands back the entries of an address space that is gone.
pub fn free(table: &Shared<Entry>, slot: &MmSlot) {
    if slot.names.taken == 0 {
        return;
    }
    for index in places_of(table, slot.generation) {
        let entry = table.at(index);
        // SAFETY: in bounds; nobody counts in it any more: its address space has ended. The key comes last.
        unsafe {
            let rest = entry.cast::<u8>().add(size_of::<u64>());
            ptr::write_bytes(rest, 0, size_of::<Entry>() - size_of::<u64>());
            AtomicU64::from_ptr(entry.cast()).store(0, Ordering::Release);
        }
    }
}

fn places_of(table: &Shared<Entry>, generation: u64) -> impl Iterator<Item = usize> {
    (0..table.len()).filter(move |&index| {
        // SAFETY: `index` is in bounds; the word is written by the kernel side when the entry is taken.
        let of = unsafe { ptr::read_volatile(&raw const (*table.at(index)).generation) };
        of == generation
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;
    use vmaudit_common::CallStat;

    fn words(name: &str) -> [u64; 2] {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytemuck::cast(bytes)
    }

    /// An address space whose first name is `main`: 100 added, 40 removed, 5 refused in all.
    fn slot() -> MmSlot {
        let mut slot = MmSlot::zeroed();
        slot.calls[usize::from(call::MMAP)] = CallStat { calls: 1, added: 100, removed: 0, failed: 5 };
        slot.calls[usize::from(call::MUNMAP)] = CallStat { calls: 1, added: 0, removed: 40, failed: 0 };
        slot.calls[usize::from(call::FOREIGN)] = CallStat { calls: 0, added: 7, removed: 7, failed: 0 };
        (slot.names.first, slot.names.known, slot.names.first_peak) = (words("main"), 1, 25);
        slot
    }

    fn entry(name: &str, added: u64, failed: u64, peak: u32) -> Entry {
        Entry { key: 1, comm: words(name), added, removed: 10, failed, peak, ..Entry::default() }
    }

    #[test]
    fn one_name_has_all_and_is_not_told() {
        assert_eq!(task_names(&slot(), [].iter()), None);
    }

    #[test]
    fn the_first_name_did_what_the_others_did_not() {
        let mut slot = slot();
        (slot.names.taken, slot.names.others_added) = (2, 4);
        let entries = [entry("a", 30, 2, 50), Entry { overlapped: 1, ..entry("b", 20, 0, 60) }];
        let told = task_names(&slot, entries.iter()).unwrap();
        let figures: Vec<_> = told
            .names
            .iter()
            .map(|it| (it.name.as_str(), it.added, it.removed, it.failed, it.peak, it.overlapped))
            .collect();
        assert_eq!(
            figures,
            [("a", 30, 10, 2, 50, false), ("b", 20, 10, 0, 60, true), ("main", 46, 20, 3, 25, false)]
        );
        assert_eq!((told.others.added, told.sampled), (4, false));
    }

    #[test]
    fn entries_of_one_name_are_one() {
        let mut slot = slot();
        slot.names.taken = 2;
        let mut stale = entry("main", 1, 1, 70);
        // What a name before has left behind its end.
        stale.comm[1] = u64::from_ne_bytes(*b"\0garbage");
        let told = task_names(&slot, [entry("a", 1, 1, 1), stale].iter()).unwrap();
        let [_, main] = told.names.as_slice() else { panic!("{told:?}") };
        assert_eq!((main.name.as_str(), main.added, main.removed, main.failed), ("main", 99, 30, 4));
    }
}
