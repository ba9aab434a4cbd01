//! What it means for each notable process, by the letter of its curve.

use std::io::{self, Write};

use super::REFUSALS;
use super::curves::{Curve, notable};
use super::escape::{name, text};
use crate::model::report::{Cause, Process, Report};
use crate::text::{bytes, count, grouped, rate, total};

/// The letter of a process, as picture, table and text have it.
pub(super) fn letter(letter: &str) -> String {
    format!("<span class=\"l l{letter}\">{letter}</span>")
}

/// A line for each process whose curve is drawn because it matters; nothing where none does.
pub(super) fn meaning(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let curves = notable(report);
    if curves.is_empty() {
        return Ok(());
    }
    writeln!(out, "<ul class=\"meaning\">")?;
    for Curve { letter: called, process, .. } in curves {
        writeln!(
            out,
            "<li>{}<b>{}</b> (pid {}) {}</li>",
            letter(called),
            name(process.peak_comm()),
            process.pid,
            became(report, process)
        )?;
    }
    writeln!(out, "</ul>")
}

/// Its end, what it was refused, and what is known of its demand.
fn became(report: &Report, process: &Process) -> String {
    let end = match (&process.end, process.ended_s) {
        (Some(end), _) => text(&end.sentence),
        (None, Some(_)) => "ended".to_owned(),
        (None, None) => "was running at the end".to_owned(),
    };
    let refused: Vec<_> =
        report.unrecovered().enumerate().filter(|(_, failure)| failure.is_of(process)).collect();
    let calls = match total(refused.iter().map(|(_, failure)| failure.count)) {
        0 => String::new(),
        calls => format!(", after {}", count(calls, "refused call", "refused calls")),
    };
    // Those further down are not on the page.
    let linked = refused.iter().filter(|(n, _)| *n < REFUSALS).take(3);
    let links: String = linked.map(|(n, _)| format!(" <a href=\"#r{0}\">Refusal {0}</a>", n + 1)).collect();
    let leaked = match process.unmap_leaked_bytes.unwrap_or(0) {
        0 => String::new(),
        leaked => format!(" {} stay mapped that it wanted to give back.", bytes(leaked)),
    };
    let map_count = &process.map_count;
    let sampled = if map_count.exact { "" } else { "~" };
    let peak = map_count.peak.map_or("\u{2013}".to_owned(), |peak| format!("{sampled}{}", grouped(peak)));
    let stood = match (map_count.clipped, refused.is_empty()) {
        (true, true) => format!(" It stood at the limit with {peak} VMAs: its demand is not known."),
        (true, false) => format!(" The limit stopped it at {peak} VMAs: its demand is not known."),
        (false, false) if refused.iter().all(|(_, it)| it.cause != Cause::MaxMapCount) => {
            format!(" The limit of VMAs did not stop it: its peak was {peak}.")
        }
        (false, _) => format!(" Its peak was {peak} VMAs."),
    };
    let grew = process.growth.filter(|growth| growth.steady).map_or(String::new(), |growth| {
        format!(" It grew steadily, by {}: a higher limit only delays that.", rate(growth.per_s))
    });
    format!("{end}{calls}.{stood}{leaked}{grew}{links}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{Failure, Growth, Series};
    use crate::output::text::tests::{clean_run, clipped_run};

    fn list(report: &Report) -> String {
        let mut out = Vec::new();
        meaning(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_notable_process_is_told_with_its_letter_and_what_became_of_it() {
        let mut report = clipped_run();
        let series = Series {
            interval_s: 0.1,
            from_s: 0.0,
            ends_s: vec![1.0],
            peak: vec![9],
            last: vec![9],
            exact: true,
        };
        report.processes[0].series = Some(series.clone());
        report.processes[0].comm = "<holes>".into();
        report.processes[0].images.clear();
        let said = list(&report);
        for part in [
            ">A</span><b><bdi>&lt;holes&gt;</bdi></b>",
            ", after 23 refused calls. The limit stopped it at 65,530 VMAs",
            "<a href=\"#r1\">Refusal 1</a>",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        report.processes[0].growth =
            Some(Growth { per_s: 5.0, steady: true, over_s: Some(4.0), reaches_limit_in_s: Some(0.0) });
        assert!(list(&report).contains("only delays"));
        // Its only refusal comes behind those that are shown.
        let other = report.failures[0].clone();
        let others = (1_000_000..).map(|pid| Failure { pid, ..other.clone() });
        report.failures.splice(0..0, others.take(REFUSALS));
        let said = list(&report);
        assert!(said.contains(", after 23 refused calls") && !said.contains("href="), "{said}");
        // Its curve is drawn for want of a notable one.
        let mut clean = clean_run();
        clean.processes[0].series = Some(series);
        assert_eq!(list(&clean), "");
    }
}
