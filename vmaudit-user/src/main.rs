//! The `vmaudit` binary.

fn main() {}
