//! Times as people and programs read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall time as RFC 3339, UTC, whole seconds.
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(since)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|stamp| stamp.to_string())
        .unwrap_or_default()
}

/// Such a time as nanoseconds since 1970; `None` where it is none, or before.
pub fn unix_ns(rfc3339: &str) -> Option<u64> {
    let stamp: jiff::Timestamp = rfc3339.parse().ok()?;
    u64::try_from(stamp.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_of_the_worlds_time() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_999);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20Z");
        assert_eq!(unix_ns("2023-11-14T22:13:20Z"), Some(1_700_000_000_000_000_000));
        assert_eq!((unix_ns("1900-01-01T00:00:00Z"), unix_ns("\x1b")), (None, None));
    }
}
