//! `vmaudit explain`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use vmaudit_user::output::format::{Format, Kind, Named};
use vmaudit_user::source::vma_layout::Details;

use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit explain 812\n  sudo vmaudit explain java\n  \
    vmaudit explain ./hs_err_pid812.log\n  vmaudit explain /var/crash/core.812\n  \
    sudo vmaudit explain 812 --details always\n  \
    cat /proc/812/smaps > smaps.txt; vmaudit explain ./smaps.txt\n  vmaudit explain --maps maps.txt --format json";

/// Options of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// A process by its number or name, or a file (with a slash: ./maps.txt): a copy of maps or smaps, a JVM's hs_err log,
    /// a core file
    #[arg(value_name = "PID|NAME|FILE", required_unless_present_any = ["maps", "smaps"])]
    pub target: Option<Target>,
    /// A copy of /proc/PID/maps instead of a process; - is standard input [example: --maps maps.txt]
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub maps: Option<PathBuf>,
    /// A copy of /proc/PID/smaps; it holds all that maps holds, so it is used alone [example: --smaps smaps.txt]
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub smaps: Option<PathBuf>,
    /// A copy of /proc/PID/numa_maps beside it [example: --numa-maps numa.txt]
    #[arg(long, value_name = "FILE")]
    pub numa_maps: Option<PathBuf>,
    /// Whether to read smaps and numa_maps of the process, which walk its page tables [example: --details always]
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    pub details: When,
    /// Rows of each table [default: 5, with -v 12] [example: --top 30]
    #[arg(short = 'n', long, value_name = "N", value_parser = values::rows)]
    pub top: Option<usize>,
    /// More tables: owners, files by folder, sizes, permissions, regions, a map of the address space
    #[arg(short, long)]
    pub verbose: bool,
    /// Stop reading after this many VMAs [example: --max-vmas 20000000]
    #[arg(long, value_name = "N", default_value_t = 4_000_000, value_parser = values::number)]
    pub max_vmas: u64,
    /// Write to FILE instead of standard output; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o 812.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Explanation))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Explanation))]
    pub format: Option<Format>,
    /// Leave users' names in paths instead of writing <user>
    #[arg(long)]
    pub no_anonymize: bool,
}

/// What is to be explained. A bare word is a process; a file needs a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By its number.
    Pid(u32),
    /// By its name.
    Name(String),
    /// Not a process.
    File(PathBuf),
}

impl From<OsString> for Target {
    fn from(word: OsString) -> Self {
        if word.as_bytes().contains(&b'/') || word == "-" {
            return Self::File(word.into());
        }
        let text = word.to_string_lossy();
        match text.parse() {
            Ok(pid) => Self::Pid(pid),
            Err(_) => Self::Name(text.into_owned()),
        }
    }
}

/// When smaps is read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum When {
    /// When the process has at most 1 GiB of resident memory, and 5,000 VMAs (200,000 where maps alone does not tell why they
    /// are so many)
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<When> for Details {
    fn from(asked: When) -> Self {
        match asked {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_word_is_a_process() {
        let of = |word: &str| Target::from(OsString::from(word));
        assert_eq!(of("812"), Target::Pid(812));
        for name in ["java", "99999999999", "-1", "core.812", "812x"] {
            assert_eq!(of(name), Target::Name(name.into()));
        }
        for file in ["./812", "/proc/812/maps", "hs/err.log", "-"] {
            assert_eq!(of(file), Target::File(file.into()));
        }
    }
}
