//! Follows the stack of a refused call without frame pointers, in a copy of it, by the unwind information of the files that
//! its addresses lie in. Runs in the process that has no rights (`parser`).

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::cfi::{Above, Cfi, Unknown};
use super::elf::{self, Program};
use super::generated::{is_python, may_be_jitted};
use super::registers::{FP, RETURN, Registers, SP};
use super::stack_copy::StackCopy;
use super::{Area, Image, inside};
use crate::domain::c_library;
pub use crate::model::stack::FUNCTIONS;

/// A stack to follow.
#[derive(Debug)]
pub struct Stack {
    pub generation: u64,
    pub copy: StackCopy,
    /// The same by frame pointers, as the kernel followed it.
    pub by_frame_pointers: Vec<u64>,
}

/// A stack, followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The program counter, then return addresses.
    pub addresses: Vec<u64>,
    pub end: End,
    /// The first of them whose caller was found by a frame pointer, because nothing tells how it keeps its caller.
    pub by_frame_pointer: Option<usize>,
    /// The first of them in generated code that was taken for one of Python's entries.
    #[serde(default)]
    pub by_python: Option<usize>,
}

impl Followed {
    fn new() -> Self {
        Self { addresses: Vec::new(), end: End::NoCode, by_frame_pointer: None, by_python: None }
    }

    /// Callers are missing at its outer end, or may be.
    pub fn is_cut(&self) -> bool {
        !matches!(self.end, End::First | End::FramePointers { certain: true, .. })
    }
}

/// Where and why it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// At the thread's first function.
    First,
    /// The rest was found by frame pointers: from this function of the list on.
    FramePointers {
        from: usize,
        /// All functions there keep one.
        certain: bool,
    },
    /// In code of which nothing tells how it keeps its caller, and that keeps no frame pointer; generated code, mostly.
    NoFramePointer,
    /// What the file says does not fit the stack.
    Contradiction,
    /// Behind the copy, which has this many bytes.
    NotCopied(u64),
    /// At an address that is not known to hold code.
    NoCode,
    /// There are more functions than are kept.
    Deep,
}

/// Gives the file of a module.
pub type Load<'l> = dyn FnMut(usize) -> io::Result<Option<Program>> + 'l;

/// Follows a stack of a process with these mappings. An error: the one of `load`.
pub fn follow(stack: &Stack, image: &Image, load: &mut Load<'_>) -> io::Result<Followed> {
    let mut walk = Walk { stack, image, files: HashMap::new(), followed: Followed::new() };
    let mut registers = Registers::of_call(&stack.copy.registers);
    let mut signal = false;
    walk.followed.addresses.push(registers.ip);
    while walk.followed.addresses.len() < FUNCTIONS {
        let above = match walk.above(&registers, signal, load)? {
            Ok(Above::Caller { registers: above, signal: interrupted }) => {
                signal = interrupted;
                *above
            }
            Ok(Above::Nothing) => return Ok(walk.end(End::First)),
            Err(end) => return Ok(walk.end(end)),
        };
        // Each caller's frame lies above; a leaf may have none.
        let leaf = walk.followed.addresses.len() == 1;
        let rises = match (registers.get(SP), above.get(SP)) {
            (Some(sp), Some(caller)) => caller > sp || (leaf && caller == sp) || signal,
            _ => false,
        };
        if !rises {
            return Ok(walk.end(End::Contradiction));
        }
        let Some(ip) = code(above.ip, image) else { return Ok(walk.end(End::NoCode)) };
        registers = above;
        registers.ip = ip;
        walk.followed.addresses.push(ip);
    }
    Ok(walk.end(End::Deep))
}

/// The address as code: signed return addresses (arm64) have their signature in the upper bits.
fn code(ip: u64, image: &Image) -> Option<u64> {
    let unsigned = [56, 52, 48, 47, 42, 39, 36].map(|bits| ip & ((1 << bits) - 1));
    let candidates = if cfg!(target_arch = "aarch64") { unsigned.as_slice() } else { &[] };
    [ip].iter().chain(candidates).copied().find(|&ip| image.area(inside(ip)).is_some())
}

struct Walk<'w> {
    stack: &'w Stack,
    image: &'w Image,
    /// By index of the module; `None`: not to be had.
    files: HashMap<usize, Option<Program>>,
    followed: Followed,
}

impl Walk<'_> {
    fn end(self, end: End) -> Followed {
        Followed { end, ..self.followed }
    }

    /// What stands above the last function, which has these registers.
    fn above(
        &mut self,
        registers: &Registers,
        signal: bool,
        load: &mut Load<'_>,
    ) -> io::Result<Result<Above, End>> {
        let at = if signal { registers.ip } else { inside(registers.ip) };
        let Some(area) = self.image.area(at) else { return Ok(Err(End::NoCode)) };
        let Some(module) = area.module else {
            return Ok(match self.python_entry(area, registers) {
                Some(above) => Ok(above),
                None => self.by_frame_pointer(registers),
            });
        };
        let file = match self.files.entry(module) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(load(module)?),
        };
        let Some(object) = file.as_ref().and_then(Program::object) else {
            return Ok(self.by_frame_pointer(registers));
        };
        let cfi = Cfi::of(&object);
        let Some(address) = in_file(area, at).and_then(|at| elf::address(&object, at)) else {
            return Ok(Err(End::Contradiction));
        };
        Ok(match cfi.above(address, registers, &self.stack.copy) {
            Ok(above) => Ok(above),
            Err(Unknown::NoInformation)
                if self.followed.addresses.len() == 1 && c_library::is(&area.name) =>
            {
                match stub(registers, &self.stack.copy).filter(|(ip, _)| code(*ip, self.image).is_some()) {
                    Some((_, above)) => Ok(above),
                    None => self.by_frame_pointer(registers),
                }
            }
            Err(Unknown::NoInformation) if cfi.keeps_frame_pointers() => {
                self.rest(true).map_or_else(|| self.by_frame_pointer(registers), Err)
            }
            Err(Unknown::NoInformation) => self.by_frame_pointer(registers),
            Err(Unknown::NotCopied(_)) => Err(End::NotCopied(self.stack.copy.end() - self.stack.copy.sp)),
            // Beyond code that may keep no frame pointer, that is no fault of the file's.
            Err(Unknown::Contradiction) if self.followed.by_frame_pointer.is_some() => {
                Err(End::NoFramePointer)
            }
            Err(Unknown::Contradiction) => Err(End::Contradiction),
        })
    }

    /// What stands above one of the entries that Python (3.12 on, with -X perf) generates, one for each of its functions: two
    /// words of stack, the outer one returns into Python (CPython, Python/asm_trampoline.S). On arm64 they keep frame
    /// pointers.
    fn python_entry(&mut self, area: &Area, registers: &Registers) -> Option<Above> {
        if !cfg!(target_arch = "x86_64") || !may_be_jitted(&area.name) {
            return None;
        }
        let (sp, fp) = (registers.get(SP)?, registers.get(FP));
        let ip = self.stack.copy.read(sp.checked_add(8)?, 8)?;
        if !is_python(&self.image.area(inside(ip))?.name) {
            return None;
        }
        let last = self.followed.addresses.len().saturating_sub(1);
        self.followed.by_python.get_or_insert(last);
        let mut above = registers.clone();
        above.ip = ip;
        above.set(SP, Some(sp.checked_add(16)?));
        // Later ones keep a frame pointer, in the inner word.
        if fp == Some(sp) {
            above.set(FP, self.stack.copy.read(sp, 8));
        }
        Some(Above::Caller { registers: Box::new(above), signal: false })
    }

    /// What stands above the last function by the frame pointer; or, if that leads nowhere, the rest as the kernel found
    /// it.
    fn by_frame_pointer(&mut self, registers: &Registers) -> Result<Above, End> {
        let last = self.followed.addresses.len().saturating_sub(1);
        let Some(above) = by_frame_pointer(registers, &self.stack.copy) else {
            return Err(self.rest(false).unwrap_or(End::NoFramePointer));
        };
        self.followed.by_frame_pointer.get_or_insert(last);
        Ok(above)
    }

    /// The rest of the stack as the kernel found it by frame pointers, if that came past the last function, and on.
    fn rest(&mut self, certain: bool) -> Option<End> {
        let addresses = &mut self.followed.addresses;
        let from = addresses.len().saturating_sub(1);
        let walked = &self.stack.by_frame_pointers;
        let at = walked.iter().position(|ip| addresses.last() == Some(ip))?;
        let rest = walked.iter().skip(at + 1).take_while(|&&ip| self.image.area(inside(ip)).is_some());
        addresses.extend(rest.take(FUNCTIONS - addresses.len()));
        (addresses.len() > from + 1).then_some(End::FramePointers { from, certain })
    }
}

/// The caller of a function that makes a system call and of which nothing tells how it keeps its caller. In the C library
/// that is one of those that make a thread or a process: they have no frame, and say nothing because for the child it would
/// be wrong (glibc, sysdeps/unix/sysv/linux/x86_64/clone3.S, aarch64/clone.S).
fn stub(registers: &Registers, copy: &StackCopy) -> Option<(u64, Above)> {
    let mut above = registers.clone();
    let sp = registers.get(SP)?;
    if cfg!(target_arch = "aarch64") {
        above.ip = registers.get(RETURN)?;
    } else {
        above.ip = copy.read(sp, 8)?;
        above.set(SP, Some(sp.checked_add(8)?));
    }
    Some((above.ip, Above::Caller { registers: Box::new(above), signal: false }))
}

fn in_file(area: &Area, at: u64) -> Option<u64> {
    (at - area.start).checked_add(area.offset)
}

/// By the word that the frame pointer points at, if it points into the frames above.
fn by_frame_pointer(registers: &Registers, copy: &StackCopy) -> Option<Above> {
    let (sp, fp) = (registers.get(SP)?, registers.get(FP)?);
    if fp < sp || !fp.is_multiple_of(8) {
        return None;
    }
    let (next, ip) = (copy.read(fp, 8)?, copy.read(fp.checked_add(8)?, 8)?);
    let registers = Box::new(Registers::of_caller(ip, fp.checked_add(16)?, next));
    (ip != 0).then_some(Above::Caller { registers, signal: false })
}
