//! The environments that processes begin with, from when a runner of tests is seen at work: a test is over sooner than
//! /proc can be asked which one it is.

use std::sync::Arc;

use aya::programs::Program;

use crate::domain::test_name::is_runner;
use crate::model::event::ProcessFacts;
use crate::os::rights;
use crate::source::ebpf::hooks::{self, Form};
use crate::source::ebpf::preload;
use crate::source::ebpf::{Live, Options};
use crate::text::MESSAGES;

/// Loaded at the start, for later the rights are gone; small. Not where every process is followed: anybody could fill the
/// ring buffer.
pub fn wanted(options: &Options) -> Option<&'static Form> {
    (!options.watch_all).then_some(&FORM)
}

static FORM: Form = hooks::raw("environment_raw", EVENT);
const EVENT: &str = "sched_process_exec";

/// Whether they are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environments {
    /// No runner was seen.
    #[default]
    Unwanted,
    /// One was.
    Wanted,
    /// They are, or cannot be.
    Settled,
}

impl Live {
    /// A process has begun.
    pub(super) fn may_run_tests(&mut self, facts: &ProcessFacts) {
        if self.environments == Environments::Unwanted && facts.exe.as_deref().is_some_and(is_runner) {
            self.environments = Environments::Wanted;
        }
    }

    /// Called again and again: while another program is being loaded there is nothing to do.
    pub(super) fn want_environments(&mut self) {
        if self.environments != Environments::Wanted {
            return;
        }
        let programs = Arc::clone(&self.ebpf);
        let Some(mut programs) = preload::unless_loading(&programs) else { return };
        self.environments = Environments::Settled;
        // What others were started with is not the caller's to know: /proc is asked, as he may.
        if rights::lent() {
            return;
        }
        let _rights = rights::raised(&rights::EBPF);
        let name = FORM.program;
        if let Some(Program::RawTracePoint(program)) = programs.program_mut(name)
            && !hooks::left_out(name)
            && let Err(e) = program.attach(EVENT)
        {
            log::debug!(target: MESSAGES, "[bpf] {name}: {e}");
        }
    }
}
