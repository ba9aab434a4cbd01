//! The command of a session: started stopped, as transparent as `env` would be.

pub mod alarms;
pub mod child;
pub mod exit_status;
pub(crate) mod group_signals;
pub(crate) mod job;
pub mod last_resort;
pub(crate) mod signals;
pub(crate) mod timers;
pub(crate) mod typing;
pub mod user;
