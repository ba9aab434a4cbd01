//! Many items, several children, and the answers in the order of the items.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Serialize, de::DeserializeOwned};

use super::child::{Beat, Child, Line, Taken};
use super::{EACH, Patience, Unanswered};

/// Fewer items than this are read by one child: starting another costs more.
const WORTH_A_CHILD: usize = 128;
/// Children at one time.
const MOST: usize = 4;
/// Time for an item while others wait behind it; what needs more is asked again when they have their answers.
const AT_FIRST: Duration = Duration::from_millis(100);
/// So few items wait for each other.
const FEW: usize = 4;
/// Answers in one message ...
const TOGETHER: usize = 128;
/// ... and for so long they may wait for others.
const KEPT: Duration = Duration::from_millis(10);
/// Between two looks at the children's beats.
const LOOK: Duration = Duration::from_millis(50);

/// `work` on each item, in child processes; `state` makes what one child keeps between two items. The answers come as
/// JSON. Waits for them, as long as `patience` allows.
pub fn each<T, S, R: Serialize + DeserializeOwned>(
    items: &[T],
    patience: &Patience,
    state: impl Fn() -> S,
    work: impl Fn(&T, &mut S, &Beat) -> R,
) -> Vec<Result<R, Unanswered>> {
    let mut answers: Vec<Option<Result<R, Unanswered>>> = Vec::new();
    answers.resize_with(items.len(), || None);
    let serve =
        |places: &[usize], line: &Line, beat: &Beat| serve(items, places, (&state, &work), line, beat);
    // Asking for the processors reads a dozen files.
    let processors = || std::thread::available_parallelism().map_or(1, |n| n.get()).min(MOST);
    let lanes = if items.len() < WORTH_A_CHILD { 1 } else { processors() };
    let all: Vec<usize> = (0..items.len()).collect();
    let at_first = if items.len() > FEW { AT_FIRST } else { EACH };
    pass(&all, lanes, at_first, patience, &mut answers, &serve);
    if at_first == EACH {
        return settle(answers);
    }
    // Every other one has its answer by now.
    let slow: Vec<usize> = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| matches!(answer, Some(Err(Unanswered::Silent))))
        .map(|(place, _)| place)
        .collect();
    pass(&slow, MOST.min(slow.len()), EACH, patience, &mut answers, &serve);
    settle(answers)
}

fn settle<R>(answers: Vec<Option<Result<R, Unanswered>>>) -> Vec<Result<R, Unanswered>> {
    answers.into_iter().map(|answer| answer.unwrap_or(Err(Unanswered::NotAsked))).collect()
}

/// In the child.
fn serve<T, S, R: Serialize>(
    items: &[T],
    places: &[usize],
    (state, work): (&impl Fn() -> S, &impl Fn(&T, &mut S, &Beat) -> R),
    line: &Line,
    beat: &Beat,
) {
    let mut state = state();
    let mut ready: Vec<(usize, R)> = Vec::new();
    let mut sent = std::time::Instant::now();
    for &place in places {
        let Some(item) = items.get(place) else { continue };
        beat.begin(place as u64);
        ready.push((place, work(item, &mut state, beat)));
        if ready.len() >= TOGETHER || sent.elapsed() >= KEPT {
            beat.rest();
            if tell(&mut ready, line).is_err() {
                return;
            }
            sent = std::time::Instant::now();
        }
    }
    beat.rest();
    let _ = tell(&mut ready, line);
}

fn tell<R: Serialize>(ready: &mut Vec<(usize, R)>, line: &Line) -> io::Result<()> {
    line.send(&serde_json::to_vec(ready)?, &[])?;
    ready.clear();
    Ok(())
}

/// A part of the items and the child that works on it.
struct Lane {
    /// Without an answer so far.
    places: Vec<usize>,
    child: Option<Child>,
}

/// Asks for these places, each of which has `limit`.
fn pass<R: DeserializeOwned>(
    places: &[usize],
    lanes: usize,
    limit: Duration,
    patience: &Patience,
    answers: &mut [Option<Result<R, Unanswered>>],
    serve: &impl Fn(&[usize], &Line, &Beat),
) {
    let parts = places.chunks(places.len().div_ceil(lanes.max(1)).max(1));
    let mut lanes: Vec<Lane> = parts.map(|part| Lane { places: part.to_vec(), child: None }).collect();
    let mut set = |place: usize, answer| {
        if let Some(slot) = answers.get_mut(place) {
            *slot = Some(answer);
        }
    };
    loop {
        lanes.retain(|lane| !lane.places.is_empty());
        if lanes.is_empty() {
            return;
        }
        let at_work = lanes.iter().filter_map(|lane| Some(lane.child.as_ref()?.worked())).sum();
        if patience.over(at_work) {
            for lane in lanes {
                lane.places.iter().for_each(|&place| set(place, Err(Unanswered::NotAsked)));
                lane.child.into_iter().for_each(|child| patience.end(child, Duration::ZERO));
            }
            return;
        }
        for lane in &mut lanes {
            if lane.child.is_none() {
                match Child::start(&[], |line, beat| serve(&lane.places, line, beat)) {
                    Ok(child) => lane.child = Some(child),
                    Err(_) => lane.places.drain(..).for_each(|place| set(place, Err(Unanswered::NoReader))),
                }
            }
        }
        wait(&lanes);
        for lane in &mut lanes {
            lane.advance(limit, patience, &mut set);
        }
    }
}

/// Until something has come from one of them, or it is time to look at their beats.
fn wait(lanes: &[Lane]) {
    let sockets = lanes.iter().filter_map(|lane| lane.child.as_ref());
    let mut waiting: Vec<PollFd<'_>> =
        sockets.map(|child| PollFd::from_borrowed_fd(child.socket(), PollFlags::IN)).collect();
    let time = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    // Interrupted or not: everything is looked at anyway.
    let _ = poll(&mut waiting, Some(&time));
}

impl Lane {
    /// Takes what has come, and ends a child that has ended or is silent.
    fn advance<R: DeserializeOwned>(
        &mut self,
        limit: Duration,
        patience: &Patience,
        set: &mut impl FnMut(usize, Result<R, Unanswered>),
    ) {
        while let Some(child) = &mut self.child {
            match child.take() {
                Taken::Message(message, _) => {
                    // What makes no sense is missing in the end, and said to be.
                    let given = serde_json::from_slice::<Vec<(usize, R)>>(&message).unwrap_or_default();
                    let done: Vec<usize> = given.iter().map(|(place, _)| *place).collect();
                    self.places.retain(|place| done.binary_search(place).is_err());
                    given.into_iter().for_each(|(place, answer)| set(place, Ok(answer)));
                }
                Taken::Nothing => {
                    if let Some(item) = patience.silent(child, limit) {
                        self.leave(item as usize, Unanswered::Silent, limit, patience, set);
                    }
                    return;
                }
                Taken::End => {
                    let item = child.beat().last() as usize;
                    self.leave(item, Unanswered::Died, Duration::ZERO, patience, set);
                }
            }
        }
    }

    /// Ends the child. If places are left, this one of them is not asked for again.
    fn leave<R>(
        &mut self,
        item: usize,
        why: Unanswered,
        waited: Duration,
        patience: &Patience,
        set: &mut impl FnMut(usize, Result<R, Unanswered>),
    ) {
        if let Some(child) = self.child.take() {
            patience.end(child, waited);
        }
        // A child that ended has told all it knew; the one to leave out is the one it was at, or else the next.
        let index = self.places.iter().position(|&place| place == item).unwrap_or(0);
        if index < self.places.len() {
            set(self.places.remove(index), Err(why));
        }
    }
}
