//! Where events come from. Each source (live eBPF, /proc polling, a recording) yields the same [`crate::model::event::Event`]s; a source
//! never prints and knows nothing of reports.

pub mod doctor;
pub mod ebpf;
pub mod environment;
pub mod limit_survey;
pub mod process_list;
pub mod procfs_sampler;
pub mod recording;
pub mod scan;
pub mod vma_layout;

/// vm.max_map_count as it is now, VMAs; `None` when /proc does not say.
pub fn proc_max_map_count() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}
