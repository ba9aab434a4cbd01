//! The program on the exits of calls that waits where answers are asked for, and is attached only when a limit is near
//! whose refusals nobody asks for (vmaudit-ebpf/src/near.rs): attaching takes 0.2 ms, and at work it costs every call of the
//! machine. Loading takes the verifier as long as the start of a session does, so a thread does that while the session goes
//! on already, unless a limit on tasks is near from the start.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use aya::Ebpf;
use aya::programs::Program;

use crate::model::hook;
use crate::os::kernel::Facts;
use crate::os::{own_threads, rights, task_room};
use crate::source::ebpf::Live;
use crate::source::ebpf::attach::ASKED;
use crate::source::ebpf::attach::attach_to_event;
use crate::source::ebpf::hooks::{self, Choice, Form, Via};
use crate::source::ebpf::losses::Counted;
use crate::source::ebpf::preload;
use crate::source::ebpf::refusal::refusal;
use crate::text::MESSAGES;

/// Room for tasks that no process uses up while the program is loaded.
const FAR: u64 = 4096;

/// The command begins before it, and commands that end as soon need none.
const HEAD_START: Duration = Duration::from_millis(15);

/// Not at work yet.
pub struct Spare {
    form: &'static Form,
    /// The event of a classic tracepoint.
    event: Option<u64>,
    /// The kernel skips programs, and counts that.
    counts: bool,
}

impl Live {
    /// Chooses the first of these forms.
    pub(super) fn keep_spare(&mut self, choice: &Choice, facts: &Facts) -> anyhow::Result<()> {
        let form = *choice.forms.first().with_context(|| choice.reasons.join("; "))?;
        if hooks::left_out(form.program) {
            return Err(anyhow!("left out on request"));
        }
        let event = match form.via {
            Via::Classic(category, name) => {
                let tracefs = facts.tracefs.as_ref().map_err(|e| anyhow!("{e}"))?;
                Some(tracefs.event_id(category, name).map_err(|e| anyhow!(e))?)
            }
            _ => None,
        };
        self.spare = Some(Spare { form, event, counts: hooks::skips_programs(facts) });
        Ok(())
    }

    /// Begins to load it, unless the session is over at once.
    pub(super) fn load_spare(&mut self) {
        let Some(Spare { form, .. }) = self.spare else { return };
        let programs = Arc::clone(&self.ebpf);
        let (session, ends) = mpsc::channel();
        // A signal would make the verifier begin anew.
        let work = move || {
            if ends.recv_timeout(HEAD_START) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            // Else its rights would outlast those of the session.
            if rights::keep_in_thread(&rights::EBPF).is_ok() {
                load(&programs, form);
            }
        };
        if !task_room::is_at_least(FAR) || own_threads::deaf("vmaudit-load", work).is_err() {
            load(&self.ebpf, form);
        }
        self.session = Some(session);
    }

    /// A limit is near: has its refusals watched from now on; called again and again until they are. While the program is
    /// being loaded there is nothing to do: the programs go on keeping in mind what is reached.
    pub(super) fn watch_exits(&mut self) {
        if self.spare.is_none() {
            return;
        }
        let programs = Arc::clone(&self.ebpf);
        let Some(mut programs) = preload::unless_loading(&programs) else { return };
        let Some(spare) = self.spare.take() else { return };
        let _rights = rights::raised(&rights::EBPF);
        let counted = match self.attach_spare(&mut programs, &spare) {
            Ok(counted) => counted,
            Err(e) => {
                log::debug!(target: MESSAGES, "[bpf] {}: {}", spare.form.program, refusal(&e));
                return;
            }
        };
        // SAFETY: the page, mapped for the life of `self`; the word is written by us alone.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.control.at(0)).watched) }.store(1, Ordering::Release);
        if let Some(hook) = self.hooks.iter_mut().find(|hook| hook.name == hook::CALL_EXIT) {
            hook.via = Some(format!("{ASKED}+{}", spare.form.via.name()));
        }
        if let Some((_, programs)) = self.at_work.iter_mut().find(|row| row.0 == hook::CALL_EXIT) {
            programs.push(counted);
        }
    }

    fn attach_spare(&mut self, programs: &mut Ebpf, spare: &Spare) -> anyhow::Result<Counted> {
        let program = programs.program_mut(spare.form.program).context("the eBPF object lacks it")?;
        preload::load(program)?;
        let fd = match (program, spare.form.via) {
            (Program::RawTracePoint(p), Via::Raw(event)) => {
                p.attach(event)?;
                p.fd()?.as_fd().as_raw_fd()
            }
            (Program::TracePoint(p), _) => {
                let program = p.fd()?.as_fd().as_raw_fd();
                let event = attach_to_event(spare.event.unwrap_or(0), program)?;
                self.events.push(event);
                program
            }
            _ => return Err(anyhow!("program {} is of another kind", spare.form.program)),
        };
        Ok(Counted::new(fd, spare.counts))
    }
}

/// What went wrong is told when it is attached.
fn load(programs: &Mutex<Ebpf>, form: &Form) {
    let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = programs.program_mut(form.program)
        && let Err(e) = preload::load(program)
    {
        log::debug!(target: MESSAGES, "[bpf] {}: {e}", form.program);
    }
}
