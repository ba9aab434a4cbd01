//! Which rows are shown.

use super::look::Row;
use crate::text::clean;
use crate::text::read_number;

/// Words that all have to fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    text: String,
    words: Vec<Word>,
    complaint: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    /// In name or unit.
    Anywhere(String),
    Is(Field, String),
    Figure(Figure, std::cmp::Ordering, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Comm,
    User,
    Unit,
    Pid,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    Vmas,
    Peak,
    Growth,
    Refused,
}

impl Filter {
    /// What may be typed.
    pub const HELP: &str = "user=alice  unit=*.service  comm=java  pid=812  vmas>1k  growth>0  refused>0";

    /// Of what was typed. A word that means nothing fits everything, and is told of.
    pub fn of(text: &str) -> Self {
        let mut filter = Self { text: text.trim().to_owned(), ..Self::default() };
        for word in text.split_whitespace() {
            match read(word) {
                Ok(word) => filter.words.push(word),
                Err(why) => filter.complaint = Some(why),
            }
        }
        filter
    }

    /// What was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What of it is not understood.
    pub fn complaint(&self) -> Option<String> {
        self.complaint.clone()
    }

    /// Whether the row is shown.
    pub fn fits(&self, row: &Row) -> bool {
        self.words.iter().all(|word| word.fits(row))
    }
}

fn read(word: &str) -> Result<Word, String> {
    for (sign, order) in [('>', std::cmp::Ordering::Greater), ('<', std::cmp::Ordering::Less)] {
        if let Some((name, number)) = word.split_once(sign) {
            let figure = match name {
                "vmas" => Figure::Vmas,
                "peak" => Figure::Peak,
                "growth" => Figure::Growth,
                "refused" => Figure::Refused,
                _ => return Err(format!("{} is no figure: vmas, peak, growth, refused", clean(name))),
            };
            let number = read_number(number).map_err(|_| format!("{} is no number", clean(number)))?;
            return Ok(Word::Figure(figure, order, number as f64));
        }
    }
    match word.split_once('=') {
        Some((name, value)) => {
            let field = match name {
                "comm" => Field::Comm,
                "user" => Field::User,
                "unit" => Field::Unit,
                "pid" => Field::Pid,
                _ => return Err(format!("{} is no field: comm, user, unit, pid", clean(name))),
            };
            Ok(Word::Is(field, value.to_owned()))
        }
        None => Ok(Word::Anywhere(word.to_lowercase())),
    }
}

impl Word {
    fn fits(&self, row: &Row) -> bool {
        match self {
            Self::Anywhere(part) => [Some(&row.comm), row.unit.as_ref()]
                .into_iter()
                .flatten()
                .any(|text| text.to_lowercase().contains(part)),
            Self::Is(field, wanted) => match field {
                Field::Comm => like(wanted, &row.comm),
                Field::User => row.user.as_deref().is_some_and(|user| like(wanted, user)),
                Field::Unit => row
                    .unit
                    .as_deref()
                    .is_some_and(|unit| like(wanted, unit) || unit.strip_suffix(".service") == Some(wanted)),
                Field::Pid => row.which.pid.to_string() == *wanted,
            },
            Self::Figure(figure, order, number) => {
                let value = match figure {
                    Figure::Vmas => row.now.map(|it| it as f64),
                    Figure::Peak => row.peak.map(|it| it as f64),
                    Figure::Growth => row.per_s,
                    Figure::Refused => Some(row.refused as f64),
                };
                value.and_then(|value| value.partial_cmp(number)) == Some(*order)
            }
        }
    }
}

/// `*` stands for anything.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}
