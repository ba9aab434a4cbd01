//! Has those who keep the last stretch write it down.

use super::ending::vma_bytes;
use super::{BATCHES, Session};
use crate::model::event::{End, Event, UserName};
use crate::os::clock::now_ns;
use crate::os::procfs::Proc;
use crate::os::users::user_name;

impl Session<'_> {
    /// Whoever finds it due.
    pub(super) fn keep_if_due(&mut self) {
        if self.state.sinks.iter().any(|sink| sink.due()) {
            self.keep(false);
        }
    }

    /// `asked`: by SIGUSR2. `false`: nobody keeps anything.
    pub(super) fn keep(&mut self, asked: bool) -> bool {
        if !self.state.sinks.iter().any(|sink| sink.keeps()) {
            return false;
        }
        self.drain(BATCHES);
        let Self { source, enrichment, state, .. } = self;
        source.checkpoint(&mut |event| state.take(event, enrichment));
        if let Some(it) = enrichment {
            it.look(false, &|generation| source.lives(generation));
            it.so_far(&mut |event| state.give(event));
        }
        let mut last = vec![Event::Limits(Proc::new("/proc").limits()), Event::FiguresEnd];
        last.extend(
            state.audit.owners().into_iter().map(|uid| Event::User(UserName { uid, name: user_name(uid) })),
        );
        last.extend(vma_bytes().map(Event::VmaBytes));
        let still_running = source.still_running();
        last.push(Event::End(End { at_ns: now_ns(), exit: None, still_running }));
        last.iter_mut().for_each(|event| state.anonymizer.event(event));
        for sink in state.sinks.iter_mut().filter(|sink| sink.keeps() && (asked || sink.due())) {
            sink.keep(asked, &last);
        }
        true
    }
}
