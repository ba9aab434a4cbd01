//! Refused calls, each group with its evidence and its stack; and ordinary answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self};

use crate::model::cause::{because, reason};
use crate::model::report::{Cause, Failure, Holders, Outcome, Report, Site};
use crate::output::text::page::{Colour, Page, name_pid};
use crate::output::text::stack;
use crate::text::{bytes, clean, count, grouped};

/// Failures that differ only in their process are one block.
pub(crate) struct Block<'a> {
    worst: &'a Failure,
    count: u64,
    processes: u64,
}

pub(crate) fn failures(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut index = BTreeMap::new();
    for failure in report.unrecovered() {
        let key = (
            &failure.comm,
            &failure.syscall,
            &failure.errno,
            failure.cause,
            failure.certain,
            failure.various,
            failure.address_space_of.is_some(),
        );
        match index.get(&key).and_then(|at: &usize| blocks.get_mut(*at)) {
            Some(block) => {
                block.count = block.count.saturating_add(failure.count);
                block.processes += failure.processes;
            }
            None => {
                index.insert(key, blocks.len());
                blocks.push(Block { worst: failure, count: failure.count, processes: failure.processes });
            }
        }
    }
    blocks.sort_by_key(|block| std::cmp::Reverse(block.count));
    let shown = page.style.top.max(1);
    // One look serves all failures of an image, and is shown with the first of them.
    let mut looks = BTreeSet::new();
    for block in blocks.iter().take(shown) {
        let Block { worst, .. } = block;
        let look = worst.holders.as_ref().filter(|holders| !holders.sentence.is_empty());
        let look = look.filter(|look| looks.insert((worst.pid, look.at_s.to_bits())));
        page.blank()?;
        failure(block, look, page)?;
    }
    if blocks.len() > shown {
        page.blank()?;
        page.line(
            &format!(
                "and {}",
                count((blocks.len() - shown) as u64, "more kind of failure", "more kinds of failure")
            ),
            Some(Colour::Dim),
        )?;
    }
    Ok(())
}

pub(crate) fn failure(block: &Block<'_>, look: Option<&Holders>, page: &mut Page<'_>) -> io::Result<()> {
    let Block { worst, .. } = *block;
    let who = if block.processes == 1 {
        let lodges = worst.address_space_of.map(|host| format!(", in the address space of {host}"));
        name_pid(&worst.comm, worst.pid) + &lodges.unwrap_or_default()
    } else if worst.various {
        format!("{} of various names", count(block.processes, "process", "processes"))
    } else {
        format!("{} named {}", count(block.processes, "process", "processes"), clean(&worst.comm))
    };
    let cause = match (worst.cause, worst.certain) {
        (Cause::Unknown, _) if reason(worst) != because(Cause::Unknown) => {
            format!("cause: {}", reason(worst))
        }
        (Cause::Unknown, _) => "cause unknown".into(),
        (cause, true) => format!("cause {}", cause.name()),
        (cause, false) => format!("cause probably {}", cause.name()),
    };
    let when = match (worst.first_at_s, worst.last_at_s) {
        (Some(first), Some(last)) if block.processes == 1 && block.count > 1 => {
            format!(", {first:.3} to {last:.3} s")
        }
        (Some(first), _) if block.processes == 1 => format!(", at {first:.3} s"),
        _ => String::new(),
    };
    let head = format!(
        "{} x {} {} in {who}, {cause}{when}",
        grouped(block.count),
        clean(&worst.syscall),
        clean(&worst.errno)
    );
    page.paragraph("", "  ", &head, Some(Colour::Bold))?;
    page.paragraph("  ", "  ", &clean(&worst.sentence), None)?;
    if let Some(look) = look {
        let whose = if block.processes == 1 { "Its".into() } else { format!("Pid {}'s", worst.pid) };
        let text = format!("{whose} VMAs then: {} ({}).", look.sentence.trim_end_matches('.'), looked(look));
        page.paragraph("  ", "  ", &clean(&text), None)?;
    }
    // The recommendation below is the cure for the VMA limit.
    if let Some(cure) = worst.cure.as_ref().filter(|_| worst.cause != Cause::MaxMapCount) {
        page.paragraph("  Cure: ", "  ", &clean(cure), None)?;
    }
    let stack = worst.example.as_ref().map(|example| example.stack.as_slice()).unwrap_or_default();
    match worst.sites.as_slice() {
        [only] if only.count == block.count && !only.stack.is_empty() => {
            stack::stack(&only.stack, &only.stack_notes, page)
        }
        [_, _, ..] if block.processes == 1 => sites(worst, page),
        _ => {
            // The others may have come from elsewhere.
            if block.count > 1 && !stack.is_empty() {
                page.line("  one of them:", Some(Colour::Dim))?;
            }
            let notes =
                worst.example.as_ref().map(|example| example.stack_notes.as_slice()).unwrap_or_default();
            stack::stack(stack, notes, page)
        }
    }
}

/// Places that cannot be told apart by the frames that are shown.
struct Alike<'a> {
    first: &'a Site,
    count: u64,
    bytes: Option<(u64, u64)>,
    last_at_s: f64,
}

/// The places that calls were refused at, the most frequent first.
fn alike<'a>(failure: &'a Failure, frames: usize) -> Vec<Alike<'a>> {
    let shown = |site: &'a Site| (site.stack.get(..frames).unwrap_or(&site.stack), site.stack.len() > frames);
    // Two calls of one line are two addresses.
    let same = |one: &'a Site, other: &'a Site| {
        let (one, one_goes_on) = shown(one);
        let (other, other_goes_on) = shown(other);
        one_goes_on == other_goes_on
            && one.len() == other.len()
            && one.iter().zip(other).all(|(a, b)| {
                a.symbol.is_some()
                    && (&a.symbol, &a.module, &a.file, a.line) == (&b.symbol, &b.module, &b.file, b.line)
            })
    };
    let mut all: Vec<Alike<'a>> = Vec::new();
    for site in &failure.sites {
        let bytes = site.smallest_bytes.zip(site.largest_bytes);
        match all.iter_mut().find(|it| !site.stack.is_empty() && same(it.first, site)) {
            Some(it) => {
                it.count = it.count.saturating_add(site.count);
                it.last_at_s = it.last_at_s.max(site.last_at_s);
                it.bytes = it.bytes.zip(bytes).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)));
            }
            None => all.push(Alike { first: site, count: site.count, bytes, last_at_s: site.last_at_s }),
        }
    }
    all.sort_by_key(|it| std::cmp::Reverse(it.count));
    all
}

/// The places that calls were refused at.
fn sites(failure: &Failure, page: &mut Page<'_>) -> io::Result<()> {
    const SHOWN: usize = 3;
    let all = alike(failure, page.style.frames.max(1));
    // The last place is the one that a program may have ended at.
    let last = all.iter().map(|it| it.last_at_s).max_by(f64::total_cmp);
    let mut left = failure.elsewhere;
    for (n, site) in all.iter().enumerate() {
        let is_last = last.is_some_and(|last| last.total_cmp(&site.last_at_s).is_eq());
        if n >= SHOWN && !is_last {
            left = left.saturating_add(site.count);
            continue;
        }
        let size = match site.bytes {
            Some((least, most)) if least == most => format!(" of {}", bytes(most)),
            Some((least, most)) => format!(" of {} to {}", bytes(least), bytes(most)),
            None => String::new(),
        };
        let when = if is_last { format!(", the last at {:.3} s", site.last_at_s) } else { String::new() };
        let Site { stack, stack_notes, .. } = site.first;
        let from = if stack.is_empty() { " from a place that is not known" } else { "" };
        page.line(
            &format!("  {}{size}{from}{when}:", count(site.count, "call", "calls")),
            Some(Colour::Dim),
        )?;
        stack::stack(stack, stack_notes, page)?;
    }
    if left > 0 {
        page.line(&format!("  and {} from elsewhere", count(left, "call", "calls")), Some(Colour::Dim))?;
    }
    Ok(())
}

pub(crate) fn ordinary_answers(report: &Report) -> Option<String> {
    let mut kinds: BTreeMap<(&str, Cause), u64> = BTreeMap::new();
    for answer in &report.ordinary_answers {
        let kind: &mut u64 = kinds.entry((answer.syscall.as_str(), answer.cause)).or_default();
        *kind = kind.saturating_add(answer.count);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|&(kind, count)| (std::cmp::Reverse(count), kind));
    let list: Vec<String> = kinds
        .into_iter()
        .map(|((syscall, cause), count)| {
            let meaning = match (syscall, cause) {
                ("mremap", Cause::NoAddressRange) => "no room to grow in place",
                ("brk", Cause::NoAddressRange) => "questions for the break",
                _ => because(cause),
            };
            format!("{} {} ({meaning})", clean(syscall), grouped(count))
        })
        .collect();
    (!list.is_empty()).then(|| format!("{}.", list.join(", ")))
}

/// Refusals after which the same thread got the like.
pub(crate) fn recovered(report: &Report) -> Option<String> {
    let recovered = || report.failures.iter().filter(|failure| failure.outcome == Outcome::Recovered);
    let mut kinds: BTreeMap<(&str, Cause), u64> = BTreeMap::new();
    for failure in recovered() {
        let kind: &mut u64 = kinds.entry((failure.syscall.as_str(), failure.cause)).or_default();
        *kind = kind.saturating_add(failure.count);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|&(kind, count)| (std::cmp::Reverse(count), kind));
    let list: Vec<String> = kinds
        .into_iter()
        .map(|((syscall, cause), count)| {
            let meaning = match (syscall, cause) {
                ("brk", Cause::NoAddressRange) => "something was in the heap's way; mmap gave as much",
                ("mmap" | "shmget", Cause::Hugetlb) => "no huge pages; ordinary ones were given",
                _ => because(cause),
            };
            format!("{} {} ({meaning})", clean(syscall), grouped(count))
        })
        .collect();
    (!list.is_empty()).then(|| format!("{}.", list.join(", ")))
}

/// When, and at how much.
pub(crate) fn looked(look: &Holders) -> String {
    let after = match look.after_ms {
        0 => "less than 1 ms".into(),
        ms => format!("{} ms", grouped(ms)),
    };
    let when = format!("seen at {:.3} s, {after} after a refused {}", look.at_s, look.syscall);
    if look.complete {
        return when;
    }
    let all = match look.vmas_expected.filter(|all| *all > look.vmas_read) {
        Some(all) => format!("of about {}", grouped(all)),
        None => "VMAs".into(),
    };
    let why = if look.ended { "the process ended meanwhile" } else { "there was no time for more" };
    format!("{when}; the first {} {all} were read, {why}", grouped(look.vmas_read))
}
