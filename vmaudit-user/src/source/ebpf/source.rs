//! eBPF as a source of a session.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use vmaudit_common::{LIMIT_NEAR, SLOT_DEAD, SLOT_LIVE};

use super::Live;
use crate::model::event::{Event, LimitSeen, ProcessId};
use crate::os::clock::now_ns;
use crate::os::own_code;
use crate::source::Source;
use crate::source::ebpf::load::give_back_memory;
use crate::source::ebpf::preload::unless_loading;

/// Between two looks at the sysctl, at slots whose hint got lost and at the programs' messages.
const TICK: Duration = Duration::from_millis(100);

/// From then on a session is no longer at its start.
const START: Duration = Duration::from_millis(100);

impl Source for Live {
    fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
        Live::wake_fd(self).map(Some)
    }

    fn drain(&mut self, most: usize, sink: &mut dyn FnMut(Event)) -> bool {
        let more = Live::drain(self, most, sink);
        // Where records are missing in the stream is worth knowing; all else can wait for the end.
        if self.ring_full() > self.told_ring_full {
            self.told_ring_full = self.ring_full();
            sink(Event::Lost(self.losses()));
        }
        more
    }

    fn tick(&mut self, sink: &mut dyn FnMut(Event)) -> Duration {
        if let Some(max_map_count) = self.refresh_limit() {
            sink(Event::LimitSeen(LimitSeen { at_ns: now_ns(), max_map_count }));
        }
        // A full ring buffer may have swallowed the hint.
        if self.limits_met() & LIMIT_NEAR != 0 {
            self.watch_exits();
        }
        // Before the sweep: whoever ended has its last peaks with its last figures.
        self.next_interval(sink);
        self.sweep(false, sink);
        self.flush_debug();
        self.settle();
        self.intervals.length().min(TICK)
    }

    fn begin(&mut self, sink: &mut dyn FnMut(Event)) {
        self.tell_facts(sink);
        self.report_living(sink);
    }

    fn living(&mut self) -> usize {
        Live::living(self)
    }

    fn anybody_lives(&mut self) -> bool {
        Live::anybody_lives(self)
    }

    fn still_running(&mut self) -> u64 {
        Live::living_processes(self).len() as u64
    }

    fn nobody_lives(&self) -> bool {
        self.follows_nobody()
    }

    fn living_processes(&mut self) -> HashSet<ProcessId> {
        self.in_slots(&[SLOT_LIVE])
    }

    fn lives(&self, generation: u64) -> bool {
        Live::lives(self, generation)
    }

    fn awaited(&mut self, sink: &mut dyn FnMut(Event)) -> HashSet<ProcessId> {
        self.sweep(false, sink);
        self.in_slots(&[SLOT_LIVE, SLOT_DEAD])
    }

    fn checkpoint(&mut self, sink: &mut dyn FnMut(Event)) {
        self.report_changed(sink);
        sink(Event::Lost(self.losses()));
    }

    fn cut_interval(&mut self, sink: &mut dyn FnMut(Event)) -> Option<u64> {
        Some(self.begin_interval(sink))
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) -> u64 {
        self.look_last();
        // In this order: one that dies in between is then seen twice, not missed.
        self.report_living(sink);
        self.sweep(true, sink);
        sink(Event::Lost(self.losses()));
        sink(Event::Hooks(self.hooks()));
        let still_running = self.still_running();
        self.slots.let_go();
        if self.starts.is_none() {
            let _ = own_code::let_go();
        }
        still_running
    }
}

impl Live {
    /// Lets go what only the start needed, and again once the last program is loaded. Most commands end before that.
    fn settle(&mut self) {
        if self.starts.is_some_and(|at| at.elapsed() >= START) {
            give_back_memory();
            let _ = own_code::let_go();
            self.starts.take_if(|_| unless_loading(&self.ebpf).is_some());
        }
    }
}
