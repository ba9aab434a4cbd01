//! What was lost, what could not be seen, what to do.

use std::io::{self};

use crate::model::report::{Action, Hook, HookState, Report, SourceKind};
use crate::output::text::page::{Colour, Page};
use crate::text::{clean, grouped};

/// Missing hooks up to this number have a line each.
pub(crate) const ONE_BY_ONE: usize = 3;

pub(crate) fn coverage(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let coverage = &report.coverage;
    let list: Vec<String> =
        coverage.lost.iter().map(|(name, count)| format!("{} {}", clean(name), grouped(*count))).collect();
    let any = coverage.lost.values().any(|count| *count > 0);
    let list = list.join(", ");
    match (any, list.is_empty()) {
        (true, _) => page.paragraph("Lost: ", "  ", &format!("{list}."), Some(Colour::Yellow))?,
        (false, true) => page.paragraph("Lost: ", "  ", "nothing that this source counts.", None)?,
        // The notes say what samples miss.
        (false, false) if report.source == SourceKind::Proc => {}
        (false, false) => page.paragraph("Lost: ", "  ", &format!("nothing ({list})."), None)?,
    }
    let missing: Vec<&Hook> = coverage.hooks.iter().filter(|hook| hook.state == HookState::Missing).collect();
    let reason = |hook: &Hook| hook.reason.as_deref().map_or(String::new(), |why| format!(" ({why})"));
    if let [first, .., last] = missing.as_slice()
        && missing.len() > ONE_BY_ONE
        && missing.iter().all(|hook| hook.reason == first.reason)
    {
        // With samples a note names it, once.
        let told = |note: &String| first.reason.as_ref().is_some_and(|why| note.contains(why.as_str()));
        if report.source == SourceKind::Proc && coverage.notes.iter().any(told) {
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
        for hook in missing {
            let loses = hook.loses.as_deref().map_or(String::new(), |loses| format!(": {loses}"));
            let text = format!("{}{loses}{}", hook.name, reason(hook));
            page.paragraph("Missing: ", "  ", &clean(&text), Some(Colour::Yellow))?;
        }
    }
    notes(report, page)
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
