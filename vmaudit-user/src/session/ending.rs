//! What a session tells when it is over, beside its figures.

use std::collections::HashMap;

use super::Sink;
use crate::domain::audit::{Audit, Last};
use crate::enrich::Enrichment;
use crate::launch::child::{Child, Look};
use crate::launch::last_resort;
use crate::model::report::Exit;
use crate::os::procfs::Proc;
use crate::os::rights;
use crate::source::{Source, ebpf};
use crate::text;

/// Kernel memory per VMA, bytes; `None` where its slab figures cannot be read.
pub(super) fn vma_bytes() -> Option<f64> {
    use crate::domain::vma_cost::{CACHES, price};
    let _rights = rights::raised(&rights::PROCESSES);
    price(&Proc::new("/proc").object_sizes(&CACHES), ebpf::page_size()).map(|price| price.usual)
}

/// Those who live on with many VMAs, to be looked at when the source is gone: each with what tells its image from others.
pub(super) fn living_last(audit: &Audit, source: &dyn Source) -> Vec<(Last, Image)> {
    // In this order: what was read is of this address space if it lives afterwards.
    let known = audit.to_look_at_last().into_iter().filter_map(|last| Some((image_of(last.tgid)?, last)));
    let known = known.filter(|(_, last)| source.lives(last.generation));
    known.map(|(image, last)| (last, image)).collect()
}

/// Where the VMAs of these lie. The source is gone, so that a slow look costs nobody but vmaudit.
pub(super) fn look_last(enrichment: &mut Option<Enrichment>, living: Vec<(Last, Image)>) {
    if let Some(it) = enrichment {
        let images: HashMap<u64, (u32, Image)> =
            living.iter().map(|(last, image)| (last.generation, (last.tgid, image.clone()))).collect();
        let lives = |generation: u64| {
            images.get(&generation).is_some_and(|(tgid, image)| image_of(*tgid).as_ref() == Some(image))
        };
        it.look_last(living.into_iter().map(|(last, _)| last).collect(), &lives);
    }
}

/// What is another after an exec, and of another process: its start, its executable, and where it was loaded.
type Image = (u64, (u64, u64), Option<String>);

fn image_of(tgid: u32) -> Option<Image> {
    let _rights = rights::raised(&rights::PROCESSES);
    let handle = Proc::new("/proc").open(tgid).ok()?;
    let stat = handle.stat().ok()?;
    Some((stat.start_ticks, stat.image, handle.exe()))
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

/// How the command ended, if it did. One that was stopped stops vmaudit too, as a part of the same job.
pub(super) fn look(child: &mut Child, sinks: &mut [&mut dyn Sink]) -> Option<Exit> {
    match child.look() {
        Look::Running => None,
        Look::Stopped => {
            sinks.iter_mut().for_each(|sink| sink.stopping());
            child.stop_too();
            None
        }
        Look::Ended(exit) => {
            last_resort::ended(exit);
            Some(exit)
        }
    }
}
