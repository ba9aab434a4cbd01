//! Words of strangers on a page.

use crate::output::text::page::without_middle;
use crate::text::clean;

/// Columns of a name.
const NAME: usize = 64;
/// Characters of a sentence; what a stranger put into it may be long.
const SENTENCE: usize = 2000;

/// Text that stands for itself: neither markup nor what steers a page.
pub(super) fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let shown = clean(text);
    for c in shown.chars().take(SENTENCE) {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    if shown.chars().nth(SENTENCE).is_some() {
        safe.push('…');
    }
    safe
}

/// The same of a sentence, with what stands between backticks as code.
pub(super) fn prose(sentence: &str) -> String {
    let safe = text(sentence);
    let parts: Vec<&str> = safe.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return safe;
    }
    let part = |(n, part): (usize, &&str)| {
        if n % 2 == 1 { format!("<code>{part}</code>") } else { (*part).to_owned() }
    };
    parts.iter().enumerate().map(part).collect()
}

/// A name: isolated from the direction of the text around it, without its middle where it is long.
pub(super) fn name(name: &str) -> String {
    format!("<bdi>{}</bdi>", text(&without_middle(&clean(name), NAME)))
}

/// JSON inside of a page: nothing that ends its element.
pub(super) fn json(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_markup_and_none_is_long() {
        assert_eq!(text("<a href='x'>&\"\u{202e}"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\\u{202e}");
        let long = name(&"<".repeat(500));
        assert!(long.starts_with("<bdi>&lt;") && long.matches("&lt;").count() < NAME, "{long}");
        assert_eq!(prose("a `b <c>` d"), "a <code>b &lt;c&gt;</code> d");
        assert_eq!((prose("a `b"), prose("a")), ("a `b".into(), "a".into()));
        assert_eq!(json("</script>"), "\\u003c/script\\u003e");
    }
}
