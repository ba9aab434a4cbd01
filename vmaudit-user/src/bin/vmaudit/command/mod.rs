//! What each command does with its options.

pub mod doctor;
pub mod explain;
pub mod limit;
pub mod report;
pub mod run;
pub mod scan;
mod status;
pub mod trace;
