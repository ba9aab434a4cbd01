//! Figures as people read them.

/// The sum; what is too large for a number is the largest one (a recording may hold any figures).
pub fn total(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

/// `number` for people: `65,530`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `bytes` for people: `92 KiB`, `1.5 MiB`; one decimal where it is not a whole number.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{} B", grouped(bytes));
    }
    let mut unit = 0;
    // Up a unit when rounding to one decimal would show 1024.0.
    while unit + 1 < UNITS.len() && bytes as f64 / 1024f64.powi(unit as i32 + 1) >= 1023.95 {
        unit += 1;
    }
    let tenths = (bytes as f64 / 1024f64.powi(unit as i32 + 1) * 10.0).round() as u64;
    let name = UNITS.get(unit).unwrap_or(&"EiB");
    if tenths.is_multiple_of(10) {
        format!("{} {name}", grouped(tenths / 10))
    } else {
        format!("{}.{} {name}", grouped(tenths / 10), tenths % 10)
    }
}

/// `one` or `many`, with the number before it: `1 call`, `23 calls`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `part` of `whole` in percent, one decimal, without the sign; `?` of nothing. Less than all is never 100.0.
pub fn percent(part: u64, whole: u64) -> String {
    let share = part as f64 * 100.0 / whole as f64;
    match whole {
        0 => "?".into(),
        _ if part < whole => format!("{:.1}", share.min(99.9)),
        _ => format!("{share:.1}"),
    }
}

/// A number as people write it: `10000`, `10,000`, `10_000`, `10k`, `1.5m`, `2G`; k, m and g are powers of 1000. Errors, as
/// a sentence: anything else, a fraction, more than 64 bits.
pub fn read_number(text: &str) -> Result<u64, String> {
    let bad = || {
        let shown = super::clean(text);
        format!("{shown:?} is no whole number; write for example 10000, 10,000, 10k or 1m")
    };
    let (digits, zeros) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 3),
        Some((at, 'm' | 'M')) => (&text[..at], 6),
        Some((at, 'g' | 'G')) => (&text[..at], 9),
        _ => (text, 0),
    };
    let (whole, part) = digits.split_once('.').map_or((digits, ""), |(whole, part)| (whole, part));
    let whole = ungrouped(whole).ok_or_else(bad)?;
    let fits = part.len() <= zeros && part.bytes().all(|b| b.is_ascii_digit());
    if !fits || digits.ends_with('.') {
        return Err(bad());
    }
    format!("{whole}{part:0<zeros$}").parse().map_err(|_| bad())
}

/// Digits without what groups them; groups have three digits, the first has one to three.
fn ungrouped(text: &str) -> Option<String> {
    let separator = [',', '_'].into_iter().find(|&c| text.contains(c));
    let groups: Vec<&str> = text.split(|c| Some(c) == separator).collect();
    let whole = groups.iter().enumerate().all(|(place, group)| {
        let length = match (groups.len(), place) {
            (1, _) => !group.is_empty(),
            (_, 0) => (1..=3).contains(&group.len()),
            _ => group.len() == 3,
        };
        length && group.bytes().all(|b| b.is_ascii_digit())
    });
    whole.then(|| groups.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, number) in [
            ("0", 0),
            ("10000", 10_000),
            ("10,000", 10_000),
            ("1,048,576", 1_048_576),
            ("1_048_576", 1_048_576),
            ("10k", 10_000),
            ("1m", 1_000_000),
            ("1.5M", 1_500_000),
            ("1,000k", 1_000_000),
            ("2G", 2_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(read_number(text), Ok(number), "{text}");
        }
        for bad in [
            "",
            "k",
            "-1",
            "+1",
            "1.5",
            "1.k",
            ".5k",
            "1.2345k",
            "1,0",
            "1,00",
            ",100",
            "1,,000",
            "1000,000",
            "1,000_000",
            "1e3",
            "0x10",
            "10 000",
            "1kk",
            "18446744073709551616",
            "99999999999g",
            "\u{1b}[2J",
            "１",
        ] {
            assert!(read_number(bad).is_err_and(|said| !said.contains('\u{1b}')), "{bad}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, shown) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (65530, "65,530"), (1234567, "1,234,567")]
        {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn bytes_have_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1,023 B"),
            (4096, "4 KiB"),
            (94208, "92 KiB"),
            (1536 * 1024, "1.5 MiB"),
            (1024 * 1024 - 1, "1 MiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (number, shown) in cases {
            assert_eq!(bytes(number), shown);
        }
    }

    #[test]
    fn nothing_has_no_share() {
        assert_eq!([percent(1, 3), percent(1, 0)], ["33.3", "?"]);
    }
}
