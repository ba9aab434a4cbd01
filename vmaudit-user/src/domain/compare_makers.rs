//! Who made the difference: the makers of the largest process of each application and role, before and now. Pure.
//!
//! Makers are told apart by their call and the names of the functions that led to it, never by addresses. Where they are
//! samples, a difference that chance can make is none. Stacks that lack their callers may be of any place; where they hide what
//! became of one, the places that begin like them are compared together.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::role::{Key, key};
use crate::model::difference::{Made, MadeChange, Tolerance};
use crate::model::makers::UNCOPIED;
use crate::model::report::{Frame, Maker, NoPlace, Nobody, Process, Report};
use crate::text::grouped;

/// Rows of one application.
const ROWS: usize = 50;
/// Standard deviations that chance may make; twice as many where VMAs were removed, for who came last has lost them.
const DEVIATIONS: f64 = 3.0;
/// VMAs to a sample at most below so many, and how the samples of more grow (vmaudit-common/src/makers.rs).
const STRATUM: u64 = 16;
const LEVELS: u64 = 256;

/// What was found, and what could not be compared, in sentences.
pub struct Compared {
    pub makers: Vec<Made>,
    pub notes: Vec<String>,
}

/// The call and the functions that are not inlined, innermost first: what is, is known where debug information was read in
/// time.
type Place = (String, Vec<String>);

/// One place of a side.
#[derive(Clone)]
struct Part {
    count: u64,
    /// One for each function: itself at last, behind what is inlined in it, as far as that is the same for all.
    stack: Vec<Vec<Frame>>,
    end: End,
}

/// How far stacks are known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Whole,
    /// Callers are missing.
    Cut,
    /// It was not followed, or is one of several: see [`sure`].
    Astray,
}

/// What is known of a process.
#[derive(Clone, Default)]
struct Side {
    parts: BTreeMap<Place, Part>,
    /// VMAs of no known place.
    unknown: u64,
    all: u64,
    /// VMAs to a sample; 1: each is told.
    stratum: u64,
    removed: bool,
}

/// Compares those of the applications that are in both.
pub fn compare_makers(old: &Report, new: &Report, tolerance: Tolerance) -> Compared {
    let (before, now) = (largest(old), largest(new));
    let mut found = Compared { makers: Vec::new(), notes: Vec::new() };
    let mut chance = 0;
    for (key, new) in &now {
        let Some(old) = before.get(key) else { continue };
        let named = name_of(key);
        match comparable(old, new) {
            Ok(()) => {
                let rows = rows_of(key, (old, new), tolerance);
                chance = rows.iter().map(|row| row.noise).max().unwrap_or(0).max(chance);
                found.makers.extend(rows);
            }
            Err(Some(why)) => found.notes.push(format!("{named}: who made its VMAs is not compared: {why}.")),
            Err(None) => {}
        }
    }
    if chance > 0 {
        found.notes.push(format!(
            "Who made the VMAs is known by samples: differences that chance can make, here up to {} VMAs, are not told.",
            grouped(chance)
        ));
    }
    found
}

fn name_of((app, comm): &Key) -> String {
    if app == comm { comm.clone() } else { format!("{app}: {comm}") }
}

fn largest(report: &Report) -> BTreeMap<Key, &Process> {
    let mut all: BTreeMap<Key, &Process> = BTreeMap::new();
    for process in report.processes.iter().filter(|it| !it.makers.is_empty() || !it.changes.is_empty()) {
        let largest = all.entry(key(process.app.as_deref(), &process.comm)).or_insert(process);
        if process.map_count.peak > largest.map_count.peak {
            *largest = process;
        }
    }
    all
}

/// Error: why not, where that is worth a sentence.
fn comparable(old: &Process, new: &Process) -> Result<(), Option<String>> {
    let both_changes = !old.changes.is_empty() && !new.changes.is_empty();
    if !both_changes && (old.makers.is_empty() || new.makers.is_empty()) {
        return Err(Some("one session tells every change (--stacks), and the other only the peak".into()));
    }
    for (when, process) in [("old", old), ("new", new)] {
        if !process.map_count.exact {
            return Err(Some(format!("its {when} peak is a sample")));
        }
    }
    if old.map_count.clipped && new.map_count.clipped {
        return Err(Some("it was stopped by the limit in both".into()));
    }
    Ok(())
}

/// Where the call was made, and from where: all that is sure of a stack that was not followed, or is one of several.
fn sure(stack: &[Frame]) -> &[Frame] {
    let ends = stack.iter().enumerate().filter(|(_, frame)| !frame.inlined).map(|(n, _)| n + 1);
    let sure = ends.take(2).last().unwrap_or(stack.len());
    stack.get(..sure).unwrap_or_default()
}

/// What says most comes first, and a place is told once.
fn rows_of(key: &Key, (old, new): (&Process, &Process), tolerance: Tolerance) -> Vec<Made> {
    let both = |has: fn(&Process) -> bool| has(old) && has(new);
    let every_change = both(|it| !it.changes.is_empty()).then(|| [changes(old), changes(new)]);
    let at_peak = both(|it| !it.makers.is_empty()).then(|| [makers(old), makers(new)]);
    let known = |sides: &Option<[Side; 2]>, end| {
        sides.clone().map(|sides| joined(sides.map(|side| side.without(end))))
    };
    let looks = [
        known(&every_change, End::Cut).map(|sides| (sides, true)),
        known(&at_peak, End::Cut).map(|sides| (sides, false)),
        known(&at_peak, End::Astray).map(|sides| (sides, false)),
        at_peak.map(|sides| (joined(sides), false)),
        every_change.map(|sides| (joined(sides), true)),
    ];
    let mut all: Vec<(Place, Made)> = Vec::new();
    for (sides, every_change) in looks.into_iter().flatten() {
        let told = |(call, functions): &Place, row: &Made| {
            let same = |((other, others), known): &(Place, Made)| {
                call == other
                    && (others.starts_with(functions) || functions.starts_with(others))
                    && (known.new > known.old) == (row.new > row.old)
            };
            all.iter().any(same)
        };
        let more = rows(key, &sides, every_change, (old, new), tolerance);
        let more: Vec<_> = more.into_iter().filter(|(place, row)| !told(place, row)).collect();
        all.extend(more);
    }
    let mut rows: Vec<Made> = all.into_iter().map(|(_, row)| row).collect();
    let order = |row: &Made| std::cmp::Reverse(row.new.abs_diff(row.old));
    rows.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.syscall.cmp(&b.syscall)));
    rows.truncate(ROWS);
    rows
}

/// All that begins like a stack without callers is one place, on both sides.
fn joined(sides: [Side; 2]) -> [Side; 2] {
    let cut = |side: &Side| {
        side.parts
            .iter()
            .filter(|(_, part)| part.end != End::Whole)
            .map(|(place, _)| place.clone())
            .collect::<Vec<_>>()
    };
    let cuts: BTreeSet<Place> = sides.iter().flat_map(cut).collect();
    sides.map(|side| side.joined(&cuts))
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
            if functions.last() != Some(&name) {
                functions.push(name);
                let bare = |frame: &Frame| Frame { ip: None, offset: None, ..frame.clone() };
                frames.push(group.iter().map(bare).collect());
            }
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
    fn without(mut self, end: End) -> Self {
        let mut left = 0_u64;
        self.parts.retain(|_, part| {
            left = left.saturating_add(if part.end >= end { part.count } else { 0 });
            part.end < end
        });
        self.unknown = self.unknown.saturating_add(left);
        self
    }

    /// All that begins like one of these is one place.
    fn joined(self, cuts: &BTreeSet<Place>) -> Self {
        let mut parts: BTreeMap<Place, Part> = BTreeMap::new();
        for ((call, functions), mut part) in self.parts {
            let shortest = (1..=functions.len())
                .find(|&n| cuts.contains(&(call.clone(), functions.get(..n).unwrap_or_default().to_vec())));
            let n = shortest.unwrap_or(functions.len());
            part.stack.truncate(n);
            let functions = functions.into_iter().take(n).collect();
            parts.entry((call, functions)).and_modify(|known| known.take(&part)).or_insert(part);
        }
        Self { parts, ..self }
    }

    fn variance(&self, count: u64) -> f64 {
        let share = count as f64 / self.all.max(1) as f64;
        (self.stratum - 1) as f64 * count as f64 * (1.0 - share)
    }
}

fn makers(process: &Process) -> Side {
    let peak = process.map_count.peak.unwrap_or(0);
    let stratum = (peak / LEVELS + 1).clamp(1, STRATUM).max(peak / (LEVELS * STRATUM));
    // A program takes some away when it begins, from below where samples are taken.
    let removed = |it: &Maker| it.nobody == Some(Nobody::Before);
    let before = process.makers.iter().filter(|it| removed(it)).map(|it| it.count).sum::<u64>();
    let gone = process.calls.values().map(|it| it.removed).fold(0, u64::saturating_add);
    let mut side = Side { stratum, removed: gone > before, ..Side::default() };
    for maker in &process.makers {
        match (maker.nobody, &maker.syscall) {
            (Some(Nobody::Before), _) => side.all = side.all.saturating_add(maker.count),
            (None, Some(call)) if maker.stack_notes.iter().any(|note| note == UNCOPIED) => {
                side.add(call, sure(&maker.stack), maker.count, End::Astray);
            }
            (None, Some(call)) => {
                let end = if maker.cut { End::Cut } else { End::Whole };
                side.add(call, &maker.stack, maker.count, end);
            }
            _ => side.nobody(maker.count),
        }
    }
    side
}

fn changes(process: &Process) -> Side {
    let mut side = Side { stratum: 1, ..Side::default() };
    for row in process.changes.iter().filter(|row| row.added > 0) {
        match row.nobody {
            Some(NoPlace::OtherPlaces | NoPlace::NotSampled) => side.nobody(row.added),
            None if row.stack_notes.is_empty() => side.add(&row.syscall, &row.stack, row.added, End::Whole),
            // It may be of several callers.
            None | Some(NoPlace::NotTold) => side.add(&row.syscall, sure(&row.stack), row.added, End::Astray),
        }
    }
    side
}

fn rows(
    key: &Key,
    [old, new]: &[Side; 2],
    every_change: bool,
    (was, is): (&Process, &Process),
    tolerance: Tolerance,
) -> Vec<(Place, Made)> {
    let places: BTreeSet<&Place> = old.parts.keys().chain(new.parts.keys()).collect();
    let unknown = old.unknown.saturating_add(new.unknown);
    let count = |side: &Side, place: &Place| side.parts.get(place).map_or(0, |part| part.count);
    let mut rows: Vec<(Place, Made)> = Vec::new();
    for place in places {
        let (before, now) = (count(old, place), count(new, place));
        let deviation = (old.variance(before) + new.variance(now)).sqrt();
        let times = if old.removed || new.removed { 2.0 } else { 1.0 };
        let noise = ((DEVIATIONS * times * deviation).ceil() as u64).saturating_add(unknown);
        let change = match (before, now) {
            (0, _) => MadeChange::New,
            (_, 0) => MadeChange::Gone,
            _ if now > before => MadeChange::More,
            _ => MadeChange::Less,
        };
        let more = now > before;
        // Of who was stopped by the limit nobody knows what it would have made beyond.
        let hidden = !every_change && (more && was.map_count.clipped || !more && is.map_count.clipped);
        let differs = now.abs_diff(before);
        let large = differs > tolerance.vmas && differs as f64 * 100.0 > tolerance.percent * before as f64;
        let stack = new.parts.get(place).or(old.parts.get(place)).map(|part| part.stack.clone());
        if large && differs > noise && !hidden {
            let (app, comm) = key.clone();
            let (syscall, stack) = (place.0.clone(), stack.unwrap_or_default());
            let stack = stack.into_iter().flatten().collect();
            let made = Made { app, comm, change, syscall, stack, old: before, new: now, noise, every_change };
            rows.push((place.clone(), made));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{CallFigures, Changes};
    use crate::output::text::tests::clean_run;

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

    const TOLERANCE: Tolerance = Tolerance { percent: 5.0, vmas: 10 };

    fn frames(names: &[&str]) -> Vec<Frame> {
        let frame = |(n, name): (usize, &&str)| {
            let symbol = (!name.is_empty()).then(|| (*name).to_owned());
            Frame { symbol, module: Some("/bin/java".into()), ..Frame::bare(n as u64) }
        };
        names.iter().enumerate().map(frame).collect()
    }

    fn maker(count: u64, names: &[&str]) -> Maker {
        let (stack, syscall) = (frames(names), Some("mmap".into()));
        Maker { count, share: 0.0, syscall, stack, stack_notes: Vec::new(), cut: false, nobody: None }
    }

    fn nobody(count: u64, why: Nobody) -> Maker {
        Maker { syscall: None, nobody: Some(why), ..maker(count, &[]) }
    }

    fn of(makers: Vec<Maker>) -> Report {
        let mut report = clean_run();
        report.processes.truncate(1);
        let process = &mut report.processes[0];
        process.map_count.peak = Some(makers.iter().map(|it| it.count).sum());
        process.makers = makers;
        process.calls.clear();
        report
    }

    fn told(old: &Report, new: &Report) -> Vec<(MadeChange, u64, u64, u64)> {
        let rows = compare_makers(old, new, TOLERANCE).makers;
        rows.iter().map(|row| (row.change, row.old, row.new, row.noise)).collect()
    }

    #[test]
    fn below_the_first_strata_each_vma_counts() {
        let own = || nobody(31, Nobody::Before);
        let old = of(vec![own(), maker(100, &["mmap", "a", "main"]), maker(50, &["mmap", "b", "main"])]);
        let mut new = of(vec![own(), maker(111, &["mmap", "a", "main"]), maker(20, &["mmap", "c", "main"])]);
        new.processes[0].pid += 1;
        let expected =
            [(MadeChange::Gone, 50, 0, 0), (MadeChange::New, 0, 20, 0), (MadeChange::More, 100, 111, 0)];
        assert_eq!(told(&old, &new), expected);
        assert_eq!(told(&old, &old), []);
        let more = of(vec![own(), maker(110, &["mmap", "a", "main"]), maker(50, &["mmap", "b", "main"])]);
        assert_eq!(told(&old, &more), [], "within the tolerance");
    }

    #[test]
    fn what_chance_can_make_is_not_told() {
        let run = |a: u64, b: u64| of(vec![maker(a, &["mmap", "a"]), maker(b, &["mmap", "b"])]);
        // 15 of 16 VMAs are not looked at: 3 * sqrt(2 * 15 * 20,000 / 2), about.
        let old = run(20_000, 20_000);
        assert_eq!(told(&old, &run(21_500, 18_500)), []);
        let rows = told(&old, &run(22_000, 18_000));
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [MadeChange::More, MadeChange::Less]);
        assert!(rows.iter().all(|row| (1600..1700).contains(&row.3)), "{rows:?}");
        // Who came last has lost what was removed from whoever it was.
        let mut removed = run(22_000, 18_000);
        let call = CallFigures { calls: None, added: 0, removed: 500, failed: None };
        removed.processes[0].calls.insert("munmap".into(), call);
        assert_eq!(told(&old, &removed), []);
        let note = &compare_makers(&old, &run(30_000, 20_000), TOLERANCE).notes[0];
        assert!(note.starts_with("Who made the VMAs is known by samples"), "{note}");
    }

    #[test]
    fn what_has_no_known_place_may_be_of_any() {
        let run =
            |a: u64, unknown: u64| of(vec![maker(a, &["mmap", "a"]), nobody(unknown, Nobody::NotSampled)]);
        assert_eq!(told(&run(100, 50), &run(149, 0)), []);
        assert_eq!(told(&run(100, 50), &run(151, 0)), [(MadeChange::More, 100, 151, 50)]);
    }

    #[test]
    fn places_are_names_and_no_addresses_builds_or_depths() {
        let old = of(vec![maker(150, &["mmap", "pool::grow::h0123456789abcdef", "rec", "main"])]);
        let deep = ["mmap", "pool::grow::hfedcba9876543210", "rec", "rec", "rec", "main"];
        assert_eq!(told(&old, &of(vec![maker(150, &deep)])), []);
        let (strange, other) = (of(vec![maker(150, &["", ""])]), of(vec![maker(150, &[""])]));
        assert_eq!(told(&strange, &other), [], "[java], wherever in it");
        // A stack without callers is as coarse in both.
        let cut = Maker { cut: true, ..maker(150, &["mmap", "pool::grow"]) };
        assert_eq!(told(&old, &of(vec![cut])), []);
        let few = Maker { cut: true, ..maker(1, &["mmap"]) };
        let whole = maker(180, &["mmap", "pool::grow", "rec", "main"]);
        let rows = told(&old, &of(vec![few, whole.clone()]));
        assert_eq!(rows, [(MadeChange::More, 150, 180, 1)], "told once, and by as much as is known");
        let many = Maker { cut: true, ..maker(60, &["mmap"]) };
        assert_eq!(told(&old, &of(vec![many, whole])), [(MadeChange::More, 150, 240, 0)], "together");
        // Of what has no name nothing is known.
        let bare = |ip| Maker { stack: vec![Frame::bare(ip)], ..maker(150, &[]) };
        assert_eq!(told(&of(vec![bare(1)]), &of(vec![bare(2)])), []);
        assert_eq!(told(&of(vec![bare(1)]), &old), [], "it may be the same");
        // What was not followed may go astray behind the second function.
        let uncopied = |name| Maker {
            stack_notes: vec![UNCOPIED.to_owned()],
            cut: true,
            ..maker(150, &["mmap", "pool::grow", name])
        };
        assert_eq!(told(&of(vec![uncopied("x")]), &of(vec![uncopied("y")])), []);
    }

    #[test]
    fn what_is_not_exact_is_not_compared_and_that_is_said() {
        let (old, more) = (of(vec![maker(100, &["a"])]), of(vec![maker(200, &["a"])]));
        let mut sampled = more.clone();
        sampled.processes[0].map_count.exact = false;
        let it = compare_makers(&old, &sampled, TOLERANCE);
        assert!(it.makers.is_empty() && it.notes[0].contains("its new peak is a sample"), "{:?}", it.notes);
        // What the limit stopped has made at least so much.
        let mut clipped = more.clone();
        clipped.processes[0].map_count.clipped = true;
        assert_eq!(told(&old, &clipped), [(MadeChange::More, 100, 200, 0)]);
        assert_eq!(told(&clipped, &old), [(MadeChange::Less, 200, 100, 0)]);
        assert_eq!(told(&clipped, &of(vec![maker(220, &["a"])])), [], "it may have made as much");
        let it = compare_makers(&clipped, &clipped, TOLERANCE);
        assert!(it.notes[0].contains("stopped by the limit in both"), "{:?}", it.notes);
        assert_eq!(told(&of(Vec::new()), &old), [], "nobody looked");
    }

    #[test]
    fn every_change_is_compared_where_both_have_them() {
        let row = |added: u64, names: &[&str]| Changes {
            added,
            removed: 7,
            syscall: "mmap".into(),
            stack: frames(names),
            stack_notes: Vec::new(),
            nobody: None,
        };
        let of_changes = |rows: Vec<Changes>| {
            let mut report = of(vec![maker(100, &["a"])]);
            report.processes[0].changes = rows;
            report
        };
        let (old, new) =
            (of_changes(vec![row(40_000, &["a", "b"])]), of_changes(vec![row(44_000, &["a", "b"])]));
        let it = compare_makers(&old, &new, TOLERANCE);
        assert_eq!((it.makers[0].noise, it.makers[0].every_change), (0, true));
        assert!(it.notes.is_empty(), "{:?}", it.notes);
        // Only where the call was made is sure, and from where.
        let one_of = |names: &[&str]| Changes { stack_notes: vec!["One of".into()], ..row(40_000, names) };
        let [x, y] = [["a", "b", "x"], ["a", "b", "y"]].map(|names| of_changes(vec![one_of(&names)]));
        assert_eq!(told(&x, &y), []);
        let it = compare_makers(&old, &of(vec![maker(1000, &["a"])]), TOLERANCE);
        assert_eq!(it.makers.len(), 1);
        assert!(it.makers[0].new == 1000 && !it.makers[0].every_change, "by what both have: {:?}", it.makers);
    }
}
