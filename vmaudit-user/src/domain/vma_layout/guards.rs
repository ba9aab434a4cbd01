//! Memory behind short ranges without access: stacks behind guard pages, or memory with holes in it.
//!
//! One pair looks like the other; what tells them apart is known at the end only: stacks come in few sizes and about as
//! many as there are threads, holes of an allocator in many sizes and in any number. So pairs are added up by their
//! sizes until then.

use std::collections::HashMap;

use crate::model::vma_layout::{Kind, Reason, Stacks, Tally};

/// Lengths of a guard and of the memory above it, bytes.
pub(super) type Shape = (u64, u64);

/// Shapes that are told apart; a stack is no such rarity.
const MAX_SHAPES: usize = 4096;
/// Pairs from which on a region is judged by itself.
const MANY: u64 = 16;
/// Shapes in which most stacks of one region come.
const FEW_SHAPES: usize = 4;
/// No thread's stack is smaller, bytes (include/bits/pthread_stack_min.h:PTHREAD_STACK_MIN of glibc on x86-64).
const LEAST_STACK: u64 = 16 << 10;
/// No signal stack is smaller (asm-generic SIGSTKSZ) ...
const LEAST_SIGNAL_STACK: u64 = 8 << 10;
/// ... and none that a runtime makes for itself is larger, bytes.
const MOST_SIGNAL_STACK: u64 = 64 << 10;

/// All pairs of one shape.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    guards: Tally,
    blocks: Tally,
    /// Of the blocks: those that were asked for as stacks (MAP_STACK, or MADV_NOHUGEPAGE).
    marked: u64,
    /// Boundaries of both, and the address of the first.
    boundaries: u64,
    example: u64,
}

/// Pairs by their shapes.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    shapes: HashMap<Shape, Pair>,
}

/// What pairs of a shape are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Stack,
    SignalStack,
    /// Memory with short ranges without access in it.
    Piece,
}

/// Where settled pairs are added to.
pub(super) trait Sums {
    fn kind(&mut self, kind: Kind, tally: Tally);
    fn boundaries(&mut self, reason: Reason, boundaries: u64, example: u64);
}

impl Role {
    /// Kinds of the short range and of the memory above it.
    fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::Stack => (Kind::Guard, Kind::Stack),
            Self::SignalStack => (Kind::Guard, Kind::SignalStack),
            Self::Piece => (Kind::Decommitted, Kind::Anonymous),
        }
    }

    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Stack | Self::SignalStack => Reason::Guard,
            Self::Piece => Reason::Decommitted,
        }
    }
}

impl Pair {
    fn add(&mut self, other: &Self) {
        self.guards.join(&other.guards);
        self.blocks.join(&other.blocks);
        self.marked += other.marked;
        if self.boundaries == 0 {
            self.example = other.example;
        }
        self.boundaries += other.boundaries;
    }

    fn settle(&self, role: Role, sums: &mut impl Sums) {
        let (guard, block) = role.kinds();
        sums.kind(guard, self.guards);
        sums.kind(block, self.blocks);
        sums.boundaries(role.reason(), self.boundaries, self.example);
    }
}

impl Pairs {
    /// Pairs of this shape; of what is one too many the last ones go together.
    fn of(&mut self, shape: Shape) -> &mut Pair {
        let room = self.shapes.len() < MAX_SHAPES || self.shapes.contains_key(&shape);
        self.shapes.entry(if room { shape } else { (0, 0) }).or_default()
    }

    pub(super) fn guard(&mut self, shape: Shape, bytes: u64, resident: u64) {
        self.of(shape).guards.add(bytes, resident);
    }

    pub(super) fn block(&mut self, shape: Shape, marked: bool, bytes: u64, resident: u64) {
        let pair = self.of(shape);
        pair.blocks.add(bytes, resident);
        pair.marked += u64::from(marked);
    }

    pub(super) fn boundary(&mut self, shape: Shape, at: u64) {
        let pair = self.of(shape);
        if pair.boundaries == 0 {
            pair.example = at;
        }
        pair.boundaries += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// Boundaries by shape.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (Shape, u64)> + '_ {
        self.shapes.iter().map(|(&shape, pair)| (shape, pair.boundaries))
    }

    /// Many pairs of one region, most of them of sizes of their own: no stacks, however many threads there are.
    pub(super) fn of_many_sizes(&self) -> bool {
        let mut counts: Vec<u64> = self.shapes.values().map(|pair| pair.guards.vmas).collect();
        counts.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
        let all: u64 = counts.iter().sum();
        let usual: u64 = counts.iter().take(FEW_SHAPES).sum();
        all >= MANY && usual * 2 < all && self.shapes.values().all(|pair| pair.marked * 2 <= pair.blocks.vmas)
    }

    /// Takes in what a region had.
    pub(super) fn add(&mut self, others: &Self) {
        for (&shape, pair) in &others.shapes {
            self.of(shape).add(pair);
        }
    }

    /// Settles all in one role.
    pub(super) fn settle_as(&self, role: Role, sums: &mut impl Sums) {
        self.shapes.values().for_each(|pair| pair.settle(role, sums));
    }

    /// Settles each in its role.
    pub(super) fn settle(&self, roles: &HashMap<Shape, Role>, sums: &mut impl Sums) {
        for (shape, pair) in &self.shapes {
            pair.settle(roles.get(shape).copied().unwrap_or(Role::Piece), sums);
        }
    }

    /// What each shape is, in a process of so many threads (`None`: nobody tells).
    pub(super) fn roles(&self, threads: Option<u64>) -> (HashMap<Shape, Role>, Stacks) {
        let marked = |pair: &Pair| pair.marked > 0 && pair.marked * 10 >= pair.blocks.vmas * 9;
        let mut shapes: Vec<(Shape, &Pair)> =
            self.shapes.iter().map(|(&shape, pair)| (shape, pair)).collect();
        shapes.sort_by_key(|&(shape, pair)| {
            (std::cmp::Reverse((marked(pair), pair.blocks.vmas)), std::cmp::Reverse(shape))
        });
        let mut roles = HashMap::new();
        let mut found = Stacks { threads, certain: true, ..Stacks::default() };
        // The C library keeps some stacks of threads that have ended.
        let mut room = match threads {
            None => u64::MAX,
            Some(0 | 1) => 0,
            Some(threads) => threads.saturating_add(threads / 4).saturating_add(16),
        };
        for &(shape @ (guard, block), pair) in &shapes {
            let n = pair.blocks.vmas;
            let fits = block >= LEAST_STACK && block / 4 >= guard && n <= room;
            if n > 0 && (fits || marked(pair)) && shape != (0, 0) {
                room = if threads.is_none() { room } else { room.saturating_sub(n) };
                found.stacks += n;
                found.certain &= marked(pair) || threads.is_some();
                roles.insert(shape, Role::Stack);
            }
        }
        self.signal_stacks(&shapes, &mut roles, &mut found);
        (roles, found)
    }

    /// Small ones beside larger stacks, about as many: each thread has made one for its handlers of signals.
    fn signal_stacks(&self, shapes: &[(Shape, &Pair)], roles: &mut HashMap<Shape, Role>, found: &mut Stacks) {
        for &(shape @ (guard, block), pair) in shapes {
            let n = pair.blocks.vmas;
            let larger: u64 = shapes
                .iter()
                .filter(|((_, other), _)| *other / 2 >= block)
                .filter(|(other, _)| roles.get(other) == Some(&Role::Stack))
                .map(|(_, pair)| pair.blocks.vmas)
                .sum();
            let small = guard <= block && (LEAST_SIGNAL_STACK..=MOST_SIGNAL_STACK).contains(&block);
            let left = larger.saturating_add(larger / 10).saturating_sub(found.signal_stacks);
            if small && n > 0 && n <= left && n * 2 >= larger {
                found.signal_stacks += n;
                if roles.insert(shape, Role::SignalStack) == Some(Role::Stack) {
                    found.stacks -= n;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(shapes: &[(u64, u64, u64, bool)]) -> Pairs {
        let mut pairs = Pairs::default();
        for &(guard, block, n, marked) in shapes {
            for _ in 0..n {
                pairs.guard((guard, block), guard, 0);
                pairs.block((guard, block), marked, block, 0);
                pairs.boundary((guard, block), 0x1000);
            }
        }
        pairs
    }

    const PAGE: u64 = 4096;
    const STACK: (u64, u64) = (PAGE, 8 << 20);

    #[test]
    fn stacks_are_as_many_as_threads() {
        let many = pairs(&[(PAGE, 8 << 20, 100, false)]);
        let (roles, found) = many.roles(Some(101));
        assert_eq!((roles[&STACK], found.stacks, found.certain), (Role::Stack, 100, true));
        // The same in a process with one thread is no stack of a thread, nor with far fewer.
        for threads in [1, 2, 40] {
            assert_eq!(many.roles(Some(threads)).1.stacks, 0, "{threads}");
        }
        let (_, found) = many.roles(None);
        assert_eq!((found.stacks, found.certain), (100, false), "by their shape only");
        // Whoever asked for stacks has stacks: fibers need no threads.
        let (_, found) = pairs(&[(PAGE, 8 << 20, 100, true)]).roles(Some(1));
        assert_eq!((found.stacks, found.certain), (100, true));
    }

    #[test]
    fn signal_stacks_go_with_stacks() {
        let rust = pairs(&[(PAGE, 8 << 20, 300, false), (PAGE, 8192, 300, false)]);
        for threads in [Some(301), None] {
            let (roles, found) = rust.roles(threads);
            assert_eq!((found.stacks, found.signal_stacks), (300, 300), "{threads:?}");
            assert_eq!(roles[&(PAGE, 8192)], Role::SignalStack);
        }
        // Asked for as stacks, as the standard library of Rust does, and wider for the registers of the processor.
        let wide = pairs(&[(PAGE, 2 << 20, 300, true), (PAGE, 16384, 300, true)]);
        for threads in [Some(301), None] {
            let (_, found) = wide.roles(threads);
            assert_eq!((found.stacks, found.signal_stacks), (300, 300), "{threads:?}");
        }
        let alone = pairs(&[(PAGE, 8192, 300, false)]);
        assert_eq!(
            alone.roles(Some(301)).1,
            Stacks { threads: Some(301), certain: true, ..Stacks::default() }
        );
    }

    #[test]
    fn many_sizes_in_one_region_are_holes() {
        let shapes: Vec<_> = (0..24).map(|n| (PAGE, (4 + n) * PAGE, 10, false)).collect();
        assert!(pairs(&shapes).of_many_sizes());
        assert!(!pairs(&[(PAGE, 8 << 20, 100, false), (PAGE, 8192, 100, false)]).of_many_sizes());
        assert!(!pairs(&shapes[..3]).of_many_sizes());
    }

    #[test]
    fn no_more_shapes_than_there_is_room_for() {
        let mut pairs = Pairs::default();
        for n in 1..20_000u64 {
            pairs.guard((PAGE, n * PAGE), PAGE, 0);
        }
        assert!(pairs.shapes.len() <= MAX_SHAPES + 1);
        assert_eq!(pairs.shapes.values().map(|pair| pair.guards.vmas).sum::<u64>(), 19_999);
    }
}
