//! Stacks with weights as a tree, and where each part of it stands in a picture: callers above, the innermost below.

mod drawn;

use std::collections::BTreeMap;

pub(crate) use drawn::{Drawing, ROW};

use crate::text::{count, total};

/// Levels; what is deeper is left out of the picture, not of its parents.
const DEPTH: usize = 128;
/// Parts of one picture.
const PARTS: usize = 6000;
/// Narrower parts cannot be seen, pixels.
const NARROW: f64 = 0.6;

/// Stacks that begin alike, as a tree.
#[derive(Debug, Default)]
pub(crate) struct Flame {
    weight: u64,
    below: BTreeMap<String, Self>,
}

/// A part of the picture, in units of its width.
#[derive(Clone, Debug, PartialEq)]
struct Part<'a> {
    name: &'a str,
    weight: u64,
    /// From the top, 0 is the first.
    level: usize,
    /// Left edge.
    x: f64,
    width: f64,
    /// Nothing is below it.
    innermost: bool,
}

impl Flame {
    /// Adds one stack, outermost name first.
    pub(crate) fn add(&mut self, names: impl IntoIterator<Item = String>, weight: u64) {
        self.weight = self.weight.saturating_add(weight);
        let mut here = self;
        for name in names.into_iter().take(DEPTH) {
            here = here.below.entry(name).or_default();
            here.weight = here.weight.saturating_add(weight);
        }
    }

    /// Of all stacks.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The parts that can be seen in a picture so many pixels wide, the upper ones first, and the number of the others.
    fn parts(&self, width: f64) -> (Vec<Part<'_>>, u64) {
        let (mut parts, mut left_out) = (Vec::new(), 0_u64);
        let mut level = vec![(self, 0.0, width)];
        for depth in 0.. {
            let mut next = Vec::new();
            for (parent, from, room) in level {
                // Sums that were too large for a number are the largest one: nothing may stand outside of its parent.
                let whole = total(parent.below.values().map(|it| it.weight)).max(parent.weight).max(1);
                let mut x = from;
                for (name, child) in &parent.below {
                    let width = (room * (child.weight as f64 / whole as f64)).min(from + room - x);
                    if width < NARROW || parts.len() == PARTS {
                        left_out = left_out.saturating_add(child.size());
                    } else {
                        let innermost = child.below.is_empty();
                        parts.push(Part { name, weight: child.weight, level: depth, x, width, innermost });
                        next.push((child, x, width));
                    }
                    x += width.max(0.0);
                }
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        (parts, left_out)
    }

    /// Parts of it, itself included.
    fn size(&self) -> u64 {
        total(self.below.values().map(Self::size)).saturating_add(1)
    }
}

/// What is not drawn, as a sentence.
pub(crate) fn left_out(parts: u64) -> Option<String> {
    (parts > 0).then(|| format!("{} too narrow to be drawn.", count(parts, "part is", "parts are")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn parts_stand_below_their_callers_and_share_their_width() {
        let mut flame = Flame::default();
        flame.add(names(&["p", "main", "a", "mmap"]), 30);
        flame.add(names(&["p", "main", "b", "mmap"]), 10);
        flame.add(names(&["p", "main", "b"]), 60);
        let (parts, left_out) = flame.parts(100.0);
        let told: Vec<(&str, usize, f64, f64)> =
            parts.iter().map(|it| (it.name, it.level, it.x, it.width)).collect();
        assert_eq!(
            told,
            [
                ("p", 0, 0.0, 100.0),
                ("main", 1, 0.0, 100.0),
                ("a", 2, 0.0, 30.0),
                ("b", 2, 30.0, 70.0),
                ("mmap", 3, 0.0, 30.0),
                ("mmap", 3, 30.0, 10.0)
            ]
        );
        assert_eq!((left_out, flame.weight()), (0, 100));
    }

    #[test]
    fn what_cannot_be_seen_is_counted_and_nothing_stands_outside() {
        let mut flame = Flame::default();
        for n in 0..50_000 {
            flame.add(names(&["p", &format!("{n:05}"), "mmap"]), 1 + 1000 * u64::from(n == 7));
        }
        flame.add(names(&["q"]), u64::MAX);
        flame.add(names(&["r"; 500]), u64::MAX);
        let (parts, left_out) = flame.parts(1000.0);
        assert!(left_out >= 50_000 && parts.len() <= PARTS, "{left_out} {}", parts.len());
        assert!(parts.iter().all(|it| it.x >= 0.0 && it.x + it.width <= 1000.01 && it.level < DEPTH));
    }
}
