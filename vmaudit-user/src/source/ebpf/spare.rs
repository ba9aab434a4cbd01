//! The program on the exits of calls that is loaded from the start where answers are asked for, and attached only when a
//! limit is near whose refusals nobody asks for (vmaudit-ebpf/src/near.rs): attaching takes 0.2 ms, loading many times
//! that, and at work it costs every call of the machine.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, anyhow};
use aya::programs::Program;

use crate::model::hook;
use crate::os::kernel::Facts;
use crate::os::rights;
use crate::source::ebpf::Live;
use crate::source::ebpf::hooks::{Choice, Form, Via};
use crate::source::ebpf::load::{ASKED, attach_to_event, refusal};
use crate::source::ebpf::losses::Counted;
use crate::text::MESSAGES;

/// Loaded, and not at work yet.
pub struct Spare {
    form: &'static Form,
    /// The event of a classic tracepoint.
    event: Option<u64>,
    counted: Counted,
}

impl Live {
    /// Loads the first of these forms.
    pub(super) fn keep_spare(&mut self, choice: &Choice, facts: &Facts) -> anyhow::Result<()> {
        let form = *choice.forms.first().with_context(|| choice.reasons.join("; "))?;
        let event = match form.via {
            Via::Classic(category, name) => {
                let tracefs = facts.tracefs.as_ref().map_err(|e| anyhow!("{e}"))?;
                Some(tracefs.event_id(category, name).map_err(|e| anyhow!(e))?)
            }
            _ => None,
        };
        let program = match self.program(form)? {
            Program::RawTracePoint(p) => {
                p.load()?;
                p.fd()?
            }
            Program::TracePoint(p) => {
                p.load()?;
                p.fd()?
            }
            _ => return Err(anyhow!("program {} is no tracepoint's", form.program)),
        };
        let counted = Counted::new(program.as_fd().as_raw_fd(), facts);
        self.spare = Some(Spare { form, event, counted });
        Ok(())
    }

    /// A limit is near: has its refusals watched from now on.
    pub(super) fn watch_exits(&mut self) {
        let Some(spare) = self.spare.take() else { return };
        let _rights = rights::raised(&rights::EBPF);
        if let Err(e) = self.attach_spare(&spare) {
            // The programs go on keeping in mind what is reached.
            log::debug!(target: MESSAGES, "[bpf] {}: {}", spare.form.program, refusal(&e));
            return;
        }
        // SAFETY: the only value of CONTROL, mapped for the life of `self`; the word is written by us alone.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.control.at(0)).watched) }.store(1, Ordering::Release);
        if let Some(hook) = self.hooks.iter_mut().find(|hook| hook.name == hook::CALL_EXIT) {
            hook.via = Some(format!("{ASKED}+{}", spare.form.via.name()));
        }
        if let Some((_, programs)) = self.at_work.iter_mut().find(|row| row.0 == hook::CALL_EXIT) {
            programs.push(spare.counted);
        }
    }

    fn attach_spare(&mut self, spare: &Spare) -> anyhow::Result<()> {
        match (self.program(spare.form)?, spare.form.via) {
            (Program::RawTracePoint(p), Via::Raw(event)) => {
                p.attach(event)?;
            }
            (Program::TracePoint(p), _) => {
                let program = p.fd()?.as_fd().as_raw_fd();
                let event = attach_to_event(spare.event.unwrap_or(0), program)?;
                self.events.push(event);
            }
            _ => return Err(anyhow!("program {} is of another kind", spare.form.program)),
        }
        Ok(())
    }
}
