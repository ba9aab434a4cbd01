//! Every change of the count by place, where that was asked for: what was added and removed from where.

use std::collections::BTreeSet;
use std::io;

use crate::model::report::{Changes, NoPlace, Process, Report};
use crate::output::makers::where_from;
use crate::output::text::page::{Colour, Page, name_pid};
use crate::text::{clean, count, grouped, total};

/// Processes told of, and places of each.
const PROCESSES: usize = 3;
const PLACES: usize = 10;
/// Columns of a place at least, and of a call's name.
const NARROWEST: usize = 24;
const CALL: usize = 10;
/// Sentences about the stacks of one process.
const NOTES: usize = 6;
/// Of a row with a further one.
const FURTHER: &str = " [+]";
const SEE: &str = "More is said of these: stack_notes in the JSON.";
/// Every change is in the table, so that nothing is sampled: see [`NoPlace::NotSampled`].
const NO_PLACE: &str = "no place (exec, kernel, others, lost)";
const WHAT: &str = "Every change is in it: what a place added may be removed from another.";

/// The processes that changed most.
pub(crate) fn changes(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    let mut told: Vec<&Process> = report.processes.iter().filter(|it| !it.changes.is_empty()).collect();
    if told.is_empty() {
        return Ok(());
    }
    told.sort_by_key(|process| std::cmp::Reverse(total(process.changes.iter().map(size))));
    page.blank()?;
    page.line("Who changed the count", Some(Colour::Bold))?;
    for process in told.iter().take(PROCESSES) {
        of_process(process, page)?;
    }
    page.paragraph("  ", "  ", WHAT, Some(Colour::Dim))?;
    if told.len() > PROCESSES {
        let more = count((told.len() - PROCESSES) as u64, "more process", "more processes");
        page.line(&format!("  and {more}, in the JSON"), Some(Colour::Dim))?;
    }
    Ok(())
}

/// The largest places, then all others, then what has none.
fn of_process(process: &Process, page: &mut Page<'_>) -> io::Result<()> {
    page.line(&format!("  {}", name_pid(&process.comm, process.pid)), None)?;
    let head = format!("    {:>10} {:>10}  {:<CALL$}  ", "ADDED", "REMOVED", "CALL");
    page.line(&format!("{head}WHERE"), Some(Colour::Dim))?;
    let (mut places, none): (Vec<&Changes>, Vec<&Changes>) =
        process.changes.iter().partition(|row| row.nobody.is_none());
    places.sort_by_key(|row| std::cmp::Reverse(size(row)));
    let rest = places.split_off(PLACES.min(places.len()));
    let mut notes = Notes::default();
    for row in places {
        let place = where_from(&row.stack, room(page)).join(" < ") + &notes.marks([row]);
        line((row.added, row.removed), &row.syscall, &place, None, page)?;
    }
    let of = |why| none.iter().filter(move |row| row.nobody == Some(why)).copied();
    let others: Vec<&Changes> = rest.iter().copied().chain(of(NoPlace::OtherPlaces)).collect();
    let other = match rest.len() as u64 {
        0 => "other places".to_owned(),
        told => format!("other places ({} in the JSON)", grouped(told)),
    };
    let other = other + &notes.marks(of(NoPlace::OtherPlaces));
    let (not_told, not_sampled): (Vec<_>, Vec<_>) =
        (of(NoPlace::NotTold).collect(), of(NoPlace::NotSampled).collect());
    let not_told_place = "place not told".to_owned() + &notes.marks(not_told.iter().copied());
    for (rows, place) in [(others, other), (not_told, not_told_place), (not_sampled, NO_PLACE.to_owned())] {
        let all = |of: fn(&Changes) -> u64| total(rows.iter().map(|row| of(row)));
        if !rows.is_empty() {
            line((all(|row| row.added), all(|row| row.removed)), "", &place, Some(Colour::Dim), page)?;
        }
    }
    for (n, note) in notes.told.iter().enumerate() {
        page.paragraph(&format!("    [{}] ", n + 1), "        ", &clean(note), Some(Colour::Dim))?;
    }
    if notes.more {
        page.paragraph(&format!("   {FURTHER} "), "        ", SEE, Some(Colour::Dim))?;
    }
    Ok(())
}

/// Sentences about the stacks of one process.
#[derive(Default)]
struct Notes<'r> {
    told: Vec<&'r str>,
    /// One found no room.
    more: bool,
}

impl<'r> Notes<'r> {
    /// ` [1]` for each sentence about the stacks of these rows.
    fn marks(&mut self, rows: impl IntoIterator<Item = &'r Changes>) -> String {
        let (mut marks, mut more) = (BTreeSet::new(), false);
        for note in rows.into_iter().flat_map(|row| &row.stack_notes) {
            let at = self.told.iter().position(|it| it == note).unwrap_or(self.told.len());
            if at == self.told.len() && at < NOTES {
                self.told.push(note);
            }
            more |= at >= NOTES;
            marks.insert(at);
        }
        self.more |= more;
        let further = if more { FURTHER } else { "" };
        marks.iter().filter(|at| **at < NOTES).map(|at| format!(" [{}]", at + 1)).collect::<String>()
            + further
    }
}

fn line(
    (added, removed): (u64, u64),
    call: &str,
    place: &str,
    colour: Option<Colour>,
    page: &mut Page<'_>,
) -> io::Result<()> {
    let head = format!("    {:>10} {:>10}  {:<CALL$}  ", grouped(added), grouped(removed), clean(call));
    page.paragraph(&head, &" ".repeat(NARROWEST), place, colour)
}

/// Columns of a function.
fn room(page: &Page<'_>) -> usize {
    const BEFORE: usize = 4 + 10 + 1 + 10 + 2 + CALL + 2;
    page.width.saturating_sub(BEFORE).max(NARROWEST)
}

fn size(row: &Changes) -> u64 {
    row.added.saturating_add(row.removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Frame;
    use crate::output::text::page::Style;
    use crate::output::text::tests::clean_run;

    fn row(added: u64, name: &str, notes: &[&str]) -> Changes {
        let frame = Frame { symbol: Some(name.into()), module: Some("/bin/a".into()), ..Frame::bare(1) };
        Changes {
            added,
            removed: 1,
            syscall: "mmap".into(),
            stack: vec![frame],
            stack_notes: notes.iter().map(|it| (*it).to_owned()).collect(),
            nobody: None,
        }
    }

    fn nobody(added: u64, call: &str, why: NoPlace) -> Changes {
        let (syscall, stack) = (call.to_owned(), Vec::new());
        Changes { nobody: Some(why), syscall, stack, ..row(added, "", &[]) }
    }

    fn shown(rows: Vec<Changes>) -> String {
        let mut report = clean_run();
        report.processes[0].changes = rows;
        let mut out = Vec::new();
        let style = Style::default();
        changes(&report, &mut Page { out: &mut out, style, width: style.paragraphs() }).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// However many places there are, what has none is a row, and all add up.
    #[test]
    fn what_has_no_place_is_always_told() {
        let mut rows: Vec<Changes> = (0..150).map(|n| row(200 - n, &format!("f{n}"), &[])).collect();
        rows.push(nobody(5, "mmap", NoPlace::OtherPlaces));
        rows.push(nobody(7, "brk", NoPlace::OtherPlaces));
        rows.push(nobody(90_000, "mmap", NoPlace::NotSampled));
        rows.push(nobody(3, "brk", NoPlace::NotSampled));
        let why = "Its place was not told.".to_owned();
        rows.extend(
            ["mmap", "brk"].map(|call| Changes {
                stack_notes: vec![why.clone()],
                ..nobody(300, call, NoPlace::NotTold)
            }),
        );
        let all = total(rows.iter().map(|row| row.added));
        let text = shown(rows);
        let table: Vec<&str> = text.lines().skip(4).take_while(|line| line.starts_with("     ")).collect();
        assert_eq!(table.len(), 13, "{text}");
        let added = |line: &&str| line[..14].trim().replace(',', "").parse::<u64>().unwrap();
        assert_eq!(total(table.iter().map(added)), all, "{text}");
        assert!(table[0].contains("f0") && table[10].ends_with("other places (140 in the JSON)"), "{text}");
        assert!(table[11].ends_with("place not told [1]") && table[11].contains("600"), "{text}");
        assert!(
            table[12].ends_with("no place (exec, kernel, others, lost)") && table[12].contains("90,003"),
            "{text}"
        );
        assert!(text.contains("\n    [1] Its place was not told.\n"), "{text}");
        assert!(!shown(vec![row(1, "f", &[])]).contains("other places"), "there are none");
    }

    /// Of a row that is one of several it is said, and the sentence once.
    #[test]
    fn rows_that_may_be_of_others_say_so() {
        let one_of = "The stack is that of one of these \u{1b}[31mchanges.";
        let text = shown(vec![row(9, "f", &[one_of]), row(8, "g", &[]), row(7, "h", &["Other.", one_of])]);
        let line = |name: &str| text.lines().find(|line| line.contains(&format!("  {name}"))).unwrap();
        assert!(line("f").ends_with("f [1]") && line("g").ends_with('g'), "{text}");
        assert!(line("h").ends_with("h [1] [2]"), "{text}");
        assert_eq!(text.matches("    [1] The stack is that of one").count(), 1, "{text}");
        assert!(text.contains("    [2] Other.") && !text.contains('\u{1b}'), "{text}");
        let many: Vec<String> = (0..5000).map(|n| format!("note {n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = shown(vec![row(9, "f", &many)]);
        assert!(text.contains("[6] note 5") && !text.contains("[7]"), "a file may have any number: {text}");
    }

    /// A row whose sentence found no room says that there is one.
    #[test]
    fn no_sentence_goes_without_a_mark() {
        let notes: Vec<String> = (0..6).map(|n| format!("note {n}")).collect();
        let mut rows: Vec<Changes> =
            notes.iter().enumerate().map(|(n, note)| row(90 - n as u64, "f", &[note])).collect();
        let text = shown(rows.clone());
        assert!(text.contains(" [6]") && !text.contains("[+]"), "{text}");
        rows.extend([row(9, "last", &["The stack is that of one.", "note 5"]), row(8, "none", &[])]);
        let why = "The report had no room for more rows of this process.".to_owned();
        rows.push(Changes { stack_notes: vec![why], ..nobody(5, "mmap", NoPlace::OtherPlaces) });
        let text = shown(rows);
        let ends =
            |name: &str, end: &str| text.lines().any(|line| line.contains(name) && line.ends_with(end));
        assert!(ends("last", "last [6] [+]") && ends("none", "none"), "{text}");
        assert!(ends("other places", "other places [+]"), "{text}");
        assert_eq!(
            text.matches("\n    [+] More is said of these: stack_notes in the JSON.\n").count(),
            1,
            "{text}"
        );
        let why = "The report had no room for more rows of this process.";
        let other = Changes { stack_notes: vec![why.into()], ..nobody(5, "mmap", NoPlace::OtherPlaces) };
        let text = shown(vec![row(9, "f", &[]), other]);
        assert!(text.contains("other places [1]\n") && text.contains(&format!("    [1] {why}\n")), "{text}");
    }
}
