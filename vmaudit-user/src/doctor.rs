//! `vmaudit doctor`: what this kernel, these rights and this build allow, hook by hook, in sentences.

use std::io::Write as _;

use serde_json::json;

use crate::cli::{DoctorArgs, ReportFormat};
use crate::model::event::Doubt;
use crate::model::hook;
use crate::model::report::{Hook, HookState};
use crate::os::kernel::Facts;
use crate::os::rights;
use crate::output::{self, Destination};
use crate::source::ebpf::hooks::HOOKS;
use crate::source::ebpf::{Live, Unavailable, hooks};
use crate::source::{ebpf, environment, proc_max_map_count};
use crate::text;

/// What a report from here can say of its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exactness {
    /// Nothing but looks at /proc, and why.
    Samples(String),
    /// Counts are read at the exits of calls.
    OneThread,
    /// The kernel may skip programs, and nobody can tell whether it did: no peak, or no list of processes, or no count of
    /// calls is called exact.
    Untold(Doubt),
    /// The kernel may skip programs, and reports tell.
    Skippable,
    Exact,
}

impl Exactness {
    /// `doubt` before anything was skipped is what no session can be without.
    fn of(hooks: &[Hook], doubt: Doubt) -> Self {
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
    fn peaks(&self) -> bool {
        match self {
            Self::Samples(_) | Self::OneThread => false,
            Self::Untold(doubt) => !doubt.peaks && !doubt.processes,
            Self::Skippable | Self::Exact => true,
        }
    }

    fn sentences(&self) -> String {
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

/// What capabilities of the file give to everybody who may run it; nothing where the caller has his own.
fn given_away() -> Option<&'static str> {
    rights::lent().then_some(
        "This copy of vmaudit has capabilities of its own: whoever may run it sees the names, command lines, mapped files \
         and VMA counts of every user's processes, their failed calls (without addresses), and may slow the machine down \
         by tracing. To give that to a group only: chgrp GROUP vmaudit; chmod 0750 vmaudit; then setcap, which chgrp \
         takes away.",
    )
}

/// `vmaudit doctor`: 0 when peaks are exact here, 1 when only /proc is left.
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<i32> {
    let facts = Facts::gather();
    let options = ebpf::Options {
        watch_all: false,
        follow_children: true,
        stream_changes: false,
        stream_failures: false,
        attach: true,
        calls: true,
        stacks: false,
        ring_bytes: 1 << 16,
        slots: 64,
        debug: false,
    };
    let (hooks, conditions, doubt, why) = match Live::open(&facts, &options) {
        Ok(live) => (live.hooks(), environment::look(&facts, Some(&live.hooks())), live.losses().doubt, None),
        Err(Unavailable(why)) => {
            let why = environment::blocking(&facts).unwrap_or(why);
            (hooks::all_missing(&why), environment::look(&facts, None), Doubt::default(), Some(why))
        }
    };
    // `run` and `trace -p` do not work there, the hooks do.
    let why = why.or_else(|| environment::pid_namespace(&conditions));
    let exactness = match &why {
        Some(why) => Exactness::Samples(why.clone()),
        None => Exactness::of(&hooks, doubt),
    };
    rights::finish(&[]);
    let mut out = Destination::Stdout;
    match args.format {
        ReportFormat::Json => {
            let document = json!({
                "schema": "vmaudit.doctor", "version": 1, "vmaudit": env!("CARGO_PKG_VERSION"),
                "kernel": facts.release, "arch": facts.arch, "exact_peaks": exactness.peaks(), "reason": why,
                "max_map_count": proc_max_map_count(), "conditions": conditions, "hooks": hooks,
                "given_away": given_away(),
            });
            output::json::document(&document, &mut out)?;
        }
        ReportFormat::Text => {
            writeln!(
                out,
                "vmaudit {} on Linux {} ({})\n",
                env!("CARGO_PKG_VERSION"),
                text::clean(&facts.release),
                facts.arch
            )?;
            writeln!(out, "{}\n", text::clean(&exactness.sentences()))?;
            for (hook, row) in hooks.iter().zip(HOOKS) {
                match hook.state {
                    HookState::Attached => {
                        let via = hook.via.as_deref().unwrap_or("?");
                        writeln!(out, "  yes  {:<20} {} [{via}]", hook.name, row.gives)?;
                        // Why not in another way too is of interest where that costs something.
                        if let Some(loses) = &hook.loses {
                            writeln!(out, "       {:<20} but {loses}", "")?;
                            if let Some(reason) = &hook.reason {
                                writeln!(out, "       {:<20} because {}", "", text::clean(reason))?;
                            }
                        }
                    }
                    HookState::Unused => {
                        writeln!(out, "  -    {:<20} not needed now: {}", hook.name, row.gives)?;
                    }
                    HookState::Missing => {
                        match &hook.via {
                            Some(via) => writeln!(out, "  NO   {:<20} by {via} instead", hook.name)?,
                            None => writeln!(out, "  NO   {:<20} {}", hook.name, row.loses)?,
                        }
                        if let (Some(_), Some(loses)) = (&hook.via, &hook.loses) {
                            writeln!(out, "       {:<20} {loses}", "")?;
                        }
                        if let Some(reason) = hook.reason.as_ref().filter(|r| Some(*r) != why.as_ref()) {
                            writeln!(out, "       {:<20} because {}", "", text::clean(reason))?;
                        }
                    }
                }
            }
            writeln!(out)?;
            for condition in &conditions {
                let word = match condition.met {
                    Some(true) => "yes",
                    Some(false) => "NO ",
                    None => "?  ",
                };
                writeln!(out, "  {word}  {:<34} {}", condition.name, text::clean(&condition.found))?;
                for line in [&condition.loses, &condition.cure].into_iter().flatten() {
                    writeln!(out, "       {:<34} {}", "", text::clean(line))?;
                }
            }
            if let Some(sentence) = given_away() {
                writeln!(out, "\n{sentence}")?;
            }
            writeln!(
                out,
                "\n  vm.max_map_count is {}.",
                proc_max_map_count().map_or("not readable".into(), |n| text::grouped(n.into()))
            )?;
        }
    }
    Ok(i32::from(why.is_some()))
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
