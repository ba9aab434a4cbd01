//! From addresses to frames, at the session's end.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::generated::may_be_jitted;
use super::helper::Names;
use super::question::{Address, Name};
use super::unwind::{Followed, Stack};
use super::{Area, BACKSTOP, Image, Symbols, Taken, helper, inside, stack_notes};
use crate::domain::c_library;
use crate::model::event::{FollowedStack, StackName};
use crate::model::makers::MIXED;
use crate::model::report::Frame;

/// Time for following stacks at the session's end.
pub(super) const FOLLOWING: Duration = Duration::from_millis(1500 * BACKSTOP);
/// Time for reading symbols then.
pub(super) const DEADLINE: Duration = Duration::from_secs(3 * BACKSTOP);
const AT_THE_END: Time = Time { following: FOLLOWING, naming: DEADLINE, both: Duration::MAX };
/// While a session goes on its records wait meanwhile.
const SO_FAR: Time = Time {
    following: Duration::from_millis(250),
    naming: Duration::from_millis(500),
    both: Duration::from_millis(500),
};
/// What there was no time for is tried so often while it goes on, and once more at its end.
pub(super) const TRIES: u8 = 3;
/// Addresses that are tried again.
const UNNAMED: usize = 10_000;

/// A stack: its address space, thread, and time or place.
pub(super) type Stacked = (u64, u32, u64);

/// How long it may last: each, and both together.
#[derive(Clone, Copy)]
struct Time {
    following: Duration,
    naming: Duration,
    both: Duration,
}

/// Names found.
#[derive(Debug, Default)]
pub struct Resolved {
    pub frames: Vec<StackName>,
    /// Generation and address of words that are no return address: the stack ends before them.
    pub ends: Vec<(u64, u64)>,
    /// Stacks, followed.
    pub stacks: Vec<FollowedStack>,
    /// Those among them that there was no time to follow.
    unanswered: HashSet<Stacked>,
}

impl Symbols {
    /// Names for all stacks taken, at the session's end. Lasts up to [`FOLLOWING`] and [`DEADLINE`], usually a few
    /// milliseconds.
    pub fn resolve(&mut self) -> Resolved {
        let mut taken = std::mem::take(&mut self.taken);
        taken.extend(self.places.take(&mut self.images));
        self.images.values_mut().for_each(|image| image.named = 0);
        let images = std::mem::take(&mut self.images);
        let unnamed = std::mem::take(&mut self.unnamed);
        let resolved = self.resolved(taken, &images, unnamed.keys(), AT_THE_END);
        self.images = images;
        resolved
    }

    /// Names for what is new since the last time, while the session goes on. Lasts up to [`SO_FAR`]; what it has no time for
    /// is new the next time.
    pub fn resolve_new(&mut self) -> Resolved {
        self.resolve_new_within(SO_FAR)
    }

    fn resolve_new_within(&mut self, time: Time) -> Resolved {
        // Those that were tried often enough wait for the end.
        let taken = std::mem::take(&mut self.taken);
        let (mut taken, spent): (Vec<_>, Vec<_>) = taken.into_iter().partition(|it| it.tries <= TRIES);
        self.taken = spent;
        taken.extend(self.places.take_new(&mut self.images));
        let mut images = std::mem::take(&mut self.images);
        let unnamed = std::mem::take(&mut self.unnamed);
        let (again, spent): (HashMap<_, _>, _) = unnamed.into_iter().partition(|(_, tries)| *tries < TRIES);
        self.unnamed = spent;
        let resolved = self.resolved(taken.clone(), &images, again.keys(), time);
        for image in images.values_mut() {
            image.named = image.stacks.len();
        }
        self.images = images;
        self.places.tried(&taken, &resolved.unanswered);
        let unanswered = |it: &Taken| it.place.is_none() && resolved.unanswered.contains(&it.called());
        let waiting = taken.into_iter().filter(unanswered);
        self.taken.extend(waiting.map(|it| Taken { tries: it.tries + 1, ..it }));
        if !self.unreadable.is_empty() {
            for it in resolved.frames.iter().filter(|it| it.frame.symbol.is_none()) {
                let key = (it.generation, it.ip);
                if self.unnamed.len() < UNNAMED {
                    self.unnamed.insert(key, again.get(&key).map_or(1, |tries| tries + 1));
                }
            }
        }
        resolved
    }

    /// Names for the credited stacks of an address space that goes on. Somebody waits for them.
    pub fn resolve_now(&mut self, generation: u64) -> Resolved {
        const PATIENCE: Duration = Duration::from_millis(500);
        const ASKED: Time = Time { following: PATIENCE, naming: PATIENCE, both: Duration::MAX };
        let taken = self.places.peek(generation, &mut self.images);
        let Some(image) = self.images.remove(&generation) else { return Resolved::default() };
        let images = HashMap::from([(generation, image)]);
        let resolved = self.resolved(taken, &images, [].iter(), ASKED);
        self.images.extend(images);
        resolved
    }

    /// `unnamed`: addresses besides those of the stacks.
    fn resolved<'a>(
        &mut self,
        taken: Vec<Taken>,
        images: &HashMap<u64, Image>,
        unnamed: impl Iterator<Item = &'a (u64, u64)>,
        time: Time,
    ) -> Resolved {
        let began = Instant::now();
        let mut found = Addresses::default();
        by_frame_pointers(images, &mut found);
        for &(generation, ip) in unnamed {
            if let Some(image) = images.get(&generation) {
                found.add(generation, ip, image);
            }
        }
        let (followed, unanswered) = self.follow(taken, images, time.following);
        for (taken, followed) in &followed {
            let Some(image) = images.get(&taken.generation) else { continue };
            for &ip in followed.iter().flat_map(|it| &it.addresses) {
                found.add(taken.generation, ip, image);
            }
        }
        if !found.addresses.is_empty() {
            let naming = time.naming.min(time.both.saturating_sub(began.elapsed()));
            let read = helper::names(&self.modules, images, &found.addresses, naming);
            self.unreadable = read.given_up;
            self.left_behind += read.left_behind;
            for (index, name) in read.names {
                if let Some(it) = found.resolved.frames.get_mut(index) {
                    put(name, it);
                }
            }
        }
        let mut resolved = found.resolved;
        resolved.unanswered = unanswered;
        let named: HashMap<(u64, u64), &Frame> =
            resolved.frames.iter().map(|it| ((it.generation, it.ip), &it.frame)).collect();
        resolved.stacks = followed
            .into_iter()
            .filter_map(|(taken, followed)| {
                let image = images.get(&taken.generation)?;
                Some(stack_notes::noted(&taken, followed, image, &named))
            })
            .collect();
        self.places.label(&mut resolved.stacks);
        // Others may turn out to be the same later. What was followed again is kept once.
        let again: HashSet<(u64, Option<u32>)> =
            resolved.stacks.iter().map(|it| (it.generation, it.place)).collect();
        self.followed.retain(|it| !again.contains(&(it.generation, it.place)));
        // What was followed before may turn out to be several.
        let mut mixed = Vec::new();
        for before in self.followed.iter_mut().filter(|it| it.notes.iter().all(|note| note != MIXED)) {
            self.places.label(std::slice::from_mut(before));
            mixed.extend(before.notes.iter().any(|note| note == MIXED).then(|| before.clone()));
        }
        self.followed.extend(resolved.stacks.iter().filter(|it| it.place.is_some()).cloned());
        let same = self.places.same(&self.followed);
        resolved.stacks.extend(mixed);
        resolved.stacks.extend(same);
        resolved
    }

    /// Follows the copies of stacks. Beside them: those that there was no time for.
    fn follow(
        &mut self,
        mut taken: Vec<Taken>,
        images: &HashMap<u64, Image>,
        time: Duration,
    ) -> (Vec<(Taken, Option<Followed>)>, HashSet<Stacked>) {
        // In the order of events, whatever the looks took.
        taken.sort_by_key(|taken| (taken.generation, taken.at_ns, taken.tid));
        let mut stacks = Vec::new();
        let mut indices = Vec::new();
        for taken in &mut taken {
            let narrow = taken.narrow;
            indices.push(taken.copy.take().filter(|_| !narrow).map(|copy| {
                let by_frame_pointers = taken.stack.clone();
                stacks.push(Stack { generation: taken.generation, copy, by_frame_pointers });
                stacks.len() - 1
            }));
        }
        let mut read = Names::default();
        if !stacks.is_empty() {
            read = helper::follow(&self.modules, images, &stacks, time);
            self.left_behind += read.left_behind;
        }
        let missing = |index: Option<usize>| index.is_some_and(|index| !read.stacks.contains_key(&index));
        let unanswered = taken.iter().zip(&indices).filter(|(_, index)| missing(**index));
        let unanswered = unanswered.map(|(taken, _)| taken.called()).collect();
        let mut answer = |index: Option<usize>| read.stacks.remove(&index?);
        (taken.into_iter().zip(indices).map(|(taken, index)| (taken, answer(index))).collect(), unanswered)
    }
}

impl Taken {
    pub(super) fn called(&self) -> Stacked {
        (self.generation, self.tid, self.at_ns)
    }
}

/// What the kernel found by frame pointers, and the words beside it.
fn by_frame_pointers(images: &HashMap<u64, Image>, found: &mut Addresses) {
    for (&generation, image) in images {
        for stack in image.stacks.get(image.named..).unwrap_or_default() {
            for (n, &ip) in stack.iter().enumerate() {
                // The first is the task's own program counter, whatever it points at; the others are what a walk
                // over frame pointers took for return addresses.
                if n > 0 && image.holes.contains(&inside(ip)) {
                    found.resolved.ends.push((generation, ip));
                    break;
                }
                found.add(generation, ip, image);
            }
        }
    }
}

/// Addresses to name, each once, and what is known of them before.
#[derive(Default)]
struct Addresses {
    resolved: Resolved,
    addresses: Vec<Address>,
    seen: HashSet<(u64, u64)>,
}

impl Addresses {
    fn add(&mut self, generation: u64, ip: u64, image: &Image) {
        let at = inside(ip);
        let Some(area) = image.area(at) else { return };
        if !self.seen.insert((generation, ip)) {
            return;
        }
        let frame = without_name(ip, area);
        self.resolved.frames.push(StackName { generation, ip, frame, inlined: Vec::new() });
        self.addresses.push(Address {
            at,
            in_file: (at - area.start).wrapping_add(area.offset),
            module: area.module,
            generation,
            jitted: may_be_jitted(&area.name),
        });
    }
}

fn without_name(ip: u64, area: &Area) -> Frame {
    let offset = (ip - area.start).wrapping_add(area.offset);
    let named = !area.name.is_empty();
    Frame { module: named.then(|| area.name.clone()), offset: named.then_some(offset), ..Frame::bare(ip) }
}

/// The name, and the functions inlined there.
fn put(name: Name, it: &mut StackName) {
    let of_c_library = it.frame.module.as_deref().is_some_and(c_library::is)
        || name.file.as_deref().is_some_and(c_library::is_source);
    let set = |frame: &mut Frame, name: Name| {
        frame.symbol = Some(name.symbol);
        frame.file = name.file.filter(|_| !of_c_library);
        frame.line = name.line.filter(|_| !of_c_library);
    };
    if !of_c_library {
        for inner in &name.inlined {
            let mut frame = Frame { inlined: true, ..it.frame.clone() };
            set(&mut frame, inner.clone());
            it.inlined.push(frame);
        }
    }
    set(&mut it.frame, name);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{known, refused, remember_all, symbols};
    use super::*;

    fn names(resolved: &Resolved) -> Vec<bool> {
        resolved.frames.iter().map(|it| it.frame.symbol.is_some()).collect()
    }

    #[test]
    fn while_a_session_goes_on_only_what_is_new_is_read() {
        let mut symbols = symbols();
        let within = || Time { following: DEADLINE, naming: DEADLINE, both: DEADLINE };
        symbols.notice(&refused(5, std::process::id(), &[known()]));
        remember_all(&mut symbols, true);
        assert_eq!(names(&symbols.resolve_new_within(within())), [true]);
        let again = symbols.resolve_new_within(within());
        assert!(again.frames.is_empty() && again.stacks.is_empty(), "{again:?}");
        symbols.notice(&refused(5, std::process::id(), &[known() + 1]));
        symbols.notice(&refused(6, std::process::id(), &[known()]));
        remember_all(&mut symbols, true);
        assert_eq!(names(&symbols.resolve_new_within(within())), [true], "the first of its kind");
        assert_eq!(names(&symbols.resolve()), [true, true], "the end tells all");
    }

    #[test]
    fn what_there_was_no_time_for_is_tried_again_a_few_times_and_at_the_end() {
        let mut symbols = symbols();
        let never = || Time { following: Duration::ZERO, naming: Duration::ZERO, both: Duration::ZERO };
        symbols.notice(&refused(5, std::process::id(), &[known()]));
        remember_all(&mut symbols, true);
        for _ in 0..TRIES {
            assert_eq!(names(&symbols.resolve_new_within(never())), [false]);
        }
        assert!(symbols.resolve_new_within(never()).frames.is_empty());
        assert_eq!(names(&symbols.resolve()), [true]);
        assert!(symbols.notes().is_empty(), "{:?}", symbols.notes());
        // Neither is it for ever.
        assert!(SO_FAR.both <= Duration::from_millis(500) && SO_FAR.following < SO_FAR.both);
    }
}
