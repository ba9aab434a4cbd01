//! `vmaudit scan` for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::limit::origin;
use crate::model::report::Process;
use crate::model::scan::{Need, NoSlab, Scan};
use crate::output::text::growth;
use crate::output::text::page::{Colour, Page, Style, column};
use crate::output::text::scan_headline::headline;
use crate::text::{bytes, clean, count, grouped, shell};

/// From these shares of the limit on, in percent, a row is red or yellow.
const MARKED: [(f64, Colour); 2] = [(90.0, Colour::Red), (50.0, Colour::Yellow)];
/// Below this width a unit has fewer columns.
const NARROW: usize = 100;

/// How the sentence begins that says what counts of one look are worth.
const OF_NOW: &str = "The counts are of this moment";

/// How the note begins that says whose processes are seen.
const NOT_ROOT: &str = "Not root:";

/// Writes `scan`.
pub(crate) fn write(scan: &Scan, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    for (place, (text, colour)) in headline(scan).into_iter().enumerate() {
        page.paragraph(if place == 0 { "vmaudit: " } else { "  " }, "  ", &text, colour)?;
    }
    if !scan.report.processes.is_empty() {
        page.blank()?;
        processes(scan, &mut page)?;
        page.blank()?;
        applications(scan, &mut page)?;
    }
    advice(scan, &mut page)?;
    page.blank()?;
    not_counted(scan, &mut page)?;
    // That only one's own processes are seen has been said, with their number.
    let said =
        |note: &&String| note.starts_with(NOT_ROOT) && scan.report.not_counted.iter().any(|it| it.forbidden);
    for note in scan.report.coverage.notes.iter().filter(|note| !said(note)) {
        page.paragraph("Note: ", "  ", &clean(note), None)?;
    }
    page.paragraph("", "  ", &circumstances(scan), Some(Colour::Dim))
}

/// `10 of 54`, or all of them.
fn shown(top: usize, all: usize, what: &str) -> String {
    match all {
        all if top >= all => format!("{what} ({all})"),
        all => format!("{what} ({top} of {all}; -n {all} shows all)"),
    }
}

fn processes(scan: &Scan, page: &mut Page<'_>) -> io::Result<()> {
    let all = &scan.report.processes;
    let top = page.style.top.max(1);
    let with_arguments = !scan.arguments.is_empty();
    page.line(&shown(top, all.len(), "Processes"), Some(Colour::Bold))?;
    if with_arguments {
        let warning = "Command lines may hold secrets: look through them before you share this.";
        page.paragraph("", "", warning, Some(Colour::Red))?;
    }
    let rows = || all.iter().take(top);
    let widest = |texts: &mut dyn Iterator<Item = &Option<String>>, least: usize, most: usize| {
        texts.flatten().map(|text| clean(text).chars().count()).max().map(|widest| widest.clamp(least, most))
    };
    let user = widest(&mut rows().map(|row| &row.user), 4, 10).unwrap_or(4);
    let unit = widest(&mut rows().map(|row| &row.unit), 4, if page.style.width < NARROW { 20 } else { 30 });
    let unit_column =
        |text: &str| unit.map(|columns| format!("{}  ", column(text, columns))).unwrap_or_default();
    let what = if with_arguments { "COMMAND" } else { "APPLICATION" };
    let grows = growth::known(&scan.report);
    let rate = |text: &str| if grows { format!("{text:>9} ") } else { String::new() };
    let head =
        format!("{:>9} {:>8} {}{:>7}  {}  ", "VMAs", "OF LIMIT", rate("GROWTH"), "PID", column("USER", user));
    let used = head.len() + unit.map_or(0, |columns| columns + 2);
    page.line(&format!("{head}{}{what}", unit_column("UNIT")), None)?;
    for (place, process) in rows().enumerate() {
        let share = process.map_count.percent_of_limit;
        let line = format!(
            "{:>9} {:>8} {}{:>7}  {}  {}{}",
            grouped(process.map_count.last.unwrap_or(0)),
            share.map_or_else(|| "—".to_owned(), |share| format!("{share:.1}%")),
            rate(&growth::cell(process)),
            process.pid,
            column(process.user.as_deref().unwrap_or("—"), user),
            unit_column(process.unit.as_deref().unwrap_or("—")),
            page.style.fit(&called(process, scan.arguments.get(place)), used)
        );
        let marked = MARKED.into_iter().find(|(from, _)| share.is_some_and(|share| share >= *from));
        page.line(&line, marked.map(|(_, colour)| colour))?;
    }
    Ok(())
}

/// The command line where it was asked for; else the application, with the process's own name where that is another one.
fn called(process: &Process, arguments: Option<&Vec<String>>) -> String {
    if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty()) {
        return shell::quoted(arguments);
    }
    let app = process.app.clone().unwrap_or_default();
    if app.contains(&process.comm) { app } else { format!("{app} ({})", process.comm) }
}

fn applications(scan: &Scan, page: &mut Page<'_>) -> io::Result<()> {
    let top = page.style.top.max(1);
    page.line(&shown(top, scan.applications.len(), "Applications"), Some(Colour::Bold))?;
    page.line(
        &format!("{:>9} {:>9} {:>9} {:>9}  APPLICATION", "PROCESSES", "MOST VMAs", "MEAN", "FEWEST"),
        None,
    )?;
    for app in scan.applications.iter().take(top) {
        let figures =
            [app.instances, app.max, app.avg, app.min].map(|figure| format!("{:>9}", grouped(figure)));
        let line = format!("{}  {}", figures.join(" "), page.style.fit(&app.app, 41));
        page.line(&line, None)?;
    }
    Ok(())
}

/// What a raise rests on; nothing where none is needed and none was asked about.
fn advice(scan: &Scan, page: &mut Page<'_>) -> io::Result<()> {
    let recommendation = &scan.report.recommendation;
    if recommendation.value.is_none() && scan.custom.is_none() {
        return Ok(());
    }
    page.blank()?;
    page.line("Recommendation", Some(Colour::Bold))?;
    page.line(&format!("{:>9} {:>11} {:>7}  FOR", "VMAs", "RECOMMENDED", "FREE"), None)?;
    for need in scan.largest.iter().chain(&scan.custom) {
        let Need { who, vmas, recommended } = need;
        let free = recommended.saturating_sub(*vmas) as f64 * 100.0 / (*recommended).max(1) as f64;
        let line = format!(
            "{:>9} {:>11} {free:>6.1}%  {}",
            grouped(*vmas),
            grouped(*recommended),
            page.style.fit(who, 31)
        );
        page.line(&line, None)?;
    }
    if recommendation.value.is_some() {
        // What the first lines say already is not said again.
        let said = |sentence: &&String| !sentence.starts_with(OF_NOW);
        for sentence in recommendation.sentences.iter().filter(said) {
            page.paragraph("  ", "  ", &clean(sentence), None)?;
        }
        for command in &recommendation.commands {
            page.line(&format!("    {}", clean(command)), None)?;
        }
    }
    Ok(())
}

/// Every process that gives no count is accounted for, by reason.
fn not_counted(scan: &Scan, page: &mut Page<'_>) -> io::Result<()> {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for process in &scan.report.not_counted {
        reasons.entry(&process.reason).or_default().push(process.pid.to_string());
    }
    for (reason, pids) in reasons {
        let shown: Vec<&str> = pids.iter().map(String::as_str).take(8).collect();
        let more = pids.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {} more", grouped(more as u64)) } else { String::new() };
        let who = count(pids.len() as u64, "process", "processes");
        let pid = if pids.len() == 1 { "pid" } else { "pids" };
        let line = format!("Not counted: {who} ({pid} {}{more}): {}.", shown.join(", "), clean(reason));
        page.paragraph("", "  ", &line, Some(Colour::Dim))?;
    }
    Ok(())
}

fn circumstances(scan: &Scan) -> String {
    let limit = match scan.report.limits.max_map_count {
        Some(limit) => {
            format!(
                "vm.max_map_count is {} ({}) and holds for each process by itself",
                grouped(limit),
                origin(limit)
            )
        }
        None => "vm.max_map_count could not be read".to_owned(),
    };
    let slab = match &scan.slab {
        Some(slab) => format!(
            "the kernel holds {} vm_area_struct of {} each",
            grouped(slab.active),
            bytes(slab.size.object_bytes)
        ),
        None => without(scan.no_slab, scan.root),
    };
    format!(
        "Together {} in {}; {slab}. {limit}.",
        count(scan.total_vmas, "VMA", "VMAs"),
        count(scan.report.processes.len() as u64, "process", "processes")
    )
}

/// Why the kernel's own figure is missing.
fn without(why: Option<NoSlab>, root: bool) -> String {
    match why {
        Some(NoSlab::Merged) => {
            "the kernel has no figure of its own: it keeps vm_area_struct together with other objects of their size".to_owned()
        }
        Some(NoSlab::Long(slabs)) => format!(
            "the kernel was not asked for its own figure: it would walk {} slabs for it with interrupts off",
            grouped(slabs)
        ),
        Some(NoSlab::Hidden) | None if root => "the kernel tells no figure of its own".to_owned(),
        Some(NoSlab::Hidden) | None => {
            "the kernel's own figure is not shown to you: /proc/slabinfo needs root".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_the_kernel_tells_no_figure_is_said() {
        let said = |why| without(Some(why), true);
        assert!(said(NoSlab::Merged).contains("together with other objects"));
        assert!(said(NoSlab::Long(20_000)).contains("20,000 slabs"));
        assert!(!said(NoSlab::Hidden).contains("needs root"), "it is root");
        assert!(without(Some(NoSlab::Hidden), false).ends_with("/proc/slabinfo needs root"));
    }
}
