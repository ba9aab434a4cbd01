//! Text inside of XML.

use crate::text::clean;

/// Text that XML takes for nothing else; ends of lines stay. What it has no way to write
/// (<https://www.w3.org/TR/xml/#charsets>) is made visible.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\n' => safe.push('\n'),
            '\u{fffe}' | '\u{ffff}' => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => safe.push_str(&clean(c.encode_utf8(&mut [0; 4]))),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn no_name_makes_markup_or_what_xml_forbids() {
        assert_eq!(escaped("<a b='c'>&\u{1b}\u{ffff}"), "&lt;a b=&apos;c&apos;&gt;&amp;\\x1b\\u{ffff}");
    }
}
