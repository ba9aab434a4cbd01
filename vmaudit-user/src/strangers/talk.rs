//! What strangers say to a session: requests of scrapers, wishes for marks, environments of tests, answers of a symbol reader
//! that was taken over, budget files, names against patterns; and what the flight recorder makes of events.

use super::{assert_harmless, recordings};
use crate::domain::budget::file;
use crate::domain::process_filter::NamePattern;
use crate::domain::test_name::test_of;
use crate::enrich::symbols::demangle::NAME;
use crate::enrich::symbols::{FUNCTIONS, INLINED, taken};
use crate::model::event::Event;
use crate::model::session::Header;
use crate::session::flight::Flight;
use crate::session::{http, marks};
use crate::source::recording::packed;
use crate::text::clean;

/// A file of budgets: rows that limit something, of lines that are there, or a sentence that says where it is wrong.
pub fn budgets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split('\n').count() as u64;
    match file::rows(&text) {
        Err(why) => {
            let line = why.strip_prefix("line ").and_then(|rest| rest.split_once(", column "));
            let (line, rest) = line.unwrap_or_else(|| panic!("no place: {why:?}"));
            let line: u64 = line.parse().expect("a number");
            let (column, _) = rest.split_once(": ").expect("a column and a reason");
            let column: usize = column.parse().expect("a number");
            assert!((1..=lines).contains(&line), "{why:?}");
            let of_it = text.split('\n').nth(line as usize - 1).unwrap_or_default();
            assert!((1..=of_it.chars().count() + 1).contains(&column), "{why:?}");
            assert_harmless(&clean(&why));
        }
        Ok(rows) => {
            assert!(!rows.is_empty());
            for row in rows {
                assert!(!row.process.is_empty() && (1..=lines).contains(&row.line), "{row:?}");
                let growth = row.max_growth;
                assert!(growth.is_none_or(|growth| growth.is_finite() && growth >= 0.0), "{row:?}");
                assert!(row.max_percent.is_none_or(|percent| (0.0..=100.0).contains(&percent)), "{row:?}");
                let some = row.max_peak.is_some() || row.max_failures.is_some();
                assert!(some || growth.is_some() || row.max_percent.is_some(), "{row:?}");
                assert!(row.expires.is_none_or(|day| day.len() >= 10));
            }
        }
    }
}

/// A pattern and a name, apart by a zero: the same answer as by the plainest way to match one.
pub fn pattern(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, name) = text.split_once('\0').unwrap_or((&text, ""));
    let fits = NamePattern::whole(pattern).fits(name);
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    if pattern.len() * name.len() < 10_000 {
        assert_eq!(fits, plainly(&pattern, &name), "{text:?}");
    }
}

/// Row by row: which beginnings of the name the beginning of the pattern fits.
fn plainly(pattern: &[char], name: &[char]) -> bool {
    let mut fits: Vec<bool> = (0..=name.len()).map(|n| n == 0).collect();
    for &wanted in pattern {
        let mut next = vec![false; fits.len()];
        for n in 0..fits.len() {
            let before = n.checked_sub(1);
            next[n] = match wanted {
                '*' => fits[n] || before.is_some_and(|before| next[before]),
                wanted => {
                    before.is_some_and(|before| fits[before] && (wanted == '?' || name[before] == wanted))
                }
            };
        }
        fits = next;
    }
    fits.last() == Some(&true)
}

/// The environment of a process: the name of its test is short, and nothing that was not there.
pub fn environment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (path, folder) in
        [("/t/it-0123", None), ("/t/a.test", Some("/src")), (text.as_ref(), Some(text.as_ref()))]
    {
        if let Some(name) = test_of(bytes, path, folder) {
            assert!(!name.is_empty() && name.len() <= 512, "{name:?}");
        }
    }
}

/// A datagram for the socket of marks: a name of a bounded length, or a sentence of vmaudit's own.
pub fn wish(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match marks::named(&text) {
        Ok(name) => assert!(!name.is_empty() && name.len() <= 256 && text.contains(name)),
        Err(why) => assert_harmless(why),
    }
}

/// A request for metrics: one answer or none, whole, with a status; nobody waits for more of it.
pub fn request(bytes: &[u8]) {
    let answer = http::answer_to(bytes, "a page\n").expect("sockets and a runtime");
    let answer = answer.expect("it is over before the client's time is");
    if !answer.is_empty() {
        let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or_default();
        let known: [&[u8]; 7] = [b"200", b"400", b"404", b"405", b"414", b"431", b"503"];
        assert!(known.contains(&status), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.len() < 1 << 16);
}

/// What a symbol reader says that is not the one that was started: names are short, stacks too, and no more than was said.
pub fn symbol_answers(bytes: &[u8]) {
    /// A pipe takes so many without a reader.
    const ROOM: usize = 60_000;
    let bytes = &bytes[..bytes.len().min(ROOM)];
    let (names, stacks, done) = taken(bytes).expect("a pipe");
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(names.len() + stacks.len() + done <= lines);
    let short = |text: &str| text.chars().count() <= NAME;
    for name in names {
        assert!(name.inlined.len() <= INLINED && name.inlined.iter().all(|name| name.inlined.is_empty()));
        for name in [&name].into_iter().chain(&name.inlined) {
            assert!(short(&name.symbol) && name.file.as_deref().is_none_or(short), "{name:?}");
        }
    }
    assert!(stacks.iter().all(|addresses| *addresses <= FUNCTIONS));
}

/// Events, packed, on their way through the flight recorder: what it keeps of any is a whole recording that gives a report.
pub fn flight(bytes: &[u8]) {
    let mut events = Vec::new();
    let _ = packed::values(bytes, |event: Event, _| events.push(event));
    // Each is written many times over.
    events.truncate(64);
    let header = Header { stretch: None, ..recordings::header() };
    recordings::recording(&Flight::kept_of(&header, events).expect("memory and a folder for files"));
}
