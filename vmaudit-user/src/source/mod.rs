//! Where events come from. Each source (live eBPF, /proc polling, a recording) yields the same [`crate::model::event::Event`]s; a source
//! never prints and knows nothing of reports.

mod address;
pub mod btf;
pub mod census;
pub mod hooks;
pub mod kernel;
pub mod live;
pub mod memory_cgroup;
pub mod proc;
pub mod sampling;

/// vm.max_map_count as it is now, VMAs; `None` when /proc does not say.
pub fn proc_max_map_count() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}
