//! `vmaudit doctor` for people: the verdict, hook by hook, condition by condition.

use std::io::{self, Write};

use crate::model::doctor::{CallsFound, Doctor, HookFound};
use crate::model::report::{Condition, HookState};
use crate::output::text::page::{Colour, Page, Style};
use crate::text::{clean, grouped};

/// What is missing is named up to so many times before the table.
const SHOWN: usize = 3;
/// Columns of a hook's name.
const HOOK: usize = 20;
/// Columns of a condition's name.
const CONDITION: usize = 34;

/// Writes what was found.
pub(crate) fn write(it: &Doctor, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    let page = &mut page;
    answer(it, page)?;
    page.blank()?;
    if it.reason.is_some() && it.hooks.iter().any(|found| found.hook.state == HookState::Attached) {
        page.paragraph(
            "",
            "",
            "Hooks (they can be had, and run and trace -p make no use of them here)",
            Some(Colour::Bold),
        )?;
    } else {
        page.line("Hooks", Some(Colour::Bold))?;
    }
    it.hooks.iter().try_for_each(|found| hook(found, it.reason.as_deref(), page))?;
    page.blank()?;
    if !it.calls.is_empty() {
        page.line("Refused calls that are not seen", Some(Colour::Bold))?;
        it.calls.iter().try_for_each(|found| calls(found, page))?;
        page.blank()?;
    }
    page.line("Kernel, rights and container", Some(Colour::Bold))?;
    it.conditions.iter().try_for_each(|found| condition(found, page))?;
    if let Some(sentence) = it.given_away {
        page.blank()?;
        page.paragraph("", "", sentence, None)?;
    }
    page.blank()?;
    let limit = it.max_map_count.map_or("not readable".into(), |limit| grouped(limit.into()));
    let kernel = format!("vmaudit {} on Linux {} ({})", it.vmaudit, clean(&it.kernel), it.arch);
    page.paragraph("", "  ", &format!("{kernel}; vm.max_map_count is {limit}."), Some(Colour::Dim))
}

/// What works here, what does not, and what mends most.
fn answer(it: &Doctor, page: &mut Page<'_>) -> io::Result<()> {
    let unmet: Vec<&Condition> = it.conditions.iter().filter(|found| found.met == Some(false)).collect();
    let missing: Vec<&HookFound> =
        it.hooks.iter().filter(|found| found.hook.state == HookState::Missing).collect();
    let hooks_work = it.hooks.iter().any(|found| found.hook.state == HookState::Attached);
    let (colour, works) = match (&it.reason, hooks_work) {
        (None, _) if unmet.is_empty() && missing.is_empty() => (Colour::Green, "everything works here."),
        (None, _) => (Colour::Green, "all commands work here; a detail is missing, see below."),
        (Some(_), true) => (
            Colour::Yellow,
            "scan, explain, limit and trace --all work here; run only looks at /proc, trace -p does not work.",
        ),
        (Some(_), false) => (
            Colour::Yellow,
            "scan, explain and limit work here; run only looks at /proc, and trace does not work.",
        ),
    };
    page.paragraph("vmaudit: ", "  ", works, Some(colour))?;
    page.paragraph("  ", "  ", &clean(&it.verdict), None)?;
    // All hooks are missing for the one reason that the verdict names.
    let lost = |name: &str, loses: &str| format!("{name}: {}", clean(loses));
    let of_hooks = missing.iter().filter(|_| it.reason.is_none());
    let of_hooks =
        of_hooks.map(|found| lost(&found.hook.name, found.hook.loses.as_deref().unwrap_or(found.gives)));
    let of_conditions = unmet.iter().filter_map(|found| Some(lost(&found.name, found.loses.as_deref()?)));
    let all: Vec<String> = of_hooks.chain(of_conditions).collect();
    for text in all.iter().take(SHOWN) {
        page.paragraph("  Missing: ", "    ", text, None)?;
    }
    if all.len() > SHOWN {
        page.line(&format!("  and {} more below", all.len() - SHOWN), None)?;
    }
    // The condition that the reason begins with, else the first: they stand in the order of their weight.
    let named =
        |found: &&&Condition| it.reason.as_ref().is_some_and(|reason| reason.starts_with(&found.name));
    let worst = unmet.iter().find(named).or(unmet.first());
    if let Some(cure) = worst.and_then(|found| found.cure.as_ref()) {
        page.paragraph("  What mends most: ", "    ", &clean(cure), Some(Colour::Bold))?;
    }
    Ok(())
}

fn hook(found: &HookFound, reason_of_all: Option<&str>, page: &mut Page<'_>) -> io::Result<()> {
    let HookFound { hook, gives } = found;
    let name = &hook.name;
    let loses = hook.loses.as_deref();
    let reason = hook.reason.as_deref();
    match (hook.state, &hook.via) {
        (HookState::Attached, via) => {
            row(page, "yes", name, HOOK, &format!("{gives} [{}]", via.as_deref().unwrap_or("?")))?;
            if let Some(loses) = loses {
                row(page, "", "", HOOK, &format!("but {loses}"))?;
                // Why not in another way too is of interest where that costs something.
                because(page, reason)?;
            }
            Ok(())
        }
        (HookState::Unused, _) => row(page, "-", name, HOOK, &format!("not needed now: {gives}")),
        (HookState::Missing, Some(via)) => {
            row(page, "NO", name, HOOK, &format!("by {via} instead"))?;
            if let Some(loses) = loses {
                row(page, "", "", HOOK, loses)?;
            }
            because(page, reason.filter(|reason| Some(*reason) != reason_of_all))
        }
        (HookState::Missing, None) => {
            row(page, "NO", name, HOOK, loses.unwrap_or(gives))?;
            because(page, reason.filter(|reason| Some(*reason) != reason_of_all))
        }
    }
}

fn calls(found: &CallsFound, page: &mut Page<'_>) -> io::Result<()> {
    let name = format!("--calls {}", found.arrangement);
    row(page, "", &name, HOOK, &format!("{}.", found.not_watched.join("; ")))
}

fn because(page: &mut Page<'_>, reason: Option<&str>) -> io::Result<()> {
    reason.map_or(Ok(()), |reason| row(page, "", "", HOOK, &format!("because {reason}")))
}

fn condition(found: &Condition, page: &mut Page<'_>) -> io::Result<()> {
    let word = match found.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "?",
    };
    row(page, word, &found.name, CONDITION, &found.found)?;
    [&found.loses, &found.cure].into_iter().flatten().try_for_each(|line| row(page, "", "", CONDITION, line))
}

/// One row of a table whose last column wraps.
fn row(page: &mut Page<'_>, word: &str, name: &str, columns: usize, text: &str) -> io::Result<()> {
    // On a small terminal a long name has a line of its own.
    let columns = if page.width < 100 { columns.min(20) } else { columns };
    let head = format!("  {word:<3}  {name:<columns$} ");
    let indent = " ".repeat(columns + 8);
    if name.len() > columns {
        page.line(head.trim_end(), None)?;
        return page.paragraph(&indent, &indent, &clean(text), None);
    }
    page.paragraph(&head, &indent, &clean(text), None)
}
