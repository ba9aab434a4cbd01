//! What reports from a machine can say of their figures, told before any session by what could be attached.

use crate::model::event::Doubt;
use crate::model::hook;
use crate::model::report::{Hook, HookState};

/// What a report from here can say of its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Nothing but looks at /proc, and why.
    Samples(String),
    /// Counts are read at the exits of calls.
    OneThread,
    /// The kernel may skip programs, and nobody can tell whether it did: no peak, or no list of processes, or no count of
    /// calls is called exact.
    Untold(Doubt),
    /// The kernel may skip programs, and reports tell.
    Skippable,
    /// No such doubt.
    Exact,
}

impl Exactness {
    /// `doubt` before anything was skipped is what no session can be without.
    pub fn of(hooks: &[Hook], doubt: Doubt) -> Self {
        let released = |hook: &&Hook| hook.name == hook::LOCK_RELEASED;
        if hooks.iter().find(released).is_some_and(|hook| hook.state == HookState::Missing) {
            Self::OneThread
        } else if doubt != Doubt::default() {
            Self::Untold(doubt)
        } else if hooks.iter().any(|hook| hook.state == HookState::Attached && hook.loses.is_some()) {
            Self::Skippable
        } else {
            Self::Exact
        }
    }

    /// Reports from here can say `exact_peaks`.
    pub fn peaks(&self) -> bool {
        match self {
            Self::Samples(_) | Self::OneThread => false,
            Self::Untold(doubt) => !doubt.peaks && !doubt.processes,
            Self::Skippable | Self::Exact => true,
        }
    }

    /// What that means for people.
    pub fn sentences(&self) -> String {
        match self {
            Self::Samples(why) => format!(
                "Peaks are samples here: {why}. What is left: looks at /proc, for one's own processes without any right."
            ),
            Self::OneThread => {
                "Peaks of processes with one thread are exact here; those of others are samples, and say \
                                so."
                .into()
            }
            Self::Untold(doubt) => {
                let what = [
                    (doubt.peaks, "peaks"),
                    (doubt.processes, "the list of processes"),
                    (doubt.calls, "counts of calls"),
                    (doubt.causes, "causes"),
                ];
                let what: Vec<&str> =
                    what.into_iter().filter(|(doubtful, _)| *doubtful).map(|(_, name)| name).collect();
                format!(
                    "Every change is followed here, but nobody can tell whether the kernel skips a program now and then; \
                     so no report calls these exact, complete or certain: {}.",
                    what.join(", ")
                )
            }
            Self::Skippable => {
                "Peaks are exact here, but for what the kernel skips of the programs below; reports count \
                                that and say which figures it touches."
                    .into()
            }
            Self::Exact => "Peaks are exact here.".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, state: HookState, loses: Option<&str>) -> Hook {
        Hook { state, loses: loses.map(Into::into), ..Hook::unused(name) }
    }

    #[test]
    fn exactness_is_what_reports_can_say() {
        let released = |state, loses| [hook(hook::LOCK_RELEASED, state, loses)];
        let none = Doubt::default();
        let all = released(HookState::Attached, None);
        assert_eq!(Exactness::of(&all, none), Exactness::Exact);
        assert_eq!(Exactness::of(&released(HookState::Missing, None), none), Exactness::OneThread);
        let skippable = Exactness::of(&released(HookState::Attached, Some("is skipped")), none);
        assert!(skippable.peaks() && skippable.sentences().contains("skips"), "{skippable:?}");
        let calls = Exactness::of(&all, Doubt { calls: true, ..none });
        assert!(calls.peaks() && calls.sentences().ends_with(": counts of calls."), "{}", calls.sentences());
        for doubt in [Doubt { peaks: true, ..none }, Doubt { processes: true, ..none }] {
            assert!(!Exactness::of(&all, doubt).peaks(), "{doubt:?}");
        }
    }
}
