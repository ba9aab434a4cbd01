//! Which processes are meant: one vocabulary for all commands.

use clap::Args;
use vmaudit_user::domain::cgroup::GroupWanted;
use vmaudit_user::source::pods::PodNamed;
use vmaudit_user::source::process_names::ProcessNamed;

use super::values;

/// What a process must be like. Of each option one value has to fit, and all options together.
#[derive(Clone, Debug, Default, Args)]
pub struct Filters {
    /// These processes, by number or name (all that bear it); repeat or separate by commas [example: -p 1234,java]
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = values::process)]
    pub pid: Vec<ProcessNamed>,
    /// Processes with this name, or with a thread of it; * and ? stand for any text and any character; repeat or separate by
    /// commas [example: --comm 'java,pg*']
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub comm: Vec<String>,
    /// Processes that run this file: a path, or without a slash its last part; * and ? as above [example: --exe '*/bin/java']
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub exe: Vec<String>,
    /// Processes of this user, by name or number; repeat or separate by commas [example: --user postgres]
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    pub user: Vec<String>,
    /// Processes in this cgroup or below it; a value without a slash in front means any path that contains it
    /// [example: --cgroup /system.slice/postgresql.service]
    #[arg(long, value_name = "PATH", value_parser = GroupWanted::path)]
    pub cgroup: Vec<GroupWanted>,
    /// Processes of this systemd unit (.service may be left out) [example: --unit postgresql]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = GroupWanted::unit)]
    pub unit: Vec<GroupWanted>,
    /// Processes in the container whose id begins so (Docker, containerd, CRI-O, Podman), or of this name (LXC,
    /// systemd-nspawn) [example: --container 3f2a9c]
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = GroupWanted::container)]
    pub container: Vec<GroupWanted>,
    /// Processes in this Kubernetes pod [example: --pod web/nginx-7d4]
    #[arg(long, value_name = "UID or NAMESPACE/NAME", value_delimiter = ',', value_parser = PodNamed::read)]
    pub pod: Vec<PodNamed>,
}
