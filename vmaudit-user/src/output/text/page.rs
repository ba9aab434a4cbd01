//! Lines, paragraphs and colours of a page.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::text::{clean, grouped};

/// Longest name of a process that is shown in full, columns; the kernel's names are shorter unless they had to be
/// made visible.
pub(crate) const NAME_COLUMNS: usize = 24;

/// Frames of each stack, if nobody asks for another number.
pub const FRAMES: usize = 8;

/// How the text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences for colour.
    pub colour: bool,
    /// Columns to fill; less than 40 is treated as 40.
    pub width: usize,
    /// Rows of each table.
    pub top: usize,
    /// Frames of each stack.
    pub frames: usize,
    /// Also what touches nothing that is shown.
    pub verbose: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 80, top: 10, frames: FRAMES, verbose: false }
    }
}

/// A colour; what it means is said in the text as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Enough room.
    Green,
    /// Little room, or a doubt.
    Yellow,
    /// Hardly any room, or a warning.
    Red,
    /// A heading.
    Bold,
    /// Less important.
    Dim,
}

impl Colour {
    /// Its escape code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Green => "1;32",
            Self::Yellow => "1;33",
            Self::Red => "1;31",
            Self::Bold => "1",
            Self::Dim => "2",
        }
    }
}

impl Style {
    /// `text` in a colour.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", colour.code()) } else { text.to_owned() }
    }

    /// Columns of paragraphs; where a table may be of any width (a pipe) they are not.
    pub(crate) fn paragraphs(&self) -> usize {
        if self.width == usize::MAX { 100 } else { self.width.max(40) }
    }

    /// A stranger's text, made safe and cut to what is left of a line after `used` columns. The end of a path says
    /// more than its beginning, so a path loses its middle.
    pub(crate) fn fit(&self, text: &str, used: usize) -> String {
        cut(&clean(text), self.width.saturating_sub(used).max(12), Lost::Middle)
    }
}

/// A stranger's text in a column of a table: made safe, cut in the middle and filled up to so many columns.
pub(crate) fn column(text: &str, columns: usize) -> String {
    let shown = cut(&clean(text), columns, Lost::Middle);
    let room = columns.saturating_sub(shown.width());
    shown + &" ".repeat(room)
}

pub(crate) struct Page<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) style: Style,
    pub(crate) width: usize,
}

impl Page<'_> {
    pub(crate) fn blank(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    pub(crate) fn line(&mut self, text: &str, colour: Option<Colour>) -> io::Result<()> {
        match colour {
            Some(colour) => writeln!(self.out, "{}", self.style.paint(colour, text)),
            None => writeln!(self.out, "{text}"),
        }
    }

    /// Wraps `head` + `text`; every line after the first begins with `indent`.
    pub(crate) fn paragraph(
        &mut self,
        head: &str,
        indent: &str,
        text: &str,
        colour: Option<Colour>,
    ) -> io::Result<()> {
        for line in wrapped(head, indent, text, self.width) {
            self.line(&line, colour)?;
        }
        Ok(())
    }
}

/// The lines of `head` + `text` within `width` columns; each after the first begins with `indent`. A word that is longer
/// has a line of its own.
pub fn wrapped(head: &str, indent: &str, text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::from(head);
    let mut used = head.width();
    let mut empty = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let columns = word.width();
        if !empty && used + 1 + columns > width {
            lines.push(std::mem::replace(&mut line, String::from(indent)));
            used = indent.width();
            empty = true;
        }
        if !empty {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += columns;
        empty = false;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// Which part of a text that is too long is left out.
#[derive(Clone, Copy)]
enum Lost {
    Middle,
    End,
}

/// `text` cut to `columns`, with an ellipsis where its end is missing.
pub fn shortened(text: &str, columns: usize) -> String {
    cut(text, columns, Lost::End)
}

/// `text` cut to `columns`, with an ellipsis where its middle is missing.
pub(crate) fn without_middle(text: &str, columns: usize) -> String {
    cut(text, columns, Lost::Middle)
}

fn cut(text: &str, columns: usize, lost: Lost) -> String {
    if text.width() <= columns {
        return text.into();
    }
    let room = columns.saturating_sub(1);
    let front = match lost {
        Lost::Middle => columns / 3,
        Lost::End => room,
    };
    let within = |budget: usize| {
        let mut left = budget;
        move |c: &char| {
            let fits = left.checked_sub(c.width().unwrap_or(0));
            left = fits.unwrap_or(0);
            fits.is_some()
        }
    };
    let head: String = text.chars().take_while(within(front)).collect();
    let tail: Vec<char> = match lost {
        Lost::Middle => text.chars().rev().take_while(within(room - front)).collect(),
        Lost::End => Vec::new(),
    };
    format!("{head}…{}", tail.into_iter().rev().collect::<String>())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_cleaned_and_cut_in_the_middle() {
        let narrow = Style { width: 40, ..Style::default() };
        assert_eq!(narrow.fit("/usr/lib/jvm/java-17-openjdk-amd64/bin/java", 20), "/usr/l…md64/bin/java");
        assert_eq!(narrow.fit("a\x1b[2J", 0), "a\\x1b[2J");
        assert_eq!(narrow.fit("short", 39), "short");
        assert_eq!(narrow.fit("日本語日本語日本語日本語", 30), "日本…日本語");
        assert_eq!(column("日本", 5), "日本 ");
        assert_eq!(column("system-getty.service", 12), "syst…service");
    }
}
