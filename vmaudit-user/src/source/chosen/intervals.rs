//! What intervals tell of address spaces whose process is not wanted: one stretch of each, for it may become wanted later.

use std::collections::{HashMap, HashSet};

use crate::model::event::{Event, Interval, ProcessId, Reached};

/// Address spaces of processes that are not wanted so far.
#[derive(Debug, Default)]
pub(super) struct Unwanted(HashMap<u64, Stretch>);

#[derive(Clone, Copy, Debug)]
struct Stretch {
    of: ProcessId,
    every_ns: u64,
    from_ns: u64,
    to_ns: u64,
    peak: u32,
    last: u32,
}

impl Unwanted {
    /// What of an interval is of processes that are `wanted`, with what was kept of their time before.
    pub fn pass(
        &mut self,
        interval: Interval,
        wanted: &mut dyn FnMut(ProcessId) -> bool,
        sink: &mut dyn FnMut(Event),
    ) {
        let Interval { every_ns, from_ns, to_ns, of, by } = interval;
        let (mut kept, mut whose) = (Vec::new(), Vec::new());
        for (reached, process) in of.into_iter().zip(by) {
            let Reached(generation, peak, last) = reached;
            if wanted(process) {
                self.tell(generation, sink);
                kept.push(reached);
                whose.push(process);
                continue;
            }
            let new = Stretch { of: process, every_ns, from_ns, to_ns, peak, last };
            let stretch = self.0.entry(generation).or_insert(new);
            (stretch.peak, stretch.last, stretch.to_ns) = (stretch.peak.max(peak), last, to_ns);
        }
        // Also an empty one says that intervals are told, and how long they are.
        sink(Event::Interval(Box::new(Interval { every_ns, from_ns, to_ns, of: kept, by: whose })));
    }

    /// This address space is wanted: what was kept of it is told, once, as one long interval.
    pub fn tell(&mut self, generation: u64, sink: &mut dyn FnMut(Event)) {
        if let Some(Stretch { of, every_ns, from_ns, to_ns, peak, last }) = self.0.remove(&generation) {
            let (of, by) = (vec![Reached(generation, peak, last)], vec![of]);
            sink(Event::Interval(Box::new(Interval { every_ns, from_ns, to_ns, of, by })));
        }
    }

    /// It has ended, and nobody wanted it.
    pub fn forget(&mut self, generation: u64) {
        self.0.remove(&generation);
    }

    /// Forgets all but those of these processes.
    pub fn keep(&mut self, living: &HashSet<ProcessId>) {
        self.0.retain(|_, stretch| living.contains(&stretch.of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ns: tgid.into() }
    }

    /// Address spaces have ten times the number of their process.
    fn interval(n: u64, of: &[(u32, u32)]) -> Interval {
        Interval {
            every_ns: 10,
            from_ns: n * 10,
            to_ns: n * 10 + 10,
            of: of.iter().map(|(tgid, count)| Reached(u64::from(*tgid) * 10, *count, count / 2)).collect(),
            by: of.iter().map(|(tgid, _)| process(*tgid)).collect(),
        }
    }

    fn told(events: &[Event]) -> Vec<(u64, u64, Vec<Reached>)> {
        let of = |event: &Event| match event {
            Event::Interval(it) => (it.from_ns, it.to_ns, it.of.clone()),
            other => panic!("{other:?}"),
        };
        events.iter().map(of).filter(|(.., of)| !of.is_empty()).collect()
    }

    #[test]
    fn counts_of_strangers_stay_out_until_they_are_wanted() {
        let (mut unwanted, mut all) = (Unwanted::default(), Vec::new());
        for n in 0..50 {
            let of = interval(n, &[(1, 100), (2, 900 + n as u32), (3, 50)]);
            unwanted.pass(of, &mut |it| it.tgid == 1, &mut |event| all.push(event));
        }
        assert!(told(&all).iter().all(|(.., of)| of == &[Reached(10, 100, 50)]), "{all:?}");
        assert_eq!((told(&all).len(), unwanted.0.len()), (50, 2), "one stretch of each");
        all.clear();
        unwanted.pass(interval(50, &[(2, 7)]), &mut |it| it.tgid == 2, &mut |event| all.push(event));
        let whole = (0, 500, vec![Reached(20, 949, 474)]);
        assert_eq!(told(&all), [whole, (500, 510, vec![Reached(20, 7, 3)])]);
        unwanted.keep(&[process(3)].into());
        assert_eq!(unwanted.0.len(), 1);
        unwanted.forget(30);
        assert!(unwanted.0.is_empty());
    }
}
