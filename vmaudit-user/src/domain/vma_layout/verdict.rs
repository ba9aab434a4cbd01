//! One look at all tallies: what the VMAs are, in sentences, and what would make them fewer. Pure.

use crate::domain::vma_layout::merge_blockers::is_library;
use crate::model::vma_layout::{Explanation, Kind, Reason};
use crate::text::{bytes, count, grouped, percent};

/// The verdict: what the VMAs are, and what would make them fewer. Pure.
pub(crate) fn verdict(it: &Explanation) -> Vec<String> {
    let mut sentences = Vec::new();
    let share = |vmas: u64| vmas as f64 / it.vmas.max(1) as f64;
    // A share of what was read is no share of the whole.
    let of = |vmas: u64| match it.complete {
        true => format!("{} of {} VMAs ({}%)", grouped(vmas), grouped(it.vmas), percent(vmas, it.vmas)),
        false => format!("{} of the {} VMAs read", grouped(vmas), grouped(it.vmas)),
    };
    let tally = |kind: Kind| it.kinds.iter().find(|(k, _)| *k == kind).map_or(0, |(_, tally)| tally.vmas);

    let stacks = tally(Kind::Stack);
    let guarded = stacks * 2;
    let region = it.regions.first().filter(|region| region.vmas >= 64 && share(region.vmas) >= 0.3);
    let file = it
        .owners
        .iter()
        .find(|row| row.name.starts_with('/') && row.tally.vmas >= 64)
        .filter(|row| share(row.tally.vmas) >= 0.3);
    let extension = it
        .extensions
        .iter()
        .find(|row| !row.name.starts_with(".so") && row.tally.vmas >= 64 && share(row.tally.vmas) >= 0.3);
    let reason = it
        .boundaries
        .iter()
        .find(|row| row.cure.is_some() && row.boundaries >= 64 && share(row.boundaries) >= 0.3);

    if stacks >= 16 && share(guarded.min(it.vmas)) >= 0.3 {
        sentences.push(format!(
            "{} are {} behind guard pages: two VMAs for each thread or fiber.",
            of(guarded.min(it.vmas)),
            count(stacks, "stack", "stacks")
        ));
        sentences.push(
            "Fewer threads, or guards by madvise(MADV_GUARD_INSTALL) on Linux 6.13 and later, make them fewer.".to_owned(),
        );
    } else if let Some(region) = region {
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
        let strong: Vec<&(Reason, u64)> =
            region.reasons.iter().filter(|(_, n)| *n * 4 >= region.vmas).collect();
        let titles: Vec<String> =
            strong.iter().map(|(reason, n)| format!("{} ({})", reason.title(), grouped(*n))).collect();
        let split =
            if titles.is_empty() { String::new() } else { format!(", kept apart by: {}", titles.join("; ")) };
        // The same file may be mapped in other places too: then the whole comes before its largest part.
        if let Some(file) = file.filter(|file| file.name == region.name && file.tally.vmas > region.vmas) {
            sentences.push(format!("{} map one file, {}.", of(file.tally.vmas), file.name));
        }
        sentences.push(format!(
            "{} are {pieces} of one {what} of {}{}{}{split}.",
            of(region.vmas),
            bytes(region.bytes),
            if it.complete { "" } else { " or more" },
            region.start.as_ref().map(|start| format!(" at {start}")).unwrap_or_default()
        ));
        sentences.extend(
            strong.iter().filter_map(|(reason, _)| reason.cure()).map(|cure| format!("What helps: {cure}.")),
        );
    } else if let Some(file) = file {
        sentences.push(format!("{} map one file, {}.", of(file.tally.vmas), file.name));
        sentences.extend(reason.and_then(|row| row.cure.clone()).map(|cure| format!("What helps: {cure}.")));
    } else if let Some(extension) = extension {
        sentences.push(format!("{} map files with the ending {}.", of(extension.tally.vmas), extension.name));
        sentences.push(if extension.name.ends_with("(deleted)") {
            "The files are deleted and still mapped: whoever maps them does not unmap them.".to_owned()
        } else {
            "One mapping per file: fewer and larger files, or reading small ones instead of mapping them, make them fewer."
                .to_owned()
        });
    } else if let Some(reason) = reason {
        sentences.push(format!(
            "{} of {} boundaries between VMAs have one reason: {}.",
            grouped(reason.boundaries),
            grouped(it.vmas.saturating_sub(1)),
            reason.title
        ));
        sentences.extend(reason.cure.as_ref().map(|cure| format!("What helps: {cure}.")));
    } else if let Some((kind, tally)) = it.kinds.first() {
        let libraries = it.owners.iter().filter(|row| is_library(&row.name)).count() as u64;
        let detail = if *kind == Kind::Library && libraries > 0 {
            format!(" ({})", count(libraries, "library", "libraries"))
        } else {
            String::new()
        };
        sentences.push(format!(
            "Nothing stands out; the largest group are {}{detail}: {}.",
            kind.title(),
            of(tally.vmas)
        ));
    }

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
