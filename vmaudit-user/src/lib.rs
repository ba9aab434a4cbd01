//! vmaudit: follows the VMA counts of processes exactly, says why memory calls fail, recommends a limit.
//!
//! ```text
//! source::live ──┐
//! source::proc ──┼─► Event ─► Audit ─► Report ─► output::{text, json}
//!                │              ▲│
//!                ├─ symbols ────┘│  (refused stacks → names; reads mappings and files of strangers, bounded)
//!                └─ Coverage    ├─ diagnosis::why   (pure: one refusal → cause, evidence, sentence)
//!                               └─ recommend        (pure: figures → advice)
//! ```
//!
//! Invariants: a source never prints; an output never opens /proc; the audit does no I/O and takes time only from
//! events, so the same events give the same report; what a source cannot see is in `Coverage`, never guessed.

pub mod apart;
pub mod application;
pub mod arguments;
pub mod audit;
pub mod cli;
pub mod command;
pub mod conditions;
pub mod diagnosis;
pub mod doctor;
pub mod explain;
pub mod gate;
pub mod limit;
pub mod maps;
pub mod output;
pub mod price;
pub mod recommend;
pub mod report;
pub mod rights;
pub mod scan;
pub mod session;
pub mod source;
pub mod start;
pub mod symbols;
pub mod trace;
pub mod witness;
