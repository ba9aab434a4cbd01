//! Values of options, and the options that several commands share.

use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use vmaudit_user::output::format::{self, Format, Kind, Named};
use vmaudit_user::session::flight::{self, Length};
use vmaudit_user::session::opening::SourceWanted;
use vmaudit_user::source::process_names::ProcessNamed;
use vmaudit_user::text;

/// Understands `-o` for such a document.
pub fn output(kind: Kind) -> impl TypedValueParser<Value = Named> {
    OsStringValueParser::new().try_map(move |asked| format::named(&asked, kind))
}

/// Understands `--format` for such a document.
pub fn screen(kind: Kind) -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(format::names(kind))
        .try_map(|name| Format::named(&name).ok_or_else(|| format!("there is no format {name}")))
}

/// Where figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// eBPF when possible, else /proc (says so)
    Auto,
    /// eBPF or nothing
    Ebpf,
    /// Looks at /proc: needs no rights, sees samples only
    Proc,
}

impl From<Source> for SourceWanted {
    fn from(asked: Source) -> Self {
        match asked {
            Source::Auto => Self::Auto,
            Source::Ebpf => Self::Ebpf,
            Source::Proc => Self::Proc,
        }
    }
}

/// Options that several commands share.
#[derive(Debug, Args)]
pub struct Common {
    /// Where figures come from [example: --source proc]
    #[arg(long, value_enum, default_value = "auto", value_name = "SOURCE")]
    pub source: Source,
    /// Size of the ring buffer for details, bytes; a power of two (peaks and counts do not pass through it)
    #[arg(long, value_name = "BYTES", hide = true, value_parser = ring_bytes)]
    pub ring_bytes: Option<u32>,
    /// Address spaces that can be followed at one time; a power of two
    #[arg(long, value_name = "N", hide = true, default_value_t = 8192, value_parser = slots)]
    pub slots: u32,
    /// How long intervals are whose peaks are told
    #[arg(long, value_name = "TIME", hide = true, default_value = "100ms", value_parser = interval)]
    pub interval: Duration,
    /// Show the eBPF programs' own messages on stderr
    #[arg(long)]
    pub debug_bpf: bool,
}

/// As [`duration`], at least 1 ms.
fn interval(text: &str) -> Result<Duration, String> {
    duration(text).map(|length| length.max(Duration::from_millis(1)))
}

/// Longest time that an option may name: a clock has an end, and no session comes near this one.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A time: `500ms`, `30s`, `5m`, `1h`; without a unit seconds. Errors: another unit, more than 10 years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}; write for example 500ms, 30s, 5m or 1h")),
    };
    let seconds = digits.parse::<f64>().map_or(f64::NAN, |n| n * factor);
    if seconds > LONGEST.as_secs_f64() {
        return Err("more than 10 years".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| "write for example 500ms, 30s, 5m or 1h".into())
}

/// The least `--max-bytes`: less would leave no room for what is said at the end.
pub const LEAST_BYTES: u64 = 4096;

/// Bytes: `500k`, `10M`, `1G`, powers of 1000.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "k" | "K" | "kB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        unit => return Err(format!("unknown unit {unit:?}; write for example 500k, 10M or 1G")),
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
        Some(n) if n >= LEAST_BYTES => Ok(n),
        Some(_) => Err(format!("at least {LEAST_BYTES}")),
        None => Err("write for example 500k, 10M or 1G".into()),
    }
}

/// A stretch: a size as in [`size`], of 64k to 128M, or a time as in [`duration`].
pub fn stretch(text: &str) -> Result<Length, String> {
    const FORM: &str = "write a size or a time with its unit, for example 10M (megabytes) or 10min";
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    match unit {
        "ms" | "s" | "m" | "min" | "h" => match duration(text)? {
            time if time < Duration::from_secs(1) => Err("at least 1s".into()),
            time => Ok(Length::Time(time)),
        },
        "k" | "K" | "kB" | "M" | "MB" | "G" | "GB" => match size(text)? {
            size if (64_000..=flight::LONGEST as u64).contains(&size) => Ok(Length::Size(size as usize)),
            _ => Err("from 64k to 128M".into()),
        },
        _ => Err(FORM.into()),
    }
}

/// A number as people write it.
pub fn number(text: &str) -> Result<u64, String> {
    text::read_number(text)
}

/// The same, at least 1.
pub fn positive(text: &str) -> Result<u64, String> {
    match text::read_number(text)? {
        0 => Err("write at least 1".into()),
        number => Ok(number),
    }
}

/// A number of rows.
pub fn rows(text: &str) -> Result<usize, String> {
    Ok(usize::try_from(text::read_number(text)?).unwrap_or(usize::MAX))
}

/// A process's number, or a name.
pub fn process(text: &str) -> Result<ProcessNamed, String> {
    ProcessNamed::read(text)
}

/// A share of the limit, percent.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(p) if p > 100.0 => {
            Err("the limit stops every process at 100 %, so more can never be passed; write for \
                                   example 80"
                .into())
        }
        Ok(p) if p > 0.0 => Ok(p),
        _ => Err("write a number above 0 and up to 100, for example 80".into()),
    }
}

/// VMAs a second: `10/s`, `30/min`, `5/h`; without a unit a second.
pub fn rate(text: &str) -> Result<f64, String> {
    text::read_rate(text)
}

/// Percent of a figure that may grow to any multiple.
pub fn any_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(p) if p >= 0.0 && p.is_finite() => Ok(p),
        _ => Err("write a number of percent, for example 10 or 2.5%".into()),
    }
}

/// Size of the ring buffer, bytes.
pub fn ring_bytes(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n >= 4096 => Ok(n),
        _ => Err("a power of two, at least 4096".into()),
    }
}

/// Number of slots.
pub fn slots(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && (1..1 << 20).contains(&n) => Ok(n),
        _ => Err("a power of two below 1048576".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_known_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "s", "-1s", "1w", "1e999s", "inf", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_a_second() {
        assert_eq!(rate("10/s"), Ok(10.0));
        assert_eq!(rate("30/min"), Ok(0.5));
        assert_eq!(rate("1k"), Ok(1000.0));
        for bad in ["", "/s", "-1/s", "1/week", "nan/s", "inf", "1/s/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_need_a_known_unit() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("10M"), Ok(10_000_000));
        for bad in ["", "M", "-1M", "1.5M", "10MiB", "4095", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stretch_is_a_size_or_a_time() {
        assert_eq!(stretch("10M"), Ok(Length::Size(10_000_000)));
        assert_eq!(stretch("10m"), Ok(Length::Time(Duration::from_secs(600))));
        for bad in ["", "10", "10x", "M", "1k", "2G", "10ms", "-1s", "11y"] {
            assert!(stretch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_lie_below_the_limit() {
        assert_eq!(percent("50%"), Ok(50.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        for bad in ["0", "-1", "nan", "x", "", "%"] {
            assert!(percent(bad).is_err_and(|said| said.starts_with("write a number")), "{bad}");
        }
        for bad in ["200", "100.1", "inf"] {
            assert!(percent(bad).is_err_and(|said| said.starts_with("the limit stops")), "{bad}");
        }
    }

    /// Added to the clock, they would be more than it can show.
    #[test]
    fn times_beyond_ten_years_are_refused() {
        assert_eq!(duration("87600h"), Ok(LONGEST));
        for bad in ["87601h", "1e19s", "1e300h"] {
            assert_eq!(duration(bad), Err("more than 10 years".into()), "{bad}");
        }
    }
}
