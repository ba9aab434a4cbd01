//! One look at all tallies: what the VMAs are, in sentences, and what would make them fewer. Pure.

use crate::domain::vma_layout::merge_blockers::is_library;
use crate::model::vma_layout::{Advice, Explanation, Heads, Kind, Origin, Reason, Region, Row};
use crate::text::{bytes, count, grouped, percent};

/// A JVM that has so many VMAs or fewer to go was at the limit: what it does while it dies gives some back.
const AT_LIMIT: u64 = 64;
/// Address space of a process, bytes: 47 bits on x86-64 and more elsewhere (arch/x86/include/asm/page_64_types.h).
const ADDRESSES: u64 = 1 << 47;

/// Sentences and advice.
#[derive(Debug, Default)]
struct Found {
    sentences: Vec<String>,
    advice: Vec<Advice>,
}

/// Says what the VMAs are, and what would make them fewer.
pub(crate) fn conclude(it: &mut Explanation) {
    let Found { mut sentences, advice } = what_they_are(it);
    if let Some(died) = died(it) {
        sentences.insert(0, died);
    }
    (it.verdict, it.advice) = (sentences, advice);
}

/// How near it was to the limit, where a log holds both.
fn died(it: &Explanation) -> Option<String> {
    let limit = it.max_map_count.filter(|_| it.origin == Origin::JvmLog && it.complete)?;
    let (vmas, limit_was) = (grouped(it.vmas), grouped(limit));
    Some(if it.vmas.saturating_add(AT_LIMIT) >= limit {
        format!("It died AT vm.max_map_count: {vmas} VMAs, the limit was {limit_was} (both from the report).")
    } else {
        let share = percent(it.vmas, limit);
        format!(
            "It did not die at vm.max_map_count: {vmas} VMAs, {share}% of the limit of {limit_was} (both from the report)."
        )
    })
}

/// So many of them are worth a sentence: a good part, and not few.
fn many(it: &Explanation, vmas: u64) -> bool {
    vmas >= 64 && large_share(it, vmas)
}

fn large_share(it: &Explanation, vmas: u64) -> bool {
    vmas as f64 / it.vmas.max(1) as f64 >= 0.3
}

fn part_of(it: &Explanation, vmas: u64) -> String {
    // A share of what was read is no share of the whole.
    match it.complete {
        true => format!("{} of {} VMAs ({}%)", grouped(vmas), grouped(it.vmas), percent(vmas, it.vmas)),
        false => format!("{} of the {} VMAs read", grouped(vmas), grouped(it.vmas)),
    }
}

fn tally(it: &Explanation, kind: Kind) -> u64 {
    it.kinds.iter().find(|(found, _)| *found == kind).map_or(0, |(_, tally)| tally.vmas)
}

impl Found {
    fn one(sentence: String) -> Self {
        Self { sentences: vec![sentence], advice: Vec::new() }
    }

    fn advise(mut self, text: Option<String>, fewer: Option<u64>) -> Self {
        self.advice.extend(text.map(|text| Advice { text, fewer }));
        self
    }

    /// The cure of a reason, which `boundaries` have.
    fn cure(self, reason: &Reason, boundaries: u64) -> Self {
        self.advise(reason.cure(), reason.vanishes().then_some(boundaries))
    }
}

/// The first that explains a good part of them.
fn what_they_are(it: &Explanation) -> Found {
    stacks(it)
        .or_else(|| decommitted(it))
        .or_else(|| shared(it))
        .or_else(|| heads(it))
        .or_else(|| regions(it))
        .or_else(|| files(it))
        .or_else(|| arenas(it))
        .or_else(|| reason(it))
        .unwrap_or_else(|| largest_kind(it).map(Found::one).unwrap_or_default())
}

fn stacks(it: &Explanation) -> Option<Found> {
    let found = it.stacks;
    let (all, both) = (found.stacks + found.signal_stacks, found.signal_stacks * 10 >= found.stacks * 8);
    let vmas = (all * 2).min(it.vmas);
    if found.stacks < 16 || !large_share(it, vmas) {
        return None;
    }
    let several = found.threads.is_some_and(|threads| threads > 1);
    let whose = match found.threads {
        Some(_) if several => count(found.stacks, "thread", "threads"),
        Some(_) => count(found.stacks, "fiber (it has one thread)", "fibers (it has one thread)"),
        None => count(found.stacks, "thread or fiber", "threads or fibers"),
    };
    let (each, parts) = match both {
        true => (4, "its stack, an alternate signal stack and a guard page of each"),
        false => (2, "its stack and the guard page"),
    };
    let number = if both { "four" } else { "two" };
    let mut said = Found::one(format!(
        "{} are stacks behind guard pages: {number} for each of {whose}, {parts}.",
        part_of(it, vmas)
    ));
    if !found.certain {
        let why = "Their shape says so: how many threads there are is not in this file.";
        said.sentences.push(why.to_owned());
    }
    if let Some(limit) = it.max_map_count.filter(|_| it.complete) {
        let room = limit.saturating_sub(it.vmas.saturating_sub(vmas)) / each;
        said.sentences.push(format!(
            "About {} such fit into the limit of {}.",
            grouped(room),
            grouped(limit)
        ));
    }
    Some(said.advise(Reason::Guard.cure(), Some(all)))
}

fn decommitted(it: &Explanation) -> Option<Found> {
    let ranges = tally(it, Kind::Decommitted);
    let vmas = (ranges * 2).min(it.vmas);
    if ranges < 32 || !many(it, vmas) {
        return None;
    }
    let boundaries = it.boundaries.iter().find(|row| row.reason == Reason::Decommitted)?.boundaries;
    let mut said = Found::one(format!(
        "{} are memory and {} without access inside it: pieces that were given back (decommitted) or protected by mmap or mprotect with PROT_NONE.",
        part_of(it, vmas),
        count(ranges, "short range", "short ranges"),
    ));
    match it.threads {
        Some(0 | 1) => said.sentences.push("The process has one thread: these are no stacks.".to_owned()),
        Some(threads) if ranges > threads => {
            said.sentences.push(format!("With {} threads these are no stacks.", grouped(threads)));
        }
        _ => {}
    }
    Some(said.cure(&Reason::Decommitted, boundaries))
}

fn shared(it: &Explanation) -> Option<Found> {
    let found = it.shared;
    if it.origin == Origin::Core || found.objects * 2 < found.vmas || !many(it, found.vmas) {
        return None;
    }
    let first = it.owners.iter().find(|row| row.objects.is_some() && !row.name.starts_with('/'))?;
    let what = if first.tally.vmas * 10 >= found.vmas * 9 {
        first.name.clone()
    } else {
        "shared memory that is no file (memfd, System V, MAP_SHARED | MAP_ANONYMOUS)".to_owned()
    };
    let mut said = Found::one(format!(
        "{} are {} of {what}, each an object of its own: such pieces never merge.",
        part_of(it, found.vmas),
        count(found.objects, "separate piece", "separate pieces"),
    ));
    let rows = it.boundaries.iter().filter(|row| matches!(row.reason, Reason::SharedObjects { .. }));
    for row in rows.filter(|row| row.boundaries * 4 >= found.vmas) {
        said = said.cure(&row.reason, row.boundaries);
    }
    if said.advice.is_empty() {
        let cure = Reason::SharedObjects { permissions_differ: false }.cure();
        said = said.advise(cure, None);
    }
    Some(said)
}

fn heads(it: &Explanation) -> Option<Found> {
    let Heads { reservations, bytes: all } = it.heads;
    let vmas = (reservations * 2).min(it.vmas);
    if reservations < 32 || !many(it, vmas) {
        return None;
    }
    let each = all / reservations;
    let mut said = Found::one(format!(
        "{} are {} of {} of which only the beginning is accessible: WebAssembly memories look so.",
        part_of(it, vmas),
        count(reservations, "reservation", "reservations"),
        bytes(each)
    ));
    said.sentences.push(format!(
        "They hold {} of address space; {} have room for {}.",
        bytes(all),
        bytes(ADDRESSES),
        grouped(ADDRESSES / each.max(1))
    ));
    Some(said.advise(Reason::Head.cure(), Some(reservations)))
}

/// The file that is mapped most, by itself a good part.
fn one_file(it: &Explanation) -> Option<&Row> {
    let file = it.owners.iter().find(|row| row.name.starts_with('/'))?;
    Some(file).filter(|row| row.objects.is_none_or(|objects| objects == 1) && many(it, row.tally.vmas))
}

fn regions(it: &Explanation) -> Option<Found> {
    let region = it.regions.first().filter(|region| many(it, region.vmas))?;
    Some(pieces_of(it, region, one_file(it)))
}

fn files(it: &Explanation) -> Option<Found> {
    let reason = it.boundaries.iter().find(|row| row.cure.is_some() && many(it, row.boundaries));
    if let Some(file) = one_file(it) {
        let said = Found::one(format!("{} map one file, {}.", part_of(it, file.tally.vmas), file.name));
        return Some(match reason {
            Some(row) => said.cure(&row.reason, row.boundaries),
            None => said,
        });
    }
    if let Some(row) = it.owners.iter().find(|row| row.name.starts_with('/') && many(it, row.tally.vmas)) {
        let objects = row.objects.unwrap_or(0);
        let said = format!(
            "{} map {} that had one name, {}.",
            part_of(it, row.tally.vmas),
            count(objects, "file", "files"),
            row.name
        );
        return Some(file_advice(Found::one(said), row));
    }
    let pattern = it.patterns.iter().find(|row| many(it, row.tally.vmas));
    let ending = it.extensions.iter().find(|row| !row.name.starts_with(".so") && many(it, row.tally.vmas));
    let (row, what) = match (pattern, ending) {
        (Some(row), _) => (row, format!("map files {}", row.name)),
        (None, Some(row)) => (row, format!("map files with the ending {}", row.name)),
        (None, None) => return None,
    };
    Some(file_advice(Found::one(format!("{} {what}.", part_of(it, row.tally.vmas))), row))
}

/// What helps with many files.
fn file_advice(mut said: Found, row: &Row) -> Found {
    if row.name.ends_with("(deleted)") {
        said.sentences.push("The files are deleted and still mapped.".to_owned());
        said.advise(Some("unmap files that are done with".to_owned()), Some(row.tally.vmas))
    } else {
        let text =
            "one mapping per file: fewer and larger files, or reading small ones instead of mapping them";
        said.advise(Some(text.to_owned()), None)
    }
}

fn arenas(it: &Explanation) -> Option<Found> {
    let vmas = tally(it, Kind::Arena);
    if !many(it, vmas) {
        return None;
    }
    let said = Found::one(format!("{} are malloc arenas of glibc.", part_of(it, vmas)));
    Some(said.advise(Reason::Arena.cure(), Some(vmas)))
}

fn reason(it: &Explanation) -> Option<Found> {
    let row = it.boundaries.iter().find(|row| row.cure.is_some() && many(it, row.boundaries))?;
    let said = Found::one(format!(
        "{} of {} boundaries between VMAs have one reason: {}.",
        grouped(row.boundaries),
        grouped(it.vmas.saturating_sub(1)),
        row.title
    ));
    Some(said.cure(&row.reason, row.boundaries))
}

/// One region in pieces. `file`: the one that is mapped most.
fn pieces_of(it: &Explanation, region: &Region, file: Option<&Row>) -> Found {
    let mut said = Found::default();
    let what = match region.name.as_str() {
        "" => "anonymous region".to_owned(),
        name => format!("region of {name}"),
    };
    let pieces = if region.pieces * 2 >= region.vmas {
        format!("{} pieces", bytes(region.piece_bytes))
    } else {
        format!("pieces of many sizes (most often {})", bytes(region.piece_bytes))
    };
    // A second reason counts when it would keep a good part of them apart by itself.
    let strong: Vec<&(Reason, u64)> = region.reasons.iter().filter(|(_, n)| *n * 4 >= region.vmas).collect();
    let titles: Vec<String> =
        strong.iter().map(|(reason, n)| format!("{} ({})", reason.title(), grouped(*n))).collect();
    let split =
        if titles.is_empty() { String::new() } else { format!(", kept apart by: {}", titles.join("; ")) };
    // The same file may be mapped in other places too: then the whole comes before its largest part.
    let file = file.filter(|file| file.name == region.name && file.tally.vmas > region.vmas);
    if let Some(file) = file {
        said.sentences.push(format!("{} map one file, {}.", part_of(it, file.tally.vmas), file.name));
    }
    said.sentences.push(format!(
        "{} are {pieces} of one {what} of {}{}{}{split}.",
        part_of(it, region.vmas),
        bytes(region.bytes),
        if it.complete { "" } else { " or more" },
        region.start.as_ref().map(|start| format!(" at {start}")).unwrap_or_default()
    ));
    // What is advised is for all of it.
    let all = |reason: &Reason, n: u64| {
        let row = it.boundaries.iter().find(|row| row.reason == *reason).filter(|_| file.is_some());
        row.map_or(n, |row| row.boundaries)
    };
    strong.into_iter().fold(said, |said, (reason, n)| said.cure(reason, all(reason, *n)))
}

fn largest_kind(it: &Explanation) -> Option<String> {
    let (kind, tally) = it.kinds.first()?;
    let libraries = it.owners.iter().filter(|row| is_library(&row.name)).count() as u64;
    let detail = if *kind == Kind::Library && libraries > 0 {
        format!(" ({})", count(libraries, "library", "libraries"))
    } else {
        String::new()
    };
    let (kind, part) = (kind.title(), part_of(it, tally.vmas));
    Some(format!("Nothing stands out; the largest group are {kind}{detail}: {part}."))
}
