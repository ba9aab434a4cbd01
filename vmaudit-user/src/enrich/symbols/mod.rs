//! Names for the user stacks of refused calls.
//!
//! Two stages. While the process lives, [`Symbols::remember`] asks the kernel which mappings the addresses fall into
//! and takes hold of the mapped files without opening them (O_PATH through /proc/PID/map_files, which runs no code of
//! the file system). At the session's end [`Symbols::resolve`] reads ELF, DWARF and perf-map files, in two child processes
//! with a deadline: one opens them and reads nothing, one reads them and has no rights. These files belong to strangers,
//! and a broken, huge, shrinking or hostile one costs its names, nothing else.
//!
//! Bounds: [`LOOKS_PER_IMAGE`], [`LOOKS_PER_SECOND`], [`LOOKS`] looks at a process's mappings, [`QUEUE`] stacks
//! waiting, [`modules::MODULES`] files held, [`resolve::DEADLINE`] for the second stage. What they cost is said in [`Symbols::notes`].

pub(crate) mod cfi;
mod channel;
mod checked_open;
mod child;
pub(crate) mod debug_files;
pub(crate) mod demangle;
pub(crate) mod dwarf;
pub(crate) mod elf;
mod generated;
mod helper;
mod image;
mod locked;
mod looks;
mod mappings;
mod modules;
mod notes;
mod opener;
mod parser;
pub(crate) mod perf_map;
mod places;
mod question;
pub(crate) mod registers;
mod resolve;
pub(crate) mod stack_copy;
mod stack_notes;
mod told;
mod unwind;

#[cfg(any(test, fuzzing))]
pub(crate) use {helper::taken, question::INLINED, unwind::FUNCTIONS};

use std::{
    collections::{HashMap, HashSet, VecDeque},
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use vmaudit_common::call::Call;

use crate::model::event::{FollowedStack, Mapped, Refused, StackPiece};
use crate::os::apart::desk::{Desk, MOMENT, Turn};
use crate::os::apart::{Patience, Unanswered};
use image::{Area, Image, inside};
use looks::{LOOKS, LOOKS_PER_SECOND};
use mappings::{Answer, Found, Looked, Question};
use modules::{By, Handle, Key, Module, held, hold};
use places::Places;
use registers::of_32_bit_code;
pub use resolve::Resolved;
use stack_copy::{Copies, StackCopy};
use told::Told;

/// Looks at the mappings of one process image. Each asks only for addresses that are not known yet.
const LOOKS_PER_IMAGE: u32 = 16;
/// Stacks that wait for a look; more than that are dropped and counted.
const QUEUE: usize = 256;
/// Root directories held, one descriptor each: for perf maps, and for files that map_files does not give.
const ROOTS: usize = 64;
/// Kinds of refusal whose first stack is taken, of address spaces that the report may show.
const KINDS: usize = 2000;
/// Executable mappings known of one image.
const AREAS: usize = 1024;
/// So many times as long under test, where a time is a backstop: what else the machine does must decide nothing.
const BACKSTOP: u64 = if cfg!(test) { 20 } else { 1 };

#[derive(Debug)]
struct Waiting {
    generation: u64,
    tgid: u32,
    comm: String,
    stack: Vec<u64>,
    caller: Option<u64>,
    taken: Taken,
}

/// The stack of one refused call.
#[derive(Clone, Debug)]
struct Taken {
    generation: u64,
    tgid: u32,
    tid: u32,
    at_ns: u64,
    /// By frame pointers.
    stack: Vec<u64>,
    copy: Option<StackCopy>,
    /// Of 32-bit code: its unwind information has other rules, and what the kernel puts in its memory has no name.
    narrow: bool,
    /// Of a credited call, its place.
    place: Option<u32>,
    /// How often there was no time to follow it.
    tries: u8,
}

/// Stacks of one session and what is known of the mappings below them.
#[derive(Debug)]
pub struct Symbols {
    off: bool,
    desk: Desk<Question, Answer>,
    /// The stack whose mappings are being looked at, and its addresses that are not known.
    under_way: Option<(Waiting, Vec<u64>)>,
    kinds: HashSet<(u64, Call, u8, u64, u64)>,
    queue: VecDeque<Waiting>,
    images: HashMap<u64, Image>,
    copies: Copies,
    /// Stacks whose mappings were looked at as far as may be.
    taken: Vec<Taken>,
    /// Stacks of places that were followed before.
    followed: Vec<FollowedStack>,
    /// Addresses that there was no time to name, and how often.
    unnamed: HashMap<(u64, u64), u8>,
    /// From where calls were made that raised a count.
    places: Places,
    told: Told,
    modules: Vec<Module>,
    roots: usize,
    looks: u32,
    code_looks: u32,
    second: Option<(Instant, u32)>,
    /// Stacks whose process was gone, or that a bound left out.
    gone: u64,
    skipped: u64,
    /// Stacks whose mappings were not reached in the text of all of them.
    cut: u64,
    /// Stacks whose process did not answer: how many, and the first one's.
    silent: Option<(u64, Unanswered, String, u32)>,
    /// Files whose symbols could not be read to the end.
    unreadable: Vec<String>,
    /// Child processes that could not be ended.
    left_behind: u64,
}

/// Why the mappings below a stack are not known.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Gone,
    Skipped,
    Cut,
    Unanswered(Unanswered),
}

impl Symbols {
    /// With `off`, stacks stay as addresses and nothing of a process is read. Costs nothing until a call fails.
    pub fn new(off: bool, patience: &Patience) -> Self {
        Self {
            off,
            desk: Desk::new(patience, |question, beat| mappings::answer(&question, beat)),
            under_way: None,
            kinds: HashSet::new(),
            queue: VecDeque::new(),
            images: HashMap::new(),
            copies: Copies::default(),
            taken: Vec::new(),
            followed: Vec::new(),
            unnamed: HashMap::new(),
            places: Places::default(),
            told: Told::default(),
            modules: Vec::new(),
            roots: 0,
            looks: 0,
            code_looks: 0,
            second: None,
            gone: 0,
            skipped: 0,
            cut: 0,
            silent: None,
            unreadable: Vec::new(),
            left_behind: 0,
        }
    }

    /// Takes the stack of a refused call, if it is the first of its kind.
    pub fn notice(&mut self, refused: &Refused) {
        let copy = self.copies.take(refused);
        let walked = copy.iter().filter_map(|copy| copy.ip()).filter(|_| refused.stack.is_empty());
        let stack: Vec<u64> = refused.stack.iter().copied().chain(walked).collect();
        if self.off || stack.is_empty() {
            return;
        }
        let kind = (refused.generation, refused.call, refused.errno, refused.class, refused.site);
        if self.kinds.contains(&kind) {
            self.copies.release(copy.as_ref());
            return;
        }
        if self.kinds.len() < KINDS {
            self.kinds.insert(kind);
        }
        if self.queue.len() >= QUEUE || self.kinds.len() >= KINDS {
            self.copies.release(copy.as_ref());
            self.skipped += 1;
            return;
        }
        let Refused { generation, tgid, tid, at_ns, caller, ref comm, .. } = *refused;
        let narrow = copy.as_ref().is_some_and(|copy| of_32_bit_code(&copy.registers));
        let taken =
            Taken { generation, tgid, tid, at_ns, stack: stack.clone(), copy, narrow, place: None, tries: 0 };
        self.queue.push_back(Waiting { generation, tgid, comm: comm.clone(), stack, caller, taken });
    }

    /// Forgets what the report will not show, to make room. `wanted`: address spaces with an example.
    pub fn keep(&mut self, wanted: &HashSet<u64>) {
        self.kinds.retain(|(generation, ..)| wanted.contains(generation));
        let copies = &mut self.copies;
        let mut keep = |taken: &Taken| {
            let keep = wanted.contains(&taken.generation);
            if !keep {
                copies.release(taken.copy.as_ref());
            }
            keep
        };
        self.queue.retain(|waiting| keep(&waiting.taken));
        self.places.keep(wanted);
        self.taken.retain(keep);
        self.images.retain(|generation, _| wanted.contains(generation));
        self.unnamed.retain(|(generation, _), _| wanted.contains(generation));
        self.told.keep(wanted);
    }

    /// Takes a piece of a stack, for the refused call that follows it.
    pub fn piece(&mut self, piece: &mut StackPiece) {
        if !self.off {
            self.copies.piece(piece);
        }
    }

    /// Takes what the kernel says of a mapping below a stack, in case its process is gone when it is needed.
    pub fn told(&mut self, mapped: &Mapped) {
        if !self.off {
            self.told.take(mapped);
        }
    }

    /// Looks at the mappings below at most `most` waiting stacks, one at a time; the next call takes what this one did not
    /// wait for ([`MOMENT`]). `lives`: this address space has not ended.
    pub fn remember(&mut self, most: usize, lives: &dyn Fn(u64) -> bool) {
        self.turn(Duration::ZERO, &lives);
        for _ in 0..most {
            if self.busy() {
                return;
            }
            let Some(waiting) = self.queue.pop_front() else { break };
            let image = self.images.entry(waiting.generation).or_default();
            let new = image.unknown(&waiting);
            let words = waiting.taken.copy.as_ref().map(|copy| image.unknown_words(copy)).unwrap_or_default();
            if new.is_empty() && words.is_empty() {
                self.keep_stack(waiting);
                continue;
            }
            let spent = image.looks >= LOOKS_PER_IMAGE || self.looks >= LOOKS;
            if !lives(waiting.generation) {
                self.without(waiting, &new, Missing::Gone);
            } else if spent {
                self.without(waiting, &new, Missing::Skipped);
            } else if self.may_look(LOOKS_PER_SECOND.0) {
                self.ask(waiting, new, words);
                self.turn(MOMENT, &lives);
            } else {
                self.queue.push_front(waiting);
                return;
            }
        }
        self.look_for_places(lives);
    }

    /// A look is under way.
    pub fn busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Waits for the look that is under way: for as long as a process may be silent. For stacks that no look was had for,
    /// what the kernel told must do.
    pub fn settle(&mut self, lives: &dyn Fn(u64) -> bool) {
        self.wait(lives);
        while let Some(waiting) = self.queue.pop_front() {
            let new = self.images.entry(waiting.generation).or_default().unknown(&waiting);
            let missing = if lives(waiting.generation) { Missing::Skipped } else { Missing::Gone };
            self.without(waiting, &new, missing);
        }
    }

    fn wait(&mut self, lives: &dyn Fn(u64) -> bool) {
        while self.busy() {
            self.turn(MOMENT, &lives);
        }
    }

    /// What the kernel told must do for this stack.
    fn without(&mut self, waiting: Waiting, new: &[u64], missing: Missing) {
        if waiting.taken.place.is_none() && !self.recall(waiting.generation, new) {
            match missing {
                Missing::Gone => self.gone += 1,
                Missing::Skipped => self.skipped += 1,
                Missing::Cut => self.cut += 1,
                Missing::Unanswered(why) => {
                    let first = || (0, why, waiting.comm.clone(), waiting.tgid);
                    self.silent.get_or_insert_with(first).0 += 1;
                }
            }
        }
        self.keep_stack(waiting);
    }

    /// Known addresses get their names even when the process is gone.
    fn keep_stack(&mut self, waiting: Waiting) {
        // Those of credited calls are kept with their places.
        if waiting.taken.place.is_some() {
            return;
        }
        if let Some(image) = self.images.get_mut(&waiting.generation) {
            image.stacks.push(waiting.stack);
            // A stack of its own: where it is not executable, it ends no other.
            image.stacks.extend(waiting.caller.map(|ip| vec![ip]));
        }
        self.taken.push(waiting.taken);
    }

    fn ask(&mut self, waiting: Waiting, new: Vec<u64>, words: Vec<u64>) {
        let image = self.images.entry(waiting.generation).or_default();
        let code = waiting.taken.place.is_some();
        let [all, own] = match code {
            true => [&mut self.code_looks, &mut image.code_looks],
            false => [&mut self.looks, &mut image.looks],
        };
        (*all, *own) = (*all + 1, *own + 1);
        let root = image.root.is_none() && self.roots < ROOTS;
        let text = image.looks == 1 || code;
        let question = Question { tgid: waiting.tgid, addresses: new.clone(), words, text, code, root };
        match self.desk.ask(&question) {
            Ok(()) => self.under_way = Some((waiting, new)),
            Err(why) => self.without(waiting, &new, Missing::Unanswered(why)),
        }
    }

    /// Takes the answer, if it comes within this time.
    fn turn(&mut self, most: Duration, lives: &dyn Fn(u64) -> bool) {
        let turn = self.desk.turn(most);
        if matches!(turn, Turn::Waiting) {
            return;
        }
        let Some((waiting, new)) = self.under_way.take() else { return };
        match turn {
            // Only a mapping seen before the end, or before the next exec, is one of this address space.
            Turn::Answer(answer, descriptors) if lives(waiting.generation) && answer.looked.is_some() => {
                let whole = answer.looked.as_ref().is_some_and(|looked| !looked.cut);
                let unread = self.take(waiting.generation, answer, descriptors);
                let image = self.images.entry(waiting.generation).or_default();
                // Not where the text is not read once more, nor where only the number of mappings told is at its end.
                image.unread = (unread > 0 && !whole).then(Instant::now);
                if waiting.taken.place.is_some() {
                    image.whole = whole && image.areas.len() < AREAS;
                }
                match unread {
                    0 => self.keep_stack(waiting),
                    _ => self.without(waiting, &new, Missing::Cut),
                }
            }
            Turn::Unanswered(why, _) => {
                // It is not asked again.
                if let Some(image) = self.images.get_mut(&waiting.generation) {
                    (image.looks, image.code_looks) = (LOOKS_PER_IMAGE, LOOKS_PER_IMAGE);
                }
                self.without(waiting, &new, Missing::Unanswered(why));
            }
            Turn::Answer(..) | Turn::Waiting => self.without(waiting, &new, Missing::Gone),
        }
    }

    /// Takes an answer; returns how many of the addresses were not reached.
    fn take(&mut self, generation: u64, answer: Answer, mut descriptors: Vec<OwnedFd>) -> usize {
        let Looked { found, unread, more, .. } = answer.looked.unwrap_or_default();
        let image = self.images.entry(generation).or_default();
        let root = answer.root.and_then(|pid| Some((Rc::new(descriptors.pop()?), pid)));
        if image.root.is_none() && root.is_some() {
            image.root = root;
            self.roots += 1;
        }
        let mut files: HashMap<(u64, u64), OwnedFd> = answer.held.into_iter().zip(descriptors).collect();
        let known = found.into_iter().filter_map(|(at, mapping)| match mapping {
            Some(found) => Some((at, found)),
            None => {
                image.holes.insert(at);
                None
            }
        });
        let known: Vec<(u64, Found)> =
            known.chain(more.into_iter().map(|found| (found.start, found))).collect();
        for (at, found) in known {
            if image.area(at).is_some() || image.areas.len() >= AREAS {
                continue;
            }
            let file = files.remove(&(found.start, found.end));
            let module = hold(&mut self.modules, &found, file, image.root.as_ref().map(|(root, _)| root));
            let Found { start, end, offset, name, .. } = found;
            image.areas.push(Area { start, end, offset, name, module });
        }
        unread
    }

    /// Takes from what the kernel told what it told of these addresses; `false` when one of them is not among it.
    fn recall(&mut self, generation: u64, new: &[u64]) -> bool {
        let image = self.images.entry(generation).or_default();
        for &at in new {
            if !image.knows(at) && self.told.at(generation, at).is_some_and(|mapped| !mapped.executable) {
                image.holes.insert(at);
            }
        }
        // Also what callers lie in that are found only when the stack is followed.
        for mapped in self.told.code_of(generation) {
            if image.area(mapped.start).is_some() || image.areas.len() >= AREAS {
                continue;
            }
            let Mapped { start, end, offset, .. } = *mapped;
            let (module, name) = match &mapped.file {
                Some(file) => (told::hold(&mut self.modules, file), file.path.clone()),
                None => (None, String::new()),
            };
            image.areas.push(Area { start, end, offset, name, module });
        }
        new.iter().all(|&at| image.knows(at))
    }
}

#[cfg(test)]
mod tests;
