//! Credits as piles: who made the VMAs that an address space had at its peak.
//!
//! A pile covers the levels of the count from below. A new credit takes the place of all above its base, and what the pile
//! was at the highest level stays known. Both are chains in one tree of nodes, so that nothing is copied at a peak.

pub(super) mod rows;
mod size;

use std::collections::{BTreeMap, HashMap, HashSet};

use vmaudit_common::MAKERS_COPIES;
use vmaudit_common::call::Call;

use crate::model::event::{FollowedStack, MmState, ProcessId};
use crate::model::makers::{Credit, Cut, Place};

/// Address spaces with a pile.
const PILES: usize = 20_000;
/// Places kept, of all address spaces.
const PLACES: usize = 50_000;
/// Nodes of a pile; of one that is larger the rest is not sampled.
const NODES: usize = 1 << 17;
/// Nodes beyond twice those in use that may be of no use.
const SLACK: usize = 64;
/// No node.
const NONE: u32 = u32::MAX;

/// All piles of a session.
#[derive(Debug, Default)]
pub(super) struct Piles {
    /// By generation.
    piles: HashMap<u64, Pile>,
    /// By image, where that has the pile of another one.
    others: HashMap<u64, u64>,
    places: HashMap<(u64, u32), Seen>,
    /// Places of entries of the ledger, by generation and key.
    entries: BTreeMap<(u64, u64), u32>,
    /// Address spaces in which names are looked up at the end; `None`: before that, and where they are looked up in all.
    looked_up: Option<HashSet<u64>>,
    names_in_all: bool,
    /// Processes for whose changes the report has little room.
    pub(super) brief: HashSet<ProcessId>,
}

/// A place, and what became of its stack.
#[derive(Debug)]
struct Seen {
    place: Place,
    followed: Option<Box<FollowedStack>>,
}

#[derive(Debug)]
struct Pile {
    tgid: u32,
    nodes: Vec<Node>,
    /// The highest number of a place of its address space.
    places: u32,
    /// The uppermost now, and when the level was highest.
    top: u32,
    highest: u32,
    /// The number of nodes at which those in neither chain are forgotten.
    compact_at: usize,
    /// The image that it is shown for: of more images than are kept apart some have become one.
    image: u64,
    /// Count that its own image came with, where that is not the same.
    first: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    base: u32,
    level: u32,
    call: Call,
    place: u32,
    below: u32,
}

impl Pile {
    fn new(tgid: u32, image: u64) -> Self {
        let (nodes, top, highest) = (Vec::new(), NONE, NONE);
        Self { tgid, nodes, places: 0, top, highest, compact_at: SLACK, image, first: None }
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    fn level(&self, at: u32) -> u32 {
        self.node(at).map_or(0, |node| node.level)
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn take(&mut self, credit: &Credit) {
        if credit.level <= credit.base {
            return;
        }
        let mut cut = None;
        while let Some(top) = self.node(self.top).copied() {
            match Cut::of((top.base, top.level), credit.base) {
                Cut::Stays => break,
                Cut::To(level) => cut = Some(Node { level, ..top }),
                Cut::Goes => {}
            }
            self.top = top.below;
        }
        if self.nodes.len() >= self.compact_at {
            self.compact();
            let fits = self.chain(self.top).take(NODES - SLACK).count() < NODES - SLACK;
            if self.nodes.len() + SLACK >= NODES && credit.level > self.level(self.highest) && fits {
                // What was highest is not any more.
                self.highest = NONE;
                self.compact();
            }
            self.compact_at = 2 * self.nodes.len() + SLACK;
            // One that is full to the brim waits for as many credits, so that each costs a constant.
            if self.nodes.len() + SLACK < NODES {
                self.compact_at = self.compact_at.min(NODES - 1);
            }
        }
        if self.nodes.len() + 2 > NODES {
            self.compact_at = self.compact_at.saturating_sub(1);
            return;
        }
        if let Some(cut) = cut {
            self.top = self.push(Node { below: self.top, ..cut });
        }
        let &Credit { base, level, call, place, .. } = credit;
        self.places = self.places.max(place);
        self.top = self.push(Node { base, level, call, place, below: self.top });
        if level > self.level(self.highest) {
            self.highest = self.top;
        }
    }

    fn chain(&self, from: u32) -> impl Iterator<Item = (u32, &Node)> {
        let mut next = from;
        std::iter::from_fn(move || {
            let at = next;
            let node = self.node(at)?;
            next = node.below;
            Some((at, node))
        })
    }

    /// Forgets the nodes that are in neither chain.
    fn compact(&mut self) {
        let kept: BTreeMap<u32, Node> =
            self.chain(self.top).chain(self.chain(self.highest)).map(|(at, node)| (at, *node)).collect();
        // What lies below was pushed before.
        let new: HashMap<u32, u32> = kept.keys().zip(0..).map(|(&old, new)| (old, new)).collect();
        let moved = |at: u32| new.get(&at).copied().unwrap_or(NONE);
        self.nodes = kept.values().map(|node| Node { below: moved(node.below), ..*node }).collect();
        (self.top, self.highest) = (moved(self.top), moved(self.highest));
    }

    /// Levels up to `peak`, by call and place; and of the others, how many lie above `first`.
    fn sums(&self, first: u32, peak: u32) -> (BTreeMap<(Call, u32), u64>, u64) {
        let mut sums = BTreeMap::new();
        let mut uncovered = u64::from(peak.saturating_sub(first));
        for (_, node) in self.chain(self.highest) {
            let (base, level) = (node.base.min(peak), node.level.min(peak));
            *sums.entry((node.call, node.place)).or_default() += u64::from(level - base);
            uncovered = uncovered.saturating_sub(u64::from(level.max(first) - base.max(first)));
        }
        sums.retain(|_, sum| *sum > 0);
        (sums, uncovered)
    }

    /// The levels by call alone, which takes no room.
    fn fold(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.place = 0);
        let mut chain: Vec<Node> = self.chain(self.highest).map(|(_, node)| *node).collect();
        chain.reverse();
        let mut folded: Vec<Node> = Vec::new();
        for node in chain {
            match folded.last_mut() {
                Some(last) if last.level == node.base && last.call == node.call => last.level = node.level,
                _ => {
                    let below = folded.len().checked_sub(1).map_or(NONE, |at| at as u32);
                    folded.push(Node { below, ..node });
                }
            }
        }
        folded.shrink_to_fit();
        self.nodes = folded;
        self.top = self.nodes.len().checked_sub(1).map_or(NONE, |at| at as u32);
        self.highest = self.top;
    }
}

impl Piles {
    /// `names_in_all`: they were looked up as the stacks came, as for the flight recorder.
    pub(super) fn new(names_in_all: bool) -> Self {
        Self { names_in_all, ..Self::default() }
    }

    pub(super) fn credit(&mut self, credit: &Credit) {
        if credit.key != 0 {
            if self.entries.len() < PLACES {
                self.entries.insert((credit.generation, credit.key), credit.place);
            }
            return;
        }
        if self.piles.len() >= PILES && !self.piles.contains_key(&credit.generation) {
            return;
        }
        self.piles
            .entry(credit.generation)
            .or_insert_with(|| Pile::new(credit.tgid, credit.generation))
            .take(credit);
    }

    pub(super) fn place(&mut self, place: Place) {
        if self.places.len() < PLACES {
            self.places.entry((place.generation, place.place)).or_insert(Seen { place, followed: None });
        }
    }

    pub(super) fn followed(&mut self, place: u32, stack: FollowedStack) {
        if let Some(seen) = self.places.get_mut(&(stack.generation, place)) {
            seen.followed = Some(Box::new(stack));
        }
    }

    /// Its figures are final.
    pub(super) fn ended(&mut self, state: &MmState) {
        if state.peak < MAKERS_COPIES
            && state.ledger.is_none()
            && let Some(pile) = self.piles.get_mut(&state.generation)
        {
            pile.fold();
            let places = std::mem::take(&mut pile.places);
            self.forget_places(state.generation, places);
        }
    }

    /// The place of an entry of the ledger.
    pub(super) fn place_of_entry(&self, generation: u64, key: u64) -> Option<u32> {
        self.entries.get(&(generation, key)).copied()
    }

    /// Frames that the kernel side followed.
    pub(super) fn frame_pointers(&self, generation: u64, place: u32) -> usize {
        self.places.get(&(generation, place)).map_or(0, |seen| seen.place.stack.len())
    }

    fn forget_places(&mut self, generation: u64, places: u32) {
        (1..=places).for_each(|place| drop(self.places.remove(&(generation, place))));
    }

    /// The generation of the pile that is shown for an image.
    fn shown_for(&self, image: u64) -> u64 {
        self.others.get(&image).copied().unwrap_or(image)
    }

    fn of(&self, image: u64) -> Option<&Pile> {
        self.piles.get(&self.shown_for(image))
    }

    /// Two images become one, the older; its peak is that of the larger.
    pub(super) fn fold(&mut self, older: &MmState, newer: &MmState) {
        // What is kept of both has no ledger.
        [older, newer].into_iter().for_each(|image| self.forget_entries(image.generation));
        if newer.peak <= older.peak {
            return self.forget(newer.generation);
        }
        self.forget(older.generation);
        let generation = self.shown_for(newer.generation);
        self.others.remove(&newer.generation);
        if let Some(pile) = self.piles.get_mut(&generation) {
            pile.image = older.generation;
            pile.first.get_or_insert(newer.first);
            self.others.insert(older.generation, generation);
        }
    }

    pub(super) fn forget(&mut self, image: u64) {
        let generation = self.others.remove(&image).unwrap_or(image);
        if let Some(pile) = self.piles.remove(&generation) {
            self.forget_places(generation, pile.places);
        }
        self.forget_entries(image);
    }

    fn forget_entries(&mut self, image: u64) {
        let of_it = self.entries.range((image, 0)..=(image, u64::MAX));
        let entries: Vec<((u64, u64), u32)> = of_it.map(|(key, place)| (*key, *place)).collect();
        for (key, place) in entries {
            self.entries.remove(&key);
            self.places.remove(&(image, place));
        }
    }

    pub(super) fn retain(&mut self, mut keeps: impl FnMut(u64) -> bool) {
        let Self { piles, others, places, entries, .. } = self;
        let image = |piles: &HashMap<u64, Pile>, of: u64| piles.get(&of).map_or(of, |pile| pile.image);
        places.retain(|(generation, _), _| keeps(image(piles, *generation)));
        entries.retain(|(generation, _), _| keeps(image(piles, *generation)));
        piles.retain(|_, pile| keeps(pile.image));
        others.retain(|_, generation| piles.contains_key(generation));
    }

    /// Address spaces with a place.
    pub(super) fn generations(&self) -> impl Iterator<Item = u64> {
        self.places.keys().map(|(generation, _)| *generation)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn piles(&self) -> usize {
        self.piles.len()
    }

    /// Numbers of processes that had calls credited from a place.
    pub(super) fn named(&self) -> HashSet<u32> {
        self.piles.values().filter(|pile| pile.places > 0).map(|pile| pile.tgid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmaudit_common::call::{MMAP, MPROTECT};

    fn credit(base: u32, level: u32, call: Call, place: u32) -> Credit {
        Credit {
            at_ns: 1,
            generation: 1,
            tgid: 1,
            tid: 1,
            base,
            level,
            call,
            place,
            caller: None,
            stack: Vec::new(),
            key: 0,
        }
    }

    fn pile(credits: &[Credit]) -> Pile {
        let mut pile = Pile::new(1, 1);
        credits.iter().for_each(|it| pile.take(it));
        pile
    }

    fn sums(pile: &Pile, first: u32, peak: u32) -> (Vec<(u32, u64)>, u64) {
        let (sums, uncovered) = pile.sums(first, peak);
        (sums.into_iter().map(|((_, place), sum)| (place, sum)).collect(), uncovered)
    }

    #[test]
    fn a_later_credit_takes_the_place_of_those_above_its_base() {
        let all = [
            credit(47, 100, MMAP, 1),
            credit(100, 200, MMAP, 2),
            credit(150, 160, MMAP, 3),
            credit(160, 180, MMAP, 1),
        ];
        // At the highest level the second one had all of its own.
        assert_eq!(sums(&pile(&all), 47, 200), (vec![(1, 53), (2, 100)], 0));
        let more = [all.as_slice(), &[credit(180, 300, MMAP, 4)]].concat();
        assert_eq!(sums(&pile(&more), 47, 290), (vec![(1, 73), (2, 50), (3, 10), (4, 110)], 0));
    }

    #[test]
    fn what_nobody_is_credited_with_is_counted() {
        let holes = pile(&[credit(60, 70, MMAP, 1), credit(90, 100, MMAP, 1)]);
        assert_eq!(sums(&holes, 47, 110), (vec![(1, 20)], 13 + 20 + 10));
        // Fallen below where it began.
        let fallen = pile(&[credit(300, 310, MMAP, 1), credit(200, 320, MMAP, 2)]);
        assert_eq!(sums(&fallen, 300, 320), (vec![(2, 120)], 0));
        assert_eq!(sums(&pile(&[credit(5, 5, MMAP, 1)]), 5, 5), (vec![], 0), "no levels");
    }

    #[test]
    fn unreachable_nodes_go_and_the_sums_stay() {
        let mut grown = pile(&[]);
        for n in 0..1000 {
            grown.take(&credit(100 + n % 50, 101 + n % 50, MMAP, n % 7 + 1));
        }
        let before = sums(&grown, 47, 150);
        grown.compact();
        assert!(grown.nodes.len() <= 102, "{}", grown.nodes.len());
        assert_eq!(sums(&grown, 47, 150), before);
    }

    #[test]
    fn nodes_of_no_use_take_no_room() {
        let mut grown = pile(&[]);
        for n in 0..4 * NODES as u32 {
            grown.take(&credit(100 + n % 50, 101 + n % 50, MMAP, n % 7 + 1));
            assert!(grown.nodes.len() <= 2 * 102 + SLACK + 2, "{} after {n}", grown.nodes.len());
        }
        assert_eq!(sums(&grown, 100, 150).1, 0);
    }

    #[test]
    fn one_that_was_full_goes_on_when_it_has_fallen() {
        let mut grown = pile(&[]);
        // More levels than there are nodes: the rest is not sampled.
        let levels = NODES as u32 + 1000;
        (1..=levels).for_each(|n| grown.take(&credit(n, n + 1, MMAP, 1)));
        assert!(grown.nodes.len() <= NODES);
        let (sums, not_sampled) = sums(&grown, 1, levels + 1);
        assert!(
            sums[0].1 + not_sampled == u64::from(levels) && not_sampled >= 1000,
            "{sums:?} {not_sampled}"
        );
        // All is freed, and another place comes: it is credited, if not with each of the first.
        (0..2 * NODES as u32 + 200_000).for_each(|n| grown.take(&credit(1, 2 + n, MMAP, 2)));
        let (after, left) = self::sums(&grown, 1, 2 * NODES as u32 + 200_001);
        assert_eq!((after, left), (vec![(2, 2 * u64::from(NODES as u32) + 200_000)], 0));
    }

    #[test]
    fn folded_by_call_the_sums_stay() {
        let mut it = pile(&[credit(47, 50, MMAP, 1), credit(50, 60, MMAP, 2), credit(60, 70, MPROTECT, 3)]);
        it.fold();
        assert_eq!(it.nodes.len(), 2);
        assert_eq!(it.sums(47, 70).0, [((MMAP, 0), 13), ((MPROTECT, 0), 10)].into_iter().collect());
    }
}
