//! Who made the VMAs of the processes that came near the limit: a picture of the stacks, and a table behind it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::escape::{name, prose, text};
use crate::model::report::{Process, Report};
use crate::output::flame::{Drawing, Flame, left_out};
use crate::output::makers::{WHAT, rows, stacks_of, told};
use crate::output::text::page::without_middle;
use crate::text::{count, grouped};

/// Processes told of.
const PROCESSES: usize = 3;
/// Rows of a table.
const ROWS: usize = 20;
/// Parts of a picture; the upper ones.
const PARTS: usize = 400;
/// Columns of a function's name in it.
const NAME: usize = 60;
/// Widths of the picture on a page and on a phone, pixels, with their classes.
const WIDTHS: [(u64, &str); 2] = [(1064, "wide"), (358, "narrow")];

/// From where the VMAs of a peak came.
pub(super) fn makers(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let told = told(report);
    if told.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section id=\"from\"><h2>From where the VMAs came</h2>")?;
    for process in told.iter().take(PROCESSES) {
        writeln!(out, "<h3>{} (pid {})</h3>", name(&process.comm), process.pid)?;
        picture(process, out)?;
        table(process, out)?;
    }
    writeln!(out, "<p class=\"note\">{WHAT}</p>")?;
    let more = told.len().saturating_sub(PROCESSES) as u64;
    if more > 0 {
        let more = count(more, "more process", "more processes");
        writeln!(out, "<p class=\"soft\">and {more}: the JSON has all.</p>")?;
    }
    writeln!(out, "</section>")
}

/// Callers above, the call below and darkest; the same twice, for a page and for a phone.
fn picture(process: &Process, out: &mut dyn Write) -> io::Result<()> {
    let mut flame = Flame::default();
    stacks_of(process).for_each(|(names, vmas)| flame.add(names, vmas));
    for (width, class) in WIDTHS {
        let drawing = Drawing::new(&flame, ("VMA", "VMAs"), (width, PARTS));
        let height = drawing.height();
        writeln!(
            out,
            "<svg class=\"flame {class}\" viewBox=\"0 0 {width} {height}\" width=\"100%\" role=\"img\">\
             <title>Who made the VMAs of {}</title><desc>Callers above, the call below; width: its share of {}. The table has the same.</desc>",
            text(&without_middle(&process.comm, NAME)),
            count(flame.weight(), "VMA", "VMAs")
        )?;
        drawing.write((0, 0), out)?;
        writeln!(out, "</svg>")?;
        if let Some(left) = left_out(drawing.left_out).filter(|_| class == "wide") {
            writeln!(out, "<p class=\"note\">{left}</p>")?;
        }
    }
    Ok(())
}

fn table(process: &Process, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<div class=\"scroll\"><table class=\"blocks\" role=\"table\" data-sort><caption>Innermost function first.</caption><thead><tr><th class=\"r\">At the peak</th>\
         <th class=\"r\">Share</th><th>Call</th><th>Where</th></tr></thead><tbody>"
    )?;
    let rows = rows(process, ROWS);
    // What holds of several is said once.
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().flat_map(|row| &row.notes).for_each(|note| *times.entry(note).or_default() += 1);
    for row in &rows {
        let place: Vec<String> = row.place(NAME).iter().map(|function| name(function)).collect();
        let own = row.notes.iter().filter(|note| times.get(note.as_str()) == Some(&1));
        let notes: String = own.map(|note| format!("<span class=\"sub\">{}</span>", prose(note))).collect();
        writeln!(
            out,
            "<tr role=\"row\"><td role=\"cell\" class=\"r\" data-v=\"{}\">{}</td><td role=\"cell\" class=\"r\">{}</td><td role=\"cell\" class=\"call\">{}</td><td role=\"cell\">{}{notes}</td></tr>",
            row.count,
            grouped(row.count),
            row.share(),
            name(row.call()),
            place.join(" \u{2190} ")
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    for (note, _) in times.into_iter().filter(|(_, times)| *times > 1) {
        writeln!(out, "<p class=\"note\">{}</p>", prose(note))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{Frame, Maker};
    use crate::output::makers::tests::grown_run;

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        makers(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_picture_for_each_width_and_a_table_with_the_same() {
        let page = page(&grown_run());
        assert_eq!((page.matches("<svg").count(), page.matches("<table").count()), (2, 1), "{page}");
        assert!(
            page.contains("<title>main: 59,000 VMAs, 90.") && page.contains("[callers not known]"),
            "{page}"
        );
        for part in ["64,000", "guard_page pool.c:9", "not sampled", "there when it began", "Java code"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn strangers_names_are_text_and_many_of_them_are_bounded() {
        let mut report = grown_run();
        let process = &mut report.processes[0];
        let one = process.makers[0].clone();
        process.makers = (0..40)
            .map(|n| {
                let name = |k| format!("{n}.{k}</text><script>{}\"'&\u{202e}\u{1b}", "x".repeat(400));
                let stack = (0..128).map(|k| Frame { symbol: Some(name(k)), ..Frame::bare(k) }).collect();
                Maker {
                    stack,
                    syscall: Some("</svg><script>".into()),
                    stack_notes: vec![name(0)],
                    ..one.clone()
                }
            })
            .collect();
        report.processes = vec![report.processes[0].clone(); 5];
        let page = page(&report);
        assert!(!page.contains("<script") && !page.contains(" style=") && !page.contains('\u{202e}'));
        assert!(page.len() < 1 << 20, "{}", page.len());
    }
}
