//! Where the lines go, and how many of them: `--max-bytes` ends the output, a terminal gets no more than it can show.

use std::{
    io::{self, BufWriter, Write},
    time::{Duration, Instant},
};

use serde_json::json;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
use vmaudit_user::os::destination::Destination;
use vmaudit_user::output;
use vmaudit_user::text;

use crate::cli::values::LEAST_BYTES;

/// Lines that a terminal is given in a second; more would only scroll by, and keep the terminal busy long after.
const TERMINAL_LINES: u64 = 1000;
/// Kept of `--max-bytes` for what is said at the end, bytes.
const FOR_THE_END: u64 = LEAST_BYTES / 2;

/// The output of `trace`.
pub struct Lines {
    out: BufWriter<Box<dyn Write>>,
    json: bool,
    /// Bytes that may be written; `None` without a limit.
    room: Option<u64>,
    /// Lines that found no room, and their bytes.
    left_out: (u64, u64),
    /// Lines in a second; `None` without a limit.
    per_second: Option<u64>,
    /// Columns of a terminal: longer lines go on below, indented. A line in a pipe or a file is one line.
    columns: Option<usize>,
    second: Instant,
    lines: u64,
    skipped: u64,
    /// The first write that failed; nothing is written after it.
    broken: Option<io::Error>,
}

impl Lines {
    pub fn new(destination: Destination, json: bool, max_bytes: Option<u64>) -> Self {
        let per_second = destination.is_terminal().then_some(TERMINAL_LINES);
        let columns = destination.columns().filter(|_| !json);
        Self { columns, ..Self::to(Box::new(destination), json, (max_bytes, per_second)) }
    }

    /// As on a terminal of so many columns; `None`: as in a file.
    #[cfg(test)]
    pub fn of_width(out: Box<dyn Write>, columns: Option<usize>) -> Self {
        Self { columns, ..Self::to(out, false, (None, None)) }
    }

    fn to(out: Box<dyn Write>, json: bool, (max_bytes, per_second): (Option<u64>, Option<u64>)) -> Self {
        Self {
            out: BufWriter::with_capacity(1 << 16, out),
            json,
            room: max_bytes.map(|most| most.saturating_sub(FOR_THE_END)),
            left_out: (0, 0),
            per_second,
            columns: None,
            second: Instant::now(),
            lines: 0,
            skipped: 0,
            broken: None,
        }
    }

    /// Writes one line, if there is room for it.
    pub fn line(&mut self, line: &str, now: Instant) {
        self.second_over(now);
        if self.per_second.is_some_and(|most| self.lines >= most) {
            self.skipped += 1;
            return;
        }
        self.lines += 1;
        self.with_room(line);
    }

    /// Says what a terminal was spared in the second that is over.
    pub fn second_over(&mut self, now: Instant) {
        if self.per_second.is_none() || now.saturating_duration_since(self.second) < Duration::from_secs(1) {
            return;
        }
        (self.second, self.lines) = (now, 0);
        self.say_skipped();
    }

    fn say_skipped(&mut self) {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 0 {
            let line = if self.json {
                output::json::line(&json!({"type": "not_shown", "lines": skipped}))
            } else {
                let lines = text::count(skipped, "line", "lines");
                format!("[{lines} not shown here: more than a terminal can; a file (-o) gets all]")
            };
            self.with_room(&line);
        }
    }

    fn with_room(&mut self, line: &str) {
        let bytes = line.len() as u64 + 1;
        match &mut self.room {
            // A shorter one may still fit, but the output ends in one place.
            Some(room) if *room < bytes || self.left_out.0 > 0 => {
                self.left_out.0 += 1;
                self.left_out.1 += bytes;
            }
            Some(room) => {
                *room -= bytes;
                self.write(line);
            }
            None => self.write(line),
        }
    }

    fn write(&mut self, line: &str) {
        let parts = match self.columns {
            Some(columns) => broken(line, columns),
            None => vec![line.to_owned()],
        };
        for part in parts {
            if self.broken.is_none()
                && let Err(e) = writeln!(self.out, "{part}")
            {
                self.broken = Some(e);
            }
        }
    }

    /// For what is said at the end.
    pub fn columns(&self) -> usize {
        self.columns.unwrap_or(100)
    }

    pub fn flush(&mut self) {
        if let Err(e) = self.out.flush() {
            self.broken.get_or_insert(e);
        }
    }

    /// People look at it directly.
    pub fn is_terminal(&self) -> bool {
        self.per_second.is_some()
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Says what was left out, and the last line, for which there always is room.
    pub fn end(mut self, last: &str) -> io::Result<()> {
        self.say_skipped();
        let (lines, bytes) = self.left_out;
        if lines > 0 {
            let line = if self.json {
                output::json::line(&json!({"type": "max_bytes", "lines": lines, "bytes": bytes}))
            } else {
                let lines = text::count(lines, "more line", "more lines");
                format!("[--max-bytes is reached: {lines}, {}, not written]", text::bytes(bytes))
            };
            self.write(&line);
        }
        // It has lines of its own.
        self.columns = None;
        self.write(last);
        self.flush();
        self.broken.map_or(Ok(()), Err)
    }
}

/// `line` in pieces of so many columns, broken between words where that is possible; each after the first is indented.
fn broken(line: &str, columns: usize) -> Vec<String> {
    const INDENT: &str = "        ";
    let columns = columns.max(40);
    let mut parts = Vec::new();
    let mut rest = line.to_owned();
    while rest.width() > columns {
        let mut used = 0;
        let fits = |(_, c): &(usize, char)| {
            used += c.width().unwrap_or(0);
            used <= columns
        };
        let most =
            rest.char_indices().take_while(fits).last().map_or(rest.len(), |(at, c)| at + c.len_utf8());
        let (head, _) = rest.split_at(most);
        // A space right behind the last column ends a word as well.
        let next_is_space = rest.get(most..).is_some_and(|tail| tail.starts_with(' '));
        let at = match head.rfind(' ') {
            _ if next_is_space => most,
            Some(at) if head.get(..at).is_some_and(|head| !head.trim().is_empty()) => at,
            _ => most,
        };
        let (head, tail) = rest.split_at(at);
        let tail = format!("{INDENT}{}", tail.trim_start());
        parts.push(head.trim_end().to_owned());
        if tail.len() >= rest.len() {
            rest = tail;
            break;
        }
        rest = tail;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, rc::Rc};

    #[derive(Clone, Default)]
    struct Page(Rc<RefCell<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `said` leaves on the page.
    fn page(bounds: (Option<u64>, Option<u64>), json: bool, say: impl FnOnce(&mut Lines)) -> String {
        let page = Page::default();
        let mut lines = Lines::to(Box::new(page.clone()), json, bounds);
        say(&mut lines);
        lines.end("the end").unwrap();
        String::from_utf8(page.0.take()).unwrap()
    }

    #[test]
    fn the_output_ends_at_its_size_and_says_what_is_missing() {
        let now = Instant::now();
        for json in [false, true] {
            let text = page((Some(10_000), None), json, |lines| {
                (0..500).for_each(|_| lines.line(&"x".repeat(99), now));
                lines.line("short", now);
            });
            assert!(text.len() <= 10_000, "{}", text.len());
            let whole = text.lines().filter(|line| line.starts_with("xxx")).count();
            assert_eq!(whole, 79, "all that fits");
            let [missing, end] = text.lines().skip(whole).collect::<Vec<_>>().try_into().unwrap();
            assert_eq!(end, "the end");
            let said = if json {
                r#"{"bytes":42106,"lines":422,"type":"max_bytes"}"#
            } else {
                "[--max-bytes is reached: 422 more lines, 41.1 KiB, not written]"
            };
            assert_eq!(missing, said);
        }
    }

    #[test]
    fn a_long_line_goes_on_below_and_loses_nothing() {
        let call =
            "mmap(0x7f00ea01e000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0)";
        let line =
            format!("22:18:31.246   28868 java            G1 Service      {call} = -1 ENOMEM: 65,531 VMAs");
        for columns in [40, 80, 100, 120] {
            let parts = broken(&line, columns);
            assert!(parts.len() > 1 && parts.iter().all(|part| part.width() <= columns), "{parts:?}");
            // At 40 a word is broken, too.
            let bare = |text: &str| text.replace(' ', "");
            assert_eq!(bare(&parts.concat()), bare(&line), "{columns}");
            assert!(
                columns < 80
                    || parts
                        .iter()
                        .any(|part| part.contains(" MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_NORESERVE,"))
            );
        }
        assert_eq!(broken("short", 80), ["short"]);
        let word = "x".repeat(200);
        assert_eq!(broken(&word, 80).iter().map(|part| part.trim().len()).sum::<usize>(), 200);
        assert_eq!(broken("語語語語語語語語語語語語語語語語語語語語 語", 40).len(), 2);
    }

    #[test]
    fn without_a_limit_everything_is_written() {
        let now = Instant::now();
        let text = page((None, None), false, |lines| (0..5000).for_each(|_| lines.line("x", now)));
        assert_eq!(text.lines().count(), 5001);
    }

    #[test]
    fn a_terminal_gets_so_many_lines_in_a_second_and_the_number_of_the_others() {
        let start = Instant::now();
        let text = page((None, Some(10)), false, |lines| {
            (0..25).for_each(|_| lines.line("x", start));
            let next = start + Duration::from_secs(2);
            (0..3).for_each(|_| lines.line("y", next));
        });
        let (shown, rest) = text.split_at(20);
        assert_eq!(shown, "x\n".repeat(10));
        let said =
            "[15 lines not shown here: more than a terminal can; a file (-o) gets all]\ny\ny\ny\nthe end\n";
        assert_eq!(rest, said);
    }
}
