//! Text of strangers, made safe to show.

/// `text` with everything that could steer a terminal (control characters, changes of writing direction) made visible.
/// Names of processes and files come from strangers; every one of them goes through here before it is shown.
pub fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !steers(c) => shown.push(c),
            '\0'..='\u{9f}' => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    shown
}

/// A character that a terminal obeys instead of showing it: controls of both sets, line and paragraph separators,
/// changes of writing direction.
pub fn steers(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Cuts a text to so many bytes at most, between two characters.
pub fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
}

/// Bytes as the kernel ends names, up to the first `\0`.
pub(crate) fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        for (most, kept) in [(0, ""), (1, "a"), (2, "a"), (3, "a\u{f6}"), (9, "a\u{f6}b")] {
            let mut text = "a\u{f6}b".to_owned();
            shorten(&mut text, most);
            assert_eq!(text, kept, "{most}");
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        assert_eq!(clean("a\x1b[31mb\n\u{9b}c\x7f"), "a\\x1b[31mb\\x0a\\x9bc\\x7f");
        assert_eq!(clean("\u{202e}txt\u{2066}\u{2028}"), "\\u{202e}txt\\u{2066}\\u{2028}");
        assert_eq!(clean("größe 日本"), "größe 日本");
    }
}
