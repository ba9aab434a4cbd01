//! One child that answers one question at a time, while vmaudit does other things.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Serialize, de::DeserializeOwned};

use super::child::{Beat, Child, Line, Taken};
use super::{EACH, Patience, Unanswered};

/// So long a question is waited for before the session turns to other things: nearly all have their answer by then, and
/// a process that is about to end is still looked at in time.
pub const MOMENT: Duration = Duration::from_millis(2);

/// What became of a question.
#[derive(Debug)]
pub enum Turn<A> {
    /// There is none, or it has no answer yet.
    Waiting,
    /// The answer, and the descriptors that came with it.
    Answer(A, Vec<OwnedFd>),
    /// There will be none. The item is the one that the child had begun last, see [`Beat::begin`].
    Unanswered(Unanswered, u64),
}

type Serve<'a, Q, A> = dyn FnMut(Q, &Beat) -> (A, Vec<OwnedFd>) + 'a;

/// Takes questions of the form `Q`, one at a time.
pub struct Desk<Q, A> {
    /// Runs in the child only.
    serve: Box<Serve<'static, Q, A>>,
    pub(super) child: Option<Child>,
    asked: bool,
    pub(super) patience: Patience,
    form: PhantomData<A>,
}

impl<Q, A> fmt::Debug for Desk<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("child", &self.child).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl<Q: Serialize + DeserializeOwned, A: Serialize + DeserializeOwned> Desk<Q, A> {
    /// `serve` answers in a child, which is started by the first question. It calls [`Beat::begin`] for each process it
    /// turns to.
    pub fn new(patience: &Patience, serve: impl FnMut(Q, &Beat) -> (A, Vec<OwnedFd>) + 'static) -> Self {
        Self {
            serve: Box::new(serve),
            child: None,
            asked: false,
            patience: patience.clone(),
            form: PhantomData,
        }
    }

    /// A question is under way.
    pub fn busy(&self) -> bool {
        self.asked
    }

    /// Asks. There must be no other question under way. An error: it was not asked. Never waits; the question must fit
    /// one packet (32 KiB).
    pub fn ask(&mut self, question: &Q) -> Result<(), Unanswered> {
        if self.asked || self.patience.spent() {
            return Err(Unanswered::NotAsked);
        }
        let bytes = serde_json::to_vec(question).map_err(|_| Unanswered::NotAsked)?;
        // The one that is there may have been killed by somebody.
        for _ in 0..2 {
            let child = match self.child.take() {
                Some(child) => child,
                None => {
                    let serve = &mut self.serve;
                    Child::start(&[], |line, beat| at_work(line, beat, serve))
                        .map_err(|_| Unanswered::NoReader)?
                }
            };
            match child.send(&bytes) {
                Ok(()) => {
                    self.child = Some(child);
                    self.asked = true;
                    return Ok(());
                }
                Err(_) => self.patience.end(child, Duration::ZERO),
            }
        }
        Err(Unanswered::NoReader)
    }

    /// Waits for the answer, at most this long.
    pub fn turn(&mut self, most: Duration) -> Turn<A> {
        if !self.asked {
            return Turn::Waiting;
        }
        let Some(child) = &mut self.child else { return Turn::Waiting };
        let time = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::from_borrowed_fd(child.socket(), PollFlags::IN)], Some(&time));
        let (why, item, waited) = match child.take() {
            Taken::Message(message, descriptors) => match serde_json::from_slice(&message) {
                Ok(answer) => {
                    self.asked = false;
                    return Turn::Answer(answer, descriptors);
                }
                Err(_) => (Unanswered::Died, child.beat().last(), Duration::ZERO),
            },
            Taken::End => (Unanswered::Died, child.beat().last(), Duration::ZERO),
            Taken::Nothing => match self.patience.silent(child, EACH) {
                Some(item) => (Unanswered::Silent, item, EACH),
                None => return Turn::Waiting,
            },
        };
        self.asked = false;
        if let Some(child) = self.child.take() {
            self.patience.end(child, waited);
        }
        Turn::Unanswered(why, item)
    }
}

/// In the child.
fn at_work<Q: DeserializeOwned, A: Serialize>(line: &Line, beat: &Beat, serve: &mut Serve<'_, Q, A>) {
    while let Some(question) = line.receive() {
        let Ok(question) = serde_json::from_slice(&question) else { return };
        let (answer, descriptors) = serve(question, beat);
        beat.rest();
        let descriptors: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
        let Ok(answer) = serde_json::to_vec(&answer) else { return };
        if line.send(&answer, &descriptors).is_err() {
            return;
        }
    }
}

impl<Q, A> Drop for Desk<Q, A> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.patience.end(child, Duration::ZERO);
        }
    }
}
