//! What is known of who made the VMAs of a process: places with their counts, and how far the counts may be wrong. Pure.

use std::collections::BTreeMap;

use vmaudit_common::MAKERS_START;

use crate::model::makers::UNCOPIED;
use crate::model::report::{Frame, Maker, NoPlace, Nobody, Process, Since};
use crate::text::total;

/// VMAs to a sample at most below [`LEVELS`], twice as many after many falls, and how the samples of more grow
/// (vmaudit-common/src/makers.rs).
const STRATUM: u64 = 16;
const LEVELS: u64 = 256;
/// With fewer VMAs freed there were no eight falls, of 3, 5 and then 8 at least, after which samples are of more.
const MANY_FREED: u64 = 56;
/// VMAs that every program has when it begins: nobody is credited with these.
const OWN: u64 = MAKERS_START as u64 - 1;
/// Rows read of a process, and functions of a stack: a report has fewer of the former, a file may have any number.
const ROWS: usize = 1000;
const FUNCTIONS: usize = 256;

/// The call and the functions that are not inlined, innermost first: what is, is known where debug information was read in
/// time.
pub(super) type Place = (String, Vec<String>);

/// One place of a side.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) count: u64,
    /// One for each function: itself at last, behind what is inlined in it, as far as that is the same for all.
    pub(super) stack: Vec<Vec<Frame>>,
    end: End,
}

/// How far stacks are known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Whole,
    /// Callers are missing.
    Cut,
    /// It was not followed, or is one of several: see [`sure`].
    Astray,
}

/// What is known of a process.
#[derive(Clone, Default)]
pub(super) struct Side {
    pub(super) parts: BTreeMap<Place, Part>,
    /// VMAs of no known place.
    pub(super) unknown: u64,
    /// VMAs that were freed before the peak, at most: a place may have so many too few or too many, for they are taken from
    /// who came last.
    pub(super) freed: u64,
    /// VMAs that were there before anybody was credited.
    before: u64,
    from_start: bool,
    all: u64,
    /// VMAs to a sample; 1: each is told.
    stratum: u64,
}

/// Beginnings of places, as a tree of names: the call, then the functions.
#[derive(Default)]
pub(super) struct Beginnings {
    ends: bool,
    next: BTreeMap<String, Self>,
}

impl Beginnings {
    pub(super) fn insert(&mut self, (call, functions): &Place) {
        let mut at = self;
        for name in std::iter::once(call).chain(functions) {
            at = at.next.entry(name.clone()).or_default();
        }
        at.ends = true;
    }

    /// The functions of the shortest of these that it begins with; and whether one of these begins with it.
    fn walk(&self, (call, functions): &Place) -> (Option<usize>, bool) {
        let mut at = self;
        for (n, name) in std::iter::once(call).chain(functions).enumerate() {
            let Some(next) = at.next.get(name) else { return (None, false) };
            at = next;
            if at.ends {
                return (Some(n), n == functions.len());
            }
        }
        (None, true)
    }

    /// It begins with one of these, or one of these with it.
    pub(super) fn meets(&self, place: &Place) -> bool {
        let (begins, begun) = self.walk(place);
        begins.is_some() || begun
    }
}

/// All that begins like a stack without callers is one place, on both sides.
pub(super) fn joined(sides: [Side; 2]) -> [Side; 2] {
    let mut cuts = Beginnings::default();
    for (place, part) in sides.iter().flat_map(|side| &side.parts) {
        if part.end != End::Whole {
            cuts.insert(place);
        }
    }
    sides.map(|side| side.joined(&cuts))
}

/// Where the call was made, and from where: all that is sure of a stack that was not followed, or is one of several.
fn sure(stack: &[Frame]) -> &[Frame] {
    let ends = stack.iter().enumerate().filter(|(_, frame)| !frame.inlined).map(|(n, _)| n + 1);
    let sure = ends.take(2).last().unwrap_or(stack.len());
    stack.get(..sure).unwrap_or_default()
}

/// The last name of a function; without what differs from one build to the next: hashes, the types and the numbers of
/// closures, and paths, which only functions of their own have.
fn function(frame: &Frame) -> String {
    const HASH: usize = 16;
    let Some(symbol) = frame.symbol.as_deref() else {
        let module = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
        return format!("[{}]", module.unwrap_or("unknown"));
    };
    let symbol = symbol.split_once(".llvm.").map_or(symbol, |(name, _)| name);
    let name = match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => symbol,
    };
    last_name(name).unwrap_or_else(|| name.to_owned())
}

/// `None` where brackets do not match, as of `operator<`.
fn last_name(name: &str) -> Option<String> {
    let (mut depth, mut number) = (0_u32, false);
    let mut plain = String::new();
    for letter in name.chars() {
        match letter {
            '<' | '(' => depth = depth.checked_add(1)?,
            '>' | ')' => depth = depth.checked_sub(1)?,
            _ if depth > 0 => {}
            '#' => number = true,
            _ if number && letter.is_ascii_digit() => {}
            _ => {
                number = false;
                plain.push(letter);
            }
        }
    }
    let last = plain.trim_end_matches(':').rsplit("::").next()?.replace("{{", "{").replace("}}", "}");
    (depth == 0 && !last.is_empty()).then_some(last)
}

impl Part {
    /// Another of the same place.
    fn take(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.end = self.end.min(other.end);
        for (group, other) in self.stack.iter_mut().zip(&other.stack) {
            let same = group.iter().map(function).eq(other.iter().map(function));
            if !same {
                group.drain(..group.len().saturating_sub(1));
            }
        }
    }
}

impl Side {
    fn add(&mut self, call: &str, stack: &[Frame], count: u64, mut end: End) {
        self.all = self.all.saturating_add(count);
        // Of what has no name at all only the address is known.
        let named = stack.iter().take_while(|frame| frame.symbol.is_some() || frame.module.is_some()).count();
        let stack = match stack.get(..named) {
            Some(known) if named < stack.len() => {
                end = end.max(End::Cut);
                known
            }
            _ => stack,
        };
        let mut functions: Vec<String> = Vec::new();
        let mut frames: Vec<Vec<Frame>> = Vec::new();
        for group in stack.split_inclusive(|frame| !frame.inlined) {
            let Some(name) = group.last().map(function) else { continue };
            // How deep a function calls itself is no other place.
            if functions.last() == Some(&name) {
                continue;
            }
            if functions.len() >= FUNCTIONS {
                end = end.max(End::Cut);
                break;
            }
            functions.push(name);
            let bare = |frame: &Frame| Frame { ip: None, offset: None, ..frame.clone() };
            frames.push(group.iter().map(bare).collect());
        }
        if functions.is_empty() {
            self.unknown = self.unknown.saturating_add(count);
            return;
        }
        let part = Part { count, stack: frames, end };
        self.parts.entry((call.to_owned(), functions)).and_modify(|known| known.take(&part)).or_insert(part);
    }

    fn nobody(&mut self, count: u64) {
        (self.all, self.unknown) = (self.all.saturating_add(count), self.unknown.saturating_add(count));
    }

    /// Stacks that are known no farther than this are of no known place.
    pub(super) fn without(mut self, end: End) -> Self {
        let mut left = 0_u64;
        self.parts.retain(|_, part| {
            left = left.saturating_add(if part.end >= end { part.count } else { 0 });
            part.end < end
        });
        self.unknown = self.unknown.saturating_add(left);
        self
    }

    /// All that begins like one of these is one place.
    fn joined(self, cuts: &Beginnings) -> Self {
        let mut parts: BTreeMap<Place, Part> = BTreeMap::new();
        for (place, mut part) in self.parts {
            let n = cuts.walk(&place).0.unwrap_or(place.1.len());
            let (call, mut functions) = place;
            part.stack.truncate(n);
            functions.truncate(n);
            parts.entry((call, functions)).and_modify(|known| known.take(&part)).or_insert(part);
        }
        Self { parts, ..self }
    }

    /// Of a place that has so many of the VMAs.
    pub(super) fn variance(&self, count: u64) -> f64 {
        let share = count as f64 / self.all.max(1) as f64;
        (self.stratum - 1) as f64 * count as f64 * (1.0 - share)
    }

    /// So many a place may have made before anybody was credited, and beside what the other side does not count either.
    pub(super) fn earlier(&self, other: &Self) -> u64 {
        let same = if self.from_start && other.from_start { other.before } else { OWN };
        self.before.saturating_sub(same)
    }

    /// Who is not among its places has made none, beside what the other side does not count either.
    pub(super) fn tells_all(&self, other: &Self) -> bool {
        let of_anybody = [self.unknown, self.freed, self.earlier(other)];
        self.stratum <= 1 && of_anybody == [0; 3]
    }

    /// Such VMAs of before the attach, beside those that every program has.
    pub(super) fn before_attach(&self) -> u64 {
        if self.from_start { 0 } else { self.before.saturating_sub(OWN) }
    }
}

pub(super) fn from_start(process: &Process) -> bool {
    process.since == Some(Since::Start)
}

/// VMAs that were freed before the peak, at most: after it at least as many were as the count fell by.
fn freed(process: &Process) -> u64 {
    let gone = total(process.calls.values().map(|it| it.removed));
    let highest = process.images.last().map(|image| image.peak).or(process.map_count.peak);
    let fell = highest.zip(process.map_count.last).map_or(0, |(highest, last)| highest.saturating_sub(last));
    gone.saturating_sub(fell)
}

/// VMAs to a sample at most.
fn stratum(peak: u64, freed: u64) -> u64 {
    let (longest, shift) = if freed < MANY_FREED { (STRATUM, 0) } else { (2 * STRATUM, 4) };
    let length = (peak / LEVELS + 1).min(longest);
    let longer = (length << shift).min(length.max(peak / 48)).min(longest);
    longer.max(peak / (LEVELS * STRATUM))
}

/// Of those at the peak.
pub(super) fn makers(process: &Process) -> Side {
    let before = process.makers.iter().filter(|it| it.nobody == Some(Nobody::Before)).map(|it| it.count);
    let freed = freed(process);
    let mut side = Side {
        stratum: stratum(process.map_count.peak.unwrap_or(0), freed),
        freed,
        before: total(before),
        from_start: from_start(process),
        ..Side::default()
    };
    side.all = side.before;
    let uncopied = |it: &Maker| it.stack_notes.iter().any(|note| note == UNCOPIED);
    for (n, maker) in process.makers.iter().enumerate() {
        match (maker.nobody, &maker.syscall) {
            (Some(Nobody::Before), _) => {}
            (None, Some(call)) if n < ROWS && uncopied(maker) => {
                side.add(call, sure(&maker.stack), maker.count, End::Astray);
            }
            (None, Some(call)) if n < ROWS => {
                let end = if maker.cut { End::Cut } else { End::Whole };
                side.add(call, &maker.stack, maker.count, end);
            }
            _ => side.nobody(maker.count),
        }
    }
    side
}

/// Of all that were added.
pub(super) fn changes(process: &Process) -> Side {
    let mut side = Side { stratum: 1, ..Side::default() };
    for (n, row) in process.changes.iter().filter(|row| row.added > 0).enumerate() {
        match row.nobody {
            None if n < ROWS && row.stack_notes.is_empty() => {
                side.add(&row.syscall, &row.stack, row.added, End::Whole)
            }
            // It may be of several callers.
            None | Some(NoPlace::NotTold) if n < ROWS => {
                side.add(&row.syscall, sure(&row.stack), row.added, End::Astray)
            }
            _ => side.nobody(row.added),
        }
    }
    side
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_the_same_whatever_its_closures_are_called() {
        let named = |symbol: &str| function(&Frame { symbol: Some(symbol.into()), ..Frame::bare(1) });
        for same in [
            "a::run::{closure#1}",
            "a::run::{closure#12}",
            "{closure#0}<usize, a::run::{closure_env#1}>",
            "a::run::{{closure}}::h0123456789abcdef",
        ] {
            assert_eq!(named(same), "{closure}", "{same}");
        }
        assert_eq!(named("core::iter::Iterator::for_each"), named("for_each<core::ops::Range<i32>, F>"));
        assert_eq!(named("<a::B as c::D>::grow.llvm.77"), "grow");
        assert_eq!(named("std::vector<int, std::allocator<int> >::push_back(int&&)"), "push_back");
        assert_eq!(named("a::operator<<(int)"), "a::operator<<(int)");
        assert_eq!(named("(anonymous namespace)::grow()"), "grow");
    }

    /// Lines that were read in time for one session alone make no other place of it; two functions that are inlined in one
    /// are told as this one.
    #[test]
    fn what_is_inlined_is_shown_and_makes_no_place() {
        let frame = |name: &str, inlined| Frame { symbol: Some(name.into()), inlined, ..Frame::bare(1) };
        let [whole, lines] = [
            vec![frame("syscall", false), frame("main", false)],
            vec![frame("syscall", false), frame("map", true), frame("main", false)],
        ];
        let side = |stacks: &[&[Frame]]| {
            let mut side = Side::default();
            stacks.iter().for_each(|stack| side.add("mmap", stack, 10, End::Whole));
            side
        };
        let shown = |side: &Side| -> Vec<Vec<usize>> {
            side.parts.values().map(|part| part.stack.iter().map(Vec::len).collect()).collect()
        };
        let (one, other) = (side(&[&whole]), side(&[&lines]));
        assert!(one.parts.keys().eq(other.parts.keys()));
        assert_eq!((shown(&one), shown(&other)), (vec![vec![1, 1]], vec![vec![1, 2]]));
        let two = [frame("syscall", false), frame("grow", true), frame("main", false)];
        let both = side(&[&lines, &two]);
        assert_eq!(shown(&both), [[1, 1]]);
        assert!(both.parts.values().all(|part| part.count == 20));
    }

    /// What a file may have, and no report has: it is cut, and the rest is nobody's.
    #[test]
    fn a_stranger_has_no_endless_stacks_and_rows() {
        let frame = |n: usize| Frame { symbol: Some(format!("f{n}")), ..Frame::bare(1) };
        let deep: Vec<Frame> = (0..3000).map(frame).collect();
        let mut side = Side::default();
        side.add("mmap", &deep, 7, End::Whole);
        let (place, part) = side.parts.first_key_value().expect("it has a name");
        assert_eq!((place.1.len(), part.stack.len()), (FUNCTIONS, FUNCTIONS));
        assert!(part.end == End::Cut);
        let same: Vec<Frame> = deep.iter().flat_map(|frame| vec![frame.clone(); 3]).take(300).collect();
        side.add("mmap", &same, 7, End::Whole);
        assert!(side.parts.len() == 2, "how often each calls itself is no depth");
        let mut process = crate::output::text::tests::clean_run().processes.remove(0);
        let row = |n: usize| Maker {
            count: 1,
            share: 0.0,
            syscall: Some("mmap".into()),
            stack: vec![frame(n)],
            stack_notes: Vec::new(),
            cut: false,
            nobody: None,
        };
        process.makers = (0..3000).map(row).collect();
        let side = makers(&process);
        assert_eq!((side.parts.len(), side.unknown, side.all), (ROWS, 2000, 3000));
    }

    #[test]
    fn beginnings_are_found_in_either_direction() {
        let place = |names: &[&str]| ("mmap".to_owned(), names.iter().map(|it| (*it).to_owned()).collect());
        let mut all = Beginnings::default();
        assert!(!all.meets(&place(&["a"])));
        all.insert(&place(&["a", "b", "c"]));
        all.insert(&place(&["a", "b"]));
        for (names, length) in [
            (&["a", "b", "c", "d"][..], Some(2)),
            (&["a", "b"], Some(2)),
            (&["a"], None),
            (&["a", "c"], None),
        ] {
            assert_eq!(all.walk(&place(names)).0, length, "{names:?}");
        }
        let meets = [&["a", "b", "x"][..], &["a", "b"], &["a"]].iter().all(|names| all.meets(&place(names)));
        assert!(meets && !all.meets(&place(&["b"])) && !all.meets(&place(&["a", "c"])));
        assert!(!all.meets(&("brk".into(), vec!["a".into(), "b".into()])));
    }

    /// As the kernel side has them: vmaudit-common/src/makers.rs.
    #[test]
    fn samples_are_of_so_many() {
        let expected = [(255, 1), (256, 2), (4000, 16), (65_535, 16), (1 << 17, 32)];
        assert_eq!(expected.map(|(peak, _)| (peak, stratum(peak, 0))), expected);
        let after_falls =
            [(40, 1), (200, 4), (400, 8), (2000, 32), (65_535, 32), (1 << 17, 32), (1 << 18, 64)];
        assert_eq!(after_falls.map(|(peak, _)| (peak, stratum(peak, MANY_FREED))), after_falls);
    }

    #[test]
    fn what_was_freed_after_the_peak_took_nothing_from_it() {
        let mut process = crate::output::text::tests::clean_run().processes.remove(0);
        let call = crate::model::report::CallFigures { removed: 100, ..Default::default() };
        process.calls = [("munmap".to_owned(), call), ("brk".to_owned(), call)].into();
        (process.map_count.peak, process.map_count.last) = (Some(300), Some(150));
        process.images.clear();
        assert_eq!(freed(&process), 50);
        let image = |peak| crate::model::report::Image { comm: "a".into(), peak };
        process.images = vec![image(300), image(160)];
        assert_eq!(freed(&process), 190, "of the last image it is known where it ended");
        process.map_count.last = None;
        assert_eq!(freed(&process), 200);
    }
}
