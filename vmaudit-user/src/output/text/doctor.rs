//! `vmaudit doctor` for people: the verdict, hook by hook, condition by condition.

use std::io::{self, Write};

use crate::model::doctor::{Doctor, HookFound};
use crate::model::report::{Condition, HookState};
use crate::output::text::page::{Page, Style};
use crate::text::{clean, grouped};

/// Columns of a hook's name.
const HOOK: usize = 20;
/// Columns of a condition's name.
const CONDITION: usize = 34;

/// Writes what was found.
pub(crate) fn write(it: &Doctor, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.width.max(40) };
    let page = &mut page;
    let kernel = format!("vmaudit {} on Linux {} ({})", it.vmaudit, clean(&it.kernel), it.arch);
    page.line(&kernel, None)?;
    page.blank()?;
    page.paragraph("", "", &clean(&it.verdict), None)?;
    page.blank()?;
    it.hooks.iter().try_for_each(|found| hook(found, it.reason.as_deref(), page))?;
    page.blank()?;
    it.conditions.iter().try_for_each(|found| condition(found, page))?;
    if let Some(sentence) = it.given_away {
        page.blank()?;
        page.paragraph("", "", sentence, None)?;
    }
    page.blank()?;
    let limit = it.max_map_count.map_or("not readable".into(), |limit| grouped(limit.into()));
    page.line(&format!("  vm.max_map_count is {limit}."), None)
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
    let head = format!("  {word:<3}  {name:<columns$} ");
    page.paragraph(&head, &" ".repeat(columns + 8), &clean(text), None)
}
