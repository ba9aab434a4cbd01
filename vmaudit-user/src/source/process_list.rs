//! Looks at every process once: counts from the kernel's own walk where that is to be had, names from /proc.
//!
//! What of a process can block, its memory map and its command line, is read [`apart`]. A process that does
//! not answer keeps its row: what the kernel's walk and the files that never block tell of it.

mod shared;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use anyhow::Context;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use self::shared::{Known, Names, find, groups_of};

use crate::domain::application::{application, arguments};
use crate::domain::cgroup::Groups;
use crate::domain::process_filter::ProcessFilter;
use crate::model::scan::Row;
use crate::model::unreadable::Unreadable;
use crate::os::apart;
use crate::os::apart::{Patience, Unanswered};
use crate::os::procfs::{CountBuffer, Handle, Proc, Stat};
use crate::source::ebpf::task_iter::Task;

/// One walk of the kernel over all processes, which come in ascending order of pid.
pub type Walk<'a> = &'a dyn Fn() -> io::Result<Vec<Task>>;

/// Command lines longer than this are read through a larger buffer, bytes.
const USUAL_CMDLINE: usize = 16 * 1024;

/// What is looked for.
pub struct Wanted<'a> {
    /// Of which processes.
    pub filter: &'a ProcessFilter,
    /// Parent, name and cgroup of each process.
    pub details: bool,
    /// The cgroups of so many of the largest, at least.
    pub units: usize,
}

/// Every wanted process. `walk`: the kernel's own counts; without it the lines of /proc/PID/maps.
pub fn read(wanted: &Wanted<'_>, proc: &Proc, walk: Option<Walk<'_>>) -> anyhow::Result<Vec<Row>> {
    let patience = Patience::default();
    let mut asked = wanted.filter.pids.clone();
    asked.sort_unstable();
    asked.dedup();
    let Some(walk) = walk else {
        let pids = if asked.is_empty() {
            proc.pids().with_context(|| format!("cannot read {}", proc.root().display()))?
        } else {
            asked
        };
        return Ok(all_by_lines(wanted, &pids, proc, &patience));
    };
    let mut tasks = walk().context("the kernel's task iterator failed")?;
    // Some hosts guard their first process from BPF and from /proc alike; then it is a row with that reason.
    let first = (asked.is_empty() && find(&tasks, 1).is_none()).then_some(1);
    tasks.retain(|task| {
        (asked.is_empty() || asked.binary_search(&task.pid).is_ok())
            && wanted.filter.owner(task.uid)
            && named_so(wanted, proc, task.pid, &task.comm)
    });
    let mut names = Names::new(proc);
    let least = least_of(&tasks, wanted.units);
    let with_groups = |task: &Task| asks_for_groups(wanted, task.vmas.is_none_or(|vmas| vmas >= least));
    let mut known: Vec<Known> = Vec::with_capacity(tasks.len());
    tasks.retain(|task| {
        // Who is left out is not looked at again: nobody's word is taken for him.
        let own = wanted.filter.asks_for_group();
        let it = if own { names.own(task.pid, true) } else { names.of(task, with_groups(task)) };
        let fits = wanted.filter.group(it.groups.as_ref());
        known.extend(fits.then_some(it));
        fits
    });
    let items: Vec<Item<'_>> = tasks.iter().map(Item::Walked).chain(first.map(Item::Listed)).collect();
    let mut told = tell(wanted, &items, proc, &patience)?;
    let first_row = first.and_then(|pid| Some((pid, told.pop()?)));
    for ((task, it), _) in tasks.iter().zip(&mut known).zip(&told).filter(|(_, told)| told.is_err()) {
        it.groups = groups_of(proc, task.pid);
    }
    // A pid that changed its owner since the first look has lent its names to the wrong row.
    let mut now = walk().unwrap_or_default();
    let mut anew = false;
    for (task, it) in tasks.iter().zip(&mut known).filter(|(task, _)| names.unsure(task, &now)) {
        *it = names.own(task.pid, it.groups.is_some() || with_groups(task));
        anew = true;
    }
    if anew {
        now = walk().unwrap_or_default();
    }
    let mut rows: Vec<Row> = Vec::with_capacity(items.len());
    for ((task, mut it), mut told) in tasks.iter().zip(known).zip(told) {
        if find(&now, task.pid).is_some_and(|now| now.start_ns != task.start_ns) {
            it = Known::default();
            if let Ok(Told::Walked(arguments, _)) = &mut told {
                arguments.clear();
            }
        }
        rows.extend(match told {
            Ok(Told::Walked(arguments, count)) => by_walk(wanted, task, it, arguments, count),
            Ok(Told::Listed(_)) => None, // not what was asked
            Err(why) => silent_by_walk(wanted, task, it, why.into()),
        });
    }
    let walked = |pid: u32| find(&now, pid).is_some() || find(&tasks, pid).is_some();
    if let Some((pid, told)) = first_row.filter(|(pid, _)| !walked(*pid)) {
        rows.extend(match told {
            Ok(Told::Listed(row)) => row.map(|row| *row),
            Ok(Told::Walked(..)) => None, // not what was asked
            Err(why) => silent_by_lines(wanted, pid, proc, why.into()),
        });
    }
    // Asked for by number and not walked: a kernel thread, or nobody.
    let missing: Vec<u32> = asked.into_iter().filter(|&pid| !walked(pid)).collect();
    rows.extend(all_by_lines(wanted, &missing, proc, &patience));
    Ok(rows)
}

/// What a child is asked about.
enum Item<'a> {
    /// A process that the walk found: what can block.
    Walked(&'a Task),
    /// One that it did not find: everything.
    Listed(u32),
}

/// What it tells.
#[derive(Serialize, Deserialize)]
enum Told {
    /// The command line, and the count where the walk had none.
    Walked(Vec<String>, Option<Result<u64, Unreadable>>),
    Listed(Option<Box<Row>>),
}

fn tell(
    wanted: &Wanted<'_>,
    items: &[Item<'_>],
    proc: &Proc,
    patience: &Patience,
) -> anyhow::Result<Vec<Result<Told, Unanswered>>> {
    let cannot = || format!("cannot read {}", proc.root().display());
    // A child has no descriptor of ours.
    drop(proc.folder().with_context(cannot)?);
    let lines = || CommandLines { folder: proc.folder().ok(), proc, buffer: CountBuffer::default() };
    // Rights to read other users' processes (CAP_SYS_PTRACE) are needed in there.
    Ok(apart::each(items, patience, lines, |item, lines, _| match *item {
        Item::Listed(pid) => Told::Listed(by_lines(wanted, pid, proc, &mut lines.buffer).map(Box::new)),
        Item::Walked(task) => {
            // It was in the middle of an exec or an exit: asked again in the other way.
            let count = (task.vmas.is_none() && !task.zombie).then(|| {
                let handle = proc.open(task.pid);
                handle.and_then(|handle| handle.count(&handle.stat()?, &mut lines.buffer))
            });
            Told::Walked(lines.of(task.pid).unwrap_or_default(), count)
        }
    }))
}

/// The count of the last among so many of the largest.
fn least_of(tasks: &[Task], largest: usize) -> u64 {
    let mut counts: Vec<u64> = tasks.iter().map(|task| task.vmas.unwrap_or(0)).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    largest.checked_sub(1).map_or(u64::MAX, |last| counts.get(last).copied().unwrap_or(0))
}

fn all_by_lines(wanted: &Wanted<'_>, pids: &[u32], proc: &Proc, patience: &Patience) -> Vec<Row> {
    // As above.
    let answers = apart::each(pids, patience, CountBuffer::default, |&pid, buffer, _| {
        by_lines(wanted, pid, proc, buffer)
    });
    let rows = pids.iter().zip(answers);
    rows.filter_map(|(&pid, answer)| {
        answer.unwrap_or_else(|why| silent_by_lines(wanted, pid, proc, why.into()))
    })
    .collect()
}

/// Command lines by path below an open /proc.
struct CommandLines<'a> {
    folder: Option<OwnedFd>,
    proc: &'a Proc,
    buffer: CountBuffer,
}

impl CommandLines<'_> {
    fn of(&mut self, pid: u32) -> Option<Vec<String>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let path = format!("{pid}/cmdline");
        let folder = self.folder.as_ref()?;
        let mut file = File::from(openat(folder, path.as_str(), flags, Mode::empty()).ok()?);
        let buffer = self.buffer.bytes(USUAL_CMDLINE);
        let n = file.read(buffer).ok()?;
        if n < buffer.len() {
            return Some(arguments(buffer.get(..n)?));
        }
        drop(file);
        Some(arguments(&self.proc.open(pid).ok()?.cmdline()?))
    }
}

/// Its name, or that of one of its threads, is a wanted one. Never blocks.
fn named_so(wanted: &Wanted<'_>, proc: &Proc, pid: u32, comm: &str) -> bool {
    let threads = || proc.open(pid).is_ok_and(|handle| handle.thread_named(|name| wanted.filter.name(name)));
    wanted.filter.name(comm) || threads()
}

/// Somebody wants to know the cgroups of a process; `shown`: one of those that people look at.
fn asks_for_groups(wanted: &Wanted<'_>, shown: bool) -> bool {
    shown || wanted.details || wanted.filter.asks_for_group()
}

/// A process that the kernel's walk found. `count`: where the walk had none.
fn by_walk(
    wanted: &Wanted<'_>,
    task: &Task,
    known: Known,
    arguments: Vec<String>,
    count: Option<Result<u64, Unreadable>>,
) -> Option<Row> {
    let Known { exe, groups } = known;
    if !wanted.filter.group(groups.as_ref()) || !wanted.filter.file(exe.as_deref()) {
        return None;
    }
    let (count, exact) = match task.vmas {
        Some(vmas) => (Ok(vmas), true),
        None => (count.unwrap_or(Err(Unreadable::Zombie)), false),
    };
    Some(Row {
        pid: task.pid,
        ppid: Some(task.ppid),
        uid: Some(task.uid),
        app: named(exe.as_deref(), &arguments, &task.comm, task.pid),
        comm: task.comm.clone(),
        exe,
        arguments,
        within: groups.as_ref().map(Groups::within).unwrap_or_default(),
        cgroup: groups.and_then(|groups| groups.shown),
        count,
        exact,
        silent: None,
    })
}

/// One that did not answer: what the walk told.
fn silent_by_walk(wanted: &Wanted<'_>, task: &Task, known: Known, why: Unreadable) -> Option<Row> {
    let groups = known.groups;
    if !wanted.filter.group(groups.as_ref()) || !wanted.filter.exe.is_empty() {
        return None;
    }
    Some(Row {
        ppid: Some(task.ppid),
        uid: Some(task.uid),
        app: named(None, &[], &task.comm, task.pid),
        comm: task.comm.clone(),
        within: groups.as_ref().map(Groups::within).unwrap_or_default(),
        cgroup: groups.and_then(|groups| groups.shown),
        count: task.vmas.ok_or_else(|| why.clone()),
        exact: task.vmas.is_some(),
        silent: Some(why.clone()),
        ..Row::unread(task.pid, why)
    })
}

/// One that did not answer: its owner, name and cgroup, which never block (fs/proc/array.c:do_task_stat takes no mmap
/// lock, in all versions).
fn silent_by_lines(wanted: &Wanted<'_>, pid: u32, proc: &Proc, why: Unreadable) -> Option<Row> {
    let handle = proc.open(pid).ok();
    let stat = handle.as_ref().and_then(|handle| handle.stat().ok());
    let uid = handle.as_ref().map(|handle| handle.uid);
    let comm = stat.as_ref().map(|stat| stat.comm.clone()).unwrap_or_default();
    let groups = groups_of(proc, pid);
    let fits = wanted.filter.group(groups.as_ref())
        && wanted.filter.exe.is_empty()
        && (wanted.filter.uids.is_empty() || uid.is_some_and(|uid| wanted.filter.owner(uid)))
        && named_so(wanted, proc, pid, &comm);
    fits.then(|| Row {
        ppid: stat.map(|stat| stat.ppid),
        uid,
        app: named(None, &[], &comm, pid),
        comm,
        within: groups.as_ref().map(Groups::within).unwrap_or_default(),
        cgroup: groups.and_then(|groups| groups.shown),
        silent: Some(why.clone()),
        ..Row::unread(pid, why)
    })
}

/// One process by /proc alone; `None` when a filter leaves it out, or it is a kernel thread that nobody asked for by its
/// pid.
fn by_lines(wanted: &Wanted<'_>, pid: u32, proc: &Proc, buffer: &mut CountBuffer) -> Option<Row> {
    let handle = match proc.open(pid) {
        Ok(handle) => handle,
        // Without its owner or its name no filter can be answered.
        Err(_) if wanted.filter.asks_for_more() => return None,
        Err(reason) => return Some(Row::unread(pid, reason)),
    };
    if !wanted.filter.owner(handle.uid) {
        return None;
    }
    let groups = handle.cgroups().map(|text| Groups::parse(&text));
    if !wanted.filter.group(groups.as_ref())
        || !wanted.filter.exe.is_empty() && !wanted.filter.file(handle.exe().as_deref())
    {
        return None;
    }
    let details = wanted.details || !wanted.filter.comm.is_empty();
    let mut stat = if details { handle.stat().ok() } else { None };
    let fits = |stat: &Stat| named_so(wanted, proc, pid, &stat.comm);
    if !wanted.filter.comm.is_empty() && !stat.as_ref().is_some_and(fits) {
        return None;
    }
    let count = count_lines(&handle, &mut stat, buffer);
    if count == Err(Unreadable::KernelThread) && wanted.filter.pids.is_empty() {
        return None;
    }
    let arguments = arguments(&handle.cmdline().unwrap_or_default());
    let exe = handle.exe();
    stat = stat.or_else(|| handle.stat().ok());
    let comm = stat.as_ref().map(|stat| stat.comm.clone()).unwrap_or_default();
    Some(Row {
        pid,
        ppid: stat.as_ref().map(|stat| stat.ppid),
        uid: Some(handle.uid),
        app: named(exe.as_deref(), &arguments, &comm, pid),
        comm,
        exe,
        arguments,
        within: groups.as_ref().map(Groups::within).unwrap_or_default(),
        cgroup: groups.and_then(|groups| groups.shown),
        count,
        exact: false,
        silent: None,
    })
}

/// Most processes are alive and readable: then `stat` need not be read to know how to count.
fn count_lines(
    handle: &Handle,
    stat: &mut Option<Stat>,
    buffer: &mut CountBuffer,
) -> Result<u64, Unreadable> {
    let fast = handle.file("maps").ok().and_then(|mut file| buffer.count(&mut file).ok());
    if let Some(count @ 1..) = fast {
        return Ok(count);
    }
    let found = match stat {
        Some(stat) => stat.clone(),
        None => handle.stat()?,
    };
    let count = handle.count(&found, buffer);
    *stat = Some(found);
    count
}

fn named(exe: Option<&str>, arguments: &[String], comm: &str, pid: u32) -> String {
    let fallback = format!("[pid {pid}]");
    application(exe, arguments, if comm.is_empty() { &fallback } else { comm })
}
