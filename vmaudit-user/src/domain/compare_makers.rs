//! Who made the difference: the makers of the largest process of each application and role, before and now. Pure.
//!
//! Makers are told apart by their call and the names of the functions that led to it, never by addresses. Where they are
//! samples, a difference that chance can make is none. What was freed is taken from who came last: a difference that this can
//! make is told as such where the peak changed likewise, else not. Stacks that lack their callers may be of any place; where
//! they hide what became of one, the places that begin like them are compared together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::role::{Key, key};
use crate::model::difference::{Made, MadeChange, Tolerance};
use crate::model::report::{Process, Report};
use crate::text::{count, grouped};

mod side;

use side::{Beginnings, End, Place, Side, changes, from_start, joined, makers};

/// Rows of one application.
const ROWS: usize = 50;
/// Standard deviations that chance may make: in a comparison there are some hundred places.
const DEVIATIONS: f64 = 4.0;
/// Names in a note.
const NAMES: usize = 5;

/// What was found, and what could not be compared, in sentences.
pub struct Compared {
    pub makers: Vec<Made>,
    pub notes: Vec<String>,
}

/// What was not told of an application, and why, VMAs; of all: the most.
#[derive(Default)]
struct Left {
    /// Differences of up to so many that chance and unknown places can make.
    noise: u64,
    /// That freed VMAs can make.
    freed: u64,
    /// VMAs of before the attach.
    before: u64,
    /// Rows beyond [`ROWS`].
    rows: u64,
}

/// Compares those of the applications that are in both.
pub fn compare_makers(old: &Report, new: &Report, tolerance: Tolerance) -> Compared {
    let (before, now) = (largest(old), largest(new));
    let mut all: Vec<Made> = Vec::new();
    let mut left = Left::default();
    let mut not_compared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, new) in &now {
        let Some(old) = before.get(key) else { continue };
        match comparable(old, new) {
            Ok(()) => all.extend(rows_of(key, (old.process, new.process), tolerance, &mut left)),
            Err(Some(why)) => not_compared.entry(why).or_default().push(name_of(key)),
            Err(None) => {}
        }
    }
    all.sort_by_key(|row| Reverse(row.new.abs_diff(row.old)));
    let mut notes: Vec<String> = not_compared.iter().map(|(why, names)| not_told(names, why)).collect();
    notes.extend(left.notes());
    Compared { makers: all, notes }
}

impl Left {
    fn notes(&self) -> impl Iterator<Item = String> {
        let noise = format!(
            "It is not known of each VMA who made it: differences that this can make, here up to {} VMAs, are not told.",
            grouped(self.noise)
        );
        let freed = format!(
            "VMAs that are freed are taken from who came last, whoever made them: differences that this can make, here up \
             to {} VMAs, are told as such where the peak changed likewise, else not.",
            grouped(self.freed)
        );
        let before = format!(
            "Who made the VMAs that were there before vmaudit looked, up to {} of a process, is not known: differences that \
             these can make are not told.",
            grouped(self.before)
        );
        let rows = format!(
            "{} left out: the {ROWS} largest of an application are told.",
            count(self.rows, "smaller difference is", "smaller differences are")
        );
        let all = [(self.noise, noise), (self.freed, freed), (self.before, before), (self.rows, rows)];
        all.into_iter().filter(|(most, _)| *most > 0).map(|(_, note)| note)
    }
}

fn name_of((app, comm): &Key) -> String {
    if app == comm { comm.clone() } else { format!("{app}: {comm}") }
}

fn not_told(names: &[String], why: &str) -> String {
    let shown = names.get(..NAMES.min(names.len())).unwrap_or_default().join(", ");
    let more = match names.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {} more", grouped(more as u64)),
    };
    format!("{shown}{more}: who made the VMAs is not compared: {why}.")
}

struct Largest<'r> {
    process: &'r Process,
    /// A larger one has no row of its own.
    folded: bool,
}

fn looked(process: &Process) -> bool {
    !process.makers.is_empty() || !process.changes.is_empty()
}

/// Of equal ones one that somebody looked at.
fn largest(report: &Report) -> BTreeMap<Key, Largest<'_>> {
    let mut all: BTreeMap<Key, Largest<'_>> = BTreeMap::new();
    // The count of who has no address space of its own is another one's.
    for process in report.processes.iter().filter(|it| it.shares_address_space_of.is_none()) {
        let known = all
            .entry(key(process.app.as_deref(), &process.comm))
            .or_insert(Largest { process, folded: false });
        let size = |it: &Process| (it.map_count.peak, looked(it));
        if size(process) > size(known.process) {
            known.process = process;
        }
    }
    for sum in report.folded.iter().filter(|sum| !sum.various) {
        if let Some(known) = all.get_mut(&key(sum.app.as_deref(), &sum.comm)) {
            known.folded |= sum.peak_max > known.process.map_count.peak;
        }
    }
    all
}

/// Error: why not, where that is worth a sentence.
fn comparable(old: &Largest<'_>, new: &Largest<'_>) -> Result<(), Option<String>> {
    let because = |why: String| Err(Some(why));
    let sides = [("old", old), ("new", new)];
    if !sides.iter().any(|(_, it)| looked(it.process)) {
        return Err(None);
    }
    for (when, it) in sides {
        if it.folded {
            return because(format!("the largest process of the {when} session has no row of its own"));
        }
        if !looked(it.process) {
            return because(format!("it is not known of the largest process of the {when} session"));
        }
        if !it.process.map_count.exact {
            return because(format!("the {when} peak is a sample"));
        }
    }
    let (old, new) = (old.process, new.process);
    if old.makers.is_empty() || new.makers.is_empty() {
        if old.changes.is_empty() || new.changes.is_empty() {
            return because("one session tells every change (--stacks), and the other only the peak".into());
        }
        if from_start(old) != from_start(new) {
            return because("one session saw the start of the process, and the other did not".into());
        }
    }
    if old.map_count.clipped && new.map_count.clipped {
        return because("the limit stopped it in both".into());
    }
    Ok(())
}

/// What says most comes first, and a place is told once.
fn rows_of(key: &Key, pair: (&Process, &Process), tolerance: Tolerance, left: &mut Left) -> Vec<Made> {
    let (old, new) = pair;
    let both = |has: fn(&Process) -> bool| has(old) && has(new);
    // What was added before an attach is in no sum.
    let whole = both(|it| !it.changes.is_empty()) && from_start(old) == from_start(new);
    let every_change = whole.then(|| [changes(old), changes(new)]);
    let at_peak = both(|it| !it.makers.is_empty()).then(|| [makers(old), makers(new)]);
    for side in at_peak.iter().flatten() {
        left.before = left.before.max(side.before_attach());
    }
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
    let mut all: Vec<Made> = Vec::new();
    let mut unsure: Vec<Unsure> = Vec::new();
    let (mut more, mut less) = (Beginnings::default(), Beginnings::default());
    for (sides, every_change) in looks.into_iter().flatten() {
        let (rows, hidden) = rows(key, &sides, every_change, pair, tolerance, left);
        unsure.extend(hidden);
        let is_told = |(place, row): &(Place, Made)| {
            let likewise = if row.new > row.old { &more } else { &less };
            likewise.meets(place)
        };
        let rows: Vec<_> = rows.into_iter().filter(|row| !is_told(row)).collect();
        for (place, row) in rows {
            let likewise = if row.new > row.old { &mut more } else { &mut less };
            likewise.insert(&place);
            all.push(row);
        }
    }
    // Unless another look tells them.
    let untold = |it: &&Unsure| !if it.more { &more } else { &less }.meets(&it.place);
    left.noise = unsure.iter().filter(untold).map(|it| it.by).fold(left.noise, u64::max);
    let order = |row: &Made| Reverse(row.new.abs_diff(row.old));
    all.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.syscall.cmp(&b.syscall)));
    left.rows = left.rows.saturating_add(all.len().saturating_sub(ROWS) as u64);
    all.truncate(ROWS);
    for row in &all {
        left.noise = left.noise.max(row.noise);
        if row.perhaps_freed() {
            left.freed = left.freed.max(row.new.abs_diff(row.old));
        }
    }
    all
}

/// A difference that would be told, were it known who made each VMA.
struct Unsure {
    place: Place,
    more: bool,
    by: u64,
}

fn rows(
    key: &Key,
    [old, new]: &[Side; 2],
    every_change: bool,
    (was, is): (&Process, &Process),
    tolerance: Tolerance,
    left: &mut Left,
) -> (Vec<(Place, Made)>, Vec<Unsure>) {
    let places: BTreeSet<&Place> = old.parts.keys().chain(new.parts.keys()).collect();
    let of_no_place = old.unknown.saturating_add(new.unknown);
    let freed = old.freed.saturating_add(new.freed);
    let has = |side: &Side, place: &Place| side.parts.get(place).map_or(0, |part| part.count);
    // `by` of a difference is more than is called the same.
    let is_large = |(before, now): (u64, u64), by: u64| {
        let base = if now > before { now - by } else { before };
        by > tolerance.vmas && by as f64 * 100.0 > tolerance.percent * base as f64
    };
    let peaks = (was.map_count.peak.unwrap_or(0), is.map_count.peak.unwrap_or(0));
    let peak_differs = is_large(peaks, peaks.0.abs_diff(peaks.1));
    let (mut rows, mut unsure) = (Vec::new(), Vec::new());
    for place in places {
        let (before, now) = (has(old, place), has(new, place));
        let (more, differs) = (now > before, now.abs_diff(before));
        // Of who was stopped by the limit nobody knows what it would have made beyond.
        let hidden = more && was.map_count.clipped || !more && is.map_count.clipped;
        let earlier = if more { old.earlier(new) } else { new.earlier(old) };
        let unknown = of_no_place.saturating_add(earlier);
        let deviation = (old.variance(before) + new.variance(now)).sqrt();
        let chance = (DEVIATIONS * deviation).ceil() as u64;
        let noise = chance.saturating_add(unknown);
        let sure = |not: u64| differs > chance.saturating_add(not) && is_large((before, now), differs - not);
        if hidden || !sure(unknown) {
            // Of VMAs of before the attach another sentence speaks.
            let of_before = left.before > 0 && sure(of_no_place);
            if !hidden && !of_before && is_large((before, now), differs) {
                unsure.push(Unsure { place: place.clone(), more, by: differs });
            }
            continue;
        }
        let in_any_case = sure(unknown.saturating_add(freed));
        let likewise = peak_differs && more == (peaks.1 > peaks.0);
        if !(in_any_case || likewise) {
            left.freed = left.freed.max(differs);
            continue;
        }
        let change = match (before, now) {
            (0, _) if old.tells_all(new) => MadeChange::New,
            (_, 0) if new.tells_all(old) => MadeChange::Gone,
            _ if more => MadeChange::More,
            _ => MadeChange::Less,
        };
        let stack = new.parts.get(place).or(old.parts.get(place)).map(|part| part.stack.clone());
        let stack = stack.unwrap_or_default().into_iter().flatten().collect();
        let ((app, comm), syscall) = (key.clone(), place.0.clone());
        let made =
            Made { app, comm, change, syscall, stack, old: before, new: now, noise, freed, every_change };
        rows.push((place.clone(), made));
    }
    (rows, unsure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::makers::UNCOPIED;
    use crate::model::report::{CallFigures, Changes, Frame, Maker, Nobody, Since};
    use crate::output::text::tests::clean_run;

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
        process.map_count.peak = Some(crate::text::total(makers.iter().map(|it| it.count)));
        process.map_count.last = process.map_count.peak;
        process.makers = makers;
        process.calls.clear();
        report
    }

    /// So many were freed before the peak.
    fn removes(mut report: Report, removed: u64) -> Report {
        let call = CallFigures { removed, ..CallFigures::default() };
        report.processes[0].calls.insert("munmap".into(), call);
        report
    }

    fn attached(mut report: Report) -> Report {
        report.processes[0].since = Some(Since::Attach);
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
        // 15 of 16 VMAs are not looked at: 4 * sqrt(2 * 15 * 20,000 / 2), about.
        let old = run(20_000, 20_000);
        assert_eq!(told(&old, &run(22_000, 18_000)), []);
        let rows = told(&old, &run(22_500, 17_500));
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [MadeChange::More, MadeChange::Less]);
        assert!(rows.iter().all(|row| (2150..2250).contains(&row.3)), "{rows:?}");
        // After many falls one in 32 is looked at.
        assert_eq!(told(&old, &run(22_600, 17_400)).len(), 2);
        assert_eq!(told(&old, &removes(run(22_600, 17_400), 56)), []);
        let note = &compare_makers(&old, &run(30_000, 20_000), TOLERANCE).notes[0];
        assert!(note.starts_with("It is not known of each VMA who made it"), "{note}");
    }

    /// Where chance hides all that there is, silence would say that there is nothing.
    #[test]
    fn what_chance_hides_is_said() {
        let run = |a: u64, b: u64| of(vec![maker(a, &["mmap", "a"]), maker(b, &["mmap", "b"])]);
        let it = compare_makers(&run(20_000, 20_000), &run(22_000, 19_000), TOLERANCE);
        let [note] = it.notes.as_slice() else { panic!("{:?}", it.notes) };
        assert!(it.makers.is_empty() && note.contains("here up to 2,000 VMAs"), "{:?} {note}", it.makers);
        let same = compare_makers(&run(20_000, 20_000), &run(20_500, 19_500), TOLERANCE);
        assert!(same.makers.is_empty() && same.notes.is_empty(), "within the tolerance: {:?}", same.notes);
    }

    /// What nobody is credited with may be of the place that has none.
    #[test]
    fn only_where_all_is_known_a_place_is_new() {
        let both = |more: Vec<Maker>| {
            of([vec![nobody(31, Nobody::Before), maker(150, &["mmap", "a"])], more].concat())
        };
        let b = || vec![maker(60, &["mmap", "b"])];
        let change = |old: &Report, new: &Report| {
            let rows = compare_makers(old, new, TOLERANCE).makers;
            let [row] = rows.as_slice() else { panic!("{rows:?}") };
            row.change
        };
        let unknown = || vec![nobody(5, Nobody::NotSampled)];
        assert_eq!(change(&both(vec![]), &both(b())), MadeChange::New);
        assert_eq!(change(&both(unknown()), &both(b())), MadeChange::More);
        assert_eq!(change(&both(b()), &both(vec![])), MadeChange::Gone);
        assert_eq!(change(&both(b()), &both(unknown())), MadeChange::Less);
        // Freed ones may have been of it, and of several VMAs one is looked at.
        assert_eq!(change(&removes(both(vec![]), 5), &both(b())), MadeChange::More);
        let many = |more: Vec<Maker>| both([vec![maker(20_000, &["mmap", "c"])], more].concat());
        assert_eq!(change(&many(vec![]), &many(vec![maker(4_000, &["mmap", "b"])])), MadeChange::More);
        // What the other side does not count either is of neither.
        assert_eq!(
            change(&both(b()), &both(b().into_iter().chain(vec![maker(50, &["mmap", "d"])]).collect())),
            MadeChange::New
        );
    }

    fn pair(a: u64, b: u64) -> Report {
        of(vec![nobody(31, Nobody::Before), maker(a, &["mmap", "a"]), maker(b, &["mmap", "b"])])
    }

    /// The same calls: A maps 100, B 50, A frees 30 and maps 30, or frees these before B maps. What is freed is taken from who
    /// came last.
    #[test]
    fn what_was_freed_is_taken_from_who_came_last() {
        let (old, new) = (removes(pair(130, 20), 30), removes(pair(100, 50), 30));
        assert_eq!(told(&old, &new), []);
        let it = compare_makers(&old, &new, TOLERANCE);
        assert!(it.notes.len() == 1 && it.notes[0].contains("up to 30 VMAs"), "{:?}", it.notes);
        // One of either side is enough for half of it, and what goes beyond is told.
        assert_eq!(told(&pair(130, 20), &removes(pair(100, 50), 30)), []);
        let gone = [(MadeChange::Less, 131, 20, 0), (MadeChange::More, 19, 130, 0)];
        assert_eq!(told(&removes(pair(131, 19), 2), &removes(pair(20, 130), 3)), gone);
        // After the peak.
        let mut later = removes(pair(100, 50), 30);
        later.processes[0].map_count.last = Some(181 - 30);
        assert_eq!(told(&pair(130, 20), &later).len(), 2);
    }

    /// Somebody made the rise: it is told who has it, and that this may be of what was freed.
    #[test]
    fn where_the_peak_rose_it_is_told_whose_it_may_be() {
        let (old, new) = (removes(pair(60, 40), 20), removes(pair(30, 110), 60));
        let it = compare_makers(&old, &new, TOLERANCE);
        let row = &it.makers[0];
        assert_eq!(
            (it.makers.len(), row.change, row.freed, row.perhaps_freed()),
            (1, MadeChange::More, 80, true)
        );
        assert_eq!((it.makers[0].old, it.makers[0].new), (40, 110), "what goes the other way is not told");
        let it = compare_makers(&removes(pair(60, 40), 2), &removes(pair(60, 140), 2), TOLERANCE);
        assert_eq!((it.makers.len(), it.makers[0].freed, it.makers[0].perhaps_freed()), (1, 4, false));
        assert!(it.notes.is_empty(), "{:?}", it.notes);
    }

    /// Numbers as good as random, the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, most: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % most
        }
    }

    /// Who maps and unmaps as it comes: what is told of it, and what the places held at the peak.
    fn history(random: &mut Random) -> (Report, [u64; 2]) {
        const PLACES: [&str; 2] = ["a", "b"];
        let (mut held, mut pile) = (Vec::new(), Vec::new());
        let (mut freed, mut peak) = (0, (Vec::new(), Vec::new()));
        let (steps, frees) = (20 + random.below(180), random.below(40));
        let (first, oldest) = (random.below(2), random.below(2) == 0);
        for step in 0..steps {
            if random.below(100) < frees && !held.is_empty() {
                held.remove(if oldest { 0 } else { random.below(held.len()) });
                pile.pop();
                freed += 1;
            } else {
                let late = usize::from(step > steps / 2);
                let place = PLACES[(first + late + usize::from(random.below(5) == 0)) % 2];
                held.push(place);
                pile.push(place);
            }
            if held.len() > peak.0.len() {
                peak = (held.clone(), pile.clone());
            }
        }
        let of_each = |all: &[&str]| PLACES.map(|it| all.iter().filter(|place| **place == it).count() as u64);
        let [a, b] = of_each(&peak.1);
        let mut report = removes(pair(a, b), freed);
        report.processes[0].map_count.last = Some(31 + held.len() as u64);
        (report, of_each(&peak.0))
    }

    /// Whatever was freed in between: what is told is not farther from what the places held than it says.
    #[test]
    fn no_history_is_told_wrongly() {
        let random = &mut Random(7);
        let (mut rows, mut wrong) = (0, 0);
        for _ in 0..3000 {
            let ((old, before), (new, now)) = (history(random), history(random));
            for row in compare_makers(&old, &new, TOLERANCE).makers {
                let at = usize::from(row.stack[1].symbol.as_deref() == Some("b"));
                let held = now[at] as i64 - before[at] as i64;
                let shown = row.new as i64 - row.old as i64;
                assert!(held.abs_diff(shown) <= row.noise + row.freed, "{row:?}: {held}");
                assert!(row.perhaps_freed() || held.signum() == shown.signum(), "{row:?}: {held}");
                (rows, wrong) = (rows + 1, wrong + u64::from(held.signum() != shown.signum()));
            }
        }
        assert!(
            rows > 1000 && wrong > 0,
            "{rows} rows, of which {wrong} rightly say that they may be nothing"
        );
    }

    #[test]
    fn what_was_there_before_the_attach_may_be_of_anybody() {
        let run = of(vec![nobody(31, Nobody::Before), maker(1000, &["mmap", "a"])]);
        let late = |makers| attached(of([vec![nobody(900, Nobody::Before)], makers].concat()));
        let watched = late(vec![maker(131, &["mmap", "a"])]);
        assert_eq!(told(&run, &watched), []);
        assert_eq!(told(&watched, &run), []);
        let it = compare_makers(&run, &watched, TOLERANCE);
        assert!(it.notes.len() == 1 && it.notes[0].contains("up to 869 of a process"), "{:?}", it.notes);
        // Whose those of two attaches are nobody knows either.
        assert_eq!(told(&watched, &late(vec![maker(400, &["mmap", "a"])])), []);
        let rows = told(&run, &late(vec![maker(131, &["mmap", "a"]), maker(2000, &["mmap", "b"])]));
        assert_eq!(rows.iter().map(|row| (row.0, row.2)).collect::<Vec<_>>(), [(MadeChange::More, 2000)]);
        // So many are sure to be less that they are within the tolerance.
        let most = of(vec![nobody(31, Nobody::Before), maker(1200, &["mmap", "a"])]);
        let mut few = watched.clone();
        few.processes[0].makers[0].count = 1030;
        assert_eq!(told(&most, &few), []);
        // What a parent had, it had in both.
        let forked = |a| of(vec![nobody(5000, Nobody::Before), maker(a, &["mmap", "a"])]);
        assert_eq!(told(&forked(3000), &forked(6000)).len(), 1);
    }

    /// Who makes nothing after the attach has no makers, and is the largest all the same.
    #[test]
    fn the_largest_is_the_largest_of_all() {
        let old = of(vec![maker(10_000, &["a"])]);
        let mut new = of(vec![maker(300, &["a"])]);
        let mut larger = of(vec![maker(50_000, &["a"])]).processes.remove(0);
        (larger.pid, larger.makers) = (larger.pid + 1, Vec::new());
        new.processes.push(larger);
        let it = compare_makers(&old, &new, TOLERANCE);
        assert!(it.makers.is_empty(), "{:?}", it.makers);
        assert!(
            it.notes[0].ends_with("it is not known of the largest process of the new session."),
            "{:?}",
            it.notes
        );
        assert!(compare_makers(&new, &new, TOLERANCE).notes.is_empty(), "nobody looked at either");
        let mut lodger = new.clone();
        lodger.processes[1].shares_address_space_of = Some(1);
        assert_eq!(told(&old, &lodger).len(), 1, "its count is another one's");
        let mut folded = of(vec![maker(300, &["a"])]);
        let comm = folded.processes[0].comm.clone();
        folded.folded = vec![crate::output::text::tests::alike(&comm, 3, (5, 9000))];
        let it = compare_makers(&old, &folded, TOLERANCE);
        assert!(it.makers.is_empty() && it.notes[0].contains("has no row of its own"), "{:?}", it.notes);
    }

    #[test]
    fn the_largest_difference_comes_first_and_what_is_left_out_is_counted() {
        let places = |of: &str, each: u64, n: u64| {
            (0..n).map(|at| maker(each + at, &["mmap", &format!("{of}{at}")])).collect::<Vec<_>>()
        };
        let report = |rows: Vec<(&str, Vec<Maker>)>| {
            let mut report = of(Vec::new());
            let of_app = |(name, makers): (&str, Vec<Maker>)| {
                let process = of(makers).processes.remove(0);
                Process { comm: name.into(), app: None, ..process }
            };
            report.processes = rows.into_iter().map(of_app).collect();
            report
        };
        let stays = || maker(20, &["mmap", "stays"]);
        let old = report(vec![("a", vec![stays()]), ("b", vec![stays()])]);
        let many = [vec![stays()], places("f", 20, 300)].concat();
        let new = report(vec![("a", many), ("b", vec![stays(), maker(20_000, &["mmap", "b"])])]);
        let it = compare_makers(&old, &new, TOLERANCE);
        assert_eq!((it.makers.len(), it.makers[0].comm.as_str(), it.makers[0].new), (51, "b", 20_000));
        assert!(it.makers.is_sorted_by_key(|row| Reverse(row.new.abs_diff(row.old))));
        let said = it.notes.iter().any(|note| note.contains("smaller differences are left out"));
        assert!(said, "{:?}", it.notes);
    }

    #[test]
    fn numbers_of_strangers_do_not_overflow() {
        let most = || nobody(u64::MAX, Nobody::Before);
        let all = removes(
            of(vec![most(), most(), maker(u64::MAX, &["a"]), nobody(u64::MAX, Nobody::NotSampled)]),
            u64::MAX,
        );
        assert_eq!(told(&all, &of(vec![maker(100, &["a"])])), []);
        assert_eq!(told(&attached(all.clone()), &all), []);
        assert_eq!(told(&of(vec![maker(100, &["b"])]), &all), []);
    }

    #[test]
    fn names_of_what_is_not_compared_are_few() {
        let names: Vec<String> = (0..7).map(|n| format!("p{n}")).collect();
        let said = not_told(&names, "a reason");
        assert_eq!(said, "p0, p1, p2, p3, p4 and 2 more: who made the VMAs is not compared: a reason.");
        assert_eq!(not_told(&names[..1], "a"), "p0: who made the VMAs is not compared: a.");
    }

    #[test]
    fn what_has_no_known_place_may_be_of_any() {
        let run =
            |a: u64, unknown: u64| of(vec![maker(a, &["mmap", "a"]), nobody(unknown, Nobody::NotSampled)]);
        assert_eq!(told(&run(100, 50), &run(149, 0)), []);
        assert_eq!(told(&run(100, 50), &run(151, 0)), [], "they differ by one, which is the same");
        assert_eq!(told(&run(100, 50), &run(161, 0)), [(MadeChange::More, 100, 161, 50)]);
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
        assert!(it.makers.is_empty() && it.notes[0].contains("the new peak is a sample"), "{:?}", it.notes);
        // What the limit stopped has made at least so much.
        let mut clipped = more.clone();
        clipped.processes[0].map_count.clipped = true;
        assert_eq!(told(&old, &clipped), [(MadeChange::More, 100, 200, 0)]);
        assert_eq!(told(&clipped, &old), [(MadeChange::Less, 200, 100, 0)]);
        assert_eq!(told(&clipped, &of(vec![maker(220, &["a"])])), [], "it may have made as much");
        let it = compare_makers(&clipped, &clipped, TOLERANCE);
        assert!(it.notes[0].contains("the limit stopped it in both"), "{:?}", it.notes);
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
        // One that the limit stopped would have made more.
        let mut clipped = old.clone();
        clipped.processes[0].map_count.clipped = true;
        assert_eq!(told(&clipped, &new), []);
        assert_eq!(told(&new, &clipped), []);
        let fewer = of_changes(vec![row(20_000, &["a", "b"])]);
        assert_eq!(told(&clipped, &fewer), [(MadeChange::Less, 40_000, 20_000, 0)]);
        // What was added before an attach is in no sum.
        assert_eq!(told(&old, &attached(fewer.clone())), []);
        assert_eq!(told(&attached(old.clone()), &attached(fewer)).len(), 1);
        // Only where the call was made is sure, and from where.
        let one_of = |names: &[&str]| Changes { stack_notes: vec!["One of".into()], ..row(40_000, names) };
        let [x, y] = [["a", "b", "x"], ["a", "b", "y"]].map(|names| of_changes(vec![one_of(&names)]));
        assert_eq!(told(&x, &y), []);
        let it = compare_makers(&old, &of(vec![maker(1000, &["a"])]), TOLERANCE);
        assert_eq!(it.makers.len(), 1);
        assert!(it.makers[0].new == 1000 && !it.makers[0].every_change, "by what both have: {:?}", it.makers);
    }
}
