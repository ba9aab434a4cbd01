//! What happened in the stretches of a session that somebody named.

use std::cmp::Reverse;
use std::io;

use crate::model::mark::Mark;
use crate::model::memory::Accuracy;
use crate::model::report::Report;
use crate::output::text::page::{Colour, Page, column};
use crate::text::{clean, count, grouped};

/// Columns of a name.
const NAME: usize = 32;

/// A line a mark, those with refused calls and large peaks first.
pub(crate) fn marks(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    if report.marks.is_empty() {
        return Ok(());
    }
    page.blank()?;
    let head = format!(
        "{}  {:>10}  {:>10}  {:>10}  {:>8}",
        column("By mark", NAME),
        "PEAK",
        "ADDED",
        "REMOVED",
        "REFUSED"
    );
    page.line(&head, Some(Colour::Bold))?;
    let mut all: Vec<&Mark> = report.marks.iter().collect();
    all.sort_by_key(|mark| Reverse((mark.failed, mark.peak)));
    let shown = page.style.top.max(1);
    for mark in all.iter().take(shown) {
        let [peak, added, removed, failed] = figures(mark);
        let name = column(&format!("  {}", clean(&mark.name)), NAME);
        let colour = mark.failed.filter(|failed| *failed > 0).map(|_| Colour::Red);
        page.line(&format!("{name}  {peak:>10}  {added:>10}  {removed:>10}  {failed:>8}"), colour)?;
    }
    let more = all.len().saturating_sub(shown) as u64;
    if more > 0 {
        page.line(&format!("  and {}, in the JSON", count(more, "more", "more")), Some(Colour::Dim))?;
    }
    let known = |mark: &&Mark| mark.exact && mark.peak_bound != Some(Accuracy::AtLeast);
    if !report.marks.iter().all(|mark| known(&mark)) {
        let note = "~ at least: it may have been more between two boundaries, or who asked for one did not wait for it.";
        page.paragraph("  ", "  ", note, Some(Colour::Dim))?;
    }
    Ok(())
}

/// Peak, added, removed, refused, as a table shows them.
pub(crate) fn figures(mark: &Mark) -> [String; 4] {
    let doubt = if mark.exact { "" } else { "~" };
    let figure = |value: Option<u64>, before: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{before}{}", grouped(value)))
    };
    let least = if mark.peak_bound == Some(Accuracy::Exact) { doubt } else { "~" };
    [
        figure(mark.peak, least),
        figure(mark.added, doubt),
        figure(mark.removed, doubt),
        figure(mark.failed, doubt),
    ]
}
