//! What each command does with its options.

pub mod completions;
pub mod diff;
pub mod doctor;
pub mod explain;
mod filters;
mod flight;
pub mod limit;
pub mod man;
pub mod mark;
mod options;
pub mod report;
mod reporting;
pub mod run;
pub mod scan;
pub mod serve;
mod status;
mod thresholds;
pub mod top;
pub mod trace;
pub mod watch;
