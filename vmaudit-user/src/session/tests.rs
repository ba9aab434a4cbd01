use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::model::event::{MmState, ProcessId};
use crate::model::session::Header;
use crate::strangers::recordings;

/// Follows this process alone, and tells when it was dropped.
struct Own {
    mm: MmState,
    waits: bool,
    gone_ns: Rc<Cell<u64>>,
}

impl Own {
    fn new(waits: bool) -> (Self, Rc<Cell<u64>>) {
        let mm = recordings::events().into_iter().find_map(|event| match event {
            Event::Mm(state) => Some(*state),
            _ => None,
        });
        let process = ProcessId { tgid: std::process::id(), start_ns: 1 };
        let mut mm = MmState { process, dead_ns: None, host: None, ..mm.expect("an address space") };
        // No limit leaves these few beside it.
        (mm.last, mm.peak) = (u32::MAX, u32::MAX);
        let gone_ns = Rc::new(Cell::new(0));
        (Self { mm, waits, gone_ns: Rc::clone(&gone_ns) }, gone_ns)
    }
}

impl Source for Own {
    fn wake_fd(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn drain(&mut self, _: usize, _: &mut dyn FnMut(Event)) -> bool {
        false
    }

    fn tick(&mut self, _: &mut dyn FnMut(Event)) -> Duration {
        Duration::from_millis(1)
    }

    fn living(&mut self) -> usize {
        usize::from(!self.waits)
    }

    fn waits(&mut self) -> bool {
        self.waits
    }

    fn living_processes(&mut self) -> HashSet<ProcessId> {
        if self.waits { HashSet::new() } else { HashSet::from([self.mm.process]) }
    }

    fn lives(&self, generation: u64) -> bool {
        assert_eq!(self.gone_ns.get(), 0);
        generation == self.mm.generation
    }

    fn awaited(&mut self, _: &mut dyn FnMut(Event)) -> HashSet<ProcessId> {
        HashSet::new()
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) -> u64 {
        sink(Event::Mm(Box::new(self.mm.clone())));
        self.still_running()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.gone_ns.set(now_ns());
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(Vec<Event>);

impl Sink for Told {
    fn event(&mut self, event: &Event, _: &Audit) {
        self.0.push(event.clone());
    }

    fn turn(&mut self, _: &Audit, _: bool) {}

    fn keeps(&self) -> bool {
        true
    }

    fn keep(&mut self, _: bool, last: &[Event]) {
        self.0.extend(last.iter().cloned());
    }
}

/// The hooks of the machine are gone by then: a process that does not answer holds up vmaudit alone.
#[test]
fn who_lives_at_the_end_is_looked_at_when_nothing_is_attached_any_more() {
    let header = Header { start_ns: 0, ..recordings::header() };
    let (source, gone_ns) = Own::new(false);
    let patience = Patience::default();
    let enrichment = Enrichment::new(false, Anonymizer::off(), 0, &patience);
    let mut told = Told::default();
    let session = Session::new(
        &header,
        Box::new(source),
        Some(enrichment),
        Anonymizer::off(),
        vec![&mut told],
        patience,
    );
    session.finish(None);
    let laid = told.0.iter().find_map(|event| match event {
        Event::Laid(laid) => Some(laid.layout.clone()),
        _ => None,
    });
    let layout = laid.expect("it was looked at");
    assert!(layout.vmas_read > 5, "{layout:?}");
    assert!(layout.at_s * 1e9 >= gone_ns.get() as f64 - 1e3, "{} {}", layout.at_s, gone_ns.get());
}

/// Who is waited for does not run.
#[test]
fn a_kept_stretch_counts_those_that_run() {
    for (waits, running) in [(true, 0), (false, 1)] {
        let (source, _) = Own::new(waits);
        let mut told = Told::default();
        let mut session = Session::new(
            &recordings::header(),
            Box::new(source),
            None,
            Anonymizer::off(),
            vec![&mut told],
            Patience::default(),
        );
        assert!(session.keep(true));
        drop(session);
        let end = told.0.iter().rev().find_map(|event| match event {
            Event::End(end) => Some(end.still_running),
            _ => None,
        });
        assert_eq!(end, Some(running));
    }
}

#[test]
fn an_exec_is_told_by_where_the_program_lies() {
    let of = |start: u64, stack: u64| {
        let line =
            format!("1 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 9 9 9 4096 8192 {stack} 0\n");
        crate::os::procfs::parse_stat(line.as_bytes()).map(|stat| (stat.start_ticks, stat.image))
    };
    assert_eq!(of(7, 100), Some((7, (4096, 100))));
    assert_ne!(of(7, 100), of(7, 200));
}
