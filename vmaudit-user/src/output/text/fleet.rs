//! Several sessions for people.

use std::io::{self, Write};

use crate::model::fleet::{Fleet, Sums, all_named};
use crate::output::text::page::{Colour, Page, Style, column};
use crate::text::{clean, count, grouped};

/// Columns of a name, of an application or of a file.
const NAME: usize = 30;

/// Writes a summary.
pub(crate) fn write(fleet: &Fleet, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, style: *style, width: style.paragraphs() };
    let bad = fleet.files.iter().any(|file| file.failed > 0);
    let colour = if bad { Colour::Red } else { Colour::Green };
    page.paragraph("vmaudit: ", "  ", &clean(&fleet.sentence), Some(colour))?;
    page.blank()?;
    // Of sessions that do not tell their machine nobody knows on how many they were.
    let named = all_named(&fleet.hosts);
    let over = if named { "HOSTS" } else { "SESSIONS" };
    let head = [column("APPLICATION", NAME), format!("     PEAK  % LIMIT  PROCESSES  {over:>8}    FAILED")];
    page.line(&head.concat(), Some(Colour::Bold))?;
    let shown = style.top.max(1);
    for row in fleet.applications.iter().take(shown) {
        let line = format!(
            "{}{}  {:>9}  {:>8}  {:>8}",
            column(&row.app, NAME),
            peak(&row.sums),
            grouped(row.sums.processes),
            grouped(if named { row.hosts } else { row.files }),
            failed(row.sums.failed, row.sums.failures_may_be_missing)
        );
        page.line(&line, (row.sums.failed > 0).then_some(Colour::Red))?;
    }
    rest(fleet.applications.len(), shown, ("more application", "more applications"), &mut page)?;
    page.blank()?;
    if fleet.hosts.iter().any(|row| row.host.is_some()) {
        hosts(fleet, shown, &mut page)?;
    }
    let head = [column("SESSION", NAME), "     PEAK    LIMIT  FAILED  LARGEST".to_owned()];
    page.line(&head.concat(), Some(Colour::Bold))?;
    for file in fleet.files.iter().take(shown) {
        let line = format!(
            "{}{:>9}  {:>7}  {:>6}  {}",
            column(&file.file, NAME),
            figure(file.peak, file.exact, file.clipped > 0),
            file.max_map_count.map_or("-".to_owned(), grouped),
            failed(file.failed, file.failures_may_be_missing),
            style.fit(file.app.as_deref().unwrap_or("-"), NAME + 29)
        );
        page.line(&line, (file.failed > 0 || file.breaches > 0).then_some(Colour::Red))?;
    }
    rest(fleet.files.len(), shown, ("more session", "more sessions"), &mut page)?;
    let cut = fleet.files.iter().filter(|file| file.cut).count() as u64;
    if cut > 0 {
        let cut = count(cut, "recording ends", "recordings end");
        page.paragraph("Note: ", "  ", &format!("{cut} before the session did."), Some(Colour::Yellow))?;
    }
    let broken = fleet.files.iter().filter(|file| file.breaches > 0).count() as u64;
    if broken > 0 {
        let broken = count(broken, "session has", "sessions have");
        page.paragraph("Note: ", "  ", &format!("{broken} broken budgets."), Some(Colour::Red))?;
    }
    Ok(())
}

/// By machine.
fn hosts(fleet: &Fleet, shown: usize, page: &mut Page<'_>) -> io::Result<()> {
    let head = [column("HOST", NAME), "     PEAK  % LIMIT  SESSIONS  FAILED  LARGEST".to_owned()];
    page.line(&head.concat(), Some(Colour::Bold))?;
    for row in fleet.hosts.iter().take(shown) {
        let line = format!(
            "{}{}  {:>8}  {:>6}  {}",
            column(row.host.as_deref().unwrap_or("(not told)"), NAME),
            peak(&row.sums),
            grouped(row.files),
            failed(row.sums.failed, row.sums.failures_may_be_missing),
            page.style.fit(row.app.as_deref().unwrap_or("-"), NAME + 38)
        );
        page.line(&line, (row.sums.failed > 0 || row.breaches > 0).then_some(Colour::Red))?;
    }
    rest(fleet.hosts.len(), shown, ("more host", "more hosts"), page)?;
    page.blank()
}

/// With its share of the limit.
fn peak(sums: &Sums) -> String {
    let share = sums.percent_of_limit.map_or("-".to_owned(), |share| format!("{share:.1}"));
    format!("{:>9}  {share:>7}", figure(sums.peak, sums.exact, sums.clipped > 0))
}

fn figure(value: Option<u64>, exact: bool, clipped: bool) -> String {
    let Some(value) = value else { return "-".to_owned() };
    format!("{}{}{}", if exact { "" } else { "~" }, grouped(value), if clipped { "+" } else { "" })
}

/// No number where nobody could see any.
fn failed(count: u64, may_be_missing: bool) -> String {
    if count == 0 && may_be_missing { "-".to_owned() } else { grouped(count) }
}

fn rest(all: usize, shown: usize, (one, many): (&str, &str), page: &mut Page<'_>) -> io::Result<()> {
    match all.saturating_sub(shown) as u64 {
        0 => Ok(()),
        more => page.line(&format!("and {} (--top)", count(more, one, many)), Some(Colour::Dim)),
    }
}
