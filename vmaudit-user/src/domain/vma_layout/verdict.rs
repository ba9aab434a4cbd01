//! One look at all tallies: what the VMAs are, in sentences, and what would make them fewer. Pure.

use crate::domain::vma_layout::merge_blockers::is_library;
use crate::model::vma_layout::{Explanation, Kind, Reason, Region, Row};
use crate::text::{bytes, count, grouped, percent};

/// The verdict: what the VMAs are, and what would make them fewer. Pure.
pub(crate) fn verdict(it: &Explanation) -> Vec<String> {
    let mut sentences = what_they_are(it);
    let avoidable: u64 =
        it.boundaries.iter().filter(|row| row.reason.avoidable()).map(|row| row.boundaries).sum();
    if it.vmas > 1 {
        sentences.push(format!(
            "{} of {} boundaries between {} have a reason that somebody could remove.",
            grouped(avoidable),
            grouped(it.vmas - 1),
            if it.complete { "VMAs" } else { "the VMAs read" }
        ));
    }
    if let Some(limit) = it.max_map_count.filter(|_| it.complete) {
        sentences.push(format!("The count is {}% of the limit {}.", percent(it.vmas, limit), grouped(limit)));
    }
    sentences
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

fn helps(cure: &str) -> String {
    format!("What helps: {cure}.")
}

/// The first that explains a good part of them.
fn what_they_are(it: &Explanation) -> Vec<String> {
    let stacks = it.kinds.iter().find(|(kind, _)| *kind == Kind::Stack).map_or(0, |(_, tally)| tally.vmas);
    let guarded = (stacks * 2).min(it.vmas);
    let region = it.regions.first().filter(|region| many(it, region.vmas));
    let file = it
        .owners
        .iter()
        .find(|row| row.name.starts_with('/') && row.tally.vmas >= 64)
        .filter(|row| many(it, row.tally.vmas));
    let ending = it.extensions.iter().find(|row| !row.name.starts_with(".so") && many(it, row.tally.vmas));
    let reason = it.boundaries.iter().find(|row| row.cure.is_some() && many(it, row.boundaries));
    if stacks >= 16 && large_share(it, guarded) {
        vec![
            format!(
                "{} are {} behind guard pages: two VMAs for each thread or fiber.",
                part_of(it, guarded),
                count(stacks, "stack", "stacks")
            ),
            "Fewer threads, or guards by madvise(MADV_GUARD_INSTALL) on Linux 6.13 and later, make them fewer."
                .to_owned(),
        ]
    } else if let Some(region) = region {
        pieces_of(it, region, file)
    } else if let Some(file) = file {
        let mut sentences = vec![format!("{} map one file, {}.", part_of(it, file.tally.vmas), file.name)];
        sentences.extend(reason.and_then(|row| row.cure.as_deref()).map(helps));
        sentences
    } else if let Some(ending) = ending {
        let what = format!("{} map files with the ending {}.", part_of(it, ending.tally.vmas), ending.name);
        let cure = if ending.name.ends_with("(deleted)") {
            "The files are deleted and still mapped: whoever maps them does not unmap them."
        } else {
            "One mapping per file: fewer and larger files, or reading small ones instead of mapping them, make them fewer."
        };
        vec![what, cure.to_owned()]
    } else if let Some(reason) = reason {
        let mut sentences = vec![format!(
            "{} of {} boundaries between VMAs have one reason: {}.",
            grouped(reason.boundaries),
            grouped(it.vmas.saturating_sub(1)),
            reason.title
        )];
        sentences.extend(reason.cure.as_deref().map(helps));
        sentences
    } else {
        largest_kind(it).into_iter().collect()
    }
}

/// One region in pieces. `file`: the one that is mapped most.
fn pieces_of(it: &Explanation, region: &Region, file: Option<&Row>) -> Vec<String> {
    let mut sentences = Vec::new();
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
    if let Some(file) = file.filter(|file| file.name == region.name && file.tally.vmas > region.vmas) {
        sentences.push(format!("{} map one file, {}.", part_of(it, file.tally.vmas), file.name));
    }
    sentences.push(format!(
        "{} are {pieces} of one {what} of {}{}{}{split}.",
        part_of(it, region.vmas),
        bytes(region.bytes),
        if it.complete { "" } else { " or more" },
        region.start.as_ref().map(|start| format!(" at {start}")).unwrap_or_default()
    ));
    sentences
        .extend(strong.iter().filter_map(|(reason, _)| reason.cure()).map(|cure| helps(&cure.to_string())));
    sentences
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
