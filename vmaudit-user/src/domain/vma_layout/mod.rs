//! Who owns the VMAs of a process, and why neighbours do not merge.
//!
//! Mappings stream through once; what is kept is bounded whatever the input: tallies by kind, by owner, by reason, the
//! largest regions, and a folded map of addresses.

pub(crate) mod address_map;
pub(crate) mod analysis;
pub(crate) mod by_size;
pub(crate) mod classify;
mod guards;
pub(crate) mod maps_parser;
pub(crate) mod merge_blockers;
pub(crate) mod names;
mod regions;
mod shared_memory;
pub(crate) mod verdict;

#[cfg(test)]
mod tests;
