//! All processes at once: one small eBPF program walks the kernel's list of tasks and writes a line for each process.
//!
//! `scan` lives for some milliseconds, so it does not load the object with its maps and type information: this program
//! has no map and is put together here, from offsets that BTF gives, and the verifier checks each load against the
//! kernel's own types. It takes no lock of any process and stops nobody.

mod program;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use bytemuck::{Pod, Zeroable};

use self::program::{Instruction, NumberOffsets, Offsets, program};
use super::bpf_call::{Iter, Link, Load, bpf};
use crate::os::btf::Btf;
use crate::os::kernel::{BTF_PATH, BtfBytes, in_first_pid_namespace, proc_is_ours};
use crate::os::rights;

/// One process, or one that has ended and was not yet waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Process id.
    pub pid: u32,
    /// VMAs; `None` when it has no address space any more, or changed it at that moment (exit, exec).
    pub vmas: Option<u64>,
    /// Parent's process id.
    pub ppid: u32,
    /// Effective owner.
    pub uid: u32,
    /// Start, CLOCK_BOOTTIME ns: with the pid it names one process for good.
    pub start_ns: u64,
    /// Has ended and waits for its parent.
    pub zombie: bool,
    /// Name as the kernel holds it.
    pub comm: String,
    /// Process id as the kernel has it; the same, but inside a pid namespace.
    pub kernels_pid: u32,
    /// By what it is known again.
    pub place: Place,
}

/// What a process runs and where it is, as addresses in the kernel. Of two processes that a walk sees with the same
/// ones, names in /proc are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Grows with each exec.
    pub execs: u64,
    /// Mount and directory entry of the executable; `None` when they are not known.
    pub file: Option<(u64, u64)>,
    /// Its set of cgroups; `None` when it is not known.
    pub groups: Option<u64>,
}

/// The program, ready to walk; each walk is a fresh look.
#[derive(Debug)]
pub struct Census {
    link: OwnedFd,
    /// Level and address of the pid namespace that it was opened in; level 0: the machine's first one.
    namespace: (u32, u64),
    /// Bytes of a line.
    line: usize,
}

impl Census {
    /// Loads and attaches the program; `Err` says why that is not to be had.
    pub fn open() -> Result<Self, String> {
        let _rights = rights::raised(&rights::EBPF);
        if !in_first_pid_namespace() {
            return Self::inside().map(|(census, _)| census);
        }
        Self::at_level(None)
    }

    /// The same inside a pid namespace, with a first look.
    pub fn inside() -> Result<(Self, Vec<Task>), String> {
        let _rights = rights::raised(&rights::EBPF);
        if !proc_is_ours() {
            return Err("the /proc that is mounted here is of another pid namespace".into());
        }
        let failed = |e: io::Error| format!("the kernel's task iterator failed ({e})");
        // Whoever is seen has a number here; those with no deeper one live here.
        let lines = Self::at_level(Some(0))?.lines().map_err(failed)?;
        let level = lines.iter().map(|line| line.level).min().unwrap_or(0);
        let mut census = Self::at_level(Some(level))?;
        let lines = census.lines().map_err(failed)?;
        let here = lines.iter().find(|line| line.level == level).map(|line| line.own.namespace);
        census.namespace = (level, here.unwrap_or(0));
        let tasks = census.tasks(&lines);
        Ok((census, tasks))
    }

    /// See [`Census::namespace`].
    pub fn namespace(&self) -> (u32, u64) {
        self.namespace
    }

    /// `level`: of the pid namespace whose numbers are told; `None`: the kernel's own.
    fn at_level(level: Option<u32>) -> Result<Self, String> {
        let bytes = BtfBytes::open().map_err(|e| format!("{BTF_PATH} cannot be read ({e})"))?;
        let btf = Btf::of(&bytes, &["task_struct", "mm_struct", "cred", "file", "pid", "upid"], ITERATOR)
            .ok_or_else(|| format!("{BTF_PATH} has a form that vmaudit does not know"))?;
        let mut offsets = Offsets::of(&btf)?;
        if let Some(level) = level {
            offsets.numbers = Some(NumberOffsets::of(&btf, level)?);
        }
        let target = btf.function(ITERATOR).ok_or("this kernel has no task iterator (it came with 5.8)")?;
        let line = offsets.line();
        Self::load(&program(&offsets), target, line).map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "the kernel does not allow it: that needs root, or CAP_BPF and CAP_PERFMON".into()
            }
            _ => format!("the kernel refuses the task iterator ({e})"),
        })
    }

    fn load(program: &[Instruction], target: u32, line: usize) -> io::Result<Self> {
        const PROG_LOAD: libc::c_int = 5;
        const LINK_CREATE: libc::c_int = 28;
        let mut load = Load {
            kind: 26, // BPF_PROG_TYPE_TRACING
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            attach_kind: TRACE_ITER,
            target,
            ..Load::zeroed()
        };
        load.name[..6].copy_from_slice(b"census");
        let program = bpf(PROG_LOAD, &load)?;
        let link = Link { program: program.as_raw_fd() as u32, attach_kind: TRACE_ITER, ..Link::zeroed() };
        Ok(Self { link: bpf(LINK_CREATE, &link)?, namespace: (0, 0), line })
    }

    /// Every process that is there now, in ascending order of pid.
    pub fn take(&self) -> io::Result<Vec<Task>> {
        Ok(self.tasks(&self.lines()?))
    }

    fn lines(&self) -> io::Result<Vec<Line>> {
        const ITER_CREATE: libc::c_int = 33;
        let _rights = rights::raised(&rights::EBPF);
        let mut file = File::from(bpf(ITER_CREATE, &Iter { link: self.link.as_raw_fd() as u32, flags: 0 })?);
        let (mut bytes, mut end) = (Vec::new(), 0);
        loop {
            bytes.resize(end + BUFFER, 0);
            match file.read(bytes.get_mut(end..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(more) => end += more,
                // After a million threads without a line the kernel comes up for air (kernel/bpf/bpf_iter.c).
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(end);
        Ok(bytes.chunks_exact(self.line).map(Line::of).collect())
    }

    fn tasks(&self, lines: &[Line]) -> Vec<Task> {
        let (level, here) = self.namespace;
        let task = |line: &Line| {
            let mut task = task(line);
            if level > 0 {
                let number = |of: Upid| if of.namespace == here { of.number } else { 0 };
                task.pid = number(line.own);
                task.ppid = number(line.parent);
            }
            task
        };
        let mut tasks: Vec<Task> = lines.iter().map(task).filter(|task| task.pid != 0).collect();
        tasks.sort_by_key(|task| task.pid);
        // Several threads may have spoken for a leader that has ended; all say the same.
        tasks.dedup_by_key(|task| task.pid);
        tasks
    }
}

/// The function that stands for the iterator in BTF.
const ITERATOR: &str = "bpf_iter_task";
/// BPF_TRACE_ITER.
const TRACE_ITER: u32 = 28;

/// The kernel gives no more at once (kernel/bpf/bpf_iter.c:prepare_seq_file, 8 pages), bytes.
const BUFFER: usize = 32 * 1024;

/// What the program writes for each process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Line {
    pid: u32,
    vmas: u32,
    ppid: u32,
    uid: u32,
    start_ns: u64,
    /// 1: `vmas` is that of an address space which the process held before and after it was read.
    counted: u32,
    exit_state: u32,
    comm: [u8; 16],
    /// Of [`Place`]; 0: not known.
    execs: u64,
    mount: u64,
    entry: u64,
    groups: u64,
    /// Inside a pid namespace only: in how many namespaces below the first one it has a number,
    level: u32,
    reserved: u32,
    /// its number at the level that is asked for, if it has one there,
    own: Upid,
    /// and its parent's.
    parent: Upid,
}

/// A number in a pid namespace (include/linux/pid.h:struct upid, all versions).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Upid {
    number: u32,
    padding: u32,
    /// Address.
    namespace: u64,
}

const LINE: usize = size_of::<Line>();

impl Line {
    /// What a shorter line leaves out is zero.
    fn of(bytes: &[u8]) -> Self {
        let mut line = Self::zeroed();
        bytemuck::bytes_of_mut(&mut line).iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        line
    }
}

fn task(line: &Line) -> Task {
    let comm = line.comm.split(|&b| b == 0).next().unwrap_or_default();
    let held = line.counted == 1 && line.mount != 0 && line.entry != 0;
    Task {
        pid: line.pid,
        kernels_pid: line.pid,
        vmas: (line.counted == 1).then_some(u64::from(line.vmas)),
        ppid: line.ppid,
        uid: line.uid,
        start_ns: line.start_ns,
        // EXIT_ZOMBIE, EXIT_DEAD (include/linux/sched.h, all versions)
        zombie: line.exit_state & 0x30 != 0,
        comm: String::from_utf8_lossy(comm).into_owned(),
        place: Place {
            execs: line.execs,
            file: held.then_some((line.mount, line.entry)),
            groups: (line.groups != 0).then_some(line.groups),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn a_line_becomes_a_task() {
        let mut line = Line { pid: 7, vmas: 65530, counted: 1, uid: 5, ..Line::zeroed() };
        line.comm[..4].copy_from_slice(b"ab\xff\x1b");
        let one = task(&line);
        assert_eq!((one.pid, one.vmas, one.uid, one.zombie), (7, Some(65530), 5, false));
        assert_eq!(one.comm, "ab\u{fffd}\x1b");
        (line.execs, line.mount, line.entry, line.groups) = (2, 3, 4, 5);
        assert_eq!(task(&line).place, Place { execs: 2, file: Some((3, 4)), groups: Some(5) });
        line.counted = 0;
        line.exit_state = 0x20;
        let one = task(&line);
        assert_eq!((one.vmas, one.zombie), (None, true));
        assert_eq!(one.place.file, None, "of an address space that it may not have had");
        (line.level, line.groups) = (7, 0);
        let short = Line::of(&bytemuck::bytes_of(&line)[..offset_of!(Line, level)]);
        assert_eq!((task(&short), short.level), (task(&line), 0));
    }
}
