//! What a higher limit does for a process that grows steadily: it delays.

use crate::model::report::{Growth, Process, Recommendation};
use crate::text::{ahead, grouped, rate};

/// One of them grows so that it is at the limit soon, or was.
pub fn grows(processes: &[Process]) -> bool {
    first(processes).is_some()
}

/// The process that is at the limit first, and in how many seconds.
fn first(processes: &[Process]) -> Option<(&Process, Growth, f64)> {
    let growing = processes.iter().filter_map(|process| {
        let growth = process.growth.filter(Growth::foresees)?;
        Some((process, growth, growth.reaches_limit_in_s?))
    });
    growing.min_by(|a, b| a.2.total_cmp(&b.2))
}

/// Says so of the process that is at the limit first, with its number; `None` where none grows so that it matters.
pub fn of_growth(processes: &[Process], advice: &Recommendation) -> Option<(u32, String)> {
    let (process, growth, left) = first(processes)?;
    let who = format!("{} (pid {})", process.peak_comm(), process.pid);
    let speed = rate(growth.per_s);
    // Who was stopped may have freed all since.
    let count = if left > 0.0 { process.map_count.last } else { process.map_count.peak };
    let room = advice.value.zip(count).map(|(value, count)| value.saturating_sub(count));
    let until = match (advice.value.zip(room), left > 0.0) {
        (Some((value, room)), _) => format!(
            "a limit of {} would be reached after {} at that rate. Raising only delays it",
            grouped(value),
            ahead(room as f64 / growth.per_s)
        ),
        (None, true) => "a higher limit only delays when it is reached".to_owned(),
        (None, false) => "a higher limit only delays when it is reached again".to_owned(),
    };
    let grew = match (left > 0.0, process.ended_s) {
        (false, _) => format!("{who} grew steadily, by {speed}, until the limit stopped it"),
        (true, Some(_)) => format!("{who} grew steadily, by {speed}, until it ended"),
        (true, None) => format!("{who} grows steadily, by {speed}"),
    };
    let sentence = format!("{grew}: {until}; `vmaudit explain` says what its VMAs are while it lives.");
    Some((process.pid, sentence))
}
