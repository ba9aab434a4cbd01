//! A comparison as annotations.

use std::io::{self, Write};

use super::command::{data, errors};
use crate::model::difference::{Change, Difference};
use crate::output::difference::made;

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
    let kind = if it.verdict == Change::Worse { "warning" } else { "notice" };
    writeln!(out, "::{kind} title=vmaudit diff::{}", data(&it.sentence))
}
