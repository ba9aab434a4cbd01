//! Processes that are over: in a crowd the less remarkable ones are added up, and an exporter takes them all.

use std::collections::HashSet;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::State;
use crate::enrich::Enrichment;
use crate::model::event::{Event, ProcessId};
use crate::source::Source;

/// Between two looks for details that nobody needs any more.
pub(super) const TIDY: Duration = Duration::from_secs(60);

/// Of these processes nothing more will come.
fn over(
    source: &mut dyn Source,
    state: &mut State<'_>,
    enrichment: &mut Option<Enrichment>,
) -> HashSet<ProcessId> {
    let exists = |id: &ProcessId| {
        !state.audit.succeeded(*id) && kill(Pid::from_raw(id.tgid as i32), None) != Err(Errno::ESRCH)
    };
    // Whoever is gone by now has left its last figures with the source, if not with the audit; so in this order.
    let mut over: HashSet<ProcessId> = state.audit.ended().filter(|id| !exists(id)).collect();
    let awaited = source.awaited(&mut |event| state.take(event, enrichment));
    over.retain(|id| !awaited.contains(id));
    if let Some(it) = enrichment {
        let awaited = it.awaits_tests_of();
        over.retain(|id| !awaited.contains(id));
    }
    over
}

/// Nobody lives who is followed, and nobody is waited for.
pub(super) fn nobody(source: &mut dyn Source) -> bool {
    !source.waits() && !source.anybody_lives()
}

pub(super) fn wants_ended(state: &State<'_>) -> bool {
    state.sinks.iter().any(|sink| sink.wants_ended())
}

/// Gives the processes that are over to whoever wants them; the audit forgets them.
pub(super) fn release(source: &mut dyn Source, state: &mut State<'_>, enrichment: &mut Option<Enrichment>) {
    if !wants_ended(state) {
        return;
    }
    let over = over(source, state, enrichment);
    let ended = state.audit.release(&over);
    if ended.is_empty() {
        return;
    }
    for sink in state.sinks.iter_mut().filter(|sink| sink.wants_ended()) {
        sink.ended(ended.clone(), &state.audit);
    }
    if let Some(it) = enrichment.as_mut().filter(|_| !state.sinks.iter().any(|sink| sink.waits())) {
        it.keep(&state.audit.examples_of());
    }
}

/// Forgets details that nobody needs any more.
pub(super) fn tidy(source: &mut dyn Source, state: &mut State<'_>, enrichment: &mut Option<Enrichment>) {
    source.checkpoint(&mut |event| state.take(event, enrichment));
    state.audit.forget_details();
    if let Some(it) = enrichment {
        it.renew(&mut |event| state.give(event));
    }
}

/// Adds up processes of a crowd, those of which nothing can come any more.
pub(super) fn thin_out(source: &mut dyn Source, state: &mut State<'_>, enrichment: &mut Option<Enrichment>) {
    if !state.audit.crowded() {
        return;
    }
    if wants_ended(state) {
        return release(source, state, enrichment);
    }
    let over = over(source, state, enrichment);
    let mut over: Vec<ProcessId> = over.into_iter().collect();
    over.sort_unstable();
    state.give(Event::Gone(over));
    if let Some(it) = enrichment {
        it.keep(&state.audit.examples_of());
    }
}
