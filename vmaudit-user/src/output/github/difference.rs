//! A comparison as annotations.

use std::io::{self, Write};

use super::command::{data, errors};
use crate::model::difference::{Change, Difference};
use crate::output::difference::made;
use crate::text::count;

/// GitHub shows ten notices of a step, and the answer is one.
const MOST_MADE: usize = 5;
/// Columns of a function.
const ROOM: usize = 80;

/// An error for each reason that closes the gate, and the answer.
pub(super) fn write(it: &Difference, out: &mut dyn Write) -> io::Result<()> {
    let title = |name: &Option<String>| match name {
        Some(name) => format!("vmaudit diff: {name}"),
        None => "vmaudit diff".to_owned(),
    };
    let all = it.breaches.iter().map(|breach| (title(&breach.name), breach.sentence.clone()));
    errors(all.collect(), out)?;
    for row in it.makers.iter().take(MOST_MADE) {
        let (what, place) = made(row, ROOM);
        writeln!(out, "::notice title=vmaudit diff%3A who made it::{}", data(&format!("{what}: {place}")))?;
    }
    if let Some(more) = it.makers.len().checked_sub(MOST_MADE).filter(|more| *more > 0) {
        let more = count(more as u64, "more place", "more places");
        writeln!(out, "::notice title=vmaudit diff%3A who made it::{more}, in the JSON")?;
    }
    let kind = if it.verdict == Change::Worse { "warning" } else { "notice" };
    writeln!(out, "::{kind} title=vmaudit diff::{}", data(&it.sentence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::compare::{Asked, compare};
    use crate::model::difference::Tolerance;
    use crate::output::makers::tests::grown_run;

    #[test]
    fn what_is_left_out_is_counted() {
        let (mut had, mut has) = (grown_run(), grown_run());
        had.processes[0].map_count.clipped = false;
        has.processes[0].map_count.clipped = false;
        let some = has.processes[0].makers[0].clone();
        for n in 0..7 {
            let mut more = some.clone();
            more.count = 20_000 + n;
            more.stack[2].symbol = Some(format!("f{n}"));
            has.processes[0].makers.push(more);
        }
        let asked = Asked { tolerance: Tolerance { percent: 5.0, vmas: 10 }, fail_over: None };
        let mut out = Vec::new();
        write(&compare(("a", &had), ("b", &has), &asked), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let who =
            text.lines().filter(|line| line.starts_with("::notice title=vmaudit diff%3A who made it::"));
        let who: Vec<&str> = who.collect();
        assert!(who.len() == 6 && who[5].ends_with("::2 more places, in the JSON"), "{text}");
    }
}
