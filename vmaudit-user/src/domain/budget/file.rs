//! The budgets file: TOML, one `[[budget]]` a row.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use toml::Spanned;

use crate::model::session::BudgetRow;
use crate::text::{count, read_number, read_rate};

/// Rows of a file.
const MOST: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    budget: Vec<Spanned<Row>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    process: Spanned<String>,
    max_peak: Option<Number>,
    max_percent: Option<Spanned<f64>>,
    max_failures: Option<Number>,
    max_growth: Option<Growth>,
    reason: Option<String>,
    expires: Option<Spanned<Date>>,
    #[serde(default)]
    optional: bool,
}

/// A date, also written as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Date {
    Date(toml::value::Datetime),
    Text(String),
}

/// A whole number, also one that is written as people do: "10k".
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, such as 10000 or \"10k\"")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Number, E> {
                u64::try_from(number)
                    .map(Number)
                    .map_err(|_| E::custom("a number below 0 makes no sense here"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                read_number(text).map(Number).map_err(E::custom)
            }
        }
        from.deserialize_any(Reader)
    }
}

/// VMAs a second, also with another unit: "30/min".
struct Growth(f64);

impl<'de> Deserialize<'de> for Growth {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Growth;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate, such as \"10/s\" or \"30/min\"")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Growth, E> {
                self.visit_f64(number as f64)
            }
            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Growth, E> {
                let good = number.is_finite() && number >= 0.0;
                good.then_some(Growth(number))
                    .ok_or_else(|| E::custom("a number below 0 makes no sense here"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Growth, E> {
                read_rate(text).map(Growth).map_err(E::custom)
            }
        }
        from.deserialize_any(Reader)
    }
}

/// Understands a file's text. Errors, as a sentence that begins with line and column: whatever is wrong with it.
pub fn rows(text: &str) -> Result<Vec<BudgetRow>, String> {
    let at = |span: Option<Range<usize>>, why: &str| {
        let before = text.get(..span.map_or(0, |span| span.start)).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: {why}")
    };
    let file: File = toml::from_str(text).map_err(|e| at(e.span(), e.message()))?;
    if file.budget.is_empty() {
        return Err(at(None, "it has no [[budget]], so it would demand nothing"));
    }
    if file.budget.len() > MOST {
        return Err(at(None, &format!("it has more than {}", count(MOST as u64, "row", "rows"))));
    }
    let understood = |row: Spanned<Row>| -> Result<BudgetRow, String> {
        let span = row.span();
        let Row { process, max_peak, max_percent, max_failures, max_growth, reason, expires, optional } =
            row.into_inner();
        if process.get_ref().is_empty() {
            return Err(at(Some(process.span()), "an empty name fits no process; \"*\" fits all"));
        }
        if let Some(percent) = max_percent.as_ref().filter(|it| !(0.0..=100.0).contains(it.get_ref())) {
            return Err(at(Some(percent.span()), "max_percent lies between 0 and 100"));
        }
        if max_peak.is_none() && max_percent.is_none() && max_failures.is_none() && max_growth.is_none() {
            return Err(at(
                Some(span),
                "this row limits nothing: give it max_peak, max_percent, max_failures or max_growth",
            ));
        }
        let expires = expires.map(|date| {
            let said = match date.get_ref() {
                Date::Date(date) => date.to_string(),
                Date::Text(text) => text.clone(),
            };
            let day: Result<jiff::civil::Date, _> = said.parse();
            day.map(|day| day.to_string())
                .map_err(|_| at(Some(date.span()), "expires is a day, such as 2027-01-31"))
        });
        Ok(BudgetRow {
            process: process.into_inner(),
            max_peak: max_peak.map(|number| number.0),
            max_percent: max_percent.map(Spanned::into_inner),
            max_failures: max_failures.map(|number| number.0),
            max_growth: max_growth.map(|growth| growth.0),
            reason,
            expires: expires.transpose()?,
            optional,
            line: text.get(..span.start).unwrap_or_default().matches('\n').count() as u64 + 1,
        })
    };
    file.budget.into_iter().map(understood).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_a_rate() {
        let growth = |value: &str| {
            rows(&format!("[[budget]]\nprocess = \"a\"\nmax_growth = {value}\n"))
                .map(|rows| rows[0].max_growth)
        };
        assert_eq!(
            [growth("10"), growth("\"30/min\""), growth("1.5")],
            [Ok(Some(10.0)), Ok(Some(0.5)), Ok(Some(1.5))]
        );
        for bad in ["-1", "\"fast\"", "nan", "true"] {
            assert!(
                growth(bad).is_err_and(|why| why.starts_with("line 3, column ")),
                "{bad}: {:?}",
                growth(bad)
            );
        }
    }

    const GOOD: &str = "# what our tests may take\n[[budget]]\nprocess = \"java*\"\nmax_peak = \"10k\"\n\
        reason = \"index pool, ticket 7\"\nexpires = 2027-01-31\n\n[[budget]]\nprocess = \"*\"\nmax_percent = 50\n\
        max_failures = 0\noptional = true\nexpires = \"2027-02-01\"\n";

    #[test]
    fn rows_are_read_with_their_lines() {
        let rows = rows(GOOD).unwrap();
        assert_eq!((rows[0].process.as_str(), rows[0].max_peak, rows[0].line), ("java*", Some(10_000), 2));
        assert_eq!(rows[0].expires.as_deref(), Some("2027-01-31"));
        assert_eq!((rows[1].max_percent, rows[1].max_failures), (Some(50.0), Some(0)));
        assert!(rows[1].optional && rows[1].expires.as_deref() == Some("2027-02-01"));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        for (text, place, why) in [
            ("", "line 1, column 1", "it has no [[budget]]"),
            ("[[budget]]\nprocess = \"a\"\nmax_peek = 7\n", "line 3, column 1", "unknown field `max_peek`"),
            ("[[budget]]\nprocess = \"a\"\n", "line 1, column 1", "limits nothing"),
            ("[[budget]]\nmax_peak = 7\n", "line 1, column 1", "missing field `process`"),
            ("[[budget]]\nprocess = \"a\"\nmax_peak = -7\n", "line 3, column 12", "below 0"),
            ("[[budget]]\nprocess = \"a\"\nmax_peak = \"many\"\n", "line 3, column 12", "is no whole number"),
            ("[[budget]]\nprocess = \"a\"\nmax_percent = 101\n", "line 3, column 15", "between 0 and 100"),
            ("[[budget]]\nprocess = \"\"\nmax_peak = 1\n", "line 2, column 11", "fits no process"),
            (
                "[[budget]]\nprocess = \"a\"\nmax_peak = 1\nexpires = \"soon\"\n",
                "line 4, column 11",
                "is a day",
            ),
            ("[[budget]]\nprocess = \n", "line 2, column 11", ""),
            ("[limits]\n", "line 1, column 2", "unknown field `limits`"),
        ] {
            let said = rows(text).unwrap_err();
            assert!(said.starts_with(&format!("{place}: ")) && said.contains(why), "{text:?}: {said}");
        }
    }
}
