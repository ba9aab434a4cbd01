//! What was lost, what could not be seen, what to do.

use std::io::{self};

use crate::model::hook;
use crate::model::loss::LossReason;
use crate::model::report::{Action, Cause, Failure, Hook, HookState, Report, SourceKind};
use crate::output::text::page::{Colour, Page};
use crate::text::{clean, grouped};

/// Missing hooks up to this number have a line each.
pub(crate) const ONE_BY_ONE: usize = 3;

pub(crate) fn coverage(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    losses(report, page)?;
    let all = |hook: &&Hook| hook.state == HookState::Missing;
    let missing: Vec<&Hook> = report.coverage.hooks.iter().filter(all).collect();
    let told: Vec<&Hook> =
        missing.iter().copied().filter(|hook| page.style.verbose || touches(hook, report)).collect();
    let reason = |hook: &Hook| hook.reason.as_deref().map_or(String::new(), |why| format!(" ({why})"));
    if let [first, .., last] = missing.as_slice()
        && missing.len() > ONE_BY_ONE
        && missing.iter().all(|hook| hook.reason == first.reason)
    {
        // With samples a note names it, once.
        let told = |note: &String| first.reason.as_ref().is_some_and(|why| note.contains(why.as_str()));
        if report.source == SourceKind::Proc && report.coverage.notes.iter().any(told) {
            return notes(report, page);
        }
        // One reason, one sentence; what each would give is not the point then.
        let text = format!(
            "all {} kernel hooks, from {} to {}{}; `vmaudit doctor` says what each gives",
            missing.len(),
            first.name,
            last.name,
            reason(first)
        );
        page.paragraph("Missing: ", "  ", &clean(&text), Some(Colour::Yellow))?;
    } else {
        for hook in told {
            let loses = hook.loses.as_deref().map_or(String::new(), |loses| format!(": {loses}"));
            let text = format!("{}{loses}{}", hook.name, reason(hook));
            page.paragraph("Missing: ", "  ", &clean(&text), Some(Colour::Yellow))?;
        }
    }
    notes(report, page)
}

/// One line when nothing was lost.
fn losses(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let counters = &report.coverage.lost;
    let every = || {
        let list: Vec<String> =
            counters.iter().map(|(name, count)| format!("{} {}", clean(name), grouped(*count))).collect();
        list.join(", ")
    };
    let lost: Vec<String> = counters
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| match LossReason::of_name(name) {
            Some(reason) => format!("{} x {} ({name})", grouped(*count), reason.words()),
            None => format!("{} {}", clean(name), grouped(*count)),
        })
        .collect();
    match (lost.is_empty(), counters.is_empty()) {
        (false, _) if page.style.verbose => page.paragraph(
            "Lost: ",
            "  ",
            &format!("{}. All that is counted: {}.", lost.join(", "), every()),
            Some(Colour::Yellow),
        ),
        (false, _) => page.paragraph("Lost: ", "  ", &format!("{}.", lost.join(", ")), Some(Colour::Yellow)),
        (true, true) => page.paragraph("Lost: ", "  ", "nothing that this source counts.", None),
        // The notes say what samples miss.
        (true, false) if report.source == SourceKind::Proc => Ok(()),
        (true, false) if page.style.verbose => {
            page.paragraph("Nothing lost", "  ", &format!(": {}.", every()), None)
        }
        (true, false) => page.line("Nothing lost.", None),
    }
}

/// Without this hook something is wrong, or missing, in what is shown.
pub(crate) fn touches(missing: &Hook, report: &Report) -> bool {
    let refused = |of: &dyn Fn(&Failure) -> bool| {
        report.failures.iter().chain(&report.ordinary_answers).any(|failure| !failure.certain && of(failure))
    };
    let ends = || report.processes.iter().filter_map(|process| process.end.as_ref()?.signal);
    match missing.name.as_str() {
        hook::ADDRESS_SEARCH => refused(&|it| ["mmap", "mremap", "shmat"].contains(&it.syscall.as_str())),
        hook::HEAP_GROWTH => refused(&|it| it.syscall == "brk"),
        hook::OVERCOMMIT => refused(&|it| matches!(it.cause, Cause::Overcommit | Cause::Unknown)),
        hook::SIGNAL => ends().next().is_some() || report.folded.iter().any(|sum| sum.killed > 0),
        hook::VICTIM => {
            ends().any(|signal| signal == libc::SIGKILL) || report.folded.iter().any(|sum| sum.killed > 0)
        }
        _ => true,
    }
}

fn notes(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    for note in &report.coverage.notes {
        page.paragraph("Note: ", "  ", &clean(note), None)?;
    }
    Ok(())
}

pub(crate) fn recommendation(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let advice = &report.recommendation;
    let colour = match advice.action {
        Action::Leave if report.breaches.is_empty() => Colour::Green,
        Action::Leave => Colour::Bold,
        Action::Raise | Action::RaiseAndRerun => Colour::Red,
        Action::WillNotHelp | Action::Unknown => Colour::Yellow,
    };
    page.blank()?;
    page.line("Recommendation", Some(Colour::Bold))?;
    for (index, sentence) in advice.sentences.iter().enumerate() {
        page.paragraph("  ", "  ", &clean(sentence), (index == 0).then_some(colour))?;
    }
    for command in &advice.commands {
        page.line(&format!("    {}", clean(command)), None)?;
    }
    Ok(())
}
