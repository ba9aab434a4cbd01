//! End-to-end tests: the real `vmaudit` on real workloads whose figures are known in advance.
//!
//! Expected values come from the workload itself and are compared with `==`. The programs are found through VMAUDIT_BIN
//! and WORKLOAD_BIN (`cargo xtask test` sets both). Needs root, BTF and /proc; nothing else of the machine is used, so
//! the same file runs in a bare VM. VMAUDIT_CHILDREN sets the size of the largest family (default 2,000).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking; names are sentences"
)]

#[path = "live/advice.rs"]
mod advice;
#[path = "live/attach.rs"]
mod attach;
#[path = "live/budgets.rs"]
mod budgets;
#[path = "live/calls.rs"]
mod calls;
#[path = "live/causes.rs"]
mod causes;
#[path = "live/conditions.rs"]
mod conditions;
#[path = "live/crowds.rs"]
mod crowds;
#[path = "live/diffs.rs"]
mod diffs;
#[path = "live/ends.rs"]
mod ends;
#[path = "live/examples.rs"]
mod examples;
#[path = "live/explain.rs"]
mod explain;
#[path = "live/failures.rs"]
mod failures;
#[path = "live/fallback.rs"]
mod fallback;
#[path = "live/fleet.rs"]
mod fleet;
#[path = "live/flight.rs"]
mod flight;
#[path = "live/hostile_files.rs"]
mod hostile_files;
#[path = "live/hostile_names.rs"]
mod hostile_names;
#[path = "live/intervals.rs"]
mod intervals;
#[path = "live/languages.rs"]
mod languages;
#[path = "live/ledger.rs"]
mod ledger;
#[path = "live/lent.rs"]
mod lent;
#[path = "live/limit_command.rs"]
mod limit_command;
#[path = "live/lodgers.rs"]
mod lodgers;
#[path = "live/losses.rs"]
mod losses;
#[path = "live/makers.rs"]
mod makers;
#[path = "live/marks.rs"]
mod marks;
#[path = "live/memory.rs"]
mod memory;
#[path = "live/more_calls.rs"]
mod more_calls;
#[path = "live/named.rs"]
mod named;
#[path = "live/names.rs"]
mod names;
#[path = "live/namespaces.rs"]
mod namespaces;
#[path = "live/neighbours.rs"]
mod neighbours;
#[path = "live/outcomes.rs"]
mod outcomes;
#[path = "live/peaks.rs"]
mod peaks;
#[path = "live/pods.rs"]
mod pods;
#[path = "live/preamble.rs"]
mod preamble;
#[path = "live/preemption.rs"]
mod preemption;
#[path = "live/processes.rs"]
mod processes;
#[path = "live/readers.rs"]
mod readers;
#[path = "live/recordings.rs"]
mod recordings;
#[path = "live/rights.rs"]
mod rights;
#[path = "live/runners.rs"]
mod runners;
#[path = "live/scan.rs"]
mod scan;
#[cfg(feature = "schemas")]
#[path = "live/schemas.rs"]
mod schemas;
#[path = "live/screens.rs"]
mod screens;
#[path = "live/serve.rs"]
mod serve;
#[path = "live/sources.rs"]
mod sources;
#[path = "live/stacks.rs"]
mod stacks;
#[path = "live/stuck.rs"]
mod stuck;
#[path = "live/terminal.rs"]
mod terminal;
#[path = "live/transparency.rs"]
mod transparency;
#[path = "live/typed.rs"]
mod typed;
#[path = "live/watch.rs"]
mod watch;
