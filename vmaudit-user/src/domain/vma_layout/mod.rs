//! Who owns the VMAs of a process, and why neighbours do not merge.
//!
//! Mappings stream through once; what is kept is bounded whatever the input: tallies by kind, by owner, by reason, the
//! largest regions, and a folded map of addresses.

pub mod address_map;
pub mod analysis;
pub mod classify;
pub mod maps_parser;
pub mod merge_blockers;
pub mod verdict;

#[cfg(test)]
mod tests;
