//! `vmaudit mark`.

use clap::{Args, ValueEnum};

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit run --marks -- sh -c 'vmaudit mark begin import; make; vmaudit mark end import'\n\n\
    Within `vmaudit run --marks`: VMAUDIT_MARKS is the path of a Unix datagram socket; whatever sends it `begin NAME` or \
    `end NAME` and waits for the answer does the same.\n\n\
    Exit status: 0 the boundary is set; 1 it is not: no session, no mark of this name; 2 wrongly called.";

/// Options of `mark`.
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// Which boundary
    #[arg(value_name = "begin|end")]
    pub boundary: Boundary,
    /// What the stretch is called
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Which boundary of a mark.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Boundary {
    /// It begins now.
    Begin,
    /// It ends now.
    End,
}
