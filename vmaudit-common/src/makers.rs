//! Who raises the count: the levels that it reaches are cut into strata, in each stratum one place is drawn, and whoever
//! takes the count there is credited with the whole stratum. What falls away is taken back when the count rises again:
//! last in, first out.
//!
//! The kernel side keeps [`Makers`] for each address space and sends a [`MakerRecord`] for each credit; user space owns the
//! pile of credits.

use bytemuck::{Pod, Zeroable};

use crate::RecordHeader;

/// Kind of a [`MakerRecord`].
pub const RECORD_MAKER: u32 = 11;
/// Levels that nobody is credited with: what every program has when it begins.
pub const MAKERS_START: u32 = 32;
/// From this level on the whole stack is copied, as far as copies go; below it so many bytes: most processes stay there.
pub const MAKERS_COPIES: u32 = 256;
/// See [`MAKERS_COPIES`].
pub const MAKERS_SHORT_COPY: u64 = 2048;
/// Words of a [`MakerRecord`]: the caller, the program counter, return addresses.
pub const MAKER_WORDS: usize = 64;
/// Return addresses followed of one stack.
pub const MAKER_FRAMES: usize = 32;

/// Falls after which strata are twice as long: who goes up and down all day is to pay less.
const FALLS: u32 = 8;
/// Longest stratum below [`LARGE`]. The error of the worst place is its standard deviation: 0.8 points of a hundred at 60,000
/// VMAs (1.1 with 32, at three fifths of the credits).
const LONGEST: u32 = 16;
/// From here on strata grow with the level again, so that the number of credits stays bounded.
const LARGE: u32 = 1 << 16;

/// What the kernel side keeps of one address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Makers {
    /// Up to this level all is credited, or left out.
    pub credited: u32,
    /// At this level the next credit is due.
    pub next: u32,
    /// Below this level, credits are taken back.
    pub floor: u32,
    /// Twice how often the count fell below it and rose again; odd while it falls.
    pub turns: u32,
}

impl Makers {
    /// Of an address space with this count.
    #[inline(always)]
    pub const fn begin(count: u32) -> Self {
        let credited = if count < MAKERS_START { MAKERS_START - 1 } else { count };
        Self { credited, next: credited + 1, floor: 0, turns: 0 }
    }

    /// Nothing is to be done at this level.
    #[inline(always)]
    pub const fn rests(self, count: u32) -> bool {
        count < self.next && count >= self.floor
    }

    /// The state after a change to a level at which something is to be done, and whether somebody is credited with the levels
    /// from [`Makers::credited`] of before up to that of after. `random`: any number.
    #[inline(always)]
    pub const fn at(self, count: u32, random: u32) -> (Self, bool) {
        if count < self.next {
            // What every program has when it begins stays nobody's.
            let credited = if count < MAKERS_START { MAKERS_START - 1 } else { count };
            return (Self::rest(credited, self.turns | 1, random), false);
        }
        let turns = self.turns.saturating_add(self.turns & 1);
        let whole = self.credited.saturating_add(stratum(self.credited, turns / 2));
        (Self::rest(most(whole, count), turns, random), true)
    }

    #[inline(always)]
    const fn rest(credited: u32, turns: u32, random: u32) -> Self {
        let falls = turns / 2 + (turns & 1);
        let length = stratum(credited, falls);
        let next = credited.saturating_add(1 + random % length);
        Self { credited, next, floor: credited.saturating_sub(slack(credited, length, falls)), turns }
    }
}

/// Length of the stratum above a level, after so many falls.
#[inline(always)]
const fn stratum(level: u32, falls: u32) -> u32 {
    if level >= LARGE {
        return level / (LARGE / LONGEST);
    }
    let longest = if falls < FALLS { LONGEST } else { 2 * LONGEST };
    let length = least(level / 256 + 1, longest);
    let longer = length << least(falls / FALLS, 4);
    // Not so long that few of them are all there is.
    least(longer, least(most(length, level / 48), longest))
}

#[inline(always)]
const fn least(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[inline(always)]
const fn most(a: u32, b: u32) -> u32 {
    if a < b { b } else { a }
}

/// How far the count may fall before credits are taken back: twice a stratum, and twice as much after each fall, up to a
/// quarter of the level, so that who goes up and down for long does not pay for it.
#[inline(always)]
const fn slack(level: u32, length: u32, falls: u32) -> u32 {
    least((2 * length) << least(falls, 16), most(2 * length, level / 4))
}

/// A credit. The record ends behind the words that are used; a copy of the stack, if there is one, comes before it in
/// [`crate::StackRecord`]s with its time and task.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MakerRecord {
    /// Kind [`RECORD_MAKER`].
    pub head: RecordHeader,
    /// The levels above this one ...
    pub base: u32,
    /// ... up to this one are credited.
    pub level: u32,
    /// Which [`crate::call::Call`] took the count there.
    pub call: u32,
    /// Used words.
    pub used: u32,
    /// The word on top of the stack, the program counter, then return addresses by frame pointers, innermost first.
    pub words: [u64; MAKER_WORDS],
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Numbers as good as random, the same in each run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as u32
        }
    }

    /// An address space, its owners by level, and the pile that user space would have.
    struct World {
        makers: Makers,
        random: Random,
        owners: Vec<usize>,
        pile: Vec<(u32, u32, usize)>,
        credits: usize,
    }

    impl World {
        fn new() -> Self {
            Self {
                makers: Makers::begin(0),
                random: Random(7),
                owners: std::vec![9; MAKERS_START as usize - 1],
                pile: Vec::new(),
                credits: 0,
            }
        }

        fn look(&mut self, site: usize) {
            let count = self.owners.len() as u32;
            if self.makers.rests(count) {
                return;
            }
            let (after, credit) = self.makers.at(count, self.random.next());
            if credit {
                self.credits += 1;
                let base = self.makers.credited;
                while let Some(top) = self.pile.last_mut().filter(|top| top.1 > base) {
                    if top.0 < base {
                        top.1 = base;
                    } else {
                        self.pile.pop();
                    }
                }
                self.pile.push((base, after.credited, site));
            }
            self.makers = after;
        }

        fn map(&mut self, site: usize) {
            self.owners.push(site);
            self.look(site);
        }

        fn unmap(&mut self, at: usize) {
            self.owners.remove(at);
            self.look(8);
        }

        /// Error of the worst site, points of a hundred.
        fn error(&self) -> f64 {
            let all = self.owners.len() as f64;
            let count = self.owners.len() as u32;
            (0..4)
                .map(|site| {
                    let held = self.owners.iter().filter(|&&it| it == site).count() as f64;
                    let levels = |&(from, to, it): &(u32, u32, usize)| {
                        if it == site { f64::from(to.min(count).saturating_sub(from)) } else { 0.0 }
                    };
                    let credited: f64 = self.pile.iter().map(levels).sum();
                    ((held - credited) / all * 100.0).abs()
                })
                .fold(0.0, f64::max)
        }
    }

    fn site(random: u32) -> usize {
        match random % 100 {
            0..50 => 0,
            50..80 => 1,
            80..95 => 2,
            _ => 3,
        }
    }

    #[test]
    fn four_sites_in_any_order_are_told_within_three_points() {
        for (name, n, order) in [
            ("random", 60_000, (|_, r| site(r)) as fn(u32, u32) -> usize),
            ("few", 400, |_, r| site(r)),
            ("bursts", 60_000, |n, _| site(n / 1000 * 37)),
            ("period 20", 60_000, |n, _| site(n % 20 * 5)),
            ("period 16", 60_000, |n, _| site(n % 16 * 6)),
        ] {
            let (mut world, mut random) = (World::new(), Random(3));
            for k in 0..n {
                world.map(order(k, random.next()));
            }
            assert!(world.error() < 3.0, "{name}: {}", world.error());
            assert!(world.credits < 5500, "{name}: {}", world.credits);
        }
    }

    #[test]
    fn below_256_nothing_is_left_out_and_no_farther() {
        let mut world = World::new();
        let own = MAKERS_START - 1;
        (own..255).for_each(|n| world.map(n as usize % 4));
        let sum: u32 = world.pile.iter().map(|(from, to, _)| to - from).sum();
        assert_eq!((sum, world.error()), (255 - own, 0.0));
        assert!(world.pile.iter().all(|(from, to, _)| to - from == 1));
        (0..100).for_each(|n| world.map(n % 4));
        assert!(world.pile.iter().any(|(from, to, _)| to - from > 1), "strata of two levels");
    }

    #[test]
    fn who_is_gone_is_not_credited() {
        let mut world = World::new();
        (0..20_000).for_each(|_| world.map(0));
        (0..20_000).for_each(|_| world.unmap(world.owners.len() - 1));
        (0..20_200).for_each(|_| world.map(1));
        assert!(world.error() < 0.5, "{}", world.error());
    }

    #[test]
    fn a_saw_tooth_is_told_and_its_price_is_bounded() {
        let (mut world, mut random) = (World::new(), Random(5));
        while world.owners.len() < 57_000 {
            (0..3000).for_each(|_| world.map(site(random.next())));
            for _ in 0..2000 {
                let own = MAKERS_START as usize - 1;
                let at = own + random.next() as usize % (world.owners.len() - own);
                world.unmap(at);
            }
        }
        (0..3000).for_each(|_| world.map(site(random.next())));
        assert!(world.error() < 3.0, "{}", world.error());
        assert!(world.credits < 12_000, "{}", world.credits);
    }

    #[test]
    fn going_up_and_down_costs_little_in_the_end() {
        for (height, swing) in [(100, 10), (400, 90), (400, 200), (3000, 2000), (20_000, 15_000)] {
            let mut world = World::new();
            (0..height).for_each(|_| world.map(0));
            for _ in 0..100 {
                (0..swing).for_each(|_| world.unmap(world.owners.len() - 1));
                (0..swing).for_each(|_| world.map(1));
            }
            let before = world.credits;
            (0..swing).for_each(|_| world.unmap(world.owners.len() - 1));
            (0..swing).for_each(|_| world.map(1));
            let more = world.credits - before;
            assert!(more <= swing / 6, "{height}, {swing}: {more}");
        }
    }

    #[test]
    fn no_level_overflows() {
        for count in [0, MAKERS_START - 1, MAKERS_START, u32::MAX - 1, u32::MAX] {
            let mut makers = Makers::begin(count.min(u32::MAX - 1));
            for level in [u32::MAX, 0, u32::MAX, 65_536, 1] {
                (makers, _) = makers.at(level, u32::MAX);
                assert!(makers.floor <= makers.credited && makers.next >= makers.credited);
            }
        }
    }
}
