//! Words for figures: numbers, sizes, times, names of strangers. No I/O, nothing of vmaudit's own types.

pub(crate) mod function;
pub(crate) mod number;
mod rate;
pub mod sanitize;
pub(crate) mod shell;
mod signal;
pub mod time;

pub use number::{bytes, count, grouped, percent, read_number, total};
pub use rate::{ahead, rate, read_rate};
pub(crate) use sanitize::until_zero;
pub use sanitize::{clean, shorten};
pub use signal::signal_name;

/// Target in `log` of what people are told on standard error.
pub const MESSAGES: &str = "vmaudit";
