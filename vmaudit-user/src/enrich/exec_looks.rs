//! Looks at each process that execs, [apart](crate::os::apart), because what is read lies in its process's own memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Serialize, de::DeserializeOwned};

use crate::model::event::ProcessId;
use crate::os::apart::desk::{Desk, MOMENT, Turn};
use crate::os::apart::{Beat, Patience};

/// Processes that wait for a look; of a crowd of more not all are looked at.
const WAITING: usize = 1000;
/// Time for those that still wait at the end.
const AT_THE_END: Duration = Duration::from_millis(200);

/// One kind of look.
#[derive(Debug)]
pub struct Looks<A> {
    desk: Desk<u32, Option<A>>,
    under_way: Option<ProcessId>,
    /// Its answer is wanted by nobody any more.
    forgotten: bool,
    queue: VecDeque<ProcessId>,
    found: Vec<(ProcessId, Option<A>)>,
}

impl<A: Serialize + DeserializeOwned + 'static> Looks<A> {
    /// Nothing is looked at yet. `read`: what is to be known of a process, `None` where there is nothing.
    pub fn new(patience: &Patience, read: fn(u32) -> Option<A>) -> Self {
        let serve = move |pid: u32, beat: &Beat| {
            beat.begin(pid.into());
            (read(pid), Vec::new())
        };
        Self {
            desk: Desk::new(patience, serve),
            under_way: None,
            forgotten: false,
            queue: VecDeque::new(),
            found: Vec::new(),
        }
    }

    /// A process has begun, or has another image now.
    pub fn notice(&mut self, process: ProcessId) {
        self.wait_for(process);
        self.look();
    }

    /// The same, where something else is about to tell, see [`Looks::forget`].
    pub fn wait_for(&mut self, process: ProcessId) {
        if self.queue.contains(&process) {
            return;
        }
        if self.queue.len() < WAITING {
            self.queue.push_back(process);
        } else {
            self.found.push((process, None));
        }
    }

    /// What is to be known of it is.
    pub fn forget(&mut self, process: ProcessId) {
        self.queue.retain(|waiting| *waiting != process);
        self.found.retain(|(found, _)| *found != process);
        self.forgotten |= self.under_way == Some(process);
    }

    /// Goes on; waits for [`MOMENT`] at most.
    pub fn look(&mut self) {
        let until = Instant::now() + MOMENT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(process) = self.under_way {
                let found = match self.desk.turn(left) {
                    Turn::Waiting => return,
                    Turn::Answer(found, _) => found,
                    Turn::Unanswered(..) => None,
                };
                self.under_way = None;
                if !std::mem::take(&mut self.forgotten) {
                    self.found.push((process, found));
                }
            }
            if left.is_zero() {
                return;
            }
            let Some(process) = self.queue.pop_front() else { return };
            match self.desk.ask(&process.tgid) {
                Ok(()) => self.under_way = Some(process),
                Err(_) => self.found.push((process, None)),
            }
        }
    }

    /// Processes that were not told of yet, see [`Looks::take`].
    pub fn awaited(&self) -> impl Iterator<Item = ProcessId> {
        let found = self.found.iter().map(|(process, _)| process);
        self.queue.iter().chain(&self.under_way).chain(found).copied()
    }

    /// There is something to go on with.
    pub fn busy(&self) -> bool {
        self.under_way.is_some() || !self.queue.is_empty()
    }

    /// Goes on until all have an answer, for a while.
    pub fn settle(&mut self) {
        let until = Instant::now() + AT_THE_END;
        while self.busy() && Instant::now() < until {
            self.look();
        }
    }

    /// Goes on no more: those that still wait have no answer.
    pub fn end(&mut self) {
        let under_way = self.under_way.take().filter(|_| !std::mem::take(&mut self.forgotten));
        self.found.extend(under_way.into_iter().chain(self.queue.drain(..)).map(|process| (process, None)));
    }

    /// What was found since the last time; `None`: there was nothing, or nobody to ask any more.
    pub fn take(&mut self) -> Vec<(ProcessId, Option<A>)> {
        std::mem::take(&mut self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    fn process(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ns: 1 }
    }

    /// Looks that find the number of a process.
    fn looks() -> Looks<u32> {
        Looks::new(&Patience::default(), Some)
    }

    #[test]
    fn who_is_waited_for_at_the_end_has_no_answer_and_is_told() {
        let mut looks = looks();
        (1..=3).for_each(|tgid| looks.wait_for(process(tgid)));
        assert_eq!(looks.awaited().collect::<Vec<_>>(), [1, 2, 3].map(process));
        looks.end();
        assert!(!looks.busy());
        assert_eq!(looks.awaited().count(), 3, "they are not told yet");
        assert_eq!(looks.take(), [1, 2, 3].map(|tgid| (process(tgid), None)));
        assert_eq!(looks.awaited().count(), 0);
    }

    /// It forks.
    #[test]
    fn who_cannot_be_asked_and_who_is_not_wanted() {
        alone(concat!(module_path!(), "::who_cannot_be_asked_and_who_is_not_wanted"), || {
            let mut looks = looks();
            looks.wait_for(process(1));
            looks.wait_for(process(2));
            looks.forget(process(2));
            looks.under_way = looks.queue.pop_front();
            assert!(looks.desk.ask(&1).is_ok());
            looks.forget(process(1));
            looks.wait_for(process(3));
            while looks.busy() {
                looks.look();
            }
            assert_eq!(
                looks.take(),
                [(process(3), Some(3))],
                "an answer that nobody wants any more is not told"
            );
            looks.found.push((process(4), None));
            looks.forget(process(4));
            assert_eq!(looks.take(), []);
            // Something else is asked: there is nobody who could answer.
            assert!(looks.desk.ask(&9).is_ok());
            looks.wait_for(process(5));
            looks.look();
            assert_eq!((looks.take(), looks.busy()), (vec![(process(5), None)], false));
        });
    }
}
