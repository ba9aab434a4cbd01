//! The flight recorder of `watch` and `serve`.

use std::path::PathBuf;

use clap::Args;
use vmaudit_user::session::flight::Length;

use super::values;

/// Whether the last stretch is kept, and where it goes.
#[derive(Debug, Args)]
pub struct FlightArgs {
    /// Keep the last stretch in memory, so long (10min, or as much of it as fits 64 MiB) or so large (64k to 128M), and write it
    /// as a recording to --flight-dir when a call is refused, a process passes --at P, or SIGUSR2 comes: at most one file a
    /// minute, and for each process and call one an hour. `vmaudit report` reads it [example: --flight 10min --flight-dir /var/tmp]
    #[arg(long, value_name = "SIZE|TIME", value_parser = values::stretch, requires = "flight_dir")]
    pub flight: Option<Length>,
    /// Folder for these files, which only their owner can read. The newest 16 are kept, 256 MiB together; older ones of the
    /// same user go after a new one is written, unless they were given another name [example: --flight 64M --flight-dir /var/tmp]
    #[arg(long, value_name = "DIR", requires = "flight")]
    pub flight_dir: Option<PathBuf>,
}
