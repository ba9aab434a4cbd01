//! The program on the exits of calls that waits where answers are asked for, and is attached only when a limit is near
//! whose refusals nobody asks for (vmaudit-ebpf/src/near.rs): attaching takes 0.2 ms, and at work it costs every call of the
//! machine. Loading takes the verifier as long as the start of a session does, so a thread does that while the session goes
//! on already, unless a limit on tasks is near from the start.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
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
use crate::source::ebpf::hooks::{self, Choice, Form, Row, Via};
use crate::source::ebpf::losses::Counted;
use crate::source::ebpf::preload;
use crate::source::ebpf::refusal::refusal;
use crate::text::MESSAGES;

/// Room for tasks that no process uses up while the program is loaded.
const FAR: u64 = 4096;

/// The command begins before it, and commands that end as soon need none.
const HEAD_START: Duration = Duration::from_millis(15);

/// Waits until a limit is near, where answers are asked for.
#[derive(Default)]
pub struct Spare {
    waiting: Option<Waiting>,
    /// A limit came near, and it could not be attached.
    unwatched: bool,
    /// As long as it is there the session goes on.
    session: Option<Sender<()>>,
}

impl Spare {
    /// A limit came near, and its refusals are not watched.
    pub fn unwatched(&self) -> bool {
        self.unwatched
    }
}

/// Not at work yet.
struct Waiting {
    form: &'static Form,
    /// The kernel skips programs, and counts that.
    counts: bool,
    /// What it does not see.
    blind_spot: Option<String>,
}

/// Name, for [`hooks::left_out`], of the moment in which it would be attached.
const WATCHING: &str = "watching";

impl Live {
    /// Chooses the first of these forms.
    pub(super) fn keep_spare(&mut self, row: &Row, choice: &Choice, facts: &Facts) -> anyhow::Result<()> {
        let form = *choice.forms.first().with_context(|| choice.reasons.join("; "))?;
        if hooks::left_out(form.program) {
            return Err(anyhow!("left out on request"));
        }
        let blind_spot = hooks::blind_spot(row, facts, &[form.via]);
        self.spare.waiting = Some(Waiting { form, counts: hooks::skips_programs(facts), blind_spot });
        Ok(())
    }

    /// Begins to load it, unless the session is over at once.
    pub(super) fn load_spare(&mut self) {
        let Some(&Waiting { form, .. }) = self.spare.waiting.as_ref() else { return };
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
        self.spare.session = Some(session);
    }

    /// A limit is near: has its refusals watched from now on; called again and again until they are, or cannot be. While the
    /// program is being loaded there is nothing to do: the programs go on keeping in mind what is reached.
    pub(super) fn watch_exits(&mut self) {
        if self.spare.waiting.is_none() {
            return;
        }
        let programs = Arc::clone(&self.ebpf);
        let Some(mut programs) = preload::unless_loading(&programs) else { return };
        let Some(spare) = self.spare.waiting.take() else { return };
        let _rights = rights::raised(&rights::EBPF);
        let attached = attach(&mut programs, &spare);
        if attached.is_ok() {
            // SAFETY: the page, mapped for the life of `self`; the word is written by us alone.
            unsafe { AtomicU32::from_ptr(&raw mut (*self.control.at(0)).watched) }
                .store(1, Ordering::Release);
        }
        if let Some(hook) = self.hooks.iter_mut().find(|hook| hook.name == hook::CALL_EXIT) {
            let more = match &attached {
                Ok(_) => spare.blind_spot,
                Err(e) => Some(format!("a limit came near and they could not be watched: {}", refusal(e))),
            };
            if let (Some(loses), Some(more)) = (&mut hook.loses, more) {
                loses.push_str("; ");
                loses.push_str(&more);
            }
            if attached.is_ok() {
                hook.via = Some(format!("{ASKED}+{}", spare.form.via.name()));
            }
        }
        let Ok(counted) = attached else {
            self.spare.unwatched = true;
            return;
        };
        if let Some((_, programs)) = self.at_work.iter_mut().find(|row| row.0 == hook::CALL_EXIT) {
            programs.push(counted);
        }
    }
}

fn attach(programs: &mut Ebpf, spare: &Waiting) -> anyhow::Result<Counted> {
    if hooks::left_out(WATCHING) {
        return Err(anyhow!("left out on request"));
    }
    let program = programs.program_mut(spare.form.program).context("the eBPF object lacks it")?;
    preload::load(program)?;
    let (Program::RawTracePoint(program), Via::Raw(event)) = (program, spare.form.via) else {
        return Err(anyhow!("program {} is of another kind", spare.form.program));
    };
    program.attach(event)?;
    Ok(Counted::new(program.fd()?.as_fd().as_raw_fd(), spare.counts))
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
