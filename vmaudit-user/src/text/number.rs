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

/// `part` of `whole` in percent, one decimal, without the sign; `?` of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "?".into() } else { format!("{:.1}", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
