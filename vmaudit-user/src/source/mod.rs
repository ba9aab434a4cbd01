//! Where events come from. Each source (live eBPF, /proc polling, a recording) yields the same [`crate::model::event::Event`]s; a source
//! never prints and knows nothing of reports.

pub(crate) mod chosen;
pub mod doctor;
pub mod ebpf;
pub(crate) mod environment;
pub mod limit_survey;
pub mod pods;
pub(crate) mod process_list;
pub mod process_names;
pub(crate) mod procfs_sampler;
pub mod recording;
pub mod scan;
pub mod vma_layout;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::model::event::{Event, ProcessId};

/// Where events come from. Three of them: eBPF ([`ebpf::Live`]), looks at /proc ([`procfs_sampler::Sampling`]), a
/// recording ([`recording::Reader`]).
pub trait Source {
    /// Readable when there is something to [`Source::drain`]; `None` when only time tells.
    fn wake_fd(&self) -> io::Result<Option<OwnedFd>>;

    /// Gives at most `most` records to `sink`; `true` when more are waiting.
    fn drain(&mut self, most: usize, sink: &mut dyn FnMut(Event)) -> bool;

    /// What has to be done from time to time; returns the time until the next.
    fn tick(&mut self, sink: &mut dyn FnMut(Event)) -> Duration;

    /// A child of vmaudit's changed its state.
    fn child_changed(&mut self) {}

    /// Facts and figures of what ran before the session, as of now; to be called once, before all else.
    fn begin(&mut self, sink: &mut dyn FnMut(Event)) {
        let _ = sink;
    }

    /// Address spaces or processes that are followed and have not ended.
    fn living(&mut self) -> usize;

    /// There is any of them.
    fn anybody_lives(&mut self) -> bool {
        self.living() > 0
    }

    /// Nobody who fits was found yet, and the session goes on until somebody comes.
    fn waits(&mut self) -> bool {
        false
    }

    /// Followed processes that are still alive, as [`Source::finish`] would tell now.
    fn still_running(&mut self) -> u64 {
        self.living_processes().len() as u64
    }

    /// It is certain that no followed process lives, be it without an address space, as in the middle of an exec.
    fn nobody_lives(&self) -> bool {
        false
    }

    /// Processes that are followed and have not ended, as far as the source knows.
    fn living_processes(&mut self) -> HashSet<ProcessId>;

    /// This address space has not ended.
    fn lives(&self, generation: u64) -> bool;

    /// Processes of which something may still come, after all that is ready has been given to `sink`.
    fn awaited(&mut self, sink: &mut dyn FnMut(Event)) -> HashSet<ProcessId>;

    /// Figures of what lives, as of now, and what was lost so far.
    fn checkpoint(&mut self, sink: &mut dyn FnMut(Event)) {
        let _ = sink;
    }

    /// Has an interval of all address spaces end here, and says when that was; what it has seen is told with the figures of
    /// each. `None`: there are no exact intervals.
    fn cut_interval(&mut self, sink: &mut dyn FnMut(Event)) -> Option<u64> {
        let _ = sink;
        None
    }

    /// The last figures, what was lost, what became of the hooks. Returns how many followed processes are still alive.
    fn finish(&mut self, sink: &mut dyn FnMut(Event)) -> u64;
}

/// `kernel.` and this name as it is now; `None` when /proc does not say.
pub fn proc_kernel_number(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

/// vm.max_map_count as it is now, VMAs; `None` when /proc does not say.
pub fn proc_max_map_count() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}
