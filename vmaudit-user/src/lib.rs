//! vmaudit: follows the VMA counts of processes exactly, says why memory calls fail, recommends a limit.
//!
//! ```text
//! text, model  <-  domain  <-  os  <-  source  <-  enrich, launch  <-  session  <-  the program's commands
//!      ^-------------------------------------------  output
//! ```
//!
//! A folder imports only folders to its left; `output` sees `text` and `model` alone.
//!
//! * `text`: words for figures. `model`: events, and the documents that outputs render.
//! * `domain`: what is made of them; pure. `os`: what the operating system tells.
//! * `source`: the kernel (eBPF) or looks at /proc, as one stream of events. `enrich`: what is looked up beside it.
//! * `launch`: the command. `session`: one loop that wires all this. The program (`src/bin/vmaudit`) has the command line
//!   and one file per command, so nothing here can know of them.
//!
//! Invariants: a source never prints; an output never opens /proc; the audit does no I/O and takes time only from
//! events, so the same events give the same report; what a source cannot see is in `Coverage`, never guessed.

#[cfg(test)]
mod alone;
pub mod domain;
pub mod enrich;
pub mod launch;
#[cfg(test)]
#[path = "../../tests/src/elf.rs"]
mod made;
pub mod model;
pub mod os;
pub mod output;
pub mod session;
pub mod source;
#[cfg(any(test, fuzzing))]
pub mod strangers;
pub mod text;
