//! All processes at once: one small eBPF program walks the kernel's list of tasks and writes a line for each process.
//!
//! `scan` lives for some milliseconds, so it does not load the object with its maps and type information: this program
//! has no map and is put together here, from offsets that BTF gives, and the verifier checks each load against the
//! kernel's own types. It takes no lock of any process and stops nobody.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, OwnedFd};

use bytemuck::{Pod, Zeroable};

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
}

/// The program, ready to walk; each walk is a fresh look.
#[derive(Debug)]
pub struct Census {
    link: OwnedFd,
    /// Level and address of the pid namespace that it was opened in; level 0: the machine's first one.
    namespace: (u32, u64),
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
        let btf = Btf::parse(&bytes, &["task_struct", "mm_struct", "cred", "pid", "upid", ITERATOR])
            .ok_or_else(|| format!("{BTF_PATH} has a form that vmaudit does not know"))?;
        let mut offsets = Offsets::of(&btf)?;
        if let Some(level) = level {
            offsets.numbers = Some(NumberOffsets::of(&btf, level)?);
        }
        let target = btf.function(ITERATOR).ok_or("this kernel has no task iterator (it came with 5.8)")?;
        Self::load(&program(&offsets), target).map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "the kernel does not allow it: that needs root, or CAP_BPF and CAP_PERFMON".into()
            }
            _ => format!("the kernel refuses the task iterator ({e})"),
        })
    }

    fn load(program: &[Instruction], target: u32) -> io::Result<Self> {
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
        Ok(Self { link: bpf(LINK_CREATE, &link)?, namespace: (0, 0) })
    }

    /// Every process that is there now, in ascending order of pid.
    pub fn take(&self) -> io::Result<Vec<Task>> {
        Ok(self.tasks(&self.lines()?))
    }

    fn lines(&self) -> io::Result<Vec<Line>> {
        const ITER_CREATE: libc::c_int = 33;
        let _rights = rights::raised(&rights::EBPF);
        let mut file = File::from(bpf(ITER_CREATE, &Iter { link: self.link.as_raw_fd() as u32, flags: 0 })?);
        let mut bytes = Vec::with_capacity(64 * 1024);
        loop {
            match file.read_to_end(&mut bytes) {
                Ok(_) => break,
                // After a million threads without a line the kernel comes up for air (kernel/bpf/bpf_iter.c).
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bytes.chunks_exact(LINE).filter_map(|line| bytemuck::try_pod_read_unaligned(line).ok()).collect())
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

fn task(line: &Line) -> Task {
    let comm = line.comm.split(|&b| b == 0).next().unwrap_or_default();
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
    }
}

/// Byte offsets of the members that the program reads.
struct Offsets {
    flags: u32,
    pid: u32,
    tgid: u32,
    mm: u32,
    leader: u32,
    parent: u32,
    cred: u32,
    euid: u32,
    start: u32,
    exit_state: u32,
    comm: u32,
    map_count: u32,
    numbers: Option<NumberOffsets>,
}

/// The same for numbers inside a pid namespace.
struct NumberOffsets {
    /// Of struct pid.
    thread_pid: u32,
    level: u32,
    /// The entry of that level.
    entry: u32,
}

impl NumberOffsets {
    fn of(btf: &Btf<'_>, level: u32) -> Result<Self, String> {
        let need = |of: &'static str, member: &str| {
            btf.member(of, member).ok_or_else(|| format!("this kernel's BTF has no {of}.{member}"))
        };
        if (need("upid", "nr")?, need("upid", "ns")?) != (0, 8) {
            return Err("this kernel keeps process numbers in a form that vmaudit does not know".into());
        }
        Ok(Self {
            thread_pid: need("task_struct", "thread_pid")?,
            level: need("pid", "level")?,
            entry: need("pid", "numbers")? + level * size_of::<Upid>() as u32,
        })
    }
}

impl Offsets {
    fn of(btf: &Btf<'_>) -> Result<Self, String> {
        let need = |of: &'static str, member: &str| {
            btf.member(of, member).ok_or_else(|| format!("this kernel's BTF has no {of}.{member}"))
        };
        Ok(Self {
            flags: need("task_struct", "flags")?,
            pid: need("task_struct", "pid")?,
            tgid: need("task_struct", "tgid")?,
            mm: need("task_struct", "mm")?,
            leader: need("task_struct", "group_leader")?,
            parent: need("task_struct", "real_parent")?,
            cred: need("task_struct", "cred")?,
            euid: need("cred", "euid")?,
            start: need("task_struct", "start_boottime")?,
            exit_state: need("task_struct", "exit_state")?,
            comm: need("task_struct", "comm")?,
            map_count: need("mm_struct", "map_count").or_else(|_| need("mm_struct", "vma_count"))?,
            numbers: None,
        })
    }
}

/// struct bpf_insn (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Instructions in order; jumps go forward to places that get their number later.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Leader,
    NoMemory,
    End,
}

/// Registers: 0 result, 1 to 5 arguments and scratch, 6 to 9 kept over calls, 10 the stack.
type Register = u8;

impl Assembler {
    fn put(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers: from << 4 | to, offset, immediate });
    }

    /// `to = *(u64 *)(from + offset)`; with `word` the 32-bit form.
    fn load(&mut self, word: bool, to: Register, from: Register, offset: u32) {
        // Offsets above 32 KiB (a task_struct with everything switched on) do not fit an instruction.
        match i16::try_from(offset) {
            Ok(offset) => self.put(if word { 0x61 } else { 0x79 }, to, from, offset, 0),
            Err(_) => {
                self.put(0xbf, to, from, 0, 0);
                self.put(0x07, to, 0, 0, offset as i32);
                self.put(if word { 0x61 } else { 0x79 }, to, to, 0, 0);
            }
        }
    }

    /// Copies `bytes` bytes of kernel memory to the stack; zeroes when the address is bad. Registers 0 to 5 are lost.
    ///
    /// A typed load of a pointer would do the same, but for each one the verifier looks names up in all of the kernel's
    /// BTF, one after the other (kernel/bpf/btf.c:btf_find_by_name_kind, 6.18): 1 ms apiece.
    fn copy(&mut self, bytes: i32, stack: i16, from: Register, offset: u32) {
        const PROBE_READ_KERNEL: i32 = 113;
        self.put(0xbf, 3, from, 0, 0);
        self.put(0x07, 3, 0, 0, offset as i32);
        self.put(0xbf, 1, 10, 0, 0);
        self.put(0x07, 1, 0, 0, i32::from(stack));
        self.put(0xb7, 2, 0, 0, bytes);
        self.put(0x85, 0, 0, 0, PROBE_READ_KERNEL);
    }

    /// A pointer, by way of the stack.
    fn pointer(&mut self, to: Register, from: Register, offset: u32) {
        const SCRATCH: i16 = -(LINE as i16) - 8;
        self.copy(8, SCRATCH, from, offset);
        self.put(0x79, to, 10, SCRATCH, 0);
    }

    fn jump(&mut self, code: u8, left: Register, right: Register, immediate: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.put(code, left, right, 0, immediate);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.code.len()));
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let place =
                self.places.iter().find(|(name, _)| *name == label).map_or(at + 1, |(_, place)| *place);
            if let Some(jump) = self.code.get_mut(at) {
                jump.offset = (place - at - 1) as i16;
            }
        }
        self.code
    }
}

/// The program. Context: `meta`, `task` (kernel/bpf/task_iter.c:bpf_iter__task, 5.8 and later).
fn program(at: &Offsets) -> Vec<Instruction> {
    const SAME: u8 = 0x1d; // to a register, 64 bits
    const DIFFERENT: u8 = 0x5d;
    const ZERO: u8 = 0x15; // to an immediate
    const NOT_ZERO: u8 = 0x55;
    const ANY_BIT: u8 = 0x45;
    const STORE32: u8 = 0x63;
    const STORE64: u8 = 0x7b;
    const STORE_ZERO: u8 = 0x7a; // 64 bits
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const ADD: u8 = 0x07;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const PF_KTHREAD: i32 = 0x0020_0000; // include/linux/sched.h
    const SEQ_WRITE: i32 = 127;
    let slot = |member: usize| member as i16 - LINE as i16;
    let (context, task, mm, kept) = (6, 7, 8, 9);
    let mut a = Assembler::default();

    a.put(MOVE, context, 1, 0, 0);
    a.load(false, task, context, 8);
    a.jump(ZERO, task, 0, 0, Label::End); // past the last task
    // A kernel thread may borrow an address space for a while; it is not its own.
    a.load(true, 1, task, at.flags);
    a.jump(ANY_BIT, 1, 0, PF_KTHREAD, Label::End);
    a.pointer(mm, task, at.mm);
    a.load(true, kept, task, at.tgid);
    a.load(true, 1, task, at.pid);
    a.jump(SAME, 1, kept, 0, Label::Leader);
    // Another thread speaks for its process only when the leader has ended and left it the memory.
    a.jump(ZERO, mm, 0, 0, Label::End);
    a.pointer(1, task, at.leader);
    a.pointer(1, 1, at.mm);
    a.jump(NOT_ZERO, 1, 0, 0, Label::End);

    a.place(Label::Leader);
    for word in (0..LINE).step_by(8) {
        a.put(STORE_ZERO, 10, 0, slot(word), 0);
    }
    a.put(STORE32, 10, kept, slot(offset_of!(Line, pid)), 0);
    a.jump(ZERO, mm, 0, 0, Label::NoMemory);
    a.copy(4, slot(offset_of!(Line, vmas)), mm, at.map_count);
    // While the task still has it, it cannot have been freed and used for something else meanwhile
    // (kernel/exit.c:exit_mm lets go of it after this pointer is cleared).
    a.pointer(1, task, at.mm);
    a.jump(DIFFERENT, 1, mm, 0, Label::NoMemory);
    a.put(SET, 1, 0, 0, 1);
    a.put(STORE32, 10, 1, slot(offset_of!(Line, counted)), 0);

    a.place(Label::NoMemory);
    a.load(true, 1, task, at.exit_state);
    a.put(STORE32, 10, 1, slot(offset_of!(Line, exit_state)), 0);
    a.load(false, 1, task, at.start);
    a.put(STORE64, 10, 1, slot(offset_of!(Line, start_ns)), 0);
    a.pointer(1, task, at.parent);
    a.copy(4, slot(offset_of!(Line, ppid)), 1, at.tgid);
    a.pointer(1, task, at.cred);
    a.copy(4, slot(offset_of!(Line, uid)), 1, at.euid);
    a.copy(16, slot(offset_of!(Line, comm)), task, at.comm);

    if let Some(numbers) = &at.numbers {
        for (of, upid) in [(None, offset_of!(Line, own)), (Some(at.parent), offset_of!(Line, parent))] {
            a.put(MOVE, kept, task, 0, 0);
            if let Some(of) = of {
                a.pointer(kept, task, of);
            }
            a.pointer(1, kept, at.leader);
            a.pointer(kept, 1, numbers.thread_pid);
            if of.is_none() {
                a.copy(4, slot(offset_of!(Line, level)), kept, numbers.level);
            }
            a.copy(16, slot(upid), kept, numbers.entry);
        }
    }

    a.load(false, kept, context, 0);
    a.load(false, 1, kept, 0); // meta->seq
    a.put(MOVE, 2, 10, 0, 0);
    a.put(ADD, 2, 0, 0, i32::from(slot(0)));
    a.put(SET, 3, 0, 0, LINE as i32);
    a.put(CALL, 0, 0, 0, SEQ_WRITE);

    a.place(Label::End);
    a.put(SET, 0, 0, 0, 0);
    a.put(EXIT, 0, 0, 0, 0);
    a.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(task: u32) -> Offsets {
        Offsets {
            flags: task,
            pid: task,
            tgid: task,
            mm: task,
            leader: task,
            parent: task,
            cred: task,
            euid: 8,
            start: task,
            exit_state: task,
            comm: task,
            map_count: 112,
            numbers: None,
        }
    }

    #[test]
    fn every_jump_lands_inside_behind_itself() {
        for at in [0, 32_767, 32_768, 70_000] {
            let program = program(&offsets(at));
            let jumps = program.iter().enumerate().filter(|(_, i)| i.code & 7 == 5 && i.code < 0x80);
            let mut count = 0;
            for (place, jump) in jumps {
                assert!(jump.offset > 0 && place + 1 + (jump.offset as usize) < program.len());
                count += 1;
            }
            assert_eq!(count, 7);
            assert_eq!(program.last().map(|last| last.code), Some(0x95));
        }
    }

    #[test]
    fn a_line_becomes_a_task() {
        let mut line = Line { pid: 7, vmas: 65530, counted: 1, uid: 5, ..Line::zeroed() };
        line.comm[..4].copy_from_slice(b"ab\xff\x1b");
        let one = task(&line);
        assert_eq!((one.pid, one.vmas, one.uid, one.zombie), (7, Some(65530), 5, false));
        assert_eq!(one.comm, "ab\u{fffd}\x1b");
        line.counted = 0;
        line.exit_state = 0x20;
        let one = task(&line);
        assert_eq!((one.vmas, one.zombie), (None, true));
    }
}
