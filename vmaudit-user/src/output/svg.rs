//! Flame graphs in one file: refused calls by place, and the VMAs of the peaks by who made them; callers above, the call below.
//! No script, nothing from the network; each part says its name and its figure under the pointer, and `.folded` has the same as a table.

use std::io::{self, Write};

use super::flame::{Drawing, Flame, ROW, left_out};
use super::folded::names;
use super::makers;
use super::places::places;
use super::xml::escaped;
use crate::model::report::Report;
use crate::output::document::Document;
use crate::output::text::page::{Style, wrapped};
use crate::output::text::verdict;
use crate::text::{clean, count};

/// Pixels.
const WIDTH: u64 = 1200;
/// At each side, pixels.
const MARGIN: u64 = 16;
/// Parts of a picture.
const PARTS: usize = 6000;
/// Columns of the sentences above.
const COLUMNS: usize = 150;

const STYLE: &str = "svg{color-scheme:light dark;background:#fdfcf9;font:12px system-ui,sans-serif}\
.h{font-size:15px;font-weight:600}.h,.fl{fill:#1c2024}.s{fill:#59606a;font-size:13px}\
rect{stroke:#fdfcf9}.fp{fill:#f4f2ec}.fu{fill:#dcdbd4}.fc+.fl{fill:#fdfcf9}.made .ff{fill:#d0dde8}.made .fc{fill:#1d5fa6}\
.refused .ff{fill:#f0c9d1}.refused .fc{fill:#a8123c}\
@media(prefers-color-scheme:dark){svg{background:#16181b}.h,.fl{fill:#e9e6df}.s{fill:#a6abb2}rect{stroke:#16181b}\
.fp{fill:#1e2125}.fu{fill:#34383e}.fc+.fl{fill:#16181b}.made .ff{fill:#2b3847}.made .fc{fill:#7fb6f7}\
.refused .ff{fill:#63303c}.refused .fc{fill:#ff8086}}";

/// One of them.
struct Picture {
    flame: Flame,
    told: String,
    /// One and several of what is counted.
    what: (&'static str, &'static str),
    class: &'static str,
}

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    let sentence = clean(&verdict(report));
    let pictures: Vec<Picture> = [Some(refused(report)), made(report)].into_iter().flatten().collect();
    let drawn: Vec<(&Picture, Drawing<'_>)> = pictures
        .iter()
        .map(|picture| {
            let room = (WIDTH - 2 * MARGIN, PARTS);
            (picture, Drawing::new(&picture.flame, picture.what, room))
        })
        .collect();
    let heading = wrapped("", "", &sentence, COLUMNS);
    let rows = |drawing: &Drawing<'_>| 3 + drawing.height() / ROW;
    let all: u64 = drawn.iter().map(|(_, drawing)| rows(drawing)).sum();
    let height = MARGIN + ROW * (heading.len() as u64 + 1 + all);
    let told: Vec<&str> = pictures.iter().map(|picture| picture.told.as_str()).collect();
    writeln!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-labelledby=\"t d\">\n<title id=\"t\">vmaudit: {}</title>\n\
         <desc id=\"d\">{}</desc>\n<style>{STYLE}</style>",
        escaped(&sentence),
        escaped(&told.join(" "))
    )?;
    let mut line = 0;
    for text in &heading {
        line += 1;
        say("h", text, line, out)?;
    }
    for (picture, drawing) in &drawn {
        line += 1;
        say("s", &picture.told, line, out)?;
        writeln!(out, "<g class=\"{}\">", picture.class)?;
        drawing.write((MARGIN, MARGIN + ROW * line + ROW / 2), out)?;
        writeln!(out, "</g>")?;
        line += rows(drawing) - 1;
        if let Some(text) = left_out(drawing.left_out) {
            say("s", &text, line, out)?;
        }
    }
    writeln!(out, "</svg>")
}

fn refused(report: &Report) -> Picture {
    let mut flame = Flame::default();
    places(report).for_each(|place| flame.add(names(&place), place.count));
    let told = match flame.weight() {
        0 if report.locking_failures_may_be_missing() => {
            "No refused call was seen; some cannot be seen here.".to_owned()
        }
        0 => "No call was refused.".to_owned(),
        calls => format!(
            "{} by place: callers above, the call below; width: its share.",
            count(calls, "refused call", "refused calls")
        ),
    };
    Picture { flame, told, what: ("call", "calls"), class: "refused" }
}

fn made(report: &Report) -> Option<Picture> {
    let mut flame = Flame::default();
    makers::stacks(report).for_each(|(names, vmas)| flame.add(names, vmas));
    let told = format!(
        "{} at the peaks, by who made them: callers above, the call below; width: its share.",
        count(flame.weight(), "VMA", "VMAs")
    );
    (flame.weight() > 0).then_some(Picture { flame, told, what: ("VMA", "VMAs"), class: "made" })
}

fn say(class: &str, text: &str, line: u64, out: &mut dyn Write) -> io::Result<()> {
    let y = MARGIN + ROW * line;
    writeln!(out, "<text class=\"{class}\" x=\"{MARGIN}\" y=\"{y}\">{}</text>", escaped(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Failure;
    use crate::output::text::tests::{clean_run, clipped_run};

    fn picture(report: &Report) -> String {
        let mut out = Vec::new();
        write(&Document::Report(report), &Style::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_strangers_name_is_text() {
        let mut report = clipped_run();
        report.failures[0].comm = "</text><script>x</script>\u{1b}\"'&\u{202e}".into();
        let text = picture(&report);
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;"), "{text}");
        assert!(!text.chars().any(|c| c != '\n' && crate::text::sanitize::steers(c)));
        for forbidden in [" style=", " on", "href", "url(", "@import"] {
            assert!(!text.contains(forbidden), "{forbidden}: {text}");
        }
    }

    #[test]
    fn where_nothing_was_refused_it_says_so() {
        assert!(picture(&clean_run()).contains("No call was refused."));
        let mut blind = clean_run();
        blind.coverage.exact_locking_calls = false;
        assert!(picture(&blind).contains("some cannot be seen here"));
    }

    #[test]
    fn a_picture_is_small_whatever_there_was() {
        let mut report = clipped_run();
        let one = report.failures[0].clone();
        report.failures = (0..20_000)
            .map(|pid| Failure { pid, comm: format!("{pid}{}", "x".repeat(200)), ..one.clone() })
            .collect();
        let size = picture(&report).len();
        assert!(size < 3 << 20, "{size}");
    }
}
