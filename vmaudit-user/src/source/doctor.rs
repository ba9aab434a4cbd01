//! What this kernel, these rights and this build allow: the programs are attached as for a session, and taken away again.

use crate::domain::exactness::Exactness;
use crate::model::doctor::{CallsFound, Doctor, HookFound};
use crate::model::event::Doubt;
use crate::model::hook::CALL_EXIT;
use crate::model::report::{Hook, HookState};
use crate::os::kernel::Facts;
use crate::os::rights;
use crate::source::ebpf::hooks::HOOKS;
use crate::source::ebpf::{Live, PidNamespace, Unavailable, hooks};
use crate::source::{ebpf, environment, proc_max_map_count};

/// What capabilities of the file give to everybody who may run it; nothing where the caller has his own.
fn given_away() -> Option<&'static str> {
    rights::lent().then_some(
        "This copy of vmaudit has capabilities of its own: whoever may run it sees the names, command lines, mapped files \
         and VMA counts of every user's processes, their failed calls (without addresses), and may slow the machine down \
         by tracing. To give that to a group only: chgrp GROUP vmaudit; chmod 0750 vmaudit; then setcap, which chgrp \
         takes away.",
    )
}

/// What each arrangement that works with these hooks cannot see refused.
fn calls(arch: &str, hooks: &[Hook]) -> Vec<CallsFound> {
    let Some(watched) = hooks.iter().find(|hook| hook.name == CALL_EXIT && hook.state != HookState::Missing)
    else {
        return Vec::new();
    };
    let never: Vec<String> = [
        "madvise through io_uring",
        if arch == "x86_64" {
            "by the 32-bit entry: the older mmap, ipc (shmget, shmat)"
        } else {
            "all calls of 32-bit programs"
        },
    ]
    .map(Into::into)
    .into();
    let mut found = vec![CallsFound { arrangement: "all", not_watched: never.clone() }];
    if watched.via.as_deref() == Some(ebpf::ASKED) {
        let rest = hooks::UNWATCHED_CALLS.map(Into::into).into_iter();
        found.push(CallsFound { arrangement: "locking", not_watched: rest.chain(never).collect() });
    }
    found
}

/// Looks, as far as these rights go.
pub fn look() -> Doctor {
    let facts = Facts::gather();
    let options = ebpf::Options {
        interval: ebpf::INTERVAL,
        watch_all: false,
        follow_children: true,
        stream_changes: false,
        stream_failures: false,
        attach: true,
        calls: true,
        exits: false,
        stacks: false,
        makers: false,
        ledger: false,
        ring_bytes: 1 << 16,
        slots: 64,
        debug: false,
        namespace: PidNamespace::find().unwrap_or_default(),
    };
    let (hooks, conditions, doubt, why) = match Live::open(&facts, &options) {
        Ok(live) => (live.hooks(), environment::look(&facts, Some(&live.hooks())), live.losses().doubt, None),
        Err(Unavailable(why)) => {
            let why = environment::blocking(&facts).unwrap_or(why);
            (hooks::all_missing(&why), environment::look(&facts, None), Doubt::default(), Some(why))
        }
    };
    // `run` and `trace -p` do not work there, the hooks do.
    let reason = why.or_else(|| environment::pid_namespace(&conditions));
    let exactness = match &reason {
        Some(why) => Exactness::Samples(why.clone()),
        None => Exactness::of(&hooks, doubt),
    };
    Doctor {
        schema: "vmaudit.doctor",
        version: 1,
        vmaudit: env!("CARGO_PKG_VERSION"),
        kernel: facts.release.clone(),
        arch: facts.arch.to_string(),
        exact_peaks: exactness.peaks(),
        verdict: exactness.sentences(),
        calls: if reason.is_none() { calls(&facts.arch, &hooks) } else { Vec::new() },
        reason,
        max_map_count: proc_max_map_count(),
        conditions,
        hooks: hooks.into_iter().zip(HOOKS).map(|(hook, row)| HookFound { hook, gives: row.gives }).collect(),
        given_away: given_away(),
    }
}
