//! Mappings of one object that follow each other: while they stream by, and when they are over.

use std::collections::HashMap;

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::guards::{Pairs, Role, Shape};
use crate::domain::vma_layout::maps_parser::Mapping;
use crate::domain::vma_layout::shared_memory::shared_memory;
use crate::model::vma_layout::{Reason, Region};

/// Regions kept while the file streams by.
pub(crate) const MAX_REGIONS: usize = 16;
/// Reasons or sizes told apart within one region.
const MAX_IN_REGION: usize = 64;

/// A region that goes on.
#[derive(Debug)]
pub(super) struct Run {
    start: u64,
    end: u64,
    pub(super) vmas: u64,
    name: String,
    sizes: HashMap<u64, u64>,
    pub(super) reasons: HashMap<Reason, u64>,
    pub(super) pairs: Pairs,
}

/// One that is over; what its pairs are is known at the end.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) region: Region,
    reasons: HashMap<Reason, u64>,
    /// Boundaries of pairs by shape.
    pairs: Vec<(Shape, u64)>,
}

impl Run {
    pub(super) fn new(first: &Mapping) -> Self {
        Self {
            start: first.start,
            end: first.end,
            vmas: 0,
            name: first.name.clone(),
            sizes: HashMap::new(),
            reasons: HashMap::new(),
            pairs: Pairs::default(),
        }
    }

    pub(super) fn take(&mut self, mapping: &Mapping) {
        self.vmas += 1;
        self.end = self.end.max(mapping.end);
        if self.sizes.len() < MAX_IN_REGION || self.sizes.contains_key(&mapping.bytes()) {
            *self.sizes.entry(mapping.bytes()).or_default() += 1;
        }
    }

    /// A reason between two of its pieces.
    pub(super) fn note(&mut self, reason: Reason) {
        if self.reasons.len() < MAX_IN_REGION || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// `settled`: its pairs have their role already.
    pub(super) fn finish(self, settled: bool) -> Over {
        let (piece_bytes, pieces) =
            self.sizes.into_iter().max_by_key(|&(size, n)| (n, size)).unwrap_or((0, 0));
        let mut reasons = self.reasons;
        let mut pairs: Vec<(Shape, u64)> = self.pairs.shapes().collect();
        if settled && !pairs.is_empty() {
            *reasons.entry(Role::Piece.reason()).or_default() += pairs.iter().map(|(_, n)| n).sum::<u64>();
            pairs.clear();
        }
        pairs.sort_unstable_by_key(|&(shape, n)| (std::cmp::Reverse(n), shape));
        pairs.truncate(MAX_IN_REGION);
        let region = Region {
            start: Some(format!("{:#x}", self.start)),
            bytes: self.end.saturating_sub(self.start),
            vmas: self.vmas,
            name: self.name,
            piece_bytes,
            pieces,
            reasons: Vec::new(),
            stacks: 0,
        };
        Over { region, reasons, pairs }
    }
}

impl Over {
    pub(super) fn finish(self, roles: &HashMap<Shape, Role>, anonymizer: &Anonymizer) -> Region {
        let Self { mut region, mut reasons, pairs } = self;
        for (shape, n) in pairs {
            let role = roles.get(&shape).copied().unwrap_or(Role::Piece);
            *reasons.entry(role.reason()).or_default() += n;
            if role != Role::Piece {
                region.stacks += n;
            }
        }
        region.stacks = region.stacks.min(region.vmas);
        let mut reasons: Vec<(Reason, u64)> = reasons.into_iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        reasons.truncate(3);
        region.reasons = reasons;
        let name = shared_memory(&region.name);
        region.name = anonymizer.apply(name.as_deref().unwrap_or(&region.name)).into_owned();
        region
    }
}
