//! A page in one file: nothing from the network, readable without a script, every name a stranger's.
//!
//! The policy in its head allows the one style and the one script by their hashes and nothing else, so that a name that
//! came through all the same could do nothing.

mod curves;
mod escape;
mod frame;
mod lanes;
mod layout;
mod makers;
mod meaning;
mod tables;

use std::io::{self, Write};

use self::escape::{json, name, prose, text};
use crate::model::loss::LossReason;
use crate::model::report::{Failure, Report};
use crate::output::document::Document;
use crate::output::text::headline::{circumstances, more_breaches, verdict};
use crate::output::text::page::{Colour, Style};
use crate::text::{bytes, count, grouped, total};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// SHA-256 of [`STYLE`] and [`SCRIPT`]; a test says what they must be.
const STYLE_HASH: &str = "dtPsw4sgv0tSthl6Kv8oi1ZajA7zGnEq7ZYBNB3Wojs=";
const SCRIPT_HASH: &str = "bs6mmoyG4V8VkIq62DHTcyoGwMVGnfKfHJZ2Tk0f4IY=";

/// Kinds of refusals shown; the rest is summed.
const REFUSALS: usize = 50;
/// Rows of which the page holds the figures for programs.
const MACHINE_ROWS: usize = 500;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    let (colour, sentence) = verdict(report);
    head(&sentence, out)?;
    top(report, colour, &sentence, out)?;
    let mut body = Vec::new();
    main(report, &mut body)?;
    contents(&String::from_utf8_lossy(&body), out)?;
    writeln!(out, "<main>")?;
    out.write_all(&body)?;
    writeln!(out, "</main>")?;
    machine(report, out)?;
    writeln!(
        out,
        "<footer>vmaudit {}. This file loads nothing from the network.</footer>\n<script>{SCRIPT}</script>\n</body></html>",
        text(&report.vmaudit)
    )
}

fn main(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    meaning::meaning(report, out)?;
    advice(report, out)?;
    key_figures(report, out)?;
    curves::curves(report, out)?;
    tables::processes(report, out)?;
    refusals(report, out)?;
    tables::ends(report, out)?;
    makers::makers(report, out)?;
    tables::makers(report, out)?;
    layout::layouts(report, out)?;
    tables::marks(report, out)?;
    tables::tasks(report, out)?;
    trust(report, out)
}

/// A link to each section that is there. What a stranger is called has no markup, so these are all its own.
fn contents(body: &str, out: &mut dyn Write) -> io::Result<()> {
    let links = body.split("<section id=\"").skip(1).filter_map(|section| {
        let (id, rest) = section.split_once('"')?;
        let (title, _) = rest.split_once("<h2>")?.1.split_once("</h2>")?;
        Some(format!("<a href=\"#{id}\">{title}</a>"))
    });
    writeln!(out, "<nav aria-label=\"Sections\">{}</nav>", links.collect::<Vec<_>>().join("\n"))
}

fn head(sentence: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; script-src 'sha256-{SCRIPT_HASH}'; \
         base-uri 'none'; form-action 'none'\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>vmaudit: {}</title>\n<style>{STYLE}</style></head><body>",
        text(sentence)
    )
}

/// The verdict, and under which circumstances.
fn top(report: &Report, colour: Colour, sentence: &str, out: &mut dyn Write) -> io::Result<()> {
    let (class, sign) = match colour {
        Colour::Red => ("bad", "\u{2297} Look at this"),
        Colour::Yellow => ("warn", "\u{26a0} With a doubt"),
        Colour::Green => ("ok", "\u{2713} In order"),
        Colour::Bold | Colour::Dim => ("soft", "Measured"),
    };
    let command = report.session.command.iter().map(|word| name(word)).collect::<Vec<_>>().join(" ");
    writeln!(
        out,
        "<header><p class=\"facts\"><span><b>vmaudit</b></span><span>{command}</span><span>{}</span></p>\n\
         <p class=\"status {class}\">{sign}</p>\n<h1>{}</h1>",
        text(&report.session.started),
        text(sentence)
    )?;
    for breach in more_breaches(report) {
        writeln!(out, "<p class=\"bad\"><b>Budget broken:</b> {}</p>", text(&breach.sentence))?;
    }
    writeln!(out, "<p class=\"facts\">{}</p>", text(&circumstances(report)))?;
    let limit = report.limits.max_map_count.map_or("a number".to_owned(), grouped);
    writeln!(
        out,
        "<p class=\"note\"><b>Memory area (VMA)</b>: one stretch of a process's addresses with the same rights and the same \
         source. Linux allows each process {limit} of them (vm.max_map_count).</p></header>"
    )
}

fn advice(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let recommendation = &report.recommendation;
    writeln!(out, "<section id=\"do\" class=\"do\"><h2>What to do</h2>")?;
    for sentence in &recommendation.sentences {
        writeln!(out, "<p>{}</p>", prose(sentence))?;
    }
    for command in &recommendation.commands {
        writeln!(out, "<pre>{}</pre>", text(command))?;
    }
    writeln!(out, "</section>")
}

fn key_figures(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let one = |what: &str, value: String, class: &str, whose: &str, out: &mut dyn Write| {
        writeln!(out, "<div><dt>{what}</dt><dd{class}>{value}</dd><dd class=\"whose\">{whose}</dd></div>")
    };
    let bad = |bad: bool| if bad { " class=\"bad\"" } else { "" };
    let figure = |what: &str, value: String, out: &mut dyn Write| one(what, value, "", "", out);
    writeln!(out, "<dl>")?;
    figure("Limit", report.limits.max_map_count.map_or("\u{2013}".into(), grouped), out)?;
    let largest =
        report.processes.iter().filter(|it| it.map_count.peak.is_some()).max_by_key(|it| it.map_count.peak);
    if let Some((process, peak)) = largest.and_then(|it| Some((it, it.map_count.peak?))) {
        let (sampled, more) = (
            if process.map_count.exact { "" } else { "~" },
            if process.map_count.clipped { "+" } else { "" },
        );
        let share = process
            .map_count
            .percent_of_limit
            .map_or(String::new(), |share| format!(" <small>{share:.1} %</small>"));
        let value = format!("{sampled}{}{more}{share}", grouped(peak));
        let clipped = process.map_count.clipped;
        one("Largest peak", value, bad(clipped), &name(process.peak_comm()), out)?;
    }
    let folded = total(report.folded.iter().map(|sum| sum.processes));
    figure("Processes", grouped(total([report.processes.len() as u64, folded])), out)?;
    let refused = total(report.unrecovered().map(|it| it.count));
    let shown = match refused {
        0 if report.locking_failures_may_be_missing() => "\u{2013}".into(),
        refused => grouped(refused),
    };
    one("Refused calls", shown, bad(refused > 0), "", out)?;
    match total(report.processes.iter().filter_map(|it| it.unmap_leaked_bytes)) {
        0 => {}
        leaked => figure("Not given back", bytes(leaked), out)?,
    }
    if !report.budgets.is_empty() {
        let held = report.budgets.iter().filter(|demand| demand.held).count() as u64;
        figure("Budgets held", format!("{} <small>of {}</small>", grouped(held), report.budgets.len()), out)?;
    }
    writeln!(out, "</dl>")
}

/// Why calls were refused, and from where.
fn refusals(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let all: Vec<&Failure> = report.unrecovered().collect();
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section id=\"refused\"><h2>Refused calls</h2>")?;
    for (number, failure) in all.iter().take(REFUSALS).enumerate() {
        let who = match failure.processes {
            1 => format!("{} (pid {})", name(&failure.comm), failure.pid),
            n => count(n, "process", "processes"),
        };
        writeln!(
            out,
            "<h3 id=\"r{0}\"><span class=\"n\">{0}</span>{1} \u{d7} {2} in {who}</h3>\n<p>{3}{4}</p>",
            number + 1,
            grouped(failure.count),
            text(&failure.syscall),
            if failure.certain { "" } else { "Probably: " },
            text(&failure.sentence)
        )?;
        if let Some(cure) = &failure.cure {
            writeln!(out, "<p><b>Cure:</b> {}</p>", prose(cure))?;
        }
        if let Some(holders) = &failure.holders {
            writeln!(out, "<p>Its VMAs then: {}</p>", text(&holders.sentence))?;
        }
        tables::stack(failure, out)?;
    }
    let rest = all.iter().skip(REFUSALS).map(|it| it.count);
    match total(rest) {
        0 => {}
        rest => writeln!(
            out,
            "<p class=\"soft\">and {} of other kinds: the JSON has all.</p>",
            count(rest, "call", "calls")
        )?,
    }
    writeln!(out, "</section>")
}

/// How far the figures can be trusted.
fn trust(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<section id=\"trust\"><h2>How far to trust this</h2>")?;
    let (mut lost, mut names) = (Vec::new(), Vec::new());
    for (name, &times) in report.coverage.lost.iter().filter(|(_, times)| **times > 0) {
        match LossReason::of_name(name).filter(|reason| reason.is_of_names_alone()) {
            Some(reason) => names.push(format!("{} \u{d7} {}", grouped(times), reason.words())),
            None => lost.push(times),
        }
    }
    let exact = match (report.coverage.exact_peaks, total(lost)) {
        (true, 0) if names.is_empty() => "Every peak is exact, and nothing was lost.".to_owned(),
        (true, 0) => "Every peak is exact, and no event was lost.".to_owned(),
        (true, lost) => format!(
            "Every peak is exact; {} lost, which touch no peak.",
            count(lost, "event was", "events were")
        ),
        (false, 0) => "Not every peak is exact: rows with ~ are the largest sample.".to_owned(),
        (false, lost) => {
            format!("Not every peak is exact; {} lost.", count(lost, "event was", "events were"))
        }
    };
    writeln!(out, "<p>{exact}</p>")?;
    if !names.is_empty() {
        writeln!(out, "<p>Not told, and missing in no count: {}.</p>", names.join(", "))?;
    }
    for note in &report.coverage.notes {
        writeln!(out, "<p class=\"note\">{}</p>", text(note))?;
    }
    tables::hooks(report, out)?;
    writeln!(out, "</section>")
}

/// The figures of the rows for programs, with the number of what is left out.
fn machine(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<serde_json::Value> = report
        .processes
        .iter()
        .take(MACHINE_ROWS)
        .map(|it| {
            let name = crate::output::text::page::without_middle(&it.comm, 64);
            serde_json::json!({"pid": it.pid, "comm": name, "peak": it.map_count.peak, "exact": it.map_count.exact,
                               "clipped": it.map_count.clipped})
        })
        .collect();
    let left_out = report.processes.len() - rows.len();
    let document = serde_json::json!({"schema": "vmaudit.page", "version": 1, "limit": report.limits.max_map_count,
                                      "processes": rows, "left_out": left_out as u64});
    let line = crate::output::json::line(&document);
    writeln!(out, "<script type=\"application/json\" id=\"figures\">{}</script>", json(&line))
}

#[cfg(test)]
mod tests;
