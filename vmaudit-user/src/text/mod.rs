//! Words for figures: numbers, sizes, times, names of strangers. No I/O, nothing of vmaudit's own types.

pub mod number;
pub mod sanitize;
pub mod shell;
pub mod time;

pub use number::{bytes, count, grouped, percent, total};
pub use sanitize::clean;
