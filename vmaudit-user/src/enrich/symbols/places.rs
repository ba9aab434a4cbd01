//! From where credited calls were made (`model::makers`): each stack gets a number in its address space, and one copy of
//! each is kept until the session's end, when it is followed.
//!
//! Two stacks are the same if all is the same that following them could depend on: the program counter, what the frame
//! pointers lead to as long as that is code, and of the copies each word that is an address of code or of the stack itself, at
//! its place. What else lies on a stack differs from call to call. Which memory is code is asked as soon as a process has some
//! VMAs, again whenever it has half as many more, and after some time ([`AGAIN_AFTER`]). Stacks that were taken for the same
//! because what tells them apart lies in code that was found only then have a note.
//!
//! Bounds: [`BYTES`] and [`COPIES`] of copies, [`PLACES`] places and [`WAITING`] copies before the code is known of an
//! address space, [`IMAGES`] address spaces, [`STACKS`] of stacks. Beyond them a stack is told by its frame pointers alone,
//! at last by its call.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use vmaudit_common::MAKERS_COPIES;

use super::registers::of_32_bit_code;
use super::resolve::{Stacked, TRIES};
use super::stack_copy::{Packed, StackCopy};
use super::{Image, LOOKS, LOOKS_PER_IMAGE, LOOKS_PER_SECOND, MOMENT, Symbols, Taken, Waiting};
use crate::model::event::{Credit, FollowedStack, Place};
use crate::model::makers::MIXED;

/// Bytes of copies kept, all processes together; and while those of processes with few VMAs are taken, which mostly stay so.
const BYTES: (usize, usize) = (8 << 20, 2 << 20);
/// Copies of one address space, and bytes of them.
const COPIES: (usize, usize) = (256, 2 << 20);
/// Places of one address space.
const PLACES: usize = 1024 + WAITING.0;
/// The same until its code is known: a loop of mprotect makes a thousand in the 3 ms that a look takes.
const WAITING: (usize, usize) = (2048, 6 << 20);
/// Places by frame pointers alone of one address space until its code is known.
const UNTOLD: usize = 64;
/// Bytes of stacks by frame pointers, all processes together.
const STACKS: usize = 16 << 20;
/// What a place takes beside its stack: in several tables.
const PLACE: usize = 128;
/// The code is looked at anew after this time, then after twice that, and so on.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Looks because of callers in code that is not known: mostly these are no callers.
const AGAIN: u32 = 4;
/// Address spaces with places.
const IMAGES: usize = 4096;

/// All places of a session.
#[derive(Debug, Default)]
pub(super) struct Places {
    of: HashMap<u64, Box<Known>>,
    /// Address spaces whose mappings are to be looked at.
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// Of stacks, see [`STACKS`].
    stack_bytes: usize,
    /// Keys, so that nobody can make two stacks look the same.
    keys: RandomState,
}

/// What is known of one address space.
#[derive(Debug, Default)]
struct Known {
    tgid: u32,
    places: u32,
    by_stack: HashMap<u64, u32>,
    /// Stacks with a copy: the place, and what tells it from others; `None`: which memory is code is not known yet.
    kept: Vec<Kept>,
    bytes: usize,
    stack_bytes: usize,
    /// Places that turned out to be another.
    same: Vec<(u32, u32)>,
    /// Places that may be several.
    mixed: HashSet<u32>,
    /// Stacks by frame pointers, for their names.
    stacks: Vec<(Option<u64>, Vec<u64>)>,
    /// Executable mappings, ordered, as of the image's last change.
    code: Vec<(u64, u64)>,
    areas: usize,
    /// Places by frame pointers alone from before the code was known.
    untold: usize,
    /// The level at which its mappings are looked at next.
    look_at: u32,
    /// How often that was because of a caller in code that was not known.
    again: u32,
    /// When it is due whatever the level, and how long the time was until then.
    due: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Kept {
    place: u32,
    copy: Packed,
    caller: Option<u64>,
    stack: Vec<u64>,
    /// It was followed while the session went on, or there was no time for it so often.
    tried: Tried,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Followed,
    InVain(u8),
}

impl Places {
    /// Gives a credit its place, and says what has to be told before it.
    pub(super) fn notice(
        &mut self,
        credit: &mut Credit,
        copy: Option<StackCopy>,
        image: Option<&Image>,
    ) -> Option<Place> {
        if self.of.len() >= IMAGES && !self.of.contains_key(&credit.generation) {
            return None;
        }
        let known = self.of.entry(credit.generation).or_default();
        known.tgid = credit.tgid;
        let copied = copy.is_some();
        let most = if credit.level < MAKERS_COPIES { BYTES.1 } else { BYTES.0 };
        let (caller, mut stack) = (credit.caller.take(), std::mem::take(&mut credit.stack));
        known.learn(image, &self.keys, &mut self.bytes);
        let copy = copy.filter(|it| known.has_room(it) && self.bytes + it.size() <= most);
        // Of code that is not all known, words that tell stacks apart would be overlooked.
        let sure = !known.code.is_empty() && image.is_none_or(|image| image.whole);
        // Code that keeps no frame pointer may keep anything there, which makes no other place.
        // Of an entry of the ledger it comes once.
        let entry = credit.key != 0;
        if !entry && (sure || copy.is_none() && known.untold >= UNTOLD) {
            stack.truncate(known.callers(&stack));
        }
        let key = match &copy {
            _ if entry => None,
            Some(_) if !sure => None,
            Some(copy) => Some(known.key(&self.keys, caller, &stack, Some(copy))),
            None => Some(known.key(&self.keys, caller, &stack, None)),
        };
        let cost = PLACE + size_of_val(stack.as_slice());
        let place = known.place(key, self.stack_bytes + cost <= STACKS);
        credit.place = place.unwrap_or_else(|known| known);
        // The same stack again, or no room for another.
        let fresh = place.is_ok();
        let unknown = !known.code.is_empty() && caller.is_some_and(|ip| !known.is_code(ip));
        let high = credit.level >= known.look_at.max(MAKERS_COPIES);
        let first = entry && known.due.is_none();
        if (copied || entry) && (first || high || unknown && known.again < AGAIN || known.is_due()) {
            known.look_at = credit.level.saturating_add(credit.level / 2);
            known.again += u32::from(unknown);
            let wait = known.due.map_or(AGAIN_AFTER, |(_, before)| before.saturating_mul(2));
            known.due = Instant::now().checked_add(wait).map(|at| (at, wait));
            self.queue.push_back(Waiting::of_credit(credit, &stack, caller, copy.clone()));
        }
        if !fresh {
            return None;
        }
        if let Some(copy) = copy {
            known.bytes += copy.size();
            self.bytes += copy.size();
            let (place, stack, tried) = (credit.place, stack.clone(), Tried::InVain(0));
            make_room(&mut known.kept);
            known.kept.push(Kept { place, copy: copy.pack(), caller, stack, tried });
        } else if !sure && !entry {
            known.untold += 1;
        }
        make_room(&mut known.stacks);
        known.stacks.push((caller, stack.clone()));
        known.stack_bytes += cost;
        self.stack_bytes += cost;
        Some(Place { generation: credit.generation, place: credit.place, caller, stack })
    }

    /// The next address space whose mappings are to be looked at.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        self.queue.pop_front()
    }

    /// Not now.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.queue.push_front(waiting);
    }

    /// Forgets address spaces that are not wanted.
    pub(super) fn keep(&mut self, wanted: &HashSet<u64>) {
        self.of.retain(|generation, _| wanted.contains(generation));
        self.queue.retain(|waiting| wanted.contains(&waiting.generation));
        self.bytes = self.of.values().map(|known| known.bytes).sum();
        self.stack_bytes = self.of.values().map(|known| known.stack_bytes).sum();
    }

    /// An address space has ended; what it kept is of no use to a report.
    pub(super) fn forget(&mut self, generation: u64) {
        if let Some(known) = self.of.remove(&generation) {
            self.bytes -= known.bytes.min(self.bytes);
            self.stack_bytes -= known.stack_bytes.min(self.stack_bytes);
        }
    }

    /// The stacks to follow, and those by frame pointers, for their names. What the images do not know yet is learned. The
    /// copies stay: code that is found later tells which of them were mixed.
    pub(super) fn take(&mut self, images: &mut HashMap<u64, Image>) -> Vec<Taken> {
        let mut all = Vec::new();
        for (&generation, known) in &mut self.of {
            let Some(image) = images.get_mut(&generation) else { continue };
            all.extend(known.taken(generation, image, &self.keys, &mut self.bytes));
        }
        all
    }

    /// The same of those that were not followed yet.
    pub(super) fn take_new(&mut self, images: &mut HashMap<u64, Image>) -> Vec<Taken> {
        let mut all = Vec::new();
        for (&generation, known) in &mut self.of {
            let Some(image) = images.get_mut(&generation) else { continue };
            let taken = known.taken(generation, image, &self.keys, &mut self.bytes);
            let new = |it: &&Kept| matches!(it.tried, Tried::InVain(tries) if tries < TRIES);
            let new: HashSet<u32> = known.kept.iter().filter(new).map(|it| it.place).collect();
            all.extend(taken.into_iter().filter(|it| it.place.is_some_and(|place| new.contains(&place))));
        }
        all
    }

    /// They were tried; `unanswered`: there was no time for these.
    pub(super) fn tried(&mut self, all: &[Taken], unanswered: &HashSet<Stacked>) {
        for taken in all {
            let kept = self.of.get_mut(&taken.generation).map_or(&mut [][..], |known| &mut known.kept);
            let Some(it) = kept.iter_mut().find(|it| taken.place == Some(it.place)) else { continue };
            it.tried = match it.tried {
                Tried::InVain(tries) if unanswered.contains(&taken.called()) => Tried::InVain(tries + 1),
                _ => Tried::Followed,
            };
        }
    }

    /// Notes on those that may be several.
    pub(super) fn label(&self, stacks: &mut [FollowedStack]) {
        for stack in stacks {
            let mixed = self.of.get(&stack.generation).zip(stack.place);
            if mixed.is_some_and(|(known, place)| known.mixed.contains(&place)) {
                stack.notes.push(MIXED.to_owned());
            }
        }
    }

    /// The same of one address space, whose stacks will be asked for again.
    pub(super) fn peek(&mut self, generation: u64, images: &mut HashMap<u64, Image>) -> Vec<Taken> {
        let Some((known, image)) = self.of.get_mut(&generation).zip(images.get_mut(&generation)) else {
            return Vec::new();
        };
        known.taken(generation, image, &self.keys, &mut self.bytes)
    }

    /// The same stacks for the places that turned out to be others'.
    pub(super) fn same(&self, stacks: &[FollowedStack]) -> Vec<FollowedStack> {
        let of = |stack: &FollowedStack| Some(((stack.generation, stack.place?), stack.clone()));
        let followed: HashMap<(u64, u32), FollowedStack> = stacks.iter().filter_map(of).collect();
        let mut more: Vec<FollowedStack> = Vec::new();
        for (&generation, known) in &self.of {
            for &(place, as_this) in &known.same {
                if let Some(it) = followed.get(&(generation, as_this)) {
                    more.push(FollowedStack { place: Some(place), at_ns: place.into(), ..it.clone() });
                }
            }
        }
        more.sort_by_key(|it| (it.generation, it.place));
        more
    }
}

impl Symbols {
    /// Gives a credited call its place; tells what has to be known before it.
    pub fn credited(&mut self, credit: &mut Credit) -> Option<Place> {
        let copy = self.copies.of((credit.generation, credit.tid, credit.at_ns));
        if self.off {
            return None;
        }
        self.places.notice(credit, copy, self.images.get(&credit.generation))
    }

    /// The stacks of credited calls of this address space will not be shown.
    pub fn without_places(&mut self, generation: u64) {
        self.places.forget(generation);
    }

    /// Looks at the code of a process with credited calls.
    pub(super) fn look_for_places(&mut self, lives: &dyn Fn(u64) -> bool) {
        while !self.busy()
            && let Some(waiting) = self.places.next()
        {
            let image = self.images.entry(waiting.generation).or_default();
            let spent = image.code_looks >= LOOKS_PER_IMAGE || self.code_looks >= LOOKS;
            // Too many to be read a moment ago: too many now.
            let in_vain = image.unread.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
            if spent || in_vain || !lives(waiting.generation) {
                continue;
            }
            if !self.may_look(LOOKS_PER_SECOND.1) {
                self.places.put_back(waiting);
                return;
            }
            let new = self.images.entry(waiting.generation).or_default().unknown(&waiting);
            self.ask(waiting, new, Vec::new());
            self.turn(MOMENT, &lives);
        }
    }
}

impl Known {
    fn has_room(&self, copy: &StackCopy) -> bool {
        let most = if self.code.is_empty() { WAITING } else { COPIES };
        self.kept.len() < most.0 && self.bytes + copy.size() <= most.1
    }

    /// Its stacks to follow.
    fn taken(
        &mut self,
        generation: u64,
        image: &mut Image,
        keys: &RandomState,
        all: &mut usize,
    ) -> Vec<Taken> {
        self.learn(Some(image), keys, all);
        for (caller, stack) in self.stacks.drain(..) {
            image.stacks.push(stack);
            image.stacks.extend(caller.map(|ip| vec![ip]));
        }
        let taken = |Kept { place, copy, stack, .. }: &Kept| {
            let copy = copy.unpack();
            Taken {
                generation,
                tgid: self.tgid,
                tid: 0,
                at_ns: (*place).into(),
                stack: stack.clone(),
                narrow: of_32_bit_code(&copy.registers),
                copy: Some(copy),
                place: Some(*place),
                tries: 0,
            }
        };
        self.kept.iter().map(taken).collect()
    }

    /// A new place (`Ok`), a known one, or none (0). Without a key it is like no other.
    fn place(&mut self, key: Option<u64>, room: bool) -> Result<u32, u32> {
        let room = room && (self.places as usize) < PLACES;
        let next = self.places + 1;
        match key.map(|key| self.by_stack.entry(key)) {
            Some(Entry::Occupied(known)) => return Err(*known.get()),
            _ if !room => return Err(0),
            Some(Entry::Vacant(new)) => drop(new.insert(next)),
            None => {}
        }
        self.places = next;
        Ok(next)
    }

    /// Takes what the image knows by now; stacks that are the same are kept once.
    fn learn(&mut self, image: Option<&Image>, keys: &RandomState, all: &mut usize) {
        let Some(image) = image.filter(|image| image.areas.len() != self.areas && image.whole) else {
            return;
        };
        let first = self.code.is_empty();
        self.areas = image.areas.len();
        let code = image.areas.iter().map(|area| (area.start, area.end)).collect();
        let before = std::mem::replace(&mut self.code, code);
        self.code.sort_unstable();
        if !first {
            // Calls through code that is new here were told apart without it.
            let is_new = |word: u64| self.is_code(word) && !lies_in(&before, word);
            let mixed = self.kept.iter().filter(|it| it.copy.unpack().words().any(is_new)).map(|it| it.place);
            let mixed: Vec<u32> = mixed.collect();
            self.mixed.extend(mixed);
            return;
        }
        let mut kept: Vec<Kept> = Vec::new();
        for mut it in std::mem::take(&mut self.kept) {
            it.stack.truncate(self.callers(&it.stack));
            let key = self.key(keys, it.caller, &it.stack, Some(&it.copy.unpack()));
            match self.by_stack.entry(key) {
                Entry::Occupied(known) => {
                    self.same.push((it.place, *known.get()));
                    self.bytes -= it.copy.size().min(self.bytes);
                    *all -= it.copy.size().min(*all);
                }
                Entry::Vacant(new) => {
                    new.insert(it.place);
                    kept.push(it);
                }
            }
        }
        self.kept = kept;
    }

    /// How many addresses of a stack by frame pointers are to be trusted: before the code is known the first alone, which is
    /// the task's own.
    fn callers(&self, stack: &[u64]) -> usize {
        let own = usize::from(!stack.is_empty());
        own + stack.iter().skip(1).take_while(|&&ip| self.is_code(ip)).count()
    }

    /// What tells a stack from others.
    fn key(&self, keys: &RandomState, caller: Option<u64>, stack: &[u64], copy: Option<&StackCopy>) -> u64 {
        let mut hash = keys.build_hasher();
        hash.write_u64(caller.unwrap_or(0));
        stack.iter().for_each(|&ip| hash.write_u64(ip));
        let Some(copy) = copy else { return hash.finish() };
        let own = copy.sp..copy.end();
        for (n, word) in copy.words().enumerate() {
            let relative = if own.contains(&word) {
                word - copy.sp
            } else if self.is_code(word) {
                word
            } else {
                continue;
            };
            hash.write_usize(n);
            hash.write_u64(relative);
        }
        hash.finish()
    }

    fn is_code(&self, word: u64) -> bool {
        lies_in(&self.code, word)
    }

    /// Code may have come since the last look.
    fn is_due(&self) -> bool {
        self.due.is_some_and(|(at, _)| Instant::now() >= at)
    }
}

/// Room for one more: nearly all processes have few, and there are many of them.
fn make_room<T>(few: &mut Vec<T>) {
    if few.len() < 4 {
        few.reserve_exact(1);
    }
}

/// In one of these, which are ordered.
fn lies_in(code: &[(u64, u64)], word: u64) -> bool {
    // Most words are small numbers.
    if word < code.first().map_or(u64::MAX, |&(start, _)| start) {
        return false;
    }
    let at = code.partition_point(|&(start, _)| start < word);
    at.checked_sub(1).and_then(|at| code.get(at)).is_some_and(|&(_, end)| word <= end)
}

impl Waiting {
    fn of_credit(credit: &Credit, stack: &[u64], caller: Option<u64>, copy: Option<StackCopy>) -> Self {
        let &Credit { generation, tgid, place, .. } = credit;
        let taken = Taken {
            generation,
            tgid,
            tid: 0,
            at_ns: 0,
            stack: stack.to_vec(),
            copy,
            narrow: false,
            place: Some(place),
            tries: 0,
        };
        Self { generation, tgid, comm: String::new(), stack: stack.to_vec(), caller, taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::symbols::Area;

    const SP: u64 = 0x7ffd_0000;

    fn credit(level: u32) -> Credit {
        Credit {
            key: 0,
            at_ns: 1,
            generation: 1,
            tgid: 7,
            tid: 7,
            base: level - 1,
            level,
            call: vmaudit_common::call::MMAP,
            place: 0,
            caller: Some(0x1010),
            stack: vec![0x1004],
        }
    }

    fn copy(words: &[u64]) -> Option<StackCopy> {
        Some(StackCopy::new(SP, vec![0; 34], words.iter().flat_map(|word| word.to_le_bytes()).collect()))
    }

    fn image() -> Image {
        let area = Area { start: 0x1000, end: 0x2000, offset: 0, name: "/a".into(), module: None };
        Image { areas: vec![area], whole: true, ..Image::default() }
    }

    fn place(places: &mut Places, words: &[u64], image: Option<&Image>) -> (u32, bool) {
        let mut it = credit(300);
        let told = places.notice(&mut it, copy(words), image);
        assert!(it.stack.is_empty() && it.caller.is_none());
        (it.place, told.is_some())
    }

    #[test]
    fn stacks_differ_by_code_and_by_addresses_of_the_stack_alone() {
        let (mut places, image) = (Places::default(), image());
        let image = Some(&image);
        assert_eq!(place(&mut places, &[0x1010, 5, 0x1100, SP + 8], image), (1, true));
        // A counter and a pointer to data.
        assert_eq!(place(&mut places, &[0x1010, 6, 0x1100, SP + 8, 0x5555_0000_1000], image), (1, false));
        assert_eq!(place(&mut places, &[0x1010, 5, 0x1200, SP + 8], image), (2, true), "another caller");
        assert_eq!(place(&mut places, &[0x1010, 5, 0x1100, SP + 16], image), (3, true), "another frame");
        assert_eq!(place(&mut places, &[0x1010, 0x1100, 0, SP + 8], image), (4, true), "elsewhere");
        assert_eq!(place(&mut places, &[0x1010, 5, 0x1100, SP + 8], image), (1, false));
    }

    #[test]
    fn what_a_walk_by_frame_pointers_takes_for_callers_makes_no_place() {
        let (mut places, image) = (Places::default(), image());
        let mut place = |stack: &[u64], image| {
            let mut it = Credit { stack: stack.to_vec(), ..credit(300) };
            let told = places.notice(&mut it, None, image);
            (it.place, told.map(|told| told.stack))
        };
        // Which it is, nobody knows yet.
        for n in 0..5000 {
            let (number, told) = place(&[0x1004, 0x7f00_0000_1000 + n], None);
            assert!(number as usize <= UNTOLD + 1, "{number}");
            assert_eq!(told.map_or(0, |it| it.len()), [0, 1, 2][usize::from(n < 65) + usize::from(n < 64)]);
        }
        let (image, first) = (Some(&image), UNTOLD as u32 + 1);
        for n in 0..5000 {
            assert_eq!(place(&[0x1004, 0x7f00_0000_1000 + n, 0x1010], image).0, first);
        }
        let (number, told) = place(&[0x1004, 0x1010, 0x1020, 7], image);
        assert_eq!((number, told), (first + 1, Some(vec![0x1004, 0x1010, 0x1020])));
    }

    #[test]
    fn what_came_before_the_code_was_known_is_put_together() {
        let mut places = Places::default();
        let all: Vec<u32> = (0..10).map(|n| place(&mut places, &[0x1010, n, 0x1100], None).0).collect();
        assert_eq!(all, (1..=10).collect::<Vec<_>>());
        let image = image();
        assert_eq!(place(&mut places, &[0x1010, 77, 0x1100], Some(&image)), (1, false));
        assert_eq!(places.of[&1].kept.len(), 1);
        assert_eq!(places.bytes, 24);
        let mut images = HashMap::from([(1, image)]);
        let taken = places.take(&mut images);
        assert_eq!((taken.len(), taken[0].place), (1, Some(1)));
        let same = places.same(&[followed(1)]);
        assert_eq!(same.iter().map(|it| it.place.unwrap()).collect::<Vec<_>>(), (2..=10).collect::<Vec<_>>());
        assert!(same.iter().all(|it| it.addresses == [9]));
    }

    fn followed(place: u32) -> FollowedStack {
        let (generation, tid, at_ns, place) = (1, 0, u64::from(place), Some(place));
        FollowedStack { generation, tid, at_ns, addresses: vec![9], notes: Vec::new(), place, cut: false }
    }

    #[test]
    fn who_calls_through_code_that_came_later_is_told_apart_then_and_a_note_says_so() {
        let (mut places, mut image) = (Places::default(), image());
        let [f, g] = [[0x1010, 0x9100], [0x1010, 0x9200]];
        assert_eq!(place(&mut places, &[0x1010, 0x1100], Some(&image)), (1, true));
        // A plugin that nobody knows: both through the same function of the C library.
        assert_eq!(place(&mut places, &f, Some(&image)), (2, true));
        assert_eq!(place(&mut places, &g, Some(&image)), (2, false));
        // Nor does the level have to grow for another look.
        let queued = places.queue.len();
        let known = places.of.get_mut(&1).unwrap();
        known.due = Some((Instant::now(), AGAIN_AFTER));
        place(&mut places, &g, Some(&image));
        assert_eq!(places.queue.len(), queued + 1);
        image.areas.push(Area { start: 0x9000, end: 0xa000, ..image.areas[0].clone() });
        assert_eq!(place(&mut places, &g, Some(&image)), (3, true));
        assert_eq!(place(&mut places, &f, Some(&image)), (4, true));
        let mut stacks: Vec<FollowedStack> = (1..=4).map(followed).collect();
        places.label(&mut stacks);
        let notes: Vec<usize> = stacks.iter().map(|it| it.notes.len()).collect();
        assert_eq!(notes, [0, 1, 0, 0], "{stacks:?}");
        // More code than is told of one process: nothing is overlooked, each is one of its own.
        image.whole = false;
        assert_eq!(place(&mut places, &f, Some(&image)), (5, true));
        assert_eq!(place(&mut places, &g, Some(&image)), (6, true));
    }

    /// As for a file of the flight recorder, which is not the end.
    #[test]
    fn what_was_followed_once_is_still_told_apart_from_what_is_found_later() {
        let (mut places, mut known) = (Places::default(), image());
        assert_eq!(place(&mut places, &[0x1010, 0x9100], Some(&known)), (1, true));
        assert_eq!(place(&mut places, &[0x1010, 0x1100], Some(&known)), (2, true));
        let mut images = HashMap::from([(1, image())]);
        let taken = places.take_new(&mut images);
        assert_eq!(taken.len(), 2);
        places.tried(&taken, &HashSet::from([taken[1].called()]));
        assert_eq!(places.take_new(&mut images).iter().map(|it| it.place).collect::<Vec<_>>(), [Some(2)]);
        let bytes: usize = places.of[&1].kept.iter().map(|it| it.copy.size()).sum();
        assert!(bytes > 0 && bytes == places.bytes && bytes == places.of[&1].bytes);
        known.areas.push(Area { start: 0x9000, end: 0xa000, ..known.areas[0].clone() });
        place(&mut places, &[0x1010, 0x9200], Some(&known));
        let mut stacks: Vec<FollowedStack> = (1..=2).map(followed).collect();
        places.label(&mut stacks);
        assert_eq!(stacks.iter().map(|it| it.notes.len()).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(places.take(&mut images).len(), 3, "all at the end");
    }

    #[test]
    fn stacks_take_a_bounded_number_of_bytes() {
        let mut places = Places::default();
        for n in 0..60_000u64 {
            let mut it = Credit { generation: n % 100, stack: vec![n; 100], ..credit(300) };
            places.notice(&mut it, None, None);
        }
        let bytes: usize = places
            .of
            .values()
            .flat_map(|known| &known.stacks)
            .map(|(_, stack)| PLACE + size_of_val(stack.as_slice()))
            .sum();
        assert!(bytes <= STACKS && bytes > STACKS / 2 && bytes == places.stack_bytes, "{bytes}");
        places.keep(&HashSet::from([3]));
        places.forget(3);
        assert_eq!(places.stack_bytes, 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut places = Places::default();
        let image = image();
        for n in 0..100_000u64 {
            let words: Vec<u64> = (0..256).map(|k| 0x1000 + (n * 31 + k * n) % 0x1000).collect();
            let mut it = Credit { generation: n % 200, ..credit(300) };
            places.notice(&mut it, copy(&words), (n % 3 != 0).then_some(&image));
        }
        assert!(places.bytes <= BYTES.0);
        let bytes: usize = places.of.values().flat_map(|it| &it.kept).map(|it| it.copy.size()).sum();
        assert_eq!(bytes, places.bytes);
        assert!(places.of.values().all(|it| it.places as usize <= PLACES && it.kept.len() <= WAITING.0));
        places.keep(&HashSet::from([3]));
        places.forget(3);
        assert_eq!(places.bytes, 0);
    }
}
