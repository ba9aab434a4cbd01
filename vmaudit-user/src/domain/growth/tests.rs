use super::*;

const STEP: u64 = 100_000_000;
const HOURS_4: u64 = 4 * 3600 * 10;

/// A series of this many intervals, whose count at the end of each is what `count` says of it.
fn series(steps: u64, count: impl Fn(u64) -> u32) -> Series {
    let mut series = Series::new(0, count(0), STEP);
    let mut before = count(0);
    for n in 1..=steps {
        let now = count(n);
        if now != before {
            series.push((n - 1) * STEP, Point { end_ns: n * STEP, peak: before.max(now), last: now });
        }
        before = now;
    }
    series.rest_until(steps * STEP);
    series
}

fn of(series: &Series) -> Growth {
    growth(series, &Asked { from_ns: 0, limit_at_ns: None, limit: Some(65_530) })
        .expect("something grows or not")
}

/// Steady numbers that nobody can foresee.
fn noise(n: u64) -> u32 {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as u32
}

#[test]
fn a_leak_is_told_within_5_seconds() {
    for rate in [10_u64, 170, 8_870] {
        for level in [20, 30_000] {
            let leak = of(&series(50, |n| level + (n * rate / 10) as u32));
            assert!(leak.steady, "{rate}: {leak:?}");
            let error = (leak.per_s - rate as f64).abs() / rate as f64;
            assert!(error < 0.02, "{rate}: {leak:?}");
        }
    }
    let left = of(&series(50, |n| 20 + n as u32 * 887)).reaches_limit_in_s.unwrap();
    assert!((left - (65_530.0 - 20.0 - 50.0 * 887.0) / 8_870.0).abs() < 0.1, "{left}");
}

#[test]
fn a_leak_that_begins_after_hours_is_told_within_5_seconds() {
    let leak = of(&series(HOURS_4, |n| 500 + (n.saturating_sub(HOURS_4 - 45) * 20) as u32));
    assert!(leak.steady && (leak.per_s - 200.0).abs() < 5.0, "{leak:?}");
    // Then it stops.
    let over = of(&series(HOURS_4, |n| 500 + (n.saturating_sub(HOURS_4 - 45).min(40) * 20) as u32));
    assert!(!over.steady, "{over:?}");
}

#[test]
fn a_slow_leak_of_hours_is_told_with_its_rate() {
    // 41 a minute, one at a time.
    let slow = of(&series(HOURS_4, |n| 1000 + (n * 41 / 600) as u32));
    assert!(
        slow.over_s.unwrap() > 3600.0,
        "{slow:?} {:?}",
        series(HOURS_4, |n| 1000 + (n * 41 / 600) as u32).points()
    );
    // With noise on it.
    let noisy = of(&series(HOURS_4, |n| 1000 + (n * 41 / 600) as u32 + noise(n) % 20));
    assert!(noisy.steady && (noisy.per_s - 41.0 / 60.0).abs() < 0.05, "{noisy:?}");
    // As a saw-tooth of 30 s.
    let teeth = of(&series(HOURS_4, |n| 1000 + (n * 41 / 600) as u32 + (n % 300) as u32));
    assert!(teeth.steady && (teeth.per_s - 41.0 / 60.0).abs() < 0.05, "{teeth:?}");
}

/// At any time of four hours.
fn ever(count: impl Fn(u64) -> u32, from: u64, every: u64) -> Option<(u64, Growth)> {
    let mut series = Series::new(0, count(0), STEP);
    let mut before = count(0);
    for n in 1..=HOURS_4 {
        let now = count(n);
        if now != before {
            series.push((n - 1) * STEP, Point { end_ns: n * STEP, peak: before.max(now), last: now });
        }
        before = now;
        if n >= from && n % every == 0 {
            series.rest_until(n * STEP);
            let growth = of(&series);
            if growth.steady {
                return Some((n, growth));
            }
        }
    }
    None
}

#[test]
fn noise_around_a_level_is_no_growth() {
    assert_eq!(ever(|n| 5000 + noise(n) % 400, 1, 37), None);
    assert_eq!(ever(|n| 200 + noise(n / 30) % 100, 1, 37), None, "with long waves");
}

#[test]
fn a_saw_tooth_is_no_growth_from_its_second_tooth_on() {
    for period in [30, 317, 6_007] {
        let tooth = |n: u64| 1000 + (n % period * 3) as u32;
        assert_eq!(ever(tooth, period * 2, 41), None, "{period}");
        let uneven = |n: u64| 1000 + (n % period * 3) as u32 + noise(n / period) % 30;
        assert_eq!(ever(uneven, period * 4, 43), None, "{period}");
    }
}

#[test]
fn a_start_that_levels_off_is_no_growth() {
    // Half of what is left in each 20 s; and a straight ramp of 30 s.
    let curve = |n: u64| 20 + (20_000.0 * (1.0 - 0.5_f64.powf(n as f64 / 200.0))) as u32;
    assert_eq!(ever(curve, 1200, 41), None);
    assert_eq!(ever(|n| 20 + n.min(300) as u32 * 10, 345, 23), None);
    // A jump among small steps, and steps of one.
    assert_eq!(ever(|n| 20 + if n > 27 { 5000 } else { 0 } + (n / 10) as u32 % 8, 1, 29), None);
    assert!(!of(&series(45, |n| 20 + (n / 5) as u32)).steady);
}

#[test]
fn only_the_last_image_counts_and_the_limit_ends_it() {
    let shrunk = series(100, |n| if n < 40 { 9000 } else { 20 + n as u32 * 10 });
    assert!(!of(&shrunk).steady);
    let asked = Asked { from_ns: 41 * STEP, limit_at_ns: None, limit: None };
    let leak = growth(&shrunk, &asked).unwrap();
    assert!(leak.steady && leak.reaches_limit_in_s.is_none(), "{leak:?}");
    let stopped = series(90, |n| (20 + n as u32 * 1000).min(50_000));
    assert!(!of(&stopped).steady);
    let asked = Asked { from_ns: 0, limit_at_ns: Some(50 * STEP), limit: Some(50_000) };
    let leak = growth(&stopped, &asked).unwrap();
    assert!(leak.steady && leak.reaches_limit_in_s == Some(0.0), "{leak:?}");
    assert!((leak.per_s - 10_000.0).abs() < 300.0, "{leak:?}");
}

#[test]
fn what_is_too_short_has_a_mean_only() {
    let short = of(&series(30, |n| 20 + n as u32 * 100));
    assert_eq!((short.steady, short.per_s, short.over_s), (false, 1000.0, None));
    assert_eq!(growth(&Series::new(5, 1, STEP), &Asked { from_ns: 0, limit_at_ns: None, limit: None }), None);
}

#[test]
fn times_that_no_machine_has_are_no_more_work() {
    assert!(windows(u64::MAX).count() < 60);
    for ends in [[0, u64::MAX], [u64::MAX, u64::MAX], [7, 3], [1 << 58, 5], [u64::MAX, 0]] {
        for from_ns in [0, 5, 1 << 60, u64::MAX] {
            let mut series = Series::new(from_ns, 1, STEP);
            for end_ns in ends {
                series.push(from_ns, Point { end_ns, peak: 40_000, last: 30_000 });
            }
            for limit_at_ns in [None, Some(0), Some(1 << 59), Some(u64::MAX)] {
                let asked = Asked { from_ns: 3, limit_at_ns, limit: Some(65_530) };
                let grown = growth(&series, &asked);
                assert!(grown.is_none_or(|it| it.per_s.is_finite()), "{grown:?}");
            }
        }
    }
}

#[test]
fn a_slow_leak_has_a_rate_that_is_not_nothing() {
    // 32 a day, looked at each quarter of an hour, 60 short of the limit.
    let quarter = 900_000_000_000;
    let mut series = Series::new(0, 65_400, quarter);
    for n in 1..=192_u64 {
        let count = 65_400 + (n / 3) as u32;
        series.push((n - 1) * quarter, Point { end_ns: n * quarter, peak: count, last: count });
    }
    let slow = of(&series);
    assert!(slow.foresees() && (slow.per_s * 86_400.0 - 32.0).abs() < 2.0, "{slow:?}");
    for (value, shown) in [(0.0, 0.0), (0.000_123_456, 0.000_123), (8_870.123_4, 8_870.123), (-0.5, -0.5)] {
        assert_eq!(rounded(value), shown);
    }
    assert!([f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::INFINITY].into_iter().all(|it| !rounded(it).is_nan()));
}
