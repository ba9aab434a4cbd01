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
        Self { desk: Desk::new(patience, serve), under_way: None, queue: VecDeque::new(), found: Vec::new() }
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
    }

    /// Goes on; waits for [`MOMENT`] at most.
    pub fn look(&mut self) {
        let until = Instant::now() + MOMENT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(process) = self.under_way {
                match self.desk.turn(left) {
                    Turn::Waiting => return,
                    Turn::Answer(found, _) => self.found.push((process, found)),
                    Turn::Unanswered(..) => self.found.push((process, None)),
                }
                self.under_way = None;
            }
            if left.is_zero() {
                return;
            }
            let Some(process) = self.queue.pop_front() else { return };
            if self.desk.ask(&process.tgid).is_ok() {
                self.under_way = Some(process);
            }
        }
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

    /// What was found since the last time; `None`: there was nothing, or nobody to ask any more.
    pub fn take(&mut self) -> Vec<(ProcessId, Option<A>)> {
        std::mem::take(&mut self.found)
    }
}
