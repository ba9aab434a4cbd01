//! The picture of a flame: what the page and the picture of its own share.

use std::io::{self, Write};

use super::{Flame, Part};
use crate::output::text::page::without_middle;
use crate::output::xml::escaped;
use crate::text::{count, percent};

/// Height of a part, pixels.
pub(crate) const ROW: u64 = 18;
/// Of a character in the wider ones of usual fonts, pixels.
const CHARACTER: f64 = 7.6;
/// Columns of a name under the pointer.
const NAME: usize = 200;

/// The parts of a flame, and where they stand.
pub(crate) struct Drawing<'f> {
    flame: &'f Flame,
    parts: Vec<Part<'f>>,
    /// Parts that are too narrow, or too many.
    pub(crate) left_out: u64,
    /// One and several of what is counted.
    what: (&'static str, &'static str),
}

impl<'f> Drawing<'f> {
    /// One so many pixels wide, of so many parts at most: the upper ones. `what`: one and several of what is counted.
    pub(crate) fn new(
        flame: &'f Flame,
        what: (&'static str, &'static str),
        (width, most): (u64, usize),
    ) -> Self {
        let (mut parts, left_out) = flame.parts(width as f64);
        let left_out = left_out.saturating_add(parts.len().saturating_sub(most) as u64);
        parts.truncate(most);
        Self { flame, parts, left_out, what }
    }

    /// Pixels.
    pub(crate) fn height(&self) -> u64 {
        self.parts.iter().map(|part| part.level as u64 + 1).max().unwrap_or(0) * ROW
    }

    /// Writes it. The classes, for whoever has the palette: `fp` a process, `ff` a function, `fc` the call, `fu` nobody that
    /// has a name, `fl` what stands on them.
    pub(crate) fn write(&self, (left, top): (u64, u64), out: &mut dyn Write) -> io::Result<()> {
        for part in &self.parts {
            let class = match part.level {
                _ if part.name.starts_with('[') => "fu",
                0 => "fp",
                _ if part.innermost => "fc",
                _ => "ff",
            };
            let (x, y) = (left as f64 + part.x, top + ROW * part.level as u64);
            write!(
                out,
                "<g><title>{}: {}, {} %</title><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{ROW}\"/>",
                escaped(&without_middle(part.name, NAME)),
                count(part.weight, self.what.0, self.what.1),
                percent(part.weight, self.flame.weight()),
                part.width
            )?;
            let columns = ((part.width - 6.0) / CHARACTER).max(0.0) as usize;
            if columns >= 3 {
                let shown = escaped(&without_middle(part.name, columns));
                write!(out, "<text class=\"fl\" x=\"{:.1}\" y=\"{}\">{shown}</text>", x + 3.0, y + 13)?;
            }
            writeln!(out, "</g>")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_what_has_no_room_is_counted() {
        let mut flame = Flame::default();
        for n in 0..50 {
            let names = ["p", "[not known]", &format!("<script>{n:02}\u{202e}{}", "x".repeat(999)), "mmap"];
            flame.add(names.map(str::to_owned), 10);
        }
        let drawing = Drawing::new(&flame, ("VMA", "VMAs"), (1000, 40));
        let mut out = Vec::new();
        drawing.write((16, 5), &mut out).unwrap();
        let drawn = String::from_utf8(out).unwrap();
        assert_eq!((drawn.matches("<g>").count(), drawing.left_out, drawing.height()), (40, 62, 3 * ROW));
        assert!(!drawn.contains("<script") && !drawn.contains('\u{202e}') && drawn.len() < 40 * 600);
        for part in [
            "<title>p: 500 VMAs, 100.0 %</title>",
            "class=\"fp\" x=\"16.0\" y=\"5\"",
            "class=\"fu\"",
            ">p</text>",
        ] {
            assert!(drawn.contains(part), "{part}: {drawn}");
        }
    }
}
