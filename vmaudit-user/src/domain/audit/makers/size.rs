//! How much memory piles take.

use super::{Pile, Piles, Seen};
use crate::domain::audit::size::{of_list, of_map};

impl Piles {
    /// Bytes that they take.
    pub(in crate::domain::audit) fn bytes(&self) -> usize {
        let of_place = |seen: &Seen| {
            of_list(&seen.place.stack) + seen.followed.as_ref().map_or(0, |it| of_list(&it.addresses))
        };
        of_map::<u64, Pile>(self.piles.len())
            + self.piles.values().map(|pile| of_list(&pile.nodes)).sum::<usize>()
            + of_map::<u64, u64>(self.others.len())
            + of_map::<(u64, u32), Seen>(self.places.len())
            + self.places.values().map(of_place).sum::<usize>()
            + of_map::<(u64, u64), u32>(self.entries.len())
    }
}
