//! What to do about vm.max_map_count: figures in, advice with its reasons and its price out. Pure.

pub mod delays;
pub mod enough;

use std::fmt;

use crate::model::cause::reasons;
use crate::model::limit::{KERNEL_DEFAULT, KERNEL_LARGEST, SAFE_VMA_BYTES};
use crate::model::report::{Action, Basis, Cause, Recommendation};
use crate::text::{bytes, count, grouped, percent, total};

/// Smallest factor that is accepted; less leaves no room for what one run did not show.
pub const LEAST_HEADROOM: f64 = 1.2;
/// Factor when none is given.
pub const DEFAULT_HEADROOM: f64 = 1.5;
/// Rounding step when none is given, VMAs.
pub const DEFAULT_ROUND: u64 = 10_000;

/// How far above a measured peak the limit should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    headroom: f64,
    round: u64,
}

/// Why a [`Margin`] was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MarginError {
    /// The factor is below [`LEAST_HEADROOM`] or no number.
    Headroom(f64),
    /// The rounding step is 0.
    Round,
}

impl fmt::Display for MarginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headroom(given) => {
                write!(f, "headroom {given} is refused: it must be {LEAST_HEADROOM} or more")
            }
            Self::Round => write!(f, "round 0 is refused: it must be 1 or more"),
        }
    }
}

impl std::error::Error for MarginError {}

impl Default for Margin {
    fn default() -> Self {
        Self { headroom: DEFAULT_HEADROOM, round: DEFAULT_ROUND }
    }
}

impl Margin {
    /// `headroom` is a factor, `round` a number of VMAs.
    pub fn new(headroom: f64, round: u64) -> Result<Self, MarginError> {
        if !headroom.is_finite() || headroom < LEAST_HEADROOM {
            return Err(MarginError::Headroom(headroom));
        }
        if round == 0 {
            return Err(MarginError::Round);
        }
        Ok(Self { headroom, round })
    }

    /// The factor.
    pub fn headroom(self) -> f64 {
        self.headroom
    }

    /// The rounding step, VMAs.
    pub fn round(self) -> u64 {
        self.round
    }

    /// The limit that leaves this margin above `peak` VMAs; the arithmetic of the Python vmaudit, capped at
    /// [`KERNEL_LARGEST`].
    pub fn limit_for(self, peak: u64) -> u64 {
        // Floats as in the Python tool; `as` saturates, so no input overflows.
        let wanted = peak as f64 * self.headroom;
        // What fits into the default is not rounded past it.
        if wanted <= KERNEL_DEFAULT as f64 {
            return KERNEL_DEFAULT;
        }
        let steps = (wanted / self.round as f64).ceil() as u64;
        let value = steps.saturating_mul(self.round).max(KERNEL_DEFAULT);
        // Just above the default, a power of two is easier to remember and to find again.
        let value = if (KERNEL_DEFAULT + 1..=65535).contains(&value) { 65536 } else { value };
        value.min(KERNEL_LARGEST)
    }
}

/// Refused calls of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub cause: Cause,
    /// The same in words, see [`crate::model::cause::reason`].
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// vm.max_map_count had no part in it, even if the cause is unknown.
    pub limit_excluded: bool,
}

/// What a session found, as far as advice needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Largest count, VMAs; `None` when nothing was measured.
    pub peak: Option<u64>,
    /// Every peak is the true one: no process had more than was seen.
    pub exact: bool,
    /// Counts are looks at /proc from time to time.
    pub sampled: bool,
    /// Processes of which samples say nothing.
    pub unseen: u64,
    /// The limit stopped a process, or may have: its demand is not known.
    pub clipped: bool,
    /// Name and pid of the process with that peak, of one that the limit stopped if there is such.
    pub who: Option<(String, u32)>,
    /// Margin asked for.
    pub margin: Margin,
    /// vm.max_map_count in force, VMAs; `None` when it could not be read.
    pub current: Option<u64>,
    /// A process grows steadily, and is at the limit soon: see [`delays`].
    pub grows: bool,
    /// Refused calls by kind, ordinary answers left out.
    pub failures: Vec<Failed>,
    /// Kernel memory per VMA on the running kernel, bytes; `None` when slab figures cannot be read.
    pub vma_bytes: Option<f64>,
    /// Processes that somebody with more rights would see.
    pub unread: u64,
    /// Whoever reads the advice is root.
    pub root: bool,
}

/// Where a count comes from, in words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The largest during a session.
    Peak,
    /// A look at this moment.
    Now,
}

/// Advice for what a session measured.
pub fn recommend(measured: &Measured) -> Recommendation {
    advise(measured, Seen::Peak)
}

/// Advice for counts of this moment, of which no one knows whether they are peaks.
pub fn recommend_now(measured: &Measured) -> Recommendation {
    let mut advice = advise(measured, Seen::Now);
    if advice.basis.is_some() {
        advice.sentences.push(
            "The counts are of this moment; `vmaudit run` and `vmaudit trace` see what a program needs at \
             its peak."
                .into(),
        );
    }
    advice
}

/// What a case comes down to.
struct Case<'a> {
    measured: &'a Measured,
    seen: Seen,
    /// The true peak may be higher than what was seen.
    lower_bound: bool,
    /// VMAs.
    peak: u64,
    /// The limit that leaves the margin asked for, VMAs.
    needed: u64,
    /// The process with that peak, in words.
    who: String,
    /// Calls refused at the limit.
    at_limit: u64,
    /// Calls refused for another reason.
    others: u64,
}

fn advise(measured: &Measured, seen: Seen) -> Recommendation {
    let Measured { margin, current, .. } = *measured;
    let at_limit = failed(measured, |kind| kind.cause == Cause::MaxMapCount);
    let unknown = failed(measured, |kind| kind.cause == Cause::Unknown && !kind.limit_excluded);
    let others = failed(measured, another);
    let clipped = measured.clipped || at_limit > 0;

    let mut advice = Recommendation {
        setting: "vm.max_map_count".into(),
        current,
        value: None,
        basis: None,
        action: Action::Unknown,
        sentences: Vec::new(),
        commands: Vec::new(),
    };
    // A refusal at the limit proves that the count stood there, also when no count arrived.
    let Some(peak) = measured.peak.or(if clipped { current } else { None }) else {
        advice.sentences.push("No VMA count was measured, so there is nothing to recommend.".into());
        advice.sentences.extend(others_sentence(measured, others));
        return advice;
    };
    if measured.unseen > 0 && !clipped {
        advice.sentences.push(format!(
            "No sample was taken of {}, so there is nothing to recommend.",
            count(measured.unseen, "process or more", "processes or more")
        ));
        advice.sentences.extend(others_sentence(measured, others));
        return advice;
    }
    advice.basis = Some(Basis { peak, clipped, headroom: margin.headroom(), round: margin.round() });
    let name = |(comm, pid): &(String, u32)| format!("{comm} (pid {pid})");
    let case = Case {
        measured,
        seen,
        lower_bound: seen == Seen::Peak && !measured.exact,
        peak,
        needed: margin.limit_for(peak),
        who: measured.who.as_ref().map_or_else(|| "the largest process".into(), name),
        at_limit,
        others,
    };
    match () {
        () if clipped => case.stopped(&mut advice),
        () if others > 0 => case.another_reason(&mut advice),
        () => case.room(&mut advice),
    }
    if unknown > 0 {
        advice.sentences.push(format!(
            "{} failed for a reason that could not be told; a higher limit may or may not help.",
            count(unknown, "call", "calls")
        ));
    }
    if case.lower_bound && !clipped {
        advice.sentences.push(if measured.sampled {
            "The peak was sampled, so the true one may be higher.".into()
        } else {
            "Not every peak is exact, so the true one may be higher.".into()
        });
    }
    advice
}

impl Case<'_> {
    fn has(&self) -> &'static str {
        match self.seen {
            Seen::Peak if self.lower_bound => "was seen with",
            Seen::Peak => "peaked at",
            Seen::Now => "has",
        }
    }

    /// The limit stopped a process: its demand is not known.
    fn stopped(&self, advice: &mut Recommendation) {
        let Self { measured, seen, at_limit, ref who, .. } = *self;
        let current = measured.current;
        // Measured under a lower limit than the one now in force, a value below that one would be no raise.
        let value = self.needed.max(measured.margin.limit_for(current.unwrap_or(0)));
        let peak = grouped(self.peak);
        if current.is_some_and(|current| current >= KERNEL_LARGEST) {
            advice.action = Action::WillNotHelp;
            advice.sentences.push(format!(
                "{} {} {peak} VMAs, and vm.max_map_count is already the largest value the kernel accepts: the \
                 process must make fewer mappings.",
                capitalised(who),
                match seen {
                    Seen::Now => "is at the limit with",
                    Seen::Peak if at_limit == 0 => "reached the limit with",
                    Seen::Peak => "was stopped at",
                },
            ));
        } else {
            advice.action = Action::RaiseAndRerun;
            let to = grouped(value);
            advice.sentences.push(match seen {
                Seen::Peak if at_limit == 0 => format!(
                    "{} reached the limit with {peak} VMAs, and whether it was refused more could not be seen, so its \
                     demand is not known: raise vm.max_map_count to {to} and run again.",
                    capitalised(who)
                ),
                Seen::Peak => format!(
                    "The limit stopped {who} at {peak} VMAs, so its demand is not known yet: raise \
                     vm.max_map_count to {to} and run again."
                ),
                Seen::Now => format!(
                    "{} is at the limit with {peak} VMAs, so its demand is not known: raise \
                     vm.max_map_count to {to} and look again.",
                    capitalised(who)
                ),
            });
            set(advice, value, measured);
        }
        advice.sentences.extend(others_sentence(measured, self.others));
    }

    /// Calls were refused, and not by the limit.
    fn another_reason(&self, advice: &mut Recommendation) {
        let (who, has, peak) = (&self.who, self.has(), self.peak);
        advice.action = Action::WillNotHelp;
        advice.sentences.extend(others_sentence(self.measured, self.others));
        advice.sentences.push(match self.measured.current {
            Some(current) if self.needed > current => format!(
                "Apart from that, {who} {has} {} VMAs, {} % of the limit {}: {} would leave the usual \
                 room.",
                grouped(peak),
                percent(peak, current),
                grouped(current),
                grouped(self.needed)
            ),
            Some(current) => format!(
                "{}: {who} {has} {} VMAs, {} % of it.",
                if self.lower_bound {
                    format!("Nothing seen asks for more than the limit {} either", grouped(current))
                } else {
                    format!("The limit {} itself is high enough", grouped(current))
                },
                grouped(peak),
                percent(peak, current)
            ),
            None => format!(
                "{} {has} {} VMAs; the limit in force could not be read.",
                capitalised(who),
                grouped(peak)
            ),
        });
    }

    /// Nothing was refused: is there enough room?
    fn room(&self, advice: &mut Recommendation) {
        let (who, has, peak, needed) = (&self.who, self.has(), self.peak, self.needed);
        let margin = self.measured.margin;
        match self.measured.current {
            // The true peak may be any number above one that was merely seen: that is no reason to leave the limit.
            Some(current) if needed <= current && self.lower_bound => {
                advice.sentences.push(format!(
                    "Nothing seen asks for more than vm.max_map_count = {}: {who} {has} {} VMAs, {} % of it.",
                    grouped(current),
                    grouped(peak),
                    percent(peak, current)
                ));
            }
            // Who has ended is not seen now, and may be who needs more.
            Some(current) if needed <= current && self.seen == Seen::Now => {
                let unread = self.measured.unread;
                advice.action = if unread == 0 { Action::Leave } else { Action::Unknown };
                advice.sentences.push(format!(
                    "{} asks for more than vm.max_map_count = {}: {who} has {} VMAs, {} % of it.",
                    if unread == 0 { "Nothing that runs now" } else { "Nothing that may be read" },
                    grouped(current),
                    grouped(peak),
                    percent(peak, current)
                ));
            }
            // What is enough for now is not what to leave it at: what to do is said of who grows.
            Some(current) if needed <= current && self.measured.grows => {
                advice.action = Action::WillNotHelp;
                advice.sentences.push(format!(
                    "So far vm.max_map_count = {} was enough: {who} {has} {} VMAs, {} % of it.",
                    grouped(current),
                    grouped(peak),
                    percent(peak, current)
                ));
            }
            Some(current) if needed <= current => {
                advice.action = Action::Leave;
                advice.sentences.push(format!(
                    "Leave vm.max_map_count at {}: {who} {has} {} VMAs, {} % of it.",
                    grouped(current),
                    grouped(peak),
                    percent(peak, current)
                ));
            }
            Some(current) => {
                advice.action = Action::Raise;
                advice.sentences.push(format!(
                    "{} {has} {} VMAs, {} % of the limit {}: raise vm.max_map_count to {} to leave \
                     room (peak x {}, rounded up to a multiple of {}).",
                    capitalised(who),
                    grouped(peak),
                    percent(peak, current),
                    grouped(current),
                    grouped(needed),
                    margin.headroom(),
                    grouped(margin.round())
                ));
                set(advice, needed, self.measured);
            }
            None => {
                // No command: it could lower a limit that is higher.
                advice.value = Some(needed);
                advice.sentences.push(format!(
                    "{} {has} {} VMAs: a vm.max_map_count of {} or more leaves room. The limit in \
                     force could not be read.",
                    capitalised(who),
                    grouped(peak),
                    grouped(needed)
                ));
                advice.sentences.push(price(needed, self.measured.vma_bytes));
            }
        }
    }
}

fn failed(measured: &Measured, of: impl Fn(&Failed) -> bool) -> u64 {
    total(measured.failures.iter().filter(|kind| of(kind)).map(|kind| kind.count))
}

/// Failed for another reason than the limit.
fn another(kind: &Failed) -> bool {
    match kind.cause {
        Cause::MaxMapCount => false,
        Cause::Unknown => kind.limit_excluded,
        _ => true,
    }
}

fn set(advice: &mut Recommendation, value: u64, measured: &Measured) {
    advice.value = Some(value);
    let sudo = if measured.root { "" } else { "sudo " };
    advice.commands.push(format!("{sudo}vmaudit limit --apply {value}"));
    advice.commands.push(format!("{sudo}sysctl -w vm.max_map_count={value}"));
    if value == KERNEL_LARGEST {
        advice.sentences.push(format!("{} is the largest value the kernel accepts.", grouped(value)));
    }
    advice.sentences.push(price(value, measured.vma_bytes));
    advice.sentences.push(
        "The first command sets it now and, by a file in /etc/sysctl.d, at every boot, and `vmaudit limit --undo` takes \
         it back; the second lasts until the next boot."
            .into(),
    );
}

fn price(value: u64, vma_bytes: Option<f64>) -> String {
    let (each, source) = match vma_bytes.filter(|bytes| bytes.is_finite() && *bytes > 0.0) {
        Some(bytes) => (bytes, "by this kernel's slab figures"),
        None => (SAFE_VMA_BYTES, "a safe estimate"),
    };
    format!(
        "Its price: a process that uses all of them holds {} of kernel memory that cannot be swapped \
         ({each:.0} B per VMA, {source}).",
        bytes((value as f64 * each) as u64)
    )
}

fn others_sentence(measured: &Measured, others: u64) -> Option<String> {
    if others == 0 {
        return None;
    }
    let reasons = reasons(
        measured
            .failures
            .iter()
            .filter(|kind| another(kind))
            .map(|kind| (kind.cause, kind.reason, kind.count)),
    );
    let list: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{} x {reason}", grouped(*count))).collect();
    Some(format!(
        "Raising vm.max_map_count will not help {}, because the reason is another: {}.",
        count(others, "failed call", "failed calls"),
        list.join(", ")
    ))
}

fn capitalised(text: &str) -> String {
    // Only our own words: a process's name is never changed.
    text.strip_prefix("the ").map_or_else(|| text.into(), |rest| format!("The {rest}"))
}

#[cfg(test)]
mod tests;
