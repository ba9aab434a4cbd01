//! Images of a process of which more were seen than are kept apart.

use crate::domain::audit::{Audit, Examples, MAX_IMAGES, MAX_KINDS, Process, places};
use crate::domain::images;
use crate::model::event::{MmState, ProcessId, RefusalGroup, Refused};

impl Process {
    /// What it was refused in the address space of another stays apart.
    fn at_oldest(&self) -> usize {
        usize::from(self.mms.first().is_some_and(|mm| mm.host.is_some()))
    }

    /// The two oldest images.
    pub(super) fn oldest(&self) -> Option<(&MmState, &MmState)> {
        let at = self.at_oldest();
        Some((self.mms.get(at)?, self.mms.get(at + 1)?))
    }

    /// Makes one of the two oldest images: the older one, with the sums of both and the larger peak.
    pub(super) fn fold_oldest(&mut self, examples: &mut Examples) {
        let at = self.at_oldest();
        if self.mms.len() < at + 2 {
            return;
        }
        let newer = self.mms.remove(at + 1);
        let Some(older) = self.mms.get_mut(at) else { return };
        self.images_folded += 1;
        let (generation, kinds) = (newer.generation, newer.refusals.clone());
        let no_room = images::join(older, newer, MAX_KINDS);
        // The sums have its calls; they become a row without a cause.
        self.kept_bytes =
            no_room.iter().fold(self.kept_bytes, |sum, kind| sum.saturating_add(kind.kept_bytes));
        for kind in kinds {
            let found = take_examples(examples, generation, &kind);
            if !no_room.iter().any(|known| images::same(known, &kind)) {
                put_examples(examples, older.generation, found);
            }
        }
    }
}

impl Audit {
    /// Of images that became one before they were told, examples may have been, and makers of the smaller one.
    pub(super) fn joined(&mut self, state: &MmState) {
        if state.joined.as_ref().is_some_and(|it| it.outgrown) {
            self.makers.forget(state.generation);
        }
        let generations = state.joined.iter().flat_map(|it| &it.generations).take(MAX_IMAGES);
        for &generation in generations.filter(|generation| **generation != state.generation) {
            for kind in &state.refusals {
                let found = take_examples(&mut self.examples, generation, kind);
                put_examples(&mut self.examples, state.generation, found);
            }
        }
    }

    /// Makes one of the oldest images of a process until there are so many.
    pub(super) fn fold_images(&mut self, id: ProcessId, most: usize) {
        while let Some(process) = self.processes.get(&id).filter(|process| process.mms.len() > most) {
            if let Some((older, newer)) = process.oldest() {
                self.marks.fold(id, older, newer);
                self.makers.fold(older, newer);
                self.join_series(Some(self.joined_series(older, newer)));
            }
            self.processes.entry(id).or_default().fold_oldest(&mut self.examples);
        }
    }
}

fn take_examples(examples: &mut Examples, generation: u64, kind: &RefusalGroup) -> Vec<Refused> {
    places(generation, kind).filter_map(|place| examples.remove(&place)).collect()
}

fn put_examples(examples: &mut Examples, generation: u64, found: Vec<Refused>) {
    for example in found {
        let place = (generation, example.call, example.errno, example.class, example.site);
        examples.entry(place).or_insert(example);
    }
}
