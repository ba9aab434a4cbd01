//! What the operating system tells: /proc, BTF, capabilities, sysctl files. Each file reads one thing and judges nothing.

pub mod apart;
pub(crate) mod btf;
mod cgroup_file;
pub mod clock;
pub mod destination;
pub mod flight_folder;
pub mod inherited;
pub mod input;
pub mod kernel;
mod kernel_layout;
pub(crate) mod kernel_symbol;
pub mod listen;
pub mod mark_socket;
pub(crate) mod own_children;
pub(crate) mod own_code;
pub mod own_threads;
pub mod procfs;
pub mod rights;
pub mod service_manager;
pub(crate) mod slabs;
pub mod status_line;
pub(crate) mod sysctl_conf;
pub(crate) mod sysctl_dropin;
pub(crate) mod task_room;
pub mod users;
