//! Rates, and times that lie ahead, as people read them.

/// `1,712 VMAs a second`, `41 VMAs a minute`, `3 VMAs an hour`: the unit in which it is at least 2.
pub fn rate(per_s: f64) -> String {
    let units = [(1.0, "a second"), (60.0, "a minute"), (3600.0, "an hour"), (86_400.0, "a day")];
    let (factor, unit) =
        units.into_iter().find(|(factor, _)| per_s * factor >= 2.0).unwrap_or((31_557_600.0, "a year"));
    format!("{} VMAs {unit}", super::grouped((per_s * factor).round() as u64))
}

/// VMAs a second: `10/s`, `30/min`, `5/h`; without a unit a second. Errors: how to write one.
pub fn read_rate(text: &str) -> Result<f64, String> {
    const FORM: &str = "write for example 10/s, 30/min or 5/h";
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(FORM.into()),
    };
    let number = number.parse::<f64>().ok().or_else(|| super::read_number(number).ok().map(|n| n as f64));
    number.filter(|n| n.is_finite() && *n >= 0.0).map(|n| n / seconds).ok_or(FORM.to_owned())
}

/// `4 s`, `12 min`, `19 h`, `3 days`: two digits are more than can be foreseen.
pub fn ahead(seconds: f64) -> String {
    let whole = |seconds: f64| super::grouped(seconds.round() as u64);
    match seconds {
        s if s < 120.0 => format!("{} s", whole(s)),
        s if s < 7200.0 => format!("{} min", whole(s / 60.0)),
        s if s < 172_800.0 => format!("{} h", whole(s / 3600.0)),
        s => format!("{} days", whole(s / 86_400.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_fits_the_figure() {
        assert_eq!(rate(1712.4), "1,712 VMAs a second");
        assert_eq!(rate(0.683), "41 VMAs a minute");
        assert_eq!(rate(0.0001), "9 VMAs a day");
        assert_eq!(rate(0.000_005), "158 VMAs a year");
        assert_eq!(["4 s", "12 min", "19 h", "3 days"], [4.2, 712.0, 68_400.0, 260_000.0].map(ahead));
        assert_eq!(ahead(f64::INFINITY), format!("{} days", crate::text::grouped(u64::MAX)));
    }
}
