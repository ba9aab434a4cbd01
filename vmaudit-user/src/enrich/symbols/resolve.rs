//! From addresses to frames, at the session's end.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::generated::may_be_jitted;
use super::helper::Names;
use super::question::{Address, Name};
use super::unwind::{Followed, Stack};
use super::{Area, DEADLINE, FOLLOWING, Image, Symbols, Taken, helper, inside, stack_notes};
use crate::domain::c_library;
use crate::model::event::{FollowedStack, StackName};
use crate::model::report::Frame;

/// Names found.
#[derive(Debug, Default)]
pub struct Resolved {
    pub frames: Vec<StackName>,
    /// Generation and address of words that are no return address: the stack ends before them.
    pub ends: Vec<(u64, u64)>,
    /// Stacks, followed.
    pub stacks: Vec<FollowedStack>,
}

impl Symbols {
    /// Names for all stacks taken. Lasts up to [`FOLLOWING`] and [`DEADLINE`], usually a few milliseconds.
    pub fn resolve(&mut self) -> Resolved {
        let mut taken = std::mem::take(&mut self.taken);
        taken.extend(self.places.take(&mut self.images));
        let images = std::mem::take(&mut self.images);
        let resolved = self.resolved(taken, &images, (FOLLOWING, DEADLINE));
        // The session may go on.
        self.images = images;
        resolved
    }

    /// Names for the credited stacks of an address space that goes on. Somebody waits for them.
    pub fn resolve_now(&mut self, generation: u64) -> Resolved {
        const PATIENCE: Duration = Duration::from_millis(500);
        let taken = self.places.peek(generation, &mut self.images);
        let Some(image) = self.images.remove(&generation) else { return Resolved::default() };
        let images = HashMap::from([(generation, image)]);
        let resolved = self.resolved(taken, &images, (PATIENCE, PATIENCE));
        self.images.extend(images);
        resolved
    }

    fn resolved(
        &mut self,
        taken: Vec<Taken>,
        images: &HashMap<u64, Image>,
        (following, naming): (Duration, Duration),
    ) -> Resolved {
        let mut found = Addresses::default();
        by_frame_pointers(images, &mut found);
        let followed = self.follow(taken, images, following);
        for (taken, followed) in &followed {
            let Some(image) = images.get(&taken.generation) else { continue };
            for &ip in followed.iter().flat_map(|it| &it.addresses) {
                found.add(taken.generation, ip, image);
            }
        }
        if !found.addresses.is_empty() {
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
        self.followed.extend(resolved.stacks.iter().filter(|it| it.place.is_some()).cloned());
        let same = self.places.same(&self.followed);
        resolved.stacks.extend(same);
        resolved
    }

    /// Follows the copies of stacks.
    fn follow(
        &mut self,
        mut taken: Vec<Taken>,
        images: &HashMap<u64, Image>,
        time: Duration,
    ) -> Vec<(Taken, Option<Followed>)> {
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
        let mut answer = |index: Option<usize>| read.stacks.remove(&index?);
        taken.into_iter().zip(indices).map(|(taken, index)| (taken, answer(index))).collect()
    }
}

/// What the kernel found by frame pointers, and the words beside it.
fn by_frame_pointers(images: &HashMap<u64, Image>, found: &mut Addresses) {
    for (&generation, image) in images {
        for stack in &image.stacks {
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
