//! What each command does with its options.

pub mod doctor;
pub mod explain;
pub mod limit;
pub mod scan;
