//! Prometheus' text format 0.0.4 and OpenMetrics 1.0: names, escaping, and what differs between them.

use std::fmt::Write as _;

use crate::text::clean;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.
    OpenMetrics,
}

impl Exposition {
    /// For the header `Content-Type`; Prometheus 3 refuses a page without.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What the header `Accept` asks for; what nobody here speaks is answered with text, which everybody reads.
    pub fn accepted(accept: &str) -> Self {
        let weight = |range: &str| -> Option<(Self, u32)> {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next()?.to_ascii_lowercase();
            let (mut version, mut q) = (None, 1000);
            for part in parts {
                let Some((name, value)) = part.split_once('=') else { continue };
                match name.trim().to_ascii_lowercase().as_str() {
                    "version" => version = Some(value.trim().trim_matches('"').to_owned()),
                    // In thousandths, as HTTP has them.
                    "q" => {
                        let wanted = value.trim().parse::<f64>().ok().filter(|q| (0.0..=1.0).contains(q));
                        q = wanted.map_or(0, |q| (q * 1000.0).round() as u32);
                    }
                    _ => {}
                }
            }
            let is = |ours: &str| version.as_deref().is_none_or(|version| version == ours);
            match kind.as_str() {
                "application/openmetrics-text" if is("1.0.0") => Some((Self::OpenMetrics, q)),
                "text/plain" if is("0.0.4") => Some((Self::Text, q)),
                "text/*" | "*/*" => Some((Self::Text, q)),
                _ => None,
            }
        };
        let mut best = (Self::Text, 0);
        for (kind, q) in accept.split(',').filter_map(weight) {
            // Of equals the first.
            if q > best.1 {
                best = (kind, q);
            }
        }
        best.0
    }
}

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// May fall.
    Gauge,
    /// Only grows; its name ends in `_total`.
    Counter,
}

/// A page in the making.
#[derive(Debug)]
pub(crate) struct Page {
    exposition: Exposition,
    text: String,
    name: &'static str,
}

impl Page {
    pub(crate) fn new(exposition: Exposition) -> Self {
        Self { exposition, text: String::new(), name: "" }
    }

    /// Begins a family. `help` has neither quotes nor backslashes.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let named = match (self.exposition, kind) {
            (Exposition::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let _ = writeln!(self.text, "# HELP {named} {help}\n# TYPE {named} {kind}");
    }

    /// A figure of the family.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(self.name);
        for (n, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if n == 0 { '{' } else { ',' }, label(value));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The whole page.
    pub(crate) fn finish(mut self) -> String {
        if self.exposition == Exposition::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A stranger's text as a label's value.
pub(crate) fn label(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_given() {
        let (text, open) = (Exposition::Text, Exposition::OpenMetrics);
        for (accept, expected) in [
            ("", text),
            ("*/*", text),
            ("text/html, application/xhtml+xml, */*;q=0.8", text),
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                open,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                open,
            ),
            ("application/openmetrics-text; version=0.0.1", text),
            ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1", text),
            ("application/openmetrics-text;q=0,text/plain;q=0.1", text),
            ("APPLICATION/OpenMetrics-Text;Version=\"1.0.0\"", open),
            ("application/openmetrics-text;q=99", text),
            (";;;,=,q=", text),
        ] {
            assert_eq!(Exposition::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn strangers_text_stays_in_its_quotes() {
        let mut page = Page::new(Exposition::OpenMetrics);
        page.family("x_total", Kind::Counter, "Help.");
        page.sample(&[("group", "a\"} 1\nb\\\u{1b}[31m\u{202e}é")], 7);
        let text = page.finish();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.starts_with("# HELP x Help.\n# TYPE x counter\nx_total{group=\"a\\\"} 1"), "{text}");
        assert!(text.ends_with("é\"} 7\n# EOF\n") && !text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
}
