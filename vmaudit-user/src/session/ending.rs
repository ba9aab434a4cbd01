//! What a session tells when it is over, beside its figures.

use crate::domain::audit::Audit;
use crate::enrich::Enrichment;
use crate::os::procfs::Proc;
use crate::os::rights;
use crate::source::{Source, ebpf};
use crate::text;

/// Kernel memory per VMA, bytes; `None` where its slab figures cannot be read.
pub(super) fn vma_bytes() -> Option<f64> {
    use crate::domain::vma_cost::{CACHES, price};
    let _rights = rights::raised(&rights::PROCESSES);
    price(&Proc::new("/proc").slabs(&CACHES), ebpf::page_size()).map(|price| price.usual)
}

/// Where the VMAs lie of those who live on with many, while the source knows that they do.
pub(super) fn look_last(enrichment: &mut Option<Enrichment>, audit: &Audit, source: &dyn Source) {
    if let Some(it) = enrichment {
        it.look_last(audit.to_look_at_last(), &|generation| source.lives(generation));
    }
}

/// Readers that could not be killed.
pub(super) fn left_behind(children: usize) -> Option<String> {
    let said = format!(
        "{} of vmaudit's own, stuck over a process that does not answer, could not be ended and was left behind: it ends \
         when that process does",
        text::count(children as u64, "helper", "helpers")
    );
    (children > 0).then_some(said)
}
