//! Names of addresses, stacks and places of one address space: the newest, as many as may be.

use std::collections::BTreeMap;

use crate::model::event::Event;

/// What a name is of, and where.
type Key = (&'static str, u64, u64);

/// Names, in the order in which they were told last.
#[derive(Default)]
pub struct Names {
    of: BTreeMap<Key, (u64, Event)>,
    order: BTreeMap<u64, Key>,
    told: u64,
}

impl Names {
    /// Takes one; with more than `most` the oldest go: their number.
    pub fn put(&mut self, key: Key, event: &Event, most: usize) -> usize {
        self.told += 1;
        if let Some((before, _)) = self.of.insert(key, (self.told, event.clone())) {
            self.order.remove(&before);
        }
        self.order.insert(self.told, key);
        self.drop_to(most)
    }

    /// Drops the oldest until no more than `most` are left; returns how many went.
    pub fn drop_to(&mut self, most: usize) -> usize {
        let mut dropped = 0;
        while self.of.len() > most
            && let Some((_, key)) = self.order.pop_first()
        {
            self.of.remove(&key);
            dropped += 1;
        }
        dropped
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Always in the same order.
    pub fn all(&self) -> impl Iterator<Item = &Event> {
        self.of.values().map(|(_, event)| event)
    }
}
