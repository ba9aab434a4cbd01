//! Small helpers of the texts for people: colour, width, columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{output::Destination, text::clean};

/// How a text may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Colour is allowed.
    pub colour: bool,
    /// Columns of the terminal; `None` = nothing is cut.
    pub columns: Option<usize>,
}

/// A colour; what it means is said in the text as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Enough room.
    Green,
    /// Little room.
    Yellow,
    /// Hardly any room, or a warning.
    Red,
    /// A heading.
    Bold,
    /// Less important.
    Dim,
}

impl Look {
    /// What `destination` allows.
    pub fn of(destination: &Destination) -> Self {
        Self { colour: destination.colour(), columns: destination.columns() }
    }

    /// `text` in a colour.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Bold => "1",
            Colour::Dim => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A stranger's text, made safe and cut to what is left of a line after `used` columns. The end of a path says
    /// more than its beginning, so a path loses its middle.
    pub fn fit(&self, text: &str, used: usize) -> String {
        let safe = clean(text);
        let Some(columns) = self.columns else { return safe };
        let room = columns.saturating_sub(used).max(12);
        if safe.width() <= room {
            return safe;
        }
        let front = room / 3;
        let taken = |budget: usize| {
            let mut left = budget;
            move |c: &char| {
                let fits = left.checked_sub(c.width().unwrap_or(0));
                left = fits.unwrap_or(0);
                fits.is_some()
            }
        };
        let head: String = safe.chars().take_while(taken(front)).collect();
        let tail: Vec<char> = safe.chars().rev().take_while(taken(room - front - 1)).collect();
        format!("{head}…{}", tail.into_iter().rev().collect::<String>())
    }
}

/// Colour for the room that is left, in percent: the thresholds people know from the Python tool.
pub fn room_colour(percent: f64) -> Colour {
    if percent >= 20.0 {
        Colour::Green
    } else if percent >= 5.0 {
        Colour::Yellow
    } else {
        Colour::Red
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_cleaned_and_cut_in_the_middle() {
        let narrow = Look { colour: false, columns: Some(40) };
        assert_eq!(narrow.fit("/usr/lib/jvm/java-17-openjdk-amd64/bin/java", 20), "/usr/l…md64/bin/java");
        assert_eq!(Look::default().fit("a\x1b[2J", 0), "a\\x1b[2J");
        assert_eq!(narrow.fit("short", 39), "short");
        assert_eq!(narrow.fit("日本語日本語日本語日本語", 30), "日本…日本語");
    }
}
