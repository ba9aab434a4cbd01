//! Commands that a step prints.

use std::io::{self, Write};

use crate::text::{clean, count};

/// Annotations of one kind that a step shows.
pub(super) const MOST: usize = 10;

/// As many as are shown; the last one says how many are not.
pub(super) fn errors(all: Vec<(String, String)>, out: &mut dyn Write) -> io::Result<()> {
    let shown = if all.len() > MOST { MOST - 1 } else { all.len() };
    for (title, sentence) in all.iter().take(shown) {
        writeln!(out, "::error title={}::{}", property(title), data(sentence))?;
    }
    match (all.len() - shown) as u64 {
        0 => Ok(()),
        more => {
            let more = format!(
                "{} not shown here: GitHub drops what is over 10",
                count(more, "more is", "more are")
            );
            writeln!(out, "::error title={}::{}", property("vmaudit"), data(&more))
        }
    }
}

/// A command's text: what ends it is written as its number.
pub(super) fn data(text: &str) -> String {
    clean(text).replace('%', "%25")
}

/// A command's property: neither the end of it nor of the list.
pub(super) fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_no_command_and_begin_none() {
        assert_eq!(data("100 %\n::error::x"), "100 %25\\x0a::error::x");
        assert_eq!(property("a: b, c"), "a%3A b%2C c");
    }

    #[test]
    fn no_more_than_are_shown_and_none_is_hidden_without_a_word() {
        for (all, lines) in [(0, 0), (10, 10), (11, 10), (500, 10)] {
            let mut out = Vec::new();
            errors(vec![("t".to_owned(), "s".to_owned()); all], &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), lines);
            assert_eq!(text.contains("not shown here"), all > 10, "{text}");
        }
    }
}
