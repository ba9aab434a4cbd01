//! Reads the mappings of one process, or of a file that holds them, for [`crate::domain::vma_layout`].
//!
//! Mappings stream through once; what is kept is bounded whatever the input: tallies by kind, by owner, by reason, the
//! largest regions, and a folded picture.

mod by_name;
pub(crate) mod core;
mod file;
pub(crate) mod jvm_log;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, bail};

use crate::domain::application::{Anonymizer, application, arguments};
use crate::domain::vma_layout::analysis::{self, Beside, policies};
use crate::domain::vma_layout::verdict::conclude;
use crate::model::unreadable::Unreadable;
use crate::model::vma_layout::{Explanation, Origin, Reason};
use crate::os::apart::{Beat, Patience, Unanswered};
use crate::os::procfs::{Handle, Paced, Proc, Stat};
use crate::os::{apart, procfs, rights};
use crate::text;

pub use by_name::{Match, find};
pub use file::{Recorded, recorded};

/// How a process or a copy of its files is looked at.
#[derive(Clone, Debug)]
pub struct ExplainOptions {
    /// Whether to read smaps and numa_maps of the process, which walk its page tables.
    pub details: Details,
    /// Stop reading after this many VMAs.
    pub max_vmas: u64,
}

/// When smaps is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Details {
    /// When the process has few VMAs and little resident memory.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// With `--details auto` smaps is read up to this many VMAs ...
const SMALL_VMAS: u64 = 5_000;
/// ... up to so many where nothing else tells why they do not merge ...
const TELLING_VMAS: u64 = 200_000;
/// ... and up to so many resident bytes: its page tables are walked.
const SMALL_RESIDENT: u64 = 1 << 30;

/// The answer to the only question.
fn only<R>(answers: Vec<Result<R, Unanswered>>) -> Result<R, Unreadable> {
    answers.into_iter().next().unwrap_or(Err(Unanswered::NotAsked)).map_err(Unreadable::from)
}

/// Looks at a living process from a child: its files may block for ever. Errors: it is not there, may not be read, or has
/// no address space of its own.
pub fn live(
    pid: u32,
    options: &ExplainOptions,
    anonymizer: &Anonymizer,
    patience: &Patience,
) -> anyhow::Result<Explanation> {
    let proc = &Proc::new("/proc");
    let hidden = !rights::may_know_addresses(pid, None);
    let _rights = rights::raised(&rights::PROCESSES);
    let refuse = |reason: Unreadable| anyhow::anyhow!("process {pid} {}", reason.sentence());
    // These two never block.
    let handle = proc.open(pid).map_err(refuse)?;
    let stat = handle.stat().map_err(refuse)?;
    if stat.kernel_thread {
        bail!("process {pid} is a kernel thread, without an address space of its own");
    }
    drop(handle);
    let same = || {
        let handle = proc.open(pid)?;
        let now = handle.stat()?;
        // Its number may be another process's by now.
        if now.start_ticks == stat.start_ticks { Ok((handle, now)) } else { Err(Unreadable::Gone) }
    };
    let look = |(): &(), (): &mut (), beat: &Beat| {
        let (handle, stat) = same().map_err(|reason| refuse(reason).to_string())?;
        mappings(options, &handle, &stat, anonymizer, beat).map_err(|e| format!("{e:#}"))
    };
    let found: Result<Explanation, String> =
        only(apart::each(&[()], patience, || (), look)).map_err(refuse)?;
    let mut explanation = found.map_err(anyhow::Error::msg)?;
    let look = |(): &(), (): &mut (), _: &Beat| {
        same().map_or_else(|_| stat.comm.clone(), |(handle, stat)| subject(&handle, &stat))
    };
    let subject = only(apart::each(&[()], patience, || (), look)).unwrap_or_else(|why| {
        let name = "the kernel's name is shown instead.";
        explanation.notes.push(format!("Its command line {}: {name}", why.sentence()));
        stat.comm.clone()
    });
    explanation.pid = Some(pid);
    explanation.origin = Origin::Process;
    explanation.subject = anonymizer.apply(&subject).into_owned();
    explanation.max_map_count = proc.limits().max_map_count;
    if hidden {
        explanation.hide_addresses();
        explanation.notes.push(
            "Addresses are left out: you may not look into this process yourself, and vmaudit has rights that you lack."
                .to_owned(),
        );
    }
    conclude(&mut explanation);
    Ok(explanation)
}

/// In the child: the mappings, with what stands in smaps if that is asked for or cheap.
fn mappings(
    options: &ExplainOptions,
    handle: &Handle,
    stat: &Stat,
    anonymizer: &Anonymizer,
    beat: &Beat,
) -> anyhow::Result<Explanation> {
    let pid = handle.pid;
    let mut notes = Vec::new();
    let read = |name: &str, notes: &mut Vec<String>, with_policies: bool| -> anyhow::Result<Explanation> {
        let policies = match if with_policies { handle.map_file(stat, "numa_maps").ok() } else { None } {
            Some(file) => policies(paced(&file, beat)),
            None => HashMap::new(),
        };
        let file = handle
            .map_file(stat, name)
            .map_err(|reason| anyhow::anyhow!("process {pid} {}", reason.sentence()))?;
        let beside = Beside { max_vmas: options.max_vmas, policies, anonymizer: anonymizer.clone() };
        let mut read = analysis::read(paced(&file, beat), beside, Some(stat.threads), notes)
            .with_context(|| format!("process {pid}: cannot read its {name}"))?;
        if !procfs::still_there(&file) {
            read.complete = false;
            notes.push(format!(
                "The process ended while it was read: these are the first {} of its VMAs.",
                text::grouped(read.vmas)
            ));
        }
        Ok(read)
    };
    let detailed = options.details == Details::Always;
    let mut explanation = read(if detailed { "smaps" } else { "maps" }, &mut notes, detailed)?;
    if explanation.vmas == 0 {
        bail!("process {pid} has no mappings: it is ending");
    }
    if options.details == Details::Auto {
        let few = explanation.vmas <= SMALL_VMAS || explanation.vmas <= TELLING_VMAS && untold(&explanation);
        if few && handle.resident_bytes().is_some_and(|bytes| bytes <= SMALL_RESIDENT) {
            let mut second = Vec::new();
            // Between the two looks it may have ended, or smaps may be forbidden: the first look stands.
            match read("smaps", &mut second, true) {
                Ok(detailed) if detailed.vmas > 0 && (detailed.complete || !explanation.complete) => {
                    explanation = detailed;
                    notes = second;
                }
                _ => notes.push("smaps could not be read: flags are not known.".to_owned()),
            }
        } else {
            notes.push(
                "Flags were not read: smaps walks the page tables of a process this large. --details always reads it."
                    .to_owned(),
            );
        }
    }
    explanation.notes = notes;
    Ok(explanation)
}

/// Much of why neighbours do not merge stands in smaps and numa_maps, if anywhere.
fn untold(it: &Explanation) -> bool {
    let hidden = it.boundaries.iter().filter(|row| matches!(row.reason, Reason::Hidden { .. }));
    hidden.map(|row| row.boundaries).sum::<u64>() * 4 >= it.vmas
}

fn paced<'a>(file: &'a File, beat: &'a Beat) -> impl BufRead + 'a {
    BufReader::with_capacity(64 << 10, Answering { inner: Paced::new(file), beat })
}

/// Tells the parent with each read that the process answers.
struct Answering<'a, R> {
    inner: R,
    beat: &'a Beat,
}

impl<R: Read> Read for Answering<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer);
        self.beat.goes_on();
        read
    }
}

fn subject(handle: &Handle, stat: &Stat) -> String {
    let arguments = arguments(&handle.cmdline().unwrap_or_default());
    application(handle.exe().as_deref(), &arguments, &stat.comm)
}
