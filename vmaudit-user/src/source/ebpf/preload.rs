//! Programs are loaded on several CPUs at once: the verifier takes no lock for the privileged (kernel/bpf/verifier.c:bpf_check).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
};

use aya::Ebpf;
use aya::programs::{Program, ProgramError};
use nix::sys::signal::SigSet;

use crate::source::ebpf::Live;
use crate::source::ebpf::hooks::{self, Form, Via};

/// CPUs that load: the largest program is a third of the work.
const MOST: usize = 4;

/// Why the kernel refused programs, by name; what was loaded is not in it.
pub type Refused = HashMap<&'static str, ProgramError>;

impl Live {
    /// Loads the programs of these forms, as far as they need nothing but to be loaded; attaching them tells what became of
    /// the others.
    pub(super) fn preload(&self, forms: Vec<&'static Form>) -> Refused {
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let mut programs: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
        // Taken from the end: what takes longest comes first in the table.
        let mut waiting: Vec<(&'static str, &mut Program)> = forms
            .into_iter()
            .filter(|form| {
                matches!(form.via, Via::Raw(_) | Via::Classic(..)) && !form.programs().any(hooks::left_out)
            })
            .flat_map(Form::programs)
            .filter_map(|name| Some((name, programs.remove(name)?)))
            .collect();
        waiting.reverse();
        let (waiting, refused) = (Mutex::new(waiting), Mutex::new(Refused::new()));
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || {
            while let Some((name, program)) = next() {
                if let Err(e) = load(program) {
                    refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name, e);
                }
            }
        };
        thread::scope(|scope| {
            let beside = || {
                // A signal would make the verifier begin anew.
                let _ = SigSet::all().thread_block();
                work();
            };
            for _ in 1..thread::available_parallelism().map_or(2, usize::from).clamp(2, MOST) {
                // Where no thread is to be had, the others do all.
                let _ = thread::Builder::new().name("vmaudit-load".into()).spawn_scoped(scope, beside);
            }
            work();
        });
        refused.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tracepoint's program; nothing to do for others, or if it is loaded.
pub fn load(program: &mut Program) -> Result<(), ProgramError> {
    let loaded = match program {
        Program::RawTracePoint(p) => p.load(),
        Program::TracePoint(p) => p.load(),
        _ => Ok(()),
    };
    match loaded {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}

/// The programs, unless a thread is loading one of them: who waited for the verifier would read no records.
pub fn unless_loading(programs: &Mutex<Ebpf>) -> Option<MutexGuard<'_, Ebpf>> {
    match programs.try_lock() {
        Ok(programs) => Some(programs),
        Err(TryLockError::Poisoned(programs)) => Some(programs.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
