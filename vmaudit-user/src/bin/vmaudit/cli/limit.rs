//! `vmaudit limit`.

use vmaudit_user::domain::requirements;
use vmaudit_user::output::format::{Format, Kind, Named};

use super::values;

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  vmaudit limit\n  vmaudit limit --for elasticsearch\n  \
    vmaudit limit --for zgc --heap 64g\n  sudo vmaudit limit --apply 262144 --dry-run\n  sudo vmaudit limit --undo";

/// Options of `limit`.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitArgs {
    /// Show what --apply N would do, and do nothing [example: 262144]
    #[arg(value_name = "N", conflicts_with_all = ["apply", "undo", "known"], value_parser = values::number)]
    pub value: Option<u64>,
    /// Also what this software is said to need, running or not; repeat it for several [example: --for elasticsearch]
    #[arg(long = "for", value_name = "NAME")]
    pub software: Vec<String>,
    /// Maximum heap, bytes or with k, m, g, for rules that go by it [example: --for zgc --heap 64g]
    #[arg(long, value_name = "SIZE", value_parser = requirements::parse_size)]
    pub heap: Option<u64>,
    /// Number of what a rule counts: connections, threads, log segments [example: --for kafka --items 152892]
    #[arg(long, value_name = "N", value_parser = values::number)]
    pub items: Option<u64>,
    /// List all software whose needs are known, with the source of each rule
    #[arg(long)]
    pub known: bool,
    /// Set the limit to N VMAs now and, by a file of its own in /etc/sysctl.d, at every boot [example: --apply 262144]
    #[arg(long, value_name = "N", conflicts_with = "undo", value_parser = values::number)]
    pub apply: Option<u64>,
    /// Take back what --apply did
    #[arg(long)]
    pub undo: bool,
    /// Show what --apply or --undo would do, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write to FILE instead of standard output; repeat it for several. Its ending says the format, FORMAT:FILE says it
    /// outright, - is standard output [example: -o limit.json]
    #[arg(short, long, value_name = "FILE", value_parser = values::output(Kind::Limit))]
    pub output: Vec<Named>,
    /// Format on the screen; that of a file is said by -o [default: text] [example: --format json]
    #[arg(long, value_name = "FORMAT", overrides_with = "format", value_parser = values::screen(Kind::Limit))]
    pub format: Option<Format>,
    /// Leave users' names in paths instead of writing <user>
    #[arg(long)]
    pub no_anonymize: bool,
}

impl LimitArgs {
    /// The value to apply, or to show the consequences of.
    pub fn asked(&self) -> Option<u64> {
        self.apply.or(self.value)
    }

    /// Nothing is to be changed.
    pub fn only_shown(&self) -> bool {
        self.dry_run || self.value.is_some()
    }

    /// Which document is asked for.
    pub fn kind(&self) -> Kind {
        if self.known {
            Kind::Known
        } else if self.undo || self.asked().is_some() {
            Kind::Plan
        } else {
            Kind::Limit
        }
    }
}
