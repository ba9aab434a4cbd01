//! `vmaudit limit` for people.

use std::io::{self, Write};

use crate::model::limit::{Fate, Found, Known, LimitReport, Need, Plan, Rule, SAFE_VMA_BYTES, SCOPE, origin};
use crate::output::text::page::{Colour, Page, Style};
use crate::text::{bytes, clean, count, grouped, percent};

/// Writes the report.
pub(crate) fn write(report: &LimitReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    let page = &mut page;
    let (colour, verdict) = verdict(report);
    page.paragraph("vmaudit: ", "  ", &verdict, Some(colour))?;
    to_change(report, page)?;
    for warning in &report.warnings {
        page.paragraph("  ! ", "    ", &clean(warning), Some(Colour::Yellow))?;
    }
    if let Some(sign) = &report.container {
        let text = format!(
            "This looks like a container ({}): then change the limit on its host; the files below are the container's own.",
            clean(sign)
        );
        page.paragraph("  ! ", "    ", &text, None)?;
    }
    at_boot(report, page)?;
    needs(report, page)?;
    page.blank()?;
    price(report, page)?;
    page.paragraph("", "  ", SCOPE, Some(Colour::Dim))?;
    let shipped = report
        .shipped
        .as_ref()
        .map_or(String::new(), |it| format!(" {} ships {}: {}.", it.name, grouped(it.ships), it.source));
    let bounds = format!(
        "Kernel default {}, largest possible {}.{shipped}",
        grouped(report.kernel_default),
        grouped(report.kernel_largest)
    );
    page.paragraph("", "  ", &bounds, Some(Colour::Dim))
}

fn verdict(report: &LimitReport) -> (Colour, String) {
    let Some(limit) = report.running else {
        return (Colour::Red, "vm.max_map_count cannot be read here.".into());
    };
    let is = format!("vm.max_map_count = {} ({})", grouped(limit), origin(limit));
    if let Some(value) = report.suggested {
        return (
            Colour::Yellow,
            format!("{is} is too low for {}: {} is enough.", why(report, value), grouped(value)),
        );
    }
    let unseen = match report.not_counted {
        0 => String::new(),
        number => format!(" ({} could not be counted)", count(number, "process", "processes")),
    };
    let text = match &report.largest {
        Some(largest) => format!(
            "{is}; nothing that runs now asks for more: the largest, {} (pid {}), has {} VMAs, {} % of it{unseen}.",
            clean(&largest.app),
            largest.pid,
            grouped(largest.vmas),
            percent(largest.vmas, limit)
        ),
        None => format!("{is}; nothing was measured, so nothing is said about what is needed{unseen}."),
    };
    (if report.largest.is_some() && unseen.is_empty() { Colour::Green } else { Colour::Yellow }, text)
}

/// What asks for the suggested value.
fn why(report: &LimitReport, value: u64) -> String {
    let demands = |need: &&Need| {
        let demand = if need.found == Found::Named { need.vmas } else { need.known.enforced };
        demand == Some(value)
    };
    match (report.needs.iter().find(demands), &report.largest) {
        (Some(need), _) => clean(&need.known.title),
        (None, Some(largest)) => {
            format!("{} (pid {}), which has {} VMAs", clean(&largest.app), largest.pid, grouped(largest.vmas))
        }
        (None, None) => "what is asked for".into(),
    }
}

fn to_change(report: &LimitReport, page: &mut Page<'_>) -> io::Result<()> {
    let title = match report.suggested {
        Some(_) => "To change it (the first does all, and vmaudit limit --undo takes it back):",
        None if report.commands.is_empty() => {
            let text = "To change it: vmaudit limit N shows what vmaudit limit --apply N would do, and --undo takes it back.";
            return page.paragraph("  ", "  ", text, None);
        }
        None => "The running value is enough; to keep it at the next boot, one of:",
    };
    page.paragraph("  ", "  ", title, None)?;
    report.commands.iter().try_for_each(|command| page.line(&format!("    {command}"), None))
}

fn at_boot(report: &LimitReport, page: &mut Page<'_>) -> io::Result<()> {
    page.blank()?;
    page.line(&format!("At boot: {}", grouped(report.after_boot)), Some(Colour::Bold))?;
    if report.boot.settings.is_empty() && report.boot.command_line.is_none() {
        page.line("  No file sets it.", None)?;
    }
    if let Some(value) = report.boot.command_line {
        page.line(&format!("  {:>13}  kernel command line, before any file", grouped(value)), None)?;
    }
    for setting in &report.boot.settings {
        let value = setting.value.map_or_else(|| format!("{:?}?", setting.text), grouped);
        let mut text = format!(
            "{}:{}  {}",
            clean(&setting.file.to_string_lossy()),
            setting.line,
            clean(&setting.fate.sentence())
        );
        if setting.lowers {
            text.push_str(", lowers an earlier value");
        }
        let line = format!("  {:>13}  {text}", clean(&value));
        page.line(&line, (setting.fate == Fate::Wins).then_some(Colour::Bold))?;
    }
    if !report.boot.settings.is_empty() {
        page.line(&format!("  In the order in which {} applies them.", report.boot.applier.name()), None)?;
    }
    Ok(())
}

/// What is known of software: of that which was asked for and which runs, or else of all that is here.
fn needs(report: &LimitReport, page: &mut Page<'_>) -> io::Result<()> {
    if report.needs.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.line("Known needs", Some(Colour::Bold))?;
    let asked = |it: &&Need| !matches!(it.found, Found::Installed(_));
    if !report.needs.iter().any(|it| matches!(it.found, Found::Named)) {
        return report.needs.iter().try_for_each(|it| need(it, page));
    }
    report.needs.iter().filter(asked).try_for_each(|it| need(it, page))?;
    let others: Vec<&str> =
        report.needs.iter().filter(|it| !asked(it)).map(|it| it.known.title.as_str()).collect();
    if others.is_empty() {
        return Ok(());
    }
    let text = format!("Here as well: {} (vmaudit limit without --for).", clean(&others.join(", ")));
    page.paragraph("  ", "    ", &text, Some(Colour::Dim))
}

fn need(need: &Need, page: &mut Page<'_>) -> io::Result<()> {
    let why = match &need.found {
        Found::Running(pids) => {
            let shown: Vec<String> = pids.iter().take(5).map(u32::to_string).collect();
            format!("running, pid {}{}", shown.join(" "), if pids.len() > 5 { " ..." } else { "" })
        }
        Found::Installed(path) => format!("installed, {}", clean(&path.to_string_lossy())),
        Found::Named => "asked for".to_owned(),
    };
    let missing =
        need.missing.as_ref().map(|missing| format!(" To apply its rule {missing}.")).unwrap_or_default();
    let text = format!("{} ({why}) {}{missing}", need.known.title, need.sentence);
    page.paragraph("  ", "    ", &text, None)?;
    page.paragraph(
        "    ",
        "    ",
        &format!("{}. {}", capital(&need.known.note), need.known.source),
        Some(Colour::Dim),
    )
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

fn price(report: &LimitReport, page: &mut Page<'_>) -> io::Result<()> {
    let total = |each: f64, vmas: u64| bytes((each * vmas as f64) as u64);
    let limit = report.suggested.or(report.running);
    let text = match (&report.price, limit) {
        (Some(price), limit) => {
            let full = limit.map(|value| {
                format!(
                    "; a process with all {} would hold {} to {}",
                    grouped(value),
                    total(price.least, value),
                    total(price.most, value)
                )
            });
            format!(
                "{:.0} to {:.0} bytes of kernel memory for each VMA that is in use (by this kernel's slab sizes), not \
                 swappable, charged to the process's cgroup{}.",
                price.least,
                price.most,
                full.unwrap_or_default()
            )
        }
        (None, limit) => {
            let full = limit.map(|value| {
                format!("; a process with all {} would hold {}", grouped(value), total(SAFE_VMA_BYTES, value))
            });
            format!(
                "about {SAFE_VMA_BYTES:.0} bytes of kernel memory for each VMA that is in use, not swappable (a safe \
                 estimate; root can read this kernel's own sizes){}.",
                full.unwrap_or_default()
            )
        }
    };
    page.paragraph("Price: ", "  ", &format!("nothing until it is used; {text}"), None)
}

/// Writes what was done, or would be.
pub(crate) fn plan(plan: &Plan, dry: bool, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    let file = clean(&plan.file.to_string_lossy());
    match (&plan.content, dry) {
        (Some(content), dry) => {
            page.line(&format!("{} {file}:", if dry { "Would write" } else { "Wrote" }), None)?;
            for line in content.lines() {
                page.line(&format!("    {}", clean(line)), None)?;
            }
        }
        (None, true) => page.line(&format!("Would remove {file}"), None)?,
        (None, false) => page.line(&format!("Removed {file}"), None)?,
    }
    let running = match (plan.running, dry) {
        (Some(value), true) => format!("Would set the running value to {}", grouped(value)),
        (Some(value), false) => format!("The running value is now {}", grouped(value)),
        (None, _) => "The running value stays as it is".into(),
    };
    page.line(&running, None)?;
    plan.notes.iter().try_for_each(|note| page.paragraph("! ", "  ", &clean(note), None))?;
    if dry {
        page.line("Nothing was changed.", None)?;
    }
    Ok(())
}

/// Writes the list of known needs.
pub(crate) fn known(all: &[Known], style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    let mut all: Vec<&Known> = all.iter().collect();
    all.sort_by_key(|known| &known.name);
    for known in all {
        let rule = match &known.rule {
            Rule::Fixed { vmas } => grouped(*vmas),
            Rule::PerHeap { granule_bytes, factor } => {
                format!("{factor} per {} of heap", bytes(*granule_bytes))
            }
            Rule::PerItem { item, factor } => format!("{factor} per {item}"),
            Rule::MemoryDivided { bytes: size, least } => {
                format!("1 per {} of memory, at least {}", bytes(*size), grouped(*least))
            }
            Rule::Unknown => "no number".to_owned(),
        };
        let indent = " ".repeat(17);
        page.paragraph(&format!("{:<16} ", known.name), &indent, &format!("{}: {rule}", known.title), None)?;
        page.paragraph(&indent, &indent, &capital(&known.note), None)?;
        page.paragraph(&indent, &indent, &known.source, Some(Colour::Dim))?;
    }
    Ok(())
}
