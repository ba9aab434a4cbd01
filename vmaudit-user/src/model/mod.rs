//! Plain data: events, and the documents that outputs render. Nothing here computes more than a name, and nothing does
//! I/O.

mod advice;
pub mod breach;
mod call_stat;
pub mod cause;
pub(crate) mod crowd;
pub mod difference;
pub mod doctor;
pub mod end;
pub mod event;
pub(crate) mod event_names;
pub mod exposed;
pub(crate) mod figures;
pub mod fleet;
pub mod holders;
pub(crate) mod hook;
mod host;
pub(crate) mod interval;
mod joined;
pub mod layout;
pub mod limit;
pub mod loss;
pub mod makers;
pub mod mark;
pub mod memory;
mod outcome;
mod process_id;
pub mod report;
pub mod scan;
#[cfg(test)]
mod schema;
pub(crate) mod series;
pub mod session;
pub mod shortage;
pub(crate) mod stack;
pub(crate) mod stretch;
pub(crate) mod task_names;
pub mod test;
pub(crate) mod unreadable;
pub mod vma_layout;
pub mod within;
