//! The command of a session: started stopped, as transparent as `env` would be.

pub mod child;
pub mod group_signals;
pub mod typing;
