//! How the programs get to their places: row by row of the hook table.

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, anyhow};
use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::Program;

use crate::model::hook;
use crate::model::report::{Hook, HookState};
use crate::os::kernel::Facts;
use crate::os::procfs::Proc;
use crate::source::ebpf::hooks::{self, Extent, Form, Need, Next, Row, Via};
use crate::source::ebpf::losses::Counted;
use crate::source::ebpf::preload::{self, Refused};
use crate::source::ebpf::refusal::refusal;
use crate::source::ebpf::{Live, Options};
use crate::text::MESSAGES;

/// How the exits of calls are watched where answers are asked for, in reports.
pub const ASKED: &str = "task_work";

/// Why not all could be attached.
pub enum Stop {
    /// The source is not to be had, in one sentence.
    Unavailable(String),
    /// What is tried first does not do; with the other ways made ready it may.
    Again,
}

/// This session has a use for the row.
pub fn wants(row: &Row, options: &Options) -> bool {
    match row.need {
        Need::Attach => options.attach,
        Need::Required | Need::Rare => true,
        Need::Optional => options.calls,
        Need::StrictOvercommit => options.calls && Proc::default().limits().overcommit_memory == Some(2),
    }
}

impl Live {
    /// The row's program waits until a limit is near: that on the releases does its work.
    pub(super) fn is_spare(&self, row: &Row) -> bool {
        row.name == hook::CALL_EXIT && self.asks()
    }

    /// Attaches one row of the table as far as it is wanted. `refused`: what could not be loaded.
    pub(super) fn attach_row(
        &mut self,
        row: &'static Row,
        facts: &Facts,
        options: &Options,
        (extent, refused): (Extent, &mut Refused),
    ) -> Result<(), Stop> {
        let mut hook = Hook::unused(row.name);
        if !wants(row, options) {
            self.hooks.push(hook);
            return Ok(());
        }
        let choice = hooks::choose(row, facts, self.asks());
        if self.is_spare(row) {
            self.keep_spare(row, &choice, facts).map_err(|e| Stop::Unavailable(refusal(&e)))?;
            hook.state = HookState::Attached;
            hook.via = Some(ASKED.into());
            hook.loses = Some(hooks::UNWATCHED.into());
            self.at_work.push((row.name, Vec::new()));
            self.hooks.push(hook);
            return Ok(());
        }
        let ready = choice.to_try(extent);
        let more = ready.len() < choice.forms.len();
        let mut reasons = choice.reasons;
        let mut vias: Vec<Via> = Vec::new();
        let mut programs = Vec::new();
        for form in ready {
            let attached = match form.programs().find_map(|name| refused.remove(name)) {
                Some(e) => Err(anyhow!(e)),
                None => self.attach(form, facts),
            };
            match attached {
                Ok(fd) => {
                    vias.push(form.via);
                    programs.push(Counted::new(fd, hooks::skips_programs(facts)));
                    if !choice.all {
                        break;
                    }
                }
                Err(_) if more => return Err(Stop::Again),
                Err(e) => {
                    if options.debug {
                        say_why(form, &e);
                    }
                    reasons.push(refusal(&e));
                }
            }
        }
        if programs.is_empty() {
            let reason = reasons.join("; ");
            if row.need == Need::Required {
                return Err(Stop::Unavailable(format!("the hook {} cannot be attached: {reason}", row.name)));
            }
            hook.state = HookState::Missing;
            hook.loses = Some(row.loses.into());
            hook.reason = Some(reason);
        } else {
            hook.state = HookState::Attached;
            hook.via = Some(vias.iter().map(|via| via.name()).collect::<Vec<_>>().join("+"));
            // Why not in another way too, or instead.
            hook.reason = Some(reasons.join("; ")).filter(|reason| !reason.is_empty());
            hook.loses = hooks::blind_spot(row, facts, &vias);
            self.at_work.push((row.name, programs));
        }
        self.hooks.push(hook);
        Ok(())
    }

    /// Attaches the program of this form.
    pub(super) fn attach(&mut self, form: &Form, facts: &Facts) -> anyhow::Result<RawFd> {
        if form.programs().any(hooks::left_out) {
            return Err(anyhow!("left out on request"));
        }
        let ebpf = Arc::clone(&self.ebpf);
        let mut ebpf = ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = &form.next {
            put_in_place(&mut ebpf, next)?;
        }
        let program = ebpf
            .program_mut(form.program)
            .with_context(|| format!("the eBPF object has no program {}", form.program))?;
        preload::load(program)?;
        match (program, form.via) {
            (Program::RawTracePoint(p), Via::Raw(event)) => {
                p.attach(event)?;
                Ok(p.fd()?.as_fd().as_raw_fd())
            }
            (Program::TracePoint(p), Via::Classic(category, name)) => {
                let tracefs = facts.tracefs.as_ref().map_err(|e| anyhow!("{e}"))?;
                let id = tracefs.event_id(category, name).map_err(|e| anyhow!(e))?;
                let fd = p.fd()?.as_fd().as_raw_fd();
                let event = attach_to_event(id, fd).with_context(|| format!("{category}:{name}"))?;
                self.events.push(event);
                Ok(fd)
            }
            (Program::Iter(p), Via::Iter(kind)) => {
                let btf = aya::Btf::from_sys_fs()?;
                p.load(kind, &btf)?;
                let fd = p.fd()?.as_fd().as_raw_fd();
                // One for each walk.
                let (first, last) = (p.attach()?, p.attach()?);
                let walks = [p.take_link(first)?.into_file()?, p.take_link(last)?.into_file()?];
                [self.iterator, self.last_walk] = walks.map(Some);
                Ok(fd)
            }
            (Program::FExit(p), Via::FExit(function)) => {
                p.load(function, &aya::Btf::from_sys_fs()?)?;
                p.attach()?;
                Ok(p.fd()?.as_fd().as_raw_fd())
            }
            (Program::KProbe(p), Via::KProbe(function) | Via::KRetProbe(function)) => {
                if !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
                    return Err(anyhow!("this kernel has no kprobes"));
                }
                p.load()?;
                p.attach(function, 0)?;
                Ok(p.fd()?.as_fd().as_raw_fd())
            }
            _ => Err(anyhow!("program {} is of another kind than the hook table says", form.program)),
        }
    }
}

/// The program that another gives over to is loaded and stands in its array.
pub(super) fn put_in_place(ebpf: &mut Ebpf, next: &Next) -> anyhow::Result<()> {
    load_next(ebpf, next)?;
    let program = ebpf.program_mut(next.program).context("the eBPF object lacks a program")?;
    let program = program.fd()?.try_clone()?;
    let array = ebpf.map_mut(next.array).context("the eBPF object lacks an array")?;
    ProgramArray::try_from(array)?.set(0, &program, 0)?;
    Ok(())
}

/// Loads the program that others give over to; none does before it is put in its place.
pub(super) fn load_next(ebpf: &mut Ebpf, next: &Next) -> anyhow::Result<()> {
    let program = ebpf.program_mut(next.program).context("the eBPF object lacks a program")?;
    Ok(preload::load(program)?)
}

/// It stands in its array no more, if it did.
pub(super) fn take_out(ebpf: &mut Ebpf, next: &Next) {
    let array = ebpf.map_mut(next.array).and_then(|map| ProgramArray::try_from(map).ok());
    // One that is not there is what is wanted.
    let _ = array.map(|mut array| array.clear_index(&0));
}

/// What the verifier said last about a program that it refused.
fn say_why(form: &Form, error: &anyhow::Error) {
    const LINES: usize = 40;
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        log::info!(target: MESSAGES, "[bpf] {}: {line}", form.program);
    }
}

/// Opens a classic tracepoint event and puts the program on it. The program then runs for that event on every CPU and
/// for every task, whatever the descriptor's own scope (kernel/events/core.c:perf_event_set_bpf_prog).
pub(super) fn attach_to_event(id: u64, program: RawFd) -> std::io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u64 = 2;
    const PERF_ATTR_SIZE_VER0: u64 = 64;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    // struct perf_event_attr: type and size, config, sample_period, sample_type, read_format, flags, wakeupevents.
    let attr = [PERF_TYPE_TRACEPOINT | PERF_ATTR_SIZE_VER0 << 32, id, 1, 0, 0, 0, 1, 0];
    // SAFETY: `attr` has the size it states.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, PERF_FLAG_FD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    for (request, argument) in
        [(PERF_EVENT_IOC_SET_BPF, program as libc::c_ulong), (PERF_EVENT_IOC_ENABLE, 0)]
    {
        // SAFETY: both requests take an integer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(event)
}
