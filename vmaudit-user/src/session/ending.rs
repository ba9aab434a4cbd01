//! What a session tells when it is over, beside its figures.

use crate::os::procfs::Proc;
use crate::os::rights;
use crate::source::ebpf;
use crate::text;

/// Kernel memory per VMA, bytes; `None` where its slab figures cannot be read.
pub(super) fn vma_bytes() -> Option<f64> {
    use crate::domain::vma_cost::{CACHES, price};
    let _rights = rights::raised(&rights::PROCESSES);
    price(&Proc::new("/proc").slabs(&CACHES), ebpf::page_size()).map(|price| price.usual)
}

/// Readers that could not be killed.
pub(super) fn left_behind(children: usize) -> String {
    format!(
        "{} of vmaudit's own, stuck over a process that does not answer, could not be ended and was left behind: it ends \
         when that process does",
        text::count(children as u64, "helper", "helpers")
    )
}
