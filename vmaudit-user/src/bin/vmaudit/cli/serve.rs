//! `vmaudit serve`.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use vmaudit_user::domain::groups::GroupBy;
use vmaudit_user::os::listen::Address;

use super::filters::Filters;
use super::flight::FlightArgs;
use super::values::{self, Common};

/// Shown below the options.
pub const EXAMPLES: &str = "Examples:\n  sudo vmaudit serve\n  sudo vmaudit serve --unit 'postgresql' --listen unix:/run/vmaudit.sock\n  \
    sudo vmaudit serve --listen 127.0.0.1:9999 --group-by app\n\n\
    /metrics is Prometheus' text format or OpenMetrics, as is asked for. Peaks and counts are since the start of vmaudit,\n\
    also of processes that came and went between two looks. There is neither TLS nor a password: for others than this\n\
    machine stand it behind a proxy that has them.\n\
    Exit status: 0 ended by a signal; 1 failure, also when the address is not to be had; 2 wrongly called.";

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Which processes; without any of these: all. Those that fit later are taken then.
    #[command(flatten)]
    pub filters: Filters,
    /// Do not follow children, neither those that a process has nor those that it gets
    #[arg(long)]
    pub no_follow: bool,
    /// Where to listen: ADDRESS:PORT, unix:PATH, or systemd for the socket of a socket unit [example: --listen 127.0.0.1:9747]
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9747")]
    pub listen: Address,
    /// What has figures of its own: the systemd unit (else the container, else the application), the container (else the
    /// unit), the Kubernetes pod by name, the application, the executable, the user, or each process [example: --group-by app]
    #[arg(long, value_name = "WHAT", default_value = "unit", value_parser = group_by())]
    pub group_by: GroupBy,
    /// What is kept of the last stretch.
    #[command(flatten)]
    pub flight: FlightArgs,
    /// With --flight: also when a process has passed P percent of vm.max_map_count; repeat it for several
    /// [example: --at 80 --flight 10min --flight-dir /var/tmp]
    #[arg(long, value_name = "P", value_parser = values::percent, requires = "flight")]
    pub at: Vec<f64>,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}

fn group_by() -> impl TypedValueParser<Value = GroupBy> {
    PossibleValuesParser::new(GroupBy::NAMES).try_map(|name| name.parse::<GroupBy>())
}
