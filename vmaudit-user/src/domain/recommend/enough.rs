//! Which limit on the process would have been enough for what it was refused: figures in, sentences out. Pure.

use crate::model::report::{Accuracy, Cause, Failure, Outcome, Process};
use crate::text::{bytes, count};

/// Calls that one limit has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which limit: [`Cause::RlimitAs`], [`Cause::RlimitData`] or [`Cause::RlimitMemlock`].
    pub cause: Cause,
    /// How many.
    pub count: u64,
    /// The most that was in use and asked for by one of them, bytes; 0 = of none of them is it known.
    pub enough_bytes: u64,
    /// The most that the process, or another that the same limit has refused a call, had of it, bytes; `None`: unknown.
    pub peak_bytes: Option<u64>,
    /// Of all these calls the figures are known.
    pub complete: bool,
}

impl Refused {
    /// Both together.
    pub fn and(self, other: &Self) -> Self {
        Self {
            cause: self.cause,
            count: self.count.saturating_add(other.count),
            enough_bytes: self.enough_bytes.max(other.enough_bytes),
            peak_bytes: self.peak_bytes.max(other.peak_bytes),
            complete: self.complete && other.complete,
        }
    }
}

/// Name of the limit, and how a shell sets it in KiB.
fn names(cause: Cause) -> Option<(&'static str, &'static str)> {
    match cause {
        Cause::RlimitAs => Some(("RLIMIT_AS", "ulimit -v")),
        Cause::RlimitData => Some(("RLIMIT_DATA", "ulimit -d")),
        Cause::RlimitMemlock => Some(("RLIMIT_MEMLOCK", "ulimit -l")),
        _ => None,
    }
}

/// What each of these limits should have been.
pub fn sentences(refused: &[Refused]) -> Vec<String> {
    let mut sums: Vec<Refused> = Vec::new();
    for one in refused {
        match sums.iter_mut().find(|sum| sum.cause == one.cause) {
            Some(sum) => *sum = sum.clone().and(one),
            None => sums.push(one.clone()),
        }
    }
    sums.iter().filter_map(sentence).collect()
}

fn sentence(refused: &Refused) -> Option<String> {
    let (name, shell) = names(refused.cause)?;
    if refused.enough_bytes == 0 {
        return None;
    }
    let least = refused.enough_bytes.max(refused.peak_bytes.unwrap_or(0));
    let bound = if refused.complete { Accuracy::Exact } else { Accuracy::AtLeast };
    let calls = match refused.count {
        1 => "the refused call".to_owned(),
        n => format!("each of the {} by itself", count(n, "refused call", "refused calls")),
    };
    Some(format!(
        "{name} of {}{} ({shell} {}) would have let {calls} through: that much was in use and asked for. What the process \
         would have asked for after that is not known.",
        bound.word(),
        bytes(least),
        plain_kib(least),
    ))
}

/// What the failures of a report say about it.
pub fn of_failures(failures: &[Failure], processes: &[Process]) -> Vec<String> {
    let unrecovered = failures.iter().filter(|failure| failure.outcome == Outcome::Unrecovered);
    let refused: Vec<Refused> = unrecovered
        .filter(|failure| names(failure.cause).is_some())
        .map(|failure| {
            let enough = failure.evidence.get("enough_bytes").copied();
            let process = processes.iter().find(|process| failure.is_of(process));
            let memory = process.and_then(|process| process.memory);
            Refused {
                cause: failure.cause,
                count: failure.count,
                enough_bytes: enough.unwrap_or(0),
                peak_bytes: memory.and_then(|memory| memory.peak_under(failure.cause)),
                // Of processes that are told as one the figures are those of one of them.
                complete: enough.is_some() && failure.processes == 1,
            }
        })
        .collect();
    sentences(&refused)
}

/// Whole KiB, as ulimit takes them.
fn plain_kib(bytes: u64) -> String {
    bytes.div_ceil(1024).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(cause: Cause, count: u64, enough_bytes: u64) -> Refused {
        Refused { cause, count, enough_bytes, peak_bytes: None, complete: true }
    }

    #[test]
    fn the_largest_need_of_each_limit_is_told() {
        let all = [
            refused(Cause::RlimitAs, 2, 3 << 20),
            refused(Cause::RlimitMemlock, 1, 5000),
            refused(Cause::RlimitAs, 3, 5 << 20),
            refused(Cause::Overcommit, 1, 1 << 40),
        ];
        assert_eq!(
            sentences(&all),
            [
                "RLIMIT_AS of 5 MiB (ulimit -v 5120) would have let each of the 5 refused calls by itself through: that \
                 much was in use and asked for. What the process would have asked for after that is not known.",
                "RLIMIT_MEMLOCK of 4.9 KiB (ulimit -l 5) would have let the refused call through: that much was in use \
                 and asked for. What the process would have asked for after that is not known.",
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(sentences(&[refused(Cause::RlimitAs, 1, 0)]), [""; 0]);
        let partly = [
            refused(Cause::RlimitData, 1, 1 << 20),
            Refused { complete: false, ..refused(Cause::RlimitData, 1, 0) },
        ];
        let [sentence] = sentences(&partly).try_into().unwrap();
        assert!(sentence.starts_with("RLIMIT_DATA of at least 1 MiB (ulimit -d 1024) would"), "{sentence}");
    }

    #[test]
    fn a_larger_size_that_was_granted_counts_too() {
        let granted = Refused { peak_bytes: Some(9 << 20), ..refused(Cause::RlimitAs, 1, 5 << 20) };
        assert!(sentences(&[granted])[0].starts_with("RLIMIT_AS of 9 MiB (ulimit -v 9216)"));
    }
}
