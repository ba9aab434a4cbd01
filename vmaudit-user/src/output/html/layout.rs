//! Where in their address spaces the VMAs of notable processes lay: strips of addresses, and a table behind them.

use std::io::{self, Write};

use super::escape::{name, text};
use crate::model::report::{Layout, Moment, Process, Report};
use crate::model::vma_layout::Cluster;
use crate::output::text::page::without_middle;
use crate::text::{bytes, count, grouped, percent};

/// Processes told of.
const PROCESSES: usize = 3;
/// Columns of a process's name in a picture's title.
const NAME: usize = 60;

/// Where things lie in a picture, pixels.
struct Frame {
    class: &'static str,
    width: f64,
    /// Of the strips.
    left: f64,
    right: f64,
    /// From one strip to the next.
    step: f64,
    /// Of a strip.
    height: f64,
}

/// Words stand beside the strips.
const WIDE: Frame =
    Frame { class: "wide", width: 1064.0, left: 130.0, right: 724.0, step: 34.0, height: 20.0 };
/// Words stand above them.
const NARROW: Frame =
    Frame { class: "narrow", width: 358.0, left: 0.0, right: 358.0, step: 52.0, height: 20.0 };

/// Strips of those who hold most; nothing where nobody was looked at.
pub(super) fn layouts(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let all: Vec<(&Process, &Layout)> = report
        .processes
        .iter()
        .filter_map(|process| Some((process, process.layout.as_ref().filter(|it| !it.rows.is_empty())?)))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section id=\"layout\"><h2>Where the VMAs lay</h2>")?;
    for (process, layout) in all.iter().take(PROCESSES) {
        writeln!(
            out,
            "<h3>{} (pid {})</h3>\n<p class=\"note\">{}</p>",
            name(&process.comm),
            process.pid,
            when(layout)
        )?;
        for frame in [WIDE, NARROW] {
            picture(process, layout, &frame, out)?;
        }
        table(layout, out)?;
    }
    writeln!(
        out,
        "<p class=\"note\">Each strip is a stretch of addresses with wide empty space before and behind it, on a scale of its own; the \
         higher a mark, the more VMAs begin there.</p>"
    )?;
    let more = all.len().saturating_sub(PROCESSES) as u64;
    if more > 0 {
        let more = count(more, "more process", "more processes");
        writeln!(out, "<p class=\"soft\">and {more}: the JSON has all.</p>")?;
    }
    writeln!(out, "</section>")
}

/// Of what moment it is, and how much of the whole.
fn when(layout: &Layout) -> String {
    let after = match layout.moment {
        Moment::Refusal => "soon after a refused call",
        Moment::SessionEnd => "when the session was over",
    };
    let read = count(layout.vmas_read, "VMA", "VMAs");
    let whole = match layout.complete {
        true => format!("{read}, which are all"),
        false => format!("the first {read}; there may be more at higher addresses"),
    };
    let hidden = if layout.rows.iter().all(|row| row.start.is_some()) {
        ""
    } else {
        " Its addresses are not the caller's to know."
    };
    format!("As of {:.3} s, {after}: {whole}.{hidden}", layout.at_s)
}

/// Cells that addresses of the row lie in.
fn used(row: &Cluster) -> &[u64] {
    let used = usize::try_from(row.bytes.div_ceil(row.cell_bytes.max(1))).unwrap_or(usize::MAX);
    row.cells.get(..used.max(1)).unwrap_or(&row.cells)
}

/// How many VMAs, in how much room.
fn figures(row: &Cluster) -> String {
    format!("{} in {}", count(row.vmas, "VMA", "VMAs"), bytes(row.bytes))
}

fn picture(process: &Process, layout: &Layout, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    let most = layout.rows.iter().flat_map(|row| &row.cells).copied().max().unwrap_or(0);
    let Frame { class, width, left, right, step, height } = *frame;
    let beside = left > 0.0;
    let all = step * layout.rows.len() as f64;
    writeln!(
        out,
        "<svg class=\"strips {class}\" viewBox=\"0 0 {width} {all}\" width=\"100%\" role=\"img\"><title>Where the VMAs of {} lay</title>\
         <desc>One strip for each stretch of addresses, the lowest first; the table below has the same figures.</desc>",
        text(&without_middle(&process.comm, NAME))
    )?;
    for (n, row) in layout.rows.iter().enumerate() {
        let top = step * n as f64 + if beside { 4.0 } else { 24.0 };
        let base = top + height;
        let start = address(row.start);
        let said = figures(row);
        match beside {
            true => writeln!(
                out,
                "<text class=\"address\" x=\"{:.1}\" y=\"{:.1}\">{start}</text><text x=\"{:.1}\" y=\"{:.1}\">{said}</text>",
                left - 10.0,
                base - 5.0,
                right + 12.0,
                base - 5.0
            )?,
            false => writeln!(out, "<text x=\"0\" y=\"{:.1}\">{start}: {said}</text>", top - 6.0)?,
        }
        write!(
            out,
            "<path class=\"room\" d=\"M{left:.1} {base:.1}H{right:.1}\"/><path class=\"there\" d=\"{}\"/>",
            marks(used(row), most, (left, right), base, height)
        )?;
        writeln!(out)?;
    }
    writeln!(out, "</svg>")
}

/// One mark for each cell in which VMAs begin; its height by how often their number doubles.
fn marks(cells: &[u64], most: u64, (left, right): (f64, f64), base: f64, height: f64) -> String {
    const LEAST: f64 = 3.0;
    let each = (right - left) / cells.len().max(1) as f64;
    let doublings = |vmas: u64| (vmas as f64).log2();
    let marks = cells.iter().enumerate().filter(|(_, vmas)| **vmas > 0).map(|(n, vmas)| {
        let share = if most > 1 { doublings(*vmas) / doublings(most) } else { 1.0 };
        let tall = LEAST + share.clamp(0.0, 1.0) * (height - LEAST);
        let (x, wide) = (left + each * n as f64, (each - 1.0).max(1.0));
        // One figure of all: there are thousands of marks, and what lies on its base has no area.
        format!("H{x:.1}v-{tall:.0}h{wide:.1}v{tall:.0}")
    });
    std::iter::once(format!("M{left:.1} {base:.1}")).chain(marks).collect()
}

fn address(start: Option<u64>) -> String {
    start.map_or("\u{2013}".to_owned(), |start| format!("{start:#x}"))
}

fn table(layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<details><summary>The same as a table</summary><div class=\"scroll\"><table data-sort><caption>Stretches of addresses; empty \
         space lies between them.</caption><thead><tr><th>First address</th><th class=\"r\">VMAs</th><th class=\"r\">Share</th>\
         <th class=\"r\">From first to last</th><th class=\"r\">Of it mapped</th><th class=\"r\">Most VMAs begin in</th></tr></thead><tbody>"
    )?;
    for row in &layout.rows {
        let densest = row.cells.iter().copied().max().unwrap_or(0);
        writeln!(
            out,
            "<tr><td data-v=\"{}\">{}</td><td class=\"r\" data-v=\"{}\">{}</td><td class=\"r\">{} %</td><td class=\"r\" data-v=\"{}\">{}</td>\
             <td class=\"r\" data-v=\"{}\">{}</td><td class=\"r\">{}: {}</td></tr>",
            row.start.unwrap_or(0),
            address(row.start),
            row.vmas,
            grouped(row.vmas),
            percent(row.vmas, layout.vmas_read),
            row.bytes,
            bytes(row.bytes),
            row.mapped_bytes,
            bytes(row.mapped_bytes),
            bytes(row.cell_bytes),
            grouped(densest)
        )?;
    }
    writeln!(out, "</tbody></table></div></details>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::tests::clipped_run;

    fn cluster(start: Option<u64>) -> Cluster {
        Cluster {
            start,
            end: start.map(|start| start.saturating_add(5 << 20)),
            bytes: 5 << 20,
            vmas: 1025,
            mapped_bytes: 1 << 20,
            cell_bytes: 1 << 20,
            cells: vec![1, 0, 1024, 0, 0, 0, 0, 0],
        }
    }

    fn laid(rows: Vec<Cluster>) -> Layout {
        Layout { at_s: 1.5, moment: Moment::Refusal, vmas_read: 1025, complete: true, rows }
    }

    fn page(report: &Report) -> String {
        let mut out = Vec::new();
        layouts(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn marks_stand_where_vmas_begin_and_the_most_of_them_is_highest() {
        let mut report = clipped_run();
        assert_eq!(page(&report), "", "nobody was looked at");
        report.processes[0].comm = "</title><script>".into();
        report.processes[0].layout = Some(laid(vec![cluster(Some(0x5555_0000_0000))]));
        let page = page(&report);
        // Five of eight cells are used: the first and the third of five.
        assert!(page.contains("M130.0 24.0H130.0v-3h117.8v3H367.6v-20h117.8v20\""), "{page}");
        assert_eq!((page.matches("<svg").count(), page.matches("<table").count()), (2, 1));
        for part in [
            ">0x555500000000<",
            "1,025 VMAs in 5 MiB",
            "As of 1.500 s, soon after a refused call: 1,025 VMAs, which are all.",
            "1 MiB: 1,024",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("<script") && !page.contains(" style="), "{page}");
    }

    #[test]
    fn hidden_addresses_are_none_and_what_was_cut_is_said() {
        let mut report = clipped_run();
        let cut = Layout { moment: Moment::SessionEnd, complete: false, ..laid(vec![cluster(None)]) };
        report.processes[0].layout = Some(cut);
        let page = page(&report);
        assert!(!page.contains("0x"), "{page}");
        assert!(
            page.contains("when the session was over: the first 1,025 VMAs; there may be more"),
            "{page}"
        );
        assert!(page.contains("not the caller&#39;s to know") || page.contains("not the caller's to know"));
    }

    #[test]
    fn figures_of_anybody_make_no_picture_that_is_none() {
        let mut report = clipped_run();
        let odd = |cells: Vec<u64>, bytes, cell_bytes| Cluster {
            bytes,
            cell_bytes,
            cells,
            ..cluster(Some(u64::MAX))
        };
        let rows = vec![odd(vec![], 1, 1), odd(vec![u64::MAX; 48], u64::MAX, 0), odd(vec![0], 0, u64::MAX)];
        let one = report.processes[0].clone();
        report.processes = vec![Process { layout: Some(laid(rows)), ..one }; 5];
        let page = page(&report);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
        assert!(page.contains("and 2 more processes") && page.len() < 50_000, "{}", page.len());
    }
}
