//! Reading that may never end, done where it can be left behind.
//!
//! A process can see to it that whoever reads its /proc files waits for ever: it holds its own mmap lock over a page
//! fault in a file of a file system (FUSE, a dead network mount) that does not answer; its command line or its program may
//! lie in such a file as well. The reader then sleeps uninterruptibly: no signal ends it, and no exit of the process
//! that one of its threads sleeps in. So all that can block is read by a child process that holds nothing of ours
//! ([`child`]). One that does not answer in time is killed and not waited for, and another goes on with the rest.
//!
//! Two ways: [`each()`] puts many processes to children and waits for the answers (scan, explain, limit: signals keep
//! their default meaning there), [`desk::Desk`] has one child answer one question at a time while a session goes on.
//!
//! Bounds, by [`Patience`]: 1 s for a process, 10 s in all, [`MOST_LEFT`] children left behind.

pub(crate) mod child;
pub(crate) mod desk;
mod each;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use child::{Child, Killed};

use crate::model::unreadable::Unreadable;

pub use child::Beat;
pub use each::each;

/// For one process.
const EACH: Duration = Duration::from_secs(1);
/// For all of them in one command or session.
const ALL: Duration = Duration::from_secs(10);
/// Who is computing is not stuck, and gets so many times as long; the one process that a command is about, much longer.
const RUNNING: u32 = 3;
const ONE_RUNNING: u32 = 60;
/// Children that could not even be killed, at one time.
pub const MOST_LEFT: usize = 8;
/// So long a killed child may take to end before it counts as left behind, and so long vmaudit's own end waits for it at
/// most: a first process of a container that waits for nobody would keep its number for ever.
const DYING: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Not within the time for one process.
    Silent,
    /// Its reader ended in the middle.
    Died,
    /// The time for all was used up, or too many readers are stuck: it was not asked.
    NotAsked,
    /// No reader could be started.
    NoReader,
}

impl From<Unanswered> for Unreadable {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Silent => Self::Silent,
            Unanswered::NotAsked => Self::NotAsked,
            Unanswered::Died => Self::Failed("the process that read it ended before it was done".to_owned()),
            Unanswered::NoReader => Self::Failed("no process could be started to read it".to_owned()),
        }
    }
}

/// What is spent on processes that do not answer, in one command or session.
#[derive(Clone, Debug)]
pub struct Patience(Rc<Spent>);

#[derive(Debug)]
struct Spent {
    began: Instant,
    running: u32,
    /// Processor time that children used: reading much is not waiting long.
    worked: Cell<Duration>,
    /// Waited for the silent.
    waited: Cell<Duration>,
    killed: RefCell<Vec<(Killed, Instant)>>,
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(RUNNING)
    }
}

impl Patience {
    fn of(running: u32) -> Self {
        Self(Rc::new(Spent {
            began: Instant::now(),
            running,
            worked: Cell::default(),
            waited: Cell::default(),
            killed: RefCell::default(),
        }))
    }

    /// For a command about one process, however large it is.
    pub fn for_one() -> Self {
        Self::of(ONE_RUNNING)
    }

    /// No further look is worth it.
    pub fn spent(&self) -> bool {
        self.0.waited.get() >= ALL || self.left_behind() >= MOST_LEFT
    }

    /// The same, for who does nothing but wait for answers; `at_work`: what living children have worked.
    fn over(&self, at_work: Duration) -> bool {
        // Twice: who reads one large process rests as long as it reads.
        self.0.began.elapsed() > ALL + 2 * (self.0.worked.get() + at_work) || self.spent()
    }

    /// Children that were killed and have not ended.
    pub fn left_behind(&self) -> usize {
        let mut killed = self.0.killed.borrow_mut();
        killed.retain(|(child, _)| !child.ended());
        killed.iter().filter(|(_, when)| when.elapsed() > DYING).count()
    }

    /// The item at which this child has been silent for longer than `limit`.
    fn silent(&self, child: &Child, limit: Duration) -> Option<u64> {
        let (item, silent) = child.beat().now()?;
        (silent >= limit && (silent >= limit * self.0.running || !child.runs())).then_some(item)
    }

    /// Ends a child; `waited`: for how long it was waited for in vain.
    fn end(&self, child: Child, waited: Duration) {
        self.0.worked.set(self.0.worked.get() + child.worked());
        self.0.waited.set(self.0.waited.get() + waited);
        self.0.killed.borrow_mut().push((child.kill(), Instant::now()));
        self.left_behind();
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        let until = Instant::now() + DYING;
        let killed = self.killed.get_mut();
        killed.retain(|(child, _)| !child.ended());
        while !killed.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
            killed.retain(|(child, _)| !child.ended());
        }
    }
}
