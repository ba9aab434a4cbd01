//! What the tests of a runner did that names them.

use std::cmp::Reverse;
use std::io;

use crate::model::report::Report;
use crate::output::cases::{Test, tests};
use crate::output::text::page::{Colour, Page, column};
use crate::text::{clean, count, grouped, total};

/// Columns of a name.
const NAME: usize = 58;

/// A line a test, those with failed calls and large peaks first.
pub(crate) fn tests_named(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let mut all: Vec<Test<'_>> = tests(report);
    if all.is_empty() {
        return Ok(());
    }
    page.blank()?;
    let head = format!("{}  {:>9}  {:>10}  {:>8}", column("By test", NAME), "PROCESSES", "PEAK", "FAILED");
    page.line(&head, Some(Colour::Bold))?;
    all.sort_by_key(|test| Reverse((test.failed, test.peak)));
    let shown = page.style.top.max(1);
    for test in all.iter().take(shown) {
        let doubt = if test.exact { "" } else { "~" };
        let peak = test.peak.map_or_else(|| "-".to_owned(), |peak| format!("{doubt}{}", grouped(peak)));
        let name = column(&format!("  {}", clean(test.name)), NAME);
        let colour = (test.failed > 0).then_some(Colour::Red);
        let failed = match test.failed {
            0 if report.locking_failures_may_be_missing() => "-".to_owned(),
            failed => grouped(failed),
        };
        let processes = grouped(test.processes);
        page.line(&format!("{name}  {processes:>9}  {peak:>10}  {failed:>8}"), colour)?;
    }
    let added_up = total(report.folded.iter().map(|sum| sum.processes));
    if added_up > 0 {
        let of = count(added_up, "process without a row", "processes without a row");
        page.line(&format!("  {of} may belong to tests, too (--all-rows)"), Some(Colour::Dim))?;
    }
    let more = all.len().saturating_sub(shown) as u64;
    if more > 0 {
        page.line(&format!("  and {}, in the JSON", count(more, "more", "more")), Some(Colour::Dim))?;
    }
    Ok(())
}
