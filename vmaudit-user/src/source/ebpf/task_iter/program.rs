//! The program itself, put together from offsets that BTF gives.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::{LINE, Line, Upid};
use crate::os::btf::Btf;

/// Byte offsets of the members that the program reads.
pub(super) struct Offsets {
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
    execs: Option<u32>,
    /// Of the executable in an address space, and of the path in a file.
    file: Option<(u32, u32)>,
    groups: Option<u32>,
    pub(super) numbers: Option<NumberOffsets>,
}

/// The same for numbers inside a pid namespace.
pub(super) struct NumberOffsets {
    /// Of struct pid.
    thread_pid: u32,
    level: u32,
    /// The entry of that level.
    entry: u32,
}

impl NumberOffsets {
    pub(super) fn of(btf: &Btf<'_>, level: u32) -> Result<Self, String> {
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
    pub(super) fn of(btf: &Btf<'_>) -> Result<Self, String> {
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
            execs: btf.member("task_struct", "self_exec_id"),
            file: btf.member("mm_struct", "exe_file").zip(btf.member("file", "f_path")),
            groups: btf.member("task_struct", "cgroups"),
            numbers: None,
        })
    }

    /// Bytes that are written for each process.
    pub(super) fn line(&self) -> usize {
        if self.numbers.is_some() { LINE } else { offset_of!(Line, level) }
    }
}

/// struct bpf_insn (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Instruction {
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
    NoGroups,
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
pub(super) fn program(at: &Offsets) -> Vec<Instruction> {
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
    const PF_EXITING: i32 = 0x4;
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
    for word in (0..at.line()).step_by(8) {
        a.put(STORE_ZERO, 10, 0, slot(word), 0);
    }
    a.put(STORE32, 10, kept, slot(offset_of!(Line, pid)), 0);
    a.jump(ZERO, mm, 0, 0, Label::NoMemory);
    a.copy(4, slot(offset_of!(Line, vmas)), mm, at.map_count);
    if let Some((executable, path)) = at.file {
        // struct path (include/linux/path.h, all versions): mount, entry.
        a.pointer(1, mm, executable);
        a.copy(16, slot(offset_of!(Line, mount)), 1, path);
    }
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
    if let Some(execs) = at.execs {
        a.load(false, 1, task, execs);
        a.put(STORE64, 10, 1, slot(offset_of!(Line, execs)), 0);
    }
    if let Some(groups) = at.groups {
        // Of one that is ending, the kernel shows others (kernel/cgroup/cgroup.c:proc_cgroup_show).
        a.load(true, 1, task, at.flags);
        a.jump(ANY_BIT, 1, 0, PF_EXITING, Label::NoGroups);
        a.copy(8, slot(offset_of!(Line, groups)), task, groups);
        a.place(Label::NoGroups);
    }

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
    a.put(SET, 3, 0, 0, at.line() as i32);
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
            execs: Some(task),
            file: Some((task, 64)),
            groups: Some(task),
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
            assert_eq!(count, 8);
            assert_eq!(program.last().map(|last| last.code), Some(0x95));
        }
    }
}
