//! Words of strangers in Markdown.

use crate::text::clean;

/// Words that stand for themselves. Names come from strangers: whatever Markdown or HTML would take for its own is
/// escaped, and nothing steers a terminal that shows the file.
pub(super) fn plain(text: &str) -> String {
    let mut escaped = String::new();
    for c in clean(text).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            // No link to a person or an issue that happens to be called so.
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_strangers_name_makes_no_markup() {
        assert_eq!(plain("a|b <img> *x* @ann [l](u)"), "a\\|b &lt;img&gt; \\*x\\* &#64;ann \\[l\\](u)");
        assert!(!plain("x\u{1b}[2J\n# y").contains(['\u{1b}', '\n']));
    }
}
