//! Lines, paragraphs and colours of a page.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::text::{clean, grouped};

/// How the text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences for colour.
    pub colour: bool,
    /// Columns to fill; less than 40 is treated as 40.
    pub width: usize,
    /// Processes and kinds of failure shown.
    pub top: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 80, top: 10 }
    }
}

pub(crate) const BOLD: &str = "1";

pub(crate) const RED: &str = "1;31";

pub(crate) const GREEN: &str = "1;32";

pub(crate) const YELLOW: &str = "1;33";

pub(crate) const DIM: &str = "2";

pub(crate) struct Page<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) style: Style,
    pub(crate) width: usize,
}

impl Page<'_> {
    pub(crate) fn blank(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    pub(crate) fn line(&mut self, text: &str, colour: Option<&str>) -> io::Result<()> {
        match colour.filter(|_| self.style.colour) {
            Some(colour) => writeln!(self.out, "\x1b[{colour}m{text}\x1b[0m"),
            None => writeln!(self.out, "{text}"),
        }
    }

    /// Wraps `head` + `text`; every line after the first begins with `indent`.
    pub(crate) fn paragraph(
        &mut self,
        head: &str,
        indent: &str,
        text: &str,
        colour: Option<&str>,
    ) -> io::Result<()> {
        let mut line = String::from(head);
        let mut used = head.width();
        let mut empty = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let width = word.width();
            if !empty && used + 1 + width > self.width {
                self.line(&line, colour)?;
                line = String::from(indent);
                used = indent.width();
                empty = true;
            }
            if !empty {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += width;
            empty = false;
        }
        self.line(line.trim_end(), colour)
    }
}

/// `text` cut to `columns`, with an ellipsis where something is missing.
pub(crate) fn shortened(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.into();
    }
    let mut short = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

pub(crate) fn seconds(seconds: f64) -> String {
    if seconds >= 100.0 {
        format!("{} s", grouped(seconds.round() as u64))
    } else if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.3} s")
    }
}

pub(crate) fn name_pid(comm: &str, pid: u32) -> String {
    format!("{} (pid {pid})", clean(comm))
}
